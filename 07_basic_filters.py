"""Lesson 1: choose a kernel, and see what tf.nn.conv2d makes of a picture.

    python 07_basic_filters.py
    python 07_basic_filters.py --custom-kernel "0 1 0; 1 -4 1; 0 1 0"
    tensorboard --logdir graphs

Nothing is trained: the kernels are those of kernels.py, or your own. In lesson 2, a network learns its kernels.
"""
from support import script
script.start(__name__)  # in a script: TensorFlow is to load quietly
import math

import numpy as np
import tensorflow.compat.v1 as tf  # the functions of TensorFlow 1.x, on 1.15 and on 2.x

import kernels
import utils
from support import cli, figures, outputs, pages, results, tables

tf.disable_v2_behavior()  # on 2.x: graphs and sessions, instead of computing each operation at once
CPU = tf.ConfigProto(device_count={'GPU': 0})  # for a single run, a GPU would take longer to start than to compute


# ---- One kernel, one picture: the whole lesson in ten lines ------------------------------------------------

def convolve(image, matrix):
    """image [height, width], matrix [h, w] -> output of tf.nn.conv2d [height, width]; all are NumPy arrays."""
    with tf.Graph().as_default():
        # First the graph: tensors, and the operations between them. Nothing is computed yet.
        images = tf.placeholder(tf.float32, [1, None, None, 1])  # batch, height, width, channels in
        kernel = matrix[:, :, np.newaxis, np.newaxis]            # height, width, channels in, channels out
        output = tf.nn.conv2d(images, kernel, strides=[1, 1, 1, 1], padding='SAME')
        # Then the session: it takes a value for the placeholder (the feed), and computes that of the output.
        with tf.Session(config=CPU) as session:
            output_value = session.run(output, feed_dict={images: image[np.newaxis, :, :, np.newaxis]})
    return output_value[0, :, :, 0]


def show_that_the_kernel_is_not_flipped():
    """One bright pixel becomes, by true convolution, the kernel, and by conv2d the kernel turned by 180 degrees."""
    one_pixel = kernels.KERNELS['identity']  # it is 1 in the middle
    matrix = np.float32([[1, 2, 3], [4, 5, 6], [7, 8, 9]])
    tables.print_flipping({'image': one_pixel, 'kernel': matrix, 'tf.nn.conv2d': convolve(one_pixel, matrix),
                           'true convolution': convolve(one_pixel, matrix[::-1, ::-1])})  # flips the kernel first


# ---- One output value by hand -----------------------------------------------------------------------------

def patch_start(index, size, kernel_size, stride, padding):
    """The first of the kernel_size pixels from which output number `index` is computed, along one axis.

    stride: by how many pixels the kernel moves from one output to the next. VALID gives
    ceil((size - kernel_size + 1) / stride) outputs, SAME gives ceil(size / stride). For that, SAME pads the image with
    zeros, half of them before the first pixel, so that the start may be negative, and half after the last pixel. If
    their number is odd, the greater half comes last.
    """
    zeros = 0
    if padding == 'SAME':
        zeros = max((math.ceil(size / stride) - 1) * stride + kernel_size - size, 0)
    return index * stride - zeros // 2


def patch_at(image, top, left, h, w):
    """The pixels [h, w, channels] of an image from row `top` and column `left` on. Beyond its border, they are 0."""
    patch = np.zeros([h, w, image.shape[2]], np.float32)
    inside = image[max(top, 0):top + h, max(left, 0):left + w]
    y, x = max(-top, 0), max(-left, 0)  # how many rows and columns are beyond the border
    patch[y:y + inside.shape[0], x:x + inside.shape[1]] = inside
    return patch


def explain_one_value(title, image, kernel, output, stride, padding):
    """Prints the arithmetic behind one output value: patch x kernel = products, and their sum over all input channels.

    image [height, width, channels], kernel [h, w, channels], output [out_height, out_width]. Returns the row and the
    column of the pixel that is under the kernel's centre.
    """
    h, w, _ = kernel.shape
    tops = patch_start(np.arange(output.shape[0]), image.shape[0], h, stride, padding)   # for each row of the output
    lefts = patch_start(np.arange(output.shape[1]), image.shape[1], w, stride, padding)  # for each column
    row, column = results.most_changed(image[:, :, 0], output, tops, lefts, h, w)  # where there is something to see
    patch = patch_at(image, tops[row], lefts[column], h, w)
    tables.print_value(title, row, column, patch, kernel, patch * kernel, output[row, column])
    return tops[row] + (h - 1) // 2, lefts[column] + (w - 1) // 2


# ---- Many kernels -----------------------------------------------------------------------------------------

def filter_grey(images, matrices, stride, padding):
    """All kernels in one conv2d: images [1, height, width, 1] -> {name: output [1, out_height, out_width, 1]}.

    The matrices [h, w] lie side by side on the output axis, [h, w, 1, K]: each makes one channel out. Conv1 of
    lesson 2 does the same with its 32 kernels.
    """
    filter_bank = np.concatenate([kernels.grey_kernel(matrix) for matrix in matrices.values()], axis=3)
    output = tf.nn.conv2d(images, filter_bank, strides=[1, stride, stride, 1], padding=padding)
    return {name: output[..., index:index + 1] for index, name in enumerate(matrices)}


def filter_rgb(images, matrices, stride, padding):
    """One conv2d for each kernel: images [1, height, width, 3] -> {name: output [1, out_height, out_width, 3]}."""
    rgb_outputs = {}
    for name, matrix in matrices.items():
        with tf.name_scope(name):  # in TensorBoard's graph, a box of this name
            rgb_outputs[name] = tf.nn.conv2d(images, kernels.rgb_kernel(matrix), [1, stride, stride, 1], padding)
    return rgb_outputs


# ---- The lecture's three operations -----------------------------------------------------------------------

# Mixes the colours, as an example: the tone of old photographs.
SEPIA = np.float32([[.393, .349, .272],  # row: colour in, column: colour out
                    [.769, .686, .534],
                    [.189, .168, .131]]) / 1.351  # the largest column sum, so that white stays at most 1


def sepia_kernel(matrix):
    """[h, w] -> [h, w, 3, 3]: the matrix in all nine channel pairs, each time multiplied by a number of SEPIA."""
    return kernels.grey_kernel(matrix) * SEPIA


def compare_operations(images, matrix):
    """images [1, height, width, 3] -> {operation: output, of the same shape}, each with one matrix [3, 3]."""
    all_pairs = np.tile(kernels.grey_kernel(matrix), [1, 1, 3, 3])  # [3, 3, 3, 3]: 81 weights
    diagonal = kernels.rgb_kernel(matrix)                           # [3, 3, 3, 3]: 81 weights, 54 of them 0
    depthwise = kernels.depthwise_kernel(matrix, channels=3)        # [3, 3, 3, 1]: 27 weights, here thrice the same
    pointwise = SEPIA[np.newaxis, np.newaxis]                       # [1, 1, 3, 3]: 9 weights
    strides = [1, 1, 1, 1]
    return {
        # A common mistake: every output channel is the sum of all three filtered colours, and the picture grey.
        'conv2d, all channel pairs': tf.nn.conv2d(images, all_pairs, strides, 'SAME'),
        # With zeros off the channel diagonal, conv2d filters each channel by itself, as depthwise_conv2d does.
        'conv2d, diagonal': tf.nn.conv2d(images, diagonal, strides, 'SAME'),
        'depthwise_conv2d': tf.nn.depthwise_conv2d(images, depthwise, strides, 'SAME'),
        # separable_conv2d filters each channel by itself and then mixes the channels. With 27 + 9 = 36 weights it
        # costs less than conv2d with 81, and can do less: it does what a conv2d does whose kernel is a product,
        # kernel[:, :, i, o] = depthwise[:, :, i, 0] * pointwise[0, 0, i, o] for input channel i, output channel o.
        'conv2d, mixing': tf.nn.conv2d(images, sepia_kernel(matrix), strides, 'SAME'),
        'separable_conv2d': tf.nn.separable_conv2d(images, depthwise, pointwise, strides, 'SAME')}


# ---- The run ----------------------------------------------------------------------------------------------

def main(arguments=None):
    flags = cli.parse_filters_flags(__doc__, arguments)
    picture = utils.read_image(flags.image, cli.smallest_image(flags), flags.most_pixels)
    folders = outputs.prepare_filters(flags)
    matrices = {name: kernels.KERNELS[name] for name in flags.kernels}

    with tf.Graph().as_default() as graph:
        images = tf.placeholder(tf.float32, (1,) + picture.shape, name='images')
        with tf.name_scope('grey'):
            grey = tf.image.rgb_to_grayscale(images)
            grey_outputs = filter_grey(grey, matrices, flags.stride, flags.padding)
            if flags.custom_kernel is not None:  # in a conv2d of its own, for it may be of another size
                matrices['custom'] = flags.custom_kernel
                grey_outputs.update(filter_grey(grey, {'custom': flags.custom_kernel}, flags.stride, flags.padding))
        with tf.name_scope('rgb'):
            rgb_outputs = filter_rgb(images, matrices, flags.stride, flags.padding)
        with tf.name_scope('operations'):
            operations = compare_operations(images, kernels.KERNELS['emboss'])
        tensors = {'grey': grey_outputs, 'rgb': rgb_outputs, 'operations': operations}

        with tf.Session(config=CPU) as session:
            feed = {images: picture[np.newaxis]}
            grey_picture = session.run(grey, feed_dict=feed)[0]
            example = next(name for name in ['custom', 'blur'] + flags.kernels if name in matrices)
            grey_value = session.run(grey_outputs[example], feed_dict=feed)[0, :, :, 0]
            pixel = explain_one_value('{} in grey'.format(example), grey_picture, matrices[example][:, :, np.newaxis],
                                      grey_value, flags.stride, flags.padding)
            show_that_the_kernel_is_not_flipped()
            red_value = session.run(operations['conv2d, mixing'], feed_dict=feed)[0, :, :, 0]
            explain_one_value('emboss to sepia in RGB, red channel out', picture,
                              sepia_kernel(kernels.KERNELS['emboss'])[:, :, :, 0], red_value, 1, 'SAME')
            # One output at a time, when its turn to be drawn comes: all those of a photo would not fit into memory.
            values = ((kind, name, session.run(output, feed_dict=feed)[0])
                      for kind, outputs_of_kind in tensors.items() for name, output in outputs_of_kind.items())
            summary = figures.plot_filters(folders.figures, flags, picture, grey_picture, values, matrices, pixel,
                                           patch_start)
    page = pages.write_filters_page(folders.figures, flags, picture, matrices, pixel)
    writer = tf.summary.FileWriter(folders.graphs, graph, filename_suffix='.basic_filters')
    writer.add_summary(summary)
    writer.close()
    tables.print_filters(folders, page, flags.image, picture.shape, matrices, tensors, example)
    figures.show_windows()


if __name__ == '__main__':
    with script.errors_in_one_line():
        main()
