"""Data and pictures from outside: whatever the bytes, the right array or the documented error."""
import gzip
import hashlib
import io
import os
import re
import shutil

import numpy as np
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from PIL import Image

import utils
from conftest import write_idx

NAMES = {'images': 'train-images-idx3-ubyte', 'labels': 'train-labels-idx1-ubyte'}


def raw_bytes(name, header):
    with gzip.open(os.path.join(utils.MNIST_DIR, name + '.gz')) as file:
        return np.frombuffer(file.read()[header:], np.uint8)


def test_the_digits_are_those_of_the_raw_files_one_after_the_other(mnist):
    for datasets, name, count in ((mnist.validation, mnist.train), 'train', 60000), ((mnist.test,), 't10k', 10000):
        images, labels = [np.concatenate(arrays) for arrays in zip(*datasets)]
        np.testing.assert_array_equal(images, raw_bytes(name + '-images-idx3-ubyte', 16).reshape(count, 28, 28))
        np.testing.assert_array_equal(labels, raw_bytes(name + '-labels-idx1-ubyte', 8))
    sequence = hashlib.sha256(mnist.train.images.tobytes() + mnist.train.labels.tobytes())
    assert sequence.hexdigest() == '12d85ccf7045311321359e8016611fe8928a6317b69b4543429ee07dce628b3d'


# ---- Damaged datasets ----

@pytest.fixture
def data(tmp_path, small_data):
    folder = str(tmp_path / 'data')
    shutil.copytree(small_data, folder)
    return folder


def rewritten(change):
    """Damage that replaces a file's bytes by change(bytes)."""
    def damage(path):
        with open(path, 'rb') as file:
            content = file.read()
        with open(path, 'wb') as file:
            file.write(change(content))
    return damage


def with_array(change):
    """Damage that replaces a file's array by change(array)."""
    return lambda path: write_idx(path, change(utils.read_idx(path, 3 if 'images' in path else 1)))


DAMAGES = {
    'missing': ('images', os.remove, 'found no such file'),
    'a directory': ('images', lambda path: (os.remove(path), os.mkdir(path)), 'found no such file'),
    'empty': ('images', rewritten(lambda content: b''), 'does not begin with 00 00 08 03'),
    'web page': ('labels', rewritten(lambda content: b'<!DOCTYPE html>'), 'does not begin with 00 00 08 01'),
    'labels for images': ('images', rewritten(lambda content: b'\0\0\x08\1' + content[4:]), '00 00 08 03'),
    'cut header': ('images', rewritten(lambda content: content[:9]), 'expected a whole IDX file of 3 dimensions'),
    'cut': ('images', rewritten(lambda content: content[:-1]), 'size 564479 into shape (720,28,28)'),
    'too long': ('labels', rewritten(lambda content: content + b'1'), 'size 721 into shape (720,)'),
    'wrong count': ('images', rewritten(lambda content: content[:4] + b'\0\0\3\0' + content[8:]), '(768,28,28)'),
    'cut gzip': ('images', rewritten(lambda content: gzip.compress(content)[:-20]), 'expected a whole IDX file'),
    'gzip with a flipped byte': ('images', rewritten(
        lambda content: gzip.compress(content)[:5000] + b'?' + gzip.compress(content)[5001:]), 'a whole IDX file'),
    'fewer labels': ('labels', with_array(lambda labels: labels[1:]),
                     'one label for each of the 720 images, found 719'),
    'other size': ('images', with_array(lambda images: images[:, :20]),
                   'images of 28 x 28 pixels, found 20 x 28; IMAGE_SIZE'),
    'no images': ('images', with_array(lambda images: images[:0]), 'expected at least one image or label, found none')}


@pytest.mark.parametrize('name', DAMAGES)
def test_damaged_datasets(convnet, data, tmp_path, name):
    kind, damage, complaint = DAMAGES[name]
    damage(os.path.join(data, NAMES[kind]))
    result = convnet('--data-dir', data, '--output-dir', tmp_path / 'output', check=2)
    assert complaint in result.stderr and NAMES[kind] in result.stderr and result.stderr.count('\n') == 1
    assert result.stdout == '' and not os.path.exists(str(tmp_path / 'output'))


def test_too_small(data):
    for kind in NAMES:
        with_array(lambda array: array[:3])(os.path.join(data, NAMES[kind]))
    with pytest.raises(utils.UserError, match='at least two training images of a class, found one'):
        utils.read_mnist(data)


@pytest.mark.parametrize('dot', '-.')
@pytest.mark.parametrize('ending', ['', '.gz'])
def test_names_with_dot_or_dash_plain_or_gzipped(small_data, tmp_path, dot, ending):
    for name in os.listdir(small_data):
        array = utils.read_idx(os.path.join(small_data, name), 3 if 'images' in name else 1)
        write_idx(str(tmp_path / (name.replace('-idx', dot + 'idx') + ending)), array)
    assert_equal_datasets(utils.read_mnist(str(tmp_path)), utils.read_mnist(small_data))


def assert_equal_datasets(ours, expected):
    assert ours[3:] == expected[3:]
    for one, other in zip(ours[:3], expected[:3]):
        np.testing.assert_array_equal(one.images, other.images)
        np.testing.assert_array_equal(one.labels, other.labels)


# ---- Other datasets ----

def write_dataset(folder, labels, names='{}-images-idx3-ubyte {}-labels-idx1-ubyte', test='t10k', images=None):
    """One image for each label, which has its number; the test has all of them again."""
    for part in 'train', test:
        for name, array in zip(names.format(part, part).split(), (
                np.arange(len(labels) * 784).reshape([-1, 28, 28]) // 784 if images is None else images, labels)):
            write_idx(str(folder / name), np.uint8(array))
    return str(folder)


def test_of_other_data_a_random_twelfth_of_each_class_is_for_validation(tmp_path, mnist):
    labels = np.repeat([0, 1, 2], [120, 60, 5])  # sorted by class
    data = utils.read_mnist(write_dataset(tmp_path, labels))
    assert np.bincount(data.validation.labels).tolist() == [10, 5, 1] and data.lecture_accuracy == {}
    both = np.concatenate([data.train.images[:, 0, 0], data.validation.images[:, 0, 0]])
    assert sorted(both) == list(range(185)) and not np.array_equal(np.diff(data.validation.images[:10, 0, 0]), [1] * 9)
    assert_equal_datasets(data, utils.read_mnist(str(tmp_path)))
    assert mnist.lecture_accuracy[1] == .9111 and mnist.classes == list('0123456789') and mnist.are_digits


def test_the_number_and_the_names_of_classes_are_the_data_s(tmp_path, capsys):
    for count in 256, 12:
        folder = write_dataset(tmp_path, np.arange(2 * count) % count)
        assert utils.read_mnist(folder).classes == [str(label) for label in range(count)]
    (tmp_path / 'classes.txt').write_text('\n'.join('abcdefghijklm') + '\n')
    assert utils.read_mnist(folder).classes == list('abcdefghijklm')
    assert capsys.readouterr().err.splitlines() == [
        'warning: {}: no {} image of m'.format(folder, part) for part in ('training', 'test')]
    (tmp_path / 'classes.txt').write_text('a\nb\n')
    with pytest.raises(utils.UserError, match='names of 12 classes, one in each line, found 2'):
        utils.read_mnist(folder)


def test_a_class_without_images_keeps_its_place(tmp_path, capsys):
    """The labels 1 and 2 are the second and third of three names, and the first and second of two."""
    folder = write_dataset(tmp_path, np.arange(20) % 2 + 1)
    for names, labels in ('abc', {1, 2}), ('ab', {0, 1}):
        (tmp_path / 'classes.txt').write_text('\n'.join(names))
        data = utils.read_mnist(folder)
        assert data.classes == list(names) and set(data.test.labels) == labels
    assert re.findall(r'no (\w+) image of a', capsys.readouterr().err) == ['training', 'test']


def test_one_class(tmp_path):
    with pytest.raises(utils.UserError, match='expected 2 to 256 classes, found 1'):
        utils.read_mnist(write_dataset(tmp_path, np.zeros(20)))


def test_emnist_s_files(tmp_path):
    """They have a prefix, labels from 1 on, and rows and columns exchanged."""
    images = np.random.RandomState(0).randint(0, 256, [52, 28, 28])
    names = 'emnist-letters-{}-images-idx3-ubyte.gz emnist-letters-{}-labels-idx1-ubyte.gz'
    data = utils.read_mnist(write_dataset(tmp_path, np.arange(52) % 26 + 1, names, 'test', images))
    assert data.classes == [str(label) for label in range(1, 27)] and data.test.labels.max() == 25
    np.testing.assert_array_equal(data.test.images, np.swapaxes(images, 1, 2))
    write_dataset(tmp_path, np.arange(52) % 26, names.replace('letters', 'balanced'), 'test', images)
    with pytest.raises(utils.UserError, match='found emnist-balanced-train-images-idx3-ubyte and emnist-letters'):
        utils.read_mnist(str(tmp_path))


def test_qmnist_s_labels_are_numbers_of_32_bits_in_eight_columns(tmp_path):
    write_dataset(tmp_path, np.arange(40) % 10, 'qmnist-{}-images-idx3-ubyte.gz unused-{}', 'test')
    table = np.full([40, 8], 77, '>i4')
    table[:, 0] = np.arange(40) % 10
    for part in 'train', 'test':
        header = b'\0\0\x0c\2' + np.array(table.shape, '>u4').tobytes()
        (tmp_path / 'qmnist-{}-labels-idx2-int'.format(part)).write_bytes(header + table.tobytes())
    assert utils.read_mnist(str(tmp_path)).test.labels.tolist() == table[:, 0].tolist()
    (tmp_path / 'qmnist-test-labels-idx2-int').write_bytes(header + (table + 250).astype('>i4').tobytes())
    with pytest.raises(utils.UserError, match='expected labels from 0 to 255, found 250 to 259'):
        utils.read_mnist(str(tmp_path))


def test_kaggle_s_mnist_has_folders_of_the_files_names(tmp_path):
    folder = write_dataset(tmp_path, np.arange(40) % 10, '{}-images.idx3-ubyte {}-labels.idx1-ubyte')
    (tmp_path / 'train-images-idx3-ubyte').mkdir()
    assert len(utils.read_mnist(folder).test.labels) == 40


# ---- Whatever the bytes ----

ANYTHING = settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))


@st.composite
def idx_like(draw):
    """Bytes that are nearly an IDX file: any counts, any amount of data, perhaps gzipped, perhaps cut."""
    magic = draw(st.sampled_from([b'\0\0\x08\3', b'\0\0\x08\1', b'\0\0\x0d\3']))
    counts = draw(st.lists(st.sampled_from([0, 1, 2, 3, 28, 2**31, 2**32 - 1]), min_size=0, max_size=4))
    content = magic + np.array(counts, '>u4').tobytes() + draw(st.binary(max_size=60))
    if draw(st.booleans()):
        content = gzip.compress(content)
    return content[:draw(st.integers(0, len(content)))] if draw(st.booleans()) else content


@ANYTHING
@given(content=st.one_of(st.binary(max_size=200), idx_like()), dimensions=st.sampled_from([1, 3]))
@example(content=b'\0\0\x08\3' + bytes(4) + b'\xff' * 8, dimensions=3)
@example(content=b'\0\0\x08\3' + b'\xff' * 8 + bytes(4), dimensions=3)
def test_read_idx_whatever_the_bytes(tmp_path_factory, content, dimensions):
    path = str(tmp_path_factory.getbasetemp() / 'any.idx')
    with open(path, 'wb') as file:
        file.write(content)
    try:
        array = utils.read_idx(path, dimensions)
    except utils.UserError as error:
        assert str(error).startswith(path) and '\n' not in str(error)
        return
    plain = gzip.decompress(content) if content[:2] == b'\x1f\x8b' else content
    assert array.dtype == np.uint8 and array.ndim == dimensions
    header = bytes([0, 0, 8, dimensions]) + np.array(array.shape, '>u4').tobytes()
    assert plain == header + array.tobytes()


def encoded(image_format, **options):
    image = Image.fromarray(np.random.RandomState(0).randint(0, 256, (9, 7, 3)).astype(np.uint8))
    file = io.BytesIO()
    image.save(file, image_format, **options)
    return file.getvalue()


PICTURES = [encoded(name) for name in ('PNG', 'JPEG', 'GIF', 'BMP', 'TIFF', 'WEBP', 'PPM', 'TGA', 'ICO')]


@st.composite
def damaged_picture(draw):
    content = bytearray(draw(st.sampled_from(PICTURES)))
    for _ in range(draw(st.integers(0, 8))):
        content[draw(st.integers(0, len(content) - 1))] = draw(st.integers(0, 255))
    return bytes(content[:draw(st.integers(0, len(content)))] if draw(st.booleans()) else content)


@ANYTHING
@given(content=st.one_of(st.binary(max_size=100), damaged_picture()))
def test_read_image_whatever_the_bytes(tmp_path_factory, content):
    path = str(tmp_path_factory.getbasetemp() / 'any.picture')
    with open(path, 'wb') as file:
        file.write(content)
    try:
        image = utils.read_image(path)
    except utils.UserError as error:
        assert str(error).startswith(path) and '\n' not in str(error)
        return
    assert image.dtype == np.float32 and image.ndim == 3 and image.shape[2] == 3
    assert image.size and 0 <= image.min() and image.max() <= 1
