"""The promises of a training run: it continues exactly where it stopped, with the same settings, and alone."""
import collections
import contextlib
import json
import math
import os
import signal
import sys
import time

import numpy as np
import tensorflow.compat.v1 as tf
from tqdm import tqdm

import utils
from support import checkpoints, devices, event_logs, figures, outputs, pages, tables

SETTINGS = ['augment', 'batch_size', 'conv1', 'ema_decay', 'init_stddev', 'keep_prob', 'learning_rate', 'seed',
            'towers']
SECONDS_BETWEEN_SAVES = 20


@contextlib.contextmanager
def open_run(session, flags, data):
    """Yields the Run of this name; until the block ends, its checkpoints are locked, and signals stop it after a save.

    session: a tf.Session; data: the Datasets. Raises UserError if something cannot be written, another process is at
    work on the run, or a file of the user's is in the way.
    """
    folders = outputs.run_folders(flags.output_dir, flags.name)
    tables.print_layers()
    with checkpoints.lock(folders.checkpoints):
        if flags.restart:
            outputs.back_up(folders)
        outputs.claim(folders.checkpoints, ['checkpoint'])
        outputs.claim(folders.figures, figures.TRAINING_FIGURES + [pages.NETWORK_PAGE])  # before the training
        outputs.claim(folders.graphs, event_logs.PROJECTOR_FILES + ['events.out.tfevents.*'])
        checkpoints.remove_older(folders.checkpoints)
        event_logs.order_logs(folders.graphs)
        devices.warn_of_unused_gpu(flags)
        print('Trains on {}\n'.format(', '.join(devices.training_devices(session, flags))))
        with checkpoints.readable(os.path.join(folders.checkpoints, 'model.ckpt')) as prefix:
            run = Run(session, flags, data, folders, prefix)
            with stop_on_signals(run), event_logs.write_errors(), save_errors(folders.checkpoints):
                yield run
        event_logs.check_written(folders.graphs, 'summary')
        if run.signal:  # it came after the last step
            print('Stopped. All epochs are done and saved as {}.'.format(tables.relative(run.latest)), flush=True)
            sys.exit(128 + run.signal)


@contextlib.contextmanager
def stop_on_signals(run):
    """SIGINT and SIGTERM set run.signal; a second one ends the process at once."""
    def stop(signum, frame):
        run.signal = signum
        signal.signal(signum, signal.SIG_DFL)

    handlers = {signum: signal.signal(signum, stop) for signum in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for signum, handler in handlers.items():
            signal.signal(signum, handler)


@contextlib.contextmanager
def save_errors(folder):
    """Turns the errors of a Saver that cannot write, on a full disk for example, into a UserError."""
    try:
        yield
    except tf.errors.OpError as error:
        if error.op is not None and error.op.type not in ('SaveV2', 'MergeV2Checkpoints'):
            raise
        with outputs.report_write_errors(folder):
            raise


class Progress:
    """Where a run is within an epoch."""

    def __init__(self, session, folders, epoch_size, batch_size):
        self.steps_per_epoch = math.ceil(epoch_size / batch_size)  # the last batch may be smaller
        self.signal = None  # that asked the run to stop
        self.folders = folders
        self._session, self._epoch_size = session, epoch_size
        self._loss_sum, self._images_seen = 0.0, 0  # in this epoch
        self._saved_at, self._identities = time.monotonic(), [identity(folder) for folder in folders]

    def progress(self, epoch, batches):
        """Yields the batches, and shows how many images of the epoch have been seen."""
        with tqdm(total=self._epoch_size, initial=self._images_seen, desc='epoch {}'.format(epoch), unit=' images',
                  leave=False, disable=None) as self._bar:
            for batch in batches:
                yield batch
            self._check()

    def add_loss(self, loss_value, batch_size, step):
        """Adds a batch's mean loss to the epoch's. Raises UserError if it is not finite."""
        if not math.isfinite(loss_value):
            raise utils.UserError('--learning-rate: the loss became infinite or NaN in step {}; give the same command '
                                  'a smaller one, with which it goes on from the last checkpoint'.format(step))
        self._loss_sum += float(loss_value) * batch_size
        self._images_seen += batch_size
        self._bar.set_postfix(loss='{:.4f}'.format(loss_value), refresh=False)
        self._bar.update(batch_size)

    def must_save(self):
        """Whether a checkpoint is due, within an epoch; at its end there is one in any case."""
        due = self.signal or time.monotonic() - self._saved_at > SECONDS_BETWEEN_SAVES
        if not due or self._images_seen == self._epoch_size:
            return False
        self._check()
        return True

    def _check(self):
        """Raises UserError if the weights must not be saved, or cannot."""
        if not all(np.isfinite(value).all() for value in self._session.run(tf.trainable_variables())):
            raise utils.UserError('--learning-rate: the weights became infinite or NaN; give the same command a '
                                  'smaller one, with which it goes on from the last checkpoint')
        for folder, before in zip(self.folders, self._identities):
            if identity(folder) != before:  # the Saver would make a new one, without the lock
                raise utils.UserError('{}: has vanished while the run was writing to it; bring it back, and the '
                                      'same command continues from the last checkpoint'.format(folder))


class Run(Progress):
    """What belongs to a run beside the values of the variables: its settings, and the history of its epochs."""

    def __init__(self, session, flags, data, folders, prefix):
        super().__init__(session, folders, len(data.train.labels), flags.batch_size)
        self.name, self.prefix = flags.name, prefix  # prefix: of the checkpoints' names
        self._settings = dict({name: getattr(flags, name) for name in SETTINGS}, dataset=utils.fingerprint(data),
                              bf16=flags.bf16 and devices.can_use_bfloat16())
        self.latest, saved = find_checkpoint(folders.checkpoints, self._settings)
        self.history = saved['history']  # {'epoch', 'loss', 'validation', 'test', 'step'} of each finished epoch
        self.epochs_before = len(self.history)  # in earlier processes
        self._loss_sum = saved['loss_sum']

    def newest_checkpoint(self, writer):
        """Returns the newest intact checkpoint for saver.restore, or None. Prints the history up to it."""
        self.initial_weights = values_of_weights(self._session)
        step = int(self.latest.split('-')[-1]) if self.latest else 0
        self._images_seen = step % self.steps_per_epoch * self._settings['batch_size']
        event_logs.mark(writer, tf.SessionLog.START, step + 1)
        tables.print_history(self.history)
        return '{}-{}'.format(self.prefix, step) if self.latest else None

    def saved(self, step, writer):
        """To be called after saver.save: writes what else is needed to continue. Ends the program if a signal asked."""
        self._write_json(step, writer)
        self._end_if_asked()

    def end_epoch(self, epoch, accuracies, step, writer):
        """The same at the end of an epoch; also prints its row. accuracies: of validation and test images."""
        self.history.append(dict({name: float(value) for name, value in accuracies.items()}, epoch=epoch,
                                 loss=self._loss_sum / self._epoch_size, step=int(step)))
        self._loss_sum, self._images_seen = 0.0, 0
        self._write_json(step, writer)
        tables.print_epoch(self.history[-1])  # after saving, for whoever reads the output may be gone
        self._end_if_asked()

    def _write_json(self, step, writer):
        event_logs.mark(writer, tf.SessionLog.CHECKPOINT, step)
        event_logs.check_written(self.folders.graphs, 'session_log', step)
        self.latest = checkpoints.path_of(self.folders.checkpoints, step)
        state = {'settings': self._settings, 'history': self.history, 'loss_sum': self._loss_sum}
        outputs.write_whole(self.latest + '.json', json.dumps(state, indent=1, sort_keys=True).encode())
        checkpoints.remove_older(self.folders.checkpoints)
        self._saved_at = time.monotonic()

    def _end_if_asked(self):
        if self.signal:
            print('Stopped and saved as {}; the same command continues from there.'.format(
                tables.relative(self.latest)), flush=True)
            sys.exit(128 + self.signal)


def find_checkpoint(folder, settings):
    """Returns the path of the newest intact checkpoint, or None, and what its JSON says.

    Raises UserError if it was trained with other settings, or is that of another network.
    """
    def check(path, saved, shapes):
        refuse_other_settings(path, saved['settings'], settings)
        checkpoints.refuse_other_network(path, shapes, tf.global_variables())

    path, saved = checkpoints.newest_intact(folder, check)
    if path is None:
        return None, {'history': [], 'loss_sum': 0.0}
    print('Continuing from {}\n'.format(tables.relative(path)))
    if saved['settings']['learning_rate'] != settings['learning_rate']:
        print('The learning rate was {} up to here, and is {} from now on.\n'.format(
            saved['settings']['learning_rate'], settings['learning_rate']))
    return path, saved


def refuse_other_settings(path, saved, now):
    """Raises UserError, with all differences, unless the settings are equal but for the learning rate."""
    different = ['{} {} (now {})'.format('dataset' if name == 'dataset' else '--' + name.replace('_', '-'),
                                         setting_text(saved.get(name)), setting_text(now.get(name)))
                 for name in sorted((set(now) | set(saved)) - {'learning_rate'}) if saved.get(name) != now.get(name)]
    if different:
        raise utils.UserError('{}: trained with {}; give the same, or another --name, or --restart'.format(
            path, ', '.join(different)))


def setting_text(value):
    if value is None:
        return 'unknown'
    if isinstance(value, bool):
        return 'on' if value else 'off'
    return value


def identity(folder):
    """What distinguishes a folder from another one of the same name; None if it is not there."""
    try:
        status = os.stat(folder)
        return status.st_dev, status.st_ino
    except OSError:
        return None


def values_of_weights(session):
    """Returns {name: value} of all weights and biases."""
    return session.run({variable.op.name: variable for variable in tf.trainable_variables()})


@contextlib.contextmanager
def trained_checkpoint(flags):
    """Yields the newest intact checkpoint of the run flags.name, for a Saver that restores the averages.

    Raises UserError if there is none, or it is that of another network.
    """
    folder = outputs.run_folders(flags.output_dir, flags.name).checkpoints

    def check(path, saved, shapes):
        checkpoints.refuse_other_network(path, shapes, tf.global_variables())

    path, _ = checkpoints.newest_intact(folder, check)
    if path is None:
        raise utils.UserError('{}: expected a checkpoint, found none; train first, without --predict'.format(folder))
    with checkpoints.readable(path) as checkpoint:
        yield checkpoint


# ---- What the trained network does -----------------------------------------------------------------

Results = collections.namedtuple('Results', 'weights activations hidden probabilities test')


def results(session, images, probabilities, test):
    """Returns the Results for a Dataset of test images; images: the placeholder.

    weights {name: value}; activations {layer: [h, w, channels] or [units]} of the first image; hidden [1000, units]:
    those of the last layer but one for the first images; probabilities [n, 10].
    """
    layers = tables.layers()
    last_hidden = list(layers.values())[-2]
    return Results(
        values_of_weights(session),
        {name: value[0] for name, value in session.run(layers, {images: test.images[:1]}).items()},
        session.run(last_hidden, {images: test.images[:1000]}).reshape([min(1000, len(test.images)), -1]),
        np.concatenate([session.run(probabilities, {images: test.images[start:start + 500]})
                        for start in range(0, len(test.labels), 500)]),
        test)
