"""Makes a dataset in MNIST's format of your own pictures, which are in folders named by their classes.

    python -m support.own_data pictures data/mine
    python 07_convnet_mnist.py --data-dir data/mine --name mine

About every seventh picture of each class, chosen at random, is for the test.
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
    borders = np.concatenate([images[:1000, [0, -1]].reshape([-1, 2 * images.shape[2]]),
                              images[:1000, :, [0, -1]].reshape([-1, 2 * images.shape[1]])], axis=1)
    light = (np.median(borders, axis=1) > 127).mean()
    return 'light' if light > 0.9 else 'dark' if light < 0.1 else None


def read_classes(folder):
    """Returns the names of the classes, and uint8 images [n, SIZE, SIZE] and labels [n] of all pictures.

    Files that cannot be read are named on stderr. Raises UserError unless there are 2 to 256 classes with pictures.
    """
    inside = os.listdir(folder) if os.path.isdir(folder) else []
    names = sorted(name for name in inside if os.path.isdir(os.path.join(folder, name)))
    files = [(label, os.path.join(folder, name, file)) for label, name in enumerate(names)
             for file in sorted(os.listdir(os.path.join(folder, name)))]
    images, labels = [], []
    for label, path in tqdm(files, 'pictures', disable=None):
        try:
            images.append(image_of(utils.read_image(path, most_pixels=1e6), SIZE))
            labels.append(label)
        except utils.UserError as error:
            script.print_error('left out: {}'.format(error))
    if not 2 <= len(set(labels)) == len(names) <= 256:
        raise utils.UserError('{}: expected a folder of pictures for each of 2 to 256 classes, found {}'.format(
            folder, len(set(labels))))
    return names, np.array(images), np.uint8(labels)


def main(arguments=None):
    parser = cli.ArgumentParser(__doc__)
    parser.add_argument('pictures', help='a folder that has a folder of pictures for each class')
    parser.add_argument('dataset', help='the folder to write, for --data-dir')
    flags = parser.parse_args(arguments)
    names, images, labels = read_classes(flags.pictures)
    order = np.random.RandomState(0).permutation(len(labels))
    order = order[np.argsort(labels[order], kind='mergesort')]  # at random within each class
    outputs.make([flags.dataset])
    outputs.write_whole(os.path.join(flags.dataset, 'classes.txt'), '\n'.join(names).encode())
    for part, chosen in ('t10k', order[::7]), ('train', np.delete(order, np.s_[::7])):
        for kind, array in ('images-idx3', images[chosen]), ('labels-idx1', labels[chosen]):
            header = bytes([0, 0, 8, array.ndim]) + np.array(array.shape, '>u4').tobytes()
            outputs.write_whole(os.path.join(flags.dataset, '{}-{}-ubyte'.format(part, kind)), header + array.tobytes())
    print('{} pictures of {}'.format(len(labels), ', '.join(names)))
    print('Try next     python 07_convnet_mnist.py --data-dir {0} --name mine'.format(flags.dataset))


if __name__ == '__main__':
    with script.errors_in_one_line():
        main()
