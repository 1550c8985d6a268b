"""What the tests share: the project's files as modules, small datasets, and scripts run as a user runs them."""
import collections
import contextlib
import functools
import gzip
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
from support import script  # noqa: E402

LAYERS = ['conv1', 'pool1', 'conv2', 'pool2', 'fc', 'softmax_linear']
FIGURES = ['learned_kernels', 'activations', 'training_curve', 'confusion', 'mistakes']  # of lesson 2
BOXES = {'data', 'scale', 'conv1', 'pool1', 'conv2', 'pool2', 'fc', 'dropout', 'softmax_linear', 'loss', 'train',
         'global_step', 'moving_average', 'evaluation', 'summaries'}  # of its graph


def pytest_addoption(parser):
    parser.addoption('--screenshots', metavar='DIR', help='where test_tensorboard.py saves its screenshots')
    parser.addoption('--browser', choices=list(BROWSERS), default='chromium', help='for the tests of the pages')
    parser.addoption('--logs', metavar='DIR', help='the logs at which it looks, instead of a short run\'s')


def prefixes(folder):
    """The paths of the checkpoints in a folder, newest first."""
    from support import checkpoints  # and TensorFlow
    return [checkpoints.path_of(folder, step) for step in checkpoints.steps_in(folder)]


def imported(name):
    lesson = importlib.import_module(name)
    lesson.tf.config.experimental.list_physical_devices()  # TensorFlow comments on the devices now, not in a test
    return lesson


@pytest.fixture(scope='session')
def lesson1():
    return imported('07_basic_filters')


@pytest.fixture(scope='session')
def lesson2():
    return imported('07_convnet_mnist')


@pytest.fixture(scope='session')
def lesson3():
    return imported('07_convnet_towers')


@pytest.fixture(scope='session')
def mnist():
    return utils.read_mnist(utils.MNIST_DIR)


def write_idx(path, array):
    """Writes uint8 [n, height, width] or [n] as an IDX file, gzipped if the name says so."""
    header = bytes([0, 0, 8, array.ndim]) + np.array(array.shape, '>u4').tobytes()
    with (gzip.open if str(path).endswith('.gz') else open)(str(path), 'wb') as file:
        file.write(header + array.tobytes())


def write_small_data(folder, resize=lambda images: images):
    """A dataset of 660 training, 60 validation and 130 test digits. resize: images -> images."""
    whole = utils.read_mnist(utils.MNIST_DIR)
    os.makedirs(folder)
    for name, digits, count in ('train', whole.train, 720), ('t10k', whole.test, 130):
        write_idx(os.path.join(folder, name + '-images-idx3-ubyte'), resize(digits.images[:count]))
        write_idx(os.path.join(folder, name + '-labels-idx1-ubyte'), digits.labels[:count])


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
    return str(made_once('small', lambda folder: write_small_data(str(folder)) or [0, '', ''])[0])


def run_script(script, *arguments, check=0, environment=None, **options):
    """Runs a script of the project in a process of its own; its exit status must be `check`."""
    result = subprocess.run([sys.executable, os.path.join(ROOT, script)] + [str(each) for each in arguments],
                            stdout=subprocess.PIPE, stderr=subprocess.PIPE, universal_newlines=True,
                            stdin=subprocess.DEVNULL, env=user_environment(environment), **options)
    assert check is None or result.returncode == check, result.stdout + result.stderr
    return result


def user_environment(changes=None):
    """The environment without what importing a lesson into this process has set."""
    environment = dict(os.environ, **(changes or {}))
    if not (changes or {}).get('TF_CPP_MIN_LOG_LEVEL'):
        environment.pop('TF_CPP_MIN_LOG_LEVEL', None)
    return environment


@pytest.fixture(scope='session')
def real_epoch(made_once):
    """The README's main command on the real data, one epoch."""
    def make(folder):
        result = run_script('07_convnet_mnist.py', '--epochs', 1, '--output-dir', folder)
        return [result.returncode, result.stdout, result.stderr]
    folder, result = made_once('real', make)
    return Trained(folder, [], result)


def run_here(lesson, capfd, *arguments, check=0):
    """The same within this process, which saves the seconds of TensorFlow's import."""
    capfd.readouterr()
    status = 0
    try:
        with script.errors_in_one_line():
            lesson.main([str(each) for each in arguments])
    except SystemExit as stop:
        status = stop.code
    result = Result(status, *capfd.readouterr())
    assert check is None or status == check, result
    return result


class Streams:
    """What is printed within this process, for fixtures that outlive the fixture capfd of a single test."""

    def __init__(self, out, err):
        self.streams = out, err

    def readouterr(self):
        texts = [stream.getvalue() for stream in self.streams]
        for stream in self.streams:
            stream.seek(0)
            stream.truncate()
        return texts


def run_once(lesson, *arguments, **options):
    """run_here for fixtures that are shared between tests."""
    with contextlib.redirect_stdout(io.StringIO()) as out, contextlib.redirect_stderr(io.StringIO()) as err:
        return run_here(lesson, Streams(out, err), *arguments, **options)


Trained = collections.namedtuple('Trained', 'folder flags result')


@pytest.fixture(scope='session')
def one_epoch(lesson2, small_data, made_once):
    """A run of one epoch of the small dataset. Tests only read it; those that go on from it use `copied`."""
    return trained(lesson2, small_data, made_once, 1)


def trained(lesson2, small_data, made_once, epochs):
    flags = ['--data-dir', small_data, '--output-dir']
    folder, result = made_once('epochs_{}'.format(epochs),
                               lambda folder: run_once(lesson2, *flags, folder, '--epochs', epochs))
    return Trained(folder, flags + [folder], result)


@pytest.fixture
def copied(one_epoch, tmp_path, small_data):
    folder = tmp_path / 'copied'
    shutil.copytree(str(one_epoch.folder), str(folder))
    return Trained(folder, ['--data-dir', small_data, '--output-dir', folder], one_epoch.result)


@pytest.fixture(scope='session')
def four_epochs(lesson2, small_data, made_once):
    """A run of four epochs without a break, which tests only read."""
    return trained(lesson2, small_data, made_once, 4)


@pytest.fixture(scope='module')
def small_network(lesson2):
    """Lesson 2 with few kernels and units, and without figures and page, which take longer than the training.

    Not for tests that use the runs above, which have the whole network.
    """
    with pytest.MonkeyPatch.context() as patch:
        make_small(lesson2, patch.setattr)
        yield


def make_small(lesson2, setattr):
    conv_relu, fully_connected = lesson2.conv_relu, lesson2.fully_connected
    setattr(lesson2, 'conv_relu', lambda inputs, filters, *more: conv_relu(inputs, min(filters, 4), *more))
    setattr(lesson2, 'fully_connected', lambda inputs, units, *more, **options: fully_connected(
        inputs, min(units, 16), *more, **options))
    setattr(lesson2.figures, 'plot_results', lambda *arguments: lesson2.tf.Summary())
    setattr(lesson2.pages, 'write_network_page', lambda *arguments: None)


@pytest.fixture
def convnet_flags(tmp_path, small_data):
    """Lesson 2 on the small dataset, with all it writes under tmp_path."""
    return ['--data-dir', small_data, '--output-dir', tmp_path]


@pytest.fixture
def convnet(lesson2, capfd, convnet_flags):
    return lambda *arguments, **options: run_here(lesson2, capfd, *convnet_flags, *arguments, **options)


@pytest.fixture
def filters_flags(tmp_path):
    """Lesson 1 with all it writes under tmp_path."""
    return ['--no-show', '--output-dir', tmp_path]


@pytest.fixture
def filters(lesson1, capfd, filters_flags):
    return lambda *arguments, **options: run_here(lesson1, capfd, *filters_flags, *arguments, **options)


# ---- What several files look at ----

ROW = re.compile(r'^ +(\d+)  +([\d.]+)  +(0\.\d{4}|1\.0000)  (0\.\d{4}|1\.0000)  +(0\.\d{4})?$', re.MULTILINE)


def rows(result):
    """The rows of the table that lessons 2 and 3 print."""
    return ROW.findall(result.stdout)


def all_variables(tf, folder):
    """{name: value} of the newest checkpoint in a folder."""
    reader = tf.train.NewCheckpointReader(prefixes(str(folder))[0])
    return {name: reader.get_tensor(name) for name in reader.get_variable_to_shape_map()}


def assert_equal_variables(one, other):
    assert set(one) == set(other)
    for name in one:
        np.testing.assert_array_equal(one[name], other[name], err_msg=name)


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
        for preference, value in ('layout.css.devPixelsPerPx', '2.0'), ('dom.w3c_touch_events.enabled', 1):
            options.set_preference(preference, value)
        arguments = ['headless', 'width=1400', 'height=1200']
        service = FirefoxService(driver_path)
    else:
        options = webdriver.ChromeOptions()
        arguments = ['headless', 'no-sandbox', 'disable-gpu', 'disable-dev-shm-usage', 'disable-quic', 'no-first-run',
                     'disable-background-networking', 'disable-component-update', 'disable-sync',
                     'window-size=1400,1200', 'force-device-scale-factor=2',
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
