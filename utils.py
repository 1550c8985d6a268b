"""What both lessons do with data: MNIST, pictures, your own digits, distortions, batches."""
import collections
import concurrent.futures
import functools
import gzip
import hashlib
import itertools
import operator
import os
import struct
import warnings
import zlib

import numpy as np

HERE = os.path.dirname(os.path.abspath(__file__))
MNIST_DIR = os.path.join(HERE, 'data', 'mnist')
MNIST_SHA256 = {  # of what the files in data/mnist unpack to
    'train-images-idx3-ubyte.gz': 'ba891046e6505d7aadcbbe25680a0738ad16aec93bde7f9b65e87a2fc25776db',
    'train-labels-idx1-ubyte.gz': '65a50cbbf4e906d70832878ad85ccda5333a97f0f4c3dd2ef09a8a9eef7101c5',
    't10k-images-idx3-ubyte.gz': '0fa7898d509279e482958e8ce81c8e77db3f2f8254e26661ceb7762c4d494ce7',
    't10k-labels-idx1-ubyte.gz': 'ff7bcfd416de33731a308c3f266cc351222c34898ecbeaf847f06e48f7ec33f2'}

Digits = collections.namedtuple('Digits', 'images labels')  # uint8 [n, 28, 28] and uint8 [n]
Mnist = collections.namedtuple('Mnist', 'train validation test')


class UserError(Exception):
    """What the user can put right: says what was wrong, what was expected and what to do."""


# ---- MNIST ---------------------------------------------------------------------------------------

def read_mnist(directory):
    """Reads a data set in MNIST's form, for example MNIST itself or Fashion-MNIST.

    Returns Mnist(train, validation, test), each Digits of uint8 images [n, 28, 28], 0 to 255,
    and uint8 labels [n], 0 to 9. The first twelfth of the training file (MNIST: 5,000) is the
    validation set, as in TensorFlow's own tutorials. The files in data/mnist are checked
    against their published SHA-256. Raises UserError for files that are missing or damaged.
    """
    train, test = read_digits(directory, 'train'), read_digits(directory, 't10k')
    held_out = len(train.labels) // 12
    if held_out == 0:
        raise UserError('{}: expected at least 12 training digits, found {}'.format(
            directory, len(train.labels)))
    return Mnist(train=Digits(train.images[held_out:], train.labels[held_out:]),
                 validation=Digits(train.images[:held_out], train.labels[:held_out]), test=test)


def fingerprint(mnist):
    """A short text that is the same for the same digits only."""
    sha256 = hashlib.sha256()
    for array in itertools.chain(*mnist):
        sha256.update(array)
    return sha256.hexdigest()[:12]


def read_digits(directory, name):
    """Reads the images and the labels of 'train' or 't10k' and checks that they fit each other."""
    images_path = find_idx(directory, name + '-images', 3)
    labels_path = find_idx(directory, name + '-labels', 1)
    digits = Digits(read_idx(images_path, 3), read_idx(labels_path, 1))
    if digits.images.shape[1:] != (28, 28):
        raise UserError('{}: expected pictures of 28 x 28 pixels, found {} x {}'.format(
            images_path, *digits.images.shape[1:]))
    if len(digits.images) != len(digits.labels):
        raise UserError('{}: expected one label for each of the {:,} pictures, found {:,}'.format(
            labels_path, len(digits.images), len(digits.labels)))
    if digits.labels.max() > 9:
        raise UserError('{}: expected labels from 0 to 9, found {}'.format(labels_path, digits.labels.max()))
    return digits


def find_idx(directory, name, dimensions):
    """Some tools write train-images-idx3-ubyte, others train-images.idx3-ubyte; either may be gzipped."""
    for dot in '-.':
        for ending in '.gz', '':
            path = os.path.join(directory, '{}{}idx{}-ubyte{}'.format(name, dot, dimensions, ending))
            if os.path.exists(path):
                return path
    raise UserError('{}: expected {}-idx{}-ubyte, plain or .gz, found no such file; see data/README.md'.format(
        directory, name, dimensions))


def read_idx(path, dimensions):
    """Reads an IDX file of unsigned bytes, plain or gzipped: uint8 with 1 or 3 dimensions.

    Raises UserError if the file is damaged, or is another one. Takes no more memory than a
    small multiple of what the file really holds, whatever its header claims.
    """
    magic = bytes([0, 0, 8, dimensions])  # 8 stands for unsigned bytes
    try:
        with open(path, 'rb') as file:
            zipped = file.read(2) == b'\x1f\x8b'
        with (gzip.open if zipped else open)(path, 'rb') as stream:
            header = stream.read(4 + 4 * dimensions)
            if header[:4] != magic or len(header) < 4 + 4 * dimensions:
                raise UserError('{}: expected an IDX file, which begins with the bytes {}, found {}'.format(
                    path, magic.hex(), header[:4].hex() or 'an empty file'))
            shape = struct.unpack('>{}I'.format(dimensions), header[4:])
            size = functools.reduce(operator.mul, shape)  # not np.prod: a header may claim more than int64 holds
            if size == 0:
                raise UserError('{}: expected at least one picture or label, found none'.format(path))
            data = bytearray()
            while len(data) <= size:  # one byte too many shows that the header is wrong
                piece = stream.read(1 << 20)
                if not piece:
                    break
                data += piece
    except (OSError, EOFError, zlib.error) as error:
        raise UserError('{}: cannot be read ({}); copy it anew'.format(path, error.args[-1]))
    if len(data) != size:
        raise UserError('{}: expected {:,} bytes after the header, found {}; copy it anew'.format(
            path, size, 'more' if len(data) > size else '{:,}'.format(len(data))))
    folder, name = os.path.split(os.path.realpath(path))
    if folder == os.path.realpath(MNIST_DIR) and name in MNIST_SHA256:
        found = hashlib.sha256(header + data).hexdigest()
        if found != MNIST_SHA256[name]:
            raise UserError('{}: expected SHA-256 {}, found {}; copy it anew'.format(
                path, MNIST_SHA256[name], found))
    return np.frombuffer(data, np.uint8).reshape(shape)


# ---- The training digits on their way into the network -------------------------------------------

def distort(images, pixels, random):
    """Draws each image [n, h, w] on a sheet of rubber and pulls at it at random: uint8 -> uint8, the same shape.

    Where a pixel comes from is its place plus a sum of 4 x 4 cosine waves. The longest, a constant,
    shifts the image by about `pixels`; the next stretch, shear and turn it; the short ones bend it.
    random: a numpy RandomState.
    """
    count, height, width = images.shape
    rows, columns = [np.arange(size, dtype=np.float32) for size in (height, width)]
    waves = [np.cos(np.pi / len(places) * np.outer(places + 0.5, np.arange(4, dtype=np.float32)))
             for places in (rows, columns)]
    heights = pixels / (1 + np.arange(4)[:, np.newaxis] + np.arange(4))  # the shorter the wave, the lower
    amplitudes = (random.normal(size=[count, 2, 4, 4]) * heights).astype(np.float32)
    dy, dx = np.moveaxis(waves[0] @ amplitudes @ waves[1].T, 1, 0)
    return (bilinear(images, rows[:, np.newaxis] + dy, columns + dx) + 0.5).astype(np.uint8)


def bilinear(images, y, x):
    """The values of images [n, h, w] at y and x [n, h, w], in pixels, not only whole ones -> float32 [n, h, w].

    Beyond the border the border's value goes on.
    """
    count, height, width = images.shape
    y, x = np.clip(y, 0, height - 1.001), np.clip(x, 0, width - 1.001)
    top, left = y.astype(np.int32), x.astype(np.int32)
    y -= top  # now: how far from there to the next pixel
    x -= left
    corner = (np.arange(count)[:, np.newaxis, np.newaxis] * height + top) * width + left
    flat = images.ravel().astype(np.float32)
    above = flat[corner] * (1 - x) + flat[corner + 1] * x
    below = flat[corner + width] * (1 - x) + flat[corner + width + 1] * x
    return above * (1 - y) + below * y


def batches(digits, batch_size, pixels, seed, epoch, first):
    """Yields the (images, labels) of an epoch from batch number `first` on, the last one smaller.

    Order and distortions depend on seed, epoch and place alone, so a resumed run goes on where it stopped.
    """
    order = np.random.RandomState([seed, epoch]).permutation(len(digits.labels))
    for start in range(first * batch_size, len(order), batch_size):
        chosen = order[start:start + batch_size]
        images = digits.images[chosen]
        if pixels:
            images = distort(images, pixels, np.random.RandomState([seed, epoch, start]))
        yield images, digits.labels[chosen]


def ahead(items):
    """Yields the items of an iterator. While the caller works on one, a thread prepares the next."""
    with concurrent.futures.ThreadPoolExecutor(1) as thread:
        coming = thread.submit(next, items, None)
        while True:
            item = coming.result()
            if item is None:
                return
            coming = thread.submit(next, items, None)
            yield item


# ---- Pictures ------------------------------------------------------------------------------------

def read_image(path):
    """Reads any picture that Pillow can read: float32 [height, width, 3], RGB, 0 to 1.

    Turned upright as its EXIF data say, the first frame of an animation, transparent parts on
    white, 16 bits at full precision. Raises UserError for anything else.
    """
    from PIL import Image, ImageOps
    try:
        with warnings.catch_warnings():
            warnings.simplefilter('ignore')  # of harmless damage, say to EXIF data
            warnings.simplefilter('error', Image.DecompressionBombWarning)
            image = ImageOps.exif_transpose(Image.open(path))  # also loads it
        if image.mode[0] in 'IF':  # 16 or 32 bits of grey, which Pillow would clip at 255
            grey = np.nan_to_num(np.asarray(image, np.float32))
            grey /= 65535 if image.mode[0] == 'I' else 1 if grey.max() <= 1 else 255
            return np.repeat(np.clip(grey, 0, 1)[:, :, np.newaxis], 3, axis=2)
        if image.mode in ('RGBA', 'LA', 'PA', 'RGBa', 'La') or 'transparency' in image.info:
            image = image.convert('RGBA')
            image = Image.alpha_composite(Image.new('RGBA', image.size, 'white'), image)
        return np.asarray(image.convert('RGB'), np.float32) / 255
    except Image.UnidentifiedImageError:
        raise UserError('{}: expected a picture, found something else'.format(path))
    except (Image.DecompressionBombWarning, Image.DecompressionBombError) as error:
        raise UserError('{}: expected a picture of ordinary size ({})'.format(path, str(error).split(',')[0]))
    except Exception as error:  # Pillow's readers raise many kinds for damaged files
        raise UserError('{}: expected a whole picture, found: {}'.format(
            path, getattr(error, 'strerror', None) or str(error).split('\n')[0] or type(error).__name__))


def read_digit(path):
    """Reads a drawing or photo of one digit and brings it to MNIST's form: uint8 [28, 28], light on dark.

    1. Grey, and shrunk to 280 pixels: more would only be the paper's texture.
    2. Ink is what differs from the paper, be it darker or lighter. The paper is the smooth surface
       that fits the picture's border, so a shadow that falls across it is paper.
    3. The part with ink is cut out, and its strokes made a tenth of its size wide where they are thinner.
    4. It is fitted into 20 x 20, which keeps its proportions, and laid into 28 x 28 so that its centre
       of mass is at pixel (14, 14), where MNIST's digits have theirs.

    Raises UserError if the file is no picture, or nothing on it stands out.
    """
    from PIL import Image, ImageFilter
    picture = Image.fromarray((read_image(path).mean(axis=2) * 255).astype(np.uint8))
    picture.thumbnail((280, 280), Image.LANCZOS)
    grey = np.asarray(picture, np.float32)
    ink = np.abs(grey - paper(grey))
    strongest = np.sort(ink.ravel())[-20:].min()
    if strongest < 30:
        raise UserError('{}: expected a digit, dark on light or light on dark; '
                        'found nothing that stands out'.format(path))
    ink = np.clip(ink / strongest * 2 - 0.7, 0, 1)
    rows, columns = [np.flatnonzero(ink.max(axis=axis) > 0.5) for axis in (1, 0)]
    ink = np.pad(ink[rows[0]:rows[-1] + 1, columns[0]:columns[-1] + 1], 20, mode='constant')
    edges = np.abs(np.diff(ink, axis=0)).sum() + np.abs(np.diff(ink, axis=1)).sum()
    missing = (max(ink.shape) - 40) / 10 - 2 * ink.sum() / edges  # of the strokes' width
    digit = Image.fromarray((ink * 255).astype(np.uint8))
    digit = digit.filter(ImageFilter.MaxFilter(2 * max(0, int(round(missing / 2))) + 1))
    digit = digit.crop(digit.getbbox())
    scale = 20 / max(digit.size)
    digit = digit.resize([max(1, int(round(side * scale))) for side in digit.size], Image.LANCZOS)
    return centred(np.asarray(digit))


def paper(grey):
    """The smooth surface, of second degree, that fits the border of a picture [h, w]; a little ink there does no harm."""
    height, width = grey.shape
    y, x = np.meshgrid(np.linspace(-1, 1, height), np.linspace(-1, 1, width), indexing='ij')
    terms = np.stack([np.ones_like(x), y, x, x * y, y * y, x * x], axis=2)
    border = (np.maximum(np.abs(y), np.abs(x)) == 1)
    weights = np.ones(border.sum())
    for _ in range(10):  # ever nearer to the least sum of magnitudes, in which the few count little
        fit = np.linalg.lstsq(terms[border] * weights[:, np.newaxis], grey[border] * weights, rcond=None)[0]
        weights = 1 / np.sqrt(np.maximum(np.abs(terms[border] @ fit - grey[border]), 1))
    return terms @ fit


def centred(digit):
    """[h, w], at most 20 x 20 -> uint8 [28, 28]: the centre of mass at pixel (14, 14), as MNIST's are, the brightest 255."""
    sheet = np.zeros([28 + 40, 28 + 40], np.float32)
    height, width = digit.shape
    mass = digit.sum(dtype=float)
    top, left = [20 + 14 - int(round((digit.sum(axis=axis) * np.arange(side)).sum() / mass))
                 for axis, side in ((1, height), (0, width))]
    sheet[top:top + height, left:left + width] = digit
    return (sheet[20:48, 20:48] * (255 / digit.max())).astype(np.uint8)
