"""What a training run keeps on the disk: checkpoints, TensorBoard's logs, a lock."""
import itertools
import json
import os
import re
import signal
import sys
import time

import numpy as np

import utils
from support import cli


class Run:
    """What a training run keeps: checkpoints, TensorBoard's logs, the rows of its table.

    Used as a context manager, it holds the checkpoint directory's lock and turns SIGINT and
    SIGTERM into a stop after the current step. Settings, rows and the epoch's loss so far travel
    as text inside the checkpoint, in a string variable: what belongs together is saved together.
    """

    SECONDS_BETWEEN_SAVES = 20

    def __init__(self, checkpoint_dir, log_dir, settings, restart=False):
        """settings: whatever changes the result, {name: value}. restart: move old files aside first.

        Raises UserError if a directory cannot be written, or another run is using it.
        """
        self.checkpoint_dir, self.log_dir = os.path.abspath(checkpoint_dir), os.path.abspath(log_dir)
        self.settings = settings
        self.rows = []  # of the table, one for each finished epoch
        self.loss_sum = 0.0  # over the digits seen so far in the unfinished epoch
        self.restored = self.latest = None  # the checkpoint that this run continued, and its newest one
        self.steps_restored = 0
        self._signal = None
        self._writers = {}
        with cli.writing(self.checkpoint_dir):
            os.makedirs(self.checkpoint_dir, exist_ok=True)
        self._lock = self._acquire_lock()
        for name in os.listdir(self.checkpoint_dir):  # what a killed run was writing when it died
            if re.match(r'(model\.ckpt-\d+\..*\.tempstate\d+|checkpoint\.tmp[0-9a-f]+)$', name):
                os.remove(os.path.join(self.checkpoint_dir, name))
        if restart:
            move_aside(self.checkpoint_dir, r'model\.ckpt-|checkpoint$')
            move_aside(self.log_dir, r'(train|validation|test)$')

    def __enter__(self):
        self._handlers = {number: signal.signal(number, self._stop) for number in (signal.SIGINT, signal.SIGTERM)}
        return self

    def __exit__(self, *exception):
        for number, handler in self._handlers.items():
            signal.signal(number, handler)
        try:
            with cli.writing(self.log_dir):
                for writer in self._writers.values():
                    writer.close()
        finally:
            self._lock.release()
        if self._signal and exception[0] is None:  # it came after the last step: all is done and saved
            sys.exit(128 + self._signal)

    def _stop(self, number, frame):
        self._signal = number
        signal.signal(number, signal.SIG_DFL)  # the second one ends the process at once

    def _acquire_lock(self):
        import filelock
        path = os.path.join(self.checkpoint_dir, 'lock')
        lock = filelock.FileLock(path)
        with cli.writing(self.checkpoint_dir):
            try:
                lock.acquire(timeout=0)
            except filelock.Timeout:
                with open(path + '.pid') as file:
                    raise utils.UserError('{}: in use by the run with process id {}; wait for its end, or choose '
                                          'another --checkpoint-dir and --log-dir'.format(
                                              self.checkpoint_dir, file.read()))
            with open(path + '.pid', 'w') as file:  # not in the lock itself, which Windows lets nobody read
                file.write(str(os.getpid()))
        return lock

    def resume(self, session, saver, step, notes):
        """Restores the newest good checkpoint, if there is one, and opens TensorBoard's logs.

        session: with initialized variables. step: the int64 variable that counts training steps.
        notes: a string variable, for this class alone. Returns the number of steps done.
        Raises UserError if there are checkpoints but none is good, or the settings differ.
        """
        self._session, self._saver, self._step, self._notes = session, saver, step, notes
        self.restored = self.latest = self._restore_newest()
        if self.restored:
            print('Continuing from {}\n'.format(self.restored))
        self._saved_at = time.monotonic()
        steps = self.steps_restored = int(session.run(step))
        with cli.writing(self.log_dir):
            for name in 'train', 'validation', 'test':
                done = steps if name == 'train' else self.rows[-1]['step'] if self.rows else 0
                self._writers[name] = open_log(os.path.join(self.log_dir, name), done,
                                               session.graph if name == 'train' else None)
        return steps

    def _restore_newest(self):
        import tensorflow.compat.v1 as tf
        saved = {}

        def restore(prefix):
            saved.update(json.loads(tf.train.NewCheckpointReader(prefix).get_tensor(self._notes.op.name).decode()))
            self._refuse_other_settings(prefix, saved['settings'])
            self._saver.restore(self._session, prefix)

        whole = restore_newest(self.checkpoint_dir, restore)
        if whole:
            self._saver.recover_last_checkpoints(whole[::-1])
            self.rows, self.loss_sum = saved['rows'], saved['loss_sum']
            return whole[0]

    def _refuse_other_settings(self, prefix, saved):
        different = ['{} {} (now {})'.format(name, saved.get(name), value)
                     for name, value in self.settings.items() if saved.get(name) != value]
        if different:
            raise utils.UserError('{}: trained with {}; give the same, or another --checkpoint-dir, or --restart'.format(
                prefix, ', '.join(different)))

    def end_epoch(self, row, step):
        """Keeps the epoch's row {'epoch', 'loss', 'validation', 'test'} and saves."""
        self.rows.append(dict(row, step=step))
        self.loss_sum = 0.0
        for name in 'validation', 'test':
            self.log(name, {'accuracy': row[name]}, step)
        self.save()
        self._end_if_asked()

    def save(self):
        """Writes a checkpoint, after what TensorBoard shall show up to this step."""
        for directory, name in (self.checkpoint_dir, 'lock.pid'), (self.log_dir, 'train'):
            if not os.path.exists(os.path.join(directory, name)):  # the Saver would make a new one, without its lock
                raise utils.UserError('{}: has vanished while the run was writing to it; bring it back, and the '
                                      'same command continues from the last checkpoint'.format(directory))
        with cli.writing(self.log_dir):
            for writer in self._writers.values():
                writer.flush()
        self._notes.load(json.dumps({'settings': self.settings, 'rows': self.rows, 'loss_sum': self.loss_sum},
                                    sort_keys=True), self._session)
        with cli.writing(self.checkpoint_dir):
            self.latest = self._saver.save(self._session, os.path.join(self.checkpoint_dir, 'model.ckpt'),
                                           global_step=self._step, write_meta_graph=False)
        self._saved_at = time.monotonic()

    def save_if_due(self):
        """To be called after each step: saves now and then, and ends the program if asked to stop."""
        if self._signal or time.monotonic() - self._saved_at > self.SECONDS_BETWEEN_SAVES:
            self.save()
            self._end_if_asked()

    def _end_if_asked(self):
        if self._signal:
            print('Stopped and saved as {}; the same command continues from there.'.format(self.latest), flush=True)
            sys.exit(128 + self._signal)

    def log(self, name, summary, step):
        """Adds a summary, as tf.summary.merge gives it or {tag: value}, to the log 'train', 'validation' or 'test'."""
        import tensorflow.compat.v1 as tf
        if isinstance(summary, dict):
            summary = tf.Summary(value=[tf.Summary.Value(tag=tag, simple_value=value)
                                        for tag, value in summary.items()])
        self._writers[name].add_summary(summary, step)

    def project(self, vectors, digits):
        """Writes vectors [n, m] for TensorBoard's projector, with the digits' labels and pictures."""
        from PIL import Image
        folder = os.path.join(self.log_dir, 'test')
        columns = int(np.ceil(np.sqrt(len(vectors))))
        sprite = np.zeros([columns * columns, 28, 28], np.uint8)
        sprite[:len(vectors)] = 255 - digits.images
        sprite = sprite.reshape([columns, columns, 28, 28]).swapaxes(1, 2).reshape([columns * 28, columns * 28])
        with cli.writing(folder):
            np.savetxt(os.path.join(folder, 'fc.tsv'), vectors, '%.4g', '\t')
            np.savetxt(os.path.join(folder, 'labels.tsv'), digits.labels, '%d')
            Image.fromarray(sprite).save(os.path.join(folder, 'sprite.png'))
            with open(os.path.join(folder, 'projector_config.pbtxt'), 'w') as file:
                file.write('embeddings { tensor_name: "fc" tensor_path: "fc.tsv" metadata_path: "labels.tsv" '
                           'sprite { image_path: "sprite.png" single_image_dim: 28 single_image_dim: 28 } }\n')


def checkpoints(directory):
    """The checkpoints in a directory, newest first, as the prefixes that Saver.restore takes.

    These are all that have an index or that the Saver's own list names; data without either
    are what a run was writing when it was killed.
    """
    if not os.path.isdir(directory):
        return []
    names = [name for name in os.listdir(directory) if name.endswith('.index')]
    if os.path.exists(os.path.join(directory, 'checkpoint')):
        with open(os.path.join(directory, 'checkpoint'), errors='replace') as file:
            names += [name for name in re.findall(r'model\.ckpt-\d+', file.read())
                      if os.path.exists(os.path.join(directory, name + '.data-00000-of-00001'))]
    steps = {int(found.group(1)) for found in (re.match(r'model\.ckpt-(\d+)', name) for name in names) if found}
    return [os.path.join(directory, 'model.ckpt-{}'.format(step)) for step in sorted(steps, reverse=True)]


def restore_newest(directory, restore):
    """Calls restore(prefix) with the checkpoints, the newest first, until one is whole.

    Returns its prefix and those of the older ones, or [] if there is no checkpoint. Damaged ones are
    named on stderr; raises UserError if there is no other.
    """
    prefixes = checkpoints(directory)
    for number, prefix in enumerate(prefixes):
        try:
            restore(prefix)
        except utils.UserError:
            raise
        except Exception as error:  # for damage, the readers of 1.15 and 2.21 raise many kinds
            print('warning: {} is damaged and passed over ({})'.format(
                prefix, str(error).splitlines()[0][:100]), file=sys.stderr)
        else:
            return prefixes[number:]
    if prefixes:
        raise utils.UserError('{}: none of its checkpoints is whole; --restart moves them aside and begins anew'
                              .format(directory))
    return []


def restore_weights(directory, session, variables):
    """Restores variables from the newest whole checkpoint: their moving averages, where it has them.

    Raises UserError if there is no checkpoint.
    """
    import tensorflow.compat.v1 as tf

    def restore(prefix):
        saved = tf.train.NewCheckpointReader(prefix).get_variable_to_shape_map()
        averages = {variable: variable.op.name + '/ExponentialMovingAverage' for variable in variables}
        tf.train.Saver({average if average in saved else variable.op.name: variable
                        for variable, average in averages.items()}).restore(session, prefix)

    if not restore_newest(directory, restore):
        raise utils.UserError('{}: expected a checkpoint, found none; train first, without --predict'.format(directory))


def move_aside(directory, pattern):
    """Moves what a run wrote to a directory into a new one beside it, with a number at its name's end."""
    names = [name for name in os.listdir(directory) if re.match(pattern, name)] if os.path.isdir(directory) else []
    if names:
        aside = next(path for path in ('{}.{}'.format(directory, i) for i in itertools.count(1))
                     if not os.path.exists(path))
        with cli.writing(aside):
            os.makedirs(aside)
            for name in names:
                os.rename(os.path.join(directory, name), os.path.join(aside, name))
        print('Moved the earlier files of {} to {}'.format(directory, aside))


def open_log(directory, step, graph):
    """A FileWriter that continues after a step; TensorBoard forgets what was logged beyond it."""
    import tensorflow.compat.v1 as tf
    os.makedirs(directory, exist_ok=True)
    graph_logged = any(holds_graph(os.path.join(directory, name))
                       for name in os.listdir(directory) if 'tfevents' in name)
    writer = tf.summary.FileWriter(directory, None if graph_logged else graph)
    writer.add_session_log(tf.SessionLog(status=tf.SessionLog.START), step + 1)
    writer.flush()
    return writer


def holds_graph(path):
    import tensorflow.compat.v1 as tf
    try:
        return any(event.HasField('graph_def') for event in tf.train.summary_iterator(path))
    except tf.errors.OpError:  # the last record is cut off, or this is no event file
        return False
