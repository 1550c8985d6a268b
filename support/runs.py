"""What a training run keeps on the disk: checkpoints, TensorBoard's logs, a lock. To be imported after TensorFlow."""
import json
import math
import os
import re
import signal
import sys
import time

import tensorflow.compat.v1 as tf
from tqdm import tqdm

import utils
from support import checkpoints, devices, event_logs, figures, outputs, pages, tables

NOT_SETTINGS = {'epochs', 'name', 'output_dir', 'data_dir', 'device', 'bf16', 'restart', 'predict',
                'remote_session', 'wait'}  # flags that change no result, but for bf16 and data_dir, see below
LOGS = ['train', 'validation', 'test']
DIVERGED = 'diverged.json'  # beside the checkpoints: in which step, and with which learning rate


class TrainingRun:
    """What a training run keeps: checkpoints, TensorBoard's logs, the history of its epochs.

    Used as a context manager, it holds the run's lock and turns SIGINT and SIGTERM into a stop after the
    current step. Settings, history and the epoch's loss so far travel as text inside the checkpoint, in a
    string variable, so that what belongs together is saved together.
    """

    SECONDS_BETWEEN_SAVES = 20

    def __init__(self, session, flags, data):
        """Restores the newest intact checkpoint of the run flags.name, if there is one.

        session: a tf.Session with initialized variables; data: the Datasets. Raises UserError if something
        cannot be written, another process is at work on the run, or its checkpoints do not fit.
        """
        self.name, self.folders = flags.name, outputs.run_folders(flags.output_dir, flags.name)
        self.history = []  # {'epoch', 'loss', 'validation', 'test', 'step'} of each finished epoch
        self.loss_sum = 0.0  # over the images seen so far in the unfinished epoch
        self.step = 0
        self.latest = None  # the newest checkpoint
        self._settings = {name: value for name, value in vars(flags).items() if name not in NOT_SETTINGS}
        self._settings.update({'bf16': flags.bf16 and devices.can_use_bfloat16(),
                               'dataset': utils.fingerprint(data)})
        self._batch_size, self._epoch_size = flags.batch_size, len(data.train.labels)
        self.batches_per_epoch = math.ceil(self._epoch_size / self._batch_size)  # the last one may be smaller
        self.session, self._signal, self._logs = session, None, {}
        with tf.variable_scope('checkpoint'):
            self._saved_state = tf.get_variable('saved_state', initializer='', trainable=False)  # SAVED_STATE
            self._saver = tf.train.Saver(max_to_keep=3)
            self._finite = tf.reduce_all([tf.reduce_all(tf.is_finite(variable)) for variable in tf.global_variables()
                                          if variable.dtype.base_dtype.is_floating])
        self._lock = checkpoints.acquire_lock(self.folders.checkpoints)
        try:
            if flags.restart:
                outputs.back_up(self.folders)
            outputs.claim(self.folders.checkpoints, ['checkpoint', DIVERGED])
            outputs.claim(self.folders.figures, figures.TRAINING_FIGURES + [pages.NETWORK_PAGE])  # before the training
            outputs.claim(self.folders.graphs, LOGS)
            outputs.claim(os.path.join(self.folders.graphs, 'test'), event_logs.PROJECTOR_FILES)
            self._identities = [identity(folder) for folder in self.folders[:2]]
            checkpoints.remove_unfinished(self.folders.checkpoints)
            session.run(self._saved_state.initializer)
            self.initial_kernels = session.run({variable.op.name[:-len('/weights')]: variable for variable in
                                                tf.global_variables() if re.match('[^/]+/weights$', variable.op.name)
                                                and variable.shape.ndims == 4})  # {layer: [h, w, in, out]}
            devices.warn_of_unused_gpu(flags)
            print('Trains on {}\n'.format(', '.join(devices.training_devices(session, flags))))
            self._resume()
        except BaseException:
            self._lock.release()
            raise

    @property
    def epochs_done(self):
        return len(self.history)

    @property
    def batches_done(self):
        """The number of training steps in the unfinished epoch."""
        return self.step - self.epochs_done * self.batches_per_epoch

    def __enter__(self):
        self._handlers = {signum: signal.signal(signum, self._stop) for signum in (signal.SIGINT, signal.SIGTERM)}
        return self

    def __exit__(self, *exception):
        for signum, handler in self._handlers.items():
            signal.signal(signum, handler)
        try:
            for log in self._logs.values():
                log.close()
        finally:
            self._lock.release()
        if self._signal and exception[0] is None:  # it came after the last step
            print('Stopped. All epochs are done and saved as {}.'.format(tables.relative(self.latest)), flush=True)
            sys.exit(128 + self._signal)

    def _stop(self, signum, frame):
        self._signal = signum
        signal.signal(signum, signal.SIG_DFL)  # the second one ends the process at once

    def _resume(self):
        """Restores the newest intact checkpoint, if there is one, and opens TensorBoard's logs."""
        saved = {}

        def restore(name, reader):
            path = os.path.join(self.folders.checkpoints, name)
            saved.update(json.loads(reader.get_tensor(checkpoints.SAVED_STATE).decode()))
            self._refuse_other_settings(path, saved['settings'])
            checkpoints.refuse_other_network(path, reader.get_variable_to_shape_map(), tf.global_variables())
            self._saver.restore(self.session, name)

        intact = checkpoints.restore_newest(self.folders.checkpoints, restore)
        if intact:
            self.latest = os.path.join(self.folders.checkpoints, intact[0])
            with checkpoints.working_directory(self.folders.checkpoints):
                self._saver.recover_last_checkpoints(intact[::-1])
            self.history, self.loss_sum = saved['history'], saved['loss_sum']
            print('Continuing from {}\n'.format(tables.relative(self.latest)))
            if saved['settings'] != self._settings:
                print('The learning rate was {} up to here, and is {} from now on.\n'.format(
                    saved['settings']['learning_rate'], self._settings['learning_rate']))
        self._saved_at = time.monotonic()
        self.step = int(self.session.run(tf.train.get_global_step()))
        self.epochs_before = self.epochs_done
        for name in LOGS:
            self._logs[name] = event_logs.continued_log(os.path.join(self.folders.graphs, name), self.step,
                                                        self.session.graph if name == 'train' else None)
        tables.print_history(self.history)

    def _refuse_other_settings(self, prefix, saved):
        changed = {name for name in set(self._settings) | set(saved) if saved.get(name) != self._settings.get(name)}
        different = ['{} {} (now {})'.format('dataset' if name == 'dataset' else '--' + name.replace('_', '-'),
                                             setting_text(saved.get(name)), setting_text(self._settings.get(name)))
                     for name in sorted(changed)]
        diverged = outputs.read_json(os.path.join(self.folders.checkpoints, DIVERGED))
        if diverged and changed <= {'learning_rate'} and saved['learning_rate'] >= diverged['learning_rate']:
            if self._settings['learning_rate'] >= diverged['learning_rate']:
                raise utils.UserError(self._how_to_go_on(prefix, diverged))
        elif changed:
            raise utils.UserError('{}: trained with {}; give the same, or another --name, or --restart'.format(
                prefix, ', '.join(different)))

    def progress(self, epoch, batches):
        """Yields the batches and counts the steps. Shows the progress, saves now and then, and ends if asked to stop.

        When a batch is yielded, self.step is the number of the training step that it is for.
        """
        with tqdm(total=self._epoch_size, initial=self.batches_done * self._batch_size,
                  desc='epoch {}'.format(epoch), unit=' images', leave=False, disable=None) as self._bar:
            for images, labels in batches:
                self.step += 1
                yield images, labels
                self._bar.update(len(labels))
                due = self._signal or time.monotonic() - self._saved_at > self.SECONDS_BETWEEN_SAVES
                if due and self.batches_done < self.batches_per_epoch:  # at the end of the epoch, end_epoch saves
                    self.save()
                    self._end_if_asked()
            self._check_weights()  # before the evaluation: TensorFlow makes no histogram of NaN

    def add_loss(self, loss_value, batch_size):
        """Adds a batch's mean loss to the epoch's. Raises UserError if it is not finite."""
        if not math.isfinite(loss_value):
            self._end_diverged('loss')
        self.loss_sum += float(loss_value) * batch_size
        self._bar.set_postfix(loss='{:.4f}'.format(loss_value), refresh=False)

    def end_epoch(self, epoch, validation, test):
        """Prints and logs the accuracies of an epoch, and saves."""
        row = {'epoch': epoch, 'loss': self.loss_sum / self._epoch_size, 'validation': validation, 'test': test,
               'step': self.step}
        self.history.append(row)
        self.loss_sum = 0.0
        for name in 'validation', 'test':
            self.log(name, tf.Summary(value=[tf.Summary.Value(tag='accuracy', simple_value=row[name])]))
        self.save()
        tables.print_epoch(row)  # after saving, for whoever reads the output may be gone
        self._end_if_asked()

    def save(self):
        """Writes a checkpoint, after what TensorBoard shall show up to this step."""
        for folder, before in zip(self.folders, self._identities):
            if identity(folder) != before:  # the Saver would make a new one, without the lock
                raise utils.UserError('{}: has vanished while the run was writing to it; bring it back, and the '
                                      'same command continues from the last checkpoint'.format(folder))
        self._check_weights()
        for log in self._logs.values():
            log.flush()
        state = {'settings': self._settings, 'history': self.history, 'loss_sum': self.loss_sum}
        self._saved_state.load(json.dumps(state, sort_keys=True), self.session)
        folder = self.folders.checkpoints
        with outputs.report_write_errors(folder), checkpoints.working_directory(folder):
            name = self._saver.save(self.session, 'model.ckpt', global_step=self.step, write_meta_graph=False)
        self.latest = os.path.join(folder, name)
        self._saved_at = time.monotonic()

    def _check_weights(self):
        if not self.session.run(self._finite):
            self._end_diverged('weights')

    def _end_diverged(self, what):
        """Records that the run has diverged, so that it can be continued with a smaller learning rate."""
        diverged = {'what': what, 'step': self.step, 'learning_rate': self._settings['learning_rate']}
        if self.latest:
            outputs.write_whole(os.path.join(self.folders.checkpoints, DIVERGED), json.dumps(diverged).encode())
        raise utils.UserError(self._how_to_go_on(self.latest, diverged))

    def _how_to_go_on(self, checkpoint, diverged):
        advice = 'the same command with a smaller --learning-rate continues from {}'.format(checkpoint)
        return '--learning-rate {learning_rate}: the {what} became infinite or NaN in step {step}; {}'.format(
            advice if checkpoint else 'there is no checkpoint yet, so begin anew with a smaller one', **diverged)

    def _end_if_asked(self):
        if self._signal:
            print('Stopped and saved as {}; the same command continues from there.'.format(
                tables.relative(self.latest)), flush=True)
            sys.exit(128 + self._signal)

    def log(self, name, summary):
        """Adds a summary at the current step to the log 'train', 'validation' or 'test'."""
        self._logs[name].add_summary(summary, self.step)

    def evaluated_variables(self):
        """Returns {name: value} of all weights and biases with which the network is evaluated."""
        variables = {variable.op.name: variable for variable in tf.global_variables()}
        return self.session.run({name: variables.get(name + checkpoints.AVERAGE, variable)
                                  for name, variable in variables.items() if re.search('/(weights|biases)$', name)})


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
