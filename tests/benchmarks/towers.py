"""One training step of lesson 3, in milliseconds: towers in one process, and processes of one core each.

    python tests/benchmarks/towers.py

The processes stand for machines. They talk through this computer's loopback interface, which is faster than any
cable; what a cable adds is calculated from the bytes of a step. For Linux.
"""
import argparse
import contextlib
import importlib
import json
import os
import socket
import subprocess
import sys

import rounds

GIGABITS = 1, 10, 25, 100  # per second
WEIGHTS = 3274634


def prepare(stack, towers, machines, cores, batch_size):
    """Returns a function that trains so many steps on digits that lie ready in memory. stack: an ExitStack."""
    flags = ['--towers', str(towers), '--batch-size', str(batch_size)]
    addresses = free_addresses(machines) if machines > 1 else []
    for index in range(1, machines):
        worker = start_worker(addresses, index, cores, flags)
        stack.callback(worker.wait)
    pin(0, cores)
    lesson3 = importlib.import_module('07_convnet_towers')
    tf, cluster, utils = lesson3.tf, lesson3.cluster, lesson3.utils
    flags, members = lesson3.cli.parse_towers_flags('', flags), cluster.Cluster(addresses, 0)
    stack.enter_context(cluster.chief(members, flags))
    devices = lesson3.devices.tower_devices(addresses, flags)
    digits = utils.read_mnist(flags.data_dir).train
    with tf.device(devices[0]):
        images, labels = tf.placeholder(tf.uint8, [None, 28, 28]), tf.placeholder(tf.int32, [None])
        _, cross_entropy, train_op = lesson3.towers_on(devices)(flags, images, labels, flags.keep_prob)
        session = stack.enter_context(tf.Session(flags.target, config=lesson3.devices.session_config(flags)))
        session.run(tf.global_variables_initializer())
    feed = {images: digits.images[:batch_size], labels: digits.labels[:batch_size]}
    return lambda count: [session.run([train_op, cross_entropy], feed) for _ in range(count)]


def free_addresses(count):
    with contextlib.ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        for each in sockets:
            each.bind(('127.0.0.1', 0))
        return ['127.0.0.1:{}'.format(each.getsockname()[1]) for each in sockets]


def start_worker(addresses, index, cores, flags):
    config = {'cluster': {'worker': addresses}, 'task': {'type': 'worker', 'index': index}}
    return subprocess.Popen([sys.executable, os.path.join(rounds.ROOT, '07_convnet_towers.py'), '--wait', '60'] + flags,
                            stdout=sys.stderr, env=dict(os.environ, TF_CONFIG=json.dumps(config)),
                            preexec_fn=lambda: pin(index, cores))


def pin(index, cores):
    """Leaves this process the cores index * cores to (index + 1) * cores - 1."""
    allowed = sorted(os.sched_getaffinity(0))
    os.sched_setaffinity(0, {allowed[(index * cores + i) % len(allowed)] for i in range(cores)})


def bytes_per_step(arguments, steps):
    """What one more process on the loopback interface sends and receives in a step."""
    def received():
        with open('/proc/net/dev') as file:
            return next(int(line.split()[1]) for line in file if line.strip().startswith('lo:'))
    competitor = rounds.Competitor(__file__, arguments)
    competitor.work(steps)
    before = received()
    competitor.work(steps)
    found = (received() - before) / steps
    competitor.close()
    return found


def main(flags):
    cores = len(os.sched_getaffinity(0))
    print(rounds.machine())
    one_process = {'{} in one process'.format(towers): [towers, 1, cores, flags.batch_size] for towers in (1, 2, 4)}
    one_core = {'1, process of one core': [1, 1, 1, flags.batch_size],
                '2, two processes of one core': [2, 2, 1, flags.batch_size]}
    times = rounds.compete(__file__, dict(one_process, **one_core), flags.steps, flags.rounds)
    print('\nms for a step of {} images, the median of {} rounds\n'.format(flags.batch_size, flags.rounds))
    for name, turns in times.items():
        print('{:36}{:8.1f}'.format('towers: ' + name, 1e3 * turns.median))
    sent = bytes_per_step(one_core['2, two processes of one core'], flags.steps)
    one, two = [times[name].median for name in one_core]
    print('\nbetween two processes, each step {:10.1f} MB, of which weights {:.1f}, gradients {:.1f}'.format(
        sent / 1e6, 4 * WEIGHTS / 1e6, 4 * WEIGHTS / 1e6))
    print('\n{:>10}{:>16}{:>16}{:>12}'.format('Gbit/s', 'ms on the cable', 'two machines', 'one / two'))
    for speed in GIGABITS:
        cable = sent * 8 / speed / 1e9
        print('{:10}{:16.1f}{:16.1f}{:12.2f}'.format(speed, 1e3 * cable, 1e3 * (two + cable), one / (two + cable)))
    if one > two:
        print('\nTwo machines of one core are faster than one from {:.1f} Gbit/s on, if the cable is all that is added.'
              .format(sent * 8 / 1e9 / (one - two)))
    else:
        print('\nTwo machines of one core are slower than one, whatever the cable.')


if __name__ == '__main__':
    if sys.argv[1:2] == ['--work']:
        with contextlib.ExitStack() as stack:
            rounds.serve(lambda: prepare(stack, *map(int, sys.argv[2:])))
    else:
        parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
        parser.add_argument('--batch-size', type=int, default=128)
        parser.add_argument('--steps', type=int, default=40, help='per turn')
        parser.add_argument('--rounds', type=int, default=5)
        main(parser.parse_args())
