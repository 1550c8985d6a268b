"""The promises of a training run: it continues exactly where it stopped, with the same settings, and alone."""
import contextlib
import json
import os
import re
import sys

import numpy as np
import tensorflow.compat.v1 as tf

import utils
from support import checkpoints, devices, figures, outputs, pages, results, tables

SETTINGS = ['augment', 'batch_size', 'conv1', 'ema_decay', 'init_stddev', 'keep_prob', 'learning_rate', 'seed',
            'towers']


@contextlib.contextmanager
def open_run(session, flags, data):
    """Yields the Run of this name, which is locked until the block ends.

    session: a tf.Session; data: the Datasets. Raises UserError if something cannot be written, another process is at
    work on the run, or it was trained with other settings.
    """
    folders = outputs.run_folders(flags.output_dir, flags.name)
    outputs.refuse_patterns(folders.checkpoints)
    tables.print_layers()
    with checkpoints.lock(folders.checkpoints), tensorflow_errors(folders.checkpoints):
        if flags.restart:
            outputs.move_aside(folders)
        outputs.make(folders)
        checkpoints.remove_older(folders.checkpoints)
        devices.warn_of_unused_gpu(flags)
        print('Trains on {}\n'.format(', '.join(devices.training_devices(session, flags))))
        run = Run(session, flags, data, folders)
        try:
            yield run
        except KeyboardInterrupt:
            print('\nStopped; the same command goes on with epoch {}'.format(len(run.history) + 1), file=sys.stderr)
            sys.exit(130)


@contextlib.contextmanager
def tensorflow_errors(folder):
    """Turns the errors of TensorFlow that a user can correct into a UserError."""
    try:
        yield
    except tf.errors.OpError as error:
        kind = error.op.type if error.op is not None else ''
        if kind in ('SaveV2', 'MergeV2Checkpoints'):
            reason = re.search('; ([^;\n]+)', str(error))  # FILE; REASON, among much else
            raise utils.UserError('{}: cannot be written ({})'.format(folder, reason.group(1) if reason else kind))
        if kind in ('RestoreV2', 'Assign'):
            raise utils.UserError('{}: the checkpoint is of a different network ({}); choose another --name'.format(
                folder, str(error).strip().split('\n')[0]))
        if kind == 'CheckNumerics':
            raise not_finite('loss')
        if isinstance(error, tf.errors.ResourceExhaustedError):
            raise MemoryError
        raise


def not_finite(what):
    return utils.UserError('--learning-rate: the {} became infinite or NaN; give the same command a smaller one, with '
                           'which it goes on from the last checkpoint'.format(what))


class Run:
    """What belongs to a run beside the values of the variables: its settings, and the history of its epochs."""

    def __init__(self, session, flags, data, folders):
        self.folders, self.prefix = folders, os.path.join(folders.checkpoints, 'model.ckpt')
        self._session, self._flags, self._test = session, flags, data.test
        self._settings = dict({name: getattr(flags, name) for name in SETTINGS}, dataset=utils.fingerprint(data),
                              bf16=flags.bf16 and devices.can_use_bfloat16(), layers=results.layer_kinds())
        self.checkpoint, saved = checkpoints.newest_intact(folders.checkpoints)
        self.history = []  # {'epoch', 'loss', 'validation', 'test', 'step'} of each finished epoch
        if self.checkpoint:
            refuse_other_settings(self.checkpoint, saved['settings'], self._settings)
            self.history = saved['history']
            print('Continuing from {}\n'.format(tables.relative(self.checkpoint)))
        self.epochs_before = len(self.history)  # in earlier processes
        tables.print_history(self.history)

    def save(self, saver, writer, row):
        """Saves a finished epoch, and prints its row of the table: 'epoch', 'loss', 'validation', 'test', 'step'."""
        if not all(np.isfinite(value).all() for value in self._session.run(tf.trainable_variables())):
            raise not_finite('weights')
        for name in 'validation', 'test':
            value = tf.Summary.Value(tag='accuracy/' + name, simple_value=row[name])
            writer.add_summary(tf.Summary(value=[value]), row['step'])
        writer.flush()  # before the checkpoint counts, which it does as soon as its JSON is there
        self.checkpoint = saver.save(self._session, self.prefix, row['step'])
        self.history.append(row)
        state = {'settings': self._settings, 'history': self.history}
        outputs.write_whole(self.checkpoint + '.json', json.dumps(state, indent=1, sort_keys=True).encode())
        checkpoints.remove_older(self.folders.checkpoints)
        tables.print_epoch(row)  # after saving, for whoever reads the output may be gone

    def report(self, writer, images, logits):
        """Draws the figures, writes the page, and says where everything is. images: the placeholder."""
        found = results.compute(self._session, devices.session_config(self._flags), images, logits, self._test)
        writer.add_summary(figures.plot_results(self, found), self.history[-1]['step'])
        tables.print_results(self, self._flags, pages.write_network_page(self, found))


def refuse_other_settings(path, saved, now):
    """Raises UserError, with all differences, unless the settings are equal but for the learning rate."""
    words = {'dataset': 'dataset', 'layers': 'layers', 'bf16': 'bfloat16 in use:'}
    different = ['{} {} (now {})'.format(words.get(name, '--' + name.replace('_', '-')), saved[name], value)
                 for name, value in now.items() if name != 'learning_rate' and saved.get(name, value) != value]
    if different:
        raise utils.UserError('{}: trained with {}; give the same, or another --name, or --restart'.format(
            path, ', '.join(different)))
    if saved.get('learning_rate') != now['learning_rate']:
        print('The learning rate was {learning_rate} up to here.\n'.format(**saved))


@contextlib.contextmanager
def trained_checkpoint(flags):
    """Yields the newest intact checkpoint of the run flags.name and its settings. Raises UserError without one."""
    folder = outputs.run_folders(flags.output_dir, flags.name).checkpoints
    outputs.refuse_patterns(folder)
    path, saved = checkpoints.newest_intact(folder)
    if path is None:
        raise utils.UserError('{}: expected a checkpoint, found none; train first, without --predict'.format(folder))
    with tensorflow_errors(folder):
        yield path, saved['settings']
