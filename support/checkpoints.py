"""Checkpoints on the disk: which there are, which are intact, and whether they fit.

The Saver writes model.ckpt-STEP.index and model.ckpt-STEP.data-...; model.ckpt-STEP.json follows when both are
complete. A checkpoint without its JSON, in which a process died, does not count.
"""
import contextlib
import glob
import os
import re
import sys

import filelock
import tensorflow.compat.v1 as tf

import utils
from support import outputs, tables

KEPT = 3  # checkpoints
OLDER_VERSION = 'checkpoint/saved_state'  # a tensor in checkpoints of an earlier version, which had no JSON


def path_of(folder, step):
    return os.path.join(folder, 'model.ckpt-{}'.format(step))


def steps_in(folder):
    """The steps of the complete checkpoints in a folder, newest first."""
    names = os.listdir(folder) if os.path.isdir(folder) else []
    matches = [re.match(r'model\.ckpt-(\d+)\.json$', name) for name in names]
    return sorted((int(match.group(1)) for match in matches if match), reverse=True)


def newest_intact(folder, check):
    """Returns the path of the newest intact checkpoint and what its JSON says, or (None, None) if there is none.

    Damaged ones are named on stderr. check(path, saved, shapes) may refuse one, by its JSON and its {name: shape}.
    Raises UserError if all are damaged, or one cannot be read.
    """
    steps = steps_in(folder)
    for step in steps:
        path = path_of(folder, step)
        with readable(path) as name:
            try:
                saved = read_state(path + '.json')
                reader = open_checkpoint(name)
                check(path, saved, reader.get_variable_to_shape_map())
                for each in reader.get_variable_to_shape_map():  # TensorFlow compares each with its checksum
                    reader.get_tensor(each)
                return path, saved
            except tf.errors.ResourceExhaustedError:
                raise MemoryError
            except (tf.errors.OpError, IndexError, FileNotFoundError, ValueError) as error:  # 1.15 and 2.21 differ
                print('warning: {} is damaged and passed over ({})'.format(path, outputs.first_line(error)[:100]),
                      file=sys.stderr)
            except OSError as error:
                raise utils.UserError('{}: cannot be read ({})'.format(error.filename, error.strerror))
    if steps:
        raise utils.UserError('{}: none of its checkpoints is intact; --restart moves them to a backup and begins anew'
                              .format(folder))
    refuse_older_version(folder)
    return None, None


def read_state(path):
    """Returns what the JSON file of a checkpoint has. Raises ValueError if it is damaged, or something else."""
    saved = outputs.read_json(path)
    for name, kind in ('settings', dict), ('history', list), ('loss_sum', float):
        if not isinstance(saved, dict) or not isinstance(saved.get(name), kind):
            raise ValueError('{} has no {}'.format(os.path.basename(path), name))
    return saved


def open_checkpoint(name):
    """Returns a reader of a checkpoint. Raises OSError, which says more than TensorFlow, if it cannot be read."""
    for file in [name + '.index'] + glob.glob(glob.escape(name) + '.data-*'):
        open(file, 'rb').close()
    return tf.train.NewCheckpointReader(name)


def refuse_older_version(folder):
    for index in glob.glob(os.path.join(glob.escape(folder), 'model.ckpt-*.index')):
        with contextlib.suppress(tf.errors.OpError, IndexError), readable(index[:-len('.index')]) as name:
            if tf.train.NewCheckpointReader(name).has_tensor(OLDER_VERSION):
                raise utils.UserError('{}: was written by an earlier version of this program; choose another --name, '
                                      'or --restart to begin anew'.format(index[:-len('.index')]))


@contextlib.contextmanager
def readable(path):
    """Yields a name for a path that TensorFlow can read: it takes a path for a pattern, in which [ or * has a meaning.

    If the folder has such a character, it becomes the working directory, and the name is the file's alone.
    """
    folder, name = os.path.split(path)
    if glob.escape(folder) == folder:
        yield path
        return
    before = os.getcwd()
    os.chdir(folder)
    try:
        yield name
    finally:
        os.chdir(before)


def refuse_other_network(path, saved, graph_variables):
    """Raises UserError, with the first difference, unless the saved {name: shape} has all variables of the graph, and
    the graph all weights and biases that were saved."""
    shapes = {variable.op.name: variable.shape.as_list() for variable in graph_variables}
    layers = sorted(name for name in saved if re.match('[^/]+/(weights|biases)$', name))
    for name in list(shapes) + layers:
        if name not in saved or name not in shapes or saved[name] != shapes[name]:
            there, here = [tables.shape_text(shape[name]) or 'a scalar' if name in shape else 'missing'
                           for shape in (saved, shapes)]
            raise utils.UserError('{}: made by a different network: {} is {} in the checkpoint and {} in this '
                                  'script; choose another --name for the new network, or --restart to begin anew'
                                  .format(path, name, there, here))


def remove_older(folder):
    """Removes all but the newest checkpoints, and what a killed process left unfinished."""
    oldest_kept = (steps_in(folder) + [0])[:KEPT][-1]
    for name in os.listdir(folder):
        match = re.match(r'model\.ckpt-(\d+)\.', name)
        unfinished = re.match(r'(model\.ckpt-\d+\..*\.tempstate\d+|checkpoint\.tmp[0-9a-f]+)', name)
        if unfinished or (match and int(match.group(1)) < oldest_kept):
            with outputs.report_write_errors(os.path.join(folder, name)):
                os.remove(os.path.join(folder, name))


@contextlib.contextmanager
def lock(folder):
    """Holds the lock of a checkpoint folder, which it makes. Raises UserError if another process has it."""
    with outputs.report_write_errors(folder):
        os.makedirs(folder, exist_ok=True)
    file_lock = filelock.FileLock(os.path.join(folder, outputs.LOCK))
    with outputs.report_write_errors(folder):
        try:
            file_lock.acquire(timeout=0)
        except filelock.Timeout:
            raise utils.UserError('{}: in use by another process; wait for its end, or choose another --name'.format(
                folder))
    try:
        yield
    finally:
        file_lock.release()
