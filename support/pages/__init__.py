"""One page for each lesson: a single HTML file that needs no server and no network."""
import base64
import io
import json
import os
import shlex

import numpy as np
from PIL import Image

import kernels
import utils
from support import figures, outputs

TEMPLATES = os.path.dirname(os.path.abspath(__file__))
FILTERS_PAGE, NETWORK_PAGE = 'basic_filters.html', 'convnet_mnist.html'
LAYERS_WITH_WEIGHTS = ['conv1', 'conv2', 'fc', 'softmax_linear']


def write_filters_page(folder, flags, picture):
    """Writes the page in which the kernels can be changed.

    picture: float32 [height, width, 3], 0 to 1.
    """
    step = max(min(picture.shape[:2]) // 1000, 1)
    image = Image.fromarray((picture[::step, ::step] * 255).round().astype(np.uint8))
    image.thumbnail((480, 480))
    outputs.write_whole(os.path.join(folder, FILTERS_PAGE), render(FILTERS_PAGE, {
        'image': data_url(image),
        'image_name': '' if flags.image == utils.CHIHUAHUA else shlex.quote(outputs.printable(flags.image)),
        'kernels': {name: numbers(kernels.KERNELS[name]) for name in flags.kernels},
        'custom': {} if flags.custom_kernel is None else {'custom': numbers(flags.custom_kernel)},
        'stride': flags.stride, 'padding': flags.padding}))


def write_network_page(run, results):
    """Writes the page on which the trained network reads what is drawn, if it has the layers of the lecture's."""
    weights, test = results.weights, results.test
    if sorted(weights) != sorted(layer + kind for layer in LAYERS_WITH_WEIGHTS for kind in ('/weights', '/biases')) or (
            test.images.shape[1:] != (28, 28) or weights['conv1/weights'].shape[2] != 1):
        return
    outputs.write_whole(os.path.join(run.folders.figures, NETWORK_PAGE), render(NETWORK_PAGE, {
        'layers': {layer: quantized(weights[layer + '/weights'], weights[layer + '/biases'])
                   for layer in LAYERS_WITH_WEIGHTS},
        'digits': [digit(test, index) for index in range(min(20, len(test.labels)))],
        'mistakes': [dict(digit(test, index), read=int(results.probabilities[index].argmax()))
                     for index in figures.worst_mistakes(test, results.probabilities)[:20]]}))


def quantized(weights, biases):
    """Weights [..., out] as whole numbers from -127 to 127, times one scale for each output channel."""
    scales = np.maximum(np.abs(weights).reshape(-1, weights.shape[-1]).max(axis=0), 1e-9) / 127
    return {'shape': weights.shape, 'weights': base64_text(np.round(weights / scales).astype(np.int8)),
            'scales': scales.tolist(), 'biases': biases.tolist()}


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
    """Returns a template as bytes, with its style, its script, and the data as JSON that cannot end the script."""
    html = read('page.html')
    for place, file in (('<!--BODY-->', template), ('/*STYLE*/', 'style.css'), ('/*COMMON*/', 'common.js'),
                        ('/*SCRIPT*/', template.replace('.html', '.js'))):
        html = html.replace(place, read(file))
    text = json.dumps(data)
    for character in '<>&':
        text = text.replace(character, '\\u{:04x}'.format(ord(character)))
    return html.replace('/*DATA*/', text).encode('utf-8')


def read(name):
    with open(os.path.join(TEMPLATES, name), encoding='utf-8') as file:
        return file.read()
