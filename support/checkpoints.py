"""Checkpoints on the disk: which there are, which are intact, and whether they fit. To be imported after TensorFlow."""
import contextlib
import glob
import os
import re
import sys

import filelock
import numpy as np
import tensorflow.compat.v1 as tf

import utils
from support import outputs, tables

SAVED_STATE = 'checkpoint/saved_state'  # the name of a variable that marks a checkpoint as ours
AVERAGE = '/ExponentialMovingAverage'  # the end of an average's name


def names_in(folder):
    """The names of the checkpoints in a folder, newest first: model.ckpt-STEP.

    These are all that have an index or that the Saver's own list names; data without either
    are what a run was writing when it was killed.
    """
    if not os.path.isdir(folder):
        return []
    names = [name for name in os.listdir(folder) if name.endswith('.index')]
    if os.path.isfile(os.path.join(folder, 'checkpoint')):
        with open(os.path.join(folder, 'checkpoint'), errors='replace') as file:
            names += [name for name in re.findall(r'model\.ckpt-\d+', file.read())
                      if os.path.exists(os.path.join(folder, name + '.data-00000-of-00001'))]
    steps = {int(match.group(1)) for match in (re.match(r'model\.ckpt-(\d+)', name) for name in names) if match}
    return ['model.ckpt-{}'.format(step) for step in sorted(steps, reverse=True)]


def restore_newest(folder, restore):
    """Calls restore(name, reader) with the checkpoints, the newest first, until one is intact.

    Returns its name and those of the older ones that can be opened, or [] if there is no checkpoint. Damaged ones are
    named on stderr. Raises UserError if all are damaged, one was written by another program, or cannot be read.
    """
    intact = []
    names = names_in(folder)
    if not names:
        return []
    with working_directory(folder):
        for name in names:
            path = os.path.join(folder, name)
            try:
                reader = open_checkpoint(name)
                if not reader.has_tensor(SAVED_STATE):
                    raise utils.UserError('{}: was not written by this version of the program; move it away, or choose '
                                          'another --name'.format(path))
                if not intact:
                    restore(name, reader)
                intact.append(name)
            except tf.errors.ResourceExhaustedError:
                raise MemoryError
            except PermissionError as error:
                raise utils.UserError('{}: cannot be read ({})'.format(path, error.strerror))
            except (tf.errors.OpError, IndexError, OSError) as error:  # 1.15 and 2.21 report damage in many ways
                print('warning: {} is damaged and passed over ({})'.format(path, outputs.first_line(error)[:100]),
                      file=sys.stderr)
    if not intact:
        raise utils.UserError('{}: none of its checkpoints is intact; --restart moves them to a backup and begins anew'
                              .format(folder))
    return intact


def open_checkpoint(name):
    """Returns a reader of a checkpoint in the working directory."""
    for file in glob.glob(name + '.index') + glob.glob(name + '.data-*'):
        open(file, 'rb').close()  # Python says clearly if it may not be read
    return tf.train.NewCheckpointReader(name)


@contextlib.contextmanager
def working_directory(folder):
    """TensorFlow takes the paths of checkpoints for patterns, in which [ or * has a meaning; names in the working
    directory have none."""
    before = os.getcwd()
    os.chdir(folder)
    try:
        yield
    finally:
        os.chdir(before)


def refuse_other_network(prefix, saved, variables):
    """Raises UserError, with the first difference, unless the saved {name: shape} are those of the variables."""
    shapes = {variable.op.name: variable.shape.as_list() for variable in variables}
    for name in list(shapes) + sorted(set(saved) - set(shapes)):
        if saved.get(name) != shapes.get(name):
            there, here = [tables.shape_text(shape[name]) or 'a scalar' if name in shape else 'missing'
                           for shape in (saved, shapes)]
            raise utils.UserError('{}: made by a different network: {} is {} in the checkpoint and {} in this '
                                  'script; choose another --name for the new network, or --restart to begin anew'
                                  .format(prefix, name, there, here))


def restore_weights(session, flags):
    """Restores the trained weights of the run flags.name: their moving averages, where it has them.

    Raises UserError if there is no checkpoint, or it is that of another network.
    """
    folder = outputs.run_folders(flags.output_dir, flags.name).checkpoints

    def restore(name, reader):
        saved = reader.get_variable_to_shape_map()
        weights = {variable.op.name: variable for variable in tf.global_variables()}
        refuse_other_network(os.path.join(folder, name), {
            each: shape for each, shape in saved.items() if each in weights or re.match('[^/]+/(weights|biases)$', each)
        }, weights.values())
        tf.train.Saver({each + AVERAGE if each + AVERAGE in saved else each: variable
                        for each, variable in weights.items()}).restore(session, name)
        if not all(np.isfinite(value).all() for value in session.run(list(weights.values()))):
            raise utils.UserError('{}: its weights are infinite or NaN; train anew with a smaller --learning-rate'
                                  .format(os.path.join(folder, name)))

    if not restore_newest(folder, restore):
        raise utils.UserError('{}: expected a checkpoint, found none; train first, without --predict'.format(folder))


def remove_unfinished(folder):
    """Removes what a killed run was writing when it died."""
    for name in os.listdir(folder):
        if re.match(r'(model\.ckpt-\d+\..*\.tempstate\d+|checkpoint\.tmp[0-9a-f]+)$', name):
            os.remove(os.path.join(folder, name))


def acquire_lock(folder):
    """Returns the lock of a checkpoint folder, acquired. Raises UserError if another process has it."""
    lock = filelock.FileLock(os.path.join(folder, outputs.LOCK))
    with outputs.report_write_errors(folder):
        os.makedirs(folder, exist_ok=True)
        try:
            lock.acquire(timeout=0)
        except filelock.Timeout:
            raise utils.UserError('{}: in use by another process; wait for its end, or choose another --name'.format(
                folder))
    return lock
