"""One page for each lesson: a single HTML file that needs no server and no network."""
import base64
import hashlib
import io
import itertools
import json
import os
import shlex

import numpy as np
from PIL import Image

import kernels
import utils
from support import outputs, results, script

TEMPLATES = os.path.dirname(os.path.abspath(__file__))
FILTERS_PAGE, NETWORK_PAGE = 'basic_filters.html', 'convnet_mnist.html'
SCRIPTS = {FILTERS_PAGE: ['common.js', 'basic_filters.js', 'filters_input.js'],
           NETWORK_PAGE: ['common.js', 'network.js', 'read_digits.js', 'convnet_mnist.js', 'network_input.js']}


def write_filters_page(folder, flags, picture):
    """Writes the page in which the kernels can be changed, and returns its path.

    picture: float32 [height, width, 3], 0 to 1.
    """
    path = os.path.join(folder, FILTERS_PAGE)
    step = max(min(picture.shape[:2]) // 1000, 1)
    image = Image.fromarray((picture[::step, ::step] * 255).round().astype(np.uint8))
    image.thumbnail((480, 480))
    outputs.write_whole(path, render(FILTERS_PAGE, {
        'image': data_url(image),
        'image_name': '' if flags.image == utils.CHIHUAHUA else shlex.quote(script.printable(flags.image)),
        'kernels': {name: numbers(kernels.KERNELS[name]) for name in flags.kernels},
        'custom': {} if flags.custom_kernel is None else {'custom': numbers(flags.custom_kernel)},
        'stride': flags.stride, 'padding': flags.padding}))
    return path


def write_network_page(run, trained):
    """Writes the page on which the trained network reads what is drawn, and returns its path, or says why not.

    The page has layers of these kinds: convolutions (SAME, stride 1), pooling of 2 x 2, and fully connected ones.
    """
    test, order = trained.test, list(trained.activations)
    path = os.path.join(run.folders.figures, NETWORK_PAGE)
    activation, pooling = next((kinds for kinds in itertools.product(ACTIVATIONS, POOLINGS)
                                if is_reproduced(trained, *kinds)), (None, None))
    if not activation:
        print('{}: not written, for the page cannot compute this network'.format(script.printable(path)))
        return None
    outputs.write_whole(path, render(NETWORK_PAGE, {
        'order': order, 'activation': activation, 'pooling': pooling, 'handCoded': hand_coded(trained),
        'layers': {layer: quantized(trained.weights[layer + '/weights'], trained.weights[layer + '/biases'])
                   for layer in order if layer + '/weights' in trained.weights},
        'digits': [digit(test, index) for index in range(min(20, len(test.labels)))],
        'mistakes': [digit(test, index) for index in results.worst_mistakes(test, trained.probabilities)[:20]]}))
    return path


# ---- The arithmetic of the network page, as a reference in NumPy ----

ACTIVATIONS = {'relu': lambda values: np.maximum(values, 0), 'tanh': np.tanh}
POOLINGS = {'max': np.nanmax, 'mean': np.nanmean}


def is_reproduced(trained, activation, pooling):
    """Whether the reference gives TensorFlow's activations of one test digit, and the probabilities of 20."""
    if trained.test.images.shape[1:] != (28, 28):
        return False
    try:
        found = [reference(image, trained, ACTIVATIONS[activation], POOLINGS[pooling])
                 for image in trained.test.images[:20]]
    except (ValueError, KeyError):  # a layer of another kind, or in another order
        return False
    logits = np.array([list(layers.values())[-1] for layers in found])
    exponentials = np.exp(logits - logits.max(axis=1, keepdims=True))
    pairs = [(values, trained.activations[name]) for name, values in found[0].items()]
    pairs.append((exponentials / exponentials.sum(axis=1, keepdims=True), trained.probabilities[:20]))
    return all(one.shape == other.shape and np.abs(one - other).max() <= 0.03 * np.abs(other).max()  # as with --bf16
               for one, other in pairs)


def reference(image, trained, activation, pooling):
    """Returns the activations {layer: [h, w, channels] or [units]} for an image, uint8 [28, 28]."""
    value, found = image[:, :, np.newaxis] / 255, {}
    for name in trained.activations:
        if name + '/weights' in trained.weights:
            weights, biases = trained.weights[name + '/weights'], trained.weights[name + '/biases']
            value = (convolved(value, weights) if weights.ndim == 4 else value.ravel() @ weights) + biases
            value = value if name == list(trained.activations)[-1] else activation(value)
        else:
            height, width, channels = value.shape
            padded = np.pad(value, [(0, height % 2), (0, width % 2), (0, 0)], mode='constant', constant_values=np.nan)
            value = pooling(padded.reshape([-(-height // 2), 2, -(-width // 2), 2, channels]), axis=(1, 3))
        found[name] = value
    return found


def convolved(value, weights):
    """SAME, stride 1: value [h, w, in], weights [kh, kw, in, out] -> [h, w, out]."""
    (height, width, _), (kh, kw) = value.shape, weights.shape[:2]
    padded = np.pad(value, [((kh - 1) // 2, kh // 2), ((kw - 1) // 2, kw // 2), (0, 0)], mode='constant')
    return sum(padded[y:y + height, x:x + width] @ weights[y, x] for y in range(kh) for x in range(kw))


def quantized(weights, biases):
    """Weights [..., out] as whole numbers from -127 to 127, times one scale for each output channel."""
    scales = np.maximum(np.abs(weights).reshape(-1, weights.shape[-1]).max(axis=0), 1e-9) / 127
    return {'shape': weights.shape, 'weights': base64_text(np.round(weights / scales).astype(np.int8)),
            'scales': scales.tolist(), 'biases': biases.tolist()}


def hand_coded(trained):
    """Hand-coded kernels in the shape of the first convolution's, as nested lists, or None if they do not fit."""
    weights = [trained.weights.get(name + '/weights', np.zeros(0)) for name in trained.activations]
    shapes = [each.shape for each in weights if each.ndim == 4]
    return kernels.filter_bank(*shapes[0]).tolist() if shapes and min(shapes[0][:2]) >= 3 else None


def digit(dataset, index):
    return {'pixels': base64_text(dataset.images[index]), 'label': int(dataset.labels[index])}


def base64_text(array):
    return base64.b64encode(array.tobytes()).decode()


def numbers(matrix):
    """The values as the shortest decimals that are the same in float32."""
    return [[float(str(value)) for value in row] for row in matrix]


def data_url(image):
    """A Pillow image as a data: URL: PNG, or JPEG if that would be too large."""
    for kind, options in ('png', {'optimize': True}), ('jpeg', {'quality': 90}):
        file = io.BytesIO()
        image.save(file, kind, **options)
        if file.tell() < 400000:
            break
    return 'data:image/{};base64,{}'.format(kind, base64.b64encode(file.getvalue()).decode())


def render(template, data):
    """Returns a template as bytes, with its style, its script, and the data as JSON that cannot end the script.

    No other script runs: the browser compares its hash with that of the page's own.
    """
    html = read('page.html').replace('<!--BODY-->', read(template)).replace('/*STYLE*/', read('style.css'))
    code = ''.join(read(name) for name in SCRIPTS[template])
    code_hash = base64.b64encode(hashlib.sha256(code.encode('utf-8')).digest()).decode()
    html = html.replace('/*HASH*/', code_hash).replace('/*SCRIPT*/', code)
    text = json.dumps(data)
    for character in '<>&':
        text = text.replace(character, '\\u{:04x}'.format(ord(character)))
    return html.replace('/*DATA*/', text).encode('utf-8')


def read(name):
    with open(os.path.join(TEMPLATES, name), encoding='utf-8') as file:
        return file.read()
