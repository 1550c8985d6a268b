"""Lesson 3: towers in one process, judged by lesson 2; and several processes, judged by towers in one."""
import contextlib
import io
import json
import os
import signal
import socket
import subprocess
import sys

import numpy as np
import pytest

import utils
from conftest import (ROOT, Result, all_variables, assert_equal_variables, assert_one_line, draw_nothing, lesson2,
                      lesson3, make_small, rows, run_here, tf, user_environment)
from kill_and_resume import read_until
from support import cli, cluster, devices, script


@pytest.fixture
def lesson(convnet_flags):
    """Runs a lesson on the small dataset; all it writes is under tmp_path."""
    return lambda lesson, *arguments, **options: run_here(lesson, *convnet_flags, *arguments, **options)


@pytest.fixture
def small(monkeypatch):
    """Lesson 2 with a small network and without figures."""
    make_small(monkeypatch.setattr)


# ---- Towers in one process ------------------------------------------------------------------------

@pytest.mark.parametrize('flags', [[], ['--conv1=hand-coded', '--init-stddev=0.1', '--learning-rate=0.01', '--seed=9',
                                        '--keep-prob=0.5', '--augment=0', '--ema-decay=0', '--batch-size=64']])
def test_one_tower_is_lesson_2_whatever_the_flags(lesson, tmp_path, small, flags):
    expected = rows(lesson(lesson2, '--epochs', 2, '--name', 'one', *flags))
    found = rows(lesson(lesson3, '--epochs', 2, '--name', 'other', '--towers', 1, *flags))
    assert found == expected and len(found) == 2
    assert_equal_variables(all_variables(tmp_path, 'other'), all_variables(tmp_path, 'one'))


@pytest.mark.parametrize('towers', [1, 2, 3])
@pytest.mark.parametrize('batch_size', [3, 7, 128])
def test_the_towers_gradients_add_up_to_those_of_the_whole_batch(mnist, monkeypatch, towers, batch_size):
    """Also where one tower has more images than another."""
    flags = cli.parse_towers_flags('', ['--towers', str(towers)])

    class Gradients:  # in Adam's place: returns the gradients instead of applying them
        def __init__(self, learning_rate):
            pass

        def minimize(self, loss, global_step):
            return tf.gradients(loss, tf.trainable_variables())

        def apply_gradients(self, gradients_and_variables, global_step):
            return [gradient for gradient, _ in gradients_and_variables]

    monkeypatch.setattr(tf.train, 'AdamOptimizer', Gradients)
    with tf.Graph().as_default(), tf.Session(config=devices.session_config(flags)) as session:
        images, labels = tf.placeholder(tf.uint8, [None, 28, 28]), tf.placeholder(tf.int32, [None])
        one = lesson2.build_network(flags, images, labels, 1.0)
        with tf.variable_scope(tf.get_variable_scope(), reuse=True):
            several = lesson3.towers_on(devices.tower_devices([], flags))(flags, images, labels, 1.0)
        assert len(tf.trainable_variables()) == 8
        session.run(tf.global_variables_initializer())
        feed = {images: mnist.train.images[:batch_size], labels: mnist.train.labels[:batch_size]}
        one, several = session.run([one, several], feed)
    np.testing.assert_allclose(several[0], one[0], atol=1e-4)  # the logits
    assert several[1] == pytest.approx(one[1], rel=1e-5)
    for expected, found in zip(one[2], several[2]):
        np.testing.assert_allclose(found, expected, atol=1e-5 * np.abs(expected).max())


def test_each_tower_is_on_its_device_and_all_share_the_variables_of_the_first(monkeypatch):
    flags = cli.parse_towers_flags('', ['--towers', '3'])
    monkeypatch.setattr(devices, 'gpus', lambda: ['one', 'other'])
    names = devices.tower_devices([], flags)
    assert names == ['/GPU:0', '/GPU:1', '/GPU:0']
    with tf.Graph().as_default() as graph, tf.device(names[0]):
        images, labels = tf.placeholder(tf.uint8, [None, 28, 28]), tf.placeholder(tf.int32, [None])
        lesson3.towers_on(names)(flags, images, labels, 1.0)
        assert [variable.op.name for variable in tf.trainable_variables()] == [
            layer + kind for layer in ('conv1', 'conv2', 'fc', 'softmax_linear') for kind in ('/weights', '/biases')]
        for operation in graph.get_operations():
            tower = int(operation.name[len('tower_')]) if operation.name.startswith('tower_') else 0
            if operation.type in ('Conv2D', 'Conv2DBackpropFilter', 'MatMul', 'MaxPoolGrad'):
                assert operation.device == '/device:' + names[tower][1:], operation.name
            if operation.type in ('VariableV2', 'AddN', 'ApplyAdam') and 'tower_' not in operation.name or (
                    operation.name == 'tower_1/strided_slice'):  # of the images: a tower gets only its part
                assert operation.device == '/device:GPU:0', operation.name
    flags.device = 'cpu'
    assert devices.tower_devices([], flags) == ['/CPU:0', '/CPU:1', '/CPU:2']
    assert devices.tower_devices(['a:1', 'b:2'], flags) == [
        '/job:worker/task:0/CPU:0', '/job:worker/task:1/CPU:0', '/job:worker/task:0/CPU:1']


def test_towers_drop_different_units():
    flags = cli.parse_towers_flags('', ['--towers', '2'])
    with tf.Graph().as_default() as graph, tf.Session(config=devices.session_config(flags)) as session:
        lesson3.towers_on(['/CPU:0', '/CPU:1'])(
            flags, tf.zeros([8, 28, 28], tf.uint8), tf.zeros([8], tf.int32), tf.constant(0.5))
        masks = [graph.get_tensor_by_name('tower_{}/dropout/Less:0'.format(number)) for number in (0, 1)]
        session.run(tf.global_variables_initializer())
        one, other = session.run(masks)
    assert one.shape == other.shape == (4, 1024) and (one != other).mean() > 0.4


def test_towers_run_in_parallel():
    """Each has a thread of its own for its operations."""
    config = devices.session_config(cli.parse_towers_flags('', ['--towers', '3']))
    assert config.inter_op_parallelism_threads == config.device_count['CPU'] == 3


def test_two_towers_stop_and_go_on_and_their_number_is_a_setting(lesson, tmp_path, small):
    assert 'Trains on CPU:0, CPU:1\n' in lesson(lesson3, '--epochs', 1, '--name', 'parts').stdout
    lesson(lesson3, '--epochs', 2, '--name', 'parts')
    lesson(lesson3, '--epochs', 2, '--name', 'whole')
    assert_equal_variables(all_variables(tmp_path, 'parts'), all_variables(tmp_path, 'whole'))
    assert_one_line(lesson(lesson3, '--epochs', 3, '--name', 'parts', '--towers', 3, check=2), '--towers 2 (now 3)')
    assert_one_line(lesson(lesson2, '--epochs', 3, '--name', 'parts', check=2), '--towers 2 (now 1)')


def test_a_batch_with_as_many_images_as_towers_and_one_with_fewer(lesson, small):
    """665 images are 2 x 331 + 3, and 3 x 221 + 2."""
    assert len(rows(lesson(lesson3, '--epochs', 1, '--towers', 3, '--batch-size', 331))) == 1
    assert_one_line(lesson(lesson3, '--towers', 3, '--batch-size', 221, check=2), 'has 2 images', '--batch-size')


def test_predict_reads_with_lesson_2(lesson, small, mnist, tmp_path):
    utils.Image.fromarray(255 - mnist.test.images[0]).resize((280, 280)).save(str(tmp_path / '7.png'))
    lesson(lesson3, '--epochs', 1)
    results = [lesson(each, '--name', 'convnet_towers', '--predict', tmp_path / '7.png') for each in (lesson2, lesson3)]
    assert results[0].stdout == results[1].stdout


# ---- An honest GPU path ---------------------------------------------------------------------------

def test_a_gpu_that_tensorflow_cannot_use_is_one_warning(lesson, small, monkeypatch):
    monkeypatch.setattr(script, 'has_nvidia_gpu', lambda: True)
    monkeypatch.setattr(tf.test, 'is_built_with_cuda', lambda: True)
    monkeypatch.setattr(devices, 'gpus', lambda: [])
    result = lesson(lesson2, '--epochs', 1)
    assert_one_line(result, 'warning: ', 'computes on the CPU', 'docs/devices.md')
    assert 'Trains on CPU:0' in result.stdout
    assert lesson(lesson2, '--device', 'cpu', '--epochs', 1).stderr == ''
    monkeypatch.setattr(tf.test, 'is_built_with_cuda', lambda: False)  # it cannot be helped by a driver
    assert lesson(lesson2, '--epochs', 1).stderr == ''


@pytest.mark.parametrize('file', [None, '/dev/nvidia0', '/dev/dxg'])
def test_operations_are_deterministic_on_a_gpu_unless_the_user_says_otherwise(monkeypatch, file):
    monkeypatch.setattr(script.os.path, 'exists', lambda path: path == file)
    monkeypatch.setenv('TF_CPP_MIN_LOG_LEVEL', '0')
    monkeypatch.setenv('TF_CUDNN_DETERMINISTIC', '0')
    monkeypatch.setenv('TF_DETERMINISTIC_OPS', '')
    monkeypatch.delenv('TF_DETERMINISTIC_OPS')
    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
        script.start('__main__')
    assert os.environ.get('TF_DETERMINISTIC_OPS') == ('1' if file else None)
    assert os.environ['TF_CUDNN_DETERMINISTIC'] == '0'


# ---- Several processes ----------------------------------------------------------------------------

@pytest.fixture
def addresses():
    with contextlib.ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(3)]
        for each in sockets:
            each.bind(('127.0.0.1', 0))
        return ['127.0.0.1:{}'.format(each.getsockname()[1]) for each in sockets]


@pytest.fixture
def start(convnet_flags):
    """Starts a member of a cluster, or with no addresses a run of its own; what still runs at the end is killed."""
    processes = []

    def start(addresses, index, *flags, on_one_core=False):
        def prepare():
            signal.signal(signal.SIGINT, signal.SIG_DFL)  # which a background shell makes its children ignore
            if on_one_core:
                os.sched_setaffinity(0, [sorted(os.sched_getaffinity(0))[index % os.cpu_count()]])

        config = json.dumps({'cluster': {'worker': addresses}, 'task': {'type': 'worker', 'index': index}})
        processes.append(subprocess.Popen(
            [sys.executable, os.path.join(ROOT, '07_convnet_towers.py')] + list(map(str, (*convnet_flags, *flags))),
            env=user_environment({'TF_CONFIG': config if addresses else ''}), stdout=subprocess.PIPE,
            stderr=subprocess.PIPE, universal_newlines=True, preexec_fn=prepare))
        return processes[-1]
    yield start
    for process in processes:
        process.kill()
        process.communicate()


def result_of(process, check=0, seconds=120):
    stdout, stderr = process.communicate(timeout=seconds)
    assert process.returncode == check, stdout + stderr
    return Result(process.returncode, stdout, stderr)


@pytest.fixture
def two_towers(lesson, tmp_path, monkeypatch):
    """The variables after four epochs in one process."""
    draw_nothing(monkeypatch.setattr)
    lesson(lesson3, '--epochs', 4, '--name', 'whole')
    return all_variables(tmp_path, 'whole')


@pytest.mark.slow
@pytest.mark.parametrize('count, on_one_core', [
    (2, False), (3, False), pytest.param(2, True, marks=pytest.mark.skipif(
        not hasattr(os, 'sched_setaffinity'), reason='only Linux lets a process choose its cores'))])
def test_processes_give_what_towers_in_one_process_give(start, addresses, tmp_path, count, on_one_core):
    """On the same number of cores: it decides in which order TensorFlow's convolutions add up."""
    flags = ['--epochs', 1, '--towers', count]
    expected = rows(result_of(start([], 0, *flags, '--name', 'here', on_one_core=on_one_core)))
    chief = start(addresses[:count], 0, *flags, on_one_core=on_one_core)
    read_until(chief, 'Waiting for the workers')  # the workers are late
    for index in range(1, count):
        start(addresses[:count], index, *flags, on_one_core=on_one_core)
    result = result_of(chief)
    assert rows(result) == expected and len(expected) == 1 and result.stderr == ''
    assert_equal_variables(all_variables(tmp_path, 'convnet_towers'), all_variables(tmp_path, 'here'))


@pytest.mark.slow  # TensorFlow waits for half a minute for the one that is gone
@pytest.mark.parametrize('victim, number', [
    ('worker', signal.SIGKILL), ('worker', signal.SIGSTOP), ('chief', signal.SIGKILL)])
def test_a_killed_process_and_the_same_command_again(start, addresses, two_towers, tmp_path, victim, number):
    """The chief notices it within a minute. A worker serves the next chief, too, until Ctrl-C."""
    addresses = addresses[:2]
    worker = start(addresses, 1)
    chief = start(addresses, 0, '--epochs', 50)
    read_until(chief, '    2   ')
    {'chief': chief, 'worker': worker}[victim].send_signal(number)
    if victim == 'worker':
        result = result_of(chief, check=2)
        assert_one_line(result, 'worker', 'does not answer', 'the same command')
        worker.kill()
        worker = start(addresses, 1)
    chief.wait()
    result = result_of(start(addresses, 0, '--epochs', 4))
    assert 'Continuing from' in result.stdout and len(rows(result)) == 4 and result.stderr == ''
    assert_equal_variables(all_variables(tmp_path, 'convnet_towers'), two_towers)
    assert worker.poll() is None
    worker.send_signal(signal.SIGINT)
    result = result_of(worker, check=130)
    assert 'Worker 1: serves on ' + addresses[1] in result.stdout and result.stderr == ''


def test_a_chief_ends_when_no_worker_comes(start, addresses):
    assert_one_line(result_of(start(addresses, 0, '--wait', 1), check=2),
                    'worker 1 ({}) did not answer within 1 seconds'.format(addresses[1]))


def test_a_port_in_use(start, addresses):
    with socket.socket() as occupied:
        occupied.bind(('127.0.0.1', 0))
        occupied.listen(1)
        address = '127.0.0.1:{}'.format(occupied.getsockname()[1])
        assert_one_line(result_of(start([addresses[0], address], 1), check=2), address, 'in use')


def test_one_machine_alone_needs_no_server_and_nothing_listens_without_tf_config(lesson, monkeypatch, small):
    monkeypatch.setattr(cluster.tf.train, 'Server', None)
    monkeypatch.setattr(socket.socket, 'bind', None)
    lesson(lesson3, '--epochs', 1)
    monkeypatch.setenv('TF_CONFIG', '{"cluster": {"worker": ["localhost:1"]}, "task": {"type": "worker", "index": 0}}')
    lesson(lesson3, '--epochs', 2)
