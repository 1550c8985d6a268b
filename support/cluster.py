"""Several machines that train one network, by TF_CONFIG. To be imported after TensorFlow.

Worker 0 is the chief: it builds the graph, runs it and saves. The others run a tf.train.Server, whose devices the
chief's graph uses. A server asks for no password: see docs/devices.md.
"""
import collections
import contextlib
import functools
import json
import os
import socket
import sys
import threading
import time

import tensorflow.compat.v1 as tf

import utils
from support import cli, devices, outputs

TIMEOUT = 30  # seconds after which a machine that does not answer is given up
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
                 and 0 <= task['index'] < len(addresses) and len(set(addresses)) == len(addresses) and all(
                     0 < host_and_port(address)[1] < 65536 for address in addresses))
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


def tower_devices(cluster, flags):
    """Returns the device of each tower: the GPUs, or else logical CPUs, of one machine after the other in turn."""
    gpus = [] if flags.device == 'cpu' else devices.GPUS
    machines = max(1, len(cluster.addresses))
    return ['{}/{}'.format('/job:worker/task:{}'.format(tower % machines) if cluster.addresses else '',
                           'GPU:{}'.format(tower // machines % len(gpus)) if gpus else
                           'CPU:{}'.format(tower // machines)) for tower in range(flags.towers)]


def check_batches(flags, dataset_size):
    """Raises UserError if a batch would have no image for a tower; TensorFlow cannot convolve nothing."""
    smallest = min(flags.batch_size, dataset_size % flags.batch_size or flags.batch_size)
    if smallest < flags.towers:
        raise utils.UserError('--towers {}: the smallest batch has {} images, fewer than towers; use fewer, or another '
                              '--batch-size'.format(flags.towers, smallest))


def start_server(cluster, flags):
    config = devices.session_config(flags.device, flags.bf16)
    config.device_count['CPU'] = -(-flags.towers // len(cluster.addresses))
    config.inter_op_parallelism_threads = 2  # the chief's own tower must not hold up what the others wait for
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
    """With TF_CONFIG, ends the process after the block, with the exit status that it asks for.

    A server's threads run until the process ends. While Python takes itself down, they can crash it.
    """
    if not os.environ.get('TF_CONFIG'):
        yield
        return
    status = 0
    try:
        yield
    except SystemExit as stop:
        status = stop.code or 0
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(status)


# ---- What worker and chief tell each other: through variables and queues of the worker -----------------------

def greeting(cluster, flags):
    """What must be equal on all machines."""
    gpus = 0 if flags.device == 'cpu' else len(devices.GPUS)
    return json.dumps({'the addresses in TF_CONFIG': cluster.addresses, '--towers': flags.towers,
                       'GPUs': gpus, 'TensorFlow': tf.__version__}, sort_keys=True)


def mailbox(index):
    """Returns a variable for the greeting of a worker, and the queue that tells it to end; both are on the worker."""
    with tf.device('/job:worker/task:{}/CPU:0'.format(index)):
        return (tf.get_variable('greeting_{}'.format(index), initializer=''),
                tf.FIFOQueue(1, [tf.string], shared_name='end_{}'.format(index)))


def serve(cluster, flags):
    """Lends this machine's devices to the chief until the chief says that all is done."""
    server = start_server(cluster, flags)
    devices.warn_of_unused_gpu(flags)
    config = tf.ConfigProto(device_filters=['/job:worker/task:{}'.format(cluster.index)])
    chief = cluster.addresses[0]
    print('Worker {}: listens on {} for the chief, {}'.format(cluster.index, cluster.addresses[cluster.index], chief),
          flush=True)
    with tf.Graph().as_default(), tf.Session(server.target, config=config) as session:
        hello, end = mailbox(cluster.index)
        text, size, message = greeting(cluster, flags), end.size(), end.dequeue()
        session.run(hello.initializer, {hello.initial_value: text})
        seen = time.monotonic()
        while session.run(size) == 0:
            time.sleep(0.5)
            if is_listening(chief):
                seen = time.monotonic()
            elif time.monotonic() - seen > flags.wait:
                raise utils.UserError('the chief, {}, has not answered for {} seconds; start it and then this worker '
                                      'again'.format(chief, flags.wait))
        text = session.run(message).decode()
    time.sleep(1)  # until the chief has heard that the message arrived: this process ends at once
    if text:
        raise utils.UserError(text)
    print('Worker {}: done'.format(cluster.index), flush=True)


@contextlib.contextmanager
def chief(cluster, flags):
    """Waits for the workers, ends them when the block is through, and names the one that dies before."""
    if not cluster.addresses:
        yield
        return
    server = start_server(cluster, flags)
    workers = list(enumerate(cluster.addresses))[1:]
    flags.remote_session = functools.partial(RemoteSession, server.target, workers)
    try:
        wait_for_workers(flags, workers)
        compare_greetings(cluster, flags, workers)
        yield
        send_end(flags, workers, '')
    except tf.errors.OpError as error:
        if all(is_listening(address) for _, address in workers) and not isinstance(error, (
                tf.errors.DeadlineExceededError, tf.errors.UnavailableError, tf.errors.AbortedError)):
            raise
        raise utils.UserError(lost_message(workers))


class RemoteSession(tf.Session):
    """A session that does not wait for ever for a machine that has died."""

    def __init__(self, target, workers, config):
        config.operation_timeout_in_ms = 1000 * TIMEOUT
        super().__init__(target, config=config)
        self._workers = workers

    def run(self, *arguments, **options):
        watch = threading.Timer(1.5 * TIMEOUT, self._give_up)  # if TensorFlow does not give up by itself
        watch.daemon = True
        watch.start()
        try:
            return super().run(*arguments, **options)
        finally:
            watch.cancel()

    def _give_up(self):
        cli.print_error(lost_message(self._workers))
        os._exit(2)

    def close(self):
        """Does nothing, for it would wait for the other machines. The process ends soon anyway."""


def lost_message(workers):
    silent = [worker for worker in workers if not is_listening(worker[1])]
    return '{} does not answer any more; start the same command here, and there if it has ended: the training ' \
           'continues from the last checkpoint'.format(names_of(silent or workers, ' or '))


def names_of(workers, separator):
    return separator.join('worker {} ({})'.format(*worker) for worker in workers)


def wait_for_workers(flags, workers):
    end = time.monotonic() + flags.wait
    missing = None
    while missing != []:
        before, missing = missing, [worker for worker in workers if not is_listening(worker[1])]
        if missing and missing != before:
            print('Waiting for', names_of(missing, ', '), flush=True)
        if missing and time.monotonic() > end:
            raise utils.UserError('{} did not answer within {} seconds; start the same command there, with another '
                                  '"index" in TF_CONFIG'.format(names_of(missing, ', '), flags.wait))
        time.sleep(0.5 if missing else 0)


def compare_greetings(cluster, flags, workers):
    """Raises UserError, here and on the worker, if a worker was started with something else than the chief."""
    own = json.loads(greeting(cluster, flags))
    with tf.Graph().as_default():
        greetings = {index: mailbox(index)[0] for index, _ in workers}
        with devices.session(flags) as session:
            for index, address in workers:
                try:
                    other = json.loads(read_greeting(session, greetings[index]))
                except tf.errors.InvalidArgumentError:  # 1.15 does not understand what 2.21 says
                    raise utils.UserError('worker {} ({}) runs another TensorFlow than {}, the chief\'s; install the '
                                          'same on all machines'.format(index, address, tf.__version__))
                for name in own:
                    if other.get(name) != own[name]:
                        message = '{}: {} on the chief ({}), {} on worker {} ({}); give all machines the same'.format(
                            name, own[name], cluster.addresses[0], other.get(name), index, address)
                        send_end(flags, [(index, address)], message)
                        raise utils.UserError(message)


def read_greeting(session, variable):
    while True:
        try:
            return session.run(variable).decode()
        except tf.errors.FailedPreconditionError:  # the worker has not written it yet
            time.sleep(0.2)


def send_end(flags, workers, message):
    with tf.Graph().as_default():
        send = [mailbox(index)[1].enqueue(message) for index, _ in workers]
        with devices.session(flags) as session:
            session.run(send)
