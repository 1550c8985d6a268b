"""Your own digits: a drawing or a photo of a digit, brought to MNIST's form."""
import numpy as np
from PIL import Image, ImageFilter

import utils


def read_digit(path, size=28):
    """Reads a drawing or photo of one digit and brings it to MNIST's form: uint8 [size, size], light on dark.

    1. The picture becomes grey and at most 280 pixels large; more would only show the paper's texture.
    2. Ink is whatever differs from the background, be it darker or lighter. The background is the smooth
       surface that fits the border of the picture, so a shadow across the paper is background.
    3. The bounding box of the ink is cut out. Strokes thinner than a tenth of it are widened to that.
    4. For MNIST's 28 x 28 pixels, the digit is scaled to fit into 20 x 20, and placed so that its centre of
       mass is at pixel (14, 14).

    Raises UserError if the file is no picture, or if nothing in it stands out.
    """
    picture = Image.fromarray((utils.read_image(path).mean(axis=2) * 255).astype(np.uint8))
    picture.thumbnail((280, 280), Image.LANCZOS)
    grey = np.asarray(picture, np.float32)
    ink = np.abs(grey - background(grey))
    strongest = np.sort(ink.ravel())[-20:].min()
    if strongest < 30:
        raise utils.UserError('{}: expected a digit, dark on light or light on dark; found nothing that stands out'.format(
            path))
    ink = np.clip(ink / strongest * 2 - 0.7, 0, 1)  # 0 up to 35% of the strongest, 1 from 85% on
    rows, columns = [np.flatnonzero(ink.max(axis=axis) > 0.5) for axis in (1, 0)]
    ink = np.pad(ink[rows[0]:rows[-1] + 1, columns[0]:columns[-1] + 1], 20, mode='constant')
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


def center_by_mass(digit, size):
    """[h, w] -> uint8 [size, size], the centre of mass in the middle, as in MNIST; the brightest pixel is 255."""
    canvas = np.zeros([3 * size, 3 * size], np.float32)
    height, width = digit.shape
    mass = digit.sum(dtype=float)
    top, left = [size + size // 2 - int((digit.sum(axis=axis) * np.arange(side)).sum() / mass + 0.5)
                 for axis, side in ((1, height), (0, width))]
    canvas[top:top + height, left:left + width] = digit
    return (canvas[size:2 * size, size:2 * size] * 255 / digit.max()).astype(np.uint8)
