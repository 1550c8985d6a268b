"""The hand-coded kernels of the lecture, and the shapes in which TensorFlow takes them.

A kernel is a small matrix. tf.nn.conv2d lays it over every pixel's neighbourhood,
multiplies element by element and adds up. It does not flip the kernel first, so what it
computes is, in the words of mathematics, a cross-correlation and not a convolution.
With padding='SAME' the neighbours beyond the border count as zeros: the output keeps the
input's size, and its outermost pixels come out darker (or, for an edge kernel, brighter)
than they should. padding='VALID' takes only pixels whose whole neighbourhood exists.

NumPy only: importing this file loads no TensorFlow and adds nothing to any graph.
"""
import numpy as np


KERNELS = {  # in display order; a kernel that sums to 1 keeps the brightness
    'identity': np.float32([[0, 0, 0],
                            [0, 1, 0],
                            [0, 0, 0]]),

    'blur': np.float32([[1, 2, 1],   # Gaussian: the nearer the neighbour, the more it counts
                        [2, 4, 2],
                        [1, 2, 1]]) / 16,

    'sharpen': np.float32([[ 0, -1,  0],
                           [-1,  5, -1],
                           [ 0, -1,  0]]),

    'edge': np.float32([[-1, -1, -1],   # outline: 0 wherever all nine pixels are equal
                        [-1,  8, -1],
                        [-1, -1, -1]]),

    'top_sobel': np.float32([[ 1,  2,  1],   # positive where it is brighter above than below
                             [ 0,  0,  0],
                             [-1, -2, -1]]),

    'bottom_sobel': np.float32([[-1, -2, -1],
                                [ 0,  0,  0],
                                [ 1,  2,  1]]),

    'left_sobel': np.float32([[1, 0, -1],
                              [2, 0, -2],
                              [1, 0, -1]]),

    'right_sobel': np.float32([[-1, 0, 1],
                               [-2, 0, 2],
                               [-1, 0, 1]]),

    'emboss': np.float32([[-2, -1, 0],   # light falls in from the top left
                          [-1,  1, 1],
                          [ 0,  1, 2]]),
}


def grey_kernel(matrix):
    """[h, w] -> [h, w, 1, 1]: one grey channel in, one out."""
    return matrix[:, :, np.newaxis, np.newaxis]


def rgb_kernel(matrix):
    """[h, w] -> [h, w, 3, 3], the matrix on the channel diagonal, zeros elsewhere.

    Each colour is filtered by itself. A kernel that filled all nine channel pairs would
    give every output channel the sum of all three colours: grey and three times too bright.
    """
    return matrix[:, :, np.newaxis, np.newaxis] * np.eye(3, dtype=np.float32)


def depthwise_kernel(matrix, channels):
    """[h, w] -> [h, w, channels, 1] for tf.nn.depthwise_conv2d: the matrix once per channel."""
    return np.repeat(grey_kernel(matrix), channels, axis=2)


def turned(matrix):
    """[3, 3] turned clockwise by an eighth: each number of the ring around the middle moves on by one place."""
    ring = [(0, 0), (0, 1), (0, 2), (1, 2), (2, 2), (2, 1), (2, 0), (1, 0)]
    result = matrix.copy()
    for place, following in zip(ring, ring[1:] + ring[:1]):
        result[following] = matrix[place]
    return result


def directions(matrix):
    """The up to eight different kernels that a [3, 3] becomes when it is turned again and again."""
    found = []
    for _ in range(8):
        if not any(np.array_equal(matrix, other) for other in found):
            found.append(matrix)
        matrix = turned(matrix)
    return found


def bank():
    """[5, 5, 1, 32]: hand-coded kernels for conv1 of lesson 2.

    21 fine ones, padded with zeros: blur, sharpen and edge, Sobel and emboss, turned to all their
    directions. 11 coarse ones, their numbers on every other row and column: blur, sharpen, edge and
    the Sobels. Each is divided by the sum of its magnitudes, so that all answer equally loudly.
    """
    fine = {name: directions(KERNELS[name]) for name in ('blur', 'sharpen', 'edge', 'top_sobel', 'emboss')}
    coarse = [KERNELS[name] for name in ('blur', 'sharpen', 'edge')] + fine['top_sobel']
    kernels = np.zeros([5, 5, 1, 32], np.float32)
    for number, matrix in enumerate(sum(fine.values(), [])):
        kernels[1:4, 1:4, 0, number] = matrix
    for number, matrix in enumerate(coarse, 32 - len(coarse)):
        kernels[::2, ::2, 0, number] = matrix
    return kernels / np.abs(kernels).sum(axis=(0, 1, 2))


# The lecture's names, ready for tf.nn.conv2d: [3, 3, 1, 1] for grey, [3, 3, 3, 3] for RGB.
BLUR_FILTER, BLUR_FILTER_RGB = grey_kernel(KERNELS['blur']), rgb_kernel(KERNELS['blur'])
SHARPEN_FILTER, SHARPEN_FILTER_RGB = grey_kernel(KERNELS['sharpen']), rgb_kernel(KERNELS['sharpen'])
EDGE_FILTER, EDGE_FILTER_RGB = grey_kernel(KERNELS['edge']), rgb_kernel(KERNELS['edge'])
EMBOSS_FILTER, EMBOSS_FILTER_RGB = grey_kernel(KERNELS['emboss']), rgb_kernel(KERNELS['emboss'])
TOP_SOBEL, TOP_SOBEL_RGB = grey_kernel(KERNELS['top_sobel']), rgb_kernel(KERNELS['top_sobel'])
