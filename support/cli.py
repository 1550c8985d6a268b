"""The command line of the lessons: flags, a quiet start, errors in one line."""
import argparse
import contextlib
import itertools
import math
import os
import re
import subprocess
import sys
import tempfile

import numpy as np

import kernels
import utils
from support import outputs

LESSON_1_NAME = 'basic_filters'
MPLBACKEND = os.environ.pop('MPLBACKEND', None)  # with a wrong name, TensorFlow 2 and Matplotlib could not be imported
HELD_BACK = []  # the lines that quiet_start did not show


# ---- A quiet start, and errors in one line -------------------------------------------------------

@contextlib.contextmanager
def quiet_start():
    """Holds back what TensorFlow prints on stderr while it loads and looks for devices.

    Lines of severity E or F still come through, except the one that says that a computer
    without a GPU has none; if the block raises, everything does. Whoever sets
    TF_CPP_MIN_LOG_LEVEL wants to read it all, and gets it at once. On a machine with a GPU, also asks TensorFlow to
    give the same numbers in each run, which must be done before it loads; random ops without a seed then fail.
    """
    if has_nvidia_gpu():
        for name in 'TF_DETERMINISTIC_OPS', 'TF_CUDNN_DETERMINISTIC':
            os.environ.setdefault(name, '1')
    try:
        held = tempfile.TemporaryFile()
    except OSError:  # the temporary folder is full: noise is better than no lesson
        held = None
    if held is None or 'TF_CPP_MIN_LOG_LEVEL' in os.environ:
        yield
        return
    os.environ['TF_CPP_MIN_LOG_LEVEL'] = '1' if has_nvidia_gpu() else '2'  # 1: with warnings
    sys.stderr.flush()
    terminal = os.dup(2)
    failed = True
    with held:
        os.dup2(held.fileno(), 2)  # the C++ side writes to the file descriptor, not to sys.stderr
        try:
            yield
            failed = False
        except KeyboardInterrupt:
            failed = False
            sys.exit(130)
        finally:
            sys.stderr.flush()
            os.dup2(terminal, 2)
            os.close(terminal)
            held.seek(0)
            for line in held.read().decode(errors='replace').splitlines():
                error = re.match(r'[EF]\d{4} |\S+ \S+: [EF] ', line) and 'cuInit' not in line
                if failed or error:
                    print(line, file=sys.stderr)
                else:
                    HELD_BACK.append(line)


def has_nvidia_gpu():
    """Whether this machine has an NVIDIA GPU with a driver; TensorFlow is not asked."""
    if os.path.exists('/dev/nvidia0'):
        return True
    try:
        return b'GPU 0' in subprocess.check_output(['nvidia-smi', '-L'], stderr=subprocess.DEVNULL, timeout=10)
    except (OSError, subprocess.SubprocessError):
        return False


def repair_output():
    """Makes stdout and stderr usable if they are closed, or cannot encode a name; what they cannot is escaped."""
    number = 0
    while number <= 2:
        number = os.open(os.devnull, os.O_RDWR)  # the lowest free number, so the closed ones first
    os.close(number)
    for name, number in ('stdout', 1), ('stderr', 2):
        if getattr(sys, name) is None:
            setattr(sys, name, open(number, 'w'))
        if hasattr(getattr(sys, name), 'reconfigure'):
            getattr(sys, name).reconfigure(errors='backslashreplace')


@contextlib.contextmanager
def errors_in_one_line():
    """Ends the program with exit status 2 and one line on stderr for what a user can correct."""
    try:
        yield
    except utils.UserError as error:
        message = str(error)
    except BrokenPipeError:  # whoever reads the output, such as head, has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(1)
    except OSError as error:  # a path that cannot be read or written, a full disk
        message = '{}: {}'.format(error.filename, error.strerror) if error.filename else str(error)
    except KeyboardInterrupt:
        sys.exit(130)
    except Exception as error:
        if not isinstance(error, MemoryError) and type(error).__name__ != 'ResourceExhaustedError':  # TensorFlow's
            raise
        message = 'not enough memory; use a smaller picture, or a smaller --batch-size'
    else:
        return
    print_error(message)
    sys.exit(2)


def print_error(message):
    line = '{}: error: {}'.format(os.path.basename(sys.argv[0]), outputs.printable(message))
    print(line, file=sys.stderr, flush=True)


# ---- Flags ---------------------------------------------------------------------------------------

class ArgumentParser(argparse.ArgumentParser):
    """Reports an error in one line. Its description is the first paragraph of a docstring."""

    def __init__(self, docstring):
        repair_output()
        super().__init__(description=(docstring or '').split('\n\n')[0], allow_abbrev=False)  # python -OO has none
        # As from Python 3.14 on: what begins with a negative number, such as -1,0,1, is a value and no flag.
        self._negative_number_matcher = re.compile(r'-\.?\d')

    def error(self, message):
        self.exit(2, '{}: error: {} (--help lists all flags)\n'.format(self.prog, message))


def parse_filters_flags(docstring, arguments=None):
    """Returns the flags of lesson 1."""
    parser = ArgumentParser(docstring)
    add = parser.add_argument
    add('--image', default=utils.CHIHUAHUA, metavar='FILE',
        help='the picture to filter (default: data/chihuahua.jpg)')
    add('--kernels', nargs='+', metavar='NAME', choices=list(kernels.KERNELS), default=list(kernels.KERNELS),
        help='which kernels to apply: {} (default: all)'.format(', '.join(kernels.KERNELS)))
    add('--custom-kernel', type=kernel_from_text, metavar='"0 -1 0; -1 5 -1; 0 -1 0"',
        help='apply a kernel of your own, too: rows of numbers separated by semicolons, at most 31 x 31')
    add('--stride', type=bounded(int, 1, 1000), default=1, metavar='N',
        help='move the kernel by N pixels from one output value to the next (default: %(default)s)')
    add('--padding', choices=['SAME', 'VALID'], default='SAME',
        help='SAME: pad the picture with zeros; VALID: only patches inside the picture (default: %(default)s)')
    add_output_dir(parser)
    add('--no-show', action='store_true', help='only save the figures, open no window')
    return parser.parse_args(arguments)


def chosen_kernels(flags, picture_shape):
    """Returns the chosen kernels of the lecture and the user's own, {'custom': matrix} or {}.

    Raises UserError if padding is VALID and one of them is larger than the picture.
    """
    matrices = {name: kernels.KERNELS[name] for name in flags.kernels}
    custom = {} if flags.custom_kernel is None else {'custom': flags.custom_kernel}
    height, width, _ = picture_shape
    for matrix in itertools.chain(matrices.values(), custom.values()):
        if flags.padding == 'VALID' and (matrix.shape[0] > height or matrix.shape[1] > width):
            raise utils.UserError('{}: {} x {} pixels are too few for a kernel of {} x {}; use --padding SAME'.format(
                flags.image, height, width, *matrix.shape))
    return matrices, custom


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
    parser.set_defaults(towers=1, remote_session=None)
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
    add('--ema-decay', type=bounded(float, 0, 0.999999), default=0.99, metavar='X',
        help='evaluate with an exponential moving average of the weights, updated every ten steps, at first with a '
             'smaller decay than this; 0: with the weights themselves (default: %(default)s)')
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
    add('--data-dir', default=utils.MNIST_DIR, metavar='DIR',
        help='MNIST or another dataset in its format (default: data/mnist)')
    add('--device', choices=['auto', 'cpu', 'gpu'], default='auto',
        help='auto: the GPU if there is one (default: %(default)s)')
    add('--bf16', action='store_true',
        help='compute in bfloat16 where processor and TensorFlow support it: faster, less precise')
    add('--restart', action='store_true',
        help='begin anew; what the run NAME wrote so far moves to NAME.1, NAME.2, ...')
    add('--predict', nargs='+', metavar='FILE', help='do not train; read these pictures of one digit each')
    return parser


def add_output_dir(parser):
    parser.add_argument('--output-dir', default=utils.HERE, metavar='DIR',
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
    if not re.fullmatch(r'[A-Za-z0-9._-]*[A-Za-z0-9_-]', text) or text == LESSON_1_NAME:
        raise argparse.ArgumentTypeError('expected letters, digits, dots, dashes and underscores, no dot at the end, '
                                         'and not {}, which is lesson 1; found {!r}'.format(LESSON_1_NAME, text))
    return text


def kernel_from_text(text):
    """A type for add_argument: '0 -1 0; -1 5 -1; 0 -1 0' -> float32 [h, w], 1 x 1 to 31 x 31, below a million."""
    try:
        rows = [[float(number) for number in row.replace(',', ' ').split()] for row in text.strip(' ;').split(';')]
    except ValueError:
        rows = [[]]
    if not (1 <= len(rows) <= 31 and 1 <= len(rows[0]) <= 31 and all(len(row) == len(rows[0]) for row in rows)
            and all(abs(number) < 1e6 for row in rows for number in row)):
        raise argparse.ArgumentTypeError('expected rows of equal length like "0 -1 0; -1 5 -1; 0 -1 0", at most 31 x '
                                         '31 numbers below a million, found {!r}'.format(text))
    return np.float32(rows)
