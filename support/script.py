"""What a lesson does when it runs as a script: a quiet start, errors in one line. Importing a lesson does nothing here.

TensorFlow prints lines about its libraries while it loads. They are held back, and shown if it does not load.
"""
import contextlib
import os
import re
import subprocess
import sys
import tempfile

_excepthook = sys.excepthook
_main = getattr(sys.modules['__main__'], '__file__', None)
_is_script = bool(_main) and os.path.dirname(os.path.abspath(_main)) == os.path.dirname(
    os.path.dirname(os.path.abspath(__file__)))


def _end_in_silence(kind, error, traceback):
    """Ctrl-C while the libraries load is no error that needs a traceback."""
    if issubclass(kind, KeyboardInterrupt):
        os._exit(130)
    _excepthook(kind, error, traceback)


if _is_script:
    sys.excepthook = _end_in_silence  # before NumPy loads

import utils  # noqa: E402
from support import outputs  # noqa: E402

NOTES = []  # the lines that TensorFlow printed and that were not shown


@contextlib.contextmanager
def errors_in_one_line():
    """Ends the program with exit status 2 and one line on stderr for a mistake that the user can correct.

    Other exceptions keep their traceback, but for a lack of memory, Ctrl-C, and a reader that has gone, such as head.
    """
    sys.excepthook = _excepthook
    try:
        yield
    except utils.UserError as error:
        message = str(error)
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(1)
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


def start():
    """Loads TensorFlow quietly. A user who sets TF_CPP_MIN_LOG_LEVEL sees every line at once.

    On a machine with a GPU, TensorFlow is asked to give the same numbers in each run, which it must know before it
    loads; the lessons set a seed, without which its random operations would then fail.
    """
    repair_output()
    if has_nvidia_gpu():
        for name in 'TF_DETERMINISTIC_OPS', 'TF_CUDNN_DETERMINISTIC':
            os.environ.setdefault(name, '1')
    if 'TF_CPP_MIN_LOG_LEVEL' in os.environ:
        return
    os.environ['TF_CPP_MIN_LOG_LEVEL'] = '1' if has_nvidia_gpu() else '2'  # 1: with warnings
    with held_back():
        import tensorflow.compat.v1 as tf
        tf.logging.set_verbosity(tf.logging.ERROR)  # in a lesson on TensorFlow 1.x, deprecation warnings are no news
        tf.config.experimental.list_physical_devices()  # TensorFlow comments on the devices now, not in a session


@contextlib.contextmanager
def held_back():
    """Keeps what is printed on stderr in NOTES, except errors; if the block fails, all of it is shown."""
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
            raise
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
                    NOTES.append(line)


if _is_script:
    start()
