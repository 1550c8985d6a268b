"""Lesson 2: a convolutional network that learns its kernels, on the handwritten digits of MNIST.

    python 07_convnet_mnist.py --epochs 10
    python 07_convnet_mnist.py --predict my_digit.png
    tensorboard --logdir graphs

    layer           output         weights
    conv1           28 x 28 x 32   5 x 5 x  1 x 32  SAME, stride 1, biases, relu
    pool1           14 x 14 x 32                    the largest value of each 2 x 2
    conv2           14 x 14 x 64   5 x 5 x 32 x 64  SAME, stride 1, biases, relu
    pool2            7 x  7 x 64                    the largest value of each 2 x 2
    fc                      1024   3136 x 1024      fully connected, biases, relu; dropout in training
    softmax_linear            10   1024 x 10        biases; 10 logits, which are scores; softmax makes probabilities

3,274,634 parameters, trained by Adam. About 99.0% of the test digits are read correctly after 1 epoch, 99.6% after 10.
"""
from support import script
script.start(__name__)  # in a script: TensorFlow is to load quietly
import contextlib
import math

import tensorflow.compat.v1 as tf  # the functions of TensorFlow 1.x, on 1.15 and on 2.x
from tqdm import tqdm

import kernels
import utils
from support import cli, devices, figures, runs, tables

tf.disable_v2_behavior()  # on 2.x: graphs and sessions, instead of computing each operation at once
IMAGE_SIZE = 28  # height and width of an image, in pixels


# ---- Step 1: the network, one function for each kind of layer ------------------------------------------------

def conv_relu(inputs, filters, name, initializer, trainable=True):
    """Convolution with `filters` kernels, biases, relu: inputs [n, h, w, c] -> activations [n, h, w, filters]."""
    with tf.variable_scope(name) as scope:  # in the scope conv1, 'weights' becomes conv1/weights
        # The kernels are the weights of the layer: height, width, input channels, output channels.
        shape = [5, 5, inputs.shape[3], filters]
        weights = tf.get_variable('weights', shape, initializer=initializer, trainable=trainable)
        biases = tf.get_variable('biases', [filters], initializer=tf.zeros_initializer())  # one for each kernel
        conv = tf.nn.conv2d(inputs, weights, strides=[1, 1, 1, 1], padding='SAME')
        # relu sets negative values to 0. Without a nonlinearity, two layers in a row could do no more than one.
        return tf.nn.relu(tf.nn.bias_add(conv, biases), name=scope.name)


def max_pool(inputs, name):
    """The largest value of each 2 x 2 pixels: [n, h, w, c] -> [n, h/2, w/2, c]. Shifts by a pixel then matter less."""
    return tf.nn.max_pool(inputs, ksize=[1, 2, 2, 1], strides=[1, 2, 2, 1], padding='SAME', name=name)


def fully_connected(inputs, units, name, initializer, activation=tf.identity):
    """Connects each unit with all inputs: inputs [n, ...] -> activations [n, units]."""
    with tf.variable_scope(name) as scope:
        flat = tf.reshape(inputs, [-1, inputs.shape[1:].num_elements()])  # [n, 7, 7, 64] -> [n, 3136]
        weights = tf.get_variable('weights', [flat.shape[1], units], initializer=initializer)
        biases = tf.get_variable('biases', [units], initializer=tf.zeros_initializer())
        return activation(tf.nn.bias_add(tf.matmul(flat, weights), biases), name=scope.name)


def dropout(inputs, keep_prob, seed):
    """Zeroes values with probability 1 - keep_prob, divides others by keep_prob: against overfitting, learning by rote.

    tf.nn.dropout restarts its random numbers in each session. This mask depends on the seed and the step alone, so that
    training can be continued as if it had never stopped.
    """
    with tf.name_scope('dropout'):
        step = tf.train.get_or_create_global_step()
        kept = tf.random.stateless_uniform(tf.shape(inputs), seed=tf.stack([seed, step])) < keep_prob
        return inputs * (tf.cast(kept, tf.float32) / keep_prob)


def initial_weights(seed, stddev=0, scale=2.0):
    """Returns an initializer: a truncated normal distribution with the variance scale / (inputs of a unit).

    The signal then keeps its size from layer to layer; the 2 makes up for relu, which halves the mean square (He
    initialization). stddev: if not 0, the standard deviation, in place of that.
    """
    if stddev:
        return tf.truncated_normal_initializer(stddev=stddev, seed=seed)
    return tf.variance_scaling_initializer(scale, seed=seed)


def conv1_weights(kind, stddev):
    """Returns an initializer for the kernels of conv1, which are 'learned', 'random' or 'hand-coded'."""
    if kind == 'hand-coded':
        return lambda shape, **_: kernels.filter_bank(*shape)
    # If they are learned, they begin with a tenth of the usual standard deviation, to show what is learned.
    return initial_weights(1, stddev, scale=0.02 if kind == 'learned' else 2.0)


def inference(images, keep_prob, seed=0, stddev=0, conv1_kind='learned', classes=10):
    """Builds the network: images uint8 [n, 28, 28] -> logits [n, classes], a score for each class."""
    with tf.name_scope('scale'):
        scaled = tf.cast(images[..., tf.newaxis], tf.float32) / 255  # [n, 28, 28, 1], from 0 to 1
    conv1 = conv_relu(scaled, 32, 'conv1', conv1_weights(conv1_kind, stddev), conv1_kind == 'learned')
    pool1 = max_pool(conv1, 'pool1')
    conv2 = conv_relu(pool1, 64, 'conv2', initial_weights(2, stddev))
    pool2 = max_pool(conv2, 'pool2')
    # fc combines the 3,136 local features of pool2 into features of the whole image; 1,024 is the lecture's choice.
    fc = fully_connected(pool2, 1024, 'fc', initial_weights(3, stddev), activation=tf.nn.relu)
    dropped = fc if keep_prob == 1 else dropout(fc, keep_prob, seed)  # --predict builds none
    logits = fully_connected(dropped, classes, 'softmax_linear', initial_weights(4, stddev, scale=1.0))  # no relu
    with tf.name_scope('histograms'):
        for layer in conv1, pool1, conv2, pool2, fc, logits:
            tf.add_to_collection(tf.GraphKeys.ACTIVATIONS, layer)  # where the tables and figures find them
            tf.summary.histogram(layer.op.name.split('/')[-1] + '/activations', layer)
        for variable in tf.trainable_variables():
            tf.summary.histogram(variable.op.name, variable)
    return logits


# ---- Step 2: loss, training, evaluation ------------------------------------------------------------------

def loss(logits, labels):
    """The mean cross-entropy of a batch, a scalar: logits [n, 10], labels [n]. A guess costs ln 10 = 2.3."""
    with tf.name_scope('loss'):
        mean = tf.reduce_mean(tf.nn.sparse_softmax_cross_entropy_with_logits(logits=logits, labels=labels))
        return tf.check_numerics(mean, 'the loss')  # infinite or NaN, it is an error: the learning rate is too large


def training(cross_entropy, learning_rate):
    """Returns the op of a training step: it changes the trainable variables and counts global_step."""
    with tf.name_scope('train'):
        # Adam steps against the running mean of the gradients, divided by the root of their running mean square.
        optimizer = tf.train.AdamOptimizer(learning_rate)
        return optimizer.minimize(cross_entropy, global_step=tf.train.get_or_create_global_step())


def train_and_average(train_op, decay):
    """Returns an op that trains and then updates the exponential moving average of each weight; and the EMA object.

    Each training step follows a few images, so the weights wander around a good place; their average is nearer to it.
    average = d * average + (1 - d) * variable, with d = decay, but in step n at most (1 + n) / (10 + n).
    """
    with tf.name_scope('moving_average'):
        ema = tf.train.ExponentialMovingAverage(decay, num_updates=tf.train.get_global_step())
        with tf.control_dependencies([train_op]):  # what is built here runs after train_op
            return ema.apply(tf.trainable_variables()), ema  # apply makes the averages; ema knows their names


def evaluation(logits, labels):
    """The number of images that are read correctly, a scalar: logits [n, 10], labels [n]."""
    with tf.name_scope('evaluation'):
        correct = tf.equal(tf.argmax(logits, axis=1, output_type=tf.int32), labels)
        return tf.reduce_sum(tf.cast(correct, tf.int32))


# ---- Step 3: the graph and the loop ------------------------------------------------------------------------

def build_network(flags, images, labels, keep_prob, classes=10):
    """Returns the logits, the loss, and the op of a training step. Lesson 3 builds these on several devices."""
    logits = inference(images, keep_prob, flags.seed, flags.init_stddev, flags.conv1, classes)
    cross_entropy = loss(logits, labels)
    return logits, cross_entropy, training(cross_entropy, flags.learning_rate)


@contextlib.contextmanager
def averaged_weights(session, ema):
    """Within the block, each weight and bias has the value of its moving average."""
    variables = tf.trainable_variables()
    values, averages = session.run([variables, [ema.average(variable) for variable in variables]])
    initial_values = [variable.initial_value for variable in variables]  # what an initializer assigns, if it is not fed
    load = [variable.initializer for variable in variables]
    session.run(load, feed_dict=dict(zip(initial_values, averages)))
    yield
    session.run(load, feed_dict=dict(zip(initial_values, values)))


def train(flags, data, build=build_network, target=''):
    """Trains for flags.epochs. Settings may be chosen by the validation images; the test images are for the report."""
    with tf.name_scope('data'):
        images = tf.placeholder(tf.uint8, [None, IMAGE_SIZE, IMAGE_SIZE], name='images')
        labels = tf.placeholder(tf.int32, [None], name='labels')
        keep_prob = tf.placeholder_with_default(1.0, [], name='keep_prob')  # no dropout, unless it is fed
    logits, cross_entropy, train_op = build(flags, images, labels, keep_prob, len(data.classes))
    train_op, ema = train_and_average(train_op, flags.ema_decay)
    correct_count = evaluation(logits, labels)
    with tf.name_scope('summaries'):
        summaries = tf.summary.merge_all()  # of all layers, once for each epoch
        loss_summary = tf.summary.scalar('cross_entropy', cross_entropy)

    with tf.Session(target, config=devices.session_config(flags)) as session, \
            runs.open_run(session, flags, data) as run:  # not TensorFlow's: lock, settings, history
        writer = tf.summary.FileWriter(run.folders.graphs, session.graph, filename_suffix='.' + str(len(run.history)))
        saver = tf.train.Saver(max_to_keep=3, save_relative_paths=True)  # its folder may be moved
        session.run(tf.global_variables_initializer())
        if run.checkpoint:
            saver.restore(session, run.checkpoint)
        step = int(session.run(tf.train.get_global_step()))  # training steps so far
        writer.add_session_log(tf.SessionLog(status=tf.SessionLog.START), step + 1)  # hides what a killed run logged
        steps_per_epoch = math.ceil(len(data.train.labels) / flags.batch_size)  # the last batch may be smaller
        for epoch in range(len(run.history) + 1, flags.epochs + 1):
            batches = utils.batches(data.train, flags.batch_size, flags.augment, flags.seed, epoch)
            loss_sum = 0.0
            for image_batch, label_batch in tqdm(utils.prefetch(batches), 'epoch {}'.format(epoch), steps_per_epoch,
                                                 leave=False, disable=None):  # None: a bar in terminals alone
                feed = {images: image_batch, labels: label_batch, keep_prob: flags.keep_prob}
                _, loss_value, summary = session.run([train_op, cross_entropy, loss_summary], feed_dict=feed)
                step += 1
                loss_sum += float(loss_value) * len(label_batch)
                if step % 10 == 0:
                    writer.add_summary(summary, step)
            row = {'epoch': epoch, 'step': step, 'loss': loss_sum / len(data.train.labels)}
            with averaged_weights(session, ema):
                row.update(validation=accuracy(session, correct_count, images, labels, data.validation),
                           test=accuracy(session, correct_count, images, labels, data.test))
                feed = {images: data.validation.images[:100], labels: data.validation.labels[:100]}
                writer.add_summary(session.run(summaries, feed_dict=feed), step)
            run.save(saver, writer, row)
        with averaged_weights(session, ema):
            run.report(writer, images, logits)
        writer.close()


def accuracy(session, correct_count, images, labels, dataset, batch_size=500):
    """Returns the share of a dataset's images that are read correctly. correct_count: the tensor of `evaluation`."""
    count = 0
    for start in range(0, len(dataset.labels), batch_size):
        count += session.run(correct_count, feed_dict={images: dataset.images[start:start + batch_size],
                                                       labels: dataset.labels[start:start + batch_size]})
    return count / len(dataset.labels)


def predict(flags):
    """Reads the digits in pictures with the network of the newest checkpoint, with the averages of its weights."""
    from support import digits  # needs OpenCV, which training does without
    checkpoint, saved = runs.trained_checkpoint(flags)  # saved: what its JSON has
    images = tf.placeholder(tf.uint8, [None, IMAGE_SIZE, IMAGE_SIZE])
    probabilities = tf.nn.softmax(inference(images, keep_prob=1.0, conv1_kind=saved['settings']['conv1'],
                                            classes=len(saved['classes'])))
    runs.refuse_other_network(checkpoint, saved)
    averages = tf.train.ExponentialMovingAverage(0).variables_to_restore()  # only names: the decay does not matter
    with digits.read_pictures(flags.predict, IMAGE_SIZE, saved) as (found, pictures), \
            tf.Session(config=devices.session_config(flags)) as session:
        tf.train.Saver(averages).restore(session, checkpoint)  # the average of a weight into the weight
        probability_values = session.run(probabilities, feed_dict={images: pictures})
        path = figures.plot_predictions(flags, found, pictures, probability_values, saved['classes'])
        tables.print_predictions(found, probability_values, saved['classes'], path)


def main(arguments=None):
    flags = cli.parse_convnet_flags(__doc__, arguments)
    with tf.Graph().as_default():  # a new graph in each run: in an old one, conv1/weights would exist already
        tf.set_random_seed(flags.seed)  # and each initializer has a seed of its own
        if flags.predict:
            predict(flags)
        else:
            train(flags, utils.read_mnist(flags.data_dir, IMAGE_SIZE))


if __name__ == '__main__':
    with script.errors_in_one_line():
        main()
