"""The kernels, judged by SciPy, OpenCV and Pillow."""
import argparse
import itertools
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
FAMILIES = dict({'lecture': kernels.KERNELS}, **{  # filter_grey takes kernels of one size
    '{}x{}'.format(*shape): {'custom': matrix / np.abs(matrix).sum()} for shape, matrix in CUSTOM.items()})
STEPS = list(itertools.product([1, 2, 3], ['SAME', 'VALID']))


@pytest.fixture(scope='module', params=['random', 'chihuahua'])
def image(request):
    if request.param == 'random':
        return np.random.RandomState(0).rand(50, 61, 3).astype(np.float32)
    return utils.read_image(ROOT + '/data/chihuahua.jpg')


def strided(full, kernel_shape, stride, padding):
    """Picks from a same-size correlation [h, w, ...] the values that TensorFlow's convention computes."""
    for axis, size in enumerate(kernel_shape):
        anchor, length = (size - 1) // 2, full.shape[axis]
        if padding == 'VALID':
            first, count = anchor, (length - size) // stride + 1
        else:
            count = -(-length // stride)
            first = anchor - max((count - 1) * stride + size - length, 0) // 2
        full = np.take(full, first + stride * np.arange(count), axis)
    return full


def opencv_correlate(image, matrix):
    """Zero-padded correlation of each channel by cv2.filter2D: [h, w, c] -> [h, w, c]."""
    anchor = [(side - 1) // 2 for side in matrix.shape]
    return cv2.filter2D(image, -1, matrix, anchor=(anchor[1], anchor[0]),
                        borderType=cv2.BORDER_CONSTANT).reshape(image.shape)


def scipy_correlate(image, matrix):
    """The same by scipy.ndimage, in double precision."""
    origin = [(side - 1) // 2 - side // 2 for side in matrix.shape]
    return np.stack([scipy.ndimage.correlate(image[:, :, channel].astype(np.float64), matrix, mode='constant',
                                             origin=origin) for channel in range(image.shape[2])], axis=2)


def by_scipy(image, matrix, stride=1, padding='SAME'):
    return strided(scipy_correlate(image, matrix), matrix.shape, stride, padding)


def by_tensorflow(lesson1, image, matrices, steps=((1, 'SAME'),)):
    """Lesson 1's own functions: [{name: (grey [h, w, 1], RGB [h, w, 3])}] by step, with the red channel as grey."""
    tf = lesson1.tf
    with tf.Graph().as_default(), tf.Session() as session:
        tensor = tf.constant(image[np.newaxis])
        values = session.run([(lesson1.filter_grey(tensor[..., :1], matrices, stride, padding),
                               lesson1.filter_rgb(tensor, matrices, stride, padding)) for stride, padding in steps])
    return [{name: (grey[name][0], rgb[name][0]) for name in matrices} for grey, rgb in values]


@pytest.mark.parametrize('family', FAMILIES)
def test_every_kernel_equals_scipy_and_opencv(lesson1, image, family):
    matrices = FAMILIES[family]
    ours = by_tensorflow(lesson1, image, matrices, STEPS)
    for name, matrix in matrices.items():
        for judge in scipy_correlate, opencv_correlate:
            full = judge(image, matrix)
            for (stride, padding), outputs in zip(STEPS, ours):
                message = '{}, stride {}, {}'.format(name, stride, padding)
                expected = strided(full, matrix.shape, stride, padding)
                np.testing.assert_allclose(outputs[name][0], expected[:, :, :1], atol=1e-5, err_msg=message)
                np.testing.assert_allclose(outputs[name][1], expected, atol=1e-5, err_msg=message)


def test_every_kernel_equals_pillow_inside_the_border(lesson1, image):
    grey = (image[:, :, 0] * 255).round().astype(np.uint8)
    picture = np.repeat(grey[:, :, np.newaxis] / np.float32(255), 3, axis=2)
    (ours,) = by_tensorflow(lesson1, picture, kernels.KERNELS, [(1, 'VALID')])
    for name, matrix in kernels.KERNELS.items():
        kernel = ImageFilter.Kernel((3, 3), matrix[::-1].ravel().tolist(), scale=1)  # Pillow begins with the bottom row
        expected = np.asarray(Image.fromarray(grey).filter(kernel), np.float32)[1:-1, 1:-1]
        assert np.abs(np.clip(ours[name][0][:, :, 0] * 255, 0, 255) - expected).max() <= 1, name


# ---- What each kernel is for ----

def test_blur_sharpen_edge_and_sobels_are_those_of_opencv(lesson1, image):
    border = {'borderType': cv2.BORDER_CONSTANT}
    grey = image[:, :, 0].copy()
    sobel_down, sobel_right = [cv2.Sobel(grey, -1, dx, 1 - dx, ksize=3, **border) for dx in (0, 1)]
    expected = {'identity': grey, 'blur': cv2.GaussianBlur(grey, (3, 3), 0, **border),
                'sharpen': grey - cv2.Laplacian(grey, -1, ksize=1, **border),
                'edge': 9 * (grey - cv2.blur(grey, (3, 3), **border)),
                'bottom_sobel': sobel_down, 'top_sobel': -sobel_down,
                'right_sobel': sobel_right, 'left_sobel': -sobel_right}
    (ours,) = by_tensorflow(lesson1, image, kernels.KERNELS)
    assert set(expected) | {'emboss'} == set(kernels.KERNELS)
    for name in expected:
        np.testing.assert_allclose(ours[name][0][:, :, 0], expected[name], atol=1e-5, err_msg=name)


def test_brightness_is_kept_or_an_even_area_becomes_0(lesson1):
    (outputs,) = by_tensorflow(lesson1, np.full([5, 5, 3], 0.7, np.float32), kernels.KERNELS, [(1, 'VALID')])
    zero = {name for name, (grey, rgb) in outputs.items() if np.abs(grey).max() < 1e-6 and np.abs(rgb).max() < 1e-6}
    assert zero == {'edge', 'top_sobel', 'bottom_sobel', 'left_sobel', 'right_sobel'}
    for name in set(kernels.KERNELS) - zero:
        for output in outputs[name]:
            np.testing.assert_allclose(output, 0.7, atol=1e-6, err_msg=name)


def test_sobels_answer_to_the_side_they_are_named_after(lesson1):
    bright_above = np.zeros([5, 5, 3], np.float32)
    bright_above[:2] = 1
    for name, picture in [('top_sobel', bright_above), ('bottom_sobel', bright_above[::-1]),
                          ('left_sobel', bright_above.transpose(1, 0, 2)),
                          ('right_sobel', bright_above.transpose(1, 0, 2)[:, ::-1])]:
        (outputs,) = by_tensorflow(lesson1, picture.copy(), {name: kernels.KERNELS[name]}, [(1, 'VALID')])
        assert outputs[name][0].max() == 4 and outputs[name][0].min() == 0, name


@pytest.fixture(scope='module')
def pixel_and_square(lesson1):
    """What the kernels make of one bright pixel at (4, 4), and of a bright square from (3, 3) to (6, 6)."""
    pixel, square = np.zeros([2, 10, 10, 3], np.float32)
    pixel[4, 4] = 1
    square[3:7, 3:7] = 1
    outputs = [by_tensorflow(lesson1, picture, kernels.KERNELS)[0] for picture in (pixel, square)]
    return [{name: grey[:, :, 0] for name, (grey, _) in each.items()} for each in outputs]


def test_emboss_is_a_relief_with_light_from_the_top_left(pixel_and_square):
    pixel, square = [outputs['emboss'] for outputs in pixel_and_square]
    assert pixel[3, 3] == 2 and pixel[5, 5] == -2 and pixel[4, 4] == 1
    assert pixel[3, 4] == pixel[4, 3] == 1 and pixel[5, 4] == pixel[4, 5] == -1
    assert pixel[3, 5] == pixel[5, 3] == 0
    assert (square[4:6, 4:6] == 1).all()                        # the inside keeps its brightness
    assert square[2, 2] == 2 and square[7, 7] == -2             # the corners towards the light and away from it
    assert (square[2, 4:6] > 1).all() and (square[4:6, 2] > 1).all()
    assert (square[7, 4:6] < -1).all() and (square[4:6, 7] < -1).all()
    assert not square[[0, 0, 9, 9], [0, 9, 0, 9]].any()


def test_edge_is_bright_within_a_bright_border_and_dark_around_it(pixel_and_square):
    pixel, square = [outputs['edge'] for outputs in pixel_and_square]
    ring = pixel[3:6, 3:6].copy()
    assert ring[1, 1] == 8
    ring[1, 1] = -1
    assert (ring == -1).all() and np.abs(pixel).sum() == 16
    assert (square[4:6, 4:6] == 0).all()
    inner, outer = np.zeros([2, 10, 10], bool)
    inner[3:7, 3:7], outer[2:8, 2:8] = True, True
    outer[inner] = False
    inner[4:6, 4:6] = False
    assert (square[inner] > 0).all() and (square[outer] < 0).all() and square[3, 3] == 5 and square[2, 2] == -1


# ---- The shapes that TensorFlow takes ----

def test_the_names_of_the_lecture(lesson1):
    tf = lesson1.tf
    image = np.random.RandomState(1).rand(1, 9, 9, 3).astype(np.float32)
    with tf.Graph().as_default(), tf.Session() as session:
        for name in 'BLUR_FILTER', 'SHARPEN_FILTER', 'EDGE_FILTER', 'EMBOSS_FILTER', 'TOP_SOBEL':
            grey = tf.nn.conv2d(image[..., :1], getattr(kernels, name), strides=[1, 1, 1, 1], padding='SAME')
            rgb = tf.nn.conv2d(image, getattr(kernels, name + '_RGB'), strides=[1, 1, 1, 1], padding='SAME')
            grey, rgb = session.run([grey, rgb])
            matrix = kernels.KERNELS[name.replace('_FILTER', '').lower()]
            np.testing.assert_allclose(grey[0], by_scipy(image[0, :, :, :1], matrix), atol=1e-5)
            np.testing.assert_allclose(rgb[0], by_scipy(image[0], matrix), atol=1e-5)


@pytest.mark.parametrize('channels', [1, 3, 4])
def test_a_depthwise_kernel_filters_each_channel_by_itself(lesson1, channels):
    tf = lesson1.tf
    image = np.random.RandomState(2).rand(1, 20, 20, channels).astype(np.float32)
    with tf.Graph().as_default(), tf.Session() as session:
        outputs = session.run({name: tf.nn.depthwise_conv2d(
            image, kernels.depthwise_kernel(matrix, channels), [1, 1, 1, 1], 'SAME')
            for name, matrix in kernels.KERNELS.items()})
    for name, matrix in kernels.KERNELS.items():
        np.testing.assert_allclose(outputs[name][0], by_scipy(image[0], matrix), atol=1e-5, err_msg=name)


def test_importing_kernels_loads_numpy_alone():
    code = 'import sys, kernels; print(sorted(set(sys.modules) & {"tensorflow", "matplotlib", "PIL"}))'
    assert subprocess.check_output([sys.executable, '-c', code], cwd=ROOT).decode().strip() == '[]'


def test_kernel_from_text():
    np.testing.assert_array_equal(cli.kernel_from_text('0 -1 0; -1 5 -1; 0 -1 0'), kernels.KERNELS['sharpen'])
    np.testing.assert_array_equal(cli.kernel_from_text(' 1,2 ; 3e-1 4 ;'), np.float32([[1, 2], [.3, 4]]))
    assert cli.kernel_from_text('1').shape == (1, 1) and cli.kernel_from_text('1 2').dtype == np.float32
    row = ' '.join(['1'] * 31)
    assert cli.kernel_from_text(';'.join([row] * 31)).shape == (31, 31)
    for text in ('', ';', 'a', '1 2; 3', '1 nan', '1 inf', '1e99', '1e6', '1;;1', row + ' 1', ';'.join(['1'] * 32)):
        with pytest.raises(argparse.ArgumentTypeError, match='expected rows of equal length'):
            cli.kernel_from_text(text)


# ---- The filter bank of hand-coded kernels for conv1 ----

def test_rotating_twice_by_45_degrees_is_a_quarter_turn():
    for matrix in kernels.KERNELS.values():
        np.testing.assert_array_equal(kernels.rotate45(kernels.rotate45(matrix)), np.rot90(matrix, -1))
    once = kernels.rotate45(np.arange(9, dtype=np.float32).reshape(3, 3))
    np.testing.assert_array_equal(once, [[3, 0, 1], [6, 4, 2], [7, 8, 5]])
    counts = {name: len(kernels.orientations(matrix)) for name, matrix in kernels.KERNELS.items()}
    assert counts == dict(identity=1, blur=2, sharpen=2, edge=1, emboss=8, top_sobel=8, bottom_sobel=8,
                          left_sobel=8, right_sobel=8)


@pytest.mark.parametrize('height, width, channels, count, different', [
    (5, 5, 1, 32, 32), (3, 3, 1, 32, 21), (7, 7, 1, 32, 32), (5, 5, 3, 64, 32), (3, 5, 2, 8, 8), (7, 5, 1, 1, 1),
    (4, 4, 1, 32, 21), (6, 6, 1, 40, 32)])
def test_the_filter_bank_of_any_size(height, width, channels, count, different):
    bank = kernels.filter_bank(height, width, channels, count)
    assert bank.shape == (height, width, channels, count) and bank.dtype == np.float32
    np.testing.assert_allclose(np.abs(bank).sum(axis=(0, 1, 2)), 1, rtol=1e-5)
    assert len({bank[..., index].tobytes() for index in range(count)}) == different
    for channel in range(channels):
        np.testing.assert_array_equal(bank[:, :, channel], bank[:, :, 0])
    if count < 21:
        return
    top, left = (height - 1) // 2 - 1, (width - 1) // 2 - 1  # conv2d with SAME: of 4 pixels, the second is the centre
    for name, matrix in kernels.KERNELS.items():
        expected = np.zeros([height, width])
        expected[top:top + 3, left:left + 3] = matrix / np.abs(matrix).sum() / channels
        found = any(np.allclose(bank[:, :, 0, index], expected) for index in range(count))
        assert found == (name != 'identity'), name


def test_a_coarse_kernel_does_to_a_picture_what_the_fine_one_does_to_every_other_pixel(image):
    assert kernels.filter_bank().shape == (5, 5, 1, 32)
    bank = [kernels.filter_bank()[:, :, 0, index] for index in range(21, 32)]
    grey = image[:150, :150, 0].astype(float)
    for name in 'blur', 'sharpen', 'edge', 'left_sobel', 'right_sobel', 'top_sobel', 'bottom_sobel':
        matrix = kernels.KERNELS[name] / np.abs(kernels.KERNELS[name]).sum()
        expected = scipy.ndimage.correlate(grey[::2, ::2], matrix)[1:-1, 1:-1]
        outputs = [scipy.ndimage.correlate(grey, kernel)[::2, ::2][1:-1, 1:-1] for kernel in bank]
        assert any(np.allclose(output, expected) for output in outputs), name
