"""What a gradient is: one weight of lesson 2's network changes a little, and what does the loss do?

    python docs/gradient_by_hand.py
"""
import importlib
import os
import sys

sys.path.insert(0, os.path.dirname(os.path.dirname(os.path.abspath(__file__))))  # the folder of the lessons
from support import script
script.start(__name__)
import numpy as np
import tensorflow.compat.v1 as tf

import utils
lesson2 = importlib.import_module('07_convnet_mnist')
CHANGE = 1e-7  # float32 would round away such a difference of the losses; hence float64


def main():
    data = utils.read_mnist(utils.MNIST_DIR).train
    images, labels = data.images[:128, :, :, np.newaxis] / 255, data.labels[:128].astype(np.int32)
    with tf.variable_scope('', dtype=tf.float64):  # as in lesson 2's inference, but for the precision
        conv1 = lesson2.conv_relu(tf.constant(images), 32, 'conv1', lesson2.conv1_weights('learned', 0))
        conv2 = lesson2.conv_relu(lesson2.max_pool(conv1, 'p1'), 64, 'conv2', lesson2.initial_weights(2))
        fc = lesson2.fully_connected(lesson2.max_pool(conv2, 'p2'), 1024, 'fc', lesson2.initial_weights(3), tf.nn.relu)
        logits = lesson2.fully_connected(fc, 10, 'softmax_linear', lesson2.initial_weights(4, scale=1.0))
    loss, weights = lesson2.loss(logits, tf.constant(labels)), tf.trainable_variables()
    steps = [('gradient descent', tf.train.GradientDescentOptimizer(1e-3).minimize(loss)),
             ('Adam', lesson2.training(loss, 1e-3))]
    with tf.Session() as session:
        session.run(tf.global_variables_initializer())
        start, slopes, probabilities, activations = session.run(
            [weights, tf.gradients(loss, weights), tf.nn.softmax(logits), fc])
        for variable, value, slope in list(zip(weights, start, slopes))[::6]:  # weights of conv1 and softmax_linear
            place = np.unravel_index(np.abs(slope).argmax(), slope.shape)  # where the gradient is largest
            print('{}{}'.format(variable.op.name, [int(index) for index in place]))
            losses, changed = [], value.copy()
            for sign in -1, 1:
                changed[place] = value[place] + sign * CHANGE
                variable.load(changed, session)
                losses.append(session.run(loss))
                print('  loss at weight {} {:.0e}           {:.14f}'.format('- +'[sign + 1], CHANGE, losses[-1]))
            variable.load(value, session)
            print('  difference of the two / {:.0e}     {:.6f}\n  tf.gradients                      {:.6f}'.format(
                2 * CHANGE, (losses[1] - losses[0]) / (2 * CHANGE), slope[place]))
        products = (probabilities[:, place[1]] - (labels == place[1])) * activations[:, place[0]]
        print('  (probability - 1 if right) x fc   {:.6f}   mean over the 128 digits'.format(products.mean()))
        for name, step in steps:
            for number in range(1, 11):
                session.run(step)
                if number in (1, 10):
                    print('{:16}  step {:2}  loss {:.4f}'.format(name, number, session.run(loss)))
            for variable, value in zip(weights, start):
                variable.load(value, session)


if __name__ == '__main__':
    with script.errors_in_one_line():
        main()
