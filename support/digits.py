"""Your own digits: finds the digits in a drawing or a photo, row by row, and brings each to MNIST's form."""
import collections
import contextlib
import os
import sys

import cv2
import numpy as np

import utils
from support import own_data, script

PICTURE_SIDES = 160, 800  # the longer side of a picture in which digits are looked for, in pixels
MOST_DIGITS = 200         # in one picture
THICKEST = 0.4            # stroke width / size of the digit; the thickest of MNIST's
NOTHING = 'nothing that stands out'

# What was found in a picture [h, w, 3]: boxes (left, top, right, bottom) and images [size, size] of the digits, in
# reading order; how many each row has; why the finding may be wrong; what is taken for no digit.
Found = collections.namedtuple('Found', 'path picture boxes images rows doubts ignored')
# Contrast, the least contrast that is ink, labels of the pieces, [h, w]; how high most digits are; lines across.
Ink = collections.namedtuple('Ink', 'contrast threshold labels pieces size lines')


class Piece(collections.namedtuple('Piece', 'left top right bottom borders labels')):
    """The box around connected ink, or around several pieces that are one digit; borders: how many it touches."""
    width = property(lambda self: self.right - self.left)
    height = property(lambda self: self.bottom - self.top)
    side = property(lambda self: max(self.width, self.height))
    area = property(lambda self: (slice(self.top, self.bottom), slice(self.left, self.right)))

    def joined(self, other):
        return Piece(min(self.left, other.left), min(self.top, other.top), max(self.right, other.right),
                     max(self.bottom, other.bottom), max(self.borders, other.borders), self.labels + other.labels)


@contextlib.contextmanager
def read_pictures(paths, size, saved={'are_digits': True}):
    """Yields Found for each picture, also for all those in folders, and all digits, uint8 [n, size, size].

    saved: what a checkpoint's JSON says of the training images. If they are no digits, a whole picture is one image.
    A picture that cannot be read is named on stderr, and the others go on; exit status 2 then follows after the block.
    """
    errors = []

    def read(path):
        return read_digits(path, size) if saved['are_digits'] else read_whole(path, size, saved['background'])

    found = list(found_in(paths, read, errors))
    if found:
        yield found, np.concatenate([picture.images for picture in found])
    if errors:
        sys.exit(2)


def found_in(paths, read, errors):
    """Yields Found for each picture. A UserError is printed and added to the errors instead."""
    for path in paths:
        try:
            if os.path.isdir(path):
                yield from found_in(own_data.files_in(path), read, errors)
            else:
                yield read(path)
        except utils.UserError as error:
            script.print_error(str(error))
            errors.append(error)


def read_whole(path, size, background):
    picture = utils.read_image(path, most_pixels=1e6)
    height, width = picture.shape[:2]
    image = own_data.image_of(picture, size, background)
    return Found(path, (picture * 255).astype(np.uint8), [(0, 0, width, height)], [image], [1], [], [])


def read_digits(path, size=28):
    """Finds the digits in the picture of a file. Raises UserError if it is no picture or nothing looks like digits."""
    for backdrop, window in ('white', 0.4), ('black', 2):  # backdrop: of what is transparent
        picture = (utils.read_image(path, most_pixels=1e6, backdrop=backdrop) * 255).astype(np.uint8)
        scale = np.clip(max(picture.shape), *PICTURE_SIDES) / max(picture.shape)
        sides = [max(5, int(side * scale + 0.5)) for side in picture.shape[1::-1]]
        picture = cv2.resize(picture, tuple(sides), interpolation=cv2.INTER_AREA if scale < 1 else cv2.INTER_CUBIC)
        try:
            return find_digits(picture, path, size, window)
        except ValueError as error:
            reason = error
    raise utils.UserError('{}: expected digits, dark on light or light on dark; found {}'.format(path, reason))


def find_digits(picture, path, image_size, window):
    """Finds the digits in a picture, uint8 [h, w, 3], or in a frame in it. ValueError says why there is none."""
    ink = find_ink(picture, window * min(picture.shape[:2]))
    for inside in filter(None, [inside_of(piece, ink.labels) for piece in ink.pieces]):
        with contextlib.suppress(ValueError):
            found = find_digits(picture[inside], path, image_size, window)
            return found._replace(ignored=found.ignored + ['a frame'])
    inner = any(not piece.borders and piece.height > ink.size / 2 for piece in ink.pieces)
    kept = [piece for piece in ink.pieces if piece.borders < 2 or not inner]  # no shadow, no corner of a table
    joined = join(kept, ink.size)
    digits = [piece for piece in joined if piece.height > 0.4 * ink.size]
    specks = [piece for piece in joined if piece not in digits]
    if not digits:
        raise ValueError(NOTHING)
    rows = in_rows(digits, ink.size)
    digits = [digit for row in rows for digit in row]
    doubts = doubts_about(digits, specks, ink)
    if len(digits) > MOST_DIGITS or len(doubts) > 3:
        raise ValueError('no clear digits: ' + (', '.join(doubts) or 'too many shapes'))
    ignored = {'lines': ink.lines, 'specks': len(specks), 'shapes at borders': len(ink.pieces) - len(kept),
               'dark areas': dark_areas(picture, ink)}
    return Found(path, picture, [digit[:4] for digit in digits],
                 [mnist_form(ink_of(digit, ink), image_size) for digit in digits], [len(row) for row in rows], doubts,
                 ['{}: {}'.format(what, count) for what, count in ignored.items() if count])


def doubts_about(digits, specks, ink):
    """Why the digits that were found may not be what was written: a few words for each reason."""
    own = [np.isin(ink.labels[digit.area], digit.labels) for digit in digits]
    strokes = np.isin(ink.labels, [label for digit in digits for label in digit.labels])
    faint = dilated(strokes, 0.25 * ink.size) & ~dilated(ink.labels > 0, 0.1 * ink.size)
    doubts = {'pieces were joined': any(len(digit.labels) > 1 for digit in digits),
              'pieces left out': any(speck.side > 0.15 * ink.size and not speck.borders for speck in specks),
              'strokes too thick': any(thickness(each) > THICKEST * max(each.shape) for each in own),
              'strokes too faint': (faint & (ink.contrast > 0.6 * ink.threshold)).sum() > 0.05 * strokes.sum(),
              'digits may touch': any(digit.width > 1.4 * ink.size or digit.height > 1.6 * ink.size
                                      for digit in digits),
              'ink at border': any(digit.borders for digit in digits)}
    return [doubt for doubt, holds in doubts.items() if holds]


def dark_areas(picture, ink):
    """How many parts of the picture are as far from the usual brightness as ink, but too wide for a stroke."""
    grey = picture.mean(axis=2) - np.median(picture.mean(axis=2))
    usual = np.median(grey[ink.labels > 0])
    wide = np.ones([int(ink.size / 2) + 1] * 2)
    dark = cv2.morphologyEx((grey * np.sign(usual) > 0.8 * np.abs(usual)).astype(np.uint8), cv2.MORPH_OPEN, wide)
    return cv2.connectedComponents(dark)[0] - 1


# ---- Ink on paper ---------------------------------------------------------------------------------------

def find_ink(picture, window):
    """The Ink of a picture [h, w, 3]. ValueError: there is none, or too many pieces."""
    lines, apart = None, max(picture.shape) / 280
    for _ in range(2):  # the second time, it is known how large the digits are
        contrast = local_contrast(picture, window)
        lines = lines or [lines_across(contrast), lines_across(np.ascontiguousarray(contrast.T))]
        for where, thickest, _ in lines:  # of a line, only what is higher stays: a stroke that crosses it
            crossing = cv2.morphologyEx(contrast, cv2.MORPH_OPEN, np.ones([thickest + 1, 1]))
            contrast = np.ascontiguousarray(np.where(where, crossing, contrast).T)
        mask, threshold = mask_of(contrast)
        labels, pieces = connected(mask, max(1, int(apart)))
        if not 0 < len(pieces) < 5 * MOST_DIGITS:
            raise ValueError('too many shapes' if pieces else NOTHING)
        inner = [piece for piece in pieces if not piece.borders] or pieces
        sizes = np.sort([max(piece.height, 0.6 * piece.width) for piece in inner])
        sizes = sizes[sizes > sizes[-1] / 4]  # no specks
        size = sizes[np.searchsorted(np.cumsum(sizes), sizes.sum() / 2)]  # a median in which large ones count for more
        window, apart = 0.6 * size, 0.02 * size
    return Ink(contrast, threshold, labels, pieces, size, sum(count for _, _, count in lines))


def local_contrast(picture, window):
    """How much each pixel of a picture [h, w, 3] differs from the paper around it, in any colour: float32 [h, w].

    Paper is what remains, in each channel, if all is removed that is darker (or lighter) and narrower than the window,
    by morphological opening. A shadow stays, and so does what is wide, such as a table.
    """
    scale = min(1, 320 / max(picture.shape))
    small = cv2.GaussianBlur(cv2.resize(picture, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA), (0, 0), 1)
    median = cv2.medianBlur(small, int(min(small.shape[:2]) / 1.3) | 1)
    sign = np.sign(np.power(small.astype(np.float32) - median, 3).mean(axis=(0, 1)))  # -1: ink is darker
    paper = cv2.morphologyEx(small * sign, cv2.MORPH_OPEN, np.ones([int(window * scale) | 1] * 2))
    paper = cv2.dilate(paper, np.ones([5, 5]))  # the blurred edge of a table is no ink
    ink = cv2.GaussianBlur(picture, (0, 0), 0.8) * sign - cv2.resize(paper, picture.shape[1::-1])
    return np.sqrt(np.square(np.maximum(ink, 0)).mean(axis=2)).astype(np.float32)


def lines_across(contrast):
    """Where lines from the left to the right border are, also slanted ones, [h, w]; how thick, and how many."""
    longest = max(contrast.shape)
    dark = cv2.dilate((contrast > 2 * np.percentile(contrast, 25) + 6).astype(np.uint8), np.ones([3, 1]))
    straight = cv2.morphologyEx(dark, cv2.MORPH_OPEN, np.ones([1, longest // 10 + 1]))
    _, labels, stats, _ = cv2.connectedComponentsWithStats(straight)
    lines, thickest, count = np.zeros(contrast.shape, bool), 0, 0
    for label in np.flatnonzero(stats[:, cv2.CC_STAT_WIDTH] > 0.95 * contrast.shape[1])[1:]:
        heights = (labels == label).sum(axis=0)
        thick = np.percentile(heights, 20)
        if thick < longest / 100 + 5:
            lines |= (labels == label) & (heights < 1.5 * thick)  # where no stroke lies along the line
            thickest, count = max(thickest, int(thick)), count + 1
    return lines, thickest, count


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


def thickness(mask):
    """The width of the thickest stroke of a digit, a mask [h, w], in pixels."""
    return 2 * int(cv2.distanceTransform(np.pad(mask, 1, mode='constant').astype(np.uint8), cv2.DIST_C, 3).max()) - 1


# ---- Pieces, digits, rows ---------------------------------------------------------------------------------

def connected(mask, apart):
    """Labels [h, w] and the Pieces of ink, a mask [h, w]; gaps of twice `apart` pixels do not part them."""
    wide = dilated(np.pad(mask, apart, mode='constant'), apart)
    _, labels, stats, _ = cv2.connectedComponentsWithStats(wide.astype(np.uint8))
    pieces = []
    for label, (left, top, width, height, _) in enumerate(stats[1:].tolist(), 1):
        right, bottom = left + width - 2 * apart, top + height - 2 * apart
        borders = sum([left <= 1, top <= 1, right >= mask.shape[1] - 1, bottom >= mask.shape[0] - 1])
        pieces.append(Piece(left, top, right, bottom, borders, [label]))
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


def join(pieces, size):
    """Joins pieces that are one digit, the smallest first. Returns all pieces."""
    done, waiting = [], list(pieces)
    few = sum(piece.height > 0.75 * size for piece in pieces) < 4
    while waiting:
        piece = min(waiting, key=lambda piece: piece.side)
        waiting.remove(piece)
        near = [other for other in waiting if are_one(piece, other, size, few)]
        if near:
            other = min(near, key=lambda other: piece.joined(other).side)
            waiting.remove(other)
            waiting.append(piece.joined(other))
        else:
            done.append(piece)
    return done


def are_one(piece, other, size, few):
    """Whether a piece and another one, as large or larger, are one digit. few: whether there are few large pieces."""
    x = max(piece.left, other.left) - min(piece.right, other.right)
    y = max(piece.top, other.top) - min(piece.bottom, other.bottom)
    if x > 0.08 * size or y > 0.24 * size or piece.side < 0.15 * size:
        return False
    both = piece.joined(other)
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


# ---- The form of MNIST's digits ---------------------------------------------------------------------------

def ink_of(digit, ink):
    """Of a digit, [h, w], 0 to 1: its contrast, relative to the strongest nearby, so that faint parts count."""
    own = np.isin(ink.labels[digit.area], digit.labels)
    contrast = ink.contrast[digit.area] * dilated(own, 1)
    strongest = cv2.GaussianBlur(cv2.dilate(contrast, np.ones([int(ink.size / 5) | 1] * 2)), (0, 0), ink.size / 10)
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
    ink = cv2.dilate(ink, np.ones([2 * max(0, int(round(missing / 2))) + 1] * 2))
    left, top, width, height = cv2.boundingRect((ink > 0).astype(np.uint8))
    scale = size * 20 / 28 / max(width, height)
    wide, high = max(1, int(width * scale + 0.5)), max(1, int(height * scale + 0.5))
    canvas = np.zeros([size, size], np.float32)
    canvas[:high, :wide] = cv2.resize(ink[top:top + height, left:left + width], (wide, high),
                                      interpolation=cv2.INTER_AREA)
    mass = cv2.moments(canvas)
    x, y = [size // 2 - int(mass[name] / mass['m00'] + 0.5) for name in ('m10', 'm01')]
    canvas = cv2.warpAffine(canvas, np.float32([[1, 0, x], [0, 1, y]]), (size, size))
    return (canvas * 255 / canvas.max()).astype(np.uint8)
