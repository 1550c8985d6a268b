"""What is not the lecture: flags, errors, checkpoints, logs, figures."""
import os
import sys


def _end_in_silence(kind, error, traceback):
    """Ctrl-C before the program can handle it, while libraries load, is no error that needs a traceback."""
    if issubclass(kind, KeyboardInterrupt):
        os._exit(130)
    sys.__excepthook__(kind, error, traceback)


if not hasattr(sys, 'ps1') and not sys.flags.interactive:  # an interpreter must live on
    sys.excepthook = _end_in_silence
