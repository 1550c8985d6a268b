"""Whatever happens to the process and the disk: nothing is lost, nothing is silently wrong."""
import os
import random
import shutil
import signal
import subprocess
import time

import pytest

import kill_and_resume
from support import training_run
from kill_and_resume import digest, run_to_the_end, run_with_kills, scalars, start, table

EPOCHS = 4


@pytest.fixture(scope='module')
def unstopped(small_data, tmp_path_factory, lesson2):  # lesson2: TensorFlow is first imported there, quietly
    """The table, the variables' digest and the scalars of a run of EPOCHS epochs that nothing disturbed."""
    folder = str(tmp_path_factory.mktemp('unstopped'))
    rows = run_to_the_end(folder, small_data, EPOCHS)
    return rows, digest(folder), scalars(folder)


def assert_as_if_nothing_had_happened(folder, rows, unstopped):
    assert rows == unstopped[0]
    assert digest(folder) == unstopped[1]
    assert scalars(folder) == unstopped[2]


def wait_for(condition, seconds=60):
    end = time.time() + seconds
    while not condition():
        assert time.time() < end, 'waited in vain'
        time.sleep(0.02)


def wait_for_rows(process, count):
    """Reads the process's output until it has printed so many rows."""
    output = ''
    while len(table(output)) < count:
        line = process.stdout.readline()
        assert line, output + process.stderr.read()
        output += line


# ---- The process dies ----

def test_ten_kills_at_random_moments(tmp_path, small_data, lesson2):
    seed = int(time.time())
    print('seed', seed)  # pytest shows it if the test fails
    killed, whole = str(tmp_path / 'killed'), str(tmp_path / 'whole')
    small_steps = ['--batch-size', 32]  # 21 to the epoch: many moments to be killed at, in little time
    rows, kills, _ = run_with_kills(killed, small_data, 20, kills=10, seed=seed, longest=6, flags=small_steps)
    assert kills == 10
    assert rows == run_to_the_end(whole, small_data, 20, flags=small_steps)
    assert digest(killed) == digest(whole)
    assert scalars(killed) == scalars(whole)
    assert not [name for name in os.listdir(killed + '/checkpoints') if 'tempstate' in name]


def test_killed_between_a_row_s_log_and_its_checkpoint(convnet, tmp_path, unstopped, monkeypatch):
    """The checkpoint of the same step, but without the row, is there already: the row must not be logged twice."""
    save = training_run.Run.save

    def save_or_die(run):
        if len(run.rows) == 2:
            for writer in run._writers.values():
                writer.flush()
            raise SystemExit(9)
        save(run)

    with monkeypatch.context() as patch:
        patch.setattr(training_run.Run, 'SECONDS_BETWEEN_SAVES', 0)
        patch.setattr(training_run.Run, 'save', save_or_die)
        convnet('--epochs', EPOCHS, check=9)
    result = convnet('--epochs', EPOCHS)
    assert_as_if_nothing_had_happened(str(tmp_path), table(result.stdout), unstopped)


@pytest.mark.parametrize('number', [signal.SIGINT, signal.SIGTERM])
def test_a_signal_saves_and_says_how_to_continue(tmp_path, small_data, unstopped, number):
    process = start(str(tmp_path), small_data, EPOCHS, seconds_between_saves=1000)
    wait_for_rows(process, 1)
    process.send_signal(number)
    output, errors = process.communicate()
    assert process.returncode == 128 + number and errors == ''
    stopped = output.splitlines()[-1]
    assert stopped.startswith('Stopped and saved as ') and stopped.endswith('the same command continues from there.')
    rows = run_to_the_end(str(tmp_path), small_data, EPOCHS)
    assert_as_if_nothing_had_happened(str(tmp_path), rows, unstopped)


def test_a_second_sigint_stops_at_once(tmp_path, small_data, monkeypatch):
    monkeypatch.setattr(kill_and_resume, 'TRAIN', kill_and_resume.TRAIN.replace(
        'from support import training_run\n', 'from support import training_run\nimport time\ntraining_run.Run.save = lambda run: (print("saving"), time.sleep(100))\n'))
    process = start(str(tmp_path), small_data, EPOCHS, seconds_between_saves=1000)
    wait_for(lambda: os.path.exists(str(tmp_path / 'graphs' / 'test')))
    time.sleep(1)
    process.send_signal(signal.SIGINT)
    time.sleep(1)
    assert process.poll() is None
    process.send_signal(signal.SIGINT)
    process.communicate(timeout=5)
    assert process.returncode == -signal.SIGINT


def test_a_checkpoint_at_least_every_twenty_seconds():
    assert training_run.Run.SECONDS_BETWEEN_SAVES <= 20


# ---- The checkpoints are damaged ----

def newest(folder):
    return training_run.checkpoints(os.path.join(str(folder), 'checkpoints'))[0]


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


DATA, INDEX = '.data-00000-of-00001', '.index'


@pytest.mark.parametrize('damage', [truncate, flip_a_bit, os.remove, lambda path: open(path, 'w').close()],
                         ids=['truncated', 'flipped', 'missing', 'empty'])
@pytest.mark.parametrize('part', [DATA, INDEX])
def test_the_previous_good_checkpoint_is_used(convnet, tmp_path, small_data, unstopped, part, damage):
    convnet('--epochs', EPOCHS - 1)
    bad = newest(tmp_path)
    damage(bad + part)
    result = convnet('--epochs', EPOCHS)
    assert result.stderr.count('\n') == 1 and bad in result.stderr and 'warning' in result.stderr
    assert_as_if_nothing_had_happened(str(tmp_path), table(result.stdout), unstopped)


def test_flipped_bits_anywhere_are_found(convnet, tmp_path, unstopped):
    convnet('--epochs', EPOCHS)
    seed = int(time.time())
    print('seed', seed)
    places = random.Random(seed)
    for part in [DATA] * 4 + [INDEX] * 4:
        bad = newest(tmp_path)
        with open(bad + part, 'rb') as file:
            good = file.read()
        flip_a_bit(bad + part, places.randrange(len(good)))
        result = convnet('--epochs', EPOCHS)  # warns, and trains the last epoch again from the one before
        assert bad in result.stderr or digest(str(tmp_path)) == unstopped[1]
        assert table(result.stdout) == unstopped[0]
        with open(bad + part, 'wb') as file:
            file.write(good)


def test_a_lost_checkpoint_file_of_the_saver_does_not_matter(convnet, tmp_path, unstopped):
    convnet('--epochs', EPOCHS - 1)
    os.remove(str(tmp_path / 'checkpoints' / 'checkpoint'))
    result = convnet('--epochs', EPOCHS)
    assert 'Continuing from' in result.stdout
    assert_as_if_nothing_had_happened(str(tmp_path), table(result.stdout), unstopped)


def test_a_first_checkpoint_cut_short_is_no_checkpoint(convnet, tmp_path):
    """Killed after the data were in place, and before the index and the Saver's list were."""
    convnet('--epochs', 1)
    folder = tmp_path / 'checkpoints'
    for name in 'checkpoint', 'model.ckpt-6.index':
        os.remove(str(folder / name))
    result = convnet('--epochs', 1)
    assert len(table(result.stdout)) == 1 and result.stderr == '' and 'Continuing' not in result.stdout


def test_no_good_checkpoint_is_an_error_and_never_a_silent_restart(convnet, tmp_path):
    convnet('--epochs', 4)
    prefixes = training_run.checkpoints(str(tmp_path / 'checkpoints'))
    assert len(prefixes) >= 2
    for prefix in prefixes:
        truncate(prefix + DATA)
    before = {name: os.path.getsize(str(tmp_path / 'checkpoints' / name)) for name in os.listdir(str(tmp_path / 'checkpoints'))}
    result = convnet('--epochs', 5, check=2)
    assert 'none of its checkpoints is whole' in result.stderr and table(result.stdout) == []
    after = {name: os.path.getsize(str(tmp_path / 'checkpoints' / name)) for name in before}
    assert after == before


# ---- Two runs at once ----

def test_the_second_run_is_refused_and_a_stale_lock_is_not_in_the_way(convnet, tmp_path, small_data):
    first = start(str(tmp_path), small_data, 10000, seconds_between_saves=1000)
    wait_for_rows(first, 1)
    started = time.time()
    result = convnet('--epochs', 2, check=2)
    assert 'process id {};'.format(first.pid) in result.stderr and result.stderr.count('\n') == 1
    assert time.time() - started < 10
    first.kill()
    first.communicate()
    assert len(table(convnet('--epochs', 1).stdout)) >= 1


# ---- The disk ----

@pytest.fixture
def small_disk(tmp_path):
    """A file system of 140 MB: room for two checkpoints of 52 MB, and for some logs."""
    folder = str(tmp_path / 'disk')
    os.mkdir(folder)
    if subprocess.call(['mount', '-t', 'tmpfs', '-o', 'size=140m', 'tmpfs', folder], stderr=subprocess.DEVNULL) != 0:
        pytest.skip('mounting is not allowed here')
    yield folder
    subprocess.check_call(['umount', folder])


def assert_one_line(process, text):
    output, errors = process.communicate()
    assert process.returncode == 2, output + errors
    assert errors.count('\n') == 1 and text in errors, errors


def test_a_full_disk(small_disk, small_data, tmp_path, unstopped):
    process = start(small_disk, small_data, EPOCHS, seconds_between_saves=1000)
    assert_one_line(process, 'No space left on device')
    shutil.move(small_disk + '/checkpoints', str(tmp_path / 'more' / 'checkpoints'))
    shutil.move(small_disk + '/graphs', str(tmp_path / 'more' / 'graphs'))
    rows = run_to_the_end(str(tmp_path / 'more'), small_data, EPOCHS)
    assert rows == unstopped[0] and digest(str(tmp_path / 'more')) == unstopped[1]


def test_a_file_size_limit(small_data, tmp_path, unstopped):
    resource = pytest.importorskip('resource')
    run_to_the_end(str(tmp_path), small_data, 1)
    limit = 20 * 2**20
    process = start(str(tmp_path), small_data, EPOCHS, seconds_between_saves=1000,
                    preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit)))
    assert_one_line(process, 'cannot be written')
    rows = run_to_the_end(str(tmp_path), small_data, EPOCHS)
    assert_as_if_nothing_had_happened(str(tmp_path), rows, unstopped)


def test_a_read_only_disk(small_disk, small_data):
    subprocess.check_call(['mount', '-o', 'remount,ro', small_disk])
    assert_one_line(start(small_disk, small_data, 1), 'Read-only file system')


@pytest.mark.parametrize('name', ['checkpoints', 'graphs'])
def test_a_directory_vanishes(small_data, tmp_path, unstopped, name):
    process = start(str(tmp_path), small_data, EPOCHS, seconds_between_saves=1000)
    wait_for_rows(process, 1)
    os.rename(str(tmp_path / name), str(tmp_path / 'elsewhere'))
    assert_one_line(process, str(tmp_path / name) + ': has vanished')
    shutil.rmtree(str(tmp_path / name), ignore_errors=True)  # the Saver may just have been making it anew
    os.rename(str(tmp_path / 'elsewhere'), str(tmp_path / name))
    rows = run_to_the_end(str(tmp_path), small_data, EPOCHS)
    assert_as_if_nothing_had_happened(str(tmp_path), rows, unstopped)
