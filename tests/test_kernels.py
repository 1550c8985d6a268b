"""The kernels. SciPy judges all of them, and OpenCV those that it knows by name."""
import itertools
import subprocess
import sys

import cv2
import numpy as np
import pytest
import scipy.ndimage

import kernels
import utils
from support import cli
from conftest import ROOT, lesson1, tf

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


def scipy_correlate(image, matrix):
    """Zero-padded correlation of each channel by SciPy, in double precision: [h, w, c] -> [h, w, c]."""
    origin = [(side - 1) // 2 - side // 2 for side in matrix.shape]
    return np.stack([scipy.ndimage.correlate(image[:, :, channel].astype(np.float64), matrix, mode='constant',
                                             origin=origin) for channel in range(image.shape[2])], axis=2)


def by_scipy(image, matrix, stride=1, padding='SAME'):
    return strided(scipy_correlate(image, matrix), matrix.shape, stride, padding)


def by_tensorflow(image, matrices, steps=((1, 'SAME'),)):
    """Lesson 1's own functions: [{name: (grey [h, w, 1], RGB [h, w, 3])}] by step, with the red channel as grey."""
    with tf.Graph().as_default(), tf.Session() as session:
        tensor = tf.constant(image[np.newaxis])
        values = session.run([(lesson1.filter_grey(tensor[..., :1], matrices, stride, padding),
                               lesson1.filter_rgb(tensor, matrices, stride, padding)) for stride, padding in steps])
    return [{name: (grey[name][0], rgb[name][0]) for name in matrices} for grey, rgb in values]


@pytest.mark.parametrize('image, family', [('random', family) for family in FAMILIES] + [('chihuahua', 'lecture')],
                         indirect=['image'])
def test_every_kernel_equals_scipy(image, family):
    ours = by_tensorflow(image, FAMILIES[family], STEPS)
    for name, matrix in FAMILIES[family].items():
        full = scipy_correlate(image, matrix)
        for (stride, padding), outputs in zip(STEPS, ours):
            message = '{}, stride {}, {}'.format(name, stride, padding)
            expected = strided(full, matrix.shape, stride, padding)
            np.testing.assert_allclose(outputs[name][0], expected[:, :, :1], atol=1e-5, err_msg=message)
            np.testing.assert_allclose(outputs[name][1], expected, atol=1e-5, err_msg=message)


# ---- What each kernel is for ----

def test_blur_sharpen_edge_and_sobels_are_those_of_opencv(image):
    border = {'borderType': cv2.BORDER_CONSTANT}
    grey = image[:, :, 0].copy()
    sobel_down, sobel_right = [cv2.Sobel(grey, -1, dx, 1 - dx, ksize=3, **border) for dx in (0, 1)]
    expected = {'identity': grey, 'blur': cv2.GaussianBlur(grey, (3, 3), 0, **border),
                'sharpen': grey - cv2.Laplacian(grey, -1, ksize=1, **border),
                'edge': 9 * (grey - cv2.blur(grey, (3, 3), **border)),
                'bottom_sobel': sobel_down, 'top_sobel': -sobel_down,
                'right_sobel': sobel_right, 'left_sobel': -sobel_right}
    (ours,) = by_tensorflow(image, kernels.KERNELS)
    assert set(expected) | {'emboss'} == set(kernels.KERNELS)
    for name in expected:
        np.testing.assert_allclose(ours[name][0][:, :, 0], expected[name], atol=1e-5, err_msg=name)


def test_emboss_is_a_relief_with_light_from_the_top_left():
    square = np.zeros([10, 10, 3], np.float32)
    square[3:7, 3:7] = 1
    ((output, _),) = [each['emboss'] for each in by_tensorflow(square, kernels.KERNELS)]
    output = output[:, :, 0]
    assert (output[4:6, 4:6] == 1).all()                  # the inside keeps its brightness
    assert output[2, 2] == 2 and output[7, 7] == -2       # the corners towards the light and away from it
    assert (output[2, 4:6] > 1).all() and (output[4:6, 2] > 1).all()
    assert (output[7, 4:6] < -1).all() and (output[4:6, 7] < -1).all()
    assert not output[[0, 0, 9, 9], [0, 9, 0, 9]].any()


# ---- The shapes that TensorFlow takes ----

def test_the_names_of_the_lecture():
    image = np.random.RandomState(1).rand(1, 9, 9, 3).astype(np.float32)
    with tf.Graph().as_default(), tf.Session() as session:
        for name in 'BLUR_FILTER', 'SHARPEN_FILTER', 'EDGE_FILTER', 'EMBOSS_FILTER', 'TOP_SOBEL':
            grey = tf.nn.conv2d(image[..., :1], getattr(kernels, name), strides=[1, 1, 1, 1], padding='SAME')
            rgb = tf.nn.conv2d(image, getattr(kernels, name + '_RGB'), strides=[1, 1, 1, 1], padding='SAME')
            grey, rgb = session.run([grey, rgb])
            matrix = kernels.KERNELS[name.replace('_FILTER', '').lower()]
            np.testing.assert_allclose(grey[0], by_scipy(image[0, :, :, :1], matrix), atol=1e-5)
            np.testing.assert_allclose(rgb[0], by_scipy(image[0], matrix), atol=1e-5)


def test_importing_kernels_loads_numpy_alone():
    code = 'import sys, kernels; print(sorted(set(sys.modules) & {"tensorflow", "matplotlib", "PIL"}))'
    assert subprocess.check_output([sys.executable, '-c', code], cwd=ROOT).decode().strip() == '[]'


def test_kernel_from_text():
    np.testing.assert_array_equal(cli.kernel_from_text('0 -1 0; -1 5 -1; 0 -1 0'), kernels.KERNELS['sharpen'])
    np.testing.assert_array_equal(cli.kernel_from_text(' 1,2 ; 3e-1 4 ;'), np.float32([[1, 2], [.3, 4]]))
    assert cli.kernel_from_text('1').shape == (1, 1) and cli.kernel_from_text('1 2').dtype == np.float32
    assert cli.kernel_from_text(';'.join([' '.join(['1'] * 31)] * 31)).shape == (31, 31)


# ---- The filter bank of hand-coded kernels for conv1 ----

def test_rotating_twice_by_45_degrees_is_a_quarter_turn():
    rotated = kernels.orientations(np.arange(9, dtype=np.float32).reshape(3, 3))
    np.testing.assert_array_equal(rotated[1], [[3, 0, 1], [6, 4, 2], [7, 8, 5]])
    for quarters in range(4):
        np.testing.assert_array_equal(rotated[2 * quarters], np.rot90(rotated[0], -quarters))
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
