"""The kernels, judged by scipy, OpenCV and Pillow."""
import subprocess
import sys

import cv2
import numpy as np
import pytest
import scipy.ndimage
from PIL import Image, ImageFilter

import kernels
import utils
from support import cli
from conftest import ROOT

CUSTOM = {shape: np.random.RandomState(sum(shape)).normal(size=shape).astype(np.float32)
          for shape in [(1, 1), (1, 3), (2, 2), (4, 3), (5, 5), (31, 31)]}


@pytest.fixture(scope='module', params=['random', 'chihuahua'])
def image(request):
    if request.param == 'random':
        return np.random.RandomState(0).rand(50, 61, 3).astype(np.float32)
    return utils.read_image(ROOT + '/data/chihuahua.jpg')


def strided(full, size, anchor, stride, padding, axis):
    """Picks from a same-size correlation the rows or columns that TensorFlow's convention computes."""
    length = full.shape[axis]
    if padding == 'VALID':
        first, count = anchor, (length - size) // stride + 1
    else:
        count = -(-length // stride)
        first = anchor - max((count - 1) * stride + size - length, 0) // 2
    return np.take(full, first + stride * np.arange(count), axis)


def by_opencv(image, matrix, stride, padding):
    """Zero-padded correlation [h, w, 3] by cv2.filter2D, at the positions of tf.nn.conv2d."""
    anchor = [(side - 1) // 2 for side in matrix.shape]
    full = cv2.filter2D(image, -1, matrix, anchor=(anchor[1], anchor[0]), borderType=cv2.BORDER_CONSTANT)
    full = full.reshape(image.shape)
    for axis in 0, 1:
        full = strided(full, matrix.shape[axis], anchor[axis], stride, padding, axis)
    return full


def by_scipy(image, matrix, stride, padding):
    origin = [(side - 1) // 2 - side // 2 for side in matrix.shape]
    full = np.stack([scipy.ndimage.correlate(image[:, :, channel].astype(np.float64), matrix, mode='constant',
                                             origin=origin) for channel in range(image.shape[2])], axis=2)
    for axis in 0, 1:
        full = strided(full, matrix.shape[axis], (matrix.shape[axis] - 1) // 2, stride, padding, axis)
    return full


def by_tensorflow(lesson1, image, matrices, stride, padding):
    """Lesson 1's own functions: {name: (grey [h, w, 1], RGB [h, w, 3])}, with the red channel as grey."""
    tf = lesson1.tf
    with tf.Graph().as_default(), tf.Session() as session:
        tensor = tf.constant(image[np.newaxis])
        grey = lesson1.filter_all(tensor[..., :1], matrices, kernels.grey_kernel, stride, padding)
        rgb = lesson1.filter_all(tensor, matrices, kernels.rgb_kernel, stride, padding)
        return {name: (g[0], c[0]) for name, (g, c) in session.run(
            {name: (grey[name], rgb[name]) for name in matrices}).items()}


@pytest.mark.parametrize('padding', ['SAME', 'VALID'])
@pytest.mark.parametrize('stride', [1, 2, 3])
@pytest.mark.parametrize('judge', [by_scipy, by_opencv])
def test_every_kernel_equals_scipy_and_opencv(lesson1, image, judge, stride, padding):
    matrices = dict(kernels.KERNELS, **{'{}x{}'.format(*shape): matrix / np.abs(matrix).sum()
                                        for shape, matrix in CUSTOM.items()})
    for name, (grey, rgb) in by_tensorflow(lesson1, image, matrices, stride, padding).items():
        expected = judge(image, matrices[name], stride, padding)
        np.testing.assert_allclose(rgb, expected, atol=1e-5, err_msg=name)
        np.testing.assert_allclose(grey, expected[:, :, :1], atol=1e-5, err_msg=name)


@pytest.mark.parametrize('name', kernels.KERNELS)
def test_every_kernel_equals_pillow_inside_the_border(lesson1, image, name):
    grey = (image[:, :, 0] * 255).round().astype(np.uint8)
    matrix = kernels.KERNELS[name]
    kernel = ImageFilter.Kernel((3, 3), matrix[::-1].ravel().tolist(), scale=1)  # Pillow begins with the bottom row
    expected = Image.fromarray(grey).filter(kernel)
    picture = np.repeat(grey[:, :, np.newaxis] / np.float32(255), 3, axis=2)
    ours, _ = by_tensorflow(lesson1, picture, {name: matrix}, 1, 'VALID')[name]
    difference = np.clip(ours[:, :, 0] * 255, 0, 255) - np.asarray(expected, np.float32)[1:-1, 1:-1]
    assert np.abs(difference).max() <= 1


def test_sums_and_display_order():
    assert list(kernels.KERNELS) == ['identity', 'blur', 'sharpen', 'edge', 'top_sobel', 'bottom_sobel',
                                     'left_sobel', 'right_sobel', 'emboss']
    sums = {name: float(matrix.sum()) for name, matrix in kernels.KERNELS.items()}
    zero = {name for name, total in sums.items() if total == 0}
    assert zero == {'edge', 'top_sobel', 'bottom_sobel', 'left_sobel', 'right_sobel'}
    assert all(total == 1 for name, total in sums.items() if name not in zero)
    assert all(matrix.shape == (3, 3) and matrix.dtype == np.float32 for matrix in kernels.KERNELS.values())


def test_sobels_answer_to_the_side_they_are_named_after(lesson1):
    bright_above = np.zeros([5, 5, 3], np.float32)
    bright_above[:2] = 1
    for name, picture in [('top_sobel', bright_above), ('bottom_sobel', bright_above[::-1]),
                          ('left_sobel', bright_above.transpose(1, 0, 2)),
                          ('right_sobel', bright_above.transpose(1, 0, 2)[:, ::-1])]:
        outputs = by_tensorflow(lesson1, picture.copy(), {name: kernels.KERNELS[name]}, 1, 'VALID')
        assert outputs[name][0].max() == 4


def test_the_names_of_the_lecture(lesson1):
    tf = lesson1.tf
    image = np.random.RandomState(1).rand(1, 9, 9, 3).astype(np.float32)
    with tf.Graph().as_default(), tf.Session() as session:
        for name in 'BLUR_FILTER', 'SHARPEN_FILTER', 'EDGE_FILTER', 'EMBOSS_FILTER', 'TOP_SOBEL':
            grey = tf.nn.conv2d(image[..., :1], getattr(kernels, name), strides=[1, 1, 1, 1], padding='SAME')
            rgb = tf.nn.conv2d(image, getattr(kernels, name + '_RGB'), strides=[1, 1, 1, 1], padding='SAME')
            grey, rgb = session.run([grey, rgb])
            matrix = kernels.KERNELS[name.replace('_FILTER', '').lower()]
            np.testing.assert_allclose(grey[0], by_scipy(image[0, :, :, :1], matrix, 1, 'SAME'), atol=1e-5)
            np.testing.assert_allclose(rgb[0], by_scipy(image[0], matrix, 1, 'SAME'), atol=1e-5)


def test_depthwise_kernel_does_what_the_rgb_kernel_does(lesson1):
    tf = lesson1.tf
    image = np.random.RandomState(2).rand(1, 20, 20, 3).astype(np.float32)
    with tf.Graph().as_default(), tf.Session() as session:
        for matrix in kernels.KERNELS.values():
            depthwise = tf.nn.depthwise_conv2d(image, kernels.depthwise_kernel(matrix, 3), [1, 1, 1, 1], 'SAME')
            diagonal = tf.nn.conv2d(image, kernels.rgb_kernel(matrix), [1, 1, 1, 1], 'SAME')
            np.testing.assert_allclose(*session.run([depthwise, diagonal]), atol=1e-5)


def test_conv2d_does_not_flip_the_kernel(lesson1):
    image = np.zeros([5, 5, 3], np.float32)
    image[2, 2] = 1
    matrix = np.arange(9, dtype=np.float32).reshape(3, 3)
    output = by_tensorflow(lesson1, image, {'count': matrix}, 1, 'SAME')['count'][0][1:4, 1:4, 0]
    np.testing.assert_array_equal(output, matrix[::-1, ::-1])  # the mirror image of what convolution gives


def test_importing_kernels_loads_numpy_alone():
    code = 'import sys, kernels; print(sorted(set(sys.modules) & {"tensorflow", "matplotlib", "PIL"}))'
    assert subprocess.check_output([sys.executable, '-c', code], cwd=ROOT).decode().strip() == '[]'


def test_matrix_from_text():
    np.testing.assert_array_equal(cli.matrix_from_text('0 -1 0; -1 5 -1; 0 -1 0'), kernels.KERNELS['sharpen'])
    np.testing.assert_array_equal(cli.matrix_from_text(' 1,2 ; 3e-1 4 ;'), np.float32([[1, 2], [.3, 4]]))
    row = ' '.join(['1'] * 31)
    assert cli.matrix_from_text(';'.join([row] * 31)).shape == (31, 31)
    for text in '', ';', 'a', '1 2; 3', '1 nan', '1 inf', '1e99', '1;;1', row + ' 1', ';'.join(['1'] * 32):
        with pytest.raises(ValueError):
            cli.matrix_from_text(text)


# ---- The bank of hand-coded kernels for conv1 ----

def test_turning_twice_is_a_quarter_turn():
    for matrix in kernels.KERNELS.values():
        np.testing.assert_array_equal(kernels.turned(kernels.turned(matrix)), np.rot90(matrix, -1))
    assert len(kernels.directions(kernels.KERNELS['top_sobel'])) == len(kernels.directions(kernels.KERNELS['emboss'])) == 8


def test_the_bank_holds_32_different_kernels_fine_and_coarse(image):
    bank = kernels.bank()
    assert bank.shape == (5, 5, 1, 32) and bank.dtype == np.float32
    np.testing.assert_allclose(np.abs(bank).sum(axis=(0, 1, 2)), 1, rtol=1e-6)
    assert len({bank[..., number].tobytes() for number in range(32)}) == 32
    found = [bank[:, :, 0, number] for number in range(32)]
    for name, matrix in kernels.KERNELS.items():
        if name != 'identity':
            assert any(np.allclose(kernel, np.pad(matrix, 1, mode='constant') / np.abs(matrix).sum()) for kernel in found)
    grey = image[:, :, 0].astype(float)  # a coarse kernel does to a picture what the fine one does to every other pixel
    for name in 'blur', 'sharpen', 'edge', 'left_sobel':
        matrix = kernels.KERNELS[name] / np.abs(kernels.KERNELS[name]).sum()
        expected = scipy.ndimage.correlate(grey[::2, ::2], matrix)[1:-1, 1:-1]
        answers = [scipy.ndimage.correlate(grey, kernel)[::2, ::2][1:-1, 1:-1] for kernel in found[-11:]]
        assert any(np.allclose(answer, expected) for answer in answers), name
