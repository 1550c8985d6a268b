"""What TensorBoard reads. To be imported after TensorFlow."""
import math
import os
import re
import socket
import time

import numpy as np
import tensorflow.compat.v1 as tf
from PIL import Image

from support import cli, outputs

PROJECTOR_FILES = ['embedding.tsv', 'labels.tsv', 'sprite.png', 'projector_config.pbtxt']


class EventLog:
    """Writes an event file. Errors are raised at once, in the thread that writes; tf.summary.FileWriter hides some."""

    def __init__(self, folder, suffix=''):
        """Opens a new event file, which TensorBoard reads after the older ones in the folder."""
        self._folder = folder
        with outputs.report_write_errors(folder):
            os.makedirs(folder, exist_ok=True)
            matches = [re.search(r'tfevents\.(\d+)', name) for name in os.listdir(folder)]
            newest = max([int(match.group(1)) for match in matches if match], default=0)
            number = max(newest + 1, int(time.time()))  # the clock may have been set back
            self._writer = tf.python_io.TFRecordWriter(os.path.join(folder, 'events.out.tfevents.{:010d}.{}{}'.format(
                number, socket.gethostname(), suffix)))
        self._add(file_version='brain.Event:2')

    def add_graph(self, graph):
        self._add(graph_def=graph.as_graph_def(add_shapes=True).SerializeToString())

    def add_start(self, step):
        """TensorBoard forgets what the older files have from this step on."""
        self._add(step=step, session_log=tf.SessionLog(status=tf.SessionLog.START))

    def add_summary(self, summary, step):
        """summary: a tf.Summary or one as bytes, as session.run gives it."""
        self._add(step=step, summary=tf.Summary.FromString(summary) if isinstance(summary, bytes) else summary)

    def _add(self, **fields):
        with outputs.report_write_errors(self._folder):
            self._writer.write(tf.Event(wall_time=time.time(), **fields).SerializeToString())

    def flush(self):
        with outputs.report_write_errors(self._folder):
            self._writer.flush()

    def close(self):
        with outputs.report_write_errors(self._folder):
            self._writer.close()


def continued_log(folder, step, graph):
    """Returns an EventLog that continues after a step. graph: None, or to be shown unless it is the one shown."""
    changed = graph is not None and graph.as_graph_def(add_shapes=True) != logged_graph(folder)
    log = EventLog(folder)
    if changed:
        log.add_graph(graph)
    log.add_start(step + 1)
    log.flush()
    return log


def logged_graph(folder):
    """The last tf.GraphDef in the event files of a folder, or None."""
    graph = None
    for name in sorted(os.listdir(folder)) if os.path.isdir(folder) else []:
        if 'tfevents' in name:
            try:
                for event in tf.train.summary_iterator(os.path.join(folder, name)):
                    if event.HasField('graph_def'):
                        graph = tf.GraphDef.FromString(event.graph_def)
            except tf.errors.OpError:  # the last record is cut off, or this is no event file
                pass
    return graph


def histograms(layers):
    """Returns a summary: histograms of all activations, layers {name: tensor}, and of the weights that learn."""
    with tf.name_scope('histograms'):
        return tf.summary.merge(
            [tf.summary.histogram(variable.op.name, variable) for variable in tf.trainable_variables()] +
            [tf.summary.histogram(name + '/activations', output) for name, output in layers.items()])


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


def log_pictures(folder, summary):
    """Writes the graph and the pictures of lesson 1, in the place of those that an earlier run of it wrote."""
    suffix = '.' + cli.LESSON_1_NAME
    with outputs.report_write_errors(folder):
        for name in os.listdir(folder) if os.path.isdir(folder) else []:
            if re.match(r'events\.out\.tfevents\.\d+\..*' + re.escape(suffix) + '$', name):
                os.remove(os.path.join(folder, name))
    log = EventLog(folder, suffix)
    log.add_graph(tf.get_default_graph())
    log.add_summary(summary, step=0)
    log.close()
