"""Where a run writes, and how: each file as a whole or not at all, and one line if it cannot be written."""
import collections
import contextlib
import glob
import os
import shutil

import utils
from support import cli

Folders = collections.namedtuple('Folders', 'checkpoints graphs figures')


def run_folders(output_dir, name):
    """Returns the three folders of the run `name`, relative to the working directory if that is possible.

    TensorFlow takes the path of a checkpoint for a pattern. Of a relative one, it does not see the folders above.
    Raises UserError for patterns that remain, and for a name that TensorFlow cannot encode.
    """
    with contextlib.suppress(ValueError):  # on Windows, to another drive
        output_dir = os.path.relpath(output_dir)
    pattern = glob.escape(output_dir) != output_dir or (os.sep == '/' and '\\' in output_dir)
    if pattern and name != cli.FILTERS:
        raise utils.UserError('{}: TensorFlow cannot read checkpoints in a folder with [, *, ? or \\ in its name; give '
                              'another --output-dir, or start from within that folder'.format(output_dir))
    try:
        output_dir.encode()
    except UnicodeEncodeError:
        raise utils.UserError('{}: TensorFlow needs names in UTF-8; set PYTHONUTF8=1'.format(output_dir))
    return Folders(*[os.path.join(output_dir, kind, name) for kind in Folders._fields])


def make(folders):
    for folder in folders:
        with write_errors(folder):
            os.makedirs(folder, exist_ok=True)


def prepare_filters(flags):
    """Makes the folders of lesson 1 and returns them. The graph of an earlier run of it is removed."""
    folders = run_folders(flags.output_dir, cli.FILTERS)
    shutil.rmtree(folders.graphs, ignore_errors=True)
    make(folders[1:])
    return folders


def move_aside(folders):
    """Moves the folders of a run NAME to NAME.1 (or .2, ...), which is a run of its own from then on."""
    number = 1
    while any(os.path.lexists('{}.{}'.format(folder, number)) for folder in folders):
        number += 1
    for folder in filter(os.path.lexists, folders):
        with write_errors(folder):
            os.rename(folder, '{}.{}'.format(folder, number))
        print('Moved {0} to {0}.{1}'.format(folder, number))


@contextlib.contextmanager
def write_errors(path):
    """Turns an OSError, of a disk that is full, read-only or gone, into a UserError."""
    try:
        yield
    except OSError as error:
        raise utils.UserError('{}: cannot be written ({})'.format(path, error.strerror or error))


def write_whole(path, content):
    """Writes bytes to a file, all of them or none."""
    unfinished = path + '.tmp'
    with write_errors(path):
        try:
            with open(unfinished, 'wb') as file:
                file.write(content)
            os.replace(unfinished, path)
        finally:
            with contextlib.suppress(FileNotFoundError):
                os.remove(unfinished)
