"""Makes a dataset in MNIST's format of your own pictures, which are in folders named by their classes.

    python -m support.own_data pictures data/mine
    python 07_convnet_mnist.py --data-dir data/mine --name mine

Of each class, a seventh of the pictures, at random, is for the test.
"""
import os

import numpy as np
from PIL import Image, ImageOps
from tqdm import tqdm

import utils
from support import cli, outputs, script

SIZE = 28  # pixels of an image's side


def image_of(picture, size, wanted=None):
    """A picture [h, w, 3], 0 to 1, as such a dataset has it: grey, from black to white, scaled to uint8 [size, size].

    wanted: 'dark' or 'light', as `background` returns it; a picture with another background is inverted. Or None.
    """
    grey = ImageOps.autocontrast(Image.fromarray((picture * 255).astype(np.uint8)).convert('L'))
    image = np.array(grey.resize((size, size), Image.LANCZOS))
    return 255 - image if wanted and background(image[np.newaxis]) != wanted else image


def background(images):
    """'dark' or 'light', if the borders of nearly all images [n, h, w] are that, or else None."""
    some = images[::len(images) // 1000 + 1]
    borders = np.concatenate([some[:, 0], some[:, -1], some[:, :, 0], some[:, :, -1]], axis=1)
    light = (np.median(borders, axis=1) > 127).mean()
    return 'light' if light > 0.9 else 'dark' if light < 0.1 else None


def listed(folder):
    try:
        return sorted((entry for entry in os.scandir(folder) if entry.name[0] != '.'), key=lambda entry: entry.name)
    except OSError as error:
        raise utils.UserError('{}: expected a folder of pictures; it cannot be listed ({})'.format(
            folder, error.strerror))


def files_in(folder):
    """The paths of the files in a folder, hidden ones left out. Raises UserError if there is none."""
    files = [entry.path for entry in listed(folder) if entry.is_file()]
    if not files:
        raise utils.UserError('{}: expected pictures, found none'.format(folder))
    return files


def read_classes(folder):
    """Returns the names of the classes, and uint8 images [n, SIZE, SIZE] and labels [n], in random order.

    Files that cannot be read are named on stderr. Raises UserError unless there are 2 to 256 classes.
    """
    names = [entry.name for entry in listed(folder) if entry.is_dir()]
    if not 2 <= len(names) <= 256 or not all(map(str.isprintable, names)):
        raise utils.UserError('{}: expected 2 to 256 folders of pictures, one for each class, with names that can be '
                              'printed; found {}'.format(folder, len(names)))
    files = [(label, path) for label, name in enumerate(names) for path in files_in(os.path.join(folder, name))]
    images, labels = [], []
    for label, path in tqdm(files, 'pictures', disable=None):
        try:
            images.append(image_of(utils.read_image(path, most_pixels=1e6), SIZE))
            labels.append(label)
        except utils.UserError as error:
            script.print_error('left out: {}'.format(error))
    if not images:
        raise utils.UserError('{}: expected pictures, found none that can be read'.format(folder))
    order = np.random.RandomState(0).permutation(len(labels))
    return names, np.array(images)[order], np.uint8(labels)[order]


def main(arguments=None):
    parser = cli.ArgumentParser(__doc__)
    parser.add_argument('pictures', help='a folder that has a folder of pictures for each class')
    parser.add_argument('dataset', help='a new folder, for --data-dir')
    flags = parser.parse_args(arguments)
    if os.path.isdir(flags.dataset) and os.listdir(flags.dataset):
        raise utils.UserError('{}: expected a new or an empty folder, found files in it'.format(flags.dataset))
    names, images, labels = read_classes(flags.pictures)
    outputs.make([flags.dataset])
    outputs.write_whole(os.path.join(flags.dataset, 'classes.txt'), '\n'.join(names).encode())
    test = utils.random_part(labels, 7)
    for part, chosen in ('train', ~test), ('t10k', test):
        for kind, array in ('images-idx3', images[chosen]), ('labels-idx1', labels[chosen]):
            header = bytes([0, 0, 8, array.ndim]) + np.array(array.shape, '>u4').tobytes()
            outputs.write_whole(os.path.join(flags.dataset, '{}-{}-ubyte'.format(part, kind)), header + array.tobytes())
    print('{} pictures of {}'.format(len(labels), ', '.join(names)))
    print('Try next     python 07_convnet_mnist.py --data-dir {} --name mine'.format(script.quoted(flags.dataset)))


if __name__ == '__main__':
    script.prepare_streams()
    with script.errors_in_one_line():
        main()
