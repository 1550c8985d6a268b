"""Pictures of digits as people bring them, and of things that are no digit; and how many of them are read.

    python 07_convnet_mnist.py --epochs 10
    python tests/own_digits.py [--cases FOLDER]

prints a table: of the pictures of each kind, those in which each digit was found and is in its place; of their digits
those read right, wrong without being marked unsure, and marked unsure; and pictures refused. FOLDER has pictures, and
their digits in the table of its README.md. All others are MNIST's test digits, or strokes bent at random.
"""
import argparse
import os
import re
import tempfile

import numpy as np
import scipy.special
from PIL import Image, ImageDraw, ImageFilter

from conftest import network_of
import utils
from support import digits, results

STROKES = {  # (x, y) from 0 to 1, y downwards; each digit in one or more styles, each style of one or more strokes
    'usual': [
        [[(.5, .02), (.2, .2), (.15, .6), (.4, .98), (.75, .85), (.85, .4), (.65, .05), (.48, .02)]],
        [[(.5, .02), (.48, .98)]],
        [[(.2, .25), (.35, .03), (.7, .05), (.78, .3), (.55, .6), (.15, .95), (.88, .93)]],
        [[(.2, .12), (.5, .02), (.8, .2), (.65, .42), (.4, .48), (.75, .55), (.82, .8), (.5, .98), (.15, .88)]],
        [[(.65, .02), (.15, .62), (.9, .62)], [(.68, .3), (.66, .98)]],
        [[(.8, .03), (.3, .04), (.25, .42), (.6, .4), (.82, .65), (.7, .92), (.4, .98), (.15, .88)]],
        [[(.7, .02), (.35, .3), (.18, .7), (.35, .97), (.7, .9), (.78, .68), (.55, .52), (.22, .7)]],
        [[(.15, .06), (.85, .06), (.6, .45), (.42, .98)]],
        [[(.72, .18), (.5, .02), (.28, .18), (.4, .4), (.7, .62), (.72, .88), (.48, .98), (.25, .85), (.32, .62),
          (.62, .4), (.72, .18)]],
        [[(.76, .2), (.5, .02), (.24, .2), (.35, .46), (.65, .44), (.77, .18), (.74, .6), (.66, .98)]]],
    'European': [
        None, [[(.15, .42), (.58, .02), (.56, .98)]], None, None, None, None, None,
        [[(.15, .06), (.85, .06), (.42, .98)], [(.3, .5), (.75, .48)]], None, None],
    'open or curled': [
        None, None, None, None, [[(.2, .08), (.16, .56), (.88, .54)], [(.72, .1), (.7, .98)]], None, None, None, None,
        [[(.7, .14), (.45, .03), (.24, .24), (.4, .47), (.76, .2), (.78, .65), (.6, .95), (.34, .93), (.24, .82)]]]}


# ---- Ink and paper ----------------------------------------------------------------------------------

def smooth(points, rounds=3):
    """Cuts the corners of a polyline [n, 2], round by round."""
    for _ in range(rounds):
        cut = [0.75 * points[:-1] + 0.25 * points[1:], 0.25 * points[:-1] + 0.75 * points[1:]]
        points = np.concatenate([points[:1], np.stack(cut, 1).reshape(-1, 2), points[-1:]])
    return points


def drawn(random, digit, style='usual', size=160, width=12):
    """The ink of a digit of strokes, 0 to 255, size x size; bent, slanted and squeezed at random."""
    image = Image.new('L', (size, size))
    pen = ImageDraw.Draw(image)
    squeeze, slant, turn = random.uniform(.6, 1), random.uniform(-.1, .3), random.uniform(-.12, .12)
    for stroke in STROKES[style][digit]:
        points = np.array(stroke) + random.normal(0, .025, [len(stroke), 2]) - .5
        x = points[:, 0] * squeeze - points[:, 1] * (slant + turn)
        y = points[:, 1] + points[:, 0] * turn
        points = smooth(np.stack([x, y], 1)) * (size - 2 * width) * .8 + size / 2
        pen.line([tuple(point) for point in points], fill=255, width=width, joint='curve')
        for x, y in points[[0, -1]]:
            pen.ellipse([x - width / 2 + .5, y - width / 2 + .5, x + width / 2 - .5, y + width / 2 - .5], fill=255)
    return image


def on_paper(random, ink, colour=(40, 40, 60), paper=(250, 248, 244), shadow=0.0, noise=3):
    """A picture [h, w, 3] of ink [h, w], 0 to 1, with the edge of a soft shadow, a camera's blur, and its noise."""
    picture = paper + (np.array(colour) - paper) * ink[:, :, np.newaxis]
    y, x = np.meshgrid(np.linspace(-1, 1, ink.shape[0]), np.linspace(-1, 1, ink.shape[1]), indexing='ij')
    across = x * random.uniform(-1, 1) + y * random.uniform(-1, 1)
    light = 1 - shadow * across / 2 - shadow / (1 + np.exp(-random.uniform(4, 20) * (across - random.uniform(-.5, .5))))
    image = Image.fromarray(np.clip(picture * light[:, :, np.newaxis], 0, 255).astype(np.uint8))
    values = np.asarray(image.filter(ImageFilter.GaussianBlur(.7))) + random.normal(0, noise, picture.shape)
    return Image.fromarray(np.clip(values, 0, 255).astype(np.uint8))


def sheet(random, test, most=30, space=0.0, **paper):
    """Up to so many of MNIST's test digits in rows of their own lengths, also slanted, and the rows as texts."""
    count, size = random.randint(1, most + 1), random.randint(28, 90)
    in_row, across, down = random.randint(1, 11), size * random.uniform(1.15, 2), size * random.uniform(1.1, 2)
    rows, slant, margin = [], random.choice([0, random.uniform(-.05, .05)]), int(size * (.6 + space))
    height, width = int(np.ceil(count / in_row) * down + in_row * across * abs(slant)), int(in_row * across)
    ink = np.zeros([height + 2 * margin + size, width + 2 * margin + size])
    for number in range(count):
        row, column = divmod(number, in_row)
        rows += [''] * (column == 0)
        chosen = random.randint(len(test.labels))
        rows[-1] += str(test.labels[chosen])
        image = np.asarray(Image.fromarray(test.images[chosen]).resize((size, size), Image.BICUBIC))
        lower = (column * slant + in_row * max(0, -slant)) * across
        y, x = [int(margin + start + random.uniform(0, .08) * size) for start in (row * down + lower, column * across)]
        area = ink[y:y + size, x:x + size]
        np.maximum(area, np.clip((image - 90.) / 85, 0, 1), out=area)
    return on_paper(random, ink, **paper), rows


# ---- Kinds of pictures --------------------------------------------------------------------------------

def strokes(style, width):
    def make(random, test):
        digit = random.choice([digit for digit in range(10) if STROKES[style][digit]])
        ink = np.asarray(drawn(random, digit, style, width=random.randint(*width))) / 255
        return on_paper(random, np.pad(ink, random.randint(0, 80), mode='constant')), [str(digit)]
    return make


def ruled(random, test):
    picture, rows = sheet(random, test, most=1, space=1)
    values, step = np.array(picture), random.randint(24, 60)
    values[step // 2::step] = values[step // 2::step] * .7
    if random.randint(2):  # squared
        values[:, step // 2::step] = values[:, step // 2::step] * .7
    return Image.fromarray(values), rows


def specks(random, test):
    picture, rows = sheet(random, test, most=5, space=.5)
    pen = ImageDraw.Draw(picture)
    for x, y in random.randint(0, min(picture.size), [8, 2]):
        pen.ellipse([x - 1, y - 1, x + 1, y + 1], fill=(50, 50, 50))
    return picture, rows


def wall(random, test):
    rough = Image.fromarray((150 + 12 * random.normal(0, 1, [12, 16])).clip(0, 255).astype(np.uint8))
    grey = 1 - np.asarray(rough.resize((320, 240), Image.BICUBIC)) / 255
    return on_paper(random, grey, noise=random.uniform(2, 10)), []


def part_of_photo(random, test):
    """Parts of the Chihuahua: fur, eyes, background."""
    image, side = Image.open(utils.CHIHUAHUA), random.randint(80, 500)
    x, y = random.randint(image.width - side), random.randint(image.height - side)
    return image.crop((x, y, x + side, y + side)), []


KINDS = {
    'sheets of 1 to 30 digits, shadows': lambda *given: sheet(*given, shadow=.3),
    'pencil': lambda *given: sheet(*given, most=5, colour=(150, 150, 152), paper=(205, 203, 200), shadow=.1),
    'light on dark': lambda *given: sheet(*given, most=5, colour=(235, 235, 220), paper=(30, 80, 60)),
    'colour on colour': lambda *given: sheet(*given, most=5, colour=(200, 30, 160), paper=(240, 220, 60)),
    'specks': specks, 'ruled paper': ruled,
    'thin pen': strokes('usual', (2, 5)), 'felt pen': strokes('usual', (20, 30)),
    'open 4, curled 9': strokes('open or curled', (7, 14)), 'European 1 and 7': strokes('European', (7, 14)),
    'no digit: wall': wall, 'no digit: photo': part_of_photo}


def pictures(kind, count, test):
    """Yields (picture, its rows of digits as texts) of a kind."""
    for number in range(count):
        yield KINDS[kind](np.random.RandomState([sorted(KINDS).index(kind), number, 7]), test)


def cases(folder):
    """Yields (picture, its rows as texts) of a folder whose README.md has a table of them."""
    with open(os.path.join(folder, 'README.md')) as file:
        for name, rows in re.findall(r'^\| (\S+\.\w+) \| (\d+(?:, \d+)*)', file.read(), re.MULTILINE):
            yield Image.open(os.path.join(folder, name)), rows.split(', ')


# ---- How many are read ----------------------------------------------------------------------------------

def read(examples, network):
    """Counts of (picture, rows) that are read by a network of conftest.network_of: an array of the table's columns."""
    counts = np.zeros(7, int)  # pictures, in place, digits, right, wrong and sure, unsure, refused
    with tempfile.TemporaryDirectory() as folder:
        path = os.path.join(folder, 'picture.png')
        for picture, rows in examples:
            picture.save(path)
            counts[0] += 1
            try:
                found = digits.read_digits(path)
            except utils.UserError:
                counts[6] += 1
                continue
            probabilities = scipy.special.softmax(network(np.array(found.images))['softmax_linear'], axis=1)
            unsure = (probabilities.max(axis=1) < results.UNSURE) | bool(found.doubts)
            placed = found.rows == [len(row) for row in rows]
            right = probabilities.argmax(axis=1) == [int(each) for each in ''.join(rows)] if placed else unsure & False
            counts[1:6] += placed, len(unsure), right.sum(), (~right & ~unsure).sum(), unsure.sum()
    return counts


def main(flags):
    network, test = network_of(flags.output_dir, flags.name), utils.read_mnist(utils.MNIST_DIR).test
    print('| kind | pictures | in place | digits | right | wrong and sure | unsure | refused |')
    print('|---|---|---|---|---|---|---|---|')
    if flags.cases:
        print('| cases/ | {} | {} | {} | {} | {} | {} | {} |'.format(*read(cases(flags.cases), network)), flush=True)
    for kind in KINDS:
        counts = read(pictures(kind, flags.count * (10 if kind.startswith('sheets') else 1), test), network)
        print('| {} | {} | {} | {} | {} | {} | {} | {} |'.format(kind, *counts), flush=True)


if __name__ == '__main__':
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('--name', default='convnet_mnist', help='the run whose network reads them')
    parser.add_argument('--output-dir', default=utils.HERE)
    parser.add_argument('--count', type=int, default=100, help='pictures of each kind, and a tenth of the sheets')
    parser.add_argument('--cases', help='a folder of pictures')
    main(parser.parse_args())
