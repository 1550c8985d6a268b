"""What the lessons do with data: MNIST, pictures, augmentation, batches."""
import collections
import concurrent.futures
import contextlib
import functools
import gzip
import hashlib
import math
import operator
import os
import struct
import warnings
import zlib

import numpy as np
from PIL import Image, ImageOps

HERE = os.path.dirname(os.path.abspath(__file__))
CHIHUAHUA = os.path.join(HERE, 'data', 'chihuahua.jpg')
MNIST_DIR = os.path.join(HERE, 'data', 'mnist')
MNIST_SHA256 = {  # of what the files in data/mnist unpack to
    'train-images-idx3-ubyte.gz': 'ba891046e6505d7aadcbbe25680a0738ad16aec93bde7f9b65e87a2fc25776db',
    'train-labels-idx1-ubyte.gz': '65a50cbbf4e906d70832878ad85ccda5333a97f0f4c3dd2ef09a8a9eef7101c5',
    't10k-images-idx3-ubyte.gz': '0fa7898d509279e482958e8ce81c8e77db3f2f8254e26661ceb7762c4d494ce7',
    't10k-labels-idx1-ubyte.gz': 'ff7bcfd416de33731a308c3f266cc351222c34898ecbeaf847f06e48f7ec33f2'}

Dataset = collections.namedtuple('Dataset', 'images labels')  # uint8 [n, height, width] and uint8 [n]
Datasets = collections.namedtuple('Datasets', 'train validation test')


class UserError(Exception):
    """A mistake that the user can correct: says what was wrong, what was expected and what to do."""


# ---- MNIST ---------------------------------------------------------------------------------------

def read_mnist(directory, image_size=28):
    """Reads a dataset in MNIST's format, for example MNIST itself or Fashion-MNIST.

    Returns Datasets(train, validation, test), each a Dataset of uint8 images [n, image_size, image_size], 0 to 255, and
    uint8 labels [n], 0 to 9. The first twelfth of the training file (MNIST: 5,000) is the validation set, as in
    TensorFlow's own tutorials. Raises UserError for files that are missing or damaged (data/mnist: see MNIST_SHA256).
    """
    train, test = [read_images_and_labels(directory, name, image_size) for name in ('train', 't10k')]
    validation_size = len(train.labels) // 12
    if validation_size == 0:
        raise UserError('{}: expected at least 12 training digits, found {}'.format(directory, len(train.labels)))
    return Datasets(train=Dataset(train.images[validation_size:], train.labels[validation_size:]),
                    validation=Dataset(train.images[:validation_size], train.labels[:validation_size]), test=test)


# ---- Augmentation and batches ---------------------------------------------------------------------

def batches(dataset, batch_size, augment_pixels, seed, epoch):
    """Yields the (images, labels) of one epoch in random order.

    Order and augmentation depend only on (seed, epoch, position), so a resumed run sees the same batches.
    The last batch is smaller if the batch size does not divide the number of images.
    """
    order = np.random.RandomState([seed, epoch]).permutation(len(dataset.labels))
    for start in range(0, len(order), batch_size):
        indices = order[start:start + batch_size]
        images = dataset.images[indices]
        if augment_pixels:
            images = augment(images, augment_pixels, np.random.RandomState([seed, epoch, start]))
        yield images, dataset.labels[indices]


def augment(images, pixels, random):
    """Elastic deformation, at random for each image: uint8 [n, h, w] -> uint8 [n, h, w].

    Each pixel is displaced by (dy, dx), two sums of 4 x 4 cosine waves with random amplitudes. The longest wave, a
    constant, shifts the image by about `pixels`; the next stretch, shear and rotate it; the shortest bend it.
    random: a numpy RandomState.
    """
    count, height, width = images.shape
    rows, columns = np.arange(height, dtype=np.float32), np.arange(width, dtype=np.float32)
    waves_y, waves_x = [np.cos(np.pi / len(axis) * np.outer(np.arange(4, dtype=np.float32), axis + 0.5))
                        for axis in (rows, columns)]
    scale = pixels / (1 + np.arange(4)[:, np.newaxis] + np.arange(4))  # the shorter the wave, the smaller
    amplitudes = (random.normal(size=[2, count, 4, 4]) * scale).astype(np.float32)
    dy, dx = waves_y.T @ amplitudes @ waves_x  # [h, 4] @ [2, n, 4, 4] @ [4, w] -> [2, n, h, w]
    return (bilinear_sample(images, rows[:, np.newaxis] + dy, columns + dx) + 0.5).astype(np.uint8)


def bilinear_sample(images, y, x):
    """Bilinear interpolation of images [n, h, w] at fractional coordinates y, x [n, h, w] -> float32 [n, h, w].

    Coordinates are clamped to the border."""
    count, height, width = images.shape
    y, x = np.clip(y, 0, height - 1.001), np.clip(x, 0, width - 1.001)  # a pixel follows below and right
    top, left = y.astype(np.int32), x.astype(np.int32)
    y, x = y - top.astype(np.float32), x - left.astype(np.float32)  # from here on the fractions
    corner = (top * width + left).astype(np.intp) + height * width * np.arange(count)[:, np.newaxis, np.newaxis]
    flat = images.ravel().astype(np.float32)
    # The four corners are 0, 1, width and width + 1 places on in the flat array. mode='clip' only skips a check.
    top_left, top_right, bottom_left, bottom_right = [
        flat[shift:].take(corner, mode='clip') for shift in (0, 1, width, width + 1)]
    above = top_left + (top_right - top_left) * x
    below = bottom_left + (bottom_right - bottom_left) * x
    return above + (below - above) * y


def prefetch(iterator):
    """Yields the items of an iterator; a thread prepares the next one while the caller works on this one."""
    with concurrent.futures.ThreadPoolExecutor(1) as thread:
        upcoming = thread.submit(next, iterator, None)
        while True:
            item = upcoming.result()
            if item is None:
                return
            upcoming = thread.submit(next, iterator, None)
            yield item


# ---- Pictures ------------------------------------------------------------------------------------

def read_image(path, smallest=(1, 1), most_pixels=math.inf):
    """Reads a picture in any format that Pillow knows: float32 [height, width, 3], RGB, 0 to 1.

    It is rotated as its EXIF data say. Of an animation the first frame is read, transparent parts become
    white, and 16 bits keep their precision. With more than most_pixels it is made smaller. Raises UserError for
    anything else, and below the smallest (height, width).
    """
    with picture_errors(path):
        image = open_picture(path, most_pixels)
        if image.height < smallest[0] or image.width < smallest[1]:
            raise UserError('{}: {} x {} pixels are too few for a kernel of {} x {}; use --padding SAME'.format(
                path, image.height, image.width, *smallest))
        if image.mode[0] in 'IF':  # 16 or 32 bits per pixel, which convert() would clip at 255
            grey = np.nan_to_num(np.asarray(image, np.float32))
            grey /= 65535 if image.mode[0] == 'I' else 1 if grey.max() <= 1 else 255
            grey = np.asarray(shrunk(Image.fromarray(grey), most_pixels))
            return np.repeat(np.clip(grey, 0, 1)[:, :, np.newaxis], 3, axis=2)
        if image.mode in ('RGBA', 'LA', 'PA', 'RGBa', 'La') or 'transparency' in image.info:
            image = image.convert('RGBA')
            image = Image.alpha_composite(Image.new('RGBA', image.size, 'white'), image)
        picture = np.asarray(shrunk(image.convert('RGB'), most_pixels), np.float32)
        picture /= 255
        return picture


def shrunk(image, most_pixels):
    """A Pillow image of the same shape with at most most_pixels; one that has no more stays as it is."""
    scale = (most_pixels / (image.width * image.height)) ** 0.5
    if scale >= 1:
        return image
    return image.resize([max(1, int(side * scale)) for side in image.size], Image.LANCZOS, reducing_gap=3)


# ---- Files: is each what its name says? --------------------------------------------------------

@contextlib.contextmanager
def picture_errors(path):
    """Turns whatever goes wrong with a picture into a UserError."""
    try:
        yield
    except UserError:
        raise
    except FileNotFoundError:
        raise UserError('{}: expected a picture, found no such file'.format(path))
    except Image.UnidentifiedImageError:
        raise UserError('{}: expected a picture (PNG, JPEG, GIF, BMP, TIFF, WebP), found something else'.format(path))
    except (Image.DecompressionBombWarning, Image.DecompressionBombError) as error:
        raise UserError('{}: expected a picture of ordinary size ({})'.format(path, str(error).split(',')[0]))
    except Exception as error:  # Pillow's readers raise many kinds for damaged files
        reason = getattr(error, 'strerror', None) or str(error).split('\n')[0] or type(error).__name__
        raise UserError('{}: expected a whole picture; it cannot be read ({})'.format(path, reason))


def open_picture(path, most_pixels):
    """Returns a Pillow image, loaded, and rotated as its EXIF data say. Raises UserError if it is too large."""
    with warnings.catch_warnings():
        warnings.simplefilter('ignore')  # about harmless damage, for example in EXIF data
        warnings.simplefilter('error', Image.DecompressionBombWarning)
        image = Image.open(path)
        pixels = image.width * image.height
        if pixels > most_that_fit() and most_pixels == math.inf:
            raise UserError('{}: {:.0f} megapixels do not fit into the memory, {:.0f} do; leave out --full-size'
                            .format(path, pixels / 1e6, most_that_fit() / 1e6))
        scale = min((most_pixels / pixels) ** 0.5, 1)
        image.draft(image.mode, [int(side * scale) for side in image.size])  # JPEG decodes to half, a quarter, ...
        return ImageOps.exif_transpose(image)


def most_that_fit():
    """How many pixels lesson 1 can filter at full size in this machine's memory, at about 100 bytes for each."""
    try:
        return max(os.sysconf('SC_PAGE_SIZE') * os.sysconf('SC_PHYS_PAGES') - 2e9, 1e8) / 100
    except (AttributeError, ValueError):  # Windows does not say
        return math.inf


def read_images_and_labels(directory, name, image_size):
    """Reads the images and labels of 'train' or 't10k', and checks that they belong together."""
    images_path = find_idx(directory, name + '-images', 3)
    labels_path = find_idx(directory, name + '-labels', 1)
    images, labels = read_idx(images_path, 3), read_idx(labels_path, 1)
    if images.shape[1:] != (image_size, image_size):
        raise UserError('{}: expected images of {size} x {size} pixels, found {} x {}; IMAGE_SIZE in '
                        '07_convnet_mnist.py sets the size'.format(images_path, *images.shape[1:], size=image_size))
    if len(images) != len(labels):
        raise UserError('{}: expected one label for each of the {:,} images, found {:,}'.format(
            labels_path, len(images), len(labels)))
    if labels.max() > 9:
        raise UserError('{}: expected labels from 0 to 9, found {}'.format(labels_path, labels.max()))
    return Dataset(images, labels)


def find_idx(directory, name, dimensions):
    """Some tools write train-images-idx3-ubyte, others train-images.idx3-ubyte; either may be gzipped."""
    try:
        files = os.listdir(directory) if os.path.lexists(directory) else []
    except OSError as error:
        raise UserError('{}: cannot be read ({})'.format(directory, error.strerror))
    for dot in '-.':
        for ending in '.gz', '':
            file = '{}{}idx{}-ubyte{}'.format(name, dot, dimensions, ending)
            if file in files:
                return os.path.join(directory, file)
    raise UserError('{}: expected {}-idx{}-ubyte, plain or .gz, found no such file; see data/README.md'.format(
        directory, name, dimensions))


def read_idx(path, dimensions):
    """Reads an IDX file of unsigned bytes, plain or gzipped: uint8 with 1 or 3 dimensions.

    Raises UserError for another or a damaged file. Takes little more memory than the file needs, whatever it claims.
    """
    magic = bytes([0, 0, 8, dimensions])  # 8 stands for unsigned bytes
    try:
        with open(path, 'rb') as file:
            zipped = file.read(2) == b'\x1f\x8b'
        with (gzip.open if zipped else open)(path, 'rb') as stream:
            header = stream.read(4 + 4 * dimensions)
            if header[:4] != magic or len(header) < 4 + 4 * dimensions:
                raise UserError('{}: expected an IDX file, which begins with {} and {} sizes, found {}'.format(
                    path, magic.hex(), dimensions, header.hex() or 'an empty file'))
            shape = struct.unpack('>{}I'.format(dimensions), header[4:])
            size = functools.reduce(operator.mul, shape)  # not np.prod: a header may claim more than int64 holds
            if size == 0:
                raise UserError('{}: expected at least one image or label, found none'.format(path))
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
            raise UserError('{}: expected SHA-256 {}, found {}; copy it anew'.format(path, MNIST_SHA256[name], found))
    return np.frombuffer(data, np.uint8).reshape(shape)
