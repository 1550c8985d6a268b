"""The promises of a training run: it continues exactly where it stopped, with the same settings, and alone."""
import contextlib
import errno
import hashlib
import itertools
import json
import os
import sys

import tensorflow.compat.v1 as tf

import utils
from support import checkpoints, devices, figures, outputs, own_data, pages, results, tables

SETTINGS = ['augment', 'batch_size', 'conv1', 'ema_decay', 'init_stddev', 'keep_prob', 'learning_rate', 'seed',
            'towers']
DISK_ERRORS = [errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS, errno.EACCES, errno.EIO]


@contextlib.contextmanager
def open_run(session, flags, data):
    """Yields the Run of this name, which is locked until the block ends.

    session: a tf.Session; data: the Datasets. Raises UserError if something cannot be written, another process is at
    work on the run, or it was trained with other settings.
    """
    folders = outputs.run_folders(flags.output_dir, flags.name)
    tables.print_layers()
    with checkpoints.lock(folders.checkpoints), tensorflow_errors(flags.output_dir):
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
            print('\nStopped; the same command{} goes on after epoch {}'.format(
                ' without --restart' if flags.restart else '', len(run.history)), file=sys.stderr)
            sys.exit(130)


@contextlib.contextmanager
def tensorflow_errors(folder):
    """Turns the errors of TensorFlow that a user can correct into a UserError."""
    try:
        yield
    except (tf.errors.OpError, RuntimeError) as error:  # RuntimeError: of a FileWriter
        if getattr(getattr(error, 'op', None), 'type', None) in ('CheckNumerics', 'HistogramSummary'):
            raise utils.UserError('--learning-rate: the loss or a weight became infinite or NaN; give a smaller one, '
                                  'with which the run goes on from the last checkpoint, without --restart')
        for reason in map(os.strerror, DISK_ERRORS):
            if reason in str(error):
                raise utils.UserError('{}: cannot be written ({})'.format(folder, reason))
        raise


class Run:
    """What belongs to a run beside the values of the variables: its settings, and the history of its epochs."""

    def __init__(self, session, flags, data, folders):
        self.folders, self.data, self._session, self._flags = folders, data, session, flags
        self._settings = dict({name: getattr(flags, name) for name in SETTINGS}, dataset=fingerprint(data),
                              bf16=flags.bf16 and devices.can_use_bfloat16())
        self.checkpoint, saved = checkpoints.newest_intact(folders.checkpoints)
        self.history = []  # {'epoch', 'loss', 'validation', 'test', 'step'} of each finished epoch
        if self.checkpoint:
            refuse_differences(self.checkpoint, saved['settings'], self._settings)
            refuse_other_network(self.checkpoint, saved)
            self.history = saved['history']
            print('Continuing from {}\n'.format(tables.relative(self.checkpoint)))
            if saved['settings']['learning_rate'] != flags.learning_rate:
                print('The learning rate was {learning_rate} up to here.\n'.format(**saved['settings']))
        self.epochs_before = len(self.history)  # in earlier processes
        tables.print_history(self.history, data.lecture_accuracy)

    def save(self, saver, writer, row):
        """Saves a finished epoch, and prints its row of the table: 'epoch', 'loss', 'validation', 'test', 'step'."""
        for name in 'validation', 'test':
            value = tf.Summary.Value(tag='accuracy/' + name, simple_value=row[name])
            writer.add_summary(tf.Summary(value=[value]), row['step'])
        prefix = os.path.join(self.folders.checkpoints, 'model.ckpt')
        self.checkpoint = saver.save(self._session, prefix, row['step'])
        writer.flush()  # before the checkpoint counts, which it does as soon as its JSON is there
        state = {'settings': self._settings, 'network': network(), 'history': self.history + [row],
                 'classes': self.data.classes, 'are_digits': self.data.are_digits,
                 'background': own_data.background(self.data.train.images)}
        outputs.write_whole(self.checkpoint + '.json', json.dumps(state, indent=1, sort_keys=True).encode())
        self.history.append(row)
        checkpoints.remove_older(self.folders.checkpoints)
        tables.print_epoch(row, self.data.lecture_accuracy)  # after saving, for whoever reads the output may be gone

    def report(self, writer, images, logits):
        """Draws the figures, writes the page, and says where everything is. images: the placeholder."""
        trained = results.compute(self._session, devices.session_config(self._flags), images, logits,
                                  self.data.test)
        writer.add_summary(figures.plot_results(self, trained), self.history[-1]['step'])
        tables.print_results(self, self._flags, pages.write_network_page(self, trained))


# ---- Settings ----

def network():
    """The type of each layer and the shape of each variable of the network in the default graph, by name."""
    shapes = {name: variable.shape.as_list() for name, variable in results.weights().items()}
    return dict({'layer ' + name: kind for name, kind in results.kinds().items()}, **shapes)


def fingerprint(datasets):
    """Twelve characters that depend on every pixel and every label."""
    sha256 = hashlib.sha256()
    for array in itertools.chain(datasets.train, datasets.validation, datasets.test):
        sha256.update(array)
    return sha256.hexdigest()[:12]


def refuse_differences(path, saved, now):
    """Raises UserError, with all differences, unless the two dictionaries are equal but for the learning rate."""
    different = ['{} {} (now {})'.format('--' + name.replace('_', '-') if name in SETTINGS else name,
                                         saved.get(name, 'missing'), now.get(name, 'missing'))
                 for name in sorted(set(saved).union(now) - {'learning_rate'}) if saved.get(name) != now.get(name)]
    if different:
        raise utils.UserError('{}: made with {}; change that back, or give another --name, or --restart'.format(
            path, ', '.join(different)))


def refuse_other_network(path, saved):
    """Raises UserError if what the JSON of a checkpoint has is of another network than that in the default graph."""
    refuse_differences(path, saved.get('network', network()), network())  # an earlier version did not save it


def trained_checkpoint(flags):
    """Returns the newest intact checkpoint of the run flags.name and what its JSON has, or raises UserError."""
    folder = outputs.run_folders(flags.output_dir, flags.name).checkpoints
    path, saved = checkpoints.newest_intact(folder)
    if path is None:
        raise utils.UserError('{}: expected a checkpoint, found none; train first, without --predict'.format(folder))
    return path, dict({'classes': utils.DIGITS, 'are_digits': True}, **saved)  # an earlier version did not save them
