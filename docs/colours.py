"""When does it pay to learn the kernels? Digits that only their colour shows, as in a test for colour blindness.

    python docs/colours.py

Each pixel of a picture has a brightness of its own, at random. The digit's are a little redder and less green, the
others the reverse: red + green + blue, the brightness, knows nothing of the digit. The network is lesson 2's but for
three channels in, with each of its three kinds of conv1. Saves some of the pictures as colours.png.
"""
import argparse
import importlib
import os
import sys

sys.path.insert(0, os.path.dirname(os.path.dirname(os.path.abspath(__file__))))  # the folder of the lessons
from support import script
script.start(__name__)
import numpy as np
import tensorflow.compat.v1 as tf
from PIL import Image

import utils

lesson2 = importlib.import_module('07_convnet_mnist')


def coloured(dataset, difference, seed):
    """Digits uint8 [n, 28, 28] -> uint8 [n, 28, 28, 3], of a random brightness; the labels stay."""
    random = np.random.RandomState(seed)
    brightness = random.uniform(50, 205, dataset.images.shape + (1,)).astype(np.float32)
    redder = (dataset.images[..., np.newaxis] / np.float32(127.5) - 1) * difference  # of 255
    return utils.Dataset((brightness + redder * np.float32([1, -1, 0])).round().astype(np.uint8), dataset.labels)


def test_accuracy(kind, train, test, seed, steps):
    """Trains the network for so many steps, with this kind of conv1, and returns the share of test digits read."""
    with tf.Graph().as_default(), tf.Session() as session:
        tf.set_random_seed(seed)
        images, labels = tf.placeholder(tf.uint8, [None, 28, 28, 3]), tf.placeholder(tf.int32, [None])
        scaled = tf.cast(images, tf.float32) / 255
        conv1 = lesson2.conv_relu(scaled, 32, 'conv1', lesson2.conv1_weights(kind, 0), kind == 'learned')
        pool1 = lesson2.max_pool(conv1, 'pool1')
        conv2 = lesson2.conv_relu(pool1, 64, 'conv2', lesson2.initial_weights(2))
        pool2 = lesson2.max_pool(conv2, 'pool2')
        fc = lesson2.fully_connected(pool2, 1024, 'fc', lesson2.initial_weights(3), tf.nn.relu)
        logits = lesson2.fully_connected(fc, 10, 'softmax_linear', lesson2.initial_weights(4, scale=1.0))
        train_op = lesson2.training(lesson2.loss(logits, labels), 1e-3)
        read = lesson2.evaluation(logits, labels)
        session.run(tf.global_variables_initializer())
        for _, batch in zip(range(steps), utils.batches(train, 128, 0, seed, 1)):
            session.run(train_op, {images: batch[0], labels: batch[1]})
        return lesson2.accuracy(session, read, images, labels, test)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('--seeds', type=int, default=5)
    parser.add_argument('--steps', type=int, default=430, help='training steps, at most 430: one epoch')
    parser.add_argument('--difference', type=int, default=15, help='of red and green, of 255 (default: 15)')
    options = parser.parse_args()
    data = utils.read_mnist(utils.MNIST_DIR)
    train, test = coloured(data.train, options.difference, 1), coloured(data.test, options.difference, 2)
    Image.fromarray(np.concatenate(test.images[:8], axis=1)).resize([8 * 112, 112], Image.NEAREST).save('colours.png')
    for kind in 'learned', 'random', 'hand-coded':
        accuracies = [test_accuracy(kind, train, test, seed, options.steps) for seed in range(options.seeds)]
        print('{:10}  mean {:.4f}   each {}'.format(kind, np.mean(accuracies),
                                                    ' '.join('{:.4f}'.format(each) for each in accuracies)), flush=True)


if __name__ == '__main__':
    main()
