"""Lesson 2 as its users run it: the table, what it leaves on the disk, its flags; and what importing it changes."""
import importlib.util
import io
import os
import re
import shutil
import textwrap

import numpy as np
import pytest
from PIL import Image

import kernels
import utils
from conftest import (FIGURES, NAME, ROOT, after_two_epochs, all_variables, assert_equal_runs, assert_one_line,
                      event_log, hashes, lesson2, logged, make_small, network_of, prefixes, rows, run_here, run_python,
                      tf, write_small_data)
from support import cli, digits, figures, script


# ---- Runs that several tests look at ----

@pytest.fixture(scope='module')
def continued(four_epochs, tmp_path_factory):
    """The run of four epochs, continued from its second. result: that of the same command twice."""
    run = after_two_epochs(four_epochs, tmp_path_factory.mktemp('continued') / 'runs')
    return run._replace(result=[run_here(lesson2, *run.flags, '--epochs', 4) for _ in range(2)])


def folder_of(run, kind, name=NAME):
    return run.folder / kind / name


# ---- A run ----

def test_one_real_epoch(real_epoch):
    assert real_epoch.result.stderr == ''  # no progress bar without a terminal
    assert '3,274,634' in real_epoch.result.stdout
    (row,) = rows(real_epoch.result)
    assert row[0] == '1' and row[4] == '0.9111'
    assert float(row[3]) >= 0.988 and float(row[2]) >= 0.985
    (log,) = os.listdir(str(folder_of(real_epoch, 'graphs')))
    assert os.path.getsize(str(folder_of(real_epoch, 'graphs') / log)) < 1e6  # the digits are not in it


def test_the_figures_are_drawn_named_and_sent_to_tensorboard(real_epoch):
    log, folder = event_log(real_epoch.folder), folder_of(real_epoch, 'figures')
    assert sorted(log.Tags()['images']) == sorted(FIGURES)
    assert str(folder) in real_epoch.result.stdout
    for name in FIGURES:
        picture = Image.open(str(folder / (name + '.png')))
        assert np.asarray(picture.convert('L')).std() > 20
        (sent,) = log.Images(name)
        np.testing.assert_array_equal(picture, Image.open(io.BytesIO(sent.encoded_image_string)))


def test_the_table_of_layers_is_that_of_the_docstring(four_epochs):
    for name, output, weights, parameters in [
            ('conv1', '28 x 28 x 32', '5 x 5 x 1 x 32', '832'), ('pool1', '14 x 14 x 32', '', '0'),
            ('conv2', '14 x 14 x 64', '5 x 5 x 32 x 64', '51,264'), ('pool2', '7 x 7 x 64', '', '0'),
            ('fc', '1024', '3136 x 1024', '3,212,288'), ('softmax_linear', '10', '1024 x 10', '10,250')]:
        line = next(line for line in four_epochs.result.stdout.splitlines() if line.startswith(name))
        assert line.split() == ' '.join([name, output, weights, parameters]).split()
        documented = next(line for line in lesson2.__doc__.splitlines() if line.strip().startswith(name + ' '))
        assert ' '.join(documented.split()).startswith(' '.join('{} {} {}'.format(name, output, weights).split()))
    assert '3,274,634' in four_epochs.result.stdout and '3,274,634' in lesson2.__doc__


def test_the_table_says_what_the_averaged_network_reads(four_epochs, small_data):
    """Its accuracies, judged by NumPy with the averages from the checkpoint, and each with its own images."""
    network, data = network_of(four_epochs.folder), utils.read_mnist(small_data)
    expected = [(network(each.images)['softmax_linear'].argmax(axis=1) == each.labels).mean()
                for each in (data.validation, data.test)]
    assert expected[0] != expected[1]
    assert rows(four_epochs.result)[-1][2:4] == tuple('{:.4f}'.format(accuracy) for accuracy in expected)


@pytest.mark.parametrize('batch_size', [180, 4096])
def test_the_loss_of_weights_that_hardly_change_is_numpy_s(convnet, without_figures, small_data, tmp_path, batch_size):
    """The last of four batches is smaller and counts less, and nothing of the epoch before counts; or there is one."""
    result = convnet('--epochs', 2, '--learning-rate', 1e-12, '--keep-prob', 1, '--augment', 0,
                     '--init-stddev', 0.1, '--batch-size', batch_size)
    data = utils.read_mnist(small_data).train
    logits = network_of(tmp_path)(data.images)['softmax_linear'].astype(float)
    logits -= logits.max(axis=1, keepdims=True)
    loss = np.log(np.exp(logits).sum(axis=1)) - logits[np.arange(len(logits)), data.labels]
    assert loss.mean() > 1
    assert [float(row[1]) for row in rows(result)] == pytest.approx([loss.mean()] * 2, rel=1e-4)


def test_histograms_are_those_of_the_averages_without_dropout(four_epochs, small_data):
    images = utils.read_mnist(small_data).validation.images[:100]
    values = {name + '/activations': value for name, value in network_of(four_epochs.folder)(images).items()}
    average = '/ExponentialMovingAverage'
    values.update({name[:-len(average)]: value for name, value in all_variables(four_epochs.folder).items()
                   if name.endswith(average)})
    found = {tag[len('histograms/'):]: points[-1][1] for tag, points in logged(four_epochs.folder).items()
             if tag.startswith('histograms/')}
    assert set(found) == set(values) and len(found) == 14
    for name, value in values.items():
        histogram = found[name]
        assert histogram.num == value.size, name
        assert [histogram.min, histogram.max] == pytest.approx([value.min(), value.max()], rel=1e-3, abs=1e-6), name
        assert histogram.sum_squares == pytest.approx(np.square(value, dtype=float).sum(), rel=1e-3), name


def test_two_epochs_and_two_more_equal_four(continued, four_epochs):
    longer, again = continued.result
    assert 'Continuing from' in longer.stdout and 'done already: 4' in again.stdout and rows(again) == rows(longer)
    assert [(row[0], row[4]) for row in rows(longer)] == [('1', ''), ('2', ''), ('3', ''), ('4', '')]
    assert_equal_runs(continued.folder, longer, four_epochs.folder, four_epochs.result)
    for name in FIGURES:  # to the byte, though at last nothing was left to train
        pictures = [(folder_of(run, 'figures') / (name + '.png')).read_bytes() for run in (continued, four_epochs)]
        assert pictures[0] == pictures[1], name


def test_each_run_ends_with_one_thing_to_try_next(continued, hand_coded):
    for result in continued.result:
        *_, checkpoint, tensorboard, few, last = result.stdout.splitlines()
        assert last.startswith('Try next     draw a digit') and '--name' not in last
        assert ' --output-dir {} --predict'.format(continued.folder) in last
        assert os.path.basename(prefixes(continued.folder)[0]) in checkpoint
        assert 'tensorboard --logdir' in tensorboard and NAME in tensorboard and '24 training steps are few' in few
    assert '--name hand.coded_1-a' in hand_coded.result.stdout.splitlines()[-1]


# ---- Figures ----

def test_the_confusion_matrix_has_labels_down_and_what_was_read_across():
    labels, predicted = np.array([3, 3, 3, 7, 7]), np.array([3, 5, 5, 7, 2])
    (axes,) = figures.plot_confusion(labels, predicted, [str(label) for label in range(8)] + ['boot', '$x']).axes
    shown = {text.get_position(): text.get_text() for text in axes.texts}  # (x, y)
    assert shown == {(3, 3): '1', (5, 3): '2', (7, 7): '1', (2, 7): '1'}
    assert axes.get_xlabel() == 'read as' and axes.get_ylabel() == 'label' and '3 of 5' in axes.get_title()
    assert [text.get_text() for text in axes.get_xticklabels()][7:] == ['7', 'boot', r'\$x']


def test_the_worst_mistakes_come_first_with_label_reading_and_probability():
    labels = np.arange(4, dtype=np.uint8)
    probabilities = np.full([4, 10], 0.01)
    probabilities[0, 0] = 0.9  # is right
    probabilities[1, [1, 8]] = 0.3, 0.6
    probabilities[2, [2, 9]] = 0.001, 0.95
    probabilities[3, [3, 7]] = 0.1, 0.8
    images = np.arange(4, dtype=np.uint8)[:, None, None] * np.ones([1, 28, 28], np.uint8)
    (axes,) = figures.plot_mistakes(utils.Dataset(images, labels), probabilities, list('0123456789')).axes
    assert [text.get_text() for text in axes.texts] == ['2, read as 9 (0.950)', '3, read as 7 (0.800)',
                                                        '1, read as 8 (0.600)']
    tiles = np.ma.filled(axes.images[0].get_array()[0] * 255, np.nan)
    assert tiles[[0, 36, 72]] == pytest.approx([2, 3, 1])


def found(path, count):
    boxes = [(10 * number, 5, 10 * number + 8, 25) for number in range(count)]
    return digits.Found(path, np.zeros([30, 10 * count, 3], np.uint8), boxes, [], [count], [], [])


def test_predictions_show_each_digit_in_its_picture_and_beside_it(tmp_path, monkeypatch):
    drawn = []
    monkeypatch.setattr(figures, 'save_figure', lambda figure, path: drawn.append(figure))
    flags = cli.parse_convnet_flags('', ['--output-dir', str(tmp_path), '--predict', 'a/x.png', 'b/y.png'])
    images = np.array([50, 100, 150], np.uint8)[:, None, None] * np.ones([1, 28, 28], np.uint8)
    probabilities = np.array([[0] * 9 + [1], [.5, .1, .4] + [0] * 7, [0, .9, .1] + [0] * 7])
    figures.plot_predictions(flags, [found('a/x.png', 2), found('b/y.png', 1)], images, probabilities, utils.DIGITS)
    one, one_seen, two, two_seen = drawn[0].axes
    assert (one.get_title(), two.get_title()) == ('x.png', 'y.png')
    assert [patch.get_xy() for patch in one.patches] == [(0, 5), (10, 5)] and len(two.patches) == 1
    assert [text.get_text() for text in one.texts + two.texts] == ['1', '2', '1']
    assert [text.get_text() for text in one_seen.texts] == ['1: 9 (1.000)', '2: 0 (0.500)']
    assert [text.get_text() for text in two_seen.texts] == ['1: 1 (0.900)']
    assert two_seen.images[0].get_array()[0, 0] == pytest.approx(150 / 255)


def test_the_training_curve_shows_the_history_beside_the_lecture_s():
    history = [{'epoch': epoch, 'validation': 0.9 + epoch / 100, 'test': 0.8 + epoch / 100} for epoch in (1, 2, 3)]
    (axes,) = figures.plot_training_curve(history, utils.LECTURE_ACCURACY).axes
    lines = {line.get_label(): list(zip(*line.get_data())) for line in axes.lines}
    assert lines.pop("the lecture's test accuracy")[:3] == [(1, .9111), (2, .9401), (3, .9494)]
    assert lines == {'{}: {} after epoch 3'.format(name, last): [(row['epoch'], row[name]) for row in history]
                     for name, last in (('validation', '0.9300'), ('test', '0.8300'))}
    assert len(figures.plot_training_curve(history, {}).axes[0].lines) == 2  # other data


def test_kernels_are_shown_upright_before_and_after_and_beside_the_hand_coded():
    before, after = np.random.RandomState(0).normal(size=[2, 5, 5, 1, 32])
    axes = {each.get_title(loc='left'): each for each in figures.plot_kernels('conv1', before, after).axes}
    for title, values in (('conv1 before training', before), ('conv1 after training', after),
                          ('hand-coded', kernels.filter_bank(5, 5, 1, 32))):
        title += ': largest weight {:.2f}'.format(np.abs(values).max())
        tiles = np.asarray(axes[title].images[0].get_array())
        for number in 0, 9:  # in rows of eight, a pixel apart: the tenth is the second of the second row
            y, x = number // 8 * 6, number % 8 * 6
            kernel = values[:, :, 0, number]
            np.testing.assert_allclose(tiles[y:y + 5, x:x + 5], 0.5 + 0.5 * kernel / np.abs(kernel).max(), rtol=1e-5)


# ---- Settings ----

def test_other_settings_are_refused_and_every_one_is_named(convnet, four_epochs):
    before = hashes(four_epochs.folder)
    changes = [['--batch-size', 64], ['--keep-prob', 0.5],
               ['--ema-decay', 0.0], ['--augment', 0.0], ['--init-stddev', 0.1], ['--conv1', 'hand-coded'],
               ['--seed', 9]]
    defaults = vars(cli.parse_convnet_flags('', []))
    result = convnet(*four_epochs.flags, *sum(changes, []), check=2)
    assert_one_line(result, 'another --name', '--restart', *[
        '{} {} (now {})'.format(flag, defaults[flag[2:].replace('-', '_')], value) for flag, value in changes])
    assert rows(result) == [] and hashes(four_epochs.folder) == before


def test_every_setting_changes_the_result(convnet, monkeypatch, tmp_path):
    make_small(monkeypatch.setattr)
    found = []
    for flags in ([], ['--batch-size', 64], ['--learning-rate', 0.01], ['--keep-prob', 0.5], ['--ema-decay', 0],
                  ['--augment', 0], ['--init-stddev', 0.1], ['--conv1', 'random'], ['--seed', 9]):
        convnet('--epochs', 1, '--name', 'run{}'.format(len(found)), *flags)
        variables = all_variables(tmp_path, 'run{}'.format(len(found)))
        found.append([variables['fc/weights' + end].tobytes() for end in ('', '/ExponentialMovingAverage')])
    assert len({weights for weights, _ in found}) == 8  # --ema-decay changes the averages alone
    assert len({averages for _, averages in found}) == 9


def test_bfloat16_is_a_setting_as_it_was_used(convnet, monkeypatch):
    """Where it is not supported, --bf16 changes nothing, and the run goes on without it."""
    make_small(monkeypatch.setattr)
    monkeypatch.setattr(lesson2.devices, 'session_config', lambda *arguments: tf.ConfigProto())
    monkeypatch.setattr(lesson2.devices, 'can_use_bfloat16', lambda: False)
    convnet('--epochs', 1, '--bf16')
    assert 'Continuing from' in convnet('--epochs', 2).stdout
    monkeypatch.setattr(lesson2.devices, 'can_use_bfloat16', lambda: True)
    assert_one_line(convnet('--epochs', 3, '--bf16', check=2), 'bf16', 'False (now True)')


def test_bfloat16_trains_or_falls_back(convnet, without_figures, four_epochs):
    result = convnet('--bf16', '--epochs', 2)
    assert result.stderr == '' and float(rows(result)[-1][3]) > 0.5
    assert (rows(result) == rows(four_epochs.result)[:2]) == (not lesson2.devices.can_use_bfloat16())


@pytest.mark.parametrize('name', ['train-images-idx3', 'train-labels-idx1', 't10k-images-idx3', 't10k-labels-idx1'])
@pytest.mark.parametrize('place', [-1, 20])  # a training and a validation digit, if it is of the training file
def test_another_dataset_is_refused(convnet, four_epochs, tmp_path, small_data, name, place):
    """The same sizes, but one pixel or one label differs."""
    shutil.copytree(small_data, str(tmp_path / 'other'))
    path = tmp_path / 'other' / (name + '-ubyte')
    values = bytearray(path.read_bytes())
    values[place] ^= 1
    path.write_bytes(bytes(values))
    assert_one_line(convnet(*four_epochs.flags, '--data-dir', tmp_path / 'other', check=2), 'dataset')


# ---- Names, and what is moved aside ----

@pytest.fixture(scope='module')
def hand_coded(four_epochs, tmp_path_factory):
    """A second run with a name of its own, beside a copy of the first."""
    run = after_two_epochs(four_epochs, tmp_path_factory.mktemp('two_runs') / 'runs')
    return run._replace(result=run_here(lesson2, *run.flags, '--conv1', 'hand-coded', '--name', 'hand.coded_1-a',
                                        '--epochs', 1))


def test_two_runs_do_not_touch_each_other_s_files(four_epochs, hand_coded):
    first, both = hashes(four_epochs.folder), hashes(hand_coded.folder)
    second = {path: value for path, value in both.items() if path not in first}
    assert {path: value for path, value in first.items() if path in both} == {
        path: value for path, value in both.items() if path in first}
    assert {tuple(path.split(os.sep)[:2]) for path in second} == {
        (kind, 'hand.coded_1-a') for kind in ('checkpoints', 'graphs', 'figures')}
    assert 'Continuing' not in hand_coded.result.stdout
    assert sorted(os.listdir(str(folder_of(hand_coded, 'figures', 'hand.coded_1-a')))) == sorted(
        [name + '.png' for name in FIGURES] + ['convnet_mnist.html'])


@pytest.mark.parametrize('kind', ['hand-coded', 'random'])
def test_kernels_that_do_not_learn_stay_as_they_are(convnet, monkeypatch, tmp_path, kind):
    """Also in a layer of another name. random: those of He initialization, for 25 inputs."""
    make_small(monkeypatch.setattr)
    conv_relu = lesson2.conv_relu
    monkeypatch.setattr(lesson2, 'conv_relu', lambda inputs, filters, name, *more: conv_relu(
        inputs, filters, name.replace('conv1', 'first'), *more))
    convnet('--epochs', 1, '--conv1', kind)
    values = all_variables(tmp_path)
    expected = kernels.filter_bank(5, 5, 1, 4)
    if kind == 'random':
        with tf.Graph().as_default(), tf.Session() as session:
            tf.set_random_seed(0)
            expected = session.run(lesson2.conv1_weights('random', 0)([5, 5, 1, 4], dtype=tf.float32))
        assert expected.std() == pytest.approx(np.sqrt(2 / 25), rel=0.2)
    np.testing.assert_array_equal(values['first/weights'], expected)
    assert np.abs(values['first/biases']).max() > 0 and 'first/weights/Adam' not in values
    assert 'conv2/weights/Adam' in values


def test_restart_makes_the_earlier_files_a_run_of_its_own(two_epochs, four_epochs, convnet, without_figures):
    (two_epochs.folder / 'graphs' / (NAME + '.1')).mkdir()  # of another run: the next is .2, for all three folders
    before = hashes(two_epochs.folder)
    result = convnet(*two_epochs.flags, '--epochs', 1, '--restart', '--seed', 1)
    for kind in 'checkpoints', 'graphs', 'figures':
        assert os.path.join(kind, NAME + '.2') in result.stdout and os.listdir(str(folder_of(two_epochs, kind))) != (
            [] if kind != 'figures' else None)
    assert 'Continuing' not in result.stdout and rows(result)[0] != rows(four_epochs.result)[0]
    moved = {path: value for path, value in hashes(two_epochs.folder).items() if NAME + '.2' in path}
    assert moved == {path.replace(NAME, NAME + '.2', 1): value for path, value in before.items()}
    continued = convnet(*two_epochs.flags, '--epochs', 3, '--name', NAME + '.2')
    assert 'Continuing from' in continued.stdout and continued.stderr == ''
    assert rows(continued) == rows(four_epochs.result)[:3]


# ---- A student changes the network ----

THREE_BY_THREE = [("[5, 5, inputs.shape[3], filters]", "[3, 3, inputs.shape[3], filters]")]
FIRST = THREE_BY_THREE + [("'conv1', conv1_weights(", "'first', conv1_weights(")]
TANH = [("return tf.nn.relu(tf.nn.bias_add(conv, biases)", "return tf.nn.tanh(tf.nn.bias_add(conv, biases)")]
NO_BIASES = [("biases = tf.get_variable('biases', [filters], initializer=tf.zeros_initializer())", "pass"),
             ("tf.nn.bias_add(conv, biases)", "conv")]
POOL2 = "    pool2 = max_pool(conv2, 'pool2')\n"
THIRD_LAYER = [
    (POOL2, POOL2 + "    conv3 = conv_relu(pool2, 64, 'conv3', initial_weights(5, stddev))\n"
                    "    pool3 = max_pool(conv3, 'pool3')\n"),
    ("fully_connected(pool2, ", "fully_connected(pool3, "),
    ("pool2, fc, logits:", "pool2, conv3, pool3, fc, logits:")]
NO_CONVOLUTIONS = [
    ("    conv1 = conv_relu(scaled, 32, 'conv1', conv1_weights(conv1_kind, stddev), conv1_kind == 'learned')\n", ""),
    ("    pool1 = max_pool(conv1, 'pool1')\n", ""),
    ("    conv2 = conv_relu(pool1, 64, 'conv2', initial_weights(2, stddev))\n", ""),
    (POOL2, ""),
    ("fully_connected(pool2, ", "fully_connected(scaled, "),
    ("for layer in conv1, pool1, conv2, pool2, fc, logits:", "for layer in fc, logits:")]
LARGER_IMAGES = [("IMAGE_SIZE = 28 ", "IMAGE_SIZE = 32 ")]


def edited_lesson(folder, edits):
    """A copy of lesson 2 with some texts replaced, as a module."""
    with open(os.path.join(ROOT, '07_convnet_mnist.py'), encoding='utf-8') as file:
        source = file.read()
    for old, new in edits:
        assert source.count(old) == 1, old
        source = source.replace(old, new)
    path = str(folder / 'edited_convnet.py')
    with open(path, 'w', encoding='utf-8') as file:
        file.write(source)
    spec = importlib.util.spec_from_file_location('edited_convnet', path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def resized_to_32(images):
    return np.stack([np.asarray(Image.fromarray(image).resize([32, 32])) for image in images])


@pytest.mark.parametrize('edits, flags, lines, parameters', [
    (FIRST, ['--conv1', 'hand-coded'], ['first 28 x 28 x 32 3 x 3 x 1 x 32 320'], 320 + 18496 + 3212288 + 10250),
    (NO_CONVOLUTIONS, [], ['fc 1024 784 x 1024'], 803840 + 10250),
    (THIRD_LAYER, [], ['conv3 7 x 7 x 64 5 x 5 x 64 x 64 102,464', 'pool3 4 x 4 x 64 0', 'fc 1024 1024 x 1024'],
     832 + 51264 + 102464 + 1049600 + 10250),
    (LARGER_IMAGES, [], ['pool2 8 x 8 x 64 0', 'fc 1024 4096 x 1024'], 832 + 51264 + 4195328 + 10250),
], ids=['3x3 hand-coded, renamed', 'no convolutions', 'third layer', '32x32 images'])
def test_the_network_can_be_changed_where_it_stands(convnet_flags, tmp_path, mnist, edits, flags, lines, parameters):
    lesson, flags = edited_lesson(tmp_path, edits), convnet_flags + flags
    if edits is LARGER_IMAGES:
        write_small_data(tmp_path / 'larger', resize=resized_to_32)
        assert_one_line(run_here(lesson2, *flags, '--data-dir', tmp_path / 'larger', check=2), '28 x 28', '32 x 32')
        flags += ['--data-dir', tmp_path / 'larger']
    result = run_here(lesson, *flags, '--epochs', 1)
    found = [' '.join(line.split()) for line in result.stdout.splitlines()]
    for line in lines + ['in all {:,}'.format(parameters)]:
        assert any(each.startswith(line) for each in found), line
    assert len(rows(result)) == 1 and result.stderr == ''
    for name in FIGURES:
        assert (tmp_path / 'figures' / NAME / (name + '.png')).exists() == (
            edits is not NO_CONVOLUTIONS or name not in ('learned_kernels', 'activations')), name
    Image.fromarray(255 - mnist.test.images[0]).resize([200, 200]).save(str(tmp_path / 'digit.png'))
    predicted = run_here(lesson, *flags, '--predict', tmp_path / 'digit.png')
    assert re.search(r'digit\.png +\d +[01]\.\d{4}', predicted.stdout) and predicted.stderr == ''
    assert (tmp_path / 'figures' / NAME / 'predictions.png').exists()


@pytest.mark.parametrize('predict', [False, True], ids=['training', 'predict'])
@pytest.mark.parametrize('edits, differences', [
    (THREE_BY_THREE, ['conv1/weights [5, 5, 1, 32] (now [3, 3, 1, 32])']),
    (THIRD_LAYER, ['conv3/weights missing (now [5, 5, 64, 64])', 'fc/weights']),
    (NO_BIASES, ['conv1/biases [32] (now missing)']),
    (TANH, ['conv1 Relu (now Tanh)', 'conv2 Relu (now Tanh)'])], ids=['3x3', 'third layer', 'no biases', 'tanh'])
def test_a_checkpoint_of_a_different_network_is_refused(four_epochs, tmp_path, mnist, edits, differences, predict):
    Image.fromarray(255 - mnist.test.images[0]).save(str(tmp_path / 'digit.png'))
    command = ['--predict', tmp_path / 'digit.png'] if predict else ['--epochs', 5]
    before = hashes(four_epochs.folder)
    result = run_here(edited_lesson(tmp_path, edits), *four_epochs.flags, *command, check=2)
    assert_one_line(result, '--name', *differences)
    assert rows(result) == [] and hashes(four_epochs.folder) == before


# ---- Flags and data ----

def test_help_shows_every_flag_and_default(convnet):
    result = convnet('--help')
    shown = ' '.join(result.stdout.split())
    defaults = vars(cli.parse_convnet_flags('', []))
    del defaults['towers']  # for lesson 3
    for name, value in defaults.items():
        help_text = shown.split(' --' + name.replace('_', '-') + ' ')[-1].split(' --')[0]
        if isinstance(value, (int, float)) and not isinstance(value, bool):
            assert '(default: {})'.format(value) in help_text, name
        else:
            assert ('(default: ' in help_text) == (value not in (False, None)), name
    assert '(default: None)' not in shown
    assert ROOT not in shown and not re.search(r'(^|[\s(:])(/|[A-Z]:\\)\w', shown)  # no absolute path


# ---- Python in README and docs ----

def test_the_readme_s_variable_scopes(capfd):
    """Its lines print what their comment says, and the lecture note is wrong where the table below says so."""
    (snippet,) = re.findall('```python\n(.*?)```', open(os.path.join(ROOT, 'README.md')).read(), re.DOTALL)
    with tf.Graph().as_default(), tf.Session() as session:
        names = {}
        exec(snippet, names)
        assert capfd.readouterr().out == re.search('# (.*)', snippet).group(1) + '\n'
        with pytest.raises(tf.errors.OpError, match='strides in the batch and depth'):
            session.run(tf.nn.conv2d(tf.zeros([1, 9, 9, 2]), tf.zeros([3, 3, 2, 2]), [1, 1, 1, 2], 'SAME'))


def try_this_lines(number):
    """Lines of Python in docs/try_this.md."""
    with open(os.path.join(ROOT, 'docs', 'try_this.md')) as file:
        return textwrap.dedent(re.findall('```python\n(.*?)```', file.read(), re.DOTALL)[number])


def test_the_blank_in_conv2d_by_hand(capfd):
    with open(os.path.join(ROOT, 'docs', 'try_this.md')) as file:
        answer = re.search(r'`(\(padded.*?)`', file.read()).group(1)
    for matrix, largest in ('matrix', '3.8e-07'), ('matrix[::-1, ::-1]', '7.0e+00'):
        exec(try_this_lines(0).replace('____', answer.replace('matrix', matrix)), {})
        assert '{:.1e}'.format(float(capfd.readouterr().out)) == largest


def test_what_separable_conv2d_cannot_do(capfd, tmp_path, monkeypatch):
    """The lines of docs/try_this.md print what their comment says, and draw its pictures."""
    snippet = try_this_lines(1)
    monkeypatch.chdir(tmp_path)
    names = {}
    with tf.Graph().as_default():
        exec(snippet, names)
    assert capfd.readouterr().out == re.search('# red: (.*)', snippet).group(1).replace(', ', '\n') + '\n'
    red = names['kernel'][:, :, 0].reshape(9, 3)  # the nearest product of a matrix and three numbers is the SVD's
    distance = np.linalg.norm(red - names['depthwise'][:, :, 0].reshape(9, 1) * names['pointwise'][0, 0, 0])
    assert distance == pytest.approx(np.linalg.norm(np.linalg.svd(red)[1][1:]), rel=1e-5) and distance > 1
    assert not names['kernel'][:, :, 1:].any()
    for name in 'conv2d.png', 'separable_conv2d.png':
        drawn, in_docs = [np.asarray(Image.open(path), int) for path in (name, os.path.join(ROOT, 'docs', name))]
        assert np.abs(drawn - in_docs).max() <= 1


# ---- Importing changes nothing ----

LOOK = """
import os, signal, sys, matplotlib
def look():
    return (dict(os.environ), sys.excepthook, sys.stdout, sys.stderr, dict(matplotlib.rcParams),
            [signal.getsignal(each) for each in (signal.SIGINT, signal.SIGTERM)],
            [os.fstat(2).st_ino, len(os.listdir('/proc/self/fd'))])
before = look()
import importlib
"""


def test_importing_the_lessons_changes_nothing():
    result = run_python('-c', LOOK + """
import tensorflow
before = look()  # TensorFlow itself sets some
for name in '07_basic_filters', '07_convnet_mnist', '07_convnet_towers':
    importlib.import_module(name)
assert look() == before, [pair for pair in zip(before, look()) if pair[0] != pair[1]]
print('unchanged')
""", cwd=ROOT)
    assert result.stdout == 'unchanged\n', result.stderr


def test_a_lesson_runs_twice_in_one_interpreter_and_in_a_thread(small_data, tmp_path):
    """As with %run, or F5 in an IDE, here through a symbolic link. Afterwards, environment and hooks are as before."""
    os.symlink(os.path.join(ROOT, '07_convnet_mnist.py'), str(tmp_path / 'link.py'))
    result = run_python('-c', LOOK + """
import runpy, tensorflow, threading
before = look()
link = sys.argv.pop(1)
for _ in range(2):
    runpy.run_path(link, run_name='__main__')
assert look()[:-1] == before[:-1], [pair for pair in zip(before, look()) if pair[0] != pair[1]]
lesson = importlib.import_module('07_convnet_mnist')
thread = threading.Thread(target=lesson.main, args=[sys.argv[1:]])
thread.start()
thread.join()
""", tmp_path / 'link.py', '--epochs', '1', '--data-dir', small_data, '--output-dir', tmp_path, cwd=ROOT)
    assert result.stdout.count('Try next') == 3 and result.stdout.count('done already: 1') == 2
    assert 'Traceback' not in result.stderr


@pytest.mark.parametrize('error', [OSError(2, 'mine'), ValueError('mine'), KeyError('mine')])
def test_a_student_s_own_error_keeps_its_traceback(error):
    with pytest.raises(type(error)), script.errors_in_one_line():
        raise error
