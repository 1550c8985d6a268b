"""The hand-coded kernels of the lecture, and the shapes in which TensorFlow takes them. NumPy only.

A kernel is a small matrix. For each output value, tf.nn.conv2d lays it over a patch of the image, multiplies element by
element and adds up the products.
"""
import numpy as np

KERNELS = {  # float32 [3, 3], in display order. A kernel that sums to 1 keeps the brightness of the image.
    'identity': np.float32([[0, 0, 0],
                            [0, 1, 0],
                            [0, 0, 0]]),
    'blur': np.float32([[1, 2, 1],   # Gaussian: a weighted mean, in which near pixels count more
                        [2, 4, 2],
                        [1, 2, 1]]) / 16,
    'sharpen': np.float32([[ 0, -1,  0],   # the pixel, plus its differences from its four neighbours
                           [-1,  5, -1],
                           [ 0, -1,  0]]),
    'edge': np.float32([[-1, -1, -1],   # 0 wherever all nine pixels are equal
                        [-1,  8, -1],
                        [-1, -1, -1]]),
    'top_sobel': np.float32([[ 1,  2,  1],   # positive where the image is brighter above than below
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
    'emboss': np.float32([[-2, -1, 0],   # looks like a relief with light from the top left
                          [-1,  1, 1],
                          [ 0,  1, 2]])}


def grey_kernel(matrix):
    """[h, w] -> [h, w, 1, 1]: one channel in, one channel out."""
    return matrix[:, :, np.newaxis, np.newaxis]


def rgb_kernel(matrix):
    """[h, w] -> [h, w, 3, 3]: the matrix on the channel diagonal (red to red, ...), zeros elsewhere.

    With the matrix in all nine channel pairs, every output channel would be the sum of all three
    filtered colours: a grey picture, three times too bright if the kernel sums to 1.
    """
    return grey_kernel(matrix) * np.eye(3, dtype=np.float32)  # [h, w, 1, 1] * [3, 3], by broadcasting


def depthwise_kernel(matrix, channels):
    """[h, w] -> [h, w, channels, 1], the matrix once for each channel in, for tf.nn.depthwise_conv2d.

    There the last axis is the number of outputs for each channel in (the channel multiplier).
    """
    return np.repeat(grey_kernel(matrix), channels, axis=2)


def orientations(matrix):
    """The 1, 2, 4 or 8 different kernels [3, 3] that rotation by 45 degrees, clockwise, makes of a kernel."""
    ring = [0, 0, 0, 1, 2, 2, 2, 1], [0, 1, 2, 2, 2, 1, 0, 0]  # rows and columns, clockwise from the top left
    rotated = [matrix]
    while True:
        matrix = matrix.copy()
        matrix[ring] = np.roll(matrix[ring], 1)  # the outer ring moves on by one place
        if np.array_equal(matrix, rotated[0]):
            return rotated
        rotated.append(matrix)


def dilate(matrix):
    """[3, 3] -> [5, 5]: the values two pixels apart, with zeros between them (dilation 2)."""
    dilated = np.zeros([5, 5], np.float32)
    dilated[::2, ::2] = matrix
    return dilated


def filter_bank(height=5, width=5, in_channels=1, out_channels=32):
    """[height, width, in_channels, out_channels], at least 3 x 3: hand-coded kernels for conv1 of lesson 2.

    21 are blur, sharpen, edge, Sobel and emboss in all orientations (2 of blur, 2 of sharpen, 1 of edge, 8 of Sobel, 8
    of emboss). From 5 x 5 on there are 11 more: blur, sharpen, edge and the Sobels, dilated. Then they repeat. Each is
    divided by the sum of its absolute values over all input channels (L1-normalized).
    """
    matrices = [each for name in ('blur', 'sharpen', 'edge', 'top_sobel', 'emboss')
                for each in orientations(KERNELS[name])]
    if min(height, width) >= 5:
        matrices += [dilate(KERNELS[name]) for name in ('blur', 'sharpen', 'edge')]
        matrices += [dilate(each) for each in orientations(KERNELS['top_sobel'])]
    bank = np.zeros([height, width, in_channels, out_channels], np.float32)
    for index in range(out_channels):
        matrix = matrices[index % len(matrices)]
        h, w = matrix.shape
        top, left = (height - h) // 2, (width - w) // 2  # the matrix in the middle of zeros
        bank[top:top + h, left:left + w, :, index] = matrix[:, :, np.newaxis] / np.abs(matrix).sum() / in_channels
    return bank


# The lecture's names, for experiments of your own: [3, 3, 1, 1] for grey images, [3, 3, 3, 3] for RGB.
BLUR_FILTER, BLUR_FILTER_RGB = grey_kernel(KERNELS['blur']), rgb_kernel(KERNELS['blur'])
SHARPEN_FILTER, SHARPEN_FILTER_RGB = grey_kernel(KERNELS['sharpen']), rgb_kernel(KERNELS['sharpen'])
EDGE_FILTER, EDGE_FILTER_RGB = grey_kernel(KERNELS['edge']), rgb_kernel(KERNELS['edge'])
EMBOSS_FILTER, EMBOSS_FILTER_RGB = grey_kernel(KERNELS['emboss']), rgb_kernel(KERNELS['emboss'])
TOP_SOBEL, TOP_SOBEL_RGB = grey_kernel(KERNELS['top_sobel']), rgb_kernel(KERNELS['top_sobel'])
