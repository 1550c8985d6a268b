"""Where a run writes, and what it may overwrite there: only what these lessons wrote."""
import collections
import contextlib
import itertools
import os
import re

from PIL import Image

import utils

PNG_MARK = 'lecture 07'  # in the metadata of every figure
Folders = collections.namedtuple('Folders', 'checkpoints graphs figures')


def run_folders(output_dir, name):
    """Returns the three folders of the run `name`, as absolute paths."""
    return Folders(*[os.path.join(os.path.abspath(output_dir), kind, name) for kind in Folders._fields])


@contextlib.contextmanager
def report_write_errors(path):
    """Turns the many errors of a disk that is full, read-only or gone into a UserError."""
    try:
        yield
    except Exception as error:
        if not isinstance(error, OSError) and not type(error).__module__.startswith('tensorflow'):
            raise
        reason = re.search('; ([^;\n]+)', str(error))  # TensorFlow: FILE; REASON, among much else
        raise utils.UserError('{}: cannot be written ({})'.format(
            path, getattr(error, 'strerror', None) or (reason.group(1) if reason else str(error).splitlines()[0])))


def check_figures(folder, names):
    """Returns the paths of figures to be written later. Raises UserError unless they can be."""
    paths = [os.path.join(folder, name + '.png') for name in names]
    with report_write_errors(folder):
        os.makedirs(folder, exist_ok=True)
    for path in paths:
        if os.path.exists(path) and not is_figure(path):
            raise utils.UserError('{}: exists, and is not a figure that these scripts wrote; move it away, '
                                  'or choose another --output-dir'.format(path))
    return paths


def is_figure(path):
    try:
        with Image.open(path) as picture:
            return picture.info.get('Software') == PNG_MARK
    except Exception:  # whatever it is, it is no picture of ours
        return False


def save_figure(figure, path):
    """Writes a matplotlib Figure as PNG, whole or not at all."""
    folder, name = os.path.split(path)
    check_figures(folder, [os.path.splitext(name)[0]])
    unfinished = '{}.{}.tmp'.format(path, os.getpid())
    with report_write_errors(path):
        try:
            figure.savefig(unfinished, format='png', dpi=100, metadata={'Software': PNG_MARK})
            os.replace(unfinished, path)
        finally:
            if os.path.exists(unfinished):
                os.remove(unfinished)


def back_up(folders):
    """Moves what the run NAME wrote to the three folders of a new run NAME.1 (or .2, ...), which it thus becomes."""
    backups = next(backups for backups in (Folders(*['{}.{}'.format(folder, i) for folder in folders])
                                           for i in itertools.count(1)) if not any(map(os.path.exists, backups)))
    for folder, backup, pattern in zip(folders, backups, (r'model\.ckpt-|checkpoint$', r'(train|validation|test)$',
                                                          r'.*\.png$')):
        names = [name for name in os.listdir(folder) if re.match(pattern, name)] if os.path.isdir(folder) else []
        with report_write_errors(backup):
            for name in names:
                os.makedirs(backup, exist_ok=True)
                os.rename(os.path.join(folder, name), os.path.join(backup, name))
        if names:
            print('Moved the earlier files of {} to {}'.format(folder, backup))
