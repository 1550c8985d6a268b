"""Lesson 3: the network of lesson 2 on several devices, which share its variables.

    python 07_convnet_towers.py --towers 2 --epochs 10
    tensorboard --logdir graphs

A tower is a copy of the network, usually on a device of its own. Each tower computes the gradients of the loss for its
part of the batch; their sum is the gradient of the whole batch, by which Adam changes the variables. The variables
exist once, for all towers. This is called synchronous data parallelism. With TF_CONFIG, towers are on several machines:
see docs/devices.md.
"""
from support import script
script.start(__name__)  # in a script: TensorFlow is to load quietly
import importlib

import tensorflow.compat.v1 as tf

import utils
from support import cli, cluster, devices

lesson2 = importlib.import_module('07_convnet_mnist')  # "import 07_convnet_mnist" would be a syntax error


def towers_on(tower_devices):
    """Returns a replacement for lesson2.build_network, which builds one tower on each of these devices."""
    def build_network(flags, images, labels, keep_prob, classes=10):
        def inference(tower_images, seed):
            return lesson2.inference(tower_images, keep_prob, seed, flags.init_stddev, flags.conv1, classes)

        batch_size = tf.size(labels, name='batch_size')
        losses, tower_gradients = [], []
        for number, device in enumerate(tower_devices):
            part = slice(number, None, len(tower_devices))  # with 2 towers, images 0, 2, 4, ... and 1, 3, 5, ...
            with tf.name_scope('tower_{}'.format(number)):
                tower_images, tower_labels = images[part], labels[part]  # the device is sent this part alone
                # The operations built within tf.device run on that device. The first tower creates the variables. In
                # the others, with reuse=True, tf.get_variable returns the variable of that name that exists already,
                # so that all towers share their weights; without, it would raise a ValueError. The scope that is open
                # already, get_variable_scope(), is opened again only to set reuse: it adds nothing to the names.
                with tf.device(device), tf.variable_scope(tf.get_variable_scope(), reuse=number > 0):
                    logits = inference(tower_images, flags.seed + number)  # another dropout in each tower
                    losses.append(loss_of_part(logits, tower_labels, batch_size))
                    # gate_gradients, as in minimize: all gradients of an operation are computed before any is used
                    tower_gradients.append(tf.gradients(losses[-1], tf.trainable_variables(), gate_gradients=True))
        with tf.name_scope('sum'):
            cross_entropy = tf.check_numerics(tf.add_n(losses), 'the loss')
            gradients = [tf.add_n(parts) for parts in zip(*tower_gradients)]  # in a fixed order: each run rounds alike
        with tf.name_scope('train'):  # minimize, in lesson 2, computes the gradients and applies them
            train_op = tf.train.AdamOptimizer(flags.learning_rate).apply_gradients(
                zip(gradients, tf.trainable_variables()), tf.train.get_or_create_global_step())
        tf.get_default_graph().clear_collection(tf.GraphKeys.SUMMARIES)  # histograms: only of the copy below
        with tf.name_scope('whole'), tf.variable_scope(tf.get_variable_scope(), reuse=True):
            logits = inference(images, flags.seed)  # a copy for the evaluation, which needs no parts; not trained
        return logits, cross_entropy, train_op
    return build_network


def loss_of_part(logits, labels, batch_size):
    """The cross-entropies of a part of a batch, divided by the size of the whole batch: logits [n, 10], labels [n].

    The sum of the towers' losses is the mean over the batch. The mean of their means is not, if one has fewer images.
    """
    with tf.name_scope('loss'):
        cross_entropies = tf.nn.sparse_softmax_cross_entropy_with_logits(logits=logits, labels=labels)
        return tf.reduce_sum(cross_entropies) / tf.cast(batch_size, tf.float32)


def train(flags, tf_config):
    data = utils.read_mnist(flags.data_dir, lesson2.IMAGE_SIZE)
    smallest = min(flags.batch_size, len(data.train.labels) % flags.batch_size or flags.batch_size)
    if smallest < flags.towers:
        raise utils.UserError('--towers {}: the smallest batch has {} images, fewer than towers; use fewer, or another '
                              '--batch-size'.format(flags.towers, smallest))
    tower_devices = devices.tower_devices(tf_config.addresses, flags)
    with cluster.chief(tf_config, flags) as target, tf.device(tower_devices[0]):  # for variables, Adam, evaluation
        lesson2.train(flags, data, towers_on(tower_devices), target)


def main(arguments=None):
    flags = cli.parse_towers_flags(__doc__, arguments)
    tf_config = cluster.from_environment()
    with tf.Graph().as_default():
        tf.set_random_seed(flags.seed)
        if flags.predict:
            lesson2.predict(flags)
        elif tf_config.index > 0:
            cluster.serve(tf_config, flags)  # lends its devices to the machine with index 0, the chief
        else:
            train(flags, tf_config)


if __name__ == '__main__':
    with script.errors_in_one_line():
        main()
