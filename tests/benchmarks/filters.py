"""Lesson 1's convolution beside OpenCV, SciPy and Pillow: milliseconds per kernel, all nine kernels.

    python tests/benchmarks/filters.py

Ours is what lesson 1 runs, in one session.run: filter_grey, one conv2d for all kernels, and filter_rgb, one
conv2d for each kernel; either way, the nine outputs are fetched as a list. OpenCV and SciPy get the same
float32 picture, one kernel after the other. Pillow's filter works on bytes only: a quarter of the memory to move.
"""
import argparse
import importlib
import sys

import numpy as np

import rounds
import kernels


def picture(kind, megapixels):
    """Random values [height, width] or [height, width, 3], 0 to 1; 3 to 2 like a photo."""
    height, width = int(round((megapixels * 1e6 / 1.5) ** .5)), int(round((megapixels * 1e6 * 1.5) ** .5))
    shape = [height, width] + [3] * (kind == 'RGB')
    return np.random.RandomState(0).random_sample(shape).astype(np.float32)


def ours(kind, pixels):
    lesson = importlib.import_module('07_basic_filters')
    tf = lesson.tf
    if kind == 'grey':
        pixels = pixels[..., np.newaxis]
    images = tf.placeholder(tf.float32, (1,) + pixels.shape)
    filter_all = lesson.filter_grey if kind == 'grey' else lesson.filter_rgb
    outputs = list(filter_all(images, kernels.KERNELS, 1, 'SAME').values())
    session = tf.Session(config=lesson.CPU)
    return lambda: session.run(outputs, {images: pixels[np.newaxis]})


def opencv(kind, pixels, outputs=(None,) * len(kernels.KERNELS)):
    import cv2
    return lambda: [cv2.filter2D(pixels, -1, matrix, dst=output, borderType=cv2.BORDER_CONSTANT)
                    for matrix, output in zip(kernels.KERNELS.values(), outputs)]


def opencv_in_place(kind, pixels):
    """The outputs' memory is there before and used again, which is TensorFlow's way, too."""
    return opencv(kind, pixels, [np.zeros_like(pixels) for _ in kernels.KERNELS])


def scipy(kind, pixels):
    import scipy.ndimage
    channels = [pixels] if kind == 'grey' else list(np.moveaxis(pixels, 2, 0).copy())
    return lambda: [scipy.ndimage.correlate(channel, matrix, mode='constant')
                    for matrix in kernels.KERNELS.values() for channel in channels]


def pillow(kind, pixels):
    from PIL import Image, ImageFilter
    image = Image.fromarray((pixels * 255).astype(np.uint8))
    return lambda: [image.filter(ImageFilter.Kernel((3, 3), matrix.ravel().tolist(), scale=1))
                    for matrix in kernels.KERNELS.values()]


COMPETITORS = {'ours': ours, 'OpenCV': opencv, 'OpenCV, memory ready': opencv_in_place,
               'SciPy': scipy, 'Pillow': pillow}


def prepare(name, kind, megapixels):
    work = COMPETITORS[name](kind, picture(kind, float(megapixels)))

    def repeat(count):
        for _ in range(count):
            work()
    return repeat


def main(flags):
    print(rounds.machine())
    for kind in 'grey', 'RGB':
        print('\n{}, {:g} megapixels, {} kernels; the median of {} rounds\n  {:22}{:>14}{:>13}'.format(
            kind, flags.megapixels, len(kernels.KERNELS), flags.rounds, '', 'ms per kernel', 'time / ours'))
        competitors = {name: [name, kind, flags.megapixels] for name in COMPETITORS}
        times = rounds.compete(__file__, competitors, 1, flags.rounds)
        for name, turns in times.items():
            print('  {:22}{:14.3g}{:13.2f}'.format(
                name, turns.median * 1e3 / len(kernels.KERNELS), turns.median / times['ours'].median))


if __name__ == '__main__':
    if sys.argv[1:2] == ['--work']:
        rounds.serve(lambda: prepare(*sys.argv[2:]))
    else:
        parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
        parser.add_argument('--megapixels', type=float, default=24)
        parser.add_argument('--rounds', type=int, default=7)
        main(parser.parse_args())
