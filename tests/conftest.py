"""What the tests share: the project's files as modules, small datasets, and scripts run as a user runs them."""
import collections
import contextlib
import functools
import gzip
import hashlib
import importlib
import io
import json
import os
import re
import shutil
import subprocess
import sys

import filelock
import numpy as np
import pytest
from selenium import webdriver
from selenium.webdriver.chrome.service import Service as ChromeService
from selenium.webdriver.firefox.service import Service as FirefoxService

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
sys.path.insert(0, ROOT)
os.environ.setdefault('TF_CPP_MIN_LOG_LEVEL', '2')  # here nothing holds back what TensorFlow prints
os.environ.setdefault('TF_FORCE_GPU_ALLOW_GROWTH', 'true')  # processes that run side by side share a GPU's memory
import utils  # noqa: E402
from support import checkpoints, results, runs, script  # noqa: E402


def imported(name):
    lesson = importlib.import_module(name)
    lesson.tf.config.experimental.list_physical_devices()  # TensorFlow comments on the devices now, not in a test
    return lesson


lesson1, lesson2, lesson3 = map(imported, ('07_basic_filters', '07_convnet_mnist', '07_convnet_towers'))
tf = lesson2.tf
NAME = 'convnet_mnist'  # of a run of lesson 2, by default
LAYERS = ['conv1', 'pool1', 'conv2', 'pool2', 'fc', 'softmax_linear']
FIGURES = ['network', 'learned_kernels', 'activations', 'training_curve', 'confusion', 'mistakes']  # of lesson 2
BOXES = {'data', 'scale', 'conv1', 'pool1', 'conv2', 'pool2', 'fc', 'dropout', 'softmax_linear', 'loss', 'train',
         'global_step', 'moving_average', 'evaluation', 'summaries', 'histograms'}  # of its graph


def pytest_addoption(parser):
    parser.addoption('--screenshots', metavar='DIR', help='where test_tensorboard.py saves its screenshots')
    parser.addoption('--browser', choices=list(BROWSERS), default='chromium', help='for the tests of the pages')


# ---- Data ----

@pytest.fixture(scope='session')
def mnist():
    return utils.read_mnist(utils.MNIST_DIR)


def write_idx(path, array):
    """Writes uint8 [n, height, width] or [n] as an IDX file, gzipped if the name says so."""
    header = bytes([0, 0, 8, array.ndim]) + np.array(array.shape, '>u4').tobytes()
    with (gzip.open if str(path).endswith('.gz') else open)(str(path), 'wb') as file:
        file.write(header + array.tobytes())


def write_small_data(folder, train=720, test=130, resize=lambda images: images):
    """A dataset of the first digits of MNIST; a twelfth of `train` is for validation. resize: images -> images."""
    whole = utils.read_mnist(utils.MNIST_DIR)
    os.makedirs(str(folder))
    for name, digits, count in ('train', whole.train, train), ('t10k', whole.test, test):
        write_idx(os.path.join(str(folder), name + '-images-idx3-ubyte'), resize(digits.images[:count]))
        write_idx(os.path.join(str(folder), name + '-labels-idx1-ubyte'), digits.labels[:count])


@pytest.fixture(scope='session')
def made_once(tmp_path_factory, worker_id):
    """made_once(name, make): a folder, and the Result that make(folder) returned.

    It is made by the first of pytest-xdist's processes that needs it.
    """
    def folder_and_result(name, make):
        parent = tmp_path_factory.getbasetemp()
        folder = (parent if worker_id == 'master' else parent.parent) / name
        with filelock.FileLock(str(folder) + '.lock'):
            path = folder.with_suffix('.json')
            if not path.exists():
                path.write_text(json.dumps(make(folder)))
        return folder, Result(*json.loads(path.read_text()))
    return folder_and_result


Result = collections.namedtuple('Result', 'returncode stdout stderr')


@pytest.fixture(scope='session')
def small_data(made_once):
    return str(made_once('small', lambda folder: write_small_data(folder) or [0, '', ''])[0])


# ---- Runs ----

def run_python(*arguments, check=0, environment=None, **options):
    """Runs Python in a process of its own; its exit status must be `check`."""
    result = subprocess.run([sys.executable] + [str(each) for each in arguments], stdin=subprocess.DEVNULL,
                            stdout=subprocess.PIPE, stderr=subprocess.PIPE, universal_newlines=True,
                            env=user_environment(environment), **options)
    assert check is None or result.returncode == check, result.stdout + result.stderr
    return Result(result.returncode, result.stdout, result.stderr)


def run_script(script, *arguments, **options):
    """Runs a script of the project in a process of its own."""
    return run_python(os.path.join(ROOT, script), *arguments, **options)


def user_environment(changes=None):
    """The environment without what this file has set."""
    environment = dict(os.environ, **(changes or {}))
    if 'TF_CPP_MIN_LOG_LEVEL' not in (changes or {}):
        environment.pop('TF_CPP_MIN_LOG_LEVEL', None)
    return environment


def run_here(lesson, *arguments, check=0):
    """The same within this process, which saves the seconds of TensorFlow's import."""
    status = 0
    with contextlib.redirect_stdout(io.StringIO()) as out, contextlib.redirect_stderr(io.StringIO()) as err:
        try:
            with script.errors_in_one_line():
                lesson.main([str(each) for each in arguments])
        except SystemExit as stop:
            status = stop.code
    result = Result(status, out.getvalue(), err.getvalue())
    assert check is None or status == check, result
    return result


Trained = collections.namedtuple('Trained', 'folder flags result')


@pytest.fixture(scope='session')
def real_epoch(made_once):
    """The README's main command on the real data, one epoch."""
    folder, result = made_once('real', lambda folder: run_script(
        '07_convnet_mnist.py', '--epochs', 1, '--output-dir', folder))
    return Trained(folder, [], result)


@pytest.fixture(scope='session')
def four_epochs(small_data, made_once):
    """A run of four epochs on the small dataset. Tests only read it; those that go on use `two_epochs`."""
    flags = ['--data-dir', small_data, '--output-dir']
    folder, result = made_once('four_epochs', lambda folder: run_here(lesson2, *flags, folder, '--epochs', 4))
    return Trained(folder, flags + [folder], result)


@pytest.fixture
def two_epochs(four_epochs, tmp_path):
    return after_two_epochs(four_epochs, tmp_path / 'copied')


def after_two_epochs(run, folder):
    """A copy of a run of four epochs of which only the checkpoint of the second is left."""
    later = ['model.ckpt-{}.*'.format(step) for step in checkpoints.steps_in(checkpoint_folder(run.folder))[:2]]
    shutil.copytree(str(run.folder), str(folder), ignore=shutil.ignore_patterns(*later))
    return Trained(folder, run.flags[:-1] + [folder], run.result)


@pytest.fixture(scope='module')
def small_network():
    """Lesson 2 with few kernels and units, and without figures and page, which take longer than the training.

    Not for tests that use the runs above, which have the whole network.
    """
    with pytest.MonkeyPatch.context() as patch:
        make_small(patch.setattr)
        yield


def make_small(setattr):
    conv_relu, fully_connected = lesson2.conv_relu, lesson2.fully_connected
    setattr(lesson2, 'conv_relu', lambda inputs, filters, *more: conv_relu(inputs, min(filters, 4), *more))
    setattr(lesson2, 'fully_connected', lambda inputs, units, *more, **options: fully_connected(
        inputs, min(units, 16), *more, **options))
    draw_nothing(setattr)


def draw_nothing(setattr):
    """A run draws no figures and writes no page."""
    setattr(runs.figures, 'plot_results', lambda *arguments: tf.Summary())
    setattr(runs.pages, 'write_network_page', lambda *arguments: None)


@pytest.fixture
def without_figures(monkeypatch):
    draw_nothing(monkeypatch.setattr)


@pytest.fixture
def convnet_flags(tmp_path, small_data):
    """Lesson 2 on the small dataset, with all it writes under tmp_path."""
    return ['--data-dir', small_data, '--output-dir', tmp_path]


@pytest.fixture
def convnet(convnet_flags):
    return lambda *arguments, **options: run_here(lesson2, *convnet_flags, *arguments, **options)


@pytest.fixture
def filters(tmp_path):
    """Lesson 1 with all it writes under tmp_path."""
    flags = ['--no-show', '--output-dir', tmp_path]
    return lambda *arguments, **options: run_here(lesson1, *flags, *arguments, **options)


# ---- What a run leaves ----

ROW = re.compile(r'^ +(\d+)  +([\d.]+)  +(0\.\d{4}|1\.0000)  (0\.\d{4}|1\.0000)(?:  +(0\.\d{4}))?$', re.MULTILINE)


def rows(result):
    """The rows of the table that lessons 2 and 3 print."""
    return ROW.findall(result.stdout)


def checkpoint_folder(folder, name=NAME):
    return os.path.join(str(folder), 'checkpoints', name)


def prefixes(folder, name=NAME):
    """The paths of a run's checkpoints, newest first, without their endings."""
    folder = checkpoint_folder(folder, name)
    return [os.path.join(folder, 'model.ckpt-{}'.format(step)) for step in checkpoints.steps_in(folder)]


def all_variables(folder, name=NAME):
    """{name: value} of a run's newest checkpoint: weights, averages, Adam's variables, global_step."""
    reader = tf.train.NewCheckpointReader(prefixes(folder, name)[0])
    return {variable: reader.get_tensor(variable) for variable in reader.get_variable_to_shape_map()}


def assert_equal_variables(one, other):
    assert set(one) == set(other)
    for name in one:
        np.testing.assert_array_equal(one[name], other[name], err_msg=name)


def network_of(folder, name=NAME, conv1='learned'):
    """The network of a run, with the averages of its weights: a function, uint8 [n, 28, 28] -> {layer: values}."""
    with tf.Graph().as_default():
        images, session = tf.placeholder(tf.uint8, [None, 28, 28]), tf.Session()
        lesson2.inference(images, keep_prob=1.0, conv1_kind=conv1)
        averages = tf.train.Saver(tf.train.ExponentialMovingAverage(0).variables_to_restore())
        averages.restore(session, prefixes(folder, name)[0])
        layers = results.layers()
    return lambda values: session.run(layers, {images: values})


def event_log(folder, name=NAME):
    """What TensorBoard reads from the event files of a run, whole: its own reader."""
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator  # takes seconds
    log = EventAccumulator(os.path.join(str(folder), 'graphs', name), {'scalars': 0, 'histograms': 0, 'images': 0})
    log.Reload()
    return log


def logged(folder, name=NAME):
    """{tag: [(step, value), ...]} of all scalars and histograms."""
    log = event_log(folder, name)
    found = {tag: [(event.step, event.value) for event in log.Scalars(tag)] for tag in log.Tags()['scalars']}
    found.update({tag: [(event.step, event.histogram_value) for event in log.Histograms(tag)]
                  for tag in log.Tags()['histograms']})
    return found


def assert_equal_runs(folder, result, expected_folder, expected_result):
    """The table, all variables, the JSON and TensorBoard's curves are equal, bit for bit."""
    assert rows(result) == rows(expected_result) != []
    assert_equal_variables(all_variables(folder), all_variables(expected_folder))
    states = [json.load(open(prefixes(each)[0] + '.json')) for each in (folder, expected_folder)]
    assert states[0] == states[1] and logged(folder) == logged(expected_folder) != {}


def hashes(folder):
    """{path: SHA-256} of all files below a folder but the locks, which every run opens."""
    paths = [os.path.join(parent, name) for parent, _, names in os.walk(str(folder)) for name in names]
    return {os.path.relpath(path, str(folder)): hashlib.sha256(open(path, 'rb').read()).hexdigest()
            for path in paths if not path.endswith(('~lock', 'pipe'))}


def assert_one_line(result, *texts):
    assert result.stderr.count('\n') == 1 and 'Traceback' not in result.stderr, result.stderr
    for text in texts:
        assert text in result.stderr


@pytest.fixture
def mounted(tmp_path):
    """mounted(path, size): a file system of its own at this path."""
    paths = []

    def mount(path, size):
        os.makedirs(str(path))
        if subprocess.call(['mount', '-t', 'tmpfs', '-o', 'size=' + size, 'tmpfs', str(path)],
                           stderr=subprocess.DEVNULL) != 0:
            pytest.skip('mounting is not allowed here')
        paths.append(str(path))

    yield mount
    for path in paths:
        subprocess.check_call(['umount', '-l', path])


# ---- The browser that shows the pages ----

BROWSERS = {'chromium': ['chromedriver', 'chromium'], 'firefox': ['geckodriver', 'firefox']}
IN_PAGE = '''
const [body, ...given] = arguments, script = document.createElement('script');
window.exchange = {given};
script.textContent = `try { exchange.result = (function() {${body}}).apply(null, exchange.given) }
                      catch (error) { exchange.error = error }`;
document.head.append(script);
script.remove();
if (window.exchange.error) throw window.exchange.error;
return window.exchange.result'''


@pytest.fixture(scope='module')
def browser(request, tmp_path_factory):
    """Chromium, or Firefox with --browser firefox."""
    name = request.config.getoption('--browser')
    driver_path, browser_path = [shutil.which(each) for each in BROWSERS[name]]
    if not (driver_path and browser_path):
        pytest.skip('{} are not here'.format(' and '.join(BROWSERS[name])))
    if name == 'firefox':
        options = webdriver.FirefoxOptions()
        for preference, value in [('layout.css.devPixelsPerPx', '2.0'), ('dom.w3c_touch_events.enabled', 1)] + [
                ('media.navigator.' + each, True) for each in ('streams.fake', 'permission.disabled')]:
            options.set_preference(preference, value)
        arguments = ['headless', 'width=1400', 'height=1200']
        service = FirefoxService(driver_path, 0, None, os.devnull)  # its log
    else:
        options = webdriver.ChromeOptions()
        arguments = ['headless', 'no-sandbox', 'disable-gpu', 'disable-dev-shm-usage', 'disable-quic', 'no-first-run',
                     'disable-background-networking', 'disable-component-update', 'disable-sync',
                     'window-size=1400,1200', 'force-device-scale-factor=2',
                     'use-fake-device-for-media-stream', 'use-fake-ui-for-media-stream',
                     'user-data-dir={}'.format(tmp_path_factory.mktemp('chromium'))]
        service = ChromeService(driver_path)
    options.binary_location = browser_path
    for argument in arguments:
        options.add_argument('--' + argument)
    service.start()
    driver = webdriver.Remote(service.service_url, options=options)  # as selenium 3 and 4 both understand it
    if name == 'firefox':  # whose scripts do not see the page's variables
        for method in 'execute_script', 'execute_async_script':
            setattr(driver, method, functools.partial(getattr(driver, method), IN_PAGE))
    yield driver
    driver.quit()
    service.stop()
