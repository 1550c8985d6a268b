"""Lesson 3: the network of lesson 2 on several devices, which share its variables.

    python 07_convnet_towers.py --towers 2 --epochs 10
    tensorboard --logdir graphs

A tower is a copy of the network on a device of its own. Each tower computes the gradients of the loss for its part
of the batch; their sum is the gradient of the whole batch, by which Adam changes the variables, once for all towers.
This is called data parallelism.
"""
import importlib

from support import cli  # first, so that Ctrl-C ends the program in silence while the others load
import utils

if __name__ == '__main__':
    FLAGS = cli.parse_towers_flags(__doc__)  # before TensorFlow loads, so that --help answers at once

lesson2 = importlib.import_module('07_convnet_mnist')  # "import 07_convnet_mnist" would be a syntax error
tf = lesson2.tf
with cli.quiet_start():
    from support import cluster


def towers_on(tower_devices):
    """Returns a function with the arguments and results of lesson2.model, for one tower on each of these devices."""
    def model(flags, images, labels, global_step, steps_per_epoch):
        batch_size = tf.size(labels, name='batch_size')
        towers = []
        for number, device in enumerate(tower_devices):
            part = slice(number, None, len(tower_devices))  # with 2 towers, images 0, 2, 4, ... and 1, 3, 5, ...

            def drop(fc):  # all towers draw the same mask, for the whole batch; each takes the rows of its images
                mask = lesson2.dropout(tf.ones([batch_size, fc.shape[1]]), flags.keep_prob, flags.seed, global_step)
                return fc * mask[part]

            # The first tower creates the variables. With reuse, the others share them, as the evaluation does.
            with tf.device(device), tf.name_scope('tower_{}'.format(number)), \
                    tf.variable_scope(tf.get_variable_scope(), reuse=number > 0):
                layers = lesson2.inference(images[part], drop, flags.seed, flags.init_stddev,
                                           flags.conv1 == 'hand-coded')
                loss = loss_of_part(layers['softmax_linear'], labels[part], batch_size)
                gradients = tf.gradients(loss, tf.trainable_variables(), gate_gradients=True)
                towers.append((layers, loss, gradients))
        layers, losses, gradients = zip(*towers)
        with tf.name_scope('sum'):
            cross_entropy = tf.add_n(losses)
            sums = [tf.add_n(parts) for parts in zip(*gradients)]  # always in the order of the towers
        return (layers[0], cross_entropy) + lesson2.training(cross_entropy, sums, global_step, flags,
                                                                 steps_per_epoch)
    return model


def loss_of_part(logits, labels, batch_size):
    """The cross-entropies of a part of a batch, divided by the size of the whole batch: logits [n, 10], labels [n].

    The sum of the parts is the mean over the batch. A mean of the towers' means is not if one has fewer images.
    """
    with tf.name_scope('loss'):
        cross_entropies = tf.nn.sparse_softmax_cross_entropy_with_logits(logits=logits, labels=labels)
        return tf.reduce_sum(cross_entropies) / tf.cast(batch_size, tf.float32)


def main(flags):
    members = cluster.from_environment()
    if flags.predict:
        lesson2.predict(flags)
    elif members.index > 0:
        cluster.serve(members, flags)
    else:
        data = utils.read_mnist(flags.data_dir, lesson2.IMAGE_SIZE)
        cluster.check_batches(flags, len(data.train.labels))
        with cluster.chief(members, flags):
            tower_devices = cluster.tower_devices(members, flags)
            with tf.device(tower_devices[0]):
                lesson2.run_training(flags, data, towers_on(tower_devices))


if __name__ == '__main__':
    with cli.errors_in_one_line():
        main(FLAGS)
