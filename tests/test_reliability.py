"""Whatever happens to the process and the disk: nothing is lost, nothing is silently wrong.

The network is small here, and the dataset has 33 digits, so that a run takes half a second.
"""
import collections
import itertools
import os
import shutil
import signal
import struct
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image
from tensorflow.python.lib.io import file_io

import utils
from conftest import (NAME, assert_equal_runs, assert_one_line, checkpoint_folder, hashes, lesson2, prefixes,
                      rows, run_here, run_script, tf, write_small_data)
from kill_and_resume import read_until, run_to_the_end, run_with_kills, start, unfinished
from support import checkpoints, cli, digits, outputs

pytestmark = pytest.mark.usefixtures('small_network')
EPOCHS, STEPS = 4, 9  # STEPS: in an epoch
DATA, INDEX = '.data-00000-of-00001', '.index'
FIRST_ROW = '    1      '  # how it begins
SMALL = 'from conftest import make_small\nmake_small(setattr)\n'  # for the processes that kill_and_resume.start starts


@pytest.fixture(scope='module')
def tiny_data(tmp_path_factory):
    folder = tmp_path_factory.mktemp('tiny') / 'data'
    write_small_data(folder, 43, 62)  # each digit is in all three parts; 33 are trained on
    return folder


@pytest.fixture
def convnet_flags(tmp_path, tiny_data):
    """What the fixture convnet gives to lesson 2 in any case."""
    return ['--data-dir', tiny_data, '--output-dir', tmp_path, '--batch-size', 4, '--epochs', EPOCHS]


@pytest.fixture(scope='module')
def undisturbed(tiny_data, tmp_path_factory, small_network):
    """The folder and the Result of a run of all EPOCHS."""
    folder = tmp_path_factory.mktemp('undisturbed')
    return folder, run_here(lesson2, '--data-dir', tiny_data, '--output-dir', folder, '--batch-size', 4,
                            '--epochs', EPOCHS)


@pytest.fixture
def copied(undisturbed, tmp_path):
    """That run, one epoch earlier, in the folder in which the fixture convnet trains."""
    shutil.copytree(str(undisturbed[0] / 'graphs'), str(tmp_path / 'graphs'))
    shutil.copytree(checkpoint_folder(undisturbed[0]), checkpoint_folder(tmp_path),
                    ignore=shutil.ignore_patterns('model.ckpt-{}.*'.format(EPOCHS * STEPS)))
    return tmp_path


def assert_undisturbed(undisturbed, folder, result):
    assert unfinished(folder) == [] and len(prefixes(folder)) == 3
    assert_equal_runs(folder, result, *undisturbed)


def before_batch(monkeypatch, number, action):
    """Does action() before a batch is trained with, counted from 1 in each process."""
    prefetch, numbers = utils.prefetch, itertools.count(1)

    def prefetch_and_act(batches):
        for batch in prefetch(batches):
            if next(numbers) == number:
                action()
            yield batch

    monkeypatch.setattr(utils, 'prefetch', prefetch_and_act)


# ---- The process dies ----

WRITES = [(os, 'replace'), (os, 'remove'), (os, 'rename'), (shutil, 'move'), (file_io, 'rename'),
          (file_io, 'delete_file'), (tf.train.Saver, 'save'), (tf.summary.FileWriter, 'flush'),
          (tf.summary.FileWriter, 'close')]


def what_deaths_leave(patch, folder, copies):
    """Copies the folder before each write or deletion, as a death would leave it there. Returns a list of copies that
    grows: (what would have come next, folder)."""
    found, seen = [], []

    def before(name, function):
        def copy_first(*arguments, **options):
            files = sorted((os.path.join(parent, each), os.stat(os.path.join(parent, each)).st_mtime_ns)
                           for parent, _, names in os.walk(str(folder)) for each in names)
            if [files] != seen[-1:]:  # shutil.move calls os.rename, and nothing happened in between
                seen.append(files)
                found.append((name, copies / str(len(found))))
                shutil.copytree(str(folder), str(found[-1][1]))
            return function(*arguments, **options)
        return copy_first

    for owner, name in WRITES:
        patch.setattr(owner, name, before(name, getattr(owner, name)))
    return found


@pytest.mark.parametrize('kind, deaths', [('continued', 5), ('restarted', 2),
                                          pytest.param('fresh', 15, marks=pytest.mark.slow)])
def test_a_death_between_any_two_writes(convnet, tmp_path, copied, undisturbed, monkeypatch, kind, deaths):
    """The same command ends as if nothing had happened, and with --restart no file of the earlier run is lost."""
    folder, earlier = tmp_path / 'run', hashes(copied) if kind == 'restarted' else {}
    folder.mkdir()
    if kind != 'fresh':
        for name in 'checkpoints', 'graphs':
            shutil.move(str(copied / name), str(folder / name))
    more = ['--restart'] if kind == 'restarted' else []
    with monkeypatch.context() as patch:
        found = what_deaths_leave(patch, folder, tmp_path)
        if kind == 'restarted':  # what comes later is as in a fresh run
            before_batch(patch, 1, lambda: sys.exit(9))
        convnet('--output-dir', folder, *more, check=9 if more else 0)
    assert len(found) >= deaths
    for name, copy in found:
        done = STEPS * EPOCHS in checkpoints.steps_in(checkpoint_folder(copy))
        result = convnet('--output-dir', copy, *more)
        assert_undisturbed(undisturbed, copy, result)
        assert ('done already' in result.stdout) == done, (name, copy)
        assert kind != 'continued' or 'Continuing from' in result.stdout, (name, copy)
        left = collections.Counter(hashes(copy).values())
        assert not collections.Counter(earlier.values()) - left, (name, copy)
        shutil.rmtree(str(copy))


@pytest.mark.slow
def test_kills_at_any_moment(tmp_path, tiny_data):
    killed, whole = tmp_path / 'killed', tmp_path / 'whole'
    command = ['--epochs', 12, '--batch-size', 16]
    result, kills, _ = run_with_kills(killed, tiny_data, command, kills=3, seed=0, longest=2)
    assert kills > 0
    assert_undisturbed((whole, run_to_the_end(whole, tiny_data, *command)), killed, result)


def test_ctrl_c_loses_the_epoch_under_way(convnet, tmp_path, undisturbed, monkeypatch):
    handler = signal.signal(signal.SIGINT, signal.default_int_handler)  # a background process ignores it
    try:
        with monkeypatch.context() as patch:
            before_batch(patch, 2 * STEPS - 1, lambda: os.kill(os.getpid(), signal.SIGINT))
            result = convnet(check=130)
    finally:
        signal.signal(signal.SIGINT, handler)
    assert_one_line(result._replace(stderr=result.stderr.lstrip()), 'the same command goes on after epoch 1')
    assert checkpoints.steps_in(checkpoint_folder(tmp_path)) == [STEPS]
    assert_undisturbed(undisturbed, tmp_path, convnet())


# ---- What printing meets ----

def test_whoever_reads_the_output_dies_first(convnet, tmp_path, tiny_data, undisturbed):
    """As Ctrl-C does with `python 07_convnet_mnist.py | tee log`: the epoch that cannot be printed is saved."""
    process = start_small(tmp_path, tiny_data)
    read_until(process, FIRST_ROW)
    process.stdout.close()
    errors = process.stderr.read()
    process.stderr.close()
    assert process.wait() in (1, 2) and errors.count('\n') <= 1 and 'Traceback' not in errors
    assert prefixes(tmp_path)[0].endswith('-{}'.format(2 * STEPS))
    assert_undisturbed(undisturbed, tmp_path, convnet())


@pytest.mark.skipif(not os.path.exists('/dev/full'), reason='Linux has such a file')
def test_a_full_disk_for_what_is_printed(tmp_path, tiny_data):
    with open('/dev/full', 'w') as full:
        process = start_small(tmp_path, tiny_data, stdout=full)
        _, errors = process.communicate()
    assert process.returncode == 2 and errors.count('\n') == 1 and 'No space left on device' in errors


def test_a_terminal_that_is_closed(convnet, tmp_path, tiny_data, undisturbed):
    """The run goes on without it, to its end. Before, the terminal shows a progress bar."""
    pty, fcntl, termios = [pytest.importorskip(name) for name in ('pty', 'fcntl', 'termios')]
    terminal, end = pty.openpty()
    fcntl.ioctl(end, termios.TIOCSWINSZ, struct.pack('4H', 24, 100, 0, 0))
    process = start_small(tmp_path, tiny_data, stdout=end, stderr=end)
    os.close(end)
    shown = b''
    while FIRST_ROW.encode() not in shown:
        shown += os.read(terminal, 10000)
    os.close(terminal)
    assert process.wait(60) == 0 and b'epoch 1: ' in shown and b'it/s' in shown
    assert prefixes(tmp_path)[0].endswith('-{}'.format(EPOCHS * STEPS))
    assert_undisturbed(undisturbed, tmp_path, convnet())


def start_small(folder, data, patch='', **options):
    return start(folder, data, '--batch-size', 4, '--epochs', EPOCHS, patch=SMALL + patch, **options)


# ---- The checkpoints are damaged ----

def truncate(path):
    with open(path, 'r+b') as file:
        file.truncate(os.path.getsize(path) // 2)


def flip_a_bit(path):
    with open(path, 'r+b') as file:
        content = bytearray(file.read())
        content[len(content) // 3] ^= 4
        file.seek(0)
        file.write(content)


def other_json(text):
    def write(path):
        with open(path, 'w') as file:
            file.write(text)
    write.__name__ = text
    return write


@pytest.mark.parametrize('part, damage', [(part, damage) for part in (DATA, INDEX) for damage in (
    truncate, flip_a_bit, os.remove, other_json(''))] + [('.json', other_json(text)) for text in (
        '', '[["a"]]', '[1]', 'null', '{}', '"ab"', '{"settings": [], "history": 3}')],
                         ids=lambda value: getattr(value, '__name__', value))
def test_the_previous_good_checkpoint_is_used(convnet, copied, undisturbed, part, damage):
    bad = prefixes(copied)[0]
    damage(bad + part)
    os.remove(os.path.join(checkpoint_folder(copied), 'checkpoint'))  # the Saver's own list, which does not matter
    result = convnet()
    assert_one_line(result, os.path.basename(bad), 'warning')
    assert_undisturbed(undisturbed, copied, result)


def test_no_good_checkpoint_is_an_error_and_never_a_silent_restart(convnet, copied):
    paths = prefixes(copied)
    for prefix in paths:
        truncate(prefix + DATA)
    before = hashes(copied)
    result = convnet(check=2)
    *warnings, error = result.stderr.splitlines()
    assert [os.path.basename(prefix) in warning for prefix, warning in zip(paths, warnings)] == [True] * 2
    assert 'no checkpoint can be continued' in error and '--restart' in error
    assert rows(result) == [] and hashes(copied) == before


# ---- The run diverges ----

@pytest.mark.parametrize('value, step', [(np.nan, 5), (-np.inf, 5), (-np.inf, 9)])
def test_a_diverged_run_goes_on_with_a_smaller_learning_rate(convnet, copied, monkeypatch, value, step):
    """NaN makes the loss NaN. A bias of -inf does not: relu makes 0 of its unit; nor in the last step of the epoch."""
    def diverge():
        biases, = [each for each in tf.global_variables() if each.op.name == 'fc/biases']
        biases.load([value] * 16, tf.get_default_session())

    before = hashes(checkpoint_folder(copied))
    with monkeypatch.context() as patch:
        before_batch(patch, step, diverge)
        result = convnet(check=2)
    assert_one_line(result, 'became infinite or NaN', '--learning-rate')
    assert hashes(checkpoint_folder(copied)) == before
    result = convnet('--learning-rate', 1e-4)
    assert 'The learning rate was 0.001 up to here' in result.stdout and result.stderr == ''
    assert [row[0] for row in rows(result)] == ['1', '2', '3', '4']


# ---- Two runs at once ----

def test_a_second_run_is_refused_and_the_lock_of_a_killed_one_is_not_in_the_way(convnet, tmp_path, tiny_data,
                                                                                undisturbed):
    first = start_small(tmp_path, tiny_data, '''
import time, utils
batches = utils.batches
utils.batches = lambda *flags: batches(*flags) if flags[-1] == 1 else time.sleep(1000)
''')
    read_until(first, FIRST_ROW)
    for more in [], ['--restart']:
        assert_one_line(convnet(*more, check=2), 'in use by another process', '--name')
    assert len(rows(convnet('--epochs', 1, '--name', 'another'))) == 1  # which is not in its way
    assert first.poll() is None
    first.kill()
    first.communicate()
    result = convnet()
    assert 'Continuing from' in result.stdout
    assert_undisturbed(undisturbed, tmp_path, result)


# ---- The disk ----

@pytest.mark.parametrize('kind, size', [('', '40k'), ('', '300k'), ('', '800k'), ('checkpoints', '300k'), ('', 'ro')])
def test_a_full_disk(convnet, tmp_path, mounted, undisturbed, kind, size):
    """Too small for the graph, for the first checkpoint, or for a later one; or it is read-only."""
    disk = tmp_path / 'disk'
    mounted(disk / kind, '1m' if size == 'ro' else size)
    if size == 'ro':
        subprocess.check_call(['mount', '-o', 'remount,ro', str(disk)])
    assert_one_line(convnet('--output-dir', disk, check=2), 'disk', 'cannot be written',
                    'Read-only file system' if size == 'ro' else 'No space left on device')
    shutil.copytree(str(disk), str(tmp_path / 'larger'))
    assert_undisturbed(undisturbed, tmp_path / 'larger', convnet('--output-dir', tmp_path / 'larger'))


def test_a_file_that_is_not_written_whole_leaves_nothing(mounted, tmp_path):
    mounted(tmp_path / 'disk', '40k')
    (tmp_path / 'disk' / 'file').write_text('before')
    with pytest.raises(utils.UserError, match='cannot be written'):
        outputs.write_whole(str(tmp_path / 'disk' / 'file'), bytes(50000))
    assert os.listdir(str(tmp_path / 'disk')) == ['file'] and (tmp_path / 'disk' / 'file').read_text() == 'before'


@pytest.mark.parametrize('kind', [MemoryError, 'ResourceExhaustedError'])
def test_out_of_memory(convnet, monkeypatch, kind):
    def too_large(*arguments):
        raise kind() if kind is MemoryError else tf.errors.ResourceExhaustedError(None, None, 'OOM')

    monkeypatch.setattr(tf.Session, 'run', too_large)
    assert_one_line(convnet(check=2), 'not enough memory', '--batch-size')


# ---- The names of folders and pictures ----

def test_within_a_folder_whose_name_tensorflow_takes_for_a_pattern(convnet, tmp_path, monkeypatch):
    """It trains, continues, deletes older checkpoints and predicts, each where it says."""
    folder = tmp_path / 'cs20 [2017] back\\slash'
    folder.mkdir()
    Image.fromarray(np.uint8(255 * np.eye(28))).save(str(folder / 'digit.png'))
    monkeypatch.chdir(str(folder))
    for epochs in 1, 5:
        result = convnet('--output-dir', '.', '--epochs', epochs)
        assert result.stderr == '' and len(rows(result)) == epochs
        assert os.path.isdir(result.stdout.split('--logdir ')[1].split('\n')[0])
    assert [os.path.basename(path) for path in prefixes(folder)] == ['model.ckpt-45', 'model.ckpt-36', 'model.ckpt-27']
    result = convnet('--output-dir', '.', '--predict', 'digit.png')
    assert os.path.exists(result.stdout.split('What was found        ')[1].strip())


def test_pictures_with_names_that_cannot_be_shown(tmp_path):
    """Letters that the terminal has not, line ends, bytes that are no text, and TeX; and a matplotlibrc in its way."""
    picture = os.path.join(os.fsencode(str(tmp_path)), 'digit\n$x_ é'.encode() + b'\xff')
    Image.new('RGB', (40, 40), 'red').save(str(tmp_path / 'red.png'))
    os.rename(str(tmp_path / 'red.png'), picture)
    (tmp_path / 'matplotlibrc').write_text('text.usetex: True\n')
    result = run_script('07_basic_filters.py', '--output-dir', tmp_path, '--image', os.fsdecode(picture), '--kernels',
                        'blur', cwd=str(tmp_path), environment={'PYTHONIOENCODING': 'ascii', 'DISPLAY': ''})
    assert result.stderr == '' and (tmp_path / 'figures' / 'basic_filters' / 'basic_filters.png').exists()
    result = run_script('07_basic_filters.py', '--output-dir', tmp_path, '--image', os.fsdecode(picture) + '\n',
                        check=2, environment={'PYTHONIOENCODING': 'ascii'})
    assert_one_line(result, r'digit\n$x_ \xe9', 'No such file')


def test_a_folder_whose_name_the_system_cannot_encode(tmp_path, tiny_data):
    result = run_script('07_convnet_mnist.py', '--data-dir', tiny_data, '--output-dir', 'ü数', check=2,
                        cwd=str(tmp_path), environment={'LC_ALL': 'C', 'PYTHONUTF8': '0', 'PYTHONCOERCECLOCALE': '0'})
    assert_one_line(result, 'UTF-8')


def test_predictions_of_names_that_cannot_be_shown(tmp_path):
    flags = cli.parse_convnet_flags('', ['--output-dir', str(tmp_path), '--predict', '$x_\n\udcff.png', '$.png'])
    found = [digits.Found(path, np.zeros([9, 9, 3], np.uint8), [(1, 1, 5, 5)], [], [1], [], [])
             for path in flags.predict]
    lesson2.figures.plot_predictions(flags, found, np.zeros([2, 28, 28], np.uint8), np.full([2, 10], .1), utils.DIGITS)
    lesson2.tables.print_predictions(found, np.full([2, 10], .1), utils.DIGITS, 'predictions.png')
    assert os.listdir(str(tmp_path / 'figures' / NAME)) != []
