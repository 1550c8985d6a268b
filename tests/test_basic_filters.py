"""Lesson 1 as its users run it, and the pictures that it must read or refuse."""
import io
import os

import numpy as np
import pytest
from PIL import Image

import kernels
import utils
from conftest import ROOT, run_script

CHIHUAHUA = os.path.join(ROOT, 'data', 'chihuahua.jpg')


def read_png(path):
    return np.asarray(Image.open(str(path)).convert('RGB'))


def summaries(lesson1, log_dir):
    """{tag: decoded picture} and the graphs in a folder of event files."""
    images, graphs = {}, []
    for name in os.listdir(str(log_dir)):
        for event in lesson1.tf.train.summary_iterator(os.path.join(str(log_dir), name)):
            if event.HasField('graph_def'):
                graphs.append(lesson1.tf.GraphDef.FromString(event.graph_def))
            for value in event.summary.value:
                images[value.tag] = np.asarray(Image.open(io.BytesIO(value.image.encoded_image_string)))
    return images, graphs


def test_the_main_command(filters_flags, lesson1, tmp_path):
    result = run_script('07_basic_filters.py', *filters_flags)
    assert result.stderr == ''
    for name in kernels.KERNELS:
        assert '\n{:12}'.format(name) in result.stdout
    assert result.stdout.count('(1, 640, 640, 1)    (1, 640, 640, 3)') == len(kernels.KERNELS)
    assert result.stdout.rstrip().endswith(str(tmp_path / 'graphs'))
    assert '   equal' in result.stdout and 'NOT EQUAL' not in result.stdout
    for stride, same, valid in (1, 640, 638), (2, 320, 319), (3, 214, 213):
        assert '  {}       (1, {same}, {same}, 1)    (1, {valid}, {valid}, 1)'.format(
            stride, same=same, valid=valid) in result.stdout
    for name in 'grid.png', 'conv_ops.png':
        assert read_png(tmp_path / 'figures' / name).std() > 20  # there is something to see

    images, graphs = summaries(lesson1, tmp_path / 'graphs')
    assert len(images) == 2 * len(kernels.KERNELS) + 3
    blurred = next(image for tag, image in images.items() if 'rgb/blur' in tag)
    assert blurred.shape == (640, 640, 3)
    original = np.asarray(Image.open(CHIHUAHUA))
    assert abs(blurred.astype(float).mean() - original.mean()) < 1  # brightness kept
    (graph,) = graphs
    convolutions = {node.name for node in graph.node if node.op == 'Conv2D'}
    assert {'grey/Conv2D', 'rgb/Conv2D'} <= convolutions  # all kernels in one
    assert not {name for name in convolutions if name.startswith(('grey/', 'rgb/'))} - {'grey/Conv2D', 'rgb/Conv2D'}


def test_one_scale_for_all(lesson1):
    values = np.float32([-0.5, 0, 0.25, 1, 1.5]).reshape(1, 5, 1, 1)
    with lesson1.tf.Graph().as_default(), lesson1.tf.Session() as session:
        clipped = session.run(lesson1.displayed(lesson1.tf.constant(values), kernels.KERNELS['blur']))
        magnitude = session.run(lesson1.displayed(lesson1.tf.constant(values), kernels.KERNELS['edge']))
    assert clipped.ravel().tolist() == [0, 0, 63, 255, 255]
    assert magnitude.ravel().tolist() == [127, 0, 63, 255, 255]


def test_separable_equals_conv2d_and_depthwise_keeps_colours_apart(lesson1):
    image = np.random.RandomState(0).rand(1, 8, 9, 3).astype(np.float32)
    red = image * np.float32([1, 0, 0])
    with lesson1.tf.Graph().as_default(), lesson1.tf.Session() as session:
        outputs = session.run([{name: output for name, (_, output) in lesson1.compare_operations(
            lesson1.tf.constant(picture)).items()} for picture in (image, red)])
    np.testing.assert_allclose(outputs[0]['conv2d'], outputs[0]['separable_conv2d'], atol=1e-5)
    assert np.abs(outputs[1]['depthwise_conv2d'][..., 1:]).max() == 0
    assert np.abs(outputs[1]['conv2d'][..., 1:]).max() > 0.1


@pytest.mark.parametrize('flags, expected', [
    (['--kernels', 'edge', 'blur'], ['edge  ', 'blur  ', 'by hand: blur']),
    (['--custom', '0 -1 0; -1 5 -1; 0 -1 0', '--kernels', 'sharpen'], ['custom  ', 'by hand: custom']),
    (['--custom', '1 2; 3 4', '--kernels', 'edge', '--padding', 'VALID'], ['(1, 639, 639, 1)', '(1, 638, 638, 3)']),
    (['--stride', '3', '--kernels', 'emboss'], ['(1, 214, 214, 3)', 'by hand: emboss']),
    (['--stride', '2', '--padding', 'VALID', '--kernels', 'edge'], ['(1, 319, 319, 3)', 'by hand: edge'])])
def test_flags(filters, tmp_path, flags, expected):
    result = filters(*flags)
    assert all(text in result.stdout for text in expected), result.stdout
    assert '   equal' in result.stdout and result.stderr == ''


def test_the_pixel_by_hand_and_the_log_of_a_large_bright_picture(filters, lesson1, tmp_path):
    picture = Image.new('RGB', (1500, 2100), 'white')  # its largest changes are at the border, where zeros come in
    picture.paste('grey', (700, 300, 900, 400))
    picture.save(str(tmp_path / 'large.png'))
    stdout = filters('--image', tmp_path / 'large.png', '--kernels', 'blur').stdout
    assert 'blur, grey, row 300, column 700' in stdout
    images, _ = summaries(lesson1, tmp_path / 'graphs')
    assert {picture.shape[:2] for picture in images.values()} == {(700, 500)}


def test_a_kernel_that_begins_with_a_minus(filters):
    assert '{:14}{:6}'.format('custom', 0) in filters('--kernels', 'edge', '--custom=-1,0,1;-2,0,2;-1,0,1').stdout


def test_its_earlier_log_is_replaced_and_others_are_not(filters, tmp_path):
    (tmp_path / 'graphs').mkdir()
    (tmp_path / 'graphs' / 'events.out.tfevents.1.mine').write_text('mine')
    for _ in range(2):
        filters('--kernels', 'edge')
    assert len(os.listdir(str(tmp_path / 'graphs'))) == 2
    assert (tmp_path / 'graphs' / 'events.out.tfevents.1.mine').read_text() == 'mine'


def test_a_31_x_31_kernel_of_your_own(filters):
    result = filters('--kernels', 'identity', '--custom', ';'.join([' '.join(['0.001'] * 31)] * 31))
    assert 'sum of the product' in result.stdout and '   equal' in result.stdout


@pytest.mark.parametrize('flags, complaint', [
    (['--kernels', 'blurr'], "invalid choice: 'blurr'"),
    (['--custom', '1 2; 3'], 'rows of different length'),
    (['--custom', 'one'], 'expected rows of numbers'),
    (['--custom', '1 nan'], 'expected rows of numbers'),
    (['--stride', '0'], "expected a whole number of at least 1 and at most 1000, found '0'"),
    (['--stride', '-1'], 'expected a whole number'),
    (['--stride', '1.5'], 'expected a whole number'),
    (['--padding', 'FULL'], 'invalid choice'),
    (['--image', 'missing.jpg'], 'missing.jpg'),
    (['--image', '.'], 'Is a directory'),
    (['--image', __file__], 'expected a picture'),
    (['--output', 'picture.jpg'], 'ends in .png'), (['--output', 'conv_ops.png'], 'choose another'),
    (['--output', CHIHUAHUA], 'ends in .png'),
    (['--output', __file__ + '/x.png'], 'cannot be written'),
    (['--log-dir', __file__ + '/graphs'], 'cannot be written'),
    (['--no-such-flag'], 'unrecognized arguments')])
def test_errors_are_one_line_and_status_2(filters, flags, complaint):
    before = open(CHIHUAHUA, 'rb').read()
    result = filters(*flags, check=2)
    assert complaint in result.stderr and result.stderr.count('\n') == 1
    assert open(CHIHUAHUA, 'rb').read() == before


def test_a_small_picture_under_valid_padding(filters, tmp_path):
    Image.new('L', (2, 5), 128).save(str(tmp_path / 'small.png'))
    assert 'smaller than the kernel' in filters('--image', tmp_path / 'small.png', '--padding', 'VALID', check=2).stderr
    assert 'too small for it' in filters('--image', tmp_path / 'small.png').stdout


def test_a_backend_that_does_not_work_here(filters_flags):
    result = run_script('07_basic_filters.py', *filters_flags[1:], '--kernels', 'blur',
                        environment={'MPLBACKEND': 'module://no_such_backend'})
    assert result.stderr == '' and 'grid.png' in result.stdout


@pytest.mark.parametrize('flags, windows', [([], 1), (['--no-show'], 0)])
def test_windows_open_where_there_is_a_display(filters_flags, flags, windows):
    result = run_script('07_basic_filters.py', *filters_flags[1:], *flags, environment={
        'MPLBACKEND': 'module://fake_display', 'PYTHONPATH': os.path.dirname(__file__)})
    assert result.stdout.count('A WINDOW') == windows


def test_a_picture_of_the_user_is_not_overwritten(filters, tmp_path):
    mine = tmp_path / 'mine.png'
    Image.new('RGB', (9, 9), 'red').save(str(mine))
    before = mine.read_bytes()
    assert 'not a picture that this script made' in filters('--image', mine, '--output', mine, check=2).stderr
    assert mine.read_bytes() == before


def test_its_own_figure_is_replaced(filters):
    filters('--kernels', 'blur')
    filters('--kernels', 'edge')


# ---- Pictures ----

RGB = np.random.RandomState(3).randint(0, 256, (12, 10, 3)).astype(np.uint8)
GREY = RGB[:, :, 0]


def saved(tmp_path, image, name='picture.png', **options):
    image.save(str(tmp_path / name), **options)
    return utils.read_image(str(tmp_path / name))


def same(image, expected, atol=1e-6):
    assert image.dtype == np.float32 and image.shape == (12, 10, 3)
    if expected.ndim == 2:
        expected = np.repeat(expected[:, :, np.newaxis], 3, axis=2)
    np.testing.assert_allclose(image, expected / 255.0, atol=atol)


def test_modes(tmp_path):
    same(saved(tmp_path, Image.fromarray(RGB)), RGB)
    same(saved(tmp_path, Image.fromarray(GREY)), GREY)
    same(saved(tmp_path, Image.fromarray(GREY > 127)), (GREY > 127) * 255)
    palette = Image.fromarray(RGB).quantize(16)
    same(saved(tmp_path, palette), np.asarray(palette.convert('RGB')))
    same(saved(tmp_path, Image.fromarray(255 - RGB).convert('CMYK'), 'picture.tif'), 255 - RGB)
    alpha = np.full((12, 10), 51, np.uint8)
    rgba = Image.fromarray(np.dstack([RGB, alpha]))
    same(saved(tmp_path, rgba), RGB * 0.2 + 255 * 0.8, atol=0.005)
    same(saved(tmp_path, rgba.convert('LA')), np.asarray(rgba.convert('LA'))[:, :, 0] * 0.2 + 255 * 0.8, atol=0.005)


def test_16_bits_keep_their_precision(tmp_path):
    deep = np.arange(120, dtype=np.uint16).reshape(12, 10) * 500
    same(saved(tmp_path, Image.fromarray(deep)), deep / 65535 * 255)
    same(saved(tmp_path, Image.fromarray(deep), 'deep.tif'), deep / 65535 * 255)
    same(saved(tmp_path, Image.fromarray(deep // 30000)), deep // 30000 / 65535 * 255)  # dark, and stays dark


def test_exif_rotation(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned by a quarter, clockwise
    same(saved(tmp_path, Image.fromarray(np.rot90(RGB)), exif=exif), RGB)


def test_the_first_frame_of_an_animation(tmp_path):
    frames = [Image.fromarray(GREY), Image.fromarray(255 - GREY)]
    same(saved(tmp_path, frames[0], 'animated.gif', save_all=True, append_images=frames[1:]), GREY)


def test_truncated_and_empty_files(tmp_path):
    whole = open(CHIHUAHUA, 'rb').read()
    for length in 0, 2, 100, 20000, len(whole) - 500:
        (tmp_path / 'cut.jpg').write_bytes(whole[:length])
        with pytest.raises(utils.UserError, match='cut.jpg: expected a'):
            utils.read_image(str(tmp_path / 'cut.jpg'))


def test_a_decompression_bomb_is_refused(tmp_path):
    Image.new('1', (20000, 10000)).save(str(tmp_path / 'bomb.png'))
    with pytest.raises(utils.UserError, match='ordinary size'):
        utils.read_image(str(tmp_path / 'bomb.png'))
