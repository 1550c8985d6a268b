"""Lesson 1: choose a kernel, and see what tf.nn.conv2d does with it to a picture.

    python 07_basic_filters.py
    python 07_basic_filters.py --custom "1 1 1; 1 1 1; 1 1 1" --kernels identity blur
    tensorboard --logdir graphs

tf.nn.conv2d convolves a batch of images [batch, height, width, in_channels] with a kernel
[height, width, in_channels, out_channels]. Nothing is trained here: the kernels are those of
kernels.py, or your own. In lesson 2, 07_convnet_mnist.py, the network learns them.
"""
import os

import numpy as np

import kernels
import utils
from support import cli, figures

EMBOSS = kernels.KERNELS['emboss']


if __name__ == '__main__':
    FLAGS = cli.parse_filters_flags(__doc__.splitlines()[0])  # before TensorFlow loads, so that --help answers at once

with cli.quiet_start():
    import tensorflow.compat.v1 as tf
    tf.disable_v2_behavior()
    tf.config.experimental.list_physical_devices()  # it makes its remarks now, and not in the session


def filter_all(image, matrices, to_kernel, stride, padding):
    """image [1, height, width, C] -> {name: [1, out_height, out_width, C]}; C is 1 for grey, 3 for RGB.

    to_kernel: kernels.grey_kernel or kernels.rgb_kernel. All kernels of one size lie side by side on
    the output axis, [h, w, C, K * C]: one conv2d. Conv1 of lesson 2 does the same with its 32 kernels.
    """
    outputs = {}
    for size in sorted({matrix.shape for matrix in matrices.values()}):  # 3x3, and perhaps your own
        names = [name for name in matrices if matrices[name].shape == size]
        stacked = np.concatenate([to_kernel(matrices[name]) for name in names], axis=3)
        output = tf.nn.conv2d(image, stacked, strides=[1, stride, stride, 1], padding=padding)
        channels = stacked.shape[2]
        for number, name in enumerate(names):
            outputs[name] = output[..., number * channels:(number + 1) * channels]
    return outputs


def compare_operations(image):
    """The lecture's three operations with one matrix, on image [1, height, width, 3].

    Returns {name: (caption, output [1, height, width, 3])}. The separable convolution does in
    two steps, each channel by itself and then the mixing, what conv2d does in one.
    """
    sepia = np.array([[.393, .349, .272],  # row: colour in, column: colour out
                      [.769, .686, .534],
                      [.189, .168, .131]], np.float32) / 1.351  # the largest sum: white stays within 1
    mixing = kernels.grey_kernel(EMBOSS) * sepia                   # [3, 3, 3, 3], 81 weights
    depthwise = kernels.depthwise_kernel(EMBOSS, channels=3)       # [3, 3, 3, 1], 27 weights
    pointwise = sepia[np.newaxis, np.newaxis]                      # [1, 1, 3, 3],  9 weights
    strides = [1, 1, 1, 1]
    return {
        'conv2d': ('kernel [3, 3, 3, 3]: 81 weights\nevery channel out mixes all\nchannels in: new colours',
                   tf.nn.conv2d(image, mixing, strides, 'SAME')),
        'depthwise_conv2d': ('kernel [3, 3, 3, 1]: 27 weights\neach channel by itself:\ncolours stay',
                             tf.nn.depthwise_conv2d(image, depthwise, strides, 'SAME')),
        'separable_conv2d': ('[3, 3, 3, 1] then pointwise\n[1, 1, 3, 3]: 36 weights\nthe same picture as conv2d',
                             tf.nn.separable_conv2d(image, depthwise, pointwise, strides, 'SAME'))}


def displayed(output, matrix):
    """What a screen can show of an output: uint8, 0 to 255, the one scale that all pictures share.

    A kernel that sums to 0 answers around 0, so its magnitude is shown. Values outside [0, 1]
    are clipped; nothing is stretched to full contrast.
    """
    if sums_to_zero(matrix):
        output = tf.abs(output)
    return tf.image.convert_image_dtype(output, tf.uint8, saturate=True)


def sums_to_zero(matrix):
    return abs(matrix.sum()) <= 1e-5 * np.abs(matrix).sum()


def matrix_lines(matrix):
    texts = [['{:g}'.format(value) for value in row] for row in matrix]
    width = max(len(text) for row in texts for text in row)
    return [' '.join(text.rjust(width) for text in row) for row in texts]


def caption(matrix):
    how = 'magnitude' if sums_to_zero(matrix) else 'clipped to [0, 1]'
    lines = matrix_lines(matrix) if matrix.shape == (3, 3) else ['{} x {} numbers'.format(*matrix.shape)]
    return '\n'.join(['sum {:.4g}, {}'.format(matrix.sum(), how)] + lines)


def print_kernels(matrices, grey, rgb):
    print('\n{:14}{:>6}  {:18}  {:18}  {}'.format('kernel', 'sum', 'grey output', 'RGB output', 'matrix'))
    for name, matrix in matrices.items():
        lines = matrix_lines(matrix)
        print('{:14}{:6.4g}  {:18}  {:18}  {}'.format(
            name, matrix.sum(), str(grey[name].shape), str(rgb[name].shape), lines[0]))
        for line in lines[1:]:
            print(' ' * 62 + line)


def most_changed(grey, output, stride, margin):
    """The row and column of the output [h, w] that differs most from the pixel it comes from.

    None of the outermost `margin` pixels, into which the zeros from beyond the border are mixed.
    """
    change = np.abs(output - grey[::stride, ::stride][:output.shape[0], :output.shape[1]])
    inside = np.zeros_like(change)
    inside[margin:-margin, margin:-margin] = 1
    return np.unravel_index((change * inside).argmax(), change.shape)


def print_one_pixel(name, matrix, grey, output, y, x, stride, padding):
    """The arithmetic behind output[y, x]. grey: [height, width]; output: [out_height, out_width]."""
    h, w = matrix.shape
    top, left = 0, 0
    if padding == 'SAME':  # TensorFlow puts half of the zeros before; an odd one goes behind
        top, left = [max((out - 1) * stride + size - full, 0) // 2
                     for out, size, full in zip(output.shape, matrix.shape, grey.shape)]
    padded = np.pad(grey, [(top, h), (left, w)], mode='constant')
    patch = padded[y * stride:, x * stride:][:h, :w]
    product = patch * matrix
    print('\nOne pixel by hand: {}, grey, row {}, column {} of the output'.format(name, y, x))
    if w <= 5:
        width = 9 * w + 3
        print('  {:{width}}{:{width}}{}'.format('   patch', '   x kernel', '   = product', width=width))
        for lines in zip(patch, matrix, product):
            print('  ' + ''.join('{:{width}}'.format(' '.join('{:8.4f}'.format(value) for value in line),
                                                     width=width) for line in lines).rstrip())
    equal = abs(product.sum() - output[y, x]) <= 1e-5 * max(1, np.abs(product).sum())
    print('  sum of the product  {:10.6f}\n  tf.nn.conv2d gave   {:10.6f}   {}'.format(
        product.sum(), output[y, x], 'equal' if equal else 'NOT EQUAL'))


def print_output_shapes(height, width):
    """The shapes are TensorFlow's own inference, in a graph apart from the lesson's."""
    print('\nOutput shape of tf.nn.conv2d with a 3 x 3 kernel on this picture in grey'
          '\n  stride  {:20}{}'.format('SAME', 'VALID'))
    with tf.Graph().as_default():
        grey = tf.placeholder(tf.float32, [1, height, width, 1])
        for stride in 1, 2, 3:
            shapes = []
            for padding in 'SAME', 'VALID':
                try:
                    conv = tf.nn.conv2d(grey, kernels.BLUR_FILTER, [1, stride, stride, 1], padding)
                    shapes.append(str(tuple(conv.shape.as_list())))
                except ValueError:
                    shapes.append('too small for it')
            print('  {:<8}{:20}{}'.format(stride, *shapes))


def write_log(log_dir, events):
    """Writes graph and pictures for TensorBoard, in the place of those that an earlier run of this script wrote."""
    suffix = '.basic_filters'
    with cli.writing(log_dir):
        os.makedirs(log_dir, exist_ok=True)
        for name in os.listdir(log_dir):
            if name.endswith(suffix):
                os.remove(os.path.join(log_dir, name))
        with tf.summary.FileWriter(log_dir, tf.get_default_graph(), filename_suffix=suffix) as writer:
            writer.add_summary(events, global_step=0)


def main(flags):
    matrices = {name: kernels.KERNELS[name] for name in flags.kernels}
    if flags.custom is not None:
        matrices['custom'] = flags.custom
    pixels = utils.read_image(flags.image)
    height, width, _ = pixels.shape
    if flags.padding == 'VALID' and any(h > height or w > width for h, w in
                                        (matrix.shape for matrix in matrices.values())):
        raise utils.UserError('{}: a picture of {} x {} pixels is smaller than the kernel; use --padding SAME'
                              .format(flags.image, width, height))
    operations_figure = os.path.join(os.path.dirname(flags.output), 'conv_ops.png')
    if os.path.abspath(flags.output) == os.path.abspath(operations_figure):
        raise utils.UserError('{}: the second figure takes this name; choose another'.format(flags.output))
    for path in flags.output, operations_figure:
        figures.check_target(path)
    print('{}: {} x {} pixels, RGB, values from 0 to 1'.format(flags.image, width, height))

    image = tf.placeholder(tf.float32, [1, height, width, 3], name='image')
    with tf.name_scope('grey'):
        grey = tf.image.rgb_to_grayscale(image)
        grey_outputs = filter_all(grey, matrices, kernels.grey_kernel, flags.stride, flags.padding)
    with tf.name_scope('rgb'):
        rgb_outputs = filter_all(image, matrices, kernels.rgb_kernel, flags.stride, flags.padding)
    with tf.name_scope('operations'):
        operations = compare_operations(image)
    outputs = {'grey': grey_outputs, 'rgb': rgb_outputs,
               'operations': {name: output for name, (_, output) in operations.items()}}
    matrix_of = {'grey': matrices, 'rgb': matrices, 'operations': dict.fromkeys(operations, EMBOSS)}
    with tf.name_scope('shown'):
        shown = {kind: {name: displayed(output, matrix_of[kind][name]) for name, output in outputs[kind].items()}
                 for kind in outputs}
        original = {'grey': displayed(grey, kernels.KERNELS['identity']),
                    'rgb': displayed(image, kernels.KERNELS['identity'])}
        apart = -(-max(height, width) // 1000)  # pixels: in TensorBoard a photo need not have every one
        for kind in shown:
            for name, picture in shown[kind].items():
                tf.summary.image('{}/{}'.format(kind, name), picture[:, ::apart, ::apart])
        summaries = tf.summary.merge_all()
    example = 'custom' if 'custom' in matrices else 'blur' if 'blur' in matrices else flags.kernels[0]

    # On the processor: exact in float32, and one run is not worth a GPU's start.
    with tf.Session(config=cli.session_config('cpu', bf16=False)) as session:
        grey, output, shown, original, events = session.run(
            [grey, grey_outputs[example], shown, original, summaries], feed_dict={image: pixels[np.newaxis]})
    write_log(flags.log_dir, events)

    print_kernels(matrices, shown['grey'], shown['rgb'])
    grey, output = grey[0, :, :, 0], output[0, :, :, 0]
    y, x = most_changed(grey, output, flags.stride, margin=max(matrices[example].shape) // 2 + 1)
    print_one_pixel(example, matrices[example], grey, output, y, x, flags.stride, flags.padding)
    print_output_shapes(height, width)

    if flags.no_show:
        figures.without_windows()
    else:
        figures.with_windows()
    rows = {'grey': [('original', 'frame: seen magnified', original['grey'][0])], 'rgb': [('', '', original['rgb'][0])]}
    for name, matrix in matrices.items():
        rows['grey'].append((name, caption(matrix), shown['grey'][name][0]))
        rows['rgb'].append(('', '', shown['rgb'][name][0]))
    centre = (y + 0.5) / output.shape[0], (x + 0.5) / output.shape[1]
    figures.draw_pictures(flags.output, [rows[kind][start:start + 5] for start in range(0, len(rows['rgb']), 5)
                                         for kind in ('grey', 'rgb')], detail=centre)
    original_panel = ('original', 'shape [1, {}, {}, 3],\nlike all the outputs'.format(height, width), original['rgb'][0])
    figures.draw_pictures(operations_figure, [[original_panel] + [
        (name, operations[name][0], shown['operations'][name][0]) for name in operations]])
    print('\nFigures      {}\n             {}\nTensorBoard  tensorboard --logdir {}'.format(
        flags.output, operations_figure, flags.log_dir))
    figures.show_windows()


if __name__ == '__main__':
    with cli.errors_in_one_line():
        main(FLAGS)
