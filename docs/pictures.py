"""Draws how the kernels of a run of lesson 2 formed, kernels_form.png, and how a digit is bent, augmentation.png.

    python docs/pictures.py

It trains one epoch again, and takes the last kernels from the newest checkpoint. The flags are those of lesson 2.
"""
import importlib
import os
import sys

sys.path.insert(0, os.path.dirname(os.path.dirname(os.path.abspath(__file__))))  # the folder of the lessons
from support import script
script.start(__name__)
import numpy as np
import tensorflow.compat.v1 as tf
from matplotlib.figure import Figure

import utils
from support import cli, figures, runs

lesson2 = importlib.import_module('07_convnet_mnist')
STEPS = [0, 10, 100, 430]


def draw_augmentation(image, pixels):
    """A digit [28, 28], and what augment makes of it in nine epochs."""
    bent = utils.augment(np.stack([image] * 9), pixels, np.random.RandomState(0))
    figure = Figure(figsize=(10, 1.35))
    axis = figure.add_axes([0.01, 0, 0.98, 0.84])
    figures.show_tiles(axis, 'A training digit, and what augment makes of it nine times',
                       np.concatenate([image[np.newaxis], bent]) / 255, columns=10)
    figures.save_figure(figure, 'augmentation.png')


def first_epoch(flags, data):
    """Trains as lesson 2 does. Returns {step: conv1's kernels [h, w, 1, n]}, and the loss in each step."""
    images, labels = tf.placeholder(tf.uint8, [None, 28, 28]), tf.placeholder(tf.int32, [None])
    _, loss, train_op = lesson2.build_network(flags, images, labels, flags.keep_prob, len(data.classes))
    weights = tf.trainable_variables()[0]
    with tf.Session() as session:
        session.run(tf.global_variables_initializer())
        kernels, losses = {0: session.run(weights)}, []
        for batch in utils.batches(data.train, flags.batch_size, flags.augment, flags.seed, epoch=1):
            losses.append(session.run([loss, train_op], {images: batch[0], labels: batch[1]})[0])
            if len(losses) in STEPS:
                kernels[len(losses)] = session.run(weights)
    return kernels, losses


def draw_kernels(kernels, losses):
    """A row of eight kernels for each step, on one scale, and the loss below."""
    tiles = np.concatenate([np.moveaxis(each[:, :, 0, :8], 2, 0) for each in kernels.values()])
    largest = np.abs(tiles).max()
    figure = Figure(figsize=(7, 6.4))
    axis = figure.add_axes([0.2, 0.38, 0.78, 0.57])
    figures.show_tiles(axis, "conv1's first eight kernels: white +{0:.2f}, black -{0:.2f}".format(largest),
                       0.5 + tiles / largest / 2, columns=8)
    for row, step in enumerate(kernels):
        axis.text(-1, 6 * row + 2, '{:,} steps'.format(step), ha='right', va='center')
    axis = figure.add_axes([0.2, 0.09, 0.72, 0.24])
    axis.plot(np.arange(1, len(losses) + 1), losses)
    axis.set(xscale='log', xlabel='training step (logarithmic)', ylabel='loss', ylim=(0, None))
    axis.set_xticks([1] + STEPS[1:])
    axis.set_xticklabels([1] + STEPS[1:])
    axis.minorticks_off()
    axis.grid(alpha=0.3)
    figures.save_figure(figure, 'kernels_form.png')


def main():
    flags = cli.parse_convnet_flags(__doc__)
    checkpoint, saved = runs.trained_checkpoint(flags)
    data = utils.read_mnist(flags.data_dir)
    draw_augmentation(data.train.images[0], flags.augment)
    tf.set_random_seed(flags.seed)
    kernels, losses = first_epoch(flags, data)
    kernels[saved['history'][-1]['step']] = tf.train.load_checkpoint(checkpoint).get_tensor('conv1/weights')
    draw_kernels(kernels, losses)


if __name__ == '__main__':
    with script.errors_in_one_line():
        main()
