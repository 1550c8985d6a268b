"""Pictures of digits as people bring them, and of things that are no digit; and how many of them are read.

    python 07_convnet_mnist.py --epochs 10
    python tests/own_digits.py [--cases FOLDER]

prints a table, which docs/own_digits.md explains. Pictures are generated, most of them from MNIST's test digits.
"""
import argparse
import difflib
import os
import re
import tempfile

import matplotlib
import numpy as np
import scipy.special
from PIL import Image, ImageDraw, ImageFilter, ImageFont

from conftest import network_of
import utils
from support import digits, results

STROKES = {  # that MNIST has few of; each stroke: (x, y) from 0 to 1, y downwards
    '1': [[(.15, .42), (.58, .02), (.56, .98)]], '7': [[(.15, .06), (.85, .06), (.42, .98)], [(.3, .5), (.75, .48)]],
    '4': [[(.2, .08), (.16, .56), (.88, .54)], [(.72, .1), (.7, .98)]]}


def drawn(random, choice, thinnest, thickest, size=160):
    """A picture of one of these digits, bent, slanted and squeezed at random, and its rows; the pen's width: pixels."""
    image, width, digit = Image.new('L', (size, size)), random.randint(thinnest, thickest), random.choice(list(choice))
    squeeze, slant, turn = random.uniform(.6, 1), random.uniform(-.1, .3), random.uniform(-.12, .12)
    for stroke in STROKES[digit]:
        points = np.array(stroke) + random.normal(0, .015, [len(stroke), 2]) - .5
        points = points @ [[squeeze, turn], [-slant - turn, 1]] * (size - 2 * width) * .8 + size / 2
        ImageDraw.Draw(image).line([tuple(point) for point in points], fill=255, width=width, joint='curve')
    return on_paper(random, np.pad(np.asarray(image) / 255, random.randint(0, 80), mode='constant')), [digit]


def sheet(random, test, most=5, specks=0, ruled=0, **paper):
    """Up to so many of MNIST's test digits in rows, also slanted, and the rows as texts."""
    count, size = random.randint(1, most + 1), random.randint(28, 90)
    in_row, across, down = random.randint(1, 11), size * random.uniform(1.15, 2), size * random.uniform(1.1, 2)
    slant, chosen = random.choice([0, random.uniform(-.05, .05)]), random.randint(len(test.labels), size=count)
    lower = in_row * across * abs(slant)  # one end of a row than the other
    ink = np.zeros([int(2.5 * size + lower + np.ceil(count / in_row) * down), int(2.5 * size + in_row * across)])
    for number, image in enumerate(test.images[chosen]):
        row, column = divmod(number, in_row)
        place = row * down + column * slant * across + (lower if slant < 0 else 0), column * across
        y, x = [int(start + random.uniform(.6, .7) * size) for start in place]
        large = np.asarray(Image.fromarray(image).resize((size, size), Image.BICUBIC), float)
        ink[y:y + size, x:x + size] += np.clip((large - 50) / 100, 0, 1)
    for y, x in random.randint(min(ink.shape), size=[specks, 2]):
        ink[y:y + 3, x:x + 3] = 1
    for lines in [ink, ink.T][:ruled]:  # of the same array
        lines[random.randint(24)::random.randint(24, 60)] += .4
    rows = [test.labels[chosen[start:start + in_row]] for start in range(0, count, in_row)]
    return on_paper(random, np.minimum(ink, 1), **paper), [''.join(map(str, row)) for row in rows]


def on_paper(random, ink, colour=(40, 40, 60), paper=(250, 248, 244), shadow=0.0, noise=3):
    """A picture [h, w, 3] of ink [h, w], 0 to 1, with the edge of a soft shadow, a camera's blur, and its noise."""
    picture = paper + (np.array(colour) - paper) * ink[:, :, np.newaxis]
    y, x = np.mgrid[-1:1:ink.shape[0] * 1j, -1:1:ink.shape[1] * 1j]
    across = x * random.uniform(-1, 1) + y * random.uniform(-1, 1)
    light = 1 - shadow * across / 2 - shadow / (1 + np.exp(-random.uniform(4, 20) * (across - random.uniform(-.5, .5))))
    image = Image.fromarray(np.clip(picture * light[:, :, np.newaxis], 0, 255).astype(np.uint8))
    values = np.asarray(image.filter(ImageFilter.GaussianBlur(.7))) + random.normal(0, noise, picture.shape)
    return Image.fromarray(np.clip(values, 0, 255).astype(np.uint8))


def wall(random, test):
    rough = Image.fromarray(random.normal(.4, .05, [12, 16])).resize((320, 240), Image.BICUBIC)
    return on_paper(random, np.asarray(rough), noise=random.uniform(2, 10)), []


def part_of_photo(random, test):
    image, side = Image.open(utils.CHIHUAHUA), random.randint(80, 500)
    x, y = random.randint(image.width - side), random.randint(image.height - side)
    return image.crop((x, y, x + side, y + side)), []


def letters(random, test):
    path = os.path.join(matplotlib.get_data_path(), 'fonts', 'ttf', 'DejaVuSerif.ttf')
    image, text = Image.new('L', (380, 500)), random.choice(list('abcdefghijklmnopqrstuvwxyz  \n'), 1000)
    font = ImageFont.truetype(path, random.randint(14, 26))
    ImageDraw.Draw(image).text((20, 20), ''.join(text), fill=255, font=font)
    return on_paper(random, np.asarray(image) / 255), []


def scale(random, test):
    y, x = np.mgrid[-150:150, -150:150]
    radius, angle = np.hypot(y, x), (np.arctan2(y, x) + random.uniform(0, 6)) % (2 * np.pi)
    dial = (np.abs(radius - 120) < random.randint(2, 5)) | (np.abs(radius - 104) < 8) & (angle % .16 < .02)
    return on_paper(random, np.where(dial | (radius < 80) & (angle * radius < 5), 1., 0)), []


KINDS = {
    'sheets of 1 to 30 digits, shadows': lambda *given: sheet(*given, most=30, shadow=.3),
    'pencil': lambda *given: sheet(*given, colour=(150, 150, 152), paper=(205, 203, 200), shadow=.1),
    'light on dark': lambda *given: sheet(*given, colour=(235, 235, 220), paper=(30, 80, 60)),
    'colour on colour': lambda *given: sheet(*given, colour=(200, 30, 160), paper=(240, 220, 60)),
    'specks': lambda *given: sheet(*given, specks=8), 'ruled paper': lambda *given: sheet(*given, ruled=1),
    'squared paper': lambda *given: sheet(*given, ruled=2),
    'thin pen': lambda random, _: drawn(random, '47', 2, 6), 'felt pen': lambda random, _: drawn(random, '47', 20, 30),
    'European 1 and 7': lambda random, _: drawn(random, '17', 7, 14),
    'no digit: wall': wall, 'no digit: photo': part_of_photo, 'no digit: text': letters, 'no digit: scale': scale}


def pictures(kind, count, test):
    """Yields (picture, its rows of digits as texts) of a kind."""
    return (KINDS[kind](np.random.RandomState([sorted(KINDS).index(kind), number]), test) for number in range(count))


def read(examples, network):
    """Counts of (picture, rows) that are read by a network of conftest.network_of: an array of the table's columns."""
    counts = np.zeros(7, int)  # pictures, in place, digits, right, wrong and sure, unsure, refused
    with tempfile.TemporaryDirectory() as folder:
        path = os.path.join(folder, 'picture.png')
        for picture, rows in examples:
            picture.save(path)
            counts[[0, 2]] += 1, sum(map(len, rows))
            try:
                found = digits.read_digits(path)
            except utils.UserError:  # refused
                counts[6] += 1
                continue
            probabilities = scipy.special.softmax(network(np.array(found.images))['softmax_linear'], axis=1)
            unsure = (probabilities.max(axis=1) < results.UNSURE) | bool(found.doubts)
            right, answer = np.zeros(len(unsure), bool), ''.join(map(str, probabilities.argmax(axis=1)))
            for _, start, size in difflib.SequenceMatcher(None, ''.join(rows), answer, False).get_matching_blocks():
                right[start:start + size] = True
            counts[1] += found.rows == [len(row) for row in rows]
            counts[3:6] += right.sum(), (~right & ~unsure).sum(), unsure.sum()
    return counts


if __name__ == '__main__':
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('--output-dir', default=utils.HERE)
    parser.add_argument('--count', type=int, default=100, help='pictures of each kind, and a tenth of the sheets')
    parser.add_argument('--cases', metavar='FOLDER', help='pictures, and a README.md with a table of their digits')
    flags = parser.parse_args()
    trained, test_digits = network_of(flags.output_dir), utils.read_mnist(utils.MNIST_DIR).test
    print('| kind | pictures | in place | digits | right | wrong and sure | unsure | refused |\n' + '|---' * 8 + '|')
    kinds = {kind: pictures(kind, flags.count * (10 if 'sheets' in kind else 1), test_digits) for kind in KINDS}
    if flags.cases:
        rows = re.findall(r'\n\| (\S+\.\w+) \| (\d+(?:, \d+)*)', open(os.path.join(flags.cases, 'README.md')).read())
        kinds['cases/'] = [(Image.open(os.path.join(flags.cases, name)), text.split(', ')) for name, text in rows]
    for name, made in kinds.items():
        print('| {} | {} | {} | {} | {} | {} | {} | {} |'.format(name, *read(made, trained)), flush=True)
