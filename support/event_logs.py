"""TensorBoard's event files. To be imported after TensorFlow."""
import os
import re
import socket
import time

import tensorflow.compat.v1 as tf

from support import cli, outputs


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
    shown = logged_graph(folder)
    log = EventLog(folder)
    if graph is not None and graph.as_graph_def(add_shapes=True) != shown:
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
    """Returns a summary of the histograms of all weights, biases and activations. layers: {name: tensor}."""
    with tf.name_scope('histograms'):
        return tf.summary.merge(
            [tf.summary.histogram(variable.op.name, variable) for variable in tf.trainable_variables()] +
            [tf.summary.histogram(name + '/activations', output) for name, output in layers.items()])


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
