"""Where a run writes, and what it may overwrite there: only what these lessons wrote."""
import collections
import contextlib
import fnmatch
import json
import os
import re
import shutil

import utils

OWN_FILES = 'written_by_lecture_07.json'  # in each folder: the names of what is ours there
LOCK = 'written_by_lecture_07.lock'
FILTERS = 'basic_filters'  # the name of lesson 1's folders
FILTERS_OUTPUTS = ['basic_filters.png', 'conv_ops.png', 'padding.png', 'basic_filters.html']
Folders = collections.namedtuple('Folders', 'checkpoints graphs figures')


def run_folders(output_dir, name):
    """Returns the three folders of the run `name`, as absolute paths."""
    return Folders(*[os.path.join(os.path.abspath(output_dir), kind, name) for kind in Folders._fields])


def prepare_filters(flags):
    """Makes the folders of lesson 1 and returns them. The event files of an earlier run of it are removed."""
    folders = run_folders(flags.output_dir, FILTERS)
    claim(folders.figures, FILTERS_OUTPUTS)
    claim(folders.graphs, ['events.out.tfevents.*.' + FILTERS])
    with report_write_errors(folders.graphs):
        for name in os.listdir(folders.graphs):
            if name.startswith('events.out.tfevents.') and name.endswith('.' + FILTERS):
                os.remove(os.path.join(folders.graphs, name))
    return folders


def printable(text):
    """The text in one line, for a terminal or a figure: what cannot be shown is escaped."""
    text = text.encode('utf-8', 'backslashreplace').decode()
    return ''.join(each if each.isprintable() else each.encode('unicode_escape').decode() for each in text)


def first_line(error):
    """What an exception says, in one line; its kind if it says nothing."""
    return (str(error).strip().splitlines() or [type(error).__name__])[0]


@contextlib.contextmanager
def report_write_errors(path):
    """Turns the many errors of a disk that is full, read-only or gone into a UserError."""
    try:
        yield
    except Exception as error:
        if not isinstance(error, OSError) and not type(error).__module__.startswith('tensorflow'):
            raise
        reason = re.search('; ([^;\n]+)', str(error))  # TensorFlow: FILE; REASON, among much else
        raise utils.UserError('{}: cannot be written ({})'.format(path, getattr(error, 'strerror', None) or (
            reason.group(1) if reason else first_line(error))))


def claim(folder, names):
    """Makes the folder, and records that its files of these names are this program's.

    Raises UserError if one of them exists and was written by somebody else, or the folder cannot be written.
    """
    with report_write_errors(folder):
        os.makedirs(folder, exist_ok=True)
        own = own_files(folder)
        for name in sorted(os.listdir(folder)):
            if is_among(name, names) and not is_among(name, own):
                raise utils.UserError('{}: exists, and was not written by this program; move it away, or choose '
                                      'another folder by --output-dir or --name'.format(os.path.join(folder, name)))
        write_whole(os.path.join(folder, OWN_FILES), json.dumps(sorted(own.union(names))).encode())


def is_among(name, names):
    """Whether a file is among the names, in which * stands for anything; `checkpoint` also means the checkpoints."""
    return any(fnmatch.fnmatchcase(name, each) for each in names) or (
        'checkpoint' in names and name.startswith('model.ckpt-'))


def own_files(folder):
    """The names of the files in a folder that were claimed."""
    names = read_json(os.path.join(folder, OWN_FILES))
    return {name for name in names if isinstance(name, str)} if isinstance(names, list) else set()


def read_json(path):
    """What a JSON file has, or None if it is missing or damaged. Raises UserError if it cannot be read."""
    try:
        with open(path, encoding='utf-8') as file:
            return json.load(file)
    except (FileNotFoundError, NotADirectoryError, ValueError):
        return None
    except OSError as error:
        raise utils.UserError('{}: cannot be read ({})'.format(path, error.strerror))


def write_whole(path, content):
    """Writes bytes to a file, all of them or none."""
    unfinished = path + '.written_by_lecture_07'  # a name that nobody else gives
    with report_write_errors(path):
        try:
            with open(unfinished, 'wb') as file:
                file.write(content)
            os.replace(unfinished, path)
        finally:
            if os.path.exists(unfinished):
                os.remove(unfinished)


def back_up(folders):
    """Moves what the run NAME wrote to the three folders of a new run NAME.1 (or .2, ...), which it thus becomes."""
    number = 1
    while any(os.path.lexists('{}.{}'.format(folder, number)) for folder in folders):
        number += 1
    for folder in folders:
        own, backup = own_files(folder), '{}.{}'.format(folder, number)
        if not own:
            continue
        names = [name for name in os.listdir(folder) if is_among(name, own)]
        with report_write_errors(backup):
            os.makedirs(backup)
            for name in names + [OWN_FILES]:  # the list at last, so that another --restart can go on from here
                shutil.move(os.path.join(folder, name), os.path.join(backup, name))  # to another disk, too
        print('Moved the earlier files of {} to {}'.format(folder, backup))
