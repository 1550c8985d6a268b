"""What a network did with test images: layers, weights, activations, probabilities. Nothing is drawn here."""
import collections

import numpy as np
import tensorflow.compat.v1 as tf

Results = collections.namedtuple('Results', 'initial_weights weights activations hidden probabilities test')


def layers():
    """Returns {name: activations} of the network in the default graph; where there are several, of the last one."""
    return {layer.op.name.split('/')[-1]: layer for layer in tf.get_collection(tf.GraphKeys.ACTIVATIONS)}


def weights():
    """Returns {name: variable} of all weights and biases, trainable or not. (Adam's are called conv1/weights/Adam.)"""
    return {variable.op.name: variable for variable in tf.global_variables()
            if variable.op.name.split('/')[0] in layers() and variable.op.name.count('/') == 1}


def layer_kinds():
    """Each layer's op and the shape of its weights, in one line: equal for networks that can share a checkpoint."""
    shapes = {name.split('/')[0]: variable.shape.as_list() for name, variable in weights().items()
              if name.endswith('/weights')}
    return ', '.join('{} {} {}'.format(name, layer.op.type, shapes.get(name, '')).strip()
                     for name, layer in layers().items())


def compute(session, config, images, logits, test):
    """Returns the Results for a Dataset of test images; images: the placeholder.

    initial_weights and weights {name: value}; activations {layer: [h, w, channels] or [units]} of the first image;
    hidden [1000, units]: those of the last layer but one for the first images; probabilities [n, 10].
    """
    outputs, probabilities = layers(), tf.nn.softmax(logits)
    with tf.Session(session.sess_str, config=config) as new_session:  # in which the random numbers begin anew
        initial = new_session.run({name: variable.initial_value for name, variable in weights().items()})
    return Results(
        initial, session.run(weights()),
        {name: value[0] for name, value in session.run(outputs, {images: test.images[:1]}).items()},
        session.run(list(outputs.values())[-2], {images: test.images[:1000]}).reshape(min(1000, len(test.images)), -1),
        np.concatenate([session.run(probabilities, {images: test.images[start:start + 500]})
                        for start in range(0, len(test.labels), 500)]),
        test)
