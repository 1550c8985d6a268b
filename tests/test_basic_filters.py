"""Lesson 1 as its users run it, the arithmetic that it prints, and the pictures that it must read or refuse."""
import collections
import io
import math
import os
import re
from unittest import mock

import matplotlib
import numpy as np
import pytest
import scipy.signal
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from PIL import Image

import kernels
import utils
from support import cli, figures, outputs, tables
from conftest import ROOT, assert_one_line, event_log, lesson1, run_here, run_script, tf
from test_kernels import CUSTOM, by_scipy, strided

CHIHUAHUA = os.path.join(ROOT, 'data', 'chihuahua.jpg')
ALL_FIGURES = ['basic_filters.png', 'conv_ops.png', 'padding.png']


@pytest.fixture
def small_picture(tmp_path):
    """45 x 38 pixels, which takes a tenth of the time that the Chihuahua takes."""
    path = str(tmp_path / 'small.png')
    Image.fromarray(np.random.RandomState(6).randint(0, 256, (45, 38, 3)).astype(np.uint8)).save(path)
    return path


@pytest.fixture
def small(filters, small_picture):
    return lambda *arguments, **options: filters('--image', small_picture, *arguments, **options)


def png_files(folder):
    return sorted(name for name in os.listdir(str(folder)) if name.endswith('.png'))


def logged_pictures(folder):
    """{tag: picture} of a run, as TensorBoard shows them."""
    log = event_log(folder, 'basic_filters')
    return {tag: np.asarray(Image.open(io.BytesIO(log.Images(tag)[0].encoded_image_string)))
            for tag in log.Tags()['images']}


# ---- The main command ----

MainRun = collections.namedtuple('MainRun', 'stdout stderr folder')


@pytest.fixture(scope='module')
def main_run(tmp_path_factory):
    """The README's command, run as a user runs it."""
    folder = tmp_path_factory.mktemp('main')
    result = run_script('07_basic_filters.py', '--no-show', '--output-dir', folder)
    return MainRun(result.stdout, result.stderr, folder)


def test_the_main_command_prints_its_tables_and_nothing_on_stderr(main_run):
    assert main_run.stderr == '' and 'sums to' not in main_run.stdout  # these kernels need no hint
    shapes = '(1, 640, 640, 1)    (1, 640, 640, 3)'
    for name, matrix in kernels.KERNELS.items():
        assert re.search(r'\n{} +{:g}  {}'.format(name, matrix.sum(), re.escape(shapes)), main_run.stdout)
    assert main_run.stdout.count(shapes) == len(kernels.KERNELS)
    for name, kind in ('Figures', 'figures'), ('TensorBoard', 'graphs'):
        path = re.search(r'^{} .*?(\S+)$'.format(name), main_run.stdout, re.MULTILINE).group(1)
        assert os.path.abspath(path) == str(main_run.folder / kind / 'basic_filters')  # may be printed as relative


def test_the_main_command_ends_with_one_thing_to_try_next(main_run, small):
    last = main_run.stdout.splitlines()[-1]
    script, flag, kernel = re.match(r'Try next .*python (\S+) (\S+) "(.*)"$', last).groups()
    assert 'Try next' in small('--kernels', 'identity', flag, kernel).stdout.splitlines()[-1]
    assert os.path.exists(os.path.join(ROOT, script))


def test_the_main_command_writes_three_figures_and_a_page(main_run):
    folder = main_run.folder / 'figures' / 'basic_filters'
    assert png_files(folder) == ALL_FIGURES and (folder / 'basic_filters.html').exists()
    assert sorted(os.listdir(str(main_run.folder))) == ['figures', 'graphs']
    for name in ALL_FIGURES:
        assert np.asarray(Image.open(str(folder / name)).convert('RGB')).std() > 20  # there is something to see


def test_the_pictures_in_tensorboard(main_run):
    images = logged_pictures(main_run.folder)
    assert len(images) == 2 * len(kernels.KERNELS) + 5
    original = np.asarray(Image.open(CHIHUAHUA)).astype(float) / 255
    for name, matrix in kernels.KERNELS.items():
        (picture,) = [image for tag, image in images.items() if 'rgb/' + name in tag]
        assert picture.shape == (640, 640, 3)
        assert np.abs(picture.astype(float) - shown(by_scipy(original, matrix), matrix)).max() < 1.01, name


def test_the_graph_in_tensorboard(main_run):
    graph = event_log(main_run.folder, 'basic_filters').Graph()
    assert {node.name.split('/')[0] for node in graph.node if '/' in node.name} == {'grey', 'rgb', 'operations'}
    assert {node.name for node in graph.node if '/' not in node.name} == {'images'}
    found = collections.Counter(node.name.rsplit('/', 1)[0] for node in graph.node if node.op == 'Conv2D')
    assert found.pop('grey') == 1  # all kernels in one
    for name in kernels.KERNELS:
        assert found.pop('rgb/' + name) == 1
    assert not [name for name in found if name.startswith(('grey', 'rgb'))]
    assert {node.name.split('/')[1] for node in graph.node if node.name.startswith('rgb/')} == set(kernels.KERNELS)


# ---- One output value by hand ----

ByHand = collections.namedtuple('ByHand', 'title row column patch kernel products count sum value')


def values_by_hand(stdout, *channel_counts):
    """What the lesson prints of each value by hand; patch, kernel and products [h, w, channels] for narrow kernels."""
    blocks = re.findall(r'One output value by hand: ([^\n]*), row (\d+), column (\d+)[^\n]*\n(.*?)'
                        r'  sum of the +(\d+) products +(\S+)\n  tf.nn.conv2d gave +(\S+)   ([^\n]*)\n',
                        stdout, re.DOTALL)
    assert len(blocks) == len(channel_counts) and 'NOT EQUAL' not in stdout, stdout
    found = []
    for (title, row, column, text, count, total, value, verdict), channels in zip(blocks, channel_counts):
        assert verdict.startswith('equal')
        matrices = [None] * 3
        if text:
            table = [[float(number) for number in re.findall(r'-?\d+\.\d{4}(?!\d)', line)]
                     for line in text.splitlines()[1:]]
            matrices = np.array(table).reshape(channels, -1, 3, len(table[0]) // 3).transpose(2, 1, 3, 0)
        found.append(ByHand(title, int(row), int(column), *matrices, int(count), float(total), float(value)))
    return found


def check_by_hand(by_hand, image, kernel, output, stride, padding):
    """Judges a value by hand: image [height, width, c], kernel [h, w, c], output [height, width] by SciPy."""
    row, column, sides = by_hand.row, by_hand.column, kernel.shape[:2]
    centres = [strided(np.arange(size)[:, np.newaxis], (side,), stride, padding)[:, 0]
               for size, side in zip(image.shape, sides)]
    starts = [centre - (side - 1) // 2 for centre, side in zip(centres, sides)]
    top, left = starts[0][row], starts[1][column]
    padded = np.pad(image, [(40, 40), (40, 40), (0, 0)], mode='constant')
    patch = padded[40 + top:40 + top + sides[0], 40 + left:40 + left + sides[1]]
    expected = (patch * kernel).sum(dtype=np.float64)
    assert by_hand.count == kernel.size
    assert by_hand.sum == pytest.approx(expected, abs=1e-4) and by_hand.value == pytest.approx(expected, abs=1e-4)
    assert by_hand.value == pytest.approx(output[row, column], abs=1e-4)
    assert (by_hand.patch is not None) == (sides[1] <= 5)
    if by_hand.patch is not None:
        np.testing.assert_allclose(by_hand.patch, patch, atol=6e-5)
        np.testing.assert_allclose(by_hand.kernel, kernel, atol=6e-5)
        np.testing.assert_allclose(by_hand.products, patch * kernel, atol=6e-5)
    # Chosen is, among the outputs whose patch lies inside the image, that which differs most from its centre.
    difference = np.abs(output - image[np.ix_(*centres)][:, :, 0])
    inside = [(start >= 0) & (start + side <= size) for start, side, size in zip(starts, sides, image.shape)]
    assert np.outer(*inside).any() and inside[0][row] and inside[1][column]
    assert difference[row, column] >= difference[np.ix_(*inside)].max() - 1e-5


@pytest.mark.parametrize('shape', CUSTOM)
@pytest.mark.parametrize('padding', ['SAME', 'VALID'])
@pytest.mark.parametrize('stride', [1, 2, 3])
def test_one_value_by_hand(capsys, shape, padding, stride):
    image = 0.5 + np.random.RandomState(7).rand(40, 37, 1).astype(np.float32) / 2  # large changes where zeros come in
    matrix = CUSTOM[shape] / np.abs(CUSTOM[shape]).sum()
    with tf.Graph().as_default(), tf.Session() as session:
        value = session.run(lesson1.filter_grey(tf.constant(image[np.newaxis]), {'it': matrix}, stride, padding)['it'])
    pixel = lesson1.explain_one_value('it', image, matrix[:, :, np.newaxis], value[0, :, :, 0], stride, padding)
    (by_hand,) = values_by_hand(capsys.readouterr().out, 1)
    assert by_hand.title == 'it'
    for axis, index in enumerate((by_hand.row, by_hand.column)):
        pixels = strided(np.arange(image.shape[axis])[:, np.newaxis], (shape[axis],), stride, padding)[:, 0]
        assert pixel[axis] == pixels[index]
    check_by_hand(by_hand, image, matrix[:, :, np.newaxis], by_scipy(image, matrix, stride, padding)[:, :, 0],
                  stride, padding)


def test_a_wrong_value_would_be_seen(capsys):
    image, output = np.ones([5, 5, 1], np.float32), np.ones([5, 5], np.float32)
    lesson1.explain_one_value('it', image, np.full([3, 3, 1], 0.1, np.float32), output, 1, 'SAME')
    assert 'NOT EQUAL' in capsys.readouterr().out


def test_the_values_by_hand_of_the_main_command(main_run):
    """One of a grey picture, 9 products, and one of RGB, 27 products: the sum over all three channels in."""
    picture, blur, emboss = utils.read_image(CHIHUAHUA), kernels.KERNELS['blur'], kernels.KERNELS['emboss']
    grey, rgb = values_by_hand(main_run.stdout, 1, 3)
    assert grey.title == 'blur in grey' and grey.count == 9
    grey_picture = (picture @ [0.2989, 0.587, 0.114])[:, :, np.newaxis]
    check_by_hand(grey, grey_picture, blur[:, :, np.newaxis], by_scipy(grey_picture, blur)[:, :, 0], 1, 'SAME')
    assert rgb.title.startswith('emboss') and rgb.count == 27
    check_by_hand(rgb, picture, emboss[:, :, np.newaxis] * SEPIA[0], by_scipy(picture, emboss) @ SEPIA[0], 1, 'SAME')
    assert rgb.value == pytest.approx(rgb.products.sum(), abs=27 * 5e-5)
    assert np.abs(rgb.products).sum(axis=(0, 1)).all()  # each channel in has its share
    assert re.findall('  (red|green|blue)$', main_run.stdout, re.MULTILINE) == ['red', 'green', 'blue']


def test_a_picture_smaller_than_the_kernel_has_values_by_hand_too(filters, tmp_path):
    Image.new('L', (2, 3), 200).save(str(tmp_path / 'tiny.png'))
    stdout = filters('--image', tmp_path / 'tiny.png', '--kernels', 'identity', '--custom-kernel',
                     ';'.join([' '.join(['0.01'] * 5)] * 5)).stdout
    grey, _ = values_by_hand(stdout, 1, 3)
    assert grey.count == 25 and grey.value == pytest.approx(6 * 0.01 * 200 / 255, abs=1e-4)


@pytest.mark.parametrize('size', [(1, 1), (50, 1), (1, 50)])
def test_thin_pictures_have_figures_and_a_log(filters, tmp_path, size):
    Image.new('RGB', size, 'red').save(str(tmp_path / 'thin.png'))
    filters('--image', tmp_path / 'thin.png', '--stride', 3)
    assert png_files(tmp_path / 'figures' / 'basic_filters') == ALL_FIGURES
    images = logged_pictures(tmp_path)
    width, height = [-(-side // 3) for side in size]
    assert images['grey/blur'].shape[:2] == images['rgb/blur'].shape[:2] == (height, width)


def test_a_large_picture_is_made_smaller_unless_every_pixel_is_wanted(filters, tmp_path):
    """The smaller one is Pillow's, rotated as EXIF says; the larger one is filtered as SciPy does it."""
    y, x = np.mgrid[:1200, :1600]
    values = (128 + 60 * np.sin(x / 90) + 60 * np.cos(y / 70)).astype(np.uint8)
    exif = Image.Exif()
    exif[274] = 6  # to be turned by 90 degrees
    Image.fromarray(values).save(str(tmp_path / 'rotated.jpg'), exif=exif, quality=95)
    Image.fromarray(values.astype(np.uint16) * 257).save(str(tmp_path / 'sixteen.png'))
    for name, shape in ('sixteen.png', (1200, 1600)), ('rotated.jpg', (1600, 1200)):
        small = utils.read_image(str(tmp_path / name), most_pixels=1e6)
        whole = utils.read_image(str(tmp_path / name))
        assert whole.shape == shape + (3,) and 0.97e6 < small.shape[0] * small.shape[1] <= 1e6
        expected = np.asarray(Image.fromarray(whole[:, :, 0]).resize(small.shape[1::-1], Image.LANCZOS))
        assert np.abs(small[:, :, 0] - expected).mean() < 0.01
    flags = ['--image', tmp_path / name, '--kernels', 'blur']
    stdout = filters(*flags).stdout
    assert '1.0 of its 1.9 megapixels were used' in stdout and '(1, {}, {}, 3)'.format(*small.shape) in stdout
    stdout = filters('--full-size', *flags).stdout
    assert 'megapixels' not in stdout and '(1, {}, {}, 3)'.format(*shape) in stdout
    by_hand, _ = values_by_hand(stdout, 1, 3)
    grey, blur = (whole @ [0.2989, 0.587, 0.114])[:, :, np.newaxis], kernels.KERNELS['blur']
    check_by_hand(by_hand, grey, blur[:, :, np.newaxis], by_scipy(grey, blur)[:, :, 0], 1, 'SAME')


def test_a_picture_of_floating_point_numbers_is_made_smaller_on_its_own_scale(tmp_path):
    """From 0 to 1, with sharp edges, which Lanczos overshoots: it must not be taken for one from 0 to 255."""
    values = np.kron(np.indices([30, 40]).sum(axis=0) % 2, np.ones([40, 40])).astype(np.float32)
    Image.fromarray(values).save(str(tmp_path / 'checks.tiff'))
    small = utils.read_image(str(tmp_path / 'checks.tiff'), most_pixels=1e6)
    assert small.shape[0] * small.shape[1] <= 1e6 and small.max() == 1 and abs(small.mean() - 0.5) < 0.01


# ---- Flipping ----

def test_conv2d_is_a_cross_correlation_and_the_flipped_kernel_makes_it_a_convolution(main_run):
    heading, numbers = re.search(r'\n  (.*true convolution)\n((?:[ \d.-]+\n){3})', main_run.stdout).groups()
    headings = re.split(' {2,}', heading)
    blocks = np.split(np.array([line.split() for line in numbers.splitlines()], float), len(headings), axis=1)
    (picture, kernel, *_), printed = blocks, dict(zip(headings, blocks))
    assert headings[1] == 'kernel' and not np.array_equal(kernel, kernel[::-1, ::-1]) and picture.sum() == 1
    np.testing.assert_array_equal(printed['tf.nn.conv2d'], scipy.signal.correlate2d(picture, kernel, 'same'))
    np.testing.assert_array_equal(printed['true convolution'], scipy.signal.convolve2d(picture, kernel, 'same'))


@pytest.mark.parametrize('shape', CUSTOM)
def test_convolve_equals_scipy(shape):
    image, matrix = np.random.RandomState(5).rand(40, 37).astype(np.float32), CUSTOM[shape]
    padded = np.pad(image, [((side - 1) // 2, side // 2) for side in shape], mode='constant')
    np.testing.assert_allclose(lesson1.convolve(image, matrix),
                               scipy.signal.correlate2d(padded, matrix, 'valid'), atol=1e-4)
    np.testing.assert_allclose(lesson1.convolve(image, matrix[::-1, ::-1]),
                               scipy.signal.convolve2d(padded, matrix, 'valid'), atol=1e-4)


# ---- Output sizes ----

def printed_sizes(stdout):
    """Of the table of output sizes: the line above it, {padding: formula} and {(stride, padding): size as text}."""
    title, heading, table = re.search(r'(Output size.*)\n(.*)\n((?:  \d .*\n){3})', stdout).groups()
    rows = [re.split(' {2,}', line.strip()) for line in table.splitlines()]
    formulas = dict(re.findall(r'(SAME|VALID): (ceil\(.*?\))(?: {2}|$)', heading))
    return title, formulas, {(int(row[0]), padding): text for row in rows for padding, text in zip(formulas, row[1:])}


@pytest.mark.parametrize('kernel', [(2, 2), (3, 3), (31, 31), (7, 1)])
@pytest.mark.parametrize('picture', [(40, 40), (41, 38), (33, 64)])
def test_output_sizes_are_those_of_the_formula_and_of_tensorflow(capsys, kernel, picture):
    tables.print_output_sizes('mine', kernel, picture)
    title, formulas, printed = printed_sizes(capsys.readouterr().out)
    assert 'mine' in title and '{} x {}'.format(*kernel) in title and len(printed) == 6
    with tf.Graph().as_default(), tf.Session() as session:
        values = session.run({(stride, padding): tf.nn.conv2d(
            tf.zeros((1,) + picture + (1,)), tf.zeros(kernel + (1, 1)), [1, stride, stride, 1], padding)
            for stride, padding in printed})
    for (stride, padding), text in printed.items():
        formula = formulas[padding].replace('in', 'size')
        by_formula = [eval(formula, {'ceil': math.ceil, 'size': size, 'k': side, 'stride': stride})
                      for size, side in zip(picture, kernel)]
        assert text == '{} x {}'.format(*by_formula) == '{} x {}'.format(*values[stride, padding].shape[1:3])


def test_the_drawing_of_same_shows_what_tensorflow_does():
    """Each output's bar is over the pixels on which the output depends, and over the zeros of the formula."""
    figure = figures.plot_padding(Figure(), lesson1.patch_start)
    for axis, size in zip(figure.axes, (6, 7)):
        with tf.Graph().as_default(), tf.Session() as session:
            found = session.run(tf.nn.conv2d(np.eye(size, dtype=np.float32)[:, :, np.newaxis, np.newaxis],
                                             np.ones([3, 1, 1, 1], np.float32), [1, 2, 1, 1], 'SAME'))[:, :, 0, 0]
        bars = [line.get_xdata() for line in axis.lines]
        assert len(bars) == found.shape[1]
        cells = [int(patch.get_x()) for patch in axis.patches]
        for bar, depends in zip(bars, found.T):
            covered = [cell for cell in cells if bar[0] < cell + 0.5 < bar[1]]
            assert len(covered) == 3 and [cell for cell in covered if 0 <= cell < size] == list(np.flatnonzero(depends))
        assert '{} outputs; zeros: {} before, {} after'.format(found.shape[1], -min(cells), max(cells) + 1 - size) in (
            axis.get_title(loc='left'))


# ---- The three operations ----

SEPIA = np.array([[.393, .769, .189], [.349, .686, .168], [.272, .534, .131]]) / 1.351  # row: colour out


# ---- The hint for a custom kernel ----

@pytest.mark.parametrize('text, divide_by', [
    ('1 1 1; 1 1 1; 1 1 1', 9), ('.25 .25', 0.5), ('2', 2), ('1 2; 3 4', 10), ('1', None),
    ('0 1 0; 1 -4 1; 0 1 0', None), ('.1 .1 .1 .1 .1 .1 .1 .1 .1 .1', None), ('.1 .2 -.3', None),
    ('0 -1 0; -1 5 -1; 0 -1 0', None)])
def test_a_hint_how_to_divide_a_custom_kernel_whose_sum_is_neither_0_nor_1(capsys, text, divide_by):
    def hint(matrix):
        tensors = {kind: {'custom': tf.zeros([1, 4, 4, 1])} for kind in ('grey', 'rgb')}
        tables.print_kernels({'custom': matrix}, tensors)
        return re.search(r'custom sums to ([\d.]+)\b.*Divide its numbers by (\S+) ', capsys.readouterr().out, re.DOTALL)

    matrix = cli.kernel_from_text(text)
    found = hint(matrix)
    assert (found is not None) == (divide_by is not None)
    if found:
        assert [float(number) for number in found.groups()] == [divide_by, divide_by]
        assert not hint(matrix / divide_by)


# ---- The figures ----

def shown(values, matrix):
    """Values as they must be seen, from 0 to 255: of a kernel that sums to 0, 0 is grey; of others, 0 is black."""
    if abs(float(matrix.sum(dtype=np.float64))) < 1e-6:
        values = (values + 1) / 2
    return 255 * np.minimum(np.maximum(values, 0), 1)


Drawn = collections.namedtuple('Drawn', 'figures stdout picture matrices stride padding')
ALL_31 = ';'.join([' '.join(['0.001'] * 31)] * 31)
DRAWINGS = {
    'SAME': (['--custom-kernel', '.1 .2 -.3'], 1, 'SAME'),
    'VALID, stride 2': (['--custom-kernel', '1 2; 3 4', '--kernels', 'edge', 'emboss', 'blur'], 2, 'VALID'),
    'SAME, stride 3': (['--kernels', 'sharpen', 'left_sobel'], 3, 'SAME'),
    '31 x 31': (['--custom-kernel', ALL_31, '--kernels', 'identity'], 1, 'VALID')}


def draw(folder, picture, *arguments):
    """Lesson 1 with a picture uint8 [h, w, 3]: what it prints, and {file name: matplotlib figure}."""
    found = {}
    Image.fromarray(picture).save(str(folder / 'picture.png'))
    with mock.patch.object(figures, 'save_figure',
                           lambda figure, path, **_: found.update({os.path.basename(path): figure})):
        result = run_here(lesson1, '--no-show', '--output-dir', folder, '--image', folder / 'picture.png', *arguments)
    return result.stdout, found


@pytest.fixture(scope='module', params=DRAWINGS)
def drawn(request, tmp_path_factory):
    """The matplotlib figures of a run, as they are given to save_figure."""
    arguments, stride, padding = DRAWINGS[request.param]
    picture = np.random.RandomState(4).randint(0, 256, (61, 50, 3)).astype(np.uint8)
    picture[20:30, 10:20], picture[20:30, 20:30], picture[20:30, 30:40] = np.diag([255, 255, 255])
    arguments = arguments + ['--stride', str(stride), '--padding', padding]
    stdout, found = draw(tmp_path_factory.mktemp('drawn'), picture, *arguments)
    flags = cli.parse_filters_flags('', arguments)
    matrices = {name: kernels.KERNELS[name] for name in flags.kernels}
    if flags.custom_kernel is not None:
        matrices['custom'] = flags.custom_kernel
    return Drawn(found, stdout, picture, matrices, stride, padding)


def panel(axis):
    (image,) = axis.images
    return np.asarray(image.get_array()).astype(float)


def columns_of(drawn):
    """{title: (grey axis, RGB axis, axis of the detail)} of the first figure."""
    axes = drawn.figures['basic_filters.png'].axes
    return {axes[start].get_title(loc='left'): axes[start:start + 3] for start in range(0, len(axes), 3)}


def test_every_panel_equals_scipy(drawn):
    columns = columns_of(drawn)
    assert list(columns) == ['original'] + list(drawn.matrices)
    rgb = drawn.picture / 255.0
    grey = np.repeat((rgb @ [0.2989, 0.587, 0.114])[:, :, np.newaxis], 3, axis=2)
    assert np.abs(panel(columns['original'][0]) - 255 * grey).max() <= 1
    np.testing.assert_array_equal(panel(columns['original'][1]), drawn.picture)
    for name, matrix in drawn.matrices.items():
        for axis, picture in zip(columns[name], (grey, rgb)):
            expected = shown(by_scipy(picture, matrix, drawn.stride, drawn.padding), matrix)
            assert panel(axis).shape == expected.shape
            assert np.abs(panel(axis) - expected).max() < 1.01, name


def test_captions_tell_the_scale_the_kernel_and_a_size_that_is_not_the_picture_s(drawn):
    for name, (_, _, axis) in columns_of(drawn).items():
        caption = axis.texts[0].get_text().split('\n')
        matrix = drawn.matrices.get(name, kernels.KERNELS['identity'])
        stride, padding = (1, 'SAME') if name == 'original' else (drawn.stride, drawn.padding)
        size = by_scipy(drawn.picture[:, :, :1], matrix, stride, padding).shape[:2]
        if name == 'original' or size != drawn.picture.shape[:2]:
            assert caption.pop(0) == '{} x {}'.format(*size)
        if name == 'original':
            assert not caption
            continue
        zero = abs(matrix.sum()) < 1e-6
        assert caption[:2] == ['sum {:.3g}'.format(0 if zero else matrix.sum()),
                               'shown -1 to 1' if zero else 'shown 0 to 1']
        if len(matrix) == 31:
            assert caption[2:] == ['31 x 31 numbers']
        else:
            denominator = int(caption.pop()[2:]) if caption[-1].startswith('/ ') else 1
            numerators = [[int(number) for number in line.split()] for line in caption[2:]]
            np.testing.assert_allclose(np.array(numerators) / denominator, matrix, atol=1e-6)
            assert denominator == {'blur': 16}.get(name, 10 if zero and name == 'custom' else 1)


@pytest.mark.parametrize('size', [(64, 64), (15, 90), (90, 10)])
@pytest.mark.parametrize('arguments', [(), ('--kernels', 'blur'), ('--custom-kernel', '.1 .123 .2; .3 .4 .1; 1 2 3')])
def test_the_figures_fit_on_a_screen_and_their_texts_do_not_overlap(tmp_path, size, arguments):
    _, found = draw(tmp_path, np.zeros(size + (3,), np.uint8), *arguments)
    for figure in found.values():
        width, height = figure.get_size_inches() * 100
        assert width <= 1366 and height <= 768 - 60  # 60: for the window's title and toolbar
        figure.set_dpi(100)
        renderer = FigureCanvasAgg(figure).get_renderer()
        texts = [text for axis in figure.axes for text in [axis._left_title] + axis.texts] + figure.texts
        boxes = [text.get_window_extent(renderer) for text in texts if text.get_text()]
        for index, box in enumerate(boxes):
            assert box.x0 >= 0 and box.y0 >= 0 and box.x1 <= width + 1 and box.y1 <= height
            for other in boxes[:index]:
                overlap = min(box.x1, other.x1) - max(box.x0, other.x0), min(box.y1, other.y1) - max(box.y0, other.y0)
                assert min(overlap) <= 2, (overlap, size)


def test_the_frame_is_around_the_value_by_hand_and_the_detail_is_what_it_frames(drawn):
    by_hand = values_by_hand(drawn.stdout, 1, 3)[0]
    example = by_hand.title.split(' ')[0]
    for name, (grey_axis, rgb_axis, detail_axis) in columns_of(drawn).items():
        (frame,), (rgb_frame,) = grey_axis.patches, rgb_axis.patches
        assert frame.get_bbox().bounds == rgb_frame.get_bbox().bounds
        x, y, width, height = frame.get_bbox().bounds
        framed = panel(grey_axis)[int(y + 0.5):int(y + height + 0.5), int(x + 0.5):int(x + width + 0.5)]
        np.testing.assert_array_equal(panel(detail_axis), framed)
        if name == 'original':  # the frame meets the patch from which the value was computed
            top, left = [strided(np.arange(size)[:, np.newaxis], (side,), drawn.stride, drawn.padding)[index, 0]
                         for size, side, index in zip(drawn.picture.shape, drawn.matrices[example].shape,
                                                      (by_hand.row, by_hand.column))]
        else:  # where in this panel's output the pixel under the kernel's centre is
            starts = [strided(np.arange(size)[:, np.newaxis], (side,), drawn.stride, drawn.padding)[index, 0]
                      for size, side, index in zip(drawn.picture.shape, drawn.matrices[example].shape,
                                                   (by_hand.row, by_hand.column))]
            positions = [strided(np.arange(size)[:, np.newaxis], (side,), drawn.stride, drawn.padding)[:, 0]
                         for size, side in zip(drawn.picture.shape, drawn.matrices[name].shape)]
            top, left = [np.abs(position - start).argmin() for position, start in zip(positions, starts)]
        assert y <= top <= y + height and x <= left <= x + width, name


def test_the_operations_figure_shows_the_wrong_kernel_and_the_right_one(drawn):
    axes = {axis.get_title(loc='left'): axis for axis in drawn.figures['conv_ops.png'].axes}
    emboss, rgb = kernels.KERNELS['emboss'], drawn.picture / 255.0
    channels = by_scipy(rgb, emboss)
    sums = np.repeat(channels.sum(axis=2, keepdims=True), 3, axis=2)
    expected = {'original': rgb, 'conv2d, all channel pairs': sums, 'conv2d, diagonal': channels,
                'depthwise_conv2d': channels, 'conv2d, mixing': channels @ SEPIA.T,
                'separable_conv2d': channels @ SEPIA.T}
    assert set(axes) == set(expected)
    for name, axis in axes.items():
        assert np.abs(panel(axis) - shown(expected[name], emboss)).max() < 1.01, name
    texts = {name: ' '.join(text.get_text() for text in axis.texts) for name, axis in axes.items()}
    assert 'Wrong' in texts['conv2d, all channel pairs'] and 'Correct' in texts['conv2d, diagonal']


# ---- Flags ----

@pytest.mark.parametrize('flags, expected', [
    (['--kernels', 'edge', 'blur'], ['\nedge  ', '\nblur  ', 'by hand: blur']),
    (['--custom-kernel', '0 -1 0; -1 5 -1; 0 -1 0', '--kernels', 'sharpen'], ['\ncustom  ', 'by hand: custom']),
    (['--custom-kernel', '1 2; 3 4', '--kernels', 'edge', '--padding', 'VALID'],
     ['(1, 44, 37, 1)', '(1, 43, 36, 3)', '2 x 2)', ' 44 x 37\n', ' 22 x 19\n', ' 15 x 13\n']),
    (['--stride', '3', '--kernels', 'emboss'], ['(1, 15, 13, 3)', 'by hand: emboss', '3 x 3)']),
    (['--stride', '2', '--padding', 'VALID', '--kernels', 'edge'], ['(1, 22, 18, 3)', 'by hand: edge']),
    (['--stride', '1000'], ['(1, 1, 1, 1)', '(1, 1, 1, 3)', '3 x 3)']),
    (['--kernels', 'edge', '--custom-kernel', '-1,0,1;-2,0,2;-1,0,1'], ['{:14}{:6}'.format('custom', 0)]),
    (['--kernels', 'edge', '--custom-kernel=-1 0 1\n-2 0 2\n-1 0 1'], ['\n{:62}-2  0  2'.format('')]),
    (['--kernels', 'edge', '--custom-kernel=-1 0 1 -2 0 2 -1 0 1'], ['\n{:62}-2  0  2'.format('')]),
    (['--kernels', 'blur', '--custom-kernel=0 -2 0'], ['{:14}{:6}'.format('custom', -2)]),
    (['--kernels', 'blur', '--custom-kernel', '1 1 1; 1 1 1; 1 1 1'], ['custom sums to 9']),
    (['--kernels', 'identity', '--custom-kernel', ALL_31],
     ['sum of the  961 products', '31 x 31', ' 15 x 8\n'])])
def test_flags(small, flags, expected):
    result = small(*flags)
    assert all(text in result.stdout for text in expected), result.stdout
    values_by_hand(result.stdout, 1, 3)
    assert result.stderr == '' and 'Try next' in result.stdout.splitlines()[-1]


def test_a_second_run_leaves_one_log(small, tmp_path):
    folder, figure = tmp_path / 'graphs' / 'basic_filters', tmp_path / 'figures' / 'basic_filters' / 'basic_filters.png'
    small('--kernels', 'blur')
    (earlier,) = os.listdir(str(folder))
    renamed = re.sub(r'\d{9,}', '2', earlier)  # or both might be of the same second, and have one name
    (folder / earlier).rename(folder / renamed)
    before = figure.read_bytes()
    small('--kernels', 'edge')
    (later,) = os.listdir(str(folder))
    assert later != renamed and figure.read_bytes() != before


def test_pictures_and_kernels_under_valid_padding(filters, tmp_path):
    """One is as large as the kernel, one has as many pixels and is too narrow, one fits under SAME alone."""
    flags = ['--kernels', 'identity', '--custom-kernel', ';'.join(['1 2 3 4 5'] * 4), '--padding', 'VALID', '--image']
    for name, size in ('fits', (5, 4)), ('turned', (4, 5)), ('small', (2, 5)):  # width and height
        Image.new('L', size, 128).save(str(tmp_path / (name + '.png')))
    assert '(1, 1, 1, 3)' in filters(*flags, tmp_path / 'fits.png').stdout
    assert_one_line(filters(*flags, tmp_path / 'turned.png', check=2),
                    '5 x 4 pixels are too few for a kernel of 4 x 5; use --padding SAME')
    _, _, sizes = printed_sizes(filters('--image', tmp_path / 'small.png').stdout)
    assert {sizes[stride, 'VALID'] for stride in (1, 2, 3)} == {'the kernel does not fit'}
    assert [sizes[stride, 'SAME'] for stride in (1, 2, 3)] == ['5 x 2', '3 x 1', '2 x 1']


def test_paths_start_at_the_folder_of_the_script(monkeypatch, tmp_path):
    monkeypatch.chdir(str(tmp_path))
    flags = cli.parse_filters_flags('', [])
    assert flags.output_dir == ROOT and flags.image == CHIHUAHUA
    folders = outputs.run_folders(flags.output_dir, cli.FILTERS)
    assert os.path.abspath(folders.figures) == os.path.join(ROOT, 'figures', 'basic_filters')


# ---- Windows ----

@pytest.mark.parametrize('backend', ['module://matplotlib_inline.backend_inline', 'nonsense', None])
def test_the_figures_are_saved_whatever_the_backend(small_picture, tmp_path, backend):
    """A notebook hands its own backend to the scripts that it starts. Without one, here a window would open."""
    (tmp_path / 'matplotlibrc').write_text('backend: module://fake_display')
    environment = dict({'MPLBACKEND': backend} if backend else {}, MATPLOTLIBRC=str(tmp_path),
                       PYTHONPATH=os.path.dirname(os.path.abspath(__file__)))
    result = run_script('07_basic_filters.py', '--image', small_picture, '--output-dir', tmp_path, '--kernels', 'blur',
                        environment=environment)
    assert result.stderr == '' and 'Try next' in result.stdout
    assert png_files(tmp_path / 'figures' / 'basic_filters') == ALL_FIGURES
    assert result.stdout.count('A WINDOW') == result.stdout.count('Close the windows to end.') == 1


def test_no_windows_if_they_are_not_wanted_and_matplotlib_stays_as_it_was(small):
    with matplotlib.rc_context({'backend': 'module://fake_display', 'font.size': 17}):
        before = dict(matplotlib.rcParams)
        stdout = small('--kernels', 'blur').stdout  # with --no-show
        assert dict(matplotlib.rcParams) == before
    assert 'WINDOW' not in stdout and 'Close the windows' not in stdout


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


def test_16_bits_keep_their_precision(tmp_path, capsys):
    deep = np.arange(120, dtype=np.uint16).reshape(12, 10) * 500
    same(saved(tmp_path, Image.fromarray(deep)), deep / 65535 * 255)
    same(saved(tmp_path, Image.fromarray(deep), 'deep.tif'), deep / 65535 * 255)
    assert capsys.readouterr().err == ''
    for array, white in ((deep // 16, 4095), (deep // 300, 255), (np.float32(deep), deep.max()),
                         (np.int32(deep) + 9999, 69499)):
        same(saved(tmp_path, Image.fromarray(array), 'some.tif'), array / white * 255)
        assert '0, black, to {:g}, white'.format(white) in capsys.readouterr().err
    same(saved(tmp_path, Image.fromarray(np.float32(deep / 60000)), 'some.tif'), deep / 60000 * 255)


def test_exif_rotation(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned by a quarter, clockwise
    same(saved(tmp_path, Image.fromarray(np.rot90(RGB)), exif=exif), RGB)


def test_the_first_frame_of_an_animation(tmp_path):
    frames = [Image.fromarray(GREY), Image.fromarray(255 - GREY)]
    same(saved(tmp_path, frames[0], 'animated.gif', save_all=True, append_images=frames[1:]), GREY)


def test_a_decompression_bomb_is_refused(tmp_path):
    Image.new('1', (20000, 10000)).save(str(tmp_path / 'bomb.png'))
    with pytest.raises(utils.UserError, match='decompression bomb'):
        utils.read_image(str(tmp_path / 'bomb.png'))
