"""Several machines that train one network, by TF_CONFIG.

Worker 0 is the chief: it builds the graph, runs it and saves. The others run a tf.train.Server, whose devices the
chief's graph uses. A server asks for no password: see docs/devices.md.
"""
import collections
import contextlib
import json
import os
import socket
import time

import tensorflow.compat.v1 as tf

import utils
from support import devices

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
    return Cluster(addresses if len(addresses) > 1 else [], task['index'])  # one machine alone needs no server


def host_and_port(address):
    host, port = address.rsplit(':', 1)
    return host.strip('[]'), int(port)


def start_server(cluster, flags):
    address = cluster.addresses[cluster.index]
    try:
        with contextlib.closing(socket.socket()) as probe:  # TensorFlow would share a port that is in use
            if os.name != 'nt':  # elsewhere, a port that was in use a moment ago would count as in use
                probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind(('', host_and_port(address)[1]))
        return tf.train.Server({'worker': cluster.addresses}, 'worker', cluster.index,
                               config=devices.session_config(flags, len(cluster.addresses)))
    except (OSError, tf.errors.OpError) as error:
        raise utils.UserError('TF_CONFIG: {}: this machine cannot listen there ({}); is the port in use?'.format(
            address, str(error).split('\n')[0]))


def serve(cluster, flags):
    """Lends this machine's devices to the chief until its user presses Ctrl-C."""
    server = start_server(cluster, flags)  # as long as it lives, it serves
    devices.warn_of_unused_gpu(flags)
    print('Worker {}: serves on {}; Ctrl-C ends it'.format(
        cluster.index, cluster.addresses[cluster.index]), flush=True)
    while server:
        time.sleep(1)  # server.join() would not hear Ctrl-C


@contextlib.contextmanager
def chief(cluster, flags):
    """Yields the target for tf.Session. Names the worker that is missing, or dies."""
    if not cluster.addresses:
        yield ''  # this process alone
        return
    tf.logging.set_verbosity(tf.logging.FATAL)  # a session that cannot be closed would say so, too
    server = start_server(cluster, flags)
    end = time.monotonic() + flags.wait
    print('Waiting for the workers', flush=True)
    for missing in iter(lambda: silent_worker(cluster), None):
        if time.monotonic() > end:
            raise utils.UserError('{} did not answer within {} seconds; start the same command there, with another '
                                  '"index" in TF_CONFIG'.format(missing, flags.wait))
        time.sleep(1)
    try:
        yield server.target
    except (tf.errors.UnavailableError, tf.errors.AbortedError, tf.errors.DeadlineExceededError):
        raise utils.UserError('{} does not answer any more; start the same command here, and there if it ended: '
                              'the training goes on from the last checkpoint'.format(
                                  silent_worker(cluster) or 'A worker'))


def silent_worker(cluster):
    """The first worker that does not listen, in words, or None."""
    for index, address in list(enumerate(cluster.addresses))[1:]:
        try:
            socket.create_connection(host_and_port(address), timeout=3).close()
        except OSError:
            return 'worker {} ({})'.format(index, address)
