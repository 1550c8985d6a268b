"""The flags of both lessons, a quiet start, errors in one line, the processor."""
import argparse
import contextlib
import math
import os
import re
import sys
import tempfile

import numpy as np

import kernels
import utils


# ---- A quiet start, and errors in one line -------------------------------------------------------

@contextlib.contextmanager
def quiet_start():
    """Holds back what TensorFlow prints on stderr while it loads and looks for devices.

    Lines of severity E or F still come through, except the one that says that a computer
    without a GPU has none; if the block raises, everything does. Whoever sets
    TF_CPP_MIN_LOG_LEVEL wants to read it all, and gets it at once.
    """
    if 'TF_CPP_MIN_LOG_LEVEL' in os.environ:
        yield
        return
    os.environ['TF_CPP_MIN_LOG_LEVEL'] = '2'
    sys.stderr.flush()
    terminal = os.dup(2)
    failed = True
    with tempfile.TemporaryFile() as held:
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


@contextlib.contextmanager
def errors_in_one_line():
    """Ends the program with exit status 2 and one line on stderr for what a user can put right."""
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
    else:
        return
    print('{}: error: {}'.format(os.path.basename(sys.argv[0]), message), file=sys.stderr)
    sys.exit(2)


@contextlib.contextmanager
def writing(path):
    """Turns the many errors of a disk that is full, read-only or gone into a UserError."""
    try:
        yield
    except Exception as error:
        if not isinstance(error, OSError) and not type(error).__module__.startswith('tensorflow'):
            raise
        reason = re.search('; ([^;\n]+)', str(error))  # TensorFlow: FILE; REASON, among much else
        raise utils.UserError('{}: cannot be written ({})'.format(
            path, getattr(error, 'strerror', None) or (reason.group(1) if reason else str(error).splitlines()[0])))


# ---- The processor -------------------------------------------------------------------------------

def cpu_has_bfloat16():
    """Whether the processor multiplies bfloat16 by itself; False where Linux cannot be asked."""
    try:
        with open('/proc/cpuinfo') as file:
            return 'avx512_bf16' in file.read()
    except OSError:
        return False


def can_use_bfloat16():
    """TensorFlow 1.15 cannot; on a processor without it, it would be slower than float32."""
    import tensorflow.compat.v1 as tf
    return cpu_has_bfloat16() and hasattr(tf.ConfigProto().graph_options.rewrite_options,
                                          'auto_mixed_precision_onednn_bfloat16')


def session_config(device, bf16):
    """A tf.ConfigProto for --device auto, cpu or gpu, and for bfloat16 where it can be had."""
    import tensorflow.compat.v1 as tf
    config = tf.ConfigProto(inter_op_parallelism_threads=1,  # one op at a time, each on all cores: fastest
                            allow_soft_placement=True)
    config.gpu_options.allow_growth = True  # take only the GPU memory that is needed
    if device == 'cpu':
        config.device_count['GPU'] = 0
    if bf16 and can_use_bfloat16():
        config.graph_options.rewrite_options.auto_mixed_precision_onednn_bfloat16 = 1  # ON
    return config


# ---- Flags ---------------------------------------------------------------------------------------

class Flags(argparse.ArgumentParser):
    """An ArgumentParser that shows every default and reports an error in one line."""

    def __init__(self, description):
        super().__init__(description=description, allow_abbrev=False,
                         formatter_class=argparse.ArgumentDefaultsHelpFormatter)

    def error(self, message):
        self.exit(2, '{}: error: {} (--help lists all flags)\n'.format(self.prog, message))


def number(kind, low, high=math.inf, above=False):
    """A type for Flags: an int or a float from low (or, if above, more than low) to high."""
    expected = '{}{}{}'.format('a whole number' if kind is int else 'a number',
                               ' above {}'.format(low) if above else ' of at least {}'.format(low),
                               '' if high == math.inf else ' and at most {}'.format(high))

    def convert(text):
        try:
            value = kind(text)
        except ValueError:
            value = math.nan
        if not (low <= value <= high) or value == math.inf or (above and value == low):
            raise argparse.ArgumentTypeError('expected {}, found {!r}'.format(expected, text))
        return value
    return convert


def parse_filters_flags(description, arguments=None):
    parser = Flags(description)
    parser.add_argument('--image', default=os.path.join(utils.HERE, 'data', 'chihuahua.jpg'),
                        help='the picture to filter')
    parser.add_argument('--kernels', nargs='+', metavar='NAME', choices=list(kernels.KERNELS),
                        default=list(kernels.KERNELS), help='which kernels to apply')
    parser.add_argument('--custom', type=custom_kernel, metavar='"0 -1 0; -1 5 -1; 0 -1 0"',
                        help='a kernel of your own, rows separated by semicolons, up to 31 x 31; '
                             'write --custom="-1,0,1" if it begins with a minus and has no space')
    parser.add_argument('--stride', type=number(int, 1, 1000), default=1,
                        help='take every N-th pixel, in both directions')
    parser.add_argument('--padding', choices=['SAME', 'VALID'], default='SAME',
                        help='SAME: zeros around the picture; VALID: only where the kernel fits')
    parser.add_argument('--output', default=os.path.join(utils.HERE, 'figures', 'basic_filters.png'),
                        help='the figure to write; conv_ops.png is written beside it')
    parser.add_argument('--log-dir', default=os.path.join(utils.HERE, 'graphs', 'basic_filters'),
                        help='where to write the graph and the pictures for TensorBoard')
    parser.add_argument('--no-show', action='store_true', help='open no window')
    return parser.parse_args(arguments)


def parse_convnet_flags(description, arguments=None):
    flags = Flags(description)
    add = flags.add_argument
    add('--epochs', type=number(int, 1), default=10, help='how many times to see every training digit, in all')
    add('--batch-size', type=number(int, 1, 4096), default=128, help='images per step')
    add('--learning-rate', type=number(float, 0, 1, above=True), default=1e-3, help='of Adam, in epoch 1')
    add('--decay', type=number(float, 0, 1, above=True), default=0.95,
        help='the learning rate shrinks by this factor after each epoch; 1: it stays')
    add('--keep-prob', type=number(float, 0.001, 1), default=0.75,
        help='share of the 1024 units that dropout keeps; 1: no dropout')
    add('--stddev', type=number(float, 0, 10), default=0,
        help='standard deviation of all initial weights; 0: sqrt(2 / inputs), for each layer its own')
    add('--average', type=number(float, 0, 0.999999), default=0.99,
        help='decay of the moving average of the weights, with which it is evaluated; 0: no average')
    add('--distort', type=number(float, 0, 10), default=1.0,
        help='shift, stretch, turn and bend each training digit by about so many pixels; 0: leave it as it is')
    add('--conv1', choices=['learned', 'hand-coded'], default='learned',
        help='hand-coded: its kernels are those of kernels.py, and stay as they are')
    add('--seed', type=number(int, 0, 2**31 - 1), default=0, help='of everything random')
    add('--data-dir', default=utils.MNIST_DIR, help='MNIST, or any data set in its format')
    add('--checkpoint-dir', default=os.path.join(utils.HERE, 'checkpoints', 'convnet_mnist'),
        help='where training is saved, and found again by the next run')
    add('--log-dir', help='for TensorBoard; if not given, a folder in graphs with the name of the checkpoints\' folder')
    add('--figure-dir', default=os.path.join(utils.HERE, 'figures'), help='for the figures')
    add('--device', choices=['auto', 'cpu', 'gpu'], default='auto', help='auto: the GPU if there is one')
    add('--bf16', action='store_true',
        help='compute in bfloat16, faster, where processor and TensorFlow can; else in float32')
    add('--restart', action='store_true', help='move earlier checkpoints and logs aside and start anew')
    add('--dry-run', action='store_true', help='one batch through everything, in seconds; keeps nothing')
    add('--predict', nargs='+', metavar='FILE', help='do not train: read these pictures of one digit each')
    values = flags.parse_args(arguments)
    if values.log_dir is None:  # so that two runs with checkpoints of their own do not share a curve
        values.log_dir = os.path.join(utils.HERE, 'graphs', os.path.basename(os.path.abspath(values.checkpoint_dir)))
    return values


def matrix_from_text(text):
    """'0 -1 0; -1 5 -1; 0 -1 0' -> float32 [h, w], up to 31x31 numbers below a million; ValueError otherwise."""
    rows = [[float(number) for number in row.replace(',', ' ').split()] for row in text.strip(' ;').split(';')]
    if not (1 <= len(rows) <= 31 and 1 <= len(rows[0]) <= 31):
        raise ValueError('not from 1 x 1 to 31 x 31 numbers')
    if any(len(row) != len(rows[0]) for row in rows):
        raise ValueError('rows of different length')
    if not all(abs(number) < 1e6 for row in rows for number in row):
        raise ValueError('numbers beyond a million')
    return np.float32(rows)


def custom_kernel(text):
    try:
        return matrix_from_text(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(
            'expected rows of numbers like "0 -1 0; -1 5 -1; 0 -1 0", found {!r}: {}'.format(text, error))
