"""The flags of the lessons, and their checks."""
import argparse
import math
import os
import re

import numpy as np

import kernels
import utils

FILTERS = 'basic_filters'  # the name of lesson 1's folders


class ArgumentParser(argparse.ArgumentParser):
    """Reports an error in one line. Its description is the first paragraph of a docstring."""

    def __init__(self, docstring):
        super().__init__(description=(docstring or '').split('\n\n')[0], allow_abbrev=False)  # python -OO has none
        # As from Python 3.14 on: what begins with a negative number, such as -1,0,1, is a value and no flag.
        self._negative_number_matcher = re.compile(r'-\.?\d')

    def error(self, message):
        self.exit(2, '{}: error: {} (--help lists all flags)\n'.format(self.prog, message))


def parse_filters_flags(docstring, arguments=None):
    """Returns the flags of lesson 1."""
    parser = ArgumentParser(docstring)
    add = parser.add_argument
    add('--image', type=os.path.expanduser, default=utils.CHIHUAHUA, metavar='FILE',
        help='the picture to filter (default: data/chihuahua.jpg)')
    add('--full-size', dest='most_pixels', action='store_const', const=math.inf, default=1e6,
        help='use every pixel of a large picture (default: at most a megapixel, about what a screen shows)')
    add('--kernels', nargs='+', metavar='NAME', choices=list(kernels.KERNELS), default=list(kernels.KERNELS),
        help='which kernels to apply: {} (default: all)'.format(', '.join(kernels.KERNELS)))
    add('--custom-kernel', type=kernel_from_text, metavar='"0 -1 0; -1 5 -1; 0 -1 0"',
        help='apply a kernel of your own, too: rows of numbers separated by semicolons or lines, at most 31 x 31')
    add('--stride', type=bounded(int, 1, 1000), default=1, metavar='N',
        help='move the kernel by N pixels from one output value to the next (default: %(default)s)')
    add('--padding', choices=['SAME', 'VALID'], default='SAME',
        help='SAME: pad the picture with zeros; VALID: only patches inside the picture (default: %(default)s)')
    add_output_dir(parser)
    add('--no-show', action='store_true', help='only save the figures, open no window')
    return parser.parse_args(arguments)


def smallest_image(flags):
    """The height and width that a picture must have for the kernels to fit into it."""
    sizes = [kernels.KERNELS[name].shape for name in flags.kernels] + [np.shape(flags.custom_kernel) or (0, 0)]
    return tuple(np.max(sizes, axis=0)) if flags.padding == 'VALID' else (1, 1)


def parse_convnet_flags(docstring, arguments=None):
    """Returns the flags of lesson 2."""
    return convnet_parser(docstring).parse_args(arguments)


def parse_towers_flags(docstring, arguments=None):
    """Returns the flags of lesson 3."""
    parser = convnet_parser(docstring)
    parser.set_defaults(name='convnet_towers')
    parser.add_argument('--towers', type=bounded(int, 1, 64), default=2, metavar='N',
                        help='copies of the network, each for its part of a batch (default: %(default)s)')
    parser.add_argument('--wait', type=bounded(int, 1), default=600, metavar='SECONDS',
                        help='how long to wait for the other machines in TF_CONFIG, see docs/devices.md '
                             '(default: %(default)s)')
    return parser.parse_args(arguments)


def convnet_parser(docstring):
    parser = ArgumentParser(docstring)
    parser.set_defaults(towers=1)
    add = parser.add_argument
    add('--epochs', type=bounded(int, 1), default=10, metavar='N',
        help='train until every training image was seen N times, earlier runs included (default: %(default)s)')
    add('--batch-size', type=bounded(int, 1, 4096), default=128, metavar='N',
        help='images in one training step (default: %(default)s)')
    add('--learning-rate', type=bounded(float, 0, 1, exclusive=True), default=1e-3, metavar='X',
        help='learning rate of Adam (default: %(default)s)')
    add('--keep-prob', type=bounded(float, 0.001, 1), default=0.75, metavar='X',
        help='probability that dropout keeps a unit of fc; 1: no dropout (default: %(default)s)')
    add('--init-stddev', type=bounded(float, 0, 10), default=0, metavar='X',
        help='standard deviation of all initial weights; 0: one that suits each layer (default: %(default)s)')
    add('--ema-decay', type=bounded(float, 0, 0.999999), default=0.999, metavar='X',
        help='evaluate with an exponential moving average of the weights, at first with a smaller decay than this; '
             '0: with the weights themselves (default: %(default)s)')
    add('--augment', type=bounded(float, 0, 10), default=1.0, metavar='PIXELS',
        help='augmentation: shift, stretch, rotate and bend each training image by about so many pixels; '
             '0: none (default: %(default)s)')
    add('--conv1', choices=['learned', 'hand-coded', 'random'], default='learned',
        help='hand-coded: conv1 has the kernels of kernels.py; random: it keeps random ones, of the usual size; '
             'neither learns (default: %(default)s)')
    add('--seed', type=bounded(int, 0, 2**31 - 1), default=0, metavar='N',
        help='random seed: initial weights, order, augmentation, dropout (default: %(default)s)')
    add('--name', type=run_name, default='convnet_mnist',
        help='name of the run: it writes to checkpoints/NAME, graphs/NAME and figures/NAME (default: %(default)s)')
    add_output_dir(parser)
    add('--data-dir', type=os.path.expanduser, default=utils.MNIST_DIR, metavar='DIR',
        help='MNIST or another dataset in its format (default: data/mnist)')
    add('--device', choices=['auto', 'cpu', 'gpu'], default='auto',
        help='auto: the GPU if there is one (default: %(default)s)')
    add('--bf16', action='store_true',
        help='compute in bfloat16 where processor and TensorFlow support it: faster, less precise')
    add('--restart', action='store_true',
        help='begin anew; what the run NAME wrote so far moves to NAME.1, NAME.2, ...')
    add('--predict', nargs='+', type=os.path.expanduser, metavar='FILE',
        help='do not train; read the digits in these pictures, or in all pictures of a folder')
    return parser


def add_output_dir(parser):
    parser.add_argument('--output-dir', type=os.path.expanduser, default=utils.HERE, metavar='DIR',
                        help='where checkpoints/, graphs/ and figures/ are (default: the folder of this script)')


def bounded(kind, low, high=math.inf, exclusive=False):
    """Returns a type for add_argument: an int or a float from low (exclusive: above low) to high."""
    expected = '{}{}{}'.format('a whole number' if kind is int else 'a number',
                               ' above {}'.format(low) if exclusive else ' of at least {}'.format(low),
                               '' if high == math.inf else ' and at most {}'.format(high))

    def convert(text):
        try:
            value = kind(text)
        except ValueError:
            value = math.nan
        if not (low <= value <= high) or value == math.inf or (exclusive and value == low):
            raise argparse.ArgumentTypeError('expected {}, found {!r}'.format(expected, text))
        return value
    return convert


def run_name(text):
    """A type for add_argument: a name without characters that some system forbids in the name of a folder."""
    if not re.fullmatch(r'[A-Za-z0-9._-]*[A-Za-z0-9_-]', text) or text.lower() == FILTERS:
        raise argparse.ArgumentTypeError('expected letters, digits, dots, dashes and underscores, no dot at the end, '
                                         'and not {}, which is lesson 1; found {!r}'.format(FILTERS, text))
    return text


def kernel_from_text(text):
    """A type for add_argument: '0 -1 0; -1 5 -1; 0 -1 0' -> float32 [h, w], 1 x 1 to 31 x 31, below a million.

    Rows may also be lines. 9, 25, 49, ... numbers in one row are a square.
    """
    lines = re.split(r'[;\n] *\n?', text.replace('\r', '').strip(' ;\n'))
    if any(re.search(r'\S,\S', line) and re.search(r'[^,\s]\s+[^,\s]', line) for line in lines):  # 0,5 0,5 or -1,0 1,0
        raise argparse.ArgumentTypeError('a comma may stand between numbers, or in them: write 0.5 1.5; -1 0 1, not '
                                         '{!r}'.format(text))
    try:
        rows = [[float(number) for number in line.replace(',', ' ').split()] for line in lines]
    except ValueError:
        rows = [[]]
    side = math.sqrt(len(rows[0]))
    if len(rows) == 1 and side % 2 == 1 and side > 1:
        rows = np.reshape(rows, [int(side), -1]).tolist()
    if not (1 <= len(rows) <= 31 and 1 <= len(rows[0]) <= 31 and all(len(row) == len(rows[0]) for row in rows)
            and all(abs(number) < 1e6 for row in rows for number in row)):
        raise argparse.ArgumentTypeError('expected rows of equal length like "0 -1 0; -1 5 -1; 0 -1 0", at most 31 x '
                                         '31 numbers below a million, found {!r}'.format(text))
    return np.float32(rows)
