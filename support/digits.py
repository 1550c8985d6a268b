"""Your own digits: finds the digits in a drawing or a photo, and brings each to MNIST's form."""
import os

import numpy as np
from PIL import Image, ImageFilter

import utils
from support import script

PICTURE_SIDE = 280  # pixels; more would only show the paper's texture
MOST_DIGITS = 20  # in one picture


def read_pictures(paths, size):
    """Reads pictures of digits, also all those in folders. Returns names and uint8 [n, size, size], both by digit.

    A picture with several digits side by side has its name several times. One that cannot be read is named on stderr,
    and its name has no digit.
    """
    names, digits = [], []
    for path in paths:
        inside = sorted(os.listdir(path)) if os.path.isdir(path) else None
        for each in [path] if inside is None else [os.path.join(path, name) for name in inside]:
            try:
                found = read_digits(each, size)
            except utils.UserError as error:
                script.print_error(str(error))
                found = [None]
            names += [each] * len(found)
            digits += found
    return names, digits


def read_digits(path, size=28):
    """Reads a picture of one digit, or several side by side: a list of uint8 [size, size], from left to right.

    Raises UserError if the file is no picture, or holds nothing that looks like digits.
    """
    image = Image.fromarray((utils.read_image(path) * 255).astype(np.uint8))
    image.thumbnail((PICTURE_SIDE, PICTURE_SIDE), Image.LANCZOS)
    found = find_digits(np.asarray(image, np.float32))
    if not found or len(found) > MOST_DIGITS:
        raise utils.UserError('{}: expected a digit, or a few side by side, dark on light or light on dark; found {}'
                              .format(path, 'too many shapes' if found else 'nothing that stands out as one'))
    return [mnist_form(ink, size) for ink in found]


def find_digits(picture, depth=0):
    """picture [h, w, 3] -> the ink [h, w], 0 to 1, of each digit, from left to right; [] if there is none."""
    ink = remove_lines(ink_of(picture))
    labels, boxes = components(ink > 0.5)
    if depth < 2:  # a box around the digit, or a square of another colour that it stands on
        for number, box in enumerate(boxes, 1):
            inside = box_inside(labels[box] == number, box, picture.shape)
            found = find_digits(picture[inside], depth + 1) if inside else []
            if found:
                return found
    if depth:  # what touches the border is the rest of the box
        height, width = ink.shape
        boxes = [box if box[0].start > 0 and box[1].start > 0 and box[0].stop < height and box[1].stop < width else None
                 for box in boxes]
    return [crop(ink, labels, group) for group in groups(boxes)]


# ---- Ink ------------------------------------------------------------------------------------------

def ink_of(picture):
    """How much each pixel of a picture [h, w, 3] differs from the background, in any colour: [h, w], 0 to 1.

    The background is the smooth surface that fits the border, so a shadow across the paper is background.
    """
    difference = np.stack([picture[:, :, channel] - background(picture[:, :, channel]) for channel in range(3)])
    ink = np.sqrt(np.square(difference).mean(axis=0))
    count = min(max(ink.size // 160, 3), 20)  # a stroke one pixel wide on 28 x 28 pixels has 15
    strongest = np.sort(ink.ravel())[-count:].min()
    if strongest < 30:
        return np.zeros_like(ink)
    return np.clip(ink / strongest * 2 - 0.7, 0, 1)  # 0 up to 35% of the strongest, 1 from 85% on


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
    """Removes the lines of ruled or squared paper: rows and columns that are ink almost from border to border."""
    for lines in ink, ink.T:  # views of the same array
        ruled = (lines > 0.5).mean(axis=1) > 0.8
        if ruled.mean() < 0.3:
            for row in np.flatnonzero(ruled):
                above, below = row, row
                while above > 0 and (lines[above] > 0.5).mean() > 0.3:
                    above -= 1
                while below < len(lines) - 1 and (lines[below] > 0.5).mean() > 0.3:
                    below += 1
                lines[above:below + 1] = np.minimum(lines[above], lines[below])  # where a stroke crosses the line
    return ink


# ---- Shapes ---------------------------------------------------------------------------------------

def components(mask):
    """Connected components of a mask [h, w], diagonals included: labels [h, w] from 1 on, and their boxes (slices)."""
    labels = np.zeros(mask.shape, int)
    labels[mask] = np.arange(1, mask.sum() + 1)
    while True:  # the largest label among the neighbours spreads; label by label it jumps, so few rounds are needed
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
    names, flat = np.unique(labels, return_inverse=True)
    labels = flat.reshape(mask.shape) + (0 if names[0] == 0 else 1)
    boxes = []
    for number in range(1, labels.max() + 1):
        rows, columns = [np.flatnonzero((labels == number).any(axis=axis)) for axis in (1, 0)]
        boxes.append((slice(rows[0], rows[-1] + 1), slice(columns[0], columns[-1] + 1)))
    return labels, boxes


def box_inside(mask, box, shape):
    """If a component is a rectangle, filled or a frame, of at least a third of the picture: what is inside, as slices.

    mask [h, w]: the component in its box.
    """
    height, width = mask.shape
    if height < shape[0] / 3 or width < shape[1] / 3 or min(height, width) < 12:
        return None
    margin_y, margin_x = height // 8 + 1, width // 8 + 1
    sides = [mask[:margin_y].any(axis=0), mask[-margin_y:].any(axis=0),
             mask[:, :margin_x].any(axis=1), mask[:, -margin_x:].any(axis=1)]
    if min(side.mean() for side in sides) < 0.95 or not (mask[0].mean() > 0.5 or mask[:, 0].mean() > 0.5):
        return None
    edge = 1 + max(np.argmin(mask[height // 2]), np.argmin(mask[:, width // 2])) if not mask.mean() > 0.5 else 2
    edge = min(edge + 1, margin_y, margin_x)
    return (slice(box[0].start + edge, box[0].stop - edge), slice(box[1].start + edge, box[1].stop - edge))


def groups(boxes):
    """Groups the boxes of components into digits, from left to right: a list of lists of component numbers, from 1 on.

    What is much smaller than the largest component and not close to it is a speck, and left out.
    """
    sized = [(max(box[0].stop - box[0].start, box[1].stop - box[1].start), number, box)
             for number, box in enumerate(boxes, 1) if box is not None]
    if not sized:
        return []
    largest = max(size for size, _, _ in sized)
    digits = []  # [left, right, top, bottom, numbers]
    for size, number, (rows, columns) in sorted(sized, key=lambda each: -each[0]):
        near = largest * (0.08 if size > largest / 5 else 0.04)
        for digit in digits:
            if columns.start < digit[1] + near and columns.stop > digit[0] - near and (
                    rows.start < digit[3] + 3 * near and rows.stop > digit[2] - 3 * near):
                digit[:] = [min(digit[0], columns.start), max(digit[1], columns.stop),
                            min(digit[2], rows.start), max(digit[3], rows.stop), digit[4] + [number]]
                break
        else:
            digits.append([columns.start, columns.stop, rows.start, rows.stop, [number]])
    tallest = max(digit[3] - digit[2] for digit in digits)
    return [digit[4] for digit in sorted(digits) if digit[3] - digit[2] > tallest * 0.4]


def crop(ink, labels, numbers):
    """The ink of some components alone, and of the weaker pixels around them."""
    mask = Image.fromarray((np.isin(labels, numbers) * 255).astype(np.uint8)).filter(ImageFilter.MaxFilter(5))
    ink = ink * (np.asarray(mask) > 0)
    rows, columns = [np.flatnonzero(ink.max(axis=axis) > 0.5) for axis in (1, 0)]
    return ink[rows[0]:rows[-1] + 1, columns[0]:columns[-1] + 1]


# ---- MNIST's form ---------------------------------------------------------------------------------

def mnist_form(ink, size):
    """The ink of a digit [h, w], 0 to 1 -> uint8 [size, size]; for MNIST, size is 28.

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
