"""What a lesson does when it runs as a script: a quiet start, and errors in one line."""
import contextlib
import os
import sys

import utils


def start(module_name):
    """To be called with __name__ before TensorFlow is imported; does nothing in a lesson that is imported.

    A user who sets TF_CPP_MIN_LOG_LEVEL sees more of what TensorFlow says. On a machine with an NVIDIA GPU, its warnings
    are shown, and it is asked to give the same numbers in each run.
    """
    if module_name != '__main__':
        return
    for stream in sys.stdout, sys.stderr:
        if hasattr(stream, 'reconfigure'):
            stream.reconfigure(errors='backslashreplace')  # for names that the terminal cannot show
    os.environ.pop('MPLBACKEND', None)  # Matplotlib chooses by itself; a notebook's backend would not even load here
    os.environ.setdefault('TF_CPP_MIN_LOG_LEVEL', '1' if has_nvidia_gpu() else '2')
    if has_nvidia_gpu():
        os.environ.setdefault('TF_DETERMINISTIC_OPS', '1')
        os.environ.setdefault('TF_CUDNN_DETERMINISTIC', '1')
    with errors_in_one_line():  # Ctrl-C
        import tensorflow.compat.v1 as tf
        tf.logging.set_verbosity(tf.logging.ERROR)  # in a lesson on TensorFlow 1.x, deprecation warnings are no news


def has_nvidia_gpu():
    """Whether this machine has an NVIDIA GPU with a driver; TensorFlow is not asked. dxg: within Windows (WSL2)."""
    return os.path.exists('/dev/nvidia0') or os.path.exists('/dev/dxg')


@contextlib.contextmanager
def errors_in_one_line():
    """Ends the program with one line on stderr for a mistake that the user can correct, and for what printing meets."""
    try:
        yield
        sys.stdout.flush()
    except KeyboardInterrupt:
        sys.exit(130)
    except (utils.UserError, OSError, MemoryError) as error:  # OSError: of a pipe, a terminal or a disk that is gone
        with contextlib.suppress(OSError):
            print_error(str(error) or 'not enough memory; use a smaller picture, or a smaller --batch-size')
        if isinstance(error, OSError):
            with contextlib.suppress(OSError):
                sys.stdout.close()  # or Python would try once more to print the rest
        sys.exit(2)


def print_error(message):
    print('{}: error: {}'.format(os.path.basename(sys.argv[0]), printable(message)), file=sys.stderr, flush=True)


def printable(text):
    """The text in one line, for a terminal or a figure: what cannot be shown is escaped."""
    text = text.encode('utf-8', 'backslashreplace').decode()
    return ''.join(each if each.isprintable() else each.encode('unicode_escape').decode() for each in text)
