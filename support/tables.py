"""What the lessons print."""
import itertools
import os

import numpy as np
import tensorflow.compat.v1 as tf
from PIL import Image

import utils
from support import results, script


def relative(path):
    """The path as seen from the working directory if it lies there, or else from the root."""
    return script.printable(os.path.abspath(path) if path.startswith(os.pardir) else path)


# ---- Lesson 1 ------------------------------------------------------------------------------------

def print_value(title, row, column, patch, kernel, products, value):
    """Prints patch x kernel = products, each [h, w, channels], their sum, and the value that tf.nn.conv2d gave.

    Of a kernel more than five pixels wide, only the sum and the value.
    """
    height, width, channels = kernel.shape
    print('\nOne output value by hand: {}, row {}, column {} of the output'.format(title, row, column))
    largest = max(np.abs(matrix).max() for matrix in (patch, kernel, products))
    number_format = '{:8.4f}' if largest < 100 else '{:8.1e}'
    if width <= 5:
        columns = [9 * width, 9 * width, 9 * width]
        print('  ' + '     '.join('{:^{}}'.format(heading, size) for heading, size in zip(
            ('patch', 'kernel', 'products'), columns)).rstrip())
        for channel in range(channels):
            for y in range(height):
                sign = ('  x  ', '  =  ') if y == height // 2 else ('     ', '     ')
                patch_text, kernel_text, product_text = [
                    ' '.join(number_format.format(number + 0.0) for number in matrix[y, :, channel])  # no -0
                    for matrix in (patch, kernel, products)]
                name = ('  red', '  green', '  blue')[channel] if channels == 3 and y == height // 2 else ''
                print('  {}{} {}{} {}{}'.format(patch_text, sign[0], kernel_text, sign[1], product_text, name))
    equal = abs(products.sum() - value) <= 1e-5 * max(1, np.abs(products).sum())
    print('  sum of the {:4} products {:10.6f}\n  tf.nn.conv2d gave        {:10.6f}   {}'.format(
        products.size, products.sum(), value, 'equal up to rounding' if equal else 'NOT EQUAL'))


def print_flipping(matrices):
    """Prints {heading: matrix [3, 3]} in columns, and what they show."""
    print('\ntf.nn.conv2d does not flip the kernel')
    blocks = [[heading] + results.matrix_lines(matrix) for heading, matrix in matrices.items()]
    for line in zip(*blocks):
        print('  ' + ''.join('{:17}'.format(text) for text in line).rstrip())
    print('  Up and left of the bright pixel, conv2d gives 9: for that output, the bright pixel lies under the bottom\n'
          '  right number of the kernel. True convolution flips the kernel first, kernel[::-1, ::-1], and so copies\n'
          '  the kernel to the place of the bright pixel.')


def print_megapixels(path, height, width):
    """Says so if fewer pixels of a picture were used than its file has."""
    used, whole = height * width / 1e6, np.prod(Image.open(path).size) / 1e6
    if used < whole:
        print('\n{}: {:.1f} of its {:.1f} megapixels were used, {} x {}, about what a screen can show; --full-size '
              'uses all.'.format(script.printable(path), used, whole, height, width))


def print_kernels(matrices, tensors):
    """Prints each kernel with its sum and the shapes of its outputs, tensors['grey'][name] and tensors['rgb'][name]."""
    print('\nShapes are [batch, height, width, channels].\n{:14}{:>6}  {:18}  {:18}  {}'.format(
        'kernel', 'sum', 'grey output', 'RGB output', 'matrix'))
    for name, matrix in matrices.items():
        lines = results.matrix_lines(matrix)
        shapes = [str(tuple(tensors[kind][name].shape.as_list())) for kind in ('grey', 'rgb')]
        print('{:14}{:6.4g}  {:18}  {:18}  {}'.format(name, results.kernel_sum(matrix), *shapes, lines[0]))
        for line in lines[1:]:
            print(' ' * 62 + line)
    for name, matrix in matrices.items():
        if not results.is_zero_sum(matrix) and abs(matrix.sum() - 1) > results.UNIT_SUM:
            print(('\nThe kernel {0} sums to {1:.4g}: its output is {1:.4g} times as bright as the picture.\n'
                   'Divide its numbers by {1:.4g} to keep the brightness.' if matrix.sum() > 0 else
                   '\nThe kernel {0} sums to {1:.4g}: where the picture is even, its output is negative, and shown '
                   'black.').format(name, matrix.sum()))


def print_output_sizes(name, kernel_shape, picture_shape):
    """Prints the sizes that TensorFlow infers for strides 1 to 3, beside the formula."""
    print('\nOutput size, height x width, for a kernel of k x k pixels (here {}: {})'.format(
        name, results.shape_text(kernel_shape)))
    print('  stride  {:26}{}'.format('SAME: ceil(in / stride)', 'VALID: ceil((in - k + 1) / stride)'))
    with tf.Graph().as_default():
        images = tf.placeholder(tf.float32, (1,) + picture_shape + (1,))
        for stride in 1, 2, 3:
            sizes = []
            for padding in 'SAME', 'VALID':
                try:
                    kernel = np.zeros(kernel_shape + (1, 1), np.float32)
                    output = tf.nn.conv2d(images, kernel, [1, stride, stride, 1], padding)
                    sizes.append(results.shape_text(output.shape.as_list()[1:3]))
                except ValueError:
                    sizes.append('the kernel does not fit')
            print('  {:<8}{:26}{}'.format(stride, *sizes))


def print_filters(folders, page, path, picture_shape, matrices, tensors, example):
    """Prints what the kernels did, where everything is, and what to try next.

    page: the path of the page; path: of the picture; tensors {'grey', 'rgb', ...} of {name: output}; example: the name
    of a kernel.
    """
    print_megapixels(path, *picture_shape[:2])
    print_kernels(matrices, tensors)
    print_output_sizes(example, matrices[example].shape, picture_shape[:2])
    print('\nFigures      {}\nPage         open {} in a browser\nTensorBoard  tensorboard --logdir {}'.format(
        relative(folders.figures), relative(page), script.quoted(relative(folders.graphs))))
    print('Try next     ' + (
        'learn the kernels: python 07_convnet_mnist.py --epochs 1' if example == 'custom' else
        'a kernel of your own: python 07_basic_filters.py --custom-kernel "0 1 0; 1 -4 1; 0 1 0"'), flush=True)


# ---- Lesson 2 ------------------------------------------------------------------------------------

def print_layers():
    """Prints each layer's output shape, weights and number of parameters."""
    print('{:16}{:>16}{:>20}{:>12}'.format('layer', 'output', 'weights', 'parameters'))
    total = 0
    for name, output in results.layers().items():
        variables = [each for each in results.weights().values() if each.op.name.startswith(name + '/')]
        parameters = sum(variable.shape.num_elements() for variable in variables)
        total += parameters
        shapes = [results.shape_text(variable.shape.as_list()) for variable in variables
                  if variable.op.name.endswith('weights')]
        print('{:16}{:>16}{:>20}{:>12,}'.format(name, results.shape_text(output.shape.as_list()[1:]), ''.join(shapes),
                                                parameters))
    print('{:52}{:>12,}\n'.format('in all', total))


def print_epoch(row, lecture_accuracy):
    """Prints a row of the history, beside the lecture's test accuracy if it has one."""
    lecture = lecture_accuracy.get(row['epoch'])
    print('{epoch:5}  {loss:13.4f}  {validation:10.4f}  {test:6.4f}  {:>7}'.format(
        '{:.4f}'.format(lecture) if lecture else '', **row).rstrip(), flush=True)


def print_history(history, lecture_accuracy):
    print('epoch  training loss  validation    test' + ("  lecture's test" if lecture_accuracy else ''))
    for row in history:
        print_epoch(row, lecture_accuracy)


def print_results(run, flags, page):
    """Says where everything is, and what to try next. page: the path of the network page, or None."""
    if len(run.history) == run.epochs_before:
        print('Epochs asked for: {}, done already: {}. A larger --epochs trains on.'.format(
            flags.epochs, run.epochs_before))
    print('\nFigures      {}'.format(relative(run.folders.figures)))
    if page:
        print('Page         open {} in a browser'.format(relative(page)))
    needed = ''.join(' {} {}'.format(flag, script.quoted(value)) for flag, value, default in (
        ('--name', flags.name, 'convnet_mnist'), ('--output-dir', flags.output_dir, utils.HERE)) if value != default)
    print('Checkpoint   {}\nTensorBoard  tensorboard --logdir {}'.format(
        relative(run.checkpoint), script.quoted(relative(run.folders.graphs))))
    steps = run.history[-1]['step']
    if steps < 300:
        print('Learns more  {} training steps are few; a larger --epochs gives more, in a new run also a smaller '
              '--batch-size'.format(steps))
    print('Try next     {}: python 07_convnet_mnist.py{} --predict {}'.format(
        *('draw a digit, save it as digit.png', needed, 'digit.png') if run.data.are_digits else
        ('let it read a picture of yours', needed, 'picture.png')), flush=True)


def print_predictions(found, probabilities, classes, path):
    """Prints the digits of each picture, row by row, with their probabilities, and, of a single one, the runner-up.

    found: digits.Found of each picture; probabilities [n, classes] of all their digits, or of the pictures, if the
    names of the classes are not the digits; path: of the figure.
    """
    width = max(len(script.printable(picture.path)) for picture in found)
    wide = max(map(len, classes + ['digit']))
    print('{:{}}  {:>{}}  probability  runner-up'.format(
        'picture', width, 'digit' if classes == utils.DIGITS else 'class', wide))
    rest = iter(probabilities)
    for picture in found:
        name = script.printable(picture.path)
        for count in picture.rows:
            rows = np.array(list(itertools.islice(rest, count)))
            read, largest = rows.argmax(axis=1), rows.max(axis=1)
            text = '{:{}}  {:>{}}  {:>11}'.format(name, width, ''.join(classes[label] for label in read), wide,
                                                  ' '.join(map('{:.4f}'.format, largest)))
            if len(picture.boxes) == 1:
                second = rows[0].argsort()[-2]
                text += '  {} ({:.4f})'.format(classes[second], rows[0, second])
            if picture.doubts or largest.min() < results.UNSURE:
                text += '  unsure' + (': ' + ', '.join(picture.doubts) if picture.doubts else '')
            print(text)
            name = ''
        if picture.ignored:
            print('{:{}}  ignored: {}'.format('', width, ', '.join(picture.ignored)))
    print('\nWhat was found        {}'.format(relative(path)))
