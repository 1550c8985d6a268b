"""Pictures of digits as people make them, by kind, and of things that are no digit; and how many of them are read.

    python 07_convnet_mnist.py --epochs 3 --name own
    python tests/own_digits.py --name own

prints, for each kind, how many are read rightly, unsure (a probability below 0.9), wrongly, or refused. The digits are
MNIST's test digits, enlarged, or strokes: polylines that are bent at random. Seeds are fixed.
"""
import argparse
import functools
import os
import tempfile

import numpy as np
import scipy.special
from PIL import Image, ImageChops, ImageDraw, ImageFilter, ImageFont

from conftest import network_of
import utils
from support import digits

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
PAPER = (250, 248, 244)


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


@functools.lru_cache(None)
def test_digits():
    return utils.read_mnist(utils.MNIST_DIR).test


def enlarged(random, size=160):
    """The ink of one of MNIST's test digits, and its label."""
    chosen, test = random.randint(10000), test_digits()
    image = Image.fromarray(test.images[chosen]).resize((size, size), Image.BICUBIC)
    return image.point([min(255, max(0, 3 * (value - 90))) for value in range(256)]), int(test.labels[chosen])


def any_digit(random, size=160, **options):
    """The ink of a digit, of MNIST or of strokes, and its label."""
    if random.randint(2):
        return enlarged(random, size)
    digit = random.randint(10)
    return drawn(random, digit, size=size, **options), digit


def on_paper(random, ink, colour=(40, 40, 60), paper=PAPER, margin=.5):
    """A picture of the ink anywhere on a sheet, with a camera's blur and noise."""
    width, height = [int(side * (1 + random.uniform(0, margin) + .15)) for side in ink.size]
    place = [random.randint(max(1, side - own + 1)) for side, own in zip((width, height), ink.size)]
    mask = Image.new('L', (width, height))
    mask.paste(ink, tuple(place))
    sheet = Image.composite(Image.new('RGB', mask.size, colour), Image.new('RGB', mask.size, paper), mask)
    return noisy(random, sheet)


def noisy(random, image, deviation=3):
    values = np.asarray(image.filter(ImageFilter.GaussianBlur(.7)), np.float32)
    return Image.fromarray(np.clip(values + random.normal(0, deviation, values.shape), 0, 255).astype(np.uint8))


# ---- Kinds of digits ----------------------------------------------------------------------------------

def plain(random, number):
    ink, digit = any_digit(random, width=random.randint(8, 18))
    return on_paper(random, ink), digit


def specks(random, number):
    """Dirt of a scanner, a dot at the border, or a second mark far from the digit."""
    ink, digit = any_digit(random)
    image = on_paper(random, ink, margin=1)
    pen = ImageDraw.Draw(image)
    for _ in range([8, 1, 1][number % 3]):
        radius = random.randint(1, [3, 6, 7][number % 3])
        x, y = random.randint(image.width), random.randint(image.height)
        if number % 3:  # at the border or in a corner
            x, y = random.choice([2, image.width - 3]), random.choice([2, image.height - 3, image.height // 2])
        pen.ellipse([x - radius, y - radius, x + radius, y + radius], fill=(50, 50, 50))
    return image, digit


def frame(random, number):
    """Axes around the digit, a dark square on white paper, or a scanned box."""
    if number % 3 == 1:  # as plt.imshow saves an image of MNIST
        ink, digit = enlarged(random, 280)
        image = Image.new('RGB', (400, 360), 'white')
        image.paste(ink, (60, 40))
        ImageDraw.Draw(image).rectangle([60, 40, 340, 320], outline='black')
        return image, digit
    ink, digit = any_digit(random)
    image = on_paper(random, ink, margin=.3)
    border = random.randint(2, 6)
    ImageDraw.Draw(image).rectangle([border] * 2 + [side - border - 1 for side in image.size],
                                    outline=(30, 30, 30), width=random.randint(1, 5))
    if number % 3:
        sheet = Image.new('RGB', [side + random.randint(30, 200) for side in image.size], (252, 252, 252))
        sheet.paste(image, (random.randint(10, 25), random.randint(10, 25)))
        return sheet, digit
    return image, digit


def style(name, chosen):
    def make(random, number):
        digit = chosen[number % len(chosen)]
        return on_paper(random, drawn(random, digit, name, width=random.randint(7, 14))), digit
    return make


def thin_pen(random, number):
    ink, digit = drawn(random, number % 10, size=260, width=2), number % 10
    return on_paper(random, ink, margin=2.5), digit


def felt_pen(random, number):
    return on_paper(random, drawn(random, number % 10, width=random.randint(22, 30))), number % 10


def coloured(random, number):
    colours = [((200, 30, 160), (240, 220, 60)), ((200, 30, 30), (120, 150, 190)), ((30, 110, 60), (200, 90, 100)),
               ((250, 220, 60), (60, 110, 170)), ((240, 130, 20), (150, 170, 160))]
    colour, paper = colours[number % len(colours)]
    ink, digit = any_digit(random)
    return on_paper(random, ink, colour, paper), digit


def ruled(random, number):
    """Ruled or squared paper."""
    ink, digit = any_digit(random)
    image = on_paper(random, ink, margin=1)
    lines = Image.new('RGB', image.size, 'white')
    pen = ImageDraw.Draw(lines)
    step = random.randint(24, 60)
    colour = (150, 170, 210) if number % 4 < 2 else (80, 100, 150)
    for at in range(random.randint(step), image.height, step):
        pen.line([0, at, image.width, at], fill=colour, width=random.randint(1, 3))
    if number % 2:
        for at in range(random.randint(step), image.width, step):
            pen.line([at, 0, at, image.height], fill=colour, width=random.randint(1, 3))
    return ImageChops.multiply(image, lines), digit


def several(random, number):
    """Two to five digits side by side, with gaps."""
    inks = [any_digit(random, width=10) for _ in range(2 + number % 4)]
    row = Image.new('L', (sum(ink.getbbox()[2] - ink.getbbox()[0] + 20 for ink, _ in inks) + 40, 220))
    x = 20
    for ink, _ in inks:
        left, _, right, _ = ink.getbbox()
        row.paste(ink.crop((left, 0, right, ink.height)), (x, random.randint(20, 40)))
        x += right - left + random.randint(12, 28)
    return on_paper(random, row, margin=.2), ''.join(str(digit) for _, digit in inks)


# ---- No digits --------------------------------------------------------------------------------------

def wall(random, number):
    values = random.normal(0, 1, [12, 16])
    image = Image.fromarray((150 + 12 * values).clip(0, 255).astype(np.uint8)).resize((320, 240), Image.BICUBIC)
    return noisy(random, image, random.uniform(2, 10)), ''


def crop_of_photo(random, number):
    """Parts of the Chihuahua: fur, eyes, background."""
    image = Image.open(utils.CHIHUAHUA)
    side = random.randint(80, 500)
    x, y = random.randint(image.width - side), random.randint(image.height - side)
    return image.crop((x, y, x + side, y + side)), ''


def page_of_text(random, number):
    import matplotlib
    font = ImageFont.truetype(os.path.join(matplotlib.get_data_path(), 'fonts', 'ttf', 'DejaVuSerif.ttf'),
                              random.randint(14, 26))
    image = Image.new('RGB', (400, 500), PAPER)
    pen = ImageDraw.Draw(image)
    for y in range(20, 480, font.size + 8):
        text = ' '.join(''.join(random.choice(list('abcdefghijklmnopqrstuvwxyz'), random.randint(2, 9)))
                        for _ in range(6))
        pen.text((20, y), text, font=font, fill=(30, 30, 30))
    return noisy(random, image.crop((0, 0, 380, 500))), ''


KINDS = {  # the function that makes a picture and its digits, and a seed of its own
    'plain': (plain, 12), 'specks': (specks, 16), 'frame': (frame, 4),
    'European 1 and 7': (style('European', [1, 7]), 1), 'open 4, curled 9': (style('open or curled', [4, 9]), 11),
    'thin pen': (thin_pen, 17), 'felt pen': (felt_pen, 3), 'colour on colour': (coloured, 2),
    'ruled paper': (ruled, 13), 'several digits': (several, 14),
    'no digit: wall': (wall, 10), 'no digit: photo': (crop_of_photo, 7), 'no digit: text': (page_of_text, 9)}


def pictures(kind, count):
    """Yields (picture, its digits as a text) of a kind; '' if there is none."""
    make, seed = KINDS[kind]
    for number in range(count):
        picture, expected = make(np.random.RandomState([seed, number]), number)
        yield picture, str(expected)


def read_kind(kind, count, network):
    """Yields 'right', 'wrong', one of these after 'unsure, and ', or 'refused' for each picture of a kind.

    network: of conftest.network_of.
    """
    with tempfile.TemporaryDirectory() as folder:
        path = os.path.join(folder, 'picture.png')
        for picture, expected in pictures(kind, count):
            picture.save(path)
            try:
                logits = network(np.array(digits.read_digits(path)))['softmax_linear']
            except utils.UserError:
                yield 'refused'
                continue
            unsure = scipy.special.softmax(logits, axis=1).max(axis=1).min() < digits.UNSURE
            right = ''.join(map(str, logits.argmax(axis=1))) == expected
            yield ('unsure, and ' if unsure else '') + ('right' if right else 'wrong')


def main(flags):
    network = network_of(flags.output_dir, flags.name)
    print('| {} pictures each | right | of these marked unsure | unsure, and wrong | wrong | refused |\n'
          '|---|---|---|---|---|---|'.format(flags.count))
    for kind in KINDS:
        found = list(read_kind(kind, flags.count, network))
        counts = [found.count(each) for each in ('unsure, and right', 'unsure, and wrong', 'wrong', 'refused')]
        print('| {} | {} | {} | {} | {} | {} |'.format(kind, found.count('right') + counts[0], *counts), flush=True)


if __name__ == '__main__':
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('--name', default='convnet_mnist', help='the run whose network reads them')
    parser.add_argument('--output-dir', default=utils.HERE)
    parser.add_argument('--count', type=int, default=100, help='pictures of each kind')
    main(parser.parse_args())
