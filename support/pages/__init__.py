"""One page for each lesson: a single HTML file that needs no server and no network."""
import base64
import hashlib
import io
import json
import os
import pathlib

import numpy as np
from PIL import Image

import kernels
import utils
from support import outputs, results, script

PICTURE_SIDE = 480  # pixels; more would make the page slow
SIZE = 28           # pixels of a digit's side
TOLERANCE = 0.05    # of a probability: the page has weights of 8 bits, and TensorFlow may have used bfloat16
TEMPLATES = pathlib.Path(__file__).resolve().parent
FILTERS_PAGE, NETWORK_PAGE = 'basic_filters.html', 'convnet_mnist.html'
SCRIPTS = {FILTERS_PAGE: ['common.js', 'basic_filters.js', 'filters_input.js'],
           NETWORK_PAGE: ['common.js', 'network.js', 'read_digit.js', 'convnet_mnist.js', 'network_input.js']}


def write_filters_page(folder, flags, picture, matrices, pixel):
    """Writes the page in which the kernels can be changed, and returns its path.

    picture: float32 [height, width, 3], 0 to 1; matrices {name: kernel}; pixel: its row and column are looked at first.
    """
    path = os.path.join(folder, FILTERS_PAGE)
    step = max(min(picture.shape[:2]) // 1000, 1)
    image = Image.fromarray((picture[::step, ::step] * 255).round().astype(np.uint8))
    image.thumbnail((PICTURE_SIDE, PICTURE_SIDE))
    outputs.write_whole(path, render(FILTERS_PAGE, {
        'image': data_url(image), 'imageSize': picture.shape[:2], 'side': PICTURE_SIDE,
        'image_name': '' if flags.image == utils.CHIHUAHUA else script.quoted(flags.image),
        'place': [(index + 0.5) / size for index, size in zip(pixel, picture.shape)],  # from 0 to 1
        'kernels': {name: [[float(str(value)) for value in row] for row in matrix]  # the shortest decimals
                    for name, matrix in matrices.items()},
        'zeroSum': results.ZERO_SUM, 'unitSum': results.UNIT_SUM, 'stride': flags.stride, 'padding': flags.padding}))
    return path


def write_network_page(run, trained):
    """Writes the page on which the trained network reads what is drawn, and returns its path, or says why not.

    The page has convolutions (SAME, stride 1), pooling of 2 x 2, and fully connected layers; it checks itself.
    """
    weights, test, probabilities = trained.weights, trained.test, trained.probabilities
    path = os.path.join(run.folders.figures, NETWORK_PAGE)
    *hidden, last = trained.kinds
    if (any(trained.kinds[name] not in ('Relu', 'Tanh', 'MaxPool', 'AvgPool') for name in hidden) or
            last + '/weights' not in weights or test.images.shape[1:] != (SIZE, SIZE)):
        print('{}: not written, for the page cannot compute this network'.format(script.printable(path)))
        return None
    mistakes = [index for index in results.worst_mistakes(test, probabilities)
                if np.ptp(np.sort(probabilities[index])[-2:]) > TOLERANCE]  # so that weights of 8 bits read the same
    shapes = [values.shape for values in weights.values() if values.ndim == 4]  # of the convolutions' kernels
    outputs.write_whole(path, render(NETWORK_PAGE, {
        'order': hidden + [last], 'kinds': trained.kinds, 'size': SIZE,
        'handCoded': kernels.filter_bank(*shapes[0]).tolist() if shapes and min(shapes[0][:2]) >= 3 else None,
        'layers': {name: quantized(weights, name) for name in trained.kinds if name + '/weights' in weights},
        'unsure': results.UNSURE, 'tolerance': TOLERANCE, 'probabilities': probabilities[:3].tolist(),
        'classes': run.data.classes,
        'digits': [digit(run, trained, index) for index in range(min(10, len(test.labels)))],
        'mistakes': [digit(run, trained, index) for index in mistakes[:20]]}))
    return path


def quantized(weights, layer):
    """Weights [..., out] as whole numbers from -127 to 127, times one scale for each output channel; and the biases."""
    values = weights[layer + '/weights']
    scales = np.maximum(np.abs(values).reshape(-1, values.shape[-1]).max(axis=0), 1e-9) / 127
    biases = weights.get(layer + '/biases', np.zeros(values.shape[-1]))
    return {'shape': values.shape, 'weights': base64_text(np.round(values / scales).astype(np.int8).tobytes()),
            'scales': scales.tolist(), 'biases': biases.tolist()}


def digit(run, trained, index):
    label, read = trained.test.labels[index], trained.probabilities[index].argmax()
    return {'pixels': base64_text(trained.test.images[index].tobytes()), 'label': run.data.classes[label],
            'read': run.data.classes[read]}


def base64_text(data):
    return base64.b64encode(data).decode()


def data_url(image):
    """A Pillow image as a data: URL: PNG, or JPEG if that would be too large."""
    for kind, options in ('png', {'optimize': True}), ('jpeg', {'quality': 90}):
        file = io.BytesIO()
        image.save(file, kind, **options)
        if file.tell() < 400000:
            break
    return 'data:image/{};base64,{}'.format(kind, base64_text(file.getvalue()))


def render(template, data):
    """Returns a template as bytes, with its style, its script, and the data as JSON that cannot end the script."""
    html, body, style, *scripts = [(TEMPLATES / name).read_text(encoding='utf-8')
                                   for name in ['page.html', template, 'style.css'] + SCRIPTS[template]]
    code = ''.join(scripts)
    code_hash = base64_text(hashlib.sha256(code.encode('utf-8')).digest())  # the browser runs no other script
    text = json.dumps(data).translate({number: '\\u{:04x}'.format(number) for number in map(ord, '<>&')})
    for mark, part in [('<!--BODY-->', body), ('/*STYLE*/', style), ('/*HASH*/', code_hash), ('/*SCRIPT*/', code),
                       ('/*DATA*/', text)]:
        html = html.replace(mark, part)
    return html.encode('utf-8')
