"""Your own digits: finds the digits in a drawing or a photo, row by row, and brings each to MNIST's form."""
import collections
import contextlib
import itertools
import os
import sys

import cv2
import numpy as np
from PIL import Image

import utils
from support import script

PICTURE_SIDES = 160, 800  # the longer side of a picture in which digits are looked for, in pixels
MOST_DIGITS = 200         # in one picture
THICKEST = 0.4            # stroke width / size of the digit; the thickest of MNIST's
NOTHING = 'nothing that stands out'

# What was found in a picture [h, w, 3]: boxes (left, top, right, bottom) and images [size, size] of the digits, in
# reading order; how many each row has; why the finding may be wrong; what is taken for no digit.
Found = collections.namedtuple('Found', 'path picture boxes images rows doubts ignored')


class Piece(collections.namedtuple('Piece', 'left top right bottom labels')):
    """The box around connected ink, or around several pieces that are one digit; labels: of its ink."""
    width = property(lambda self: self.right - self.left)
    height = property(lambda self: self.bottom - self.top)
    side = property(lambda self: max(self.width, self.height))
    area = property(lambda self: (slice(self.top, self.bottom), slice(self.left, self.right)))

    def joined(self, other):
        return Piece(min(self.left, other.left), min(self.top, other.top), max(self.right, other.right),
                     max(self.bottom, other.bottom), self.labels + other.labels)

    def borders(self, shape):
        """How many borders of a picture of this shape it touches."""
        return sum([self.left <= 1, self.top <= 1, self.right >= shape[1] - 1, self.bottom >= shape[0] - 1])


@contextlib.contextmanager
def read_pictures(paths, size):
    """Yields Found for each picture, also for all those in folders, and all digits, uint8 [n, size, size].

    A picture that cannot be read is named on stderr, and the others go on; exit status 2 then follows after the block.
    """
    errors = []
    files = itertools.chain(*without_errors(files_in, paths, errors))
    found = list(without_errors(lambda path: read_digits(path, size), dict.fromkeys(files), errors))
    if found:
        yield found, np.concatenate([picture.images for picture in found])
    if errors:
        sys.exit(2)


def without_errors(function, paths, errors):
    """Yields function(path) for each path. A UserError is printed and added to the errors instead."""
    for path in paths:
        try:
            yield function(path)
        except utils.UserError as error:
            script.print_error(str(error))
            errors.append(error)


def files_in(path):
    """The files in a folder, or the file itself. Raises UserError for a folder without files, or a closed one."""
    if not os.path.isdir(path):
        return [path]
    try:
        inside = [os.path.join(path, name) for name in sorted(os.listdir(path)) if not name.startswith('.')]
    except OSError as error:
        raise utils.UserError('{}: expected a folder of pictures; it cannot be listed ({})'.format(
            path, error.strerror))
    files = [each for each in inside if os.path.isfile(each)]
    if not files:
        raise utils.UserError('{}: expected pictures, found none'.format(path))
    return files


def read_digits(path, size=28):
    """Finds the digits in the picture of a file. Raises UserError if it is no picture or nothing looks like digits."""
    for backdrop, polarity in ('white', 1), ('white', -1), ('black', 1):  # backdrop: of what is transparent
        picture = (utils.read_image(path, most_pixels=1e6, backdrop=backdrop) * 255).astype(np.uint8)
        scale = np.clip(max(picture.shape), *PICTURE_SIDES) / max(picture.shape)
        scaled = [max(5, int(side * scale + 0.5)) for side in picture.shape[1::-1]]
        picture = np.asarray(Image.fromarray(picture).resize(scaled, Image.LANCZOS))
        try:
            return find_digits(picture, size, path, polarity)
        except ValueError as error:
            reason = str(error)
        if reason != NOTHING:
            break
    raise utils.UserError('{}: expected digits, dark on light or light on dark; found {}'.format(path, reason))


def find_digits(picture, image_size, path, polarity=1):
    """Finds the digits in a picture, uint8 [h, w, 3], or in a frame in it. ValueError says why there is none.

    polarity: -1 if light ink would be taken for dark ink, or dark ink for light ink.
    """
    window, apart = 0.4 * (picture.shape[0] * picture.shape[1]) ** 0.5, max(picture.shape) / 280
    for _ in range(2):  # the second time, it is known how large the digits are
        contrast, lines = without_lines(local_contrast(picture, window, polarity))
        mask, threshold = mask_of(contrast)
        labels, pieces = connected(mask, max(1, int(apart)))
        size = usual_size(pieces, mask.shape)
        window, apart = 0.6 * size, 0.03 * size
    for inside in [] if lines else filter(None, (inside_of(piece, labels) for piece in pieces)):
        with contextlib.suppress(ValueError):
            found = find_digits(picture[inside], image_size, path)
            return found._replace(ignored=found.ignored + ['a frame'])
    kept = without_borders(pieces, size, mask.shape)
    digits, specks = join(kept, size)
    if not digits:
        raise ValueError(NOTHING)
    if len(digits) > MOST_DIGITS:
        raise ValueError('too many shapes')

    rows = in_rows(digits, size)
    digits = list(itertools.chain(*rows))
    own = [np.isin(labels[digit.area], digit.labels) for digit in digits]
    inks = [ink_of(contrast[digit.area], each, size) for digit, each in zip(digits, own)]
    strokes = np.isin(labels, list(itertools.chain(*[digit.labels for digit in digits])))
    faint = dilated(strokes, 0.25 * size) & ~dilated(mask, 0.1 * size) & (contrast > 0.6 * threshold)
    doubts = {'pieces were joined': any(len(digit.labels) > 1 for digit in digits),
              'pieces left out': any(piece.side > 0.2 * size and not piece.borders(mask.shape) for piece in specks),
              'strokes too thick': any(thickness(each) > THICKEST * max(each.shape) for each in own),
              'strokes too faint': faint.sum() > 0.05 * strokes.sum(),
              'digits may touch': any(digit.width > 1.4 * size or digit.height > 1.6 * size for digit in digits),
              'ink at border': any(digit.borders(mask.shape) for digit in digits)}
    ignored = {'lines': lines, 'specks': len(specks), 'shapes at borders': len(pieces) - len(kept)}
    return Found(path, picture, [digit[:4] for digit in digits], [mnist_form(ink, image_size) for ink in inks],
                 [len(row) for row in rows], [doubt for doubt, holds in doubts.items() if holds],
                 ['{}: {}'.format(what, count) for what, count in ignored.items() if count])


# ---- Ink on paper ---------------------------------------------------------------------------------------

def local_contrast(picture, window, polarity):
    """How much each pixel of a picture [h, w, 3] differs from the paper around it, in any colour: float32 [h, w].

    Paper is what remains, in each channel, if all is removed that is darker (or lighter) and narrower than the window,
    by morphological opening. A shadow stays, and so does what is wide, such as a table.
    """
    scale = min(1, 320 / max(picture.shape))
    small = cv2.GaussianBlur(cv2.resize(picture, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA), (0, 0), 1)
    median = cv2.medianBlur(small, int(min(small.shape[:2]) / 1.3) | 1)
    sign = np.sign(np.power(small.astype(np.float32) - median, 3).mean(axis=(0, 1))) * polarity  # -1: ink is darker
    wide = cv2.morphologyEx(small * sign, cv2.MORPH_OPEN, np.ones([int(window * scale) | 1] * 2))
    paper = cv2.GaussianBlur(cv2.dilate(wide, np.ones([5, 5])), (0, 0), 2)
    ink = cv2.GaussianBlur(picture, (0, 0), 0.8) * sign - cv2.resize(paper, picture.shape[1::-1])
    return np.sqrt(np.square(np.maximum(ink, 0)).mean(axis=2)).astype(np.float32)


def without_lines(contrast):
    """Contrast [h, w] without lines from border to border, also slightly slanted ones; also says how many.

    In a line, only what is higher than the line stays: a stroke that crosses it.
    """
    count = 0
    for _ in 'rows', 'columns':
        lines, found, thickest = lines_across(contrast)
        crossing = cv2.morphologyEx(contrast, cv2.MORPH_OPEN, np.ones([thickest + 1, 1]))
        contrast = np.ascontiguousarray(np.where(lines, crossing, contrast).T)
        count += found
    return contrast, count


def lines_across(contrast):
    """Where lines from the left to the right border are, [h, w], how many, and how thick they are."""
    height, width = contrast.shape
    dark = cv2.dilate((contrast > 2 * np.percentile(contrast, 25) + 6).astype(np.uint8), np.ones([3, 1]))
    lines, count, thickest = np.zeros_like(dark), 0, 0
    for start, thick in line_ends(dark[:, :width // 10 + 1]):
        for end, _ in line_ends(dark[:, -width // 10:]):
            y, x = np.linspace(start, end, width), np.arange(width)
            if abs(start - end) < 0.04 * width and dark[y.astype(int), x].mean() > 0.95:
                lines |= np.abs(np.arange(height)[:, np.newaxis] - y) < thick / 2 + 1
                count, thickest = count + 1, max(thickest, thick)
    return lines > 0, count, thickest


def line_ends(strip):
    """(y, thickness) of what goes straight through a strip of a picture, [h, w]."""
    straight = cv2.morphologyEx(np.ascontiguousarray(strip), cv2.MORPH_OPEN, np.ones([1, strip.shape[1] // 2 + 1]))
    _, _, stats, centers = cv2.connectedComponentsWithStats(straight)
    return [(y, stat[cv2.CC_STAT_HEIGHT]) for stat, (_, y) in zip(stats[1:], centers[1:])
            if stat[cv2.CC_STAT_WIDTH] == strip.shape[1] and stat[cv2.CC_STAT_HEIGHT] < strip.shape[1]]


def mask_of(contrast):
    """A mask of the ink, and its threshold, both [h, w]: a share of the strongest contrast nearby.

    By hysteresis: ink is what is connected to stronger ink, so a stroke may fade towards its end.
    """
    noise = 2 * np.percentile(contrast, 25) + 1
    strongest = cv2.dilate(cv2.GaussianBlur(contrast, (0, 0), 1), np.ones([max(contrast.shape) // 12 | 1] * 2))
    threshold = np.maximum(0.3 * strongest, 4 * noise + 6)
    sure = contrast > np.maximum(0.55 * strongest, 4 * noise + 12)
    _, labels = cv2.connectedComponents((contrast > threshold).astype(np.uint8))
    return np.isin(labels, np.unique(labels[sure & (labels > 0)])), threshold


def dilated(mask, reach):
    return cv2.dilate(mask.astype(np.uint8), np.ones([2 * max(1, int(reach)) + 1] * 2)) > 0


# ---- Pieces, digits, rows ---------------------------------------------------------------------------------

def connected(mask, apart):
    """Labels [h, w] and the Pieces of ink, a mask [h, w]; gaps of twice `apart` pixels do not part them."""
    wide = dilated(np.pad(mask, apart, mode='constant'), apart)
    _, labels, stats, _ = cv2.connectedComponentsWithStats(wide.astype(np.uint8))
    pieces = [Piece(left, top, left + width - 2 * apart, top + height - 2 * apart, [label])
              for label, (left, top, width, height, _) in enumerate(stats.tolist()) if label]
    if len(pieces) > 5 * MOST_DIGITS:
        raise ValueError('too many shapes')
    return labels[apart:-apart, apart:-apart] * mask, pieces


def inside_of(piece, labels):
    """The two slices inside of a piece that is a frame or a filled rectangle, of a third of the picture or more."""
    own = labels[piece.area] == piece.labels
    hull = cv2.contourArea(cv2.convexHull(np.argwhere(own).astype(np.int32)))
    edge = 3 if own.mean() > 0.5 else thickness(own) + 2
    large = min(own.shape) > 2 * edge + 12 and np.all(np.multiply(own.shape, 3) > labels.shape)
    if large and hull > 0.95 * own.size:
        return slice(piece.top + edge, piece.bottom - edge), slice(piece.left + edge, piece.right - edge)
    return None


def usual_size(pieces, shape):
    """The height of digits: a median of the pieces, in which a large one counts for more."""
    inner = [piece for piece in pieces if not piece.borders(shape)]
    sizes = np.sort([max(piece.height, 0.6 * piece.width) for piece in inner or pieces] or [max(shape)])
    return sizes[np.searchsorted(np.cumsum(sizes), sizes.sum() / 2)]


def without_borders(pieces, size, shape):
    """Without pieces at the border that are a shadow or the corner of a table, if there are others."""
    inner = any(not piece.borders(shape) and piece.height > size / 2 for piece in pieces)
    return [piece for piece in pieces
            if not inner or not piece.borders(shape) or piece.borders(shape) == 1]


def join(pieces, size):
    """Joins pieces to digits, the smallest first. Returns digits, and specks: what is much smaller than a digit."""
    done, waiting = [], list(pieces)
    few = sum(piece.height > 0.75 * size for piece in pieces) < 4
    while waiting:
        piece = min(waiting, key=lambda piece: piece.side)
        waiting.remove(piece)
        near = [other for other in waiting if piece.side > 0.15 * size and are_one(piece, other, size, few)]
        if near:
            other = min(near, key=lambda other: piece.joined(other).side)
            waiting.remove(other)
            waiting.append(piece.joined(other))
        else:
            done.append(piece)
    digits = [piece for piece in done if piece.height > 0.4 * size]
    return digits, [piece for piece in done if piece not in digits]


def are_one(piece, other, size, few):
    """Whether a piece and another one, as large or larger, are one digit. few: whether there are few large pieces."""
    both = piece.joined(other)
    x, y = both.width - piece.width - other.width, both.height - piece.height - other.height  # gaps
    if x > 0.08 * size or y > 0.24 * size:
        return False
    if few and max(x, y) < 0.06 * both.height and both.width < 1.2 * both.height:
        return True  # the pieces of a few digits say little about the size of a digit
    return piece.side < 0.75 * size and both.height < 1.35 * size and both.width < 1.2 * size


def in_rows(digits, size):
    """The digits, row by row, from top to bottom, and in each from left to right, also of slanted rows."""
    x, y = np.array([[digit.left + digit.right, digit.top + digit.bottom] for digit in digits]).T / 2
    dx, dy = [(each[:, np.newaxis] - each).ravel() for each in (x, y)]
    beside = (dx > 0) & (dx < 4 * size) & (np.abs(dy) < 0.3 * dx)
    heights = y - x * (np.median(dy[beside] / dx[beside]) if beside.any() else 0)
    rows = []
    for index in np.argsort(heights):
        if not rows or heights[index] - np.mean(heights[rows[-1]]) > 0.5 * size:
            rows.append([])
        rows[-1].append(index)
    return [[digits[index] for index in sorted(row, key=lambda index: x[index])] for row in rows]


def thickness(mask):
    """The width of the thickest stroke of a digit, a mask [h, w], in pixels."""
    return 2 * int(cv2.distanceTransform(np.pad(mask, 1, mode='constant').astype(np.uint8), cv2.DIST_C, 3).max()) - 1


# ---- The form of MNIST's digits ---------------------------------------------------------------------------

def ink_of(contrast, own, size):
    """The ink of a digit, [h, w], 0 to 1: its contrast, relative to the strongest nearby, so that faint parts count."""
    contrast = contrast * dilated(own, 1)
    strongest = cv2.GaussianBlur(cv2.dilate(contrast, np.ones([int(size / 5) | 1] * 2)), (0, 0), size / 10)
    usual = np.percentile(contrast[own], 90)
    return np.clip(contrast / np.clip(strongest, 0.35 * usual, usual) * 2 - 0.7, 0, 1)


def mnist_form(ink, size):
    """The ink of a digit [h, w], 0 to 1 -> uint8 [size, size], light on dark; for MNIST, size is 28.

    Strokes thinner than a tenth of the digit are widened to that. The digit is scaled to fit into 20 x 20, and placed
    so that its centre of mass is at pixel (14, 14).
    """
    ink = np.pad(ink, 20, mode='constant')
    edges = np.abs(np.diff(ink, axis=0)).sum() + np.abs(np.diff(ink, axis=1)).sum()
    missing = (max(ink.shape) - 40) / 10 - 2 * ink.sum() / edges  # area / edges: half a stroke's width
    reach = 2 * max(0, int(round(missing / 2))) + 1
    digit = Image.fromarray((cv2.dilate(ink, np.ones([reach, reach])) * 255).astype(np.uint8))
    digit = digit.crop(digit.getbbox())
    scale = size * 20 / 28 / max(digit.size)
    wide, high = [max(1, int(side * scale + 0.5)) for side in digit.size]
    for scaled in (wide, digit.height), (wide, high):  # width first; Pillow's own order varies
        digit = digit.resize(scaled, Image.LANCZOS)
    values = np.asarray(digit, np.float32)
    top, left = [size + size // 2 - int((values.sum(axis=axis) * np.arange(side)).sum() / values.sum() + 0.5)
                 for axis, side in ((1, high), (0, wide))]
    canvas = np.zeros([3 * size, 3 * size], np.float32)
    canvas[top:top + high, left:left + wide] = values
    return (canvas[size:2 * size, size:2 * size] * 255 / values.max()).astype(np.uint8)
