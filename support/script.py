"""What a lesson does when it runs as a script: a quiet start, and errors in one line. Importing it does nothing."""
import contextlib
import errno
import os
import re
import shlex
import subprocess
import sys
import tempfile

import utils


def start(module_name):
    """Loads TensorFlow quietly. To be called with __name__; does nothing in a lesson that is imported."""
    if module_name != '__main__':
        return
    prepare_streams()
    if 'IPython' not in sys.modules:
        os.environ.pop('MPLBACKEND', None)  # that of a notebook would end a script while TensorFlow loads
    if has_nvidia_gpu():  # is to give the same numbers in each run, which TensorFlow must know before it loads
        os.environ.setdefault('TF_DETERMINISTIC_OPS', '1')
        os.environ.setdefault('TF_CUDNN_DETERMINISTIC', '1')
    with held_back(), errors_in_one_line():
        import tensorflow.compat.v1 as tf
        tf.logging.set_verbosity(tf.logging.ERROR)  # in a lesson on TensorFlow 1.x, deprecation warnings are no news
        tf.config.experimental.list_physical_devices()  # what it says of devices, it says now


def prepare_streams():
    for stream in sys.stdout, sys.stderr:
        if hasattr(stream, 'reconfigure'):
            stream.reconfigure(errors='backslashreplace')  # for names that the terminal cannot show
            stream.write, stream.flush = while_open(stream.write), while_open(stream.flush)


def while_open(method):
    """Wraps write or flush of a terminal: when the terminal is closed, a run goes on without it."""
    def call(*arguments):
        try:
            return method(*arguments)
        except OSError as error:
            if error.errno != errno.EIO:
                raise
    return call


@contextlib.contextmanager
def held_back():
    """Holds back what TensorFlow prints, but no errors. A user who sets TF_CPP_MIN_LOG_LEVEL sees every line.

    On 2.21 six lines come at any level, from C++, which writes to the file descriptor 2 and not to sys.stderr.
    """
    if 'TF_CPP_MIN_LOG_LEVEL' in os.environ or sys.stderr is None:
        yield
        return
    terminal = os.dup(2)
    with tempfile.TemporaryFile() as held:
        os.dup2(held.fileno(), 2)
        try:
            yield
        finally:
            os.dup2(terminal, 2)
            os.close(terminal)
            held.seek(0)
            sys.stderr.writelines(line.decode(errors='replace') for line in held if re.match(  # cuInit: there is no GPU
                rb'([EF]\d{4} |\S+ \S+: [EF] |\S+ error: )(?!.*cuInit)', line))


def has_nvidia_gpu():
    """Whether this machine has an NVIDIA GPU, without asking TensorFlow. dxg: within Windows (WSL2)."""
    return os.path.exists('/dev/nvidia0') or os.path.exists('/dev/dxg')


@contextlib.contextmanager
def errors_in_one_line():
    """Ends the program with one line and status 2 for a user's mistake, a lack of memory, or output that cannot be
    printed. Of TensorFlow's own lines, only errors are shown, on a machine with a GPU warnings as well."""
    with contextlib.ExitStack() as stack:
        if 'TF_CPP_MIN_LOG_LEVEL' not in os.environ:
            os.environ['TF_CPP_MIN_LOG_LEVEL'] = '1' if has_nvidia_gpu() else '2'
            stack.callback(os.environ.pop, 'TF_CPP_MIN_LOG_LEVEL')
        try:
            yield
            if sys.stdout:  # None, if it was closed before
                sys.stdout.flush()
            return
        except KeyboardInterrupt:
            sys.exit(130)
        except Exception as error:
            message = str(error)
            if getattr(error, 'errno', None) in (errno.ENOSPC, errno.EPIPE) and error.filename is None:  # as of head
                message = 'the output cannot be printed ({})'.format(error.strerror)
                with contextlib.suppress(OSError):
                    sys.stdout.close()  # or Python would try once more to print the rest
            elif isinstance(error, MemoryError) or type(error).__name__ == 'ResourceExhaustedError':  # TensorFlow's
                message = 'not enough memory; use a smaller picture, or a smaller --batch-size'
            elif not isinstance(error, utils.UserError):
                raise
    print_error(message)
    sys.exit(2)


def print_error(message):
    print('{}: error: {}'.format(os.path.basename(sys.argv[0]), printable(message)), file=sys.stderr, flush=True)


def printable(text):
    """The text in one line, for a terminal or a figure: what cannot be shown is escaped."""
    text = text.encode('utf-8', 'backslashreplace').decode()
    return ''.join(each if each.isprintable() else each.encode('unicode_escape').decode() for each in text)


def quoted(path):
    """A path from outside for a command that is shown, as the shell of this system wants it."""
    path = printable(path)
    return subprocess.list2cmdline([path]) if os.name == 'nt' else shlex.quote(path)
