"""Your own digits: finds the digits in a drawing or a photo, and brings each to MNIST's form."""
import contextlib
import itertools
import os
import sys

import numpy as np
from PIL import Image, ImageFilter

import utils
from support import script

PICTURE_SIDE = 280   # pixels; more would only show the paper's texture
MOST_DIGITS = 12     # in one picture
MOST_PIECES = 12     # of one digit: a 5 may have two, a broken stroke a few more
MOST_SHAPES = 100    # digits and specks
THICKEST = 0.4       # stroke width / size of the digit; the thickest of MNIST's
UNSURE = 0.9         # a probability; docs/own_digits.md says how often right and wrong readings are below


@contextlib.contextmanager
def read_pictures(paths, size):
    """Yields the names and uint8 [n, size, size] of the digits in pictures, also in all those in folders.

    A picture with several digits has its name several times. One that cannot be read is named on stderr, and the others
    go on; the program then ends with exit status 2 after the block.
    """
    names, digits, failed = [], [], False
    for path in pictures_in(paths):
        try:
            found = read_digits(path, size)
            names += [path] * len(found)
            digits += found
        except utils.UserError as error:
            script.print_error(str(error))
            failed = True
    if digits:
        yield names, np.array(digits)
    if failed:
        sys.exit(2)


def pictures_in(paths):
    """The files among the paths, and those in the folders among them, each once."""
    files = []
    for path in paths:
        if os.path.isdir(path):
            inside = [os.path.join(path, name) for name in sorted(os.listdir(path)) if not name.startswith('.')]
            files += [each for each in inside if os.path.isfile(each)]
        else:
            files.append(path)
    if not files:
        raise utils.UserError('{}: expected pictures, found none'.format(paths[0]))
    return dict.fromkeys(files)


def read_digits(path, size=28):
    """Reads a picture of one digit, or of several side by side: a list of uint8 [size, size], from left to right.

    1. The picture becomes at most 280 pixels large.
    2. Ink is whatever differs from the background, in any colour (`ink_of`). Lines from border to border, as of ruled
       paper, are removed.
    3. Ink that touches is one piece. If a piece is a frame, or a square of another colour, only what is inside counts.
    4. Pieces above each other, or close together, are one digit; small ones far from it are specks.
    5. Each digit is brought to MNIST's form (`mnist_form`).

    Raises UserError if the file is no picture, or holds nothing that looks like digits.
    """
    image = Image.fromarray((utils.read_image(path, most_pixels=1e6) * 255).astype(np.uint8))
    image.thumbnail((PICTURE_SIDE, PICTURE_SIDE), Image.LANCZOS)
    found, reason = find_digits(np.asarray(image, np.float32))
    if not found:
        raise utils.UserError('{}: expected a digit, or a few side by side, dark on light or light on dark; found {}'
                              .format(path, reason))
    return [mnist_form(ink, size) for ink in found]


def find_digits(picture, depth=0):
    """picture [h, w, 3] -> the ink [h, w], 0 to 1, of each digit, from left to right, and why there is none."""
    ink, texture = ink_of(picture)
    remove_lines(ink)
    labels, boxes = pieces(ink)
    for number, box in list(boxes.items())[:MOST_DIGITS]:  # the largest come first
        inside = inside_of(labels[box] == number, box, ink.shape) if depth < 2 else None
        if inside:
            found, reason = find_digits(picture[inside], depth + 1)
            if found:
                return found, reason
    if depth:  # what touches the border is the rest of the frame
        boxes = {number: (rows, columns) for number, (rows, columns) in boxes.items()
                 if rows.start > 0 and columns.start > 0 and rows.stop < ink.shape[0] and columns.stop < ink.shape[1]}
    digits = group(boxes)
    cut_out = [cut(ink, labels, numbers) for numbers in digits]
    if not digits:
        return [], 'nothing that stands out'
    if texture or len(digits) > MOST_DIGITS or max(map(len, digits)) > MOST_PIECES or len(boxes) > MOST_SHAPES:
        return [], 'a texture, or too many shapes'
    if any(is_inside(*pair) for pair in itertools.permutations(boxes.values(), 2)):
        return [], 'a shape inside another one'
    if max(thickness(each) / max(each.shape) for each in cut_out) > THICKEST:
        return [], 'shapes too thick for the strokes of a digit'
    return cut_out, None


# ---- Ink ------------------------------------------------------------------------------------------

def ink_of(picture):
    """How much each pixel of a picture [h, w, 3] differs from the background, in any colour: [h, w], 0 to 1.

    The background is the smooth surface that fits the border, so a shadow across the paper is background. Also whether
    the picture is a texture, without a background: on paper, most pixels differ from it by next to nothing.
    """
    difference = np.stack([picture[:, :, channel] - background(picture[:, :, channel]) for channel in range(3)])
    ink = np.sqrt(np.square(difference).mean(axis=0))
    count = min(max(ink.size // 160, 3), 20)  # a digit on 28 x 28 pixels may have 15 dark ones
    strongest = np.sort(ink.ravel())[-count:].min()
    if strongest < 30:
        return np.zeros_like(ink), False
    # 0 up to 35% of the strongest, 1 from 85% on
    return np.clip(ink / strongest * 2 - 0.7, 0, 1), np.median(ink) > 0.15 * strongest


def background(grey):
    """Robust quadratic fit to the border of a picture [h, w], by iteratively reweighted least squares.

    It approaches the least sum of magnitudes (the L1 norm), so that a little ink on the border does no harm.
    """
    height, width = grey.shape
    y, x = np.meshgrid(np.linspace(-1, 1, height), np.linspace(-1, 1, width), indexing='ij')
    terms = np.stack([np.ones_like(x), y, x, x * y, y * y, x * x], axis=2)
    border = (np.maximum(np.abs(y), np.abs(x)) == 1)
    weights = np.ones(border.sum())
    for _ in range(10):
        fit = np.linalg.lstsq(terms[border] * weights[:, np.newaxis], grey[border] * weights, rcond=None)[0]
        weights = 1 / np.sqrt(np.maximum(np.abs(terms[border] @ fit - grey[border]), 1))
    return terms @ fit


def remove_lines(ink):
    """Removes lines from ink [h, w], in place: rows and columns from border to border that are almost all ink."""
    for rows in ink, ink.T:  # views of the same array
        lines = ((rows > 0.5).mean(axis=1) > 0.8) & (rows[:, [0, -1]] > 0.5).all(axis=1)
        if lines.mean() < 0.3:
            for row in np.flatnonzero(lines):
                above, below = row, row
                while above > 0 and (rows[above] > 0.5).mean() > 0.3:
                    above -= 1
                while below < len(rows) - 1 and (rows[below] > 0.5).mean() > 0.3:
                    below += 1
                rows[above:below + 1] = np.minimum(rows[above], rows[below])  # a stroke that crosses the line stays


# ---- Pieces, and digits made of them ------------------------------------------------------------------

def pieces(ink):
    """The pieces of ink [h, w], the largest first: labels [h, w], from 1 on, and for each its box, two slices.

    Ink that is less than two pixels apart, in any direction, is one piece.
    """
    mask = np.asarray(Image.fromarray((ink > 0.1).astype(np.uint8)).filter(ImageFilter.MaxFilter(3)), bool)
    labels = np.zeros(mask.shape, int)
    labels[mask] = np.arange(1, mask.sum() + 1)
    while True:  # the largest label among the neighbours spreads, and takes all with the same label along
        padded = np.pad(labels, 1, mode='constant')
        height, width = mask.shape
        largest = np.max([padded[y:y + height, x:x + width] for y in range(3) for x in range(3)], axis=0) * mask
        if (largest == labels).all():
            break
        target = np.arange(labels.max() + 1)
        np.maximum.at(target, labels[mask], largest[mask])
        while (target[target] != target).any():
            target = target[target]
        labels = target[largest]
    labels[ink <= 0.1] = 0
    boxes = {}
    for label in np.unique(labels[ink > 0.5]):  # what has no strong ink is no piece
        rows, columns = np.nonzero(labels == label)
        boxes[label] = slice(rows.min(), rows.max() + 1), slice(columns.min(), columns.max() + 1)
    return labels, dict(sorted(boxes.items(), key=lambda item: -longer_side(item[1])))


def longer_side(box):
    return max(side.stop - side.start for side in box)


def is_inside(inner, outer):
    """Whether a box lies well inside another one and is no speck, as the hand of a clock, but no stroke of a digit."""
    return longer_side(inner) > 0.15 * longer_side(outer) and all(
        a.start > b.start + (b.stop - b.start) / 10 and a.stop < b.stop - (b.stop - b.start) / 10
        for a, b in zip(inner, outer))


def inside_of(mask, box, shape):
    """The two slices inside a piece that is a frame or a filled rectangle, of a third of the picture or more, or None.

    mask [h, w]: the piece in its box; shape: of the picture.
    """
    height, width = mask.shape
    if height < shape[0] / 3 or width < shape[1] / 3 or min(height, width) < 12:
        return None
    y, x = height // 8 + 1, width // 8 + 1
    sides = mask[:y].any(axis=0), mask[-y:].any(axis=0), mask[:, :x].any(axis=1), mask[:, -x:].any(axis=1)
    corners = mask[:y, :x], mask[:y, -x:], mask[-y:, :x], mask[-y:, -x:]  # a 0 or an 8 is round there
    if min(side.mean() for side in sides) < 0.95 or min(corner.any(axis=0).mean() for corner in corners) < 0.5:
        return None
    line = 2 if mask.mean() > 0.5 else 1 + max(np.argmin(mask[height // 2]), np.argmin(mask[:, width // 2]))
    edge = min(line + 1, y, x)
    return slice(box[0].start + edge, box[0].stop - edge), slice(box[1].start + edge, box[1].stop - edge)


def group(boxes):
    """Groups pieces {number: box}, the largest first, into digits, from left to right: a list of lists of numbers.

    Pieces above each other, or close together, are one digit; a small piece must be closer. What then has less than
    0.4 of the height of the tallest digit is a speck.
    """
    digits = []  # [left, right, top, bottom, numbers]
    for number, (rows, columns) in boxes.items():
        largest = longer_side(next(iter(boxes.values())))
        near = largest * (0.08 if longer_side((rows, columns)) > largest / 5 else 0.04)
        for digit in digits:
            left, right, top, bottom, numbers = digit
            if (columns.start < right + near and columns.stop > left - near and
                    rows.start < bottom + 3 * near and rows.stop > top - 3 * near):
                digit[:] = [min(left, columns.start), max(right, columns.stop), min(top, rows.start),
                            max(bottom, rows.stop), numbers + [number]]
                break
        else:
            digits.append([columns.start, columns.stop, rows.start, rows.stop, [number]])
    tallest = max([bottom - top for _, _, top, bottom, _ in digits], default=0)
    return [numbers for _, _, top, bottom, numbers in sorted(digits) if bottom - top > 0.4 * tallest]


def cut(ink, labels, numbers):
    """The ink of some pieces alone, [h, w], without a margin."""
    ink = ink * np.isin(labels, numbers)
    rows, columns = [np.flatnonzero(ink.max(axis=axis) > 0.5) for axis in (1, 0)]
    return ink[rows[0]:rows[-1] + 1, columns[0]:columns[-1] + 1]


def thickness(ink):
    """The width of the thickest stroke, in pixels: twice how often a pixel can be taken off all round."""
    image = Image.fromarray(np.pad((ink > 0.5).astype(np.uint8), 1, mode='constant'))
    times = 0
    while image.getbbox():
        image = image.filter(ImageFilter.MinFilter(3))
        times += 1
    return 2 * times


# ---- MNIST's form ---------------------------------------------------------------------------------

def mnist_form(ink, size):
    """The ink of a digit [h, w], 0 to 1 -> uint8 [size, size], light on dark; for MNIST, size is 28.

    Strokes thinner than a tenth of the digit are widened to that. The digit is scaled to fit into 20 x 20, and placed
    so that its centre of mass is at pixel (14, 14).
    """
    ink = np.pad(ink, 20, mode='constant')
    edges = np.abs(np.diff(ink, axis=0)).sum() + np.abs(np.diff(ink, axis=1)).sum()
    missing_width = (max(ink.shape) - 40) / 10 - 2 * ink.sum() / edges  # area / edges: half a stroke's width
    digit = Image.fromarray((ink * 255).astype(np.uint8))
    digit = digit.filter(ImageFilter.MaxFilter(2 * max(0, int(round(missing_width / 2))) + 1))
    digit = digit.crop(digit.getbbox())
    scale = size * 20 / 28 / max(digit.size)
    width, height = [max(1, int(side * scale + 0.5)) for side in digit.size]
    for size_now in (width, digit.height), (width, height):  # width first; Pillow's own order varies
        digit = digit.resize(size_now, Image.LANCZOS)
    return center_by_mass(np.asarray(digit), size)


def center_by_mass(digit, size):
    """[h, w] -> uint8 [size, size], the centre of mass in the middle, as in MNIST; the brightest pixel is 255."""
    canvas = np.zeros([3 * size, 3 * size], np.float32)
    height, width = digit.shape
    mass = digit.sum(dtype=float)
    top, left = [size + size // 2 - int((digit.sum(axis=axis) * np.arange(side)).sum() / mass + 0.5)
                 for axis, side in ((1, height), (0, width))]
    canvas[top:top + height, left:left + width] = digit
    return (canvas[size:2 * size, size:2 * size] * 255 / digit.max()).astype(np.uint8)
