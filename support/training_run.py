"""What a training run keeps on the disk: checkpoints, TensorBoard's logs, a lock. To be imported after TensorFlow."""
import json
import math
import os
import re
import signal
import sys
import time

import filelock
import numpy as np
import tensorflow.compat.v1 as tf
from PIL import Image
from tqdm import tqdm

import utils
from support import cli, devices, figures, outputs, tables

NOT_SETTINGS = {'epochs', 'name', 'output_dir', 'data_dir', 'device', 'bf16', 'restart', 'predict'}  # of the result
SAVED_STATE = 'checkpoint/saved_state'  # a variable's name
AVERAGE = '/ExponentialMovingAverage'  # the end of an average's name


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
        self._session, self._signal, self._writers = session, None, {}
        with tf.variable_scope('checkpoint'):
            self._saved_state = tf.get_variable('saved_state', initializer='', trainable=False)  # SAVED_STATE
            self._saver = tf.train.Saver(max_to_keep=3)
        self._lock = acquire_lock(self.folders.checkpoints)
        try:
            outputs.check_figures(self.folders.figures, figures.RESULTS)  # now rather than after the training
            if flags.restart:
                outputs.back_up(self.folders)
            remove_unfinished(self.folders.checkpoints)
            session.run(self._saved_state.initializer)
            self.initial_kernels = session.run({variable.op.name[:-len('/weights')]: variable for variable in
                                                tf.global_variables() if re.match('[^/]+/weights$', variable.op.name)
                                                and variable.shape.ndims == 4})  # {layer: [h, w, in, out]}
            self._resume()
        except BaseException:
            self._lock.release()
            raise

    @property
    def epochs_done(self):
        return len(self.history)

    def __enter__(self):
        self._handlers = {signum: signal.signal(signum, self._stop) for signum in (signal.SIGINT, signal.SIGTERM)}
        return self

    def __exit__(self, *exception):
        for signum, handler in self._handlers.items():
            signal.signal(signum, handler)
        try:
            with outputs.report_write_errors(self.folders.graphs):
                for writer in self._writers.values():
                    writer.close()
        finally:
            self._lock.release()
        if self._signal and exception[0] is None:  # it came after the last step: all is done and saved
            sys.exit(128 + self._signal)

    def _stop(self, signum, frame):
        self._signal = signum
        signal.signal(signum, signal.SIG_DFL)  # the second one ends the process at once

    def _resume(self):
        """Restores the newest intact checkpoint, if there is one, and opens TensorBoard's logs."""
        saved = {}

        def restore(prefix, reader):
            if not reader.has_tensor(SAVED_STATE):
                raise utils.UserError('{}: not written by this version of the script; choose another --name, or '
                                      '--restart to begin anew'.format(prefix))
            saved.update(json.loads(reader.get_tensor(SAVED_STATE).decode()))
            self._refuse_other_settings(prefix, saved['settings'])
            refuse_other_network(prefix, reader.get_variable_to_shape_map(), tf.global_variables())
            self._saver.restore(self._session, prefix)

        intact = restore_newest(self.folders.checkpoints, restore)
        if intact:
            self.latest = intact[0]
            self._saver.recover_last_checkpoints(intact[::-1])
            self.history, self.loss_sum = saved['history'], saved['loss_sum']
            print('Continuing from {}\n'.format(tables.relative(self.latest)))
        self._saved_at = time.monotonic()
        self.step = self.start_step = int(self._session.run(tf.train.get_global_step()))
        with outputs.report_write_errors(self.folders.graphs):
            for name in 'train', 'validation', 'test':
                done = self.step if name == 'train' else self.history[-1]['step'] if self.history else 0
                self._writers[name] = open_log(os.path.join(self.folders.graphs, name), done,
                                               self._session.graph if name == 'train' else None)
        tables.print_history(self.history)

    def _refuse_other_settings(self, prefix, saved):
        different = ['{} {} (now {})'.format('dataset' if name == 'dataset' else '--' + name.replace('_', '-'),
                                             *['on' if setting is True else 'off' if setting is False else setting
                                               for setting in (saved.get(name), value)])
                     for name, value in self._settings.items() if saved.get(name) != value]
        if different:
            raise utils.UserError('{}: trained with {}; give the same, or another --name, or --restart'.format(
                prefix, ', '.join(different)))

    def progress(self, epoch, batches):
        """Yields the batches and counts the steps. Shows the progress, saves now and then, and ends if asked to stop.

        When a batch is yielded, self.step is the number of the training step that it is for.
        """
        steps_before = (epoch - 1) * math.ceil(self._epoch_size / self._batch_size)
        with tqdm(total=self._epoch_size, initial=(self.step - steps_before) * self._batch_size,
                  desc='epoch {}'.format(epoch), unit=' images', leave=False, disable=None) as self._bar:
            for images, labels in batches:
                self.step += 1
                yield images, labels
                self._bar.update(len(labels))
                if self._signal or time.monotonic() - self._saved_at > self.SECONDS_BETWEEN_SAVES:
                    self.save()
                    self._end_if_asked()

    def add_loss(self, loss_value, batch_size):
        """Adds a batch's mean loss to the epoch's. Raises UserError if it is not finite."""
        if not math.isfinite(loss_value):
            raise utils.UserError('--learning-rate {}: the loss has become {} in step {}; choose a smaller one, and '
                                  '--restart'.format(self._settings['learning_rate'], loss_value, self.step))
        self.loss_sum += float(loss_value) * batch_size
        self._bar.set_postfix(loss='{:.4f}'.format(loss_value), refresh=False)

    def end_epoch(self, epoch, validation, test):
        """Prints and logs the accuracies of an epoch, and saves."""
        row = {'epoch': epoch, 'loss': self.loss_sum / self._epoch_size, 'validation': validation, 'test': test,
               'step': self.step}
        tables.print_epoch(row)
        self.history.append(row)
        self.loss_sum = 0.0
        for name in 'validation', 'test':
            self.log(name, tf.Summary(value=[tf.Summary.Value(tag='accuracy', simple_value=row[name])]))
        self.save()
        self._end_if_asked()

    def save(self):
        """Writes a checkpoint, after what TensorBoard shall show up to this step."""
        for folder, name in (self.folders.checkpoints, 'lock.pid'), (self.folders.graphs, 'train'):
            if not os.path.exists(os.path.join(folder, name)):  # the Saver would make a new one, without its lock
                raise utils.UserError('{}: has vanished while the run was writing to it; bring it back, and the '
                                      'same command continues from the last checkpoint'.format(folder))
        with outputs.report_write_errors(self.folders.graphs):
            for writer in self._writers.values():
                writer.flush()
        state = {'settings': self._settings, 'history': self.history, 'loss_sum': self.loss_sum}
        self._saved_state.load(json.dumps(state, sort_keys=True), self._session)
        with outputs.report_write_errors(self.folders.checkpoints):
            self.latest = self._saver.save(self._session, os.path.join(self.folders.checkpoints, 'model.ckpt'),
                                           global_step=self.step, write_meta_graph=False)
        self._saved_at = time.monotonic()

    def _end_if_asked(self):
        if self._signal:
            print('Stopped and saved as {}; the same command continues from there.'.format(
                tables.relative(self.latest)), flush=True)
            sys.exit(128 + self._signal)

    def log(self, name, summary):
        """Adds a summary at the current step to the log 'train', 'validation' or 'test'."""
        self._writers[name].add_summary(summary, self.step)

    def kernels(self, layer):
        """Returns the kernels [h, w, in, out] with which a convolutional layer is evaluated, as values."""
        variables = {variable.op.name: variable for variable in tf.global_variables()}
        name = layer + '/weights'
        return self._session.run(variables.get(name + AVERAGE, variables[name]))

    def activations(self, layers, images, dataset):
        """Returns {name: values} of layers {name: tensor} for the images of a Dataset, fed to a placeholder."""
        return self._session.run(layers, feed_dict={images: dataset.images})

    def log_embedding(self, name, vectors, dataset):
        """Writes vectors [n, m] for TensorBoard's projector, with the labels and images of a Dataset."""
        folder = os.path.join(self.folders.graphs, 'test')
        columns = math.ceil(math.sqrt(len(vectors)))
        height, width = dataset.images.shape[1:]
        sprite = np.zeros([columns * columns, height, width], np.uint8)
        sprite[:len(vectors)] = 255 - dataset.images
        sprite = sprite.reshape([columns, columns, height, width]).swapaxes(1, 2)
        with outputs.report_write_errors(folder):
            np.savetxt(os.path.join(folder, name + '.tsv'), vectors, '%.4g', '\t')
            np.savetxt(os.path.join(folder, 'labels.tsv'), dataset.labels, '%d')
            Image.fromarray(sprite.reshape([columns * height, columns * width])).save(
                os.path.join(folder, 'sprite.png'))
            with open(os.path.join(folder, 'projector_config.pbtxt'), 'w') as file:
                file.write('embeddings {{ tensor_name: "{0}" tensor_path: "{0}.tsv" metadata_path: "labels.tsv" '
                           'sprite {{ image_path: "sprite.png" single_image_dim: {1} single_image_dim: {2} }} }}\n'
                           .format(name, width, height))


# ---- Checkpoints ---------------------------------------------------------------------------------

def checkpoints(folder):
    """The checkpoints in a folder, newest first, as the prefixes that Saver.restore takes.

    These are all that have an index or that the Saver's own list names; data without either
    are what a run was writing when it was killed.
    """
    if not os.path.isdir(folder):
        return []
    names = [name for name in os.listdir(folder) if name.endswith('.index')]
    if os.path.exists(os.path.join(folder, 'checkpoint')):
        with open(os.path.join(folder, 'checkpoint'), errors='replace') as file:
            names += [name for name in re.findall(r'model\.ckpt-\d+', file.read())
                      if os.path.exists(os.path.join(folder, name + '.data-00000-of-00001'))]
    steps = {int(match.group(1)) for match in (re.match(r'model\.ckpt-(\d+)', name) for name in names) if match}
    return [os.path.join(folder, 'model.ckpt-{}'.format(step)) for step in sorted(steps, reverse=True)]


def restore_newest(folder, restore):
    """Calls restore(prefix, reader) with the checkpoints, the newest first, until one is intact.

    Returns its prefix and those of the older ones, or [] if there is no checkpoint. Damaged ones are
    named on stderr; raises UserError if all are.
    """
    prefixes = checkpoints(folder)
    for index, prefix in enumerate(prefixes):
        try:
            restore(prefix, tf.train.NewCheckpointReader(prefix))
        except utils.UserError:
            raise
        except Exception as error:  # for damage, the readers of 1.15 and 2.21 raise many kinds
            print('warning: {} is damaged and passed over ({})'.format(
                prefix, str(error).splitlines()[0][:100]), file=sys.stderr)
        else:
            return prefixes[index:]
    if prefixes:
        raise utils.UserError('{}: none of its checkpoints is intact; --restart moves them to a backup and begins anew'
                              .format(folder))
    return []


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

    def restore(prefix, reader):
        saved = reader.get_variable_to_shape_map()
        weights = {variable.op.name: variable for variable in tf.global_variables()}
        refuse_other_network(prefix, {name: shape for name, shape in saved.items() if name in weights or
                                      re.match('[^/]+/(weights|biases)$', name)}, weights.values())
        tf.train.Saver({name + AVERAGE if name + AVERAGE in saved else name: variable
                        for name, variable in weights.items()}).restore(session, prefix)

    if not restore_newest(folder, restore):
        raise utils.UserError('{}: expected a checkpoint, found none; train first, without --predict'.format(folder))


def remove_unfinished(folder):
    """Removes what a killed run was writing when it died."""
    for name in os.listdir(folder):
        if re.match(r'(model\.ckpt-\d+\..*\.tempstate\d+|checkpoint\.tmp[0-9a-f]+)$', name):
            os.remove(os.path.join(folder, name))


def acquire_lock(folder):
    """Returns the lock of a checkpoint folder, acquired. Raises UserError if another process has it."""
    path = os.path.join(folder, 'lock')
    lock = filelock.FileLock(path)
    with outputs.report_write_errors(folder):
        os.makedirs(folder, exist_ok=True)
        try:
            lock.acquire(timeout=0)
        except filelock.Timeout:
            with open(path + '.pid') as file:
                raise utils.UserError('{}: in use by the run with process id {}; wait for its end, or choose '
                                      'another --name'.format(folder, file.read()))
        with open(path + '.pid', 'w') as file:  # not in the lock itself, which nobody may read on Windows
            file.write(str(os.getpid()))
    return lock


# ---- TensorBoard ---------------------------------------------------------------------------------

def histograms(layers):
    """Returns a summary of the histograms of all weights, biases and activations. layers: {name: tensor}."""
    with tf.name_scope('histograms'):
        return tf.summary.merge(
            [tf.summary.histogram(variable.op.name, variable) for variable in tf.trainable_variables()] +
            [tf.summary.histogram(name + '/activations', output) for name, output in layers.items()])


def open_log(folder, step, graph):
    """Returns a FileWriter that continues after a step; TensorBoard forgets what was logged beyond it."""
    os.makedirs(folder, exist_ok=True)
    graph_logged = any(holds_graph(os.path.join(folder, name)) for name in os.listdir(folder) if 'tfevents' in name)
    writer = tf.summary.FileWriter(folder, None if graph_logged else graph)
    writer.add_session_log(tf.SessionLog(status=tf.SessionLog.START), step + 1)
    writer.flush()
    return writer


def holds_graph(path):
    try:
        return any(event.HasField('graph_def') for event in tf.train.summary_iterator(path))
    except tf.errors.OpError:  # the last record is cut off, or this is no event file
        return False


def log_pictures(folder, summary):
    """Writes the graph and the pictures of lesson 1, in the place of those that an earlier run of it wrote."""
    suffix = '.' + cli.LESSON_1_NAME
    with outputs.report_write_errors(folder):
        os.makedirs(folder, exist_ok=True)
        for name in os.listdir(folder):
            if name.endswith(suffix):
                os.remove(os.path.join(folder, name))
        with tf.summary.FileWriter(folder, tf.get_default_graph(), filename_suffix=suffix) as writer:
            writer.add_summary(summary, global_step=0)
