"""Lesson 3: the network of lesson 2 on several devices, which share its variables.

    python 07_convnet_towers.py --towers 2 --epochs 10
    tensorboard --logdir graphs

A tower is a copy of the network, usually on a device of its own. Each tower computes the gradients of the loss for its
part of the batch; their sum is the gradient of the whole batch, by which Adam changes the variables. The variables
exist once, for all towers. This is called synchronous data parallelism. With TF_CONFIG, towers are on several machines:
see docs/devices.md.
"""
import importlib

from support import cli  # first, so that Ctrl-C ends the program in silence while the others load
import utils

if __name__ == '__main__':
    FLAGS = cli.parse_towers_flags(__doc__)  # before TensorFlow loads, so that --help answers at once

lesson2 = importlib.import_module('07_convnet_mnist')  # "import 07_convnet_mnist" would be a syntax error
tf = lesson2.tf
from support import cluster  # after TensorFlow, which lesson 2 starts quietly


def towers_on(tower_devices):
    """Returns a replacement for lesson2.model, which builds one tower on each of these devices."""
    def model(flags, images, labels, global_step):
        batch_size = tf.size(labels, name='batch_size')
        tower_layers, losses, tower_gradients = [], [], []
        for number, device in enumerate(tower_devices):
            part = slice(number, None, len(tower_devices))  # with 2 towers, images 0, 2, 4, ... and 1, 3, 5, ...
            with tf.name_scope('tower_{}'.format(number)):
                tower_images, tower_labels = images[part], labels[part]  # here, so that only a part is sent
                # The operations built within tf.device run on that device. The first tower creates the variables;
                # with reuse, the others share them, as the evaluation does.
                with tf.device(device), tf.variable_scope(tf.get_variable_scope(), reuse=number > 0):
                    layers = lesson2.inference(tower_images, dropout_of_part(part, batch_size, flags, global_step),
                                               flags.seed, flags.init_stddev, flags.conv1)
                    loss = loss_of_part(layers['softmax_linear'], tower_labels, batch_size)
                    tower_layers.append(layers)
                    losses.append(loss)
                    # gate_gradients, as in minimize: all gradients of an operation are computed before one is used
                    tower_gradients.append(tf.gradients(loss, tf.trainable_variables(), gate_gradients=True))
        with tf.name_scope('sum'):
            cross_entropy = tf.add_n(losses)
            gradients = [tf.add_n(parts) for parts in zip(*tower_gradients)]  # in a fixed order: each run rounds alike
        with tf.name_scope('train'):  # minimize, in lesson 2, computes the gradients and applies them
            train_op = tf.train.AdamOptimizer(flags.learning_rate).apply_gradients(
                zip(gradients, tf.trainable_variables()), global_step)
            return tower_layers[0], cross_entropy, train_op, tf.summary.scalar('loss', cross_entropy)
    return model


def dropout_of_part(part, batch_size, flags, global_step):
    """Returns the dropout of one tower, a function: fc [n, units] of its part of a batch -> [n, units].

    With the same seed and step, all towers would draw the same mask. So each draws the mask of the whole batch and
    takes the rows of its own images; the number of towers then changes nothing but the rounding.
    """
    def drop(fc):
        mask = lesson2.dropout(tf.ones([batch_size, fc.shape[1]]), flags.keep_prob, flags.seed, global_step)
        return fc * mask[part]
    return drop


def loss_of_part(logits, labels, batch_size):
    """The cross-entropies of a part of a batch, divided by the size of the whole batch: logits [n, 10], labels [n].

    The sum of the towers' losses is the mean over the batch. The mean of their means is not, if one has fewer images.
    """
    with tf.name_scope('loss'):
        cross_entropies = tf.nn.sparse_softmax_cross_entropy_with_logits(logits=logits, labels=labels)
        return tf.reduce_sum(cross_entropies) / tf.cast(batch_size, tf.float32)


def main(flags):
    tf_config = cluster.from_environment()
    if flags.predict:
        lesson2.predict(flags)
    elif tf_config.index > 0:
        cluster.serve(tf_config, flags)  # lends its devices to the machine with index 0, the chief
    else:
        data = utils.read_mnist(flags.data_dir, lesson2.IMAGE_SIZE)
        cluster.check_batches(flags, len(data.train.labels))
        with cluster.chief(tf_config, flags):
            tower_devices = cluster.tower_devices(tf_config, flags)
            with tf.device(tower_devices[0]):  # here are the variables, Adam and the evaluation
                lesson2.run_training(flags, data, towers_on(tower_devices))


if __name__ == '__main__':
    with cluster.ends_at_once(), cli.errors_in_one_line():
        main(FLAGS)
