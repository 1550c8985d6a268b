"""Checkpoints on the disk: which there are, and which are intact.

The Saver writes model.ckpt-STEP.index and model.ckpt-STEP.data-...; model.ckpt-STEP.json follows when both are
complete. A checkpoint without its JSON, in which a process died, does not count.
"""
import json
import os
import re
import sys

import filelock
import tensorflow.compat.v1 as tf

import utils
from support import outputs

KEPT = 3  # checkpoints


def steps_in(folder):
    """The steps of the complete checkpoints in a folder, newest first."""
    names = os.listdir(folder) if os.path.isdir(folder) else []
    matches = [re.match(r'model\.ckpt-(\d+)\.json$', name) for name in names]
    return sorted((int(match.group(1)) for match in matches if match), reverse=True)


def newest_intact(folder):
    """Returns the path of the newest intact checkpoint and what its JSON has, or (None, None) if there is none.

    Damaged ones are named on stderr. Raises UserError if all are damaged.
    """
    steps = steps_in(folder)
    for step in steps:
        path = os.path.join(folder, 'model.ckpt-{}'.format(step))
        try:
            with open(path + '.json', encoding='utf-8') as file:
                saved = json.load(file)
            if not saved['settings'] or saved['history'][-1]['step'] != step:
                raise ValueError('it was not saved at the end of an epoch')
            reader = tf.train.NewCheckpointReader(path)
            for name in reader.get_variable_to_shape_map():  # TensorFlow compares each with its checksum
                reader.get_tensor(name)
            return path, saved
        except (tf.errors.OpError, OSError, ValueError, LookupError, TypeError) as error:  # 1.15 and 2.21 differ
            print('warning: {} is passed over ({})'.format(path, str(error).split('\n')[0][:100]), file=sys.stderr)
    if steps:
        raise utils.UserError('{}: no checkpoint can be continued; --restart begins anew'.format(folder))
    return None, None


def remove_older(folder):
    """Removes all but the newest checkpoints, and what a killed process left unfinished."""
    oldest_kept = (steps_in(folder) + [0])[:KEPT][-1]
    for name in os.listdir(folder):
        match = re.match(r'model\.ckpt-(\d+)\.', name)
        unfinished = re.match(r'(model\.ckpt|checkpoint).*\.(tmp|tempstate)', name)
        if unfinished or (match and int(match.group(1)) < oldest_kept):
            with outputs.write_errors(folder):
                os.remove(os.path.join(folder, name))


def lock(folder):
    """Locks a folder within `with`. Raises UserError if another process has it."""
    outputs.make([os.path.dirname(folder)])
    with outputs.write_errors(folder):
        try:  # beside the folder, which --restart moves; the name of no run has a ~ in it
            return filelock.FileLock(folder + '~lock').acquire(timeout=0)
        except filelock.Timeout:
            raise utils.UserError('{}: in use by another process; wait for its end, or choose another --name'.format(
                folder))
        except NotImplementedError:  # as a filelock of 2023 says it; others raise an OSError
            raise utils.UserError('{}: its file system has no locks; choose another --output-dir'.format(folder))
