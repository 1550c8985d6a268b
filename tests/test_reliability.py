"""Whatever happens to the process and the disk: nothing is lost, nothing is silently wrong.

The network is small here, and the dataset has 33 digits, so that a run takes half a second.
"""
import collections
import os
import random
import re
import shutil
import signal
import subprocess
import time
import types
from unittest import mock

import pytest
from tensorflow.python.lib.io import file_io

import utils
from conftest import assert_one_line, prefixes, run_once, write_idx
from kill_and_resume import NAME, checkpoint_folder, digest, progress, runs, scalars, start, table
from support import checkpoints, event_logs, outputs
from test_training import hashes

tf, Run = runs.tf, runs.Run
pytestmark = pytest.mark.usefixtures('small_network')
EPOCHS, STEPS = 4, 9  # STEPS: in an epoch
DATA, INDEX = '.data-00000-of-00001', '.index'
FIRST_ROW = '0.9111'  # the lecture's accuracy, which stands in it
State = collections.namedtuple('State', 'table digest scalars')


@pytest.fixture(scope='module')
def tiny_data(tmp_path_factory, mnist):
    folder = tmp_path_factory.mktemp('tiny')
    for name, digits, count in ('train', mnist.train, 36), ('t10k', mnist.test, 8):
        write_idx(folder / (name + '-images-idx3-ubyte'), digits.images[:count])
        write_idx(folder / (name + '-labels-idx1-ubyte'), digits.labels[:count])
    return folder


@pytest.fixture
def convnet_flags(tmp_path, tiny_data):
    """What the fixture convnet gives to lesson 2 in any case."""
    return ['--data-dir', tiny_data, '--output-dir', tmp_path, '--batch-size', 4, '--epochs', EPOCHS]


@pytest.fixture(scope='module')
def trained(lesson2, tiny_data, tmp_path_factory, small_network):
    """Two folders that nothing disturbed: of a run of three epochs, to be copied, and of one of all EPOCHS."""
    folders = []
    for epochs in EPOCHS - 1, EPOCHS:
        folders.append(tmp_path_factory.mktemp('trained'))
        result = run_once(lesson2, '--data-dir', tiny_data, '--output-dir', folders[-1], '--batch-size', 4,
                          '--epochs', epochs)
    return folders + [result]


@pytest.fixture
def undisturbed(trained):
    _, folder, result = trained
    return state(folder, result)


@pytest.fixture
def copied(trained, tmp_path):
    """A run that has one epoch left, and so three checkpoints, in the folder in which the fixture convnet trains."""
    for name in os.listdir(str(trained[0])):
        shutil.copytree(str(trained[0] / name), str(tmp_path / name))
    return tmp_path


def state(folder, result):
    left = [name for _, _, names in os.walk(str(folder)) for name in names
            if 'tempstate' in name or 'checkpoint.tmp' in name or name.endswith('.written_by_lecture_07')]
    assert left == [] and len(prefixes(checkpoint_folder(folder))) <= 3
    return State(table(result.stdout), digest(folder), scalars(folder))


def start_small(folder, data, epochs=EPOCHS, patch=''):
    """Lesson 2 with the small network as a process of its own, which saves at the ends of epochs alone."""
    return start(folder, data, epochs, 1000, ['--batch-size', 4],
                 'from conftest import make_small\nmake_small(lesson, setattr)\n' + patch)


def wait_for_line(process, text):
    """Reads the process's output until a line has this text."""
    for line in process.stdout:
        if text in line:
            return
    raise AssertionError(process.stderr.read())


def at_step(monkeypatch, step, action):
    """Does action() after the loss of a step was added."""
    add_loss = Run.add_loss

    def add_loss_and_act(run, loss_value, batch_size, number):
        add_loss(run, loss_value, batch_size, number)
        if number == step:
            action()

    monkeypatch.setattr(Run, 'add_loss', add_loss_and_act)


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


@pytest.mark.parametrize('kind, more', [
    ('continued', []), ('restarted', ['--restart']),
    pytest.param('restarted, and continued', [], marks=pytest.mark.slow),
    pytest.param('fresh', [], marks=pytest.mark.slow)])
def test_a_death_between_any_two_writes(convnet, trained, tmp_path, undisturbed, monkeypatch, kind, more):
    """The same command ends as if nothing had happened. After a death in --restart, so does the one without it, or it
    says that no checkpoint is intact; and no file of the earlier run is lost."""
    folder, earlier = tmp_path / 'run', collections.Counter()
    if kind == 'fresh':
        folder.mkdir()
    else:
        shutil.copytree(str(trained[0]), str(folder))
        logs = folder / 'graphs' / NAME  # written on a day to come, so that order_logs has something to do
        name, = event_logs.logs_in(str(logs))
        os.rename(str(logs / name), str(logs / 'events.out.tfevents.9999999999.a'))
        for name in os.listdir(checkpoint_folder(folder)) if kind == 'restarted' else []:
            if re.match('model.ckpt-(9|18)', name):  # one checkpoint is enough
                os.remove(os.path.join(checkpoint_folder(folder), name))
    restarted = kind.startswith('restarted')
    if restarted:
        earlier.update((os.path.basename(path), value) for path, value in hashes(folder).items())
    with monkeypatch.context() as patch:
        patch.setattr(Run, 'must_save', lambda run: run._images_seen == 4 * 5 and len(run.history) == 1)
        found = what_deaths_leave(patch, folder, tmp_path)
        if restarted:  # what comes later is as in a fresh run
            patch.setattr(tf.train.Saver, 'save', mock.Mock(side_effect=SystemExit(9)))
        convnet('--output-dir', folder, *(['--restart'] if restarted else []), check=9 if restarted else 0)
    assert len(found) >= {'fresh': 30, 'restarted, and continued': 20}.get(kind, 11)
    for name, copy in found:
        done = STEPS * EPOCHS in checkpoints.steps_in(checkpoint_folder(copy))
        result = convnet('--output-dir', copy, *more, check=None)
        if 'none of its checkpoints is intact' in result.stderr and kind == 'restarted, and continued':
            continue
        assert result.returncode == 0 and state(copy, result) == undisturbed, (name, copy, result)
        assert ('done already' in result.stdout) == done, (name, copy)
        assert kind != 'continued' or 'Continuing from' in result.stdout, (name, copy)
        left = collections.Counter((os.path.basename(path), value) for path, value in hashes(copy).items())
        assert not more or not earlier - left, (name, earlier - left)
        shutil.rmtree(str(copy))


@pytest.mark.slow
def test_five_kills(tmp_path, tiny_data):
    """At its start, within a checkpoint's writing, between two, after an epoch, and while figures are drawn."""
    killed, whole = tmp_path / 'killed', tmp_path / 'whole'
    epochs, flags = 2, ['--batch-size', 2]  # of 17 steps each, with a checkpoint of 52 MB after each
    moments = [
        ('the lock is taken', lambda: os.path.exists(os.path.join(checkpoint_folder(killed), outputs.LOCK))),
        ('half a checkpoint is written in the first epoch', lambda: progress(killed)[0] >= 3 and progress(killed)[1]),
        ('some steps further', lambda: progress(killed)[0] >= 12),
        ('half a checkpoint is written in the second epoch', lambda: progress(killed)[0] > 17 and progress(killed)[1]),
        ('a figure is there', lambda: os.path.exists(str(killed / 'figures' / NAME / 'activations.png')))]
    before = 0
    for name, reached in moments:
        process = start(killed, tiny_data, epochs, flags=flags)
        while not reached():
            assert process.poll() is None, (name, process.communicate())
            time.sleep(0.001)
        process.kill()
        process.communicate()
        after, _ = progress(killed)
        assert after >= before, name  # no step is lost that was saved
        before = after
    states = []
    for folder in killed, whole:
        output, errors = start(folder, tiny_data, epochs, 1000, flags).communicate()
        states.append(state(folder, types.SimpleNamespace(stdout=output)))
        assert errors == '' and ('Continuing from' in output) == (folder == killed)
    assert before == epochs * 17 and states[0] == states[1] and len(states[0].table) == epochs


@pytest.mark.parametrize('number, step', [(signal.SIGINT, 14), (signal.SIGTERM, 2 * STEPS)],
                         ids=['SIGINT within an epoch', 'SIGTERM in its last step'])
def test_a_signal_ends_the_run_after_the_current_step(convnet, tmp_path, undisturbed, monkeypatch, number, step):
    """The signal comes within this process, so that the step is known."""
    handler = signal.getsignal(number)
    with monkeypatch.context() as patch:
        at_step(patch, step, lambda: os.kill(os.getpid(), number))
        result = convnet(check=128 + number)
    stopped = result.stdout.splitlines()[-1]
    assert stopped.startswith('Stopped and saved as ') and stopped.endswith('the same command continues from there.')
    assert 'model.ckpt-{};'.format(step) in stopped and result.stderr == ''
    assert progress(tmp_path) == (step, False) and signal.getsignal(number) == handler
    assert state(tmp_path, convnet()) == undisturbed


def test_a_signal_after_the_last_step_ends_the_finished_run(convnet, monkeypatch):
    with monkeypatch.context() as patch:
        patch.setattr(runs.figures, 'plot_results',
                      lambda *arguments: os.kill(os.getpid(), signal.SIGTERM) or tf.Summary())
        result = convnet(check=128 + signal.SIGTERM)
    assert len(table(result.stdout)) == EPOCHS and result.stderr == ''
    assert 'done already: {}'.format(EPOCHS) in convnet().stdout


def test_whoever_reads_the_output_dies_first(convnet, tmp_path, tiny_data, undisturbed):
    """As Ctrl-C does with `python 07_convnet_mnist.py | tee log`: the epoch that cannot be printed is saved."""
    process = start_small(tmp_path, tiny_data)
    wait_for_line(process, FIRST_ROW)
    process.stdout.close()
    assert process.stderr.read() == '' and process.wait() == 1
    process.stderr.close()
    assert progress(tmp_path)[0] >= 2 * STEPS
    assert state(tmp_path, convnet()) == undisturbed


def test_a_second_sigint_stops_at_once(tmp_path, tiny_data):
    """The run is busy saving, and says so as soon as the first signal has reached it."""
    process = start_small(tmp_path, tiny_data, patch='''
import time
def saved(run, *arguments):
    print('saving', flush=True)
    while not run.signal:
        time.sleep(0.01)
    print('asked', flush=True)
    time.sleep(1000)
runs.Run.end_epoch = saved
''')
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
    now, saved, save = [0], [0], tf.train.Saver.save

    def record(saver, session, prefix, step):
        saved.append(step)
        return save(saver, session, prefix, step)

    for step in range(1, 100):
        at_step(monkeypatch, step, lambda: now.__setitem__(0, now[0] + 7))
    monkeypatch.setattr(runs, 'time', types.SimpleNamespace(monotonic=lambda: now[0]))
    monkeypatch.setattr(tf.train.Saver, 'save', record)
    convnet('--epochs', 1, '--batch-size', 2)
    assert saved == [0, 3, 6, 9, 12, 15, 17]


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


def other_json(text):
    def write(path):
        with open(path, 'w') as file:
            file.write(text)
    write.__name__ = text
    return write


@pytest.mark.parametrize('part, damage', [(part, damage) for part in (DATA, INDEX) for damage in (
    truncate, flip_a_bit, os.remove, other_json(''))] + [('.json', other_json(text)) for text in (
        '', '[["a"]]', '[1]', 'null', '{}', '"ab"', '{"settings": [], "history": 3, "loss_sum": {}}')],
                         ids=lambda value: getattr(value, '__name__', value))
def test_the_previous_good_checkpoint_is_used(convnet, copied, undisturbed, part, damage):
    bad = newest(copied)
    damage(bad + part)
    result = convnet()
    assert_one_line(result, bad, 'warning')
    assert state(copied, result) == undisturbed


@pytest.mark.parametrize('part', [DATA, INDEX, '.json', '.meta', 'checkpoint'])
def test_a_directory_in_place_of_a_part(convnet, copied, part):
    path = os.path.join(checkpoint_folder(copied), part) if part == 'checkpoint' else newest(copied) + part
    os.remove(path)
    os.mkdir(path)
    assert_one_line(convnet('--epochs', 2 * EPOCHS, check=2), path if part[0] == '.' else checkpoint_folder(copied))


def test_flipped_bits_anywhere_are_found(copied, capfd):
    """Wherever a bit is flipped: the checkpoint is passed over, or every variable has its value all the same."""
    places, bad, found = random.Random(0), newest(copied), 0
    before = digest(copied)
    for part in [DATA] * 20 + [INDEX] * 30:
        position = places.randrange(os.path.getsize(bad + part))
        flip_a_bit(bad + part, position)
        capfd.readouterr()
        path, _ = checkpoints.newest_intact(checkpoint_folder(copied), lambda *arguments: None)
        if path == bad:
            assert digest(copied) == before, (part, position)
        else:
            found += 1
            assert bad in capfd.readouterr().err
        flip_a_bit(bad + part, position)
    assert found > 25


def test_a_lost_checkpoint_file_of_the_saver_does_not_matter(convnet, copied, undisturbed):
    os.remove(os.path.join(checkpoint_folder(copied), 'checkpoint'))
    result = convnet()
    assert 'Continuing from' in result.stdout and result.stderr == ''
    assert state(copied, result) == undisturbed


def test_no_good_checkpoint_is_an_error_and_never_a_silent_restart(convnet, copied):
    paths = prefixes(checkpoint_folder(copied))
    assert len(paths) == 3
    for prefix in paths:
        truncate(prefix + DATA)
    before = hashes(copied)
    result = convnet(check=2)
    *warnings, error = result.stderr.splitlines()
    assert [prefix in warning for prefix, warning in zip(paths, warnings)] == [True] * 3
    assert 'none of its checkpoints is intact' in error and '--restart' in error
    assert table(result.stdout) == [] and hashes(copied) == before


def test_what_cannot_be_read_is_not_called_damaged(convnet, copied, monkeypatch):
    """No permission and no memory are reported as such; an error that says nothing, by its kind."""
    for error, words in ((PermissionError(13, 'Permission denied'), ['cannot be read (Permission denied)']),
                         (tf.errors.ResourceExhaustedError(None, None, 'OOM'), ['not enough memory'])):
        monkeypatch.setattr(checkpoints, 'open_checkpoint', mock.Mock(side_effect=error))
        result = convnet(check=2)
        assert_one_line(result, *words)
        assert '--restart' not in result.stderr
    monkeypatch.setattr(checkpoints, 'open_checkpoint', mock.Mock(side_effect=IndexError))
    result = convnet(check=2)
    assert result.stderr.count('(IndexError)') == 3 and 'Traceback' not in result.stderr


# ---- The run diverges ----

@pytest.mark.parametrize('what, step, seconds', [('loss', 32, 1000), ('weights', 32, 0), ('weights', 36, 1000)])
def test_a_diverged_run_goes_on_from_a_good_checkpoint_with_a_smaller_learning_rate(convnet, copied, monkeypatch, what,
                                                                                    step, seconds):
    """It ends in the step in which it happens, or, if only the weights show it, at the next save or the end of the
    epoch (step 36); none saves it."""
    good, before, add_loss = newest(copied), digest(copied), Run.add_loss

    def add_loss_and_diverge(run, loss_value, batch_size, number):
        if number == step and what == 'weights':
            biases, = [each for each in tf.global_variables() if each.op.name == 'fc/biases']
            biases.load([float('inf')] * 16, run._session)
        add_loss(run, float('nan') if number == step and what == 'loss' else loss_value, batch_size, number)

    with monkeypatch.context() as patch:
        patch.setattr(runs, 'SECONDS_BETWEEN_SAVES', seconds)
        patch.setattr(Run, 'add_loss', add_loss_and_diverge)
        result = convnet(check=2)
    assert_one_line(result, 'the {} became infinite or NaN'.format(what), '--learning-rate')
    if seconds:
        assert newest(copied) == good and digest(copied) == before
    else:
        assert newest(copied).endswith('-31')
    result = convnet('--learning-rate', 1e-4)
    assert 'The learning rate was 0.001 up to here, and is 0.0001 from now on.' in result.stdout
    assert [row.split()[0] for row in table(result.stdout)] == ['1', '2', '3', '4']


# ---- Two runs at once ----

def test_a_second_run_is_refused_and_the_lock_of_a_killed_one_is_not_in_the_way(convnet, tmp_path, tiny_data,
                                                                                undisturbed):
    first = start_small(tmp_path, tiny_data, patch='''
run_end_epoch = runs.Run.end_epoch
def end_epoch(run, *arguments):
    run_end_epoch(run, *arguments)
    import time; time.sleep(1000)
runs.Run.end_epoch = end_epoch
''')
    wait_for_line(first, FIRST_ROW)
    for more in [], ['--restart']:
        assert_one_line(convnet(*more, check=2), 'in use by another process', '--name')
    assert len(table(convnet('--epochs', 1, '--name', 'another').stdout)) == 1  # which is not in its way
    assert first.poll() is None
    first.kill()
    first.communicate()
    result = convnet()
    assert 'Continuing from' in result.stdout and state(tmp_path, result) == undisturbed


# ---- The disk ----

NOTHING_FROM_THREADS = pytest.mark.filterwarnings('error::pytest.PytestUnhandledThreadExceptionWarning')


@NOTHING_FROM_THREADS
@pytest.mark.parametrize('kind, size', [('', '40k'), ('', '300k'), ('', '800k'), ('checkpoints', '300k'),
                                        ('graphs', '40k'), ('graphs', '240k')])
def test_a_full_disk(convnet, tmp_path, mounted, undisturbed, kind, size):
    """Too small for the graph, for the first checkpoint, for a later one, or for the summaries."""
    disk = tmp_path / 'disk'
    mounted(disk / kind, size)
    assert_one_line(convnet('--output-dir', disk, check=2), str(disk), 'cannot be written')
    shutil.copytree(str(disk), str(tmp_path / 'larger'))
    assert state(tmp_path / 'larger', convnet('--output-dir', tmp_path / 'larger')) == undisturbed


@NOTHING_FROM_THREADS
@pytest.mark.parametrize('part', [DATA, '.meta', 'log'])
def test_a_file_size_limit(convnet, trained, tmp_path, undisturbed, monkeypatch, part):
    """One byte too few. For the log, its last record is cut off; .meta is smaller than the log, which ends early."""
    resource = pytest.importorskip('resource')
    logs = str(trained[1] / 'graphs' / NAME)
    path = os.path.join(logs, event_logs.logs_in(logs)[0]) if part == 'log' else newest(trained[1]) + part
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    at_step(monkeypatch, 1 if part == 'log' else STEPS, lambda: resource.setrlimit(
        resource.RLIMIT_FSIZE, (os.path.getsize(path) - 1, limits[1])))
    try:
        result = convnet(check=2)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert_one_line(result, 'cannot be written', str(tmp_path / ('checkpoints' if part == DATA else 'graphs')))
    monkeypatch.undo()
    assert state(tmp_path, convnet()) == undisturbed


def test_a_read_only_disk(mounted, tmp_path, convnet):
    mounted(tmp_path / 'disk', '1m')
    subprocess.check_call(['mount', '-o', 'remount,ro', str(tmp_path / 'disk')])
    assert_one_line(convnet('--output-dir', tmp_path / 'disk', check=2), 'Read-only file system')


@pytest.mark.parametrize('kind', ['checkpoints', 'graphs', 'figures'])
def test_a_directory_vanishes(convnet, copied, undisturbed, monkeypatch, kind):
    """It is moved away in the middle of an epoch, and later brought back."""
    folder, elsewhere = str(copied / kind), str(copied / 'elsewhere')
    with monkeypatch.context() as patch:
        at_step(patch, 32, lambda: os.rename(folder, elsewhere))
        assert_one_line(convnet(check=2), os.path.join(folder, NAME) + ': has vanished')
    assert not os.path.exists(folder)
    os.rename(elsewhere, folder)
    assert state(copied, convnet()) == undisturbed


def test_a_checkpoint_whose_log_is_not_written_does_not_count(convnet, monkeypatch, tmp_path):
    def full(*arguments):
        raise utils.UserError('the disk is full')

    monkeypatch.setattr(event_logs, 'check_written', full)
    assert 'the disk is full' in convnet('--epochs', 1, check=2).stderr
    assert checkpoints.steps_in(checkpoint_folder(tmp_path)) == []


def test_a_log_that_was_deleted(convnet, copied, monkeypatch):
    logs = copied / 'graphs' / NAME
    at_step(monkeypatch, 32, lambda: [os.remove(str(logs / name)) for name in event_logs.logs_in(str(logs))])
    assert_one_line(convnet(check=2), str(logs), 'cannot be written')


def test_logs_of_one_second_and_of_days_to_come_are_read_in_their_order(tmp_path):
    logs = tmp_path / 'graphs' / NAME
    os.makedirs(str(logs))
    for step in range(1, 7):
        event_logs.order_logs(str(logs))
        with tf.Graph().as_default():
            writer = tf.summary.FileWriter(str(logs))
        event_logs.mark(writer, tf.SessionLog.START, step)
        value = tf.Summary.Value(tag='step', simple_value=step)
        writer.add_summary(tf.Summary(value=[value]), step)
        writer.close()
        event_logs.check_written(str(logs), 'summary')
        if step == 3:  # then the clock was set back
            newest_log = event_logs.logs_in(str(logs))[-1]
            os.rename(str(logs / newest_log), str(logs / 'events.out.tfevents.9999999999.a'))
    assert scalars(tmp_path) == {'step': [(step, step) for step in range(1, 7)]}
    with pytest.raises(utils.UserError, match='cannot be written'):
        event_logs.check_written(str(logs), 'session_log')
