"""The page of lesson 1: a single HTML file that needs no server and no network."""
import base64
import io
import json
import os
import shlex

import numpy as np
from PIL import Image

import utils
from support import outputs

TEMPLATES = os.path.join(os.path.dirname(os.path.abspath(__file__)), 'pages')
FILTERS_PAGE = 'basic_filters.html'


def write_filters_page(folder, flags, picture, matrices, custom):
    """Writes the page in which the kernels can be changed.

    picture: float32 [height, width, 3], 0 to 1; matrices, custom: {name: kernel [h, w]}, the lecture's and the user's.
    """
    image = Image.fromarray((picture * 255).round().astype(np.uint8))
    image.thumbnail((480, 480))
    outputs.write_whole(os.path.join(folder, FILTERS_PAGE), fill(FILTERS_PAGE, {
        'image': data_url(image),
        'image_name': '' if flags.image == utils.CHIHUAHUA else shlex.quote(outputs.printable(flags.image)),
        'kernels': {name: numbers(matrix) for name, matrix in matrices.items() if name not in custom},
        'custom': {name: numbers(matrix) for name, matrix in custom.items()},
        'stride': flags.stride, 'padding': flags.padding}))


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


def fill(template, data):
    """Returns a template as bytes, with its style, its script, and the data as JSON that cannot end the script."""
    html = read(template).replace('/*STYLE*/', read('style.css')).replace(
        '/*SCRIPT*/', read(template.replace('.html', '.js')))
    text = json.dumps(data)
    for character in '<>&':
        text = text.replace(character, '\\u{:04x}'.format(ord(character)))
    return html.replace('/*DATA*/', text).encode('utf-8')


def read(name):
    with open(os.path.join(TEMPLATES, name), encoding='utf-8') as file:
        return file.read()
