"""Bad input: whatever the bytes, the right array or the documented error; and every flag at its limits."""
import argparse
import gzip
import hashlib
import io
import math
import os
import shutil
import subprocess
import sys

import numpy as np
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from PIL import Image

import utils
from support import cli
from conftest import ROOT, run_here, write_idx, write_small_data

NAMES = {'images': 'train-images-idx3-ubyte', 'labels': 'train-labels-idx1-ubyte'}


def test_the_bundled_digits(mnist):
    assert [len(digits.labels) for digits in mnist] == [55000, 5000, 10000]
    assert mnist.validation.labels[:10].tolist() == [5, 0, 4, 1, 9, 2, 1, 3, 1, 4]  # as everybody's MNIST begins
    assert mnist.test.labels[:10].tolist() == [7, 2, 1, 0, 4, 1, 4, 9, 5, 9]
    assert round(mnist.train.images.mean() / 255, 3) == 0.131 and mnist.train.images.max() == 255


def raw_bytes(name, header):
    with gzip.open(os.path.join(utils.MNIST_DIR, name + '.gz')) as file:
        return np.frombuffer(file.read()[header:], np.uint8)


def test_validation_and_training_digits_are_the_raw_file_one_after_the_other(mnist):
    images, labels = raw_bytes(NAMES['images'], 16).reshape(-1, 28, 28), raw_bytes(NAMES['labels'], 8)
    np.testing.assert_array_equal(mnist.validation.images, images[:5000])
    np.testing.assert_array_equal(mnist.validation.labels, labels[:5000])
    np.testing.assert_array_equal(mnist.train.images, images[5000:])
    np.testing.assert_array_equal(mnist.train.labels, labels[5000:])
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


def with_label_10(labels):
    labels = labels.copy()
    labels[3] = 10
    return labels


DAMAGES = {
    'missing': ('images', os.remove, 'found no such file'),
    'empty': ('images', rewritten(lambda content: b''), 'found an empty file'),
    'cut header': ('images', rewritten(lambda content: content[:9]), 'expected an IDX file'),
    'cut': ('images', rewritten(lambda content: content[:-1]),
            'expected 564,480 bytes after the header, found 564,479'),
    'too long': ('labels', rewritten(lambda content: content + b'1'),
                 'expected 720 bytes after the header, found more'),
    'cut gzip': ('images', rewritten(lambda content: gzip.compress(content)[:-20]), 'cannot be read'),
    'gzip with a flipped byte': ('images', rewritten(
        lambda content: gzip.compress(content)[:5000] + b'?' + gzip.compress(content)[5001:]), 'cannot be read'),
    'web page': ('labels', rewritten(lambda content: b'<!DOCTYPE html><html>not here</html>'), 'found 3c21444f'),
    'labels for images': ('images', rewritten(lambda content: b'\0\0\x08\1' + content[4:]), 'found 00000801'),
    'wrong count': ('images', rewritten(lambda content: content[:4] + b'\0\0\3\0' + content[8:]),
                    'expected 602,112 bytes'),
    'fewer labels': ('labels', with_array(lambda labels: labels[1:]),
                     'one label for each of the 720 images, found 719'),
    'label 10': ('labels', with_array(with_label_10), 'expected labels from 0 to 9, found 10'),
    'other size': ('images', with_array(lambda images: images[:, :20]),
                   'images of 28 x 28 pixels, found 20 x 28; IMAGE_SIZE'),
    'no images': ('images', with_array(lambda images: images[:0]), 'expected at least one image or label, found none'),
    'a directory': ('images', lambda path: (os.remove(path), os.mkdir(path)), 'cannot be read')}


@pytest.mark.parametrize('name', DAMAGES)
def test_damaged_datasets(lesson2, capfd, data, tmp_path, name):
    kind, damage, complaint = DAMAGES[name]
    damage(os.path.join(data, NAMES[kind]))
    result = run_here(lesson2, capfd, '--data-dir', data, '--output-dir', tmp_path / 'output', check=2)
    assert complaint in result.stderr and NAMES[kind] in result.stderr and result.stderr.count('\n') == 1
    assert result.stdout == '' and not os.path.exists(str(tmp_path / 'output'))


def test_too_few_digits(data):
    for kind in NAMES:
        with_array(lambda array: array[:11])(os.path.join(data, NAMES[kind]))
    with pytest.raises(utils.UserError, match='at least 12 training digits, found 11'):
        utils.read_mnist(data)


def test_the_bundled_files_are_verified(data, monkeypatch):
    """A label changed from one digit to another is a valid file; only the SHA-256 tells."""
    for name in os.listdir(utils.MNIST_DIR):
        shutil.copy(os.path.join(utils.MNIST_DIR, name), data)
    monkeypatch.setattr(utils, 'MNIST_DIR', data)
    assert len(utils.read_mnist(data).train.labels) == 55000
    path = os.path.join(data, NAMES['labels'] + '.gz')
    with_array(lambda labels: np.where(np.arange(len(labels)) == 7, 1, labels).astype(np.uint8))(path)
    with pytest.raises(utils.UserError, match='expected SHA-256 65a50cbb'):
        utils.read_mnist(data)


def test_images_of_another_size(small_data, tmp_path):
    """20 x 20 pixels are read where they are asked for; the error message names both sizes otherwise."""
    write_small_data(str(tmp_path / 'cut'), resize=lambda images: images[:, 4:24, 4:24].copy())
    for ours, expected in zip(utils.read_mnist(str(tmp_path / 'cut'), image_size=20), utils.read_mnist(small_data)):
        np.testing.assert_array_equal(ours.images, expected.images[:, 4:24, 4:24])
        np.testing.assert_array_equal(ours.labels, expected.labels)
    with pytest.raises(utils.UserError, match='expected images of 20 x 20 pixels, found 28 x 28; IMAGE_SIZE'):
        utils.read_mnist(small_data, image_size=20)


@pytest.mark.parametrize('dot', '-.')
@pytest.mark.parametrize('ending', ['', '.gz'])
def test_names_with_dot_or_dash_plain_or_gzipped(small_data, tmp_path, dot, ending):
    for name in os.listdir(small_data):
        array = utils.read_idx(os.path.join(small_data, name), 3 if 'images' in name else 1)
        write_idx(str(tmp_path / (name.replace('-idx', dot + 'idx') + ending)), array)
    for ours, expected in zip(utils.read_mnist(str(tmp_path)), utils.read_mnist(small_data)):
        np.testing.assert_array_equal(ours.images, expected.images)
        np.testing.assert_array_equal(ours.labels, expected.labels)


# ---- Whatever the bytes ----

ANYTHING = settings(max_examples=150, deadline=None, suppress_health_check=list(HealthCheck))


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


def test_a_header_that_claims_too_much_and_a_gzip_bomb_take_little_memory(tmp_path):
    """In a process that may take 64 MB more than it has after the imports. The header claims 2^31 images; the bomb
    unpacks to 300 MB, of which its header claims 5 bytes."""
    pytest.importorskip('resource')
    if not os.path.exists('/proc/self/statm'):
        pytest.skip('says nowhere how much memory a process has')
    claims, bomb = str(tmp_path / NAMES['images']), str(tmp_path / 'bomb.gz')
    with open(claims, 'wb') as file:
        file.write(b'\0\0\x08\3' + np.array([2**31, 28, 28], '>u4').tobytes() + bytes(1000))
    with gzip.open(bomb, 'wb', compresslevel=1) as file:
        file.write(b'\0\0\x08\1' + np.array([5], '>u4').tobytes())
        for _ in range(300):
            file.write(bytes(1 << 20))
    code = """if True:
        import resource, sys, utils
        with open('/proc/self/statm') as file:
            limit = int(file.read().split()[0]) * resource.getpagesize() + (64 << 20)
        resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
        try:
            bytes(100 << 20)
        except MemoryError:
            print('limited')
        for path, dimensions in zip(sys.argv[1:], (3, 1)):
            try:
                utils.read_idx(path, dimensions)
            except utils.UserError as error:
                print(error)
        """
    result = subprocess.run([sys.executable, '-c', code, claims, bomb], cwd=ROOT, stdout=subprocess.PIPE,
                            stderr=subprocess.PIPE, universal_newlines=True)
    limited, of_claims, of_bomb = result.stdout.splitlines() or [result.stderr] * 3
    assert limited == 'limited' and 'found 1,000;' in of_claims, result.stdout + result.stderr
    assert 'expected 5 bytes after the header, found more' in of_bomb and result.stderr == ''


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


# ---- Flags ----

@pytest.mark.parametrize('kind, low, high, exclusive, good, bad', [
    (int, 1, math.inf, False, ['1', '2', ' 7 ', str(10**30)], ['0', '-1', '1.0', '1e3', 'nan', 'inf', '', 'x', '0x10']),
    (int, 0, 27, False, ['0', '27'], ['-1', '28', str(10**400)]),
    (float, 0, 1, True, ['1', '1e-300', '.5'], ['0', '-0.0', '1.0000001', 'nan', 'inf', '-inf', '1e400', '', 'half']),
    (float, 0, math.inf, True, ['1e300', '5'], ['0', '-1', 'inf', 'nan', '1e999'])])
def test_numbers_at_their_limits(kind, low, high, exclusive, good, bad):
    convert = cli.bounded(kind, low, high, exclusive)
    for text in good:
        assert convert(text) == kind(text)
    for text in bad:
        with pytest.raises(argparse.ArgumentTypeError, match='expected a'):
            convert(text)
