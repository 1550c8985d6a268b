"""Whatever happens to the process and the disk: nothing is lost, nothing is silently wrong."""
import collections
import os
import random
import shutil
import signal
import subprocess
import time
import types
from unittest import mock

import pytest

from conftest import assert_one_line, prefixes, run_once
from kill_and_resume import NAME, checkpoint_folder, digest, progress, runs, scalars, start, table
from support import checkpoints, outputs
from test_training import hashes

EPOCHS = 4
DATA, INDEX = '.data-00000-of-00001', '.index'
Run = runs.Run
State = collections.namedtuple('State', 'table digest scalars')
FIRST_ROW = '0.9111'  # the lecture's accuracy, which stands in it


@pytest.fixture(autouse=True)
def without_figures(monkeypatch):
    """They take longer than an epoch of these few digits, and no test here looks at them."""
    monkeypatch.setattr(runs.figures, 'plot_results', lambda *arguments: runs.tf.Summary())


@pytest.fixture(scope='module')
def three_epochs(small_data, tmp_path_factory, lesson2):
    """The folder of a run that has one epoch left, and so three checkpoints. Tests only copy it."""
    folder = str(tmp_path_factory.mktemp('three_epochs'))
    run_once(lesson2, '--data-dir', small_data, '--output-dir', folder, '--epochs', EPOCHS - 1)
    return folder


@pytest.fixture
def copied(three_epochs, tmp_path):
    """A copy of three_epochs, in the folder that the fixture convnet trains in."""
    for name in os.listdir(three_epochs):
        shutil.copytree(os.path.join(three_epochs, name), str(tmp_path / name))
    return tmp_path


@pytest.fixture(scope='module')
def undisturbed(small_data, tmp_path_factory, lesson2):
    """What a run of EPOCHS epochs printed and left that nothing disturbed."""
    folder = str(tmp_path_factory.mktemp('undisturbed'))
    result = run_once(lesson2, '--data-dir', small_data, '--output-dir', folder, '--epochs', EPOCHS)
    return State(table(result.stdout), digest(folder), scalars(folder))


def assert_as_if_nothing_had_happened(folder, result, undisturbed):
    assert State(table(result.stdout), digest(folder), scalars(folder)) == undisturbed


def wait_for_line(process, text):
    """Reads the process's output until a line has this text."""
    for line in process.stdout:
        if text in line:
            return
    raise AssertionError(process.stderr.read())


# ---- The process dies ----

def test_five_kills(tmp_path, small_data, lesson2, capfd):
    """At its start, within a checkpoint's writing, between two, after an epoch, and while figures are drawn."""
    killed, whole = str(tmp_path / 'killed'), str(tmp_path / 'whole')
    epochs, flags = 2, ['--batch-size', 32]  # of 21 steps each, with a checkpoint after each
    moments = [
        ('the lock is taken', lambda: os.path.exists(os.path.join(checkpoint_folder(killed), outputs.LOCK))),
        ('half a checkpoint is written in the first epoch', lambda: progress(killed)[0] >= 3 and progress(killed)[1]),
        ('some steps further', lambda: progress(killed)[0] >= 12),
        ('half a checkpoint is written in the second epoch', lambda: progress(killed)[0] > 21 and progress(killed)[1]),
        ('a figure is there', lambda: 'activations.png' in os.listdir(
            os.path.join(killed, 'figures', NAME)))]
    before = 0
    for name, reached in moments:
        process = start(killed, small_data, epochs, flags=flags)
        while not reached():
            assert process.poll() is None, (name, process.communicate())
            time.sleep(0.001)
        process.kill()
        process.communicate()
        after, _ = progress(killed)
        assert after >= before, name  # no step is lost that was saved
        before = after
    (whole_result, result) = [run_once(lesson2, '--data-dir', small_data, '--output-dir', folder, '--epochs', epochs,
                                       *flags) for folder in (whole, killed)]
    assert result.stderr == '' and 'Continuing from' in result.stdout and before == epochs * 21
    assert table(result.stdout) == table(whole_result.stdout) and len(table(result.stdout)) == epochs
    assert digest(killed) == digest(whole)
    assert scalars(killed) == scalars(whole)
    assert not progress(killed)[1]  # what was half written is removed


@pytest.mark.parametrize('row', [2, EPOCHS])
@pytest.mark.parametrize('owner, name', [(runs.event_logs, 'mark'), (runs.event_logs, 'check_written'),
                                         (outputs, 'write_whole'), (checkpoints, 'remove_older')])
@pytest.mark.parametrize('after', [False, True])
def test_a_death_between_any_two_writes_of_an_epoch_s_end(convnet, tmp_path, undisturbed, monkeypatch, row, owner, name,
                                                          after):
    """The row must not be logged twice, and the last one is not said to have been done already, unless it is saved."""
    function, rows_done = getattr(owner, name), []
    end_epoch = Run.end_epoch

    def note(run, epoch, *arguments):
        rows_done.append(epoch)
        end_epoch(run, epoch, *arguments)

    def die(*arguments):
        if after:
            function(*arguments)
        if rows_done and rows_done[-1] == row:
            raise SystemExit(9)
        if not after:
            function(*arguments)

    with monkeypatch.context() as patch:
        patch.setattr(Run, 'end_epoch', note)
        patch.setattr(owner, name, die)
        convnet('--epochs', EPOCHS, check=9)
    assert_as_if_nothing_had_happened(tmp_path, convnet('--epochs', EPOCHS), undisturbed)


def test_a_sigint_saves_and_says_how_to_continue(convnet, tmp_path, small_data, undisturbed):
    process = start(str(tmp_path), small_data, EPOCHS, seconds_between_saves=1000)
    wait_for_line(process, FIRST_ROW)
    process.send_signal(signal.SIGINT)
    output, errors = process.communicate()
    assert process.returncode == 128 + signal.SIGINT and errors == ''
    stopped = output.splitlines()[-1]
    assert stopped.startswith('Stopped and saved as ') and stopped.endswith('the same command continues from there.')
    assert_as_if_nothing_had_happened(tmp_path, convnet('--epochs', EPOCHS), undisturbed)


@pytest.mark.parametrize('number, step', [(signal.SIGINT, 9), (signal.SIGTERM, 12)],
                         ids=['SIGINT within an epoch', 'SIGTERM in its last step'])
def test_a_signal_ends_the_run_after_the_current_step(convnet, tmp_path, undisturbed, monkeypatch, number, step):
    """The signal comes within this process, so that the step is known."""
    add_loss = Run.add_loss

    def add_loss_and_signal(run, *arguments):
        add_loss(run, *arguments)
        if arguments[-1] == step:
            os.kill(os.getpid(), number)

    handler = signal.getsignal(number)
    with monkeypatch.context() as patch:
        patch.setattr(Run, 'add_loss', add_loss_and_signal)
        result = convnet('--epochs', EPOCHS, check=128 + number)
    assert 'model.ckpt-{};'.format(step) in result.stdout.splitlines()[-1] and result.stderr == ''
    assert progress(tmp_path) == (step, False) and signal.getsignal(number) == handler
    assert_as_if_nothing_had_happened(tmp_path, convnet('--epochs', EPOCHS), undisturbed)


def test_a_signal_after_the_last_step_ends_the_finished_run(convnet, monkeypatch):
    with monkeypatch.context() as patch:
        patch.setattr(runs.figures, 'plot_results',
                      lambda *arguments: os.kill(os.getpid(), signal.SIGTERM) or runs.tf.Summary())
        result = convnet('--epochs', 1, check=128 + signal.SIGTERM)
    assert len(table(result.stdout)) == 1 and result.stderr == ''
    assert 'done already: 1' in convnet('--epochs', 1).stdout


def test_whoever_reads_the_output_dies_first(convnet, tmp_path, small_data, undisturbed):
    """As Ctrl-C does with `python 07_convnet_mnist.py | tee log`: the epoch that cannot be printed is saved."""
    process = start(str(tmp_path), small_data, EPOCHS, seconds_between_saves=1000)
    wait_for_line(process, FIRST_ROW)
    process.stdout.close()
    assert process.stderr.read() == '' and process.wait() == 1
    process.stderr.close()
    assert progress(tmp_path)[0] >= 2 * 6
    assert_as_if_nothing_had_happened(tmp_path, convnet('--epochs', EPOCHS), undisturbed)


def test_a_second_sigint_stops_at_once(tmp_path, small_data):
    """The run is busy saving, and says so as soon as the first signal has reached it."""
    patch = '''
import time
def saved(run, step, writer):
    print('saving', flush=True)
    while not run.signal:
        time.sleep(0.01)
    print('asked', flush=True)
    time.sleep(1000)
runs.Run._write_json = saved
'''
    process = start(str(tmp_path), small_data, EPOCHS, seconds_between_saves=1000, patch=patch)
    wait_for_line(process, 'saving')
    process.send_signal(signal.SIGINT)
    wait_for_line(process, 'asked')
    assert process.poll() is None
    process.send_signal(signal.SIGINT)
    try:
        process.wait(timeout=60)
    finally:
        process.kill()  # if it still runs
        process.communicate()
    assert process.returncode == -signal.SIGINT


def test_a_checkpoint_at_least_every_twenty_seconds(convnet, monkeypatch):
    """By a clock on which each step takes seven seconds."""
    now, saved = [0], []
    add_loss, write_json = Run.add_loss, Run._write_json

    def add_loss_and_wait(run, *arguments):
        add_loss(run, *arguments)
        now[0] += 7

    def record(run, step, writer):
        write_json(run, step, writer)
        saved.append(step)

    monkeypatch.setattr(runs, 'time', types.SimpleNamespace(monotonic=lambda: now[0]))
    monkeypatch.setattr(Run, 'add_loss', add_loss_and_wait)
    monkeypatch.setattr(Run, '_write_json', record)
    convnet('--epochs', 1, '--batch-size', 32)
    assert saved[-1] == 21 and all(7 * (later - earlier) <= 20 + 7 for earlier, later in zip([0] + saved, saved))
    assert len(saved) < 15  # not after each step either


# ---- The checkpoints are damaged ----

def newest(folder):
    return prefixes(checkpoint_folder(folder))[0]


def truncate(path):
    with open(path, 'r+b') as file:
        file.truncate(os.path.getsize(path) // 2)


def flip_a_bit(path, position=None):
    position = os.path.getsize(path) // 3 if position is None else position
    with open(path, 'r+b') as file:
        file.seek(position)
        byte = file.read(1)[0]
        file.seek(position)
        file.write(bytes([byte ^ 4]))


@pytest.mark.parametrize('damage', [truncate, flip_a_bit, os.remove, lambda path: open(path, 'w').close()],
                         ids=['truncated', 'flipped', 'missing', 'empty'])
@pytest.mark.parametrize('part', [DATA, INDEX])
def test_the_previous_good_checkpoint_is_used(convnet, copied, undisturbed, part, damage):
    bad = newest(copied)
    damage(bad + part)
    result = convnet('--epochs', EPOCHS)
    assert_one_line(result, bad, 'warning')
    assert_as_if_nothing_had_happened(copied, result, undisturbed)


def test_flipped_bits_anywhere_are_found(copied, lesson2, capfd):
    """Wherever a bit is flipped: the checkpoint is passed over, or every variable has its value all the same."""
    folder, places = checkpoint_folder(copied), random.Random(0)
    bad = newest(copied)
    with lesson2.tf.Graph().as_default(), lesson2.tf.Session() as session:
        reader = lesson2.tf.train.NewCheckpointReader(bad)
        variables = [lesson2.tf.get_variable(name, initializer=reader.get_tensor(name), trainable=False)
                     for name in sorted(reader.get_variable_to_shape_map())]
        saver, initializer = lesson2.tf.train.Saver(variables), lesson2.tf.global_variables_initializer()

        def values():
            return [each if isinstance(each, bytes) else each.tobytes() for each in session.run(variables)]

        session.run(initializer)
        good, found = values(), 0
        for part in [DATA] * 8 + [INDEX] * 12:
            position = places.randrange(os.path.getsize(bad + part))
            flip_a_bit(bad + part, position)
            capfd.readouterr()
            path, _ = checkpoints.newest_intact(folder, lambda path, saved, shapes: None)
            saver.restore(session, path)
            if path == bad:
                assert values() == good, (part, position)
            else:
                found += 1
                assert bad in capfd.readouterr().err
            flip_a_bit(bad + part, position)
    assert found > 10


def test_a_lost_checkpoint_file_of_the_saver_does_not_matter(convnet, copied, undisturbed):
    os.remove(os.path.join(checkpoint_folder(copied), 'checkpoint'))
    result = convnet('--epochs', EPOCHS)
    assert 'Continuing from' in result.stdout and result.stderr == ''
    assert_as_if_nothing_had_happened(copied, result, undisturbed)


def test_a_first_checkpoint_cut_short_is_no_checkpoint(convnet, copied):
    """Killed after the data were in place, and before the index and the Saver's list were."""
    folder = checkpoint_folder(copied)
    for name in os.listdir(folder):
        if name.endswith((INDEX, '.json')) and name.startswith('model') or name == 'checkpoint':
            os.remove(os.path.join(folder, name))
    result = convnet('--epochs', 1)
    assert len(table(result.stdout)) == 1 and result.stderr == '' and 'Continuing' not in result.stdout


def test_no_good_checkpoint_is_an_error_and_never_a_silent_restart(convnet, copied):
    paths = prefixes(checkpoint_folder(copied))
    assert len(paths) == 3
    for prefix in paths:
        truncate(prefix + DATA)
    before = hashes(copied)
    result = convnet('--epochs', 5, check=2)
    *warnings, error = result.stderr.splitlines()
    assert [prefix in warning for prefix, warning in zip(paths, warnings)] == [True] * 3
    assert 'none of its checkpoints is intact' in error and '--restart' in error
    assert table(result.stdout) == [] and hashes(copied) == before


def test_what_cannot_be_read_is_not_called_damaged(convnet, copied, lesson2, monkeypatch):
    """No permission and no memory are reported as such; an error that says nothing, by its kind."""
    tf = lesson2.tf
    for error, words in ((PermissionError(13, 'Permission denied'), ['cannot be read (Permission denied)']),
                         (tf.errors.ResourceExhaustedError(None, None, 'OOM'), ['not enough memory'])):
        monkeypatch.setattr(checkpoints, 'open_checkpoint', mock.Mock(side_effect=error))
        result = convnet('--epochs', EPOCHS, check=2)
        assert_one_line(result, *words)
        assert '--restart' not in result.stderr
    monkeypatch.setattr(checkpoints, 'open_checkpoint', mock.Mock(side_effect=IndexError))
    result = convnet('--epochs', EPOCHS, check=2)
    assert result.stderr.count('(IndexError)') == 3 and 'Traceback' not in result.stderr


# ---- The run diverges ----

@pytest.mark.parametrize('what, step, seconds', [('loss', 20, 1000), ('weights', 20, 0), ('weights', 24, 1000)])
def test_a_diverged_run_goes_on_from_a_good_checkpoint_with_a_smaller_learning_rate(convnet, copied, lesson2,
                                                                                    monkeypatch, what, step, seconds):
    """It ends in the step in which it happens, or, if only the weights show it, at the next save or the end of the
    epoch (step 24); none saves it."""
    good, before = newest(copied), digest(copied)
    add_loss = Run.add_loss

    def add_loss_and_diverge(run, loss_value, batch_size, number):
        if number == step and what == 'weights':
            biases, = [each for each in lesson2.tf.global_variables() if each.op.name == 'fc/biases']
            biases.load([float('inf')] * 1024, run._session)
        add_loss(run, float('nan') if number == step and what == 'loss' else loss_value, batch_size, number)

    with monkeypatch.context() as patch:
        patch.setattr(runs, 'SECONDS_BETWEEN_SAVES', seconds)
        patch.setattr(Run, 'add_loss', add_loss_and_diverge)
        result = convnet('--epochs', EPOCHS, check=2)
    assert_one_line(result, 'the {} became infinite or NaN'.format(what), '--learning-rate')
    if seconds:
        assert newest(copied) == good and digest(copied) == before
    result = convnet('--epochs', EPOCHS, '--learning-rate', 1e-4)
    assert 'The learning rate was 0.001 up to here, and is 0.0001 from now on.' in result.stdout
    assert [row.split()[0] for row in table(result.stdout)] == ['1', '2', '3', '4']


# ---- Two runs at once ----

def test_the_second_run_is_refused_and_a_stale_lock_is_not_in_the_way(convnet, tmp_path, small_data):
    first = start(str(tmp_path), small_data, 10000, seconds_between_saves=1000)
    wait_for_line(first, FIRST_ROW)
    for more in [], ['--restart']:
        result = convnet('--epochs', 2, *more, check=2)
        assert_one_line(result, 'in use by another process', '--name')
    assert len(table(convnet('--epochs', 1, '--name', 'another').stdout)) == 1  # which is not in its way
    assert first.poll() is None
    first.kill()
    first.communicate()
    assert 'Continuing from' in convnet('--epochs', 1).stdout


# ---- The disk ----

@pytest.fixture
def small_disk(tmp_path):
    """A file system of 140 MB: room for two checkpoints of 52 MB, and for some logs."""
    folder = str(tmp_path / 'disk')
    os.mkdir(folder)
    if subprocess.call(['mount', '-t', 'tmpfs', '-o', 'size=140m', 'tmpfs', folder], stderr=subprocess.DEVNULL) != 0:
        pytest.skip('mounting is not allowed here')
    yield folder
    subprocess.check_call(['umount', '-l', folder])


def test_a_full_disk(small_disk, convnet, small_data, tmp_path, undisturbed):
    process = start(small_disk, small_data, EPOCHS, seconds_between_saves=1000)
    output, errors = process.communicate()
    assert process.returncode == 2 and errors.count('\n') == 1 and 'No space left on device' in errors, output + errors
    for name in os.listdir(small_disk):
        shutil.move(os.path.join(small_disk, name), str(tmp_path / name))
    result = convnet('--epochs', EPOCHS)
    assert table(result.stdout) == undisturbed.table and digest(tmp_path) == undisturbed.digest


def test_a_file_size_limit(convnet, copied, undisturbed):
    resource = pytest.importorskip('resource')
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (20 * 2**20, limits[1]))
    try:
        result = convnet('--epochs', EPOCHS, check=2)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert_one_line(result, 'cannot be written')
    assert_as_if_nothing_had_happened(copied, convnet('--epochs', EPOCHS), undisturbed)


def test_a_read_only_disk(small_disk, convnet):
    subprocess.check_call(['mount', '-o', 'remount,ro', small_disk])
    assert_one_line(convnet('--output-dir', small_disk, check=2), 'Read-only file system')


@pytest.mark.parametrize('kind', ['checkpoints', 'graphs'])
def test_a_directory_vanishes(convnet, copied, tmp_path, undisturbed, monkeypatch, kind):
    """It is moved away in the middle of an epoch, and later brought back."""
    folder, elsewhere, add_loss = str(copied / kind), str(tmp_path / 'elsewhere'), Run.add_loss

    def add_loss_and_move(run, *arguments):
        add_loss(run, *arguments)
        if arguments[-1] == 21:
            os.rename(folder, elsewhere)

    with monkeypatch.context() as patch:
        patch.setattr(Run, 'add_loss', add_loss_and_move)
        result = convnet('--epochs', EPOCHS, check=2)
    assert_one_line(result, os.path.join(folder, NAME) + ': has vanished')
    assert not os.path.exists(folder)
    os.rename(elsewhere, folder)
    assert_as_if_nothing_had_happened(copied, convnet('--epochs', EPOCHS), undisturbed)
