"""What tables, figures and pages all need: what a network did with test images, and what kernels are. No drawing."""
import collections

import numpy as np
import tensorflow.compat.v1 as tf

ZERO_SUM, UNIT_SUM = 1e-7, 1e-3  # how far a kernel's sum may be from 0, as a share of its weights, and from 1
UNSURE = 0.9  # a digit with a lower probability; docs/own_digits.md says how often right and wrong ones are below
Results = collections.namedtuple('Results', 'kinds windows initial_weights weights activations probabilities test')
Window = collections.namedtuple('Window', 'size strides first last')  # each: rows, columns


def layers():
    """Returns {name: activations} of the network in the default graph; where there are several, of the last one."""
    return {layer.op.name.split('/')[-1]: layer for layer in tf.get_collection(tf.GraphKeys.ACTIVATIONS)}


def weights():
    """Returns {name: variable} of all weights and biases, trainable or not. (Adam's are called conv1/weights/Adam.)"""
    return {variable.op.name: variable for variable in tf.global_variables()
            if variable.op.name.split('/')[0] in layers() and variable.op.name.count('/') == 1}


def kinds():
    """Returns {name: type of the last operation} of the layers, such as {'conv1': 'Relu', 'pool1': 'MaxPool'}."""
    return {name: layer.op.type for name, layer in layers().items()}


def window(layer):
    """The Window of a layer [n, h, w, channels]: its kernel's size and strides, and what the value in its middle sees.

    That is the receptive field, from the `first` to the `last` pixel of the image, which may lie beyond the border. It
    is found by going back from the layer, operation by operation, to the images. None if one of them is not understood.
    """
    kernels = []
    first = last = np.array(layer.shape.as_list()[1:3]) // 2
    op = layer.op
    while op.inputs:
        source = max(op.inputs, key=lambda tensor: tensor.shape.ndims or 0)  # no number that multiplies it
        before, after = [np.array(tensor.shape.as_list()[1:3]) for tensor in (source, op.outputs[0])]
        is_conv = op.type in ('Conv2D', 'DepthwiseConv2dNative') and set(op.get_attr('dilations')) == {1}
        if is_conv or op.type in ('MaxPool', 'AvgPool'):
            size = np.array(op.inputs[1].shape.as_list()[:2] if is_conv else op.get_attr('ksize')[1:3])
            strides = np.array(op.get_attr('strides')[1:3])
            zeros = np.maximum((after - 1) * strides + size - before, 0) // 2  # before the first pixel
            first, last = first * strides - zeros, last * strides - zeros + size - 1
            kernels.append((size, strides))
        elif list(before) != list(after) or sum(tensor.shape.ndims == 4 for tensor in op.inputs) > 1:
            return None  # another kind of convolution or pooling, or a sum of layers
        op = source.op
    return Window(*kernels[0], first, last) if kernels else None


def compute(session, config, images, logits, test):
    """Returns the Results for a Dataset of test images; images: the placeholder.

    kinds: see above; windows {layer: Window}; initial_weights and weights {name: value}; activations {layer: [h, w,
    channels] or [units]} of the first image; probabilities [n, classes].
    """
    outputs, probabilities = layers(), tf.nn.softmax(logits)
    with tf.Session(session.sess_str, config=config) as new_session:  # in which the random numbers begin anew
        initial = new_session.run({name: variable.initial_value for name, variable in weights().items()})
    return Results(
        kinds(), {name: window(layer) for name, layer in outputs.items() if len(layer.shape) == 4},
        initial, session.run(weights()),
        {name: value[0] for name, value in session.run(outputs, {images: test.images[:1]}).items()},
        np.concatenate([session.run(probabilities, {images: test.images[start:start + 500]})
                        for start in range(0, len(test.labels), 500)]),
        test)


def worst_mistakes(dataset, probabilities):
    """The indices of all images that were misread, first those whose label got the lowest probability.

    probabilities: [n, classes].
    """
    wrong = np.flatnonzero(probabilities.argmax(axis=1) != dataset.labels)
    return wrong[np.argsort(probabilities[wrong, dataset.labels[wrong]])]


# ---- Kernels, and what they are applied to ----

def matrix_lines(matrix):
    texts = [['{:g}'.format(value) for value in row] for row in matrix]
    width = max(len(text) for row in texts for text in row)
    return [' '.join(text.rjust(width) for text in row) for row in texts]


def shape_text(shape):
    return ' x '.join(map(str, shape))


def is_zero_sum(matrix):
    return abs(matrix.sum(dtype=float)) <= ZERO_SUM * np.abs(matrix).sum(dtype=float)  # float32 rounds by less


def kernel_sum(matrix):
    """The sum, without what rounding leaves of a 0."""
    return 0.0 if is_zero_sum(matrix) else matrix.sum()


def most_changed(image, output, tops, lefts, h, w):
    """The row and column of the output value that differs most from the pixel under the kernel's centre.

    image [height, width], output [out_height, out_width]; tops and lefts: where the patches [h, w] begin. Only
    patches that lie inside the image count, if there are any.
    """
    height, width = image.shape
    rows, columns = np.clip(tops + (h - 1) // 2, 0, height - 1), np.clip(lefts + (w - 1) // 2, 0, width - 1)
    inside = np.outer((tops >= 0) & (tops + h <= height), (lefts >= 0) & (lefts + w <= width))
    change = np.abs(output - image[np.ix_(rows, columns)]) * (inside if inside.any() else 1)
    return np.unravel_index(change.argmax(), change.shape)
