"""Lesson 2: a convolutional network that learns its kernels, on the handwritten digits of MNIST.

    python 07_convnet_mnist.py --epochs 10
    python 07_convnet_mnist.py --predict my_digit.png
    tensorboard --logdir graphs

    layer           output         weights
    images          28 x 28 x  1                    grey values from 0 to 1
    conv1           28 x 28 x 32   5 x 5 x  1 x 32  SAME, stride 1, biases, relu
    pool1           14 x 14 x 32                    the largest value of each 2 x 2
    conv2           14 x 14 x 64   5 x 5 x 32 x 64  SAME, stride 1, biases, relu
    pool2            7 x  7 x 64                    the largest value of each 2 x 2
    fc                      1024   3136 x 1024      fully connected, biases, relu; dropout in training
    softmax_linear            10   1024 x 10        biases; softmax turns the 10 logits into probabilities

These are 3,274,634 parameters, trained by Adam with a learning rate of 0.001 in batches of 128; dropout keeps 3 of 4
units. About 99.0% of the test digits are read correctly after 1 epoch, and 99.6% after 10.
"""
from support import cli  # first, so that Ctrl-C ends the program in silence while the others load
import numpy as np

import kernels
import utils

if __name__ == '__main__':
    FLAGS = cli.parse_convnet_flags(__doc__)  # before TensorFlow loads, so that --help answers at once

with cli.quiet_start():
    import tensorflow.compat.v1 as tf  # the functions of TensorFlow 1.x, on 1.15 and on 2.x
    tf.disable_v2_behavior()  # on 2.x: graphs and sessions, instead of computing each operation at once
    from support import checkpoints, devices, event_logs, figures, pages, runs, tables

IMAGE_SIZE = 28  # height and width of an image, in pixels
EMA_INTERVAL = 10  # training steps between two updates of the moving average: as good as 1, at a tenth of the cost


# ---- The network: one function for each kind of layer ------------------------------------------------------

def conv_relu(inputs, filters, name, initializer, trainable=True):
    """Convolution with `filters` kernels, biases, relu: inputs [n, h, w, c] -> activations [n, h, w, filters]."""
    with tf.variable_scope(name):  # in the scope conv1, 'weights' becomes conv1/weights
        # The kernels are the weights of the layer: height, width, input channels, output channels.
        weights = tf.get_variable('weights', [5, 5, inputs.shape[3], filters], initializer=initializer,
                                  trainable=trainable)
        biases = tf.get_variable('biases', [filters], initializer=tf.zeros_initializer())  # one for each kernel
        conv = tf.nn.conv2d(inputs, weights, strides=[1, 1, 1, 1], padding='SAME')
        # relu sets negative values to 0. Without a nonlinearity, two layers in a row could do no more than one.
        return tf.nn.relu(tf.nn.bias_add(conv, biases))


def max_pool(inputs, name):
    """The largest value of each 2 x 2 pixels: [n, h, w, c] -> [n, h/2, w/2, c], rounded up.

    Shifts by a pixel then matter less, and the next layer has a quarter of the pixels.
    """
    with tf.name_scope(name):  # no variables: a name scope is enough
        return tf.nn.max_pool(inputs, ksize=[1, 2, 2, 1], strides=[1, 2, 2, 1], padding='SAME')


def fully_connected(inputs, units, name, initializer, activation=tf.identity):
    """Connects each unit with all inputs: inputs [n, ...] -> activations [n, units]."""
    with tf.variable_scope(name):
        flat = tf.reshape(inputs, [-1, inputs.shape[1:].num_elements()])  # [n, 7, 7, 64] -> [n, 3136]
        weights = tf.get_variable('weights', [flat.shape[1], units], initializer=initializer)
        biases = tf.get_variable('biases', [units], initializer=tf.zeros_initializer())
        return activation(tf.nn.bias_add(tf.matmul(flat, weights), biases))


def dropout(inputs, keep_prob, seed, step):
    """Sets each value to 0 with probability 1 - keep_prob, and divides the others by keep_prob.

    So no unit can rely on a single other one, which works against overfitting: knowing the training images by
    heart. The expected values stay the same. The mask depends only on (seed, step), so that a resumed run equals an
    uninterrupted one; tf.nn.dropout restarts its random numbers in every session.
    """
    with tf.name_scope('dropout'):
        kept = tf.random.stateless_uniform(tf.shape(inputs), seed=tf.stack([seed, step])) < keep_prob
        return inputs * (tf.cast(kept, tf.float32) / keep_prob)


def initial_weights(layer, seed, stddev, scale=2.0):
    """Returns an initializer: a truncated normal distribution with the variance scale / (inputs of a unit).

    The signal then keeps its size from layer to layer; the 2 makes up for relu, which halves the mean square
    (He initialization). stddev: if not 0, the standard deviation before values beyond two of it are drawn anew.
    `layer` and `seed` give the op's seed.
    """
    if stddev:
        return tf.truncated_normal_initializer(stddev=stddev, seed=10 * seed + layer)
    return tf.variance_scaling_initializer(scale, seed=10 * seed + layer)


def inference(images, drop=tf.identity, seed=0, stddev=0, conv1_kernels='learned'):
    """Builds the network: images [n, 28, 28, 1], 0 to 1 -> {layer: activations}. drop: dropout, for training alone.

    'softmax_linear' has the logits [n, 10]: the logarithms of the digits' probabilities, up to a constant.
    """
    conv1_initializer = {
        'learned': initial_weights(1, seed, stddev, scale=0.02),  # a tenth of the usual stddev: shows what is learned
        'random': initial_weights(1, seed, stddev),
        'hand-coded': tf.constant_initializer(kernels.filter_bank(5, 5, 1, 32), verify_shape=True)}[conv1_kernels]
    conv1 = conv_relu(images, 32, 'conv1', conv1_initializer, trainable=conv1_kernels == 'learned')
    pool1 = max_pool(conv1, 'pool1')
    conv2 = conv_relu(pool1, 64, 'conv2', initial_weights(2, seed, stddev))
    pool2 = max_pool(conv2, 'pool2')
    # fc combines the 3,136 local features of pool2 into features of the whole image; 1,024 is the lecture's choice.
    fc = fully_connected(pool2, 1024, 'fc', initial_weights(3, seed, stddev), activation=tf.nn.relu)
    logits = fully_connected(drop(fc), 10, 'softmax_linear', initial_weights(4, seed, stddev, scale=1.0))  # no relu
    return {'conv1': conv1, 'pool1': pool1, 'conv2': conv2, 'pool2': pool2, 'fc': fc, 'softmax_linear': logits}


# ---- Loss and training ----------------------------------------------------------------------------

def loss(logits, labels):
    """The mean cross-entropy of a batch, a scalar: logits [n, 10], labels [n].

    For each image it is minus the logarithm of the label's probability: ln 10 = 2.3 if all digits are equally likely.
    """
    with tf.name_scope('loss'):
        return tf.reduce_mean(tf.nn.sparse_softmax_cross_entropy_with_logits(logits=logits, labels=labels))


def training(cross_entropy, global_step, learning_rate):
    """Returns an op that does one training step, and a summary of the loss for TensorBoard."""
    with tf.name_scope('train'):
        # Adam steps against the running mean of the gradients, divided by the root of their running mean square.
        train_op = tf.train.AdamOptimizer(learning_rate).minimize(cross_entropy, global_step)
        return train_op, tf.summary.scalar('loss', cross_entropy)


# ---- Sharing variables: the same network again, for evaluation ---------------------------------------------

def evaluation(images, getter=None):
    """Returns {layer: activations} and the probabilities [n, 10] of images [n, 28, 28, 1].

    This second network has no dropout. With reuse=True, tf.get_variable returns the variable of that name instead of
    creating one, so that both networks share their weights; without reuse, it would raise "ValueError: Variable
    conv1/weights already exists". With the getter of moving_average, it returns the variable's average instead.
    """
    with tf.name_scope('evaluation'):
        # The current scope, opened again: the variables' names get no prefix.
        with tf.variable_scope(tf.get_variable_scope(), reuse=True, custom_getter=getter):
            layers = inference(images)  # without dropout: all units take part, and the answer is always the same
        return layers, tf.nn.softmax(layers['softmax_linear'])


def moving_average(decay, global_step):
    """Returns an op that updates the exponential moving average (EMA) of each weight and bias, and a getter of them.

    Each training step follows a few images, so the weights wander around a good place; their average is nearer to it.
    average = d * average + (1 - d) * variable, with d = decay, but in step 10 n at most (1 + n) / (10 + n).
    """
    with tf.name_scope('moving_average'):
        ema = tf.train.ExponentialMovingAverage(decay, num_updates=global_step // EMA_INTERVAL)
        ema_op = ema.apply(tf.trainable_variables())

    def ema_getter(getter, *args, **kwargs):  # tf.get_variable calls it; `getter` finds the variable as usual
        variable = getter(*args, **kwargs)
        average = ema.average(variable)
        return variable if average is None else average  # kernels that do not learn have none
    return ema_op, ema_getter


def measure_accuracy(session, images, probabilities, dataset, batch_size=500):
    """Returns the share of a dataset's images that are read correctly, and the probabilities [n, 10], as values."""
    values = np.concatenate([session.run(probabilities, feed_dict={images: dataset.images[start:start + batch_size]})
                             for start in range(0, len(dataset.labels), batch_size)])
    return float(np.mean(values.argmax(axis=1) == dataset.labels)), values


# ---- The run --------------------------------------------------------------------------------------

def placeholders():
    """Returns the placeholder of the images, uint8 [n, 28, 28]; the same from 0 to 1; the labels' placeholder [n]."""
    with tf.name_scope('data'):
        images = tf.placeholder(tf.uint8, [None, IMAGE_SIZE, IMAGE_SIZE], name='images')
        scaled = tf.cast(images, tf.float32)[..., tf.newaxis] / 255
        labels = tf.placeholder(tf.int32, [None], name='labels')
    return images, scaled, labels


def model(flags, images, labels, global_step):
    """Builds the network, its loss and its training, all on one device, and returns what they return."""
    layers = inference(images, lambda fc: dropout(fc, flags.keep_prob, flags.seed, global_step), flags.seed,
                       flags.init_stddev, flags.conv1)
    cross_entropy = loss(layers['softmax_linear'], labels)
    train_op, summary = training(cross_entropy, global_step, flags.learning_rate)
    return layers, cross_entropy, train_op, summary


def run_training(flags, data, build_model=model):
    """Trains until every training image has been seen flags.epochs times. Evaluates after each epoch, on validation
    images, by which settings may be chosen, and on test images, for the report alone. Lesson 3 has another build_model.
    """
    # The graph. These calls add operations to it; nothing is computed yet.
    images, scaled, labels = placeholders()
    global_step = tf.train.get_or_create_global_step()  # a variable that counts the training steps
    layers, cross_entropy, train_op, summary = build_model(flags, scaled, labels, global_step)
    ema_op, ema_getter = moving_average(flags.ema_decay, global_step)
    eval_layers, probabilities = evaluation(scaled, ema_getter)
    histograms = event_logs.histograms(eval_layers)
    tables.print_layers(layers)

    with devices.session(flags) as session:
        session.run(tf.global_variables_initializer())  # gives all variables their initial values
        # The run saves all variables in checkpoints. If there is one already, it restores their values from it.
        with runs.TrainingRun(session, flags, data) as run:
            for epoch in range(run.epochs_done + 1, flags.epochs + 1):
                batches = utils.batches(data.train, flags.batch_size, flags.augment, flags.seed, epoch,
                                        start_batch=run.batches_done)  # 0, unless this epoch is continued
                for image_batch, label_batch in run.progress(epoch, utils.prefetch(batches)):  # counts run.step, saves
                    # A training step: it is fed a batch, changes the weights, and returns the loss before that.
                    _, loss_value, summary_value = session.run([train_op, cross_entropy, summary],
                                                               feed_dict={images: image_batch, labels: label_batch})
                    run.add_loss(loss_value, len(label_batch))
                    if run.step % EMA_INTERVAL == 0 or run.batches_done == run.batches_per_epoch:
                        session.run(ema_op)  # also after the last batch, for the evaluation
                        run.log('train', summary_value)
                validation, _ = measure_accuracy(session, images, probabilities, data.validation)
                test, _ = measure_accuracy(session, images, probabilities, data.test)
                run.log('train', session.run(histograms, {images: data.validation.images[:100]}))
                run.end_epoch(epoch, validation, test)
            _, test_probabilities = measure_accuracy(session, images, probabilities, data.test)
            figures.plot_results(run, images, eval_layers, data.test, test_probabilities)
            pages.write_network_page(run, data.test, test_probabilities)
            tables.print_results(run, flags.epochs)


def predict(flags):
    """Reads pictures of one digit each with the network of the newest checkpoint."""
    digits = np.stack([utils.read_digit(path, IMAGE_SIZE) for path in flags.predict])
    images, scaled, _ = placeholders()
    probabilities = tf.nn.softmax(inference(scaled)['softmax_linear'])
    with devices.session(flags) as session:
        checkpoints.restore_weights(session, flags)  # their moving averages, where there are any
        probability_values = session.run(probabilities, {images: digits})
    tables.print_predictions(flags.predict, probability_values)
    figures.plot_predictions(flags, digits, probability_values)


def main(flags):
    if flags.predict:
        predict(flags)
    else:
        run_training(flags, utils.read_mnist(flags.data_dir, IMAGE_SIZE))


if __name__ == '__main__':
    with cli.errors_in_one_line():
        main(FLAGS)
