"""What the lessons do with data: MNIST, pictures, augmentation, batches."""
import collections
import concurrent.futures
import gzip
import math
import os
import re
import sys
import warnings
import zlib

import numpy as np
from PIL import Image, ImageOps

HERE = os.path.dirname(os.path.abspath(__file__))
CHIHUAHUA = os.path.join(HERE, 'data', 'chihuahua.jpg')
MNIST_DIR = os.path.join(HERE, 'data', 'mnist')

Dataset = collections.namedtuple('Dataset', 'images labels')  # uint8 [n, height, width] and uint8 [n]
# classes: the name of each label; are_digits: on paper, as far as is known; lecture_accuracy {epoch: the lecture's test
# accuracy}, empty if it is not MNIST
Datasets = collections.namedtuple('Datasets', 'train validation test classes are_digits lecture_accuracy')

MNIST = 0xf3639b56  # CRC-32 of the 60,000 training images
LECTURE_ACCURACY = {1: .9111, 2: .9401, 3: .9494, 5: .9549, 10: .9692, 25: .9736, 40: .9793, 50: .9804}
DIGITS = [str(digit) for digit in range(10)]


class UserError(Exception):
    """A mistake that the user can correct: says what was wrong, what was expected and what to do."""


# ---- MNIST ---------------------------------------------------------------------------------------

def read_mnist(directory, image_size=28):
    """Reads MNIST, or another dataset of 2 to 256 classes in its format.

    Returns Datasets: train, validation and test are each a Dataset of uint8 images [n, image_size, image_size], 0 to
    255, and uint8 labels [n]. Of MNIST, the first 5,000 training images are for validation, as in TensorFlow's own
    tutorials; of other data, a twelfth of each class at random. Raises UserError for files that are missing or damaged.
    """
    train, test = [read_images_and_labels(directory, name, image_size) for name in ('train', 'test')]
    train, test, classes, are_named = with_classes(directory, train, test)
    is_mnist = zlib.crc32(train.images) == MNIST
    chosen = np.arange(len(train.labels)) < 5000 if is_mnist else random_part(train.labels, 12)
    if not chosen.any():
        raise UserError('{}: expected at least two training images of a class, found one'.format(directory))
    return Datasets(Dataset(train.images[~chosen], train.labels[~chosen]),
                    Dataset(train.images[chosen], train.labels[chosen]), test, classes,
                    classes == DIGITS and not are_named, LECTURE_ACCURACY if is_mnist else {})


def random_part(labels, one_in):
    """A mask [n] of, at random, one in so many of each label [n], and at least one of a label that is there twice."""
    chosen = np.zeros(len(labels), bool)
    for label in np.unique(labels):
        places = np.random.RandomState(label).permutation(np.flatnonzero(labels == label))
        chosen[places[:max(len(places) // one_in, min(len(places) - 1, 1))]] = True
    return chosen


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
    """Bends each image in another way (elastic deformation): uint8 [n, h, w] -> uint8 [n, h, w]. docs/augmentation.png

    A 7 that is shifted, stretched or bent a little is still a 7, and to the network a new one. Each pixel of the new
    image takes the value found (dy, dx) pixels away from its own place in the old one. If each had a displacement of
    its own, the digit would dissolve; so dy and dx change smoothly over the image, as sums of cosine waves. The
    constant one shifts the digit by about `pixels`, half a wave stretches, shears and rotates it, shorter ones bend it.
    random: a numpy RandomState.
    """
    count, height, width = images.shape
    rows, columns = np.arange(height, dtype=np.float32), np.arange(width, dtype=np.float32)
    # Four waves along each axis, of 0, 1, 2 and 3 half periods: [4, h] and [4, w].
    waves_y, waves_x = [np.cos(np.pi / len(axis) * np.outer(np.arange(4, dtype=np.float32), axis + 0.5))
                        for axis in (rows, columns)]
    # For each image, and for dy and dx, 4 x 4 products of a wave down and one across, each times a random amplitude.
    scale = pixels / (1 + np.arange(4)[:, np.newaxis] + np.arange(4))  # the shorter the wave, the smaller
    amplitudes = (random.normal(size=[2, count, 4, 4]) * scale).astype(np.float32)
    dy, dx = waves_y.T @ amplitudes @ waves_x  # [h, 4] @ [2, n, 4, 4] @ [4, w] -> [2, n, h, w]
    # The place where a value is taken from lies between pixels, so it is a mean of the four around it.
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

def read_image(path, smallest=(1, 1), most_pixels=math.inf, backdrop='white'):
    """Reads a picture in any format that Pillow knows: float32 [height, width, 3], RGB, 0 to 1.

    It is rotated as its EXIF data say. Of an animation the first frame is read, and transparent parts become the
    backdrop. Of more than 8 bits, white is the smallest of 255, 4095 and 65535 that no value exceeds (of floats: 1,
    255, or the largest). With more than most_pixels it is made smaller. Raises UserError for anything else, and for
    less than the smallest (height, width).
    """
    image = open_picture(path, most_pixels)
    if image.mode[0] in 'IF':  # 16 or 32 bits per pixel, which convert() would clip at 255
        grey = np.asarray(image, np.float32)
        grey = np.where(np.isfinite(grey), grey, 0)
        limits = (1, 255) if image.mode == 'F' else (255, 4095, 65535)
        white = next((limit for limit in limits if grey.max() <= limit), grey.max())
        if white not in (1, 65535):
            print('{}: values from 0, black, to {:g}, white'.format(path, white), file=sys.stderr)
        picture = np.asarray(shrunk(Image.fromarray(grey / white), most_pixels))
        picture = np.repeat(np.clip(picture, 0, 1)[:, :, np.newaxis], 3, axis=2)
    else:
        if image.mode in ('RGBA', 'LA', 'PA', 'RGBa', 'La') or 'transparency' in image.info:
            image = image.convert('RGBA')
            image = Image.alpha_composite(Image.new('RGBA', image.size, backdrop), image)
        picture = np.asarray(shrunk(image.convert('RGB'), most_pixels), np.float32)
        picture /= 255
    height, width = picture.shape[:2]
    if height < smallest[0] or width < smallest[1]:
        raise UserError('{}: {} x {} pixels are too few for a kernel of {} x {}; use --padding SAME'.format(
            path, height, width, *smallest))
    return picture


def open_picture(path, most_pixels):
    """Returns a Pillow image, loaded, and rotated as its EXIF data say."""
    try:
        if os.path.exists(path) and not (os.path.isfile(path) or os.path.isdir(path)):
            raise ValueError('it is no file, but a pipe')
        if path.lower().endswith(('.heic', '.heif')):
            import pillow_heif  # not needed for anything else
            pillow_heif.register_heif_opener()
        with warnings.catch_warnings():
            warnings.simplefilter('ignore')  # about harmless damage, for example in EXIF data
            warnings.simplefilter('error', Image.DecompressionBombWarning)
            image = Image.open(path)
            scale = min((most_pixels / (image.width * image.height)) ** 0.5, 1)
            image.draft(image.mode, [int(side * scale) for side in image.size])  # JPEG decodes to half, a quarter, ...
            return ImageOps.exif_transpose(image)
    except ImportError:
        raise UserError('{}: for a HEIC picture, pip install pillow-heif, or save it as JPEG'.format(path))
    except Exception as error:  # Pillow's readers raise many kinds for damaged files
        reason = getattr(error, 'strerror', None) or str(error).split('\n')[0] or type(error).__name__
        raise UserError('{}: expected a picture, such as PNG or JPEG; it cannot be read ({})'.format(path, reason))


def shrunk(image, most_pixels):
    """A Pillow image of the same shape with at most most_pixels; one that has no more stays as it is."""
    scale = (most_pixels / (image.width * image.height)) ** 0.5
    if scale >= 1:
        return image
    return image.resize([max(1, int(side * scale)) for side in image.size], Image.LANCZOS, reducing_gap=3)


# ---- Files in MNIST's format ---------------------------------------------------------------------

def with_classes(directory, train, test):
    """Returns both Datasets with labels from 0 on, the names of the classes, and whether classes.txt gives them.

    The names are its lines, or else the labels as they are in the files, which may begin with 1.
    """
    labels = np.concatenate([train.labels, test.labels])
    largest, first = int(labels.max()), int(labels.min() == 1)
    path = os.path.join(directory, 'classes.txt')
    are_named = os.path.isfile(path)
    if are_named:
        with open(path, encoding='utf-8-sig', errors='replace') as file:
            names = [''.join(filter(str.isprintable, line)).strip() for line in file if line.strip()]
        first *= largest == len(names)  # or the class with the label 0 has no images
        if len(names) <= largest - first:
            raise UserError('{}: expected the names of {} classes, one in each line, found {}'.format(
                path, largest - first + 1, len(names)))
    else:
        names = [str(label) for label in range(first, largest + 1)]
    if not 2 <= len(names) <= 256:
        raise UserError('{}: expected 2 to 256 classes, found {}'.format(directory, len(names)))
    for part, dataset in ('training', train), ('test', test):
        missing = [name for label, name in enumerate(names, first) if label not in dataset.labels]
        if missing:
            print('warning: {}: no {} image of {}'.format(directory, part, ', '.join(missing)), file=sys.stderr)
    train, test = [Dataset(dataset.images, dataset.labels - np.uint8(first)) for dataset in (train, test)]
    return train, test, names, are_named


def read_images_and_labels(directory, part, image_size):
    """Reads the images and labels of 'train' or 'test', and checks that they belong together."""
    images_path, labels_path = [find_idx(directory, part, kind) for kind in ('images', 'labels')]
    images, labels = read_idx(images_path, 3), read_idx(labels_path, 1)
    if os.path.basename(images_path).startswith('emnist'):
        images = images.transpose(0, 2, 1).copy()  # as EMNIST has them, rows and columns are exchanged
    if images.shape[1:] != (image_size, image_size):
        raise UserError('{}: expected images of {size} x {size} pixels, found {} x {}; IMAGE_SIZE in '
                        '07_convnet_mnist.py sets the size'.format(images_path, *images.shape[1:], size=image_size))
    if len(images) != len(labels):
        raise UserError('{}: expected one label for each of the {:,} images, found {:,}'.format(
            labels_path, len(images), len(labels)))
    return Dataset(images, labels)


def find_idx(directory, part, kind):
    """Returns the path of a file such as train-images-idx3-ubyte.gz, t10k-labels.idx1-ubyte or emnist-letters-test-...

    Raises UserError unless there is one, packed or not.
    """
    pattern = r'([^.].*-)?{}-{}[-.]idx\d-(ubyte|int)(\.gz)?'.format('(test|t10k)' if part == 'test' else part, kind)
    names = sorted(os.listdir(directory), reverse=True) if os.path.isdir(directory) else []
    found = {name.replace('.gz', '').replace('.idx', '-idx'): os.path.join(directory, name) for name in names
             if re.fullmatch(pattern, name) and os.path.isfile(os.path.join(directory, name))}
    if len(found) != 1:
        raise UserError('{}: expected {}-{}-idx{}-ubyte, plain or .gz, found {}; see data/README.md'.format(
            directory, 't10k' if part == 'test' else part, kind, 3 if kind == 'images' else 1,
            ' and '.join(sorted(found)) or 'no such file'))
    return found.popitem()[1]


def read_idx(path, dimensions):
    """Reads an IDX file of images, 3 dimensions, or labels, 1, plain or gzipped: uint8.

    QMNIST's labels are 32-bit numbers with 2 dimensions, of which the first column is the class. Raises UserError for
    another or a damaged file.
    """
    try:
        with open(path, 'rb') as file:
            data = file.read()
        if data[:2] == b'\x1f\x8b':
            data = gzip.decompress(data)
        is_qmnist = dimensions == 1 and data[:4] == b'\0\0\x0c\2'
        if data[:4] != bytes([0, 0, 8, dimensions]) and not is_qmnist:  # 8 stands for unsigned bytes
            raise ValueError('it does not begin with 00 00 08 0{}'.format(dimensions))
        shape = np.frombuffer(data, '>u4', data[3], offset=4)
        array = np.frombuffer(data, '>i4' if is_qmnist else np.uint8, offset=4 + 4 * data[3]).reshape(shape)
    except (OSError, EOFError, ValueError, zlib.error) as error:
        raise UserError('{}: expected a whole IDX file of {} dimensions ({}); copy it anew'.format(
            path, dimensions, error.args[-1]))
    if array.size == 0:
        raise UserError('{}: expected at least one image or label, found none'.format(path))
    if is_qmnist:
        array = array[:, 0]
        if not (0 <= array.min() and array.max() <= 255):
            raise UserError('{}: expected labels from 0 to 255, found {} to {}'.format(path, array.min(), array.max()))
    return array.astype(np.uint8)
