"""What a run writes is its own, whatever the folder's name, and what is not its own stays as it is."""
import os
import shutil
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image

from conftest import ROOT, assert_one_line, prefixes, run_script, user_environment
from kill_and_resume import NAME, checkpoint_folder, digest, progress, runs, scalars, table
import utils
from support import cli, event_logs, outputs, script
from test_training import hashes

pytestmark = pytest.mark.usefixtures('small_network')
HOSTILE_NAMES = ['seed[0]', 'cs20 [2017] *? {a,b} $x$ é back\\slash'] if os.name == 'posix' else ['seed[0]']


# ---- The names of folders and pictures ----

@pytest.mark.parametrize('name', HOSTILE_NAMES)
def test_a_path_is_no_pattern(convnet, tmp_path, name):
    """A folder may be called seed[0], which as a pattern means seed0: another run's."""
    hostile, neighbour = tmp_path / name, tmp_path / 'seed0'
    convnet('--output-dir', neighbour, '--epochs', 1)
    before = hashes(neighbour)
    for epochs in 4, 5:  # the fourth checkpoint deletes the first
        result = convnet('--output-dir', hostile, '--epochs', epochs)
        assert result.stderr == '' and len(table(result.stdout)) == epochs
    assert [os.path.basename(path) for path in prefixes(checkpoint_folder(hostile))] == [
        'model.ckpt-30', 'model.ckpt-24', 'model.ckpt-18']
    Image.fromarray(np.uint8(255 * np.eye(28))).save(str(tmp_path / 'digit.png'))
    convnet('--output-dir', hostile, '--predict', tmp_path / 'digit.png')
    convnet('--output-dir', hostile, '--epochs', 1, '--restart')
    assert progress(hostile) == (6, False) and len(os.listdir(checkpoint_folder(hostile) + '.1')) >= 3
    assert hashes(neighbour) == before


def test_pictures_with_names_that_cannot_be_shown(tmp_path):
    """Letters that the terminal has not, line ends, bytes that are no text, and TeX; and a matplotlibrc in its way."""
    picture = os.path.join(os.fsencode(str(tmp_path)), 'digit\n$x_ é'.encode() + b'\xff')
    Image.new('RGB', (40, 40), 'red').save(str(tmp_path / 'red.png'))
    os.rename(str(tmp_path / 'red.png'), picture)
    (tmp_path / 'matplotlibrc').write_text('text.usetex: True\n')
    result = run_script('07_basic_filters.py', '--output-dir', tmp_path, '--image', os.fsdecode(picture), '--kernels',
                        'blur', cwd=str(tmp_path), environment={
                            'PYTHONIOENCODING': 'ascii', 'DISPLAY': ''})
    assert result.stderr == '' and (tmp_path / 'figures' / 'basic_filters' / 'basic_filters.png').exists()
    result = run_script('07_basic_filters.py', '--output-dir', tmp_path, '--image', os.fsdecode(picture) + '\n',
                        check=2, environment={'PYTHONIOENCODING': 'ascii'})
    assert_one_line(result, r'digit\n$x_ \xe9', 'no such file')


def test_predictions_of_names_that_cannot_be_shown(lesson2, tmp_path):
    flags = cli.parse_convnet_flags('', ['--output-dir', str(tmp_path), '--predict', '$x_\n\udcff.png', '$.png'])
    lesson2.figures.plot_predictions(flags, flags.predict, np.zeros([2, 28, 28], np.uint8), np.full([2, 10], .1))
    lesson2.tables.print_predictions(flags.predict, np.full([2, 10], .1))
    assert os.listdir(str(tmp_path / 'figures' / NAME)) != []


def test_thousands_of_predictions_make_a_figure_of_a_hundred(lesson2, tmp_path, monkeypatch):
    figures = []
    monkeypatch.setattr(lesson2.figures, 'save_figure', lambda figure, path: figures.append(figure))
    flags = cli.parse_convnet_flags('', ['--output-dir', str(tmp_path), '--predict'] + ['a.png'] * 5000)
    lesson2.figures.plot_predictions(flags, flags.predict, np.zeros([5000, 28, 28], np.uint8), np.full([5000, 10], .1))
    assert len(figures[0].axes) == 100


# ---- What is not its own ----

@pytest.mark.parametrize('name', [
    'checkpoints/{}/checkpoint', 'checkpoints/{}/model.ckpt-12.index',
    'checkpoints/{}/model.ckpt-6.data-00000-of-00001', 'graphs/{}/events.out.tfevents.1.me', 'graphs/{}/labels.tsv',
    'figures/{}/confusion.png', 'figures/{}/convnet_mnist.html'])
def test_a_file_of_somebody_else_is_found_before_the_training(convnet, tmp_path, name):
    path = tmp_path / name.format(NAME)
    os.makedirs(str(path.parent))
    path.write_text('mine')
    result = convnet('--epochs', 1, check=2)
    assert_one_line(result, str(path), 'was not written by this program')
    assert table(result.stdout) == [] and path.read_text() == 'mine'


def test_predictions_of_somebody_else_stay(lesson2, tmp_path):
    flags = cli.parse_convnet_flags('', ['--output-dir', str(tmp_path), '--predict', 'a.png'])
    path = tmp_path / 'figures' / NAME / 'predictions.png'
    os.makedirs(str(path.parent))
    path.write_text('mine')
    with pytest.raises(utils.UserError, match='was not written by this program'):
        lesson2.figures.plot_predictions(flags, ['a.png'], np.zeros([1, 28, 28], np.uint8), np.full([1, 10], .1))
    assert path.read_text() == 'mine'


def test_files_of_somebody_else_stay(convnet, filters, tmp_path):
    """Names that the lessons use in no folder, or in another one."""
    mine = [tmp_path / each for each in ('checkpoints/{}/lock.pid'.format(NAME), 'checkpoints/{}/lock'.format(NAME),
                                         'graphs/{}/notes.txt'.format(NAME), 'figures/{}/notes.png'.format(NAME),
                                         'graphs/{}/model.ckpt-1.txt'.format(NAME),
                                         'figures/{}/model.ckpt-1'.format(NAME),
                                         'figures/basic_filters/conv_ops.png.tmp',
                                         'graphs/basic_filters/notes.basic_filters')]
    for path in mine:
        os.makedirs(str(path.parent), exist_ok=True)
        path.write_text('mine')
    convnet('--epochs', 1)
    convnet('--epochs', 1, '--restart')
    for _ in range(2):
        filters('--kernels', 'blur')
    assert [path.read_text() for path in mine] == ['mine'] * len(mine)


def test_the_lock_may_be_deleted_and_the_clock_set_back(convnet, tmp_path, monkeypatch):
    """A second run whose clock is behind the first's: TensorBoard still shows both."""
    add_loss = runs.Run.add_loss

    def add_loss_and_unlock(run, *arguments):
        add_loss(run, *arguments)
        if arguments[-1] == 9:
            os.remove(os.path.join(run.folders.checkpoints, outputs.LOCK))

    monkeypatch.setattr(runs.Run, 'add_loss', add_loss_and_unlock)
    convnet('--epochs', 2)
    now = event_logs.time.time
    monkeypatch.setattr(event_logs, 'time', type('Clock', (), {'time': staticmethod(lambda: now() - 10**7)}))
    convnet('--epochs', 4)
    assert [step for step, _ in scalars(tmp_path)['accuracy/test']] == [6, 12, 18, 24]


# ---- The place ----

@pytest.mark.parametrize('kind', ['mounted', 'linked'])
def test_restart_in_a_folder_on_another_file_system(convnet, tmp_path, mounted, kind):
    folder = tmp_path / 'checkpoints' / NAME
    mounted(folder if kind == 'mounted' else tmp_path / 'elsewhere', '300m')
    if kind == 'linked':
        os.makedirs(str(folder.parent))
        os.symlink(str(tmp_path / 'elsewhere'), str(folder))
    convnet('--epochs', 1)
    before = digest(tmp_path)
    result = convnet('--epochs', 2, '--restart', '--seed', 1)
    assert len(table(result.stdout)) == 2 and 'Continuing' not in result.stdout
    os.rename(str(folder) + '.1', str(tmp_path / 'checkpoints' / 'old'))
    assert len(prefixes(str(tmp_path / 'checkpoints' / 'old'))) == 1
    shutil.move(str(tmp_path / 'checkpoints' / 'old'), str(tmp_path / 'backup' / 'checkpoints' / NAME))
    assert digest(tmp_path / 'backup') == before


def test_a_log_that_cannot_be_written(convnet, filters, tmp_path, mounted):
    """100 kB are too few for the graph."""
    mounted(tmp_path / 'graphs', '100k')
    for lesson in convnet, filters:
        assert_one_line(lesson(check=2), str(tmp_path / 'graphs'), 'cannot be written')


def test_a_data_folder_that_may_not_be_read(convnet, small_data, monkeypatch):
    def forbidden(path):
        raise PermissionError(13, 'Permission denied', path)

    monkeypatch.setattr('utils.os.listdir', forbidden)
    assert_one_line(convnet('--data-dir', small_data, check=2), small_data, 'Permission denied')


# ---- The process ----

def test_closed_streams(tmp_path):
    """Both the way a shell closes them: nothing can be said, but everything is done."""
    if os.name != 'posix':
        pytest.skip('needs a POSIX shell')
    Image.new('RGB', (40, 40), 'red').save(str(tmp_path / 'red.png'))
    command = 'exec "{}" "{}/07_basic_filters.py" --no-show --output-dir "{}" --image "{}/red.png" >&- 2>&-'
    subprocess.check_call(['sh', '-c', command.format(sys.executable, ROOT, tmp_path, tmp_path)],
                          env=user_environment())
    assert len(os.listdir(str(tmp_path / 'figures' / 'basic_filters'))) >= 2


def test_a_sigint_while_libraries_load(tmp_path):
    (tmp_path / 'numpy.py').write_text('raise KeyboardInterrupt')  # as if it came just then
    for name in '07_basic_filters.py', '07_convnet_mnist.py':
        result = run_script(name, check=130, environment={'PYTHONPATH': str(tmp_path)})
        assert result.stderr == ''


@pytest.mark.parametrize('kind', [MemoryError, 'ResourceExhaustedError'])
def test_out_of_memory(lesson2, convnet, monkeypatch, kind):
    error = kind() if kind is MemoryError else lesson2.tf.errors.ResourceExhaustedError(None, None, 'OOM')

    def too_large(*arguments):
        raise error

    monkeypatch.setattr(lesson2, 'inference', too_large)
    assert_one_line(convnet(check=2), 'not enough memory', '--batch-size')


@pytest.mark.parametrize('text', ['[["a"]]', '[1]', 'null', '{"a": 1}', '3', '"ab"'])
def test_a_list_of_own_files_that_is_none_owns_nothing(tmp_path, text):
    (tmp_path / outputs.OWN_FILES).write_text(text)
    (tmp_path / 'a').write_text('mine')
    assert outputs.own_files(str(tmp_path)) == set()
    with pytest.raises(utils.UserError, match='not written by this program'):
        outputs.claim(str(tmp_path), ['a'])


def test_an_interpreter_lives_on_after_ctrl_c():
    code = 'from support import script\nraise KeyboardInterrupt\nprint("alive")\n'
    result = subprocess.run([sys.executable, '-i', '-q'], input=code, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                            universal_newlines=True, cwd=ROOT, env=user_environment())
    assert 'alive' in result.stdout


def test_the_lecture_s_conv1_without_a_seed_trains_beside_a_lesson():
    """Determinism is asked for on a GPU alone; an initializer without a seed must not fail elsewhere."""
    code = ('import importlib; tf = importlib.import_module("07_convnet_mnist").tf\n'
            'w = tf.get_variable("weights", [5, 5, 1, 32])\n'
            'with tf.Session() as session: session.run(tf.global_variables_initializer())\n')
    if not script.has_nvidia_gpu():
        environment = user_environment()
        for name in 'TF_DETERMINISTIC_OPS', 'TF_CUDNN_DETERMINISTIC':
            environment.pop(name, None)
        subprocess.check_call([sys.executable, '-c', code], cwd=ROOT, env=environment)
