"""Where the time of one training step of lesson 2 goes, by TensorFlow's own trace (RunMetadata).

    python tests/benchmarks/profile_ops.py [--places] [--bf16]
"""
import argparse
import collections
import importlib

import rounds  # noqa: F401  puts the project on the path

import utils
from support import cli


def main(options):
    lesson = importlib.import_module('07_convnet_mnist')
    tf = lesson.tf
    flags = cli.parse_convnet_flags('', ['--bf16'] * options.bf16)
    train = utils.read_mnist(flags.data_dir).train
    images, labels = tf.placeholder(tf.uint8, [None, 28, 28]), tf.placeholder(tf.int32, [None])
    _, cross_entropy, train_op = lesson.build_network(flags, images, labels, flags.keep_prob)
    train_op, _ = lesson.moving_average(train_op, flags.ema_decay)
    layers = lesson.tables.layers()
    trace = tf.RunOptions(trace_level=tf.RunOptions.FULL_TRACE)
    microseconds = collections.Counter()
    with tf.Session(config=lesson.devices.session_config(flags)) as session:
        session.run(tf.global_variables_initializer())
        feed = {images: train.images[:flags.batch_size], labels: train.labels[:flags.batch_size]}
        for step in range(options.steps + 10):
            metadata = tf.RunMetadata()
            session.run([train_op, cross_entropy], feed, options=trace, run_metadata=metadata)
            if step < 10:
                continue  # it warms up
            for device in metadata.step_stats.dev_stats:
                for node in device.node_stats:
                    kind = node.timeline_label.split(' = ')[-1].split('(')[0]
                    name = node.node_name.split('/')
                    place = next((part for part in name if part in layers), name[0]) if options.places else ''
                    microseconds[(kind, place)] += node.op_end_rel_micros - node.op_start_rel_micros
    whole = sum(microseconds.values())
    print('{}\n{:>8}{:>8}  operation'.format(rounds.machine(), 'ms', 'share'))
    for (kind, place), spent in microseconds.most_common(options.rows):
        print('{:8.2f}{:8.1%}  {} {}'.format(spent / options.steps / 1e3, spent / whole, kind, place))
    print('{:8.2f}{:8.1%}  all'.format(whole / options.steps / 1e3, 1))


if __name__ == '__main__':
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('--bf16', action='store_true')
    parser.add_argument('--places', action='store_true', help='which layer, too')
    parser.add_argument('--steps', type=int, default=30)
    parser.add_argument('--rows', type=int, default=25)
    main(parser.parse_args())
