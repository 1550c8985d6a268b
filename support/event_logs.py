"""TensorBoard's files: what tf.summary.FileWriter does not do when a run is continued, or when the disk is full."""
import contextlib
import math
import os
import re
import threading
import time

import numpy as np
import tensorflow.compat.v1 as tf
from PIL import Image

import utils
from support import outputs

PROJECTOR_FILES = ['embedding.tsv', 'labels.tsv', 'sprite.png', 'projector_config.pbtxt']
LOGS = re.compile(r'events\.out\.tfevents\.(\d+)\.(.*)')  # the number is a time in seconds


def logs_in(folder):
    """The event files in a folder, in the order in which TensorBoard reads them."""
    return sorted(name for name in os.listdir(folder) if LOGS.match(name))


def order_logs(folder):
    """Makes TensorBoard read the next FileWriter's file after those that are there.

    It reads them in the order of their names. If the newest one is of this second, or the clock was set back, all are
    renamed, in the same order.
    """
    names = logs_in(folder)
    if names and int(LOGS.match(names[-1]).group(1)) >= int(time.time()):
        for number, name in enumerate(names, 1):
            new_name = 'events.out.tfevents.{:010d}.{}'.format(number, LOGS.match(name).group(2))
            os.rename(os.path.join(folder, name), os.path.join(folder, new_name))


def mark(writer, status, step):
    """Writes a session log. After START, TensorBoard forgets what was logged for this step and later ones."""
    writer.add_session_log(tf.SessionLog(status=status), step)
    writer.flush()


@contextlib.contextmanager
def write_errors():
    """Turns the errors of a FileWriter into a UserError. On TensorFlow 2.21 its thread would print them, too."""
    def others(arguments):
        if arguments.thread.name != 'EventLoggerThread':
            hook(arguments)

    def is_other(record):
        return not record.getMessage().startswith('EventFileWriter writer thread error')

    hook = getattr(threading, 'excepthook', None)  # not in Python 3.7
    threading.excepthook = others
    tf.get_logger().addFilter(is_other)
    try:
        yield
    except (RuntimeError, IndexError) as error:
        if 'events.out.tfevents' not in str(error):
            raise
        raise utils.UserError('{}: cannot be written ({})'.format(*outputs.first_line(error).split('; ')))
    finally:
        threading.excepthook = hook
        tf.get_logger().removeFilter(is_other)


def check_written(folder, kind, step=None):
    """Raises UserError unless the newest event file is whole, and ends with a `kind`: 'session_log' or 'summary'.

    step: that of the checkpoint whose session log it must be. FileWriter often says nothing of what it could not write.
    """
    path = os.path.join(folder, (logs_in(folder) or ['events.out.tfevents'])[-1])
    last = None
    try:
        for last in tf.train.summary_iterator(path):
            pass
    except tf.errors.OpError:  # the last record is cut off, or there is no file
        last = None
    if last is None or not last.HasField(kind) or (
            step is not None and (last.step, last.session_log.status) != (step, tf.SessionLog.CHECKPOINT)):
        raise utils.UserError('{}: cannot be written; is the disk full?'.format(path))


def log_embedding(folder, name, vectors, dataset):
    """Writes vectors [n, m] for TensorBoard's projector, with the labels and images of a Dataset."""
    columns = math.ceil(math.sqrt(len(vectors)))
    height, width = dataset.images.shape[1:]
    sprite = np.zeros([columns * columns, height, width], np.uint8)
    sprite[:len(vectors)] = 255 - dataset.images
    sprite = sprite.reshape([columns, columns, height, width]).swapaxes(1, 2)
    with outputs.report_write_errors(folder):
        np.savetxt(os.path.join(folder, 'embedding.tsv'), vectors, '%.4g', '\t')
        np.savetxt(os.path.join(folder, 'labels.tsv'), dataset.labels, '%d')
        sprite = Image.fromarray(sprite.reshape([columns * height, columns * width]))
        sprite.save(os.path.join(folder, 'sprite.png'))
        with open(os.path.join(folder, 'projector_config.pbtxt'), 'w') as file:
            file.write('embeddings {{ tensor_name: "{}" tensor_path: "embedding.tsv" metadata_path: "labels.tsv" '
                       'sprite {{ image_path: "sprite.png" single_image_dim: {} single_image_dim: {} }} }}\n'
                       .format(name, width, height))
