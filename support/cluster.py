"""Several machines that train one network, by TF_CONFIG.

Worker 0 is the chief: it builds the graph, runs it and saves. The others run a tf.train.Server, whose devices the
chief's graph uses. A server asks for no password: see docs/devices.md.
"""
import collections
import contextlib
import json
import os
import socket
import sys
import threading
import time

import tensorflow.compat.v1 as tf

import utils
from support import devices, outputs, script

TIMEOUT = 30  # seconds after which a machine that does not answer is given up
HELLO = 'hello'  # what the chief tells a worker first
Cluster = collections.namedtuple('Cluster', 'addresses index')


def from_environment():
    """Returns the Cluster of TF_CONFIG, without addresses if there is none. Raises UserError for a wrong one."""
    text = os.environ.get('TF_CONFIG', '')
    if not text:
        return Cluster([], 0)
    try:
        config = json.loads(text)
        addresses, task = config['cluster']['worker'], config['task']
        right = (set(config['cluster']) == {'worker'} and task['type'] == 'worker' and type(task['index']) is int
                 and 0 <= task['index'] < len(addresses) == len(set(addresses))
                 and all(0 < host_and_port(address)[1] < 65536 for address in addresses))
    except (ValueError, KeyError, TypeError, AttributeError):
        right = False
    if not right:
        raise utils.UserError('TF_CONFIG: expected {{"cluster": {{"worker": ["a:2222", "b:2222"]}}, "task": {{"type": '
                              '"worker", "index": 0}}}} with the addresses of all machines and the index of this one, '
                              'found {}'.format(text))
    for address in addresses:
        try:
            socket.getaddrinfo(*host_and_port(address))
        except (OSError, UnicodeError) as error:  # UnicodeError: a part of the name that is empty or too long
            raise utils.UserError('TF_CONFIG: {} cannot be found ({}); expected HOST:PORT of a machine in this network'
                                  .format(address, getattr(error, 'strerror', None) or error))
    return Cluster(addresses if len(addresses) > 1 else [], task['index'])  # one machine alone needs no server


def host_and_port(address):
    host, port = address.rsplit(':', 1)
    return host.strip('[]'), int(port)


def is_listening(address):
    """Whether somebody listens there."""
    try:
        socket.create_connection(host_and_port(address), timeout=3).close()
        return True
    except OSError:
        return False


def start_server(cluster, flags):
    config = devices.session_config(flags)
    config.isolate_session_state = False  # the mailboxes are shared
    config.device_count['CPU'] = -(-flags.towers // len(cluster.addresses))
    config.inter_op_parallelism_threads = 1 + config.device_count['CPU']  # one answers while the towers compute
    try:
        with contextlib.closing(socket.socket()) as probe:  # TensorFlow would share a port that is in use
            if os.name != 'nt':  # elsewhere, a port that was in use a moment ago would count as in use
                probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind(('', host_and_port(cluster.addresses[cluster.index])[1]))
        return tf.train.Server({'worker': cluster.addresses}, 'worker', cluster.index, config=config)
    except (OSError, tf.errors.OpError) as error:
        raise utils.UserError('TF_CONFIG: {}: this machine cannot listen there ({}); is the port in use?'.format(
            cluster.addresses[cluster.index], outputs.first_line(error)))


@contextlib.contextmanager
def ends_at_once():
    """With TF_CONFIG, ends the process after the block: a server's threads can crash Python while it shuts down."""
    status = 0
    try:
        yield
    except SystemExit as stop:
        if not os.environ.get('TF_CONFIG'):
            raise
        status = stop.code or 0
    if os.environ.get('TF_CONFIG'):
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(status)


def mailbox(index):
    """Returns the queue, on a worker, into which the chief writes: HELLO, and at the end '' or what went wrong."""
    with tf.device('/job:worker/task:{}/CPU:0'.format(index)):
        return tf.FIFOQueue(10, [tf.string], shared_name='mailbox_{}'.format(index))


def serve(cluster, flags):
    """Lends this machine's devices to the chief until the chief says that all is done."""
    server = start_server(cluster, flags)
    devices.warn_of_unused_gpu(flags)
    config = tf.ConfigProto(device_filters=['/job:worker/task:{}'.format(cluster.index)])
    chief_address = cluster.addresses[0]
    print('Worker {}: listens on {} for the chief, {}'.format(
        cluster.index, cluster.addresses[cluster.index], chief_address), flush=True)
    with tf.Graph().as_default(), tf.Session(server.target, config=config) as session:
        size, received = mailbox(cluster.index).size(), mailbox(cluster.index).dequeue()
        message, greeted, seen = HELLO, False, time.monotonic()
        while message == HELLO:
            time.sleep(0.5)
            if session.run(size):
                message, greeted = session.run(received).decode(), True
            if greeted and is_listening(chief_address):  # before its HELLO, another program might listen there
                seen = time.monotonic()
            elif time.monotonic() - seen > flags.wait:
                raise utils.UserError('the chief, {}, has not answered for {} seconds; start it and then this worker '
                                      'again'.format(chief_address, flags.wait))
    time.sleep(1)  # until the chief has heard that the message arrived: this process ends at once
    if message:
        raise utils.UserError(message)
    print('Worker {}: done'.format(cluster.index), flush=True)


@contextlib.contextmanager
def chief(cluster, flags):
    """Waits for the workers, names the one that dies, and ends them all after the block."""
    if not cluster.addresses:
        yield
        return
    server = start_server(cluster, flags)
    workers = list(enumerate(cluster.addresses))[1:]
    wait_for_workers(workers, flags.wait)
    flags.target = server.target
    try:
        tell(server.target, workers, HELLO)
        check_devices(server.target, devices.tower_devices(cluster.addresses, flags))
        threading.Thread(target=watch, args=(server.target, workers), daemon=True).start()
        yield
    except (tf.errors.UnavailableError, tf.errors.AbortedError):
        end_without(workers)
    except Exception as error:
        tell(server.target, workers, 'the chief ended: {}'.format(outputs.first_line(error)))
        raise
    tell(server.target, workers, '')


def tell(target, workers, message):
    with tf.Graph().as_default():
        tf.Session(target).run([mailbox(index).enqueue(message) for index, _ in workers])


def check_devices(target, expected):
    there = {each.name.replace('/replica:0', '').replace('/device:', '/') for each in tf.Session(target).list_devices()}
    for device in expected:
        if device not in there:
            raise utils.UserError('{} is missing; give all machines the same --towers, --device, number of GPUs, and '
                                  'addresses in TF_CONFIG'.format(device))


def watch(target, workers):
    """Ends the process when a worker no longer answers, however long a healthy training step may take."""
    with tf.Graph().as_default():
        session = tf.Session(target, config=tf.ConfigProto(operation_timeout_in_ms=1000 * TIMEOUT))
        sizes = [mailbox(index).size() for index, _ in workers]
        try:
            while True:
                session.run(sizes)
                time.sleep(1)
        except tf.errors.OpError:
            end_without(workers)


def end_without(workers):
    index, address = ([worker for worker in workers if not is_listening(worker[1])] or workers)[0]
    script.print_error('worker {} ({}) does not answer any more; start the same command here, and there if it ended: '
                       'the training continues from the last checkpoint'.format(index, address))
    os._exit(2)


def wait_for_workers(workers, seconds):
    end = time.monotonic() + seconds
    for index, address in workers:
        if not is_listening(address):
            print('Waiting for worker {} ({})'.format(index, address), flush=True)
        while not is_listening(address):
            if time.monotonic() > end:
                raise utils.UserError('worker {} ({}) did not answer within {} seconds; start the same command there, '
                                      'with another "index" in TF_CONFIG'.format(index, address, seconds))
            time.sleep(0.5)
