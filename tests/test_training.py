"""Lesson 2 as its users run it: the table, what it leaves on the disk, its flags and its errors."""
import contextlib
import hashlib
import importlib.util
import io
import json
import os
import re
import shutil
import signal
import struct
import subprocess
import sys
import threading

import numpy as np
import pytest
from PIL import Image

import kernels
import utils
from conftest import (BOXES, FIGURES, ROOT, Streams, Trained, all_variables, assert_equal_variables, assert_one_line,
                      prefixes, rows, run_here, run_once, run_script, user_environment, write_idx, write_small_data)
from support import cli, figures, outputs, runs, script, tables

LAYERS = ['conv1', 'pool1', 'conv2', 'pool2', 'fc', 'softmax_linear']
AVERAGE = '/ExponentialMovingAverage'
NAME = 'convnet_mnist'  # of a run, by default


# ---- Runs that several tests look at ----

@pytest.fixture(scope='module')
def continued(one_epoch, lesson2, small_data, tmp_path_factory):
    """The run of one epoch, continued to four. result: that of the same command twice."""
    folder = tmp_path_factory.mktemp('continued') / 'runs'
    shutil.copytree(str(one_epoch.folder), str(folder))
    flags = ['--data-dir', small_data, '--output-dir', folder]
    return Trained(folder, flags, [run_once(lesson2, *flags, '--epochs', 4) for _ in range(2)])


@pytest.fixture
def without_figures(monkeypatch):
    """For runs whose figures no test looks at, which take longer than an epoch of these few digits."""
    monkeypatch.setattr(figures, 'plot_results', lambda *arguments: runs.tf.Summary())


def folder_of(run, kind, name=NAME):
    return run.folder / kind / name


def hashes(folder):
    """{path: SHA-256} of all files below a folder but the locks, which every run opens."""
    return {os.path.relpath(os.path.join(parent, name), str(folder)):
            hashlib.sha256(read_bytes(os.path.join(parent, name))).hexdigest()
            for parent, _, names in os.walk(str(folder)) for name in names if not name.endswith('.lock')}


def read_bytes(path):
    with open(str(path), 'rb') as file:
        return file.read()


def events(tf, folder):
    return [event for name in sorted(os.listdir(str(folder))) if 'tfevents' in name
            for event in tf.train.summary_iterator(os.path.join(str(folder), name))]


def network_values(lesson, weights, images):
    """{layer: values} of the network without dropout, with the given {name: weights}, for uint8 images."""
    with lesson.tf.Graph().as_default(), lesson.tf.Session() as session:
        lesson.inference(lesson.tf.constant(images), 1.0)
        for variable in lesson.tf.trainable_variables():
            variable.load(weights[variable.op.name], session)
        session.run(lesson.tf.train.get_global_step().initializer)
        return session.run(tables.layers())


def averages(variables):
    return {name[:-len(AVERAGE)]: value for name, value in variables.items() if name.endswith(AVERAGE)}


# ---- A run ----

def test_one_real_epoch(real_epoch):
    assert real_epoch.result.stderr == ''  # no progress bar without a terminal
    assert '3,274,634' in real_epoch.result.stdout
    (row,) = rows(real_epoch.result)
    assert row[0] == '1' and row[4] == '0.9111'
    assert float(row[3]) >= 0.988 and float(row[2]) >= 0.985
    logs = [os.path.join(folder, name) for folder, _, names in os.walk(str(folder_of(real_epoch, 'graphs')))
            for name in names if 'tfevents' in name]
    assert len(logs) == 1 and sum(map(os.path.getsize, logs)) < 1e6


def test_the_figures_are_drawn_named_and_sent_to_tensorboard(real_epoch, lesson2):
    sent = {value.tag: value.image.encoded_image_string
            for event in events(lesson2.tf, folder_of(real_epoch, 'graphs'))
            for value in event.summary.value if value.HasField('image')}
    assert sorted(sent) == sorted(FIGURES)
    folder = folder_of(real_epoch, 'figures')
    assert str(folder) in real_epoch.result.stdout
    for name in FIGURES:
        path = str(folder / (name + '.png'))
        assert np.asarray(Image.open(path).convert('L')).std() > 20
        np.testing.assert_array_equal(Image.open(path), Image.open(io.BytesIO(sent[name])))


def test_the_table_of_layers_is_that_of_the_docstring(one_epoch, lesson2):
    for name, output, weights, parameters in [
            ('conv1', '28 x 28 x 32', '5 x 5 x 1 x 32', '832'), ('pool1', '14 x 14 x 32', '', '0'),
            ('conv2', '14 x 14 x 64', '5 x 5 x 32 x 64', '51,264'), ('pool2', '7 x 7 x 64', '', '0'),
            ('fc', '1024', '3136 x 1024', '3,212,288'), ('softmax_linear', '10', '1024 x 10', '10,250')]:
        line = next(line for line in one_epoch.result.stdout.splitlines() if line.startswith(name))
        assert line.split() == ' '.join([name, output, weights, parameters]).split()
        documented = next(line for line in lesson2.__doc__.splitlines() if line.strip().startswith(name + ' '))
        assert ' '.join(documented.split()).startswith(' '.join('{} {} {}'.format(name, output, weights).split()))
    assert '3,274,634' in one_epoch.result.stdout and '3,274,634' in lesson2.__doc__


def test_the_table_says_what_the_averaged_network_reads(one_epoch, lesson2, small_data):
    """Its accuracies, judged by NumPy with the averages from the checkpoint, and each with its own images."""
    weights = averages(all_variables(lesson2.tf, folder_of(one_epoch, 'checkpoints')))
    data = utils.read_mnist(small_data)
    expected = [(network_values(lesson2, weights, each.images)['softmax_linear'].argmax(axis=1) == each.labels).mean()
                for each in (data.validation, data.test)]
    assert expected[0] != expected[1]
    assert [rows(one_epoch.result)[0][2:4]] == [tuple('{:.4f}'.format(accuracy) for accuracy in expected)]


@pytest.mark.parametrize('stops', [False, True])
def test_the_training_loss_is_the_mean_over_the_images_of_its_epoch(convnet, without_figures, monkeypatch, stops):
    """The last batch is smaller and counts less; nothing of the epoch before counts. Also if the run stops within."""
    seen = []
    add_loss = runs.Run.add_loss

    def record(run, loss_value, batch_size, step):
        seen.append((loss_value, batch_size))
        add_loss(run, loss_value, batch_size, step)
        if stops and step == 5:
            os.kill(os.getpid(), signal.SIGINT)
    monkeypatch.setattr(runs.Run, 'add_loss', record)
    if stops:
        convnet('--epochs', 2, '--batch-size', 180, check=130)
    table = rows(convnet('--epochs', 2, '--batch-size', 180))
    for (_, loss, *_), part in zip(table, (seen[:4], seen[4:])):
        losses, sizes = zip(*part)
        assert sizes == (180, 180, 180, 120) and loss == '{:.4f}'.format(np.average(losses, weights=sizes))


@pytest.mark.parametrize('batch_size', [128, 660])
def test_the_loss_of_weights_that_hardly_change_is_numpy_s(convnet, without_figures, lesson2, small_data, batch_size):
    (row,) = rows(convnet('--epochs', 1, '--learning-rate', 1e-12, '--keep-prob', 1, '--augment', 0,
                          '--init-stddev', 0.1, '--batch-size', batch_size))
    data = utils.read_mnist(small_data).train
    with lesson2.tf.Graph().as_default(), lesson2.tf.Session() as session:
        lesson2.tf.set_random_seed(0)
        lesson2.inference(lesson2.tf.zeros([1, 28, 28], lesson2.tf.uint8), 1.0, stddev=0.1)
        session.run(lesson2.tf.global_variables_initializer())
        weights = {variable.op.name: session.run(variable) for variable in lesson2.tf.trainable_variables()}
    logits = network_values(lesson2, weights, data.images)['softmax_linear'].astype(float)
    logits -= logits.max(axis=1, keepdims=True)
    loss = np.log(np.exp(logits).sum(axis=1)) - logits[np.arange(len(logits)), data.labels]
    assert float(row[1]) == pytest.approx(loss.mean(), rel=1e-4) and loss.mean() > 1


def test_validation_digits_with_wrong_labels_change_the_validation_accuracy_alone(convnet, without_figures,
                                                                                  four_epochs, small_data, tmp_path):
    shutil.copytree(small_data, str(tmp_path / 'data'))
    path = str(tmp_path / 'data' / 'train-labels-idx1-ubyte')
    labels = utils.read_idx(path, 1).copy()
    labels[:60] = (labels[:60] + 1) % 10
    write_idx(path, labels)
    wrong, right = rows(convnet('--data-dir', tmp_path / 'data', '--epochs', 4))[-1], rows(four_epochs.result)[-1]
    assert float(wrong[2]) < 0.2 < 0.5 < float(right[2])
    assert wrong[1] == right[1] and wrong[3] == right[3]


def test_histograms_once_per_epoch(four_epochs, lesson2, small_data):
    found = {}
    for event in events(lesson2.tf, folder_of(four_epochs, 'graphs')):
        for value in event.summary.value:
            if value.HasField('histo'):
                found.setdefault(value.tag, []).append((event.step, value.histo))
    variables = {'histograms/{}/{}'.format(layer, kind) for layer in ('conv1', 'conv2', 'fc', 'softmax_linear')
                 for kind in ('weights', 'biases')}
    layers = {'histograms/{}/activations'.format(layer) for layer in LAYERS}
    assert set(found) == variables | layers
    for name, points in found.items():
        assert [step for step, _ in points] == [6, 12, 18, 24], name
    values = averages(all_variables(lesson2.tf, folder_of(four_epochs, 'checkpoints')))
    images = utils.read_mnist(small_data).validation.images[:100]
    values.update({name + '/activations': value
                   for name, value in network_values(lesson2, values, images).items()})
    for name in variables | layers:  # the last histogram is of the values at the end, those without dropout
        histogram, value = found[name][-1][1], values[name[len('histograms/'):]]
        assert histogram.num == value.size, name
        assert [histogram.min, histogram.max] == pytest.approx([value.min(), value.max()], rel=1e-3, abs=1e-6), name
        assert histogram.sum_squares == pytest.approx(np.square(value, dtype=float).sum(), rel=1e-3), name


def test_the_projector_gets_the_activations_with_labels_and_pictures(four_epochs, lesson2, small_data):
    folder = folder_of(four_epochs, 'graphs')
    vectors = np.loadtxt(str(folder / 'embedding.tsv'))
    test = utils.read_mnist(small_data).test
    weights = averages(all_variables(lesson2.tf, folder_of(four_epochs, 'checkpoints')))
    np.testing.assert_allclose(vectors, network_values(lesson2, weights, test.images)['fc'], rtol=1e-2, atol=1e-3)
    assert np.loadtxt(str(folder / 'labels.tsv')).tolist() == test.labels.tolist()
    sprite = np.asarray(Image.open(str(folder / 'sprite.png')))
    assert sprite.shape == (12 * 28, 12 * 28)  # 12 x 12 places for 130 digits
    np.testing.assert_array_equal(255 - sprite[28:56, 56:84], test.images[14])
    config = (folder / 'projector_config.pbtxt').read_text()
    assert '"fc"' in config and 'embedding.tsv' in config and 'labels.tsv' in config and 'sprite.png' in config
    assert config.count('single_image_dim: 28') == 2


def test_one_epoch_and_three_more_equal_four(one_epoch, continued, four_epochs, lesson2):
    longer, again = continued.result
    assert 'Continuing from' in longer.stdout and rows(longer)[0] == rows(one_epoch.result)[0]
    assert [row[0] for row in rows(longer)] == ['1', '2', '3', '4']
    assert [row[4] for row in rows(longer)] == ['0.9111', '0.9401', '0.9494', '']
    assert 'Epochs asked for: 4, done already: 4' in again.stdout and rows(again) == rows(longer)
    assert rows(four_epochs.result) == rows(longer)
    assert_equal_variables(*[all_variables(lesson2.tf, folder_of(run, 'checkpoints'))
                             for run in (continued, four_epochs)])
    assert [len(prefixes(folder_of(run, 'checkpoints'))) for run in (continued, four_epochs)] == [3, 3]


def test_figures_of_a_finished_run_can_be_drawn_again(continued, four_epochs):
    """They are those of the uninterrupted run, to the byte, though nothing was left to train."""
    for name in FIGURES:
        pictures = [read_bytes(folder_of(run, 'figures') / (name + '.png')) for run in (continued, four_epochs)]
        assert pictures[0] == pictures[1], name


def test_tensorboard_gets_a_clean_graph_and_continuous_curves(continued, lesson2):
    log, scalars = events(lesson2.tf, folder_of(continued, 'graphs')), {}
    graphs = [lesson2.tf.GraphDef.FromString(event.graph_def) for event in log if event.HasField('graph_def')]
    assert len(graphs) == 3  # of each command
    for graph in graphs:
        assert {node.name.split('/')[0] for node in graph.node} == BOXES
        assert graph.ByteSize() < 1e6  # the digits are not in it
    for event in log:
        for value in event.summary.value:
            if value.HasField('simple_value'):
                scalars.setdefault(value.tag, []).append((event.step, value.simple_value))
    assert set(scalars) == {'summaries/cross_entropy', 'accuracy/validation', 'accuracy/test'}
    assert [step for step, _ in scalars['summaries/cross_entropy']] == [10, 20]
    for column, name in (2, 'validation'), (3, 'test'):
        assert [(step, '{:.4f}'.format(value)) for step, value in scalars['accuracy/' + name]] == [
            (6 * int(row[0]), row[column]) for row in rows(continued.result[0])]


def test_each_run_ends_with_one_thing_to_try_next(one_epoch, continued, hand_coded):
    for run, result in [(one_epoch, one_epoch.result)] + [(continued, each) for each in continued.result]:
        *_, checkpoint, tensorboard, last = result.stdout.splitlines()
        assert last.startswith('Try next ') and '--name' not in last
        assert ' --output-dir {} --predict'.format(run.folder) in last
        assert os.path.basename(prefixes(str(folder_of(run, 'checkpoints')))[0]) in checkpoint
        assert 'tensorboard --logdir' in tensorboard and NAME in tensorboard
    assert '--name hand.coded_1-a' in hand_coded.result.stdout.splitlines()[-1]


# ---- Figures ----

def test_the_confusion_matrix_has_labels_down_and_what_was_read_across(lesson2):
    labels, predicted = np.array([3, 3, 3, 7, 7]), np.array([3, 5, 5, 7, 2])
    (axes,) = figures.plot_confusion(labels, predicted).axes
    shown = {text.get_position(): text.get_text() for text in axes.texts}  # (x, y)
    assert shown == {(3, 3): '1', (5, 3): '2', (7, 7): '1', (2, 7): '1'}
    assert axes.get_xlabel() == 'read as' and axes.get_ylabel() == 'true digit' and '3 of 5' in axes.get_title()


def test_the_worst_mistakes_come_first_with_label_reading_and_probability(lesson2):
    labels = np.arange(4, dtype=np.uint8)
    probabilities = np.full([4, 10], 0.01)
    probabilities[0, 0] = 0.9  # is right
    probabilities[1, [1, 8]] = 0.3, 0.6
    probabilities[2, [2, 9]] = 0.001, 0.95
    probabilities[3, [3, 7]] = 0.1, 0.8
    images = np.arange(4, dtype=np.uint8)[:, None, None] * np.ones([1, 28, 28], np.uint8)
    axes = [each for each in figures.plot_mistakes(utils.Dataset(images, labels), probabilities).axes if each.images]
    assert [each.get_title() for each in axes] == ['2, read as 9 (0.950)', '3, read as 7 (0.800)',
                                                   '1, read as 8 (0.600)']
    assert [each.images[0].get_array().max() for each in axes] == [2, 3, 1]


def test_predictions_stand_below_the_names_and_pictures_they_are_of(lesson2, tmp_path, monkeypatch):
    drawn = []
    monkeypatch.setattr(figures, 'save_figure', lambda figure, path: drawn.append(figure))
    flags = cli.parse_convnet_flags('', ['--output-dir', str(tmp_path), '--predict', 'a/x.png', 'b/y.png'])
    images = np.array([50, 100], np.uint8)[:, None, None] * np.ones([1, 28, 28], np.uint8)
    probabilities = np.array([[0] * 9 + [1], [.5, .1, .4] + [0] * 7])
    figures.plot_predictions(flags, flags.predict, images, probabilities)
    assert [(each.get_title(), each.images[0].get_array().max()) for each in drawn[0].axes if each.images] == [
        ('x.png\n9 (1.000)', 50), ('y.png\n0 (0.500)', 100)]


def test_the_training_curve_shows_the_history_beside_the_lecture_s(lesson2):
    history = [{'epoch': epoch, 'validation': 0.9 + epoch / 100, 'test': 0.8 + epoch / 100} for epoch in (1, 2, 3)]
    (axes,) = figures.plot_training_curve(history).axes
    lines = {line.get_label(): list(zip(*line.get_data())) for line in axes.lines}
    assert lines.pop("the lecture's test accuracy")[:3] == [(1, .9111), (2, .9401), (3, .9494)]
    assert lines == {name: [(row['epoch'], row[name]) for row in history] for name in ('validation', 'test')}


def test_kernels_are_shown_upright_before_and_after_and_beside_the_hand_coded(lesson2):
    before, after = np.random.RandomState(0).normal(size=[2, 5, 5, 1, 32])
    axes = {each.get_title(loc='left'): each for each in figures.plot_kernels('conv1', before, after).axes}
    for title, values in (('conv1 before training', before), ('conv1 after training, in the same places', after),
                          ('hand-coded', kernels.filter_bank(5, 5, 1, 32))):
        tiles = np.asarray(axes[title].images[0].get_array())
        for number in 0, 9:  # in rows of eight, a pixel apart: the tenth is the second of the second row
            y, x = number // 8 * 6, number % 8 * 6
            kernel = values[:, :, 0, number]
            np.testing.assert_allclose(tiles[y:y + 5, x:x + 5], 0.5 + 0.5 * kernel / np.abs(kernel).max(), rtol=1e-5)


# ---- Settings ----

def test_other_settings_are_refused_and_every_one_is_named(convnet, one_epoch, lesson2):
    before = hashes(one_epoch.folder)
    changes = [['--batch-size', 64], ['--keep-prob', 0.5],
               ['--ema-decay', 0.0], ['--augment', 0.0], ['--init-stddev', 0.1], ['--conv1', 'hand-coded'],
               ['--seed', 9]]
    defaults = vars(cli.parse_convnet_flags('', []))
    result = convnet(*one_epoch.flags, *sum(changes, []), check=2)
    assert_one_line(result, 'another --name', '--restart', *[
        '{} {} (now {})'.format(flag, defaults[flag[2:].replace('-', '_')], value) for flag, value in changes])
    assert rows(result) == [] and hashes(one_epoch.folder) == before


def test_the_learning_rate_may_change(copied, convnet, without_figures):
    result = convnet(*copied.flags, '--epochs', 2, '--learning-rate', 0.002)
    assert 'The learning rate was 0.001 up to here, and is 0.002 from now on.' in result.stdout
    assert len(rows(result)) == 2


def test_a_setting_of_another_version_is_refused(copied, convnet):
    path = prefixes(str(folder_of(copied, 'checkpoints')))[0] + '.json'
    with open(path) as file:
        saved = json.load(file)
    saved['settings']['lr_decay'] = 0.5
    with open(path, 'w') as file:
        json.dump(saved, file)
    assert_one_line(convnet(*copied.flags, '--epochs', 2, check=2), 'trained with --lr-decay 0.5 (now unknown)')


def test_bfloat16_is_a_setting_where_it_is_supported(convnet, one_epoch, lesson2, monkeypatch):
    monkeypatch.setattr(lesson2.devices, 'can_use_bfloat16', lambda: True)
    monkeypatch.setattr(lesson2.devices, 'session_config', lambda *arguments: lesson2.tf.ConfigProto())
    assert_one_line(convnet(*one_epoch.flags, '--bf16', check=2), 'trained with --bf16 off (now on)')


@pytest.mark.parametrize('name', ['train-images-idx3', 'train-labels-idx1', 't10k-images-idx3', 't10k-labels-idx1'])
@pytest.mark.parametrize('place', [-1, 20])  # a training and a validation digit, if it is of the training file
def test_another_dataset_is_refused(convnet, one_epoch, tmp_path, small_data, name, place):
    """The same sizes, but one pixel or one label differs."""
    shutil.copytree(small_data, str(tmp_path / 'other'))
    path = tmp_path / 'other' / (name + '-ubyte')
    values = bytearray(path.read_bytes())
    values[place] ^= 1
    path.write_bytes(bytes(values))
    assert_one_line(convnet(*one_epoch.flags, '--data-dir', tmp_path / 'other', check=2), 'trained with dataset')


@pytest.mark.parametrize('flags', [
    ['--batch-size', 64], ['--learning-rate', 0.01], ['--keep-prob', 0.5], ['--ema-decay', 0],
    ['--augment', 0], ['--init-stddev', 0.1], ['--conv1', 'hand-coded'], ['--seed', 9]],
    ids=lambda flags: flags[0].strip('-'))
def test_every_setting_changes_the_result(convnet, without_figures, four_epochs, flags):
    found = rows(convnet('--epochs', 1, *flags))
    assert len(found) == 1 and found != rows(four_epochs.result)[:1]


def test_a_batch_may_be_larger_than_the_dataset(convnet, without_figures):
    assert len(rows(convnet('--epochs', 2, '--batch-size', 4096))) == 2


def test_bfloat16_trains_or_falls_back(convnet, without_figures, four_epochs, lesson2):
    result = convnet('--bf16', '--epochs', 4)
    assert result.stderr == '' and float(rows(result)[-1][3]) > 0.5
    assert (rows(result) == rows(four_epochs.result)) == (not lesson2.devices.can_use_bfloat16())


# ---- Names, and what is moved aside ----

@pytest.fixture(scope='module')
def hand_coded(lesson2, one_epoch, small_data, tmp_path_factory):
    """A second run with a name of its own, beside a copy of the first."""
    folder = tmp_path_factory.mktemp('two_runs') / 'runs'
    shutil.copytree(str(one_epoch.folder), str(folder))
    flags = ['--data-dir', small_data, '--output-dir', folder]
    return Trained(folder, flags, run_once(lesson2, *flags, '--conv1', 'hand-coded', '--name', 'hand.coded_1-a',
                                           '--epochs', 2))


def test_two_runs_do_not_touch_each_other_s_files(one_epoch, hand_coded):
    first, both = hashes(one_epoch.folder), hashes(hand_coded.folder)
    second = {path: value for path, value in both.items() if path not in first}
    assert {path: value for path, value in both.items() if path in first} == first
    assert {tuple(path.split(os.sep)[:2]) for path in second} == {
        (kind, 'hand.coded_1-a') for kind in ('checkpoints', 'graphs', 'figures')}
    assert 'Continuing' not in hand_coded.result.stdout
    assert sorted(os.listdir(str(folder_of(hand_coded, 'figures', 'hand.coded_1-a')))) == sorted(
        [name + '.png' for name in FIGURES] + ['convnet_mnist.html', outputs.OWN_FILES])


def test_hand_coded_kernels_stay_as_they_are(hand_coded, lesson2):
    values = all_variables(lesson2.tf, folder_of(hand_coded, 'checkpoints', 'hand.coded_1-a'))
    np.testing.assert_array_equal(values['conv1/weights'], kernels.filter_bank(5, 5, 1, 32))
    assert np.abs(values['conv1/biases']).max() > 0 and 'conv1/weights/Adam' not in values
    assert 'conv2/weights/Adam' in values


def test_random_kernels_stay_as_they_are(convnet, without_figures, lesson2, tmp_path):
    convnet('--epochs', 1, '--conv1', 'random')
    values = all_variables(lesson2.tf, tmp_path / 'checkpoints' / NAME)
    with lesson2.tf.Graph().as_default(), lesson2.tf.Session() as session:
        lesson2.tf.set_random_seed(0)
        lesson2.inference(lesson2.tf.zeros([1, 28, 28], lesson2.tf.uint8), 1.0, conv1_kind='random')
        session.run(lesson2.tf.global_variables_initializer())
        (initial,) = [session.run(each) for each in lesson2.tf.global_variables() if each.op.name == 'conv1/weights']
    np.testing.assert_array_equal(values['conv1/weights'], initial)
    assert initial.std() == pytest.approx(np.sqrt(2 / 25), rel=0.1)  # He initialization: 25 inputs
    assert 'conv1/weights/Adam' not in values and 'conv2/weights/Adam' in values


@pytest.mark.parametrize('name', ['a/b', '..', '.', '', 'a b', 'x.', 'basic_filters', os.path.join(ROOT, 'a'), 'é'])
def test_names_that_are_no_folder_s_name_are_refused(convnet, tmp_path, name):
    result = convnet('--name', name, check=2)
    assert_one_line(result, '--name', 'expected letters', 'found {!r}'.format(name))
    assert os.listdir(str(tmp_path)) == []


def test_restart_makes_the_earlier_files_a_run_of_its_own(copied, four_epochs, convnet, monkeypatch):
    before = hashes(copied.folder)
    result = convnet(*copied.flags, '--epochs', 1, '--restart', '--seed', 1)
    for kind in 'checkpoints', 'graphs', 'figures':
        assert str(folder_of(copied, kind, NAME + '.1')) in result.stdout
    assert 'Continuing' not in result.stdout and rows(result) != rows(copied.result)
    moved = {path: value for path, value in hashes(copied.folder).items() if NAME + '.1' in path}
    assert moved == {path.replace(NAME, NAME + '.1', 1): value for path, value in before.items()}
    for kind in 'checkpoints', 'graphs', 'figures':  # the new run has all of its own
        assert os.listdir(str(folder_of(copied, kind)))

    monkeypatch.setattr(figures, 'plot_results', lambda *arguments: runs.tf.Summary())
    continued = convnet(*copied.flags, '--epochs', 2, '--name', NAME + '.1')
    assert 'Continuing from' in continued.stdout and continued.stderr == ''
    assert rows(continued) == rows(four_epochs.result)[:2]


def test_a_backup_never_goes_where_something_is(tmp_path):
    folders = outputs.run_folders(str(tmp_path), 'run')
    for number in range(1, 4):
        outputs.claim(folders.graphs, ['train'])
        os.makedirs(folders.graphs + '/train')
        outputs.claim(folders.figures, ['confusion.png'])
        (tmp_path / 'figures' / 'run' / 'notes.txt').write_text('mine')
        if number == 2:
            os.makedirs(folders.checkpoints + '.2')  # of another run: the next is .3, for all three
        outputs.back_up(folders)
    assert sorted(os.listdir(str(tmp_path / 'graphs'))) == ['run', 'run.1', 'run.3', 'run.4']
    assert os.listdir(folders.checkpoints + '.2') == []
    assert os.listdir(folders.figures) == ['notes.txt']  # only what the lesson wrote is moved


# ---- A student changes the network ----

CONV = "weights = tf.get_variable('weights', [{0}, {0}, inputs.shape[3], filters]"
THREE_BY_THREE = [(CONV.format(5), CONV.format(3))]
NO_INITIALIZER = [("inputs.shape[3], filters], initializer=initializer)", "inputs.shape[3], filters])")]
POOL2 = "    pool2 = max_pool(conv2, 'pool2')\n"
EXTRA_LAYER = [
    (POOL2, POOL2 + "    conv3 = conv_relu(pool2, 64, 'conv3', initial_weights(5, stddev))\n"),
    ("fully_connected(pool2, ", "fully_connected(conv3, "),
    ("pool2, fc, logits:", "pool2, conv3, fc, logits:")]
THIRD_LAYER = [
    (POOL2, EXTRA_LAYER[0][1] + "    pool3 = max_pool(conv3, 'pool3')\n"),
    ("fully_connected(pool2, ", "fully_connected(pool3, "),
    ("pool2, fc, logits:", "pool2, conv3, pool3, fc, logits:")]
NO_CONVOLUTIONS = [
    ("    conv1 = conv_relu(scaled, 32, 'conv1', conv1_weights(conv1_kind, stddev))\n", ""),
    ("    pool1 = max_pool(conv1, 'pool1')\n", ""),
    ("    conv2 = conv_relu(pool1, 64, 'conv2', initial_weights(2, stddev))\n", ""),
    ("    pool2 = max_pool(conv2, 'pool2')\n", ""),
    ("fully_connected(pool2, ", "fully_connected(scaled, "),
    ("for layer in conv1, pool1, conv2, pool2, fc, logits:", "for layer in fc, logits:")]
OTHER_SIZES = [
    ("conv_relu(scaled, 32, 'conv1'", "conv_relu(scaled, 64, 'conv1'"),
    ("fully_connected(pool2, 1024, 'fc'", "fully_connected(pool2, 256, 'fc'")]
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
    (THREE_BY_THREE, [], ['conv1 28 x 28 x 32 3 x 3 x 1 x 32 320'], 320 + 18496 + 3212288 + 10250),
    (THREE_BY_THREE, ['--conv1', 'hand-coded'], ['conv1 28 x 28 x 32 3 x 3 x 1 x 32 320'],
     320 + 18496 + 3212288 + 10250),
    (NO_INITIALIZER, [], [], 3274634),
    (NO_CONVOLUTIONS, [], ['fc 1024 784 x 1024'], 803840 + 10250),
    (THIRD_LAYER, [], ['conv3 7 x 7 x 64 5 x 5 x 64 x 64 102,464', 'pool3 4 x 4 x 64 0', 'fc 1024 1024 x 1024'],
     832 + 51264 + 102464 + 1049600 + 10250),
    (OTHER_SIZES, [], ['conv1 28 x 28 x 64 5 x 5 x 1 x 64 1,664', 'fc 256 3136 x 256'],
     1664 + 102464 + 803072 + 2570),
    (LARGER_IMAGES, [], ['pool2 8 x 8 x 64 0', 'fc 1024 4096 x 1024'], 832 + 51264 + 4195328 + 10250),
], ids=['3x3 kernels', '3x3 hand-coded', 'no initializer', 'no convolutions', 'third layer', 'other sizes',
        '32x32 images'])
def test_the_network_can_be_changed_where_it_stands(lesson2, convnet_flags, tmp_path, capfd, mnist, edits, flags,
                                                    lines, parameters):
    lesson = edited_lesson(tmp_path, edits)
    flags = convnet_flags + flags
    if edits is LARGER_IMAGES:
        write_small_data(str(tmp_path / 'larger'), resize=resized_to_32)
        flags += ['--data-dir', tmp_path / 'larger']
    result = run_here(lesson, capfd, *flags, '--epochs', 1)
    found = [' '.join(line.split()) for line in result.stdout.splitlines()]
    for line in lines + ['in all {:,}'.format(parameters)]:
        assert any(each.startswith(line) for each in found), line
    assert len(rows(result)) == 1 and result.stderr == ''
    for name in FIGURES:
        assert (tmp_path / 'figures' / NAME / (name + '.png')).exists() == (
            edits is not NO_CONVOLUTIONS or name not in ('learned_kernels', 'activations')), name
    if edits is NO_CONVOLUTIONS:
        assert len(rows(run_here(lesson, capfd, *flags, '--epochs', 2))) == 2
    if '--conv1' in flags:
        values = all_variables(lesson.tf, tmp_path / 'checkpoints' / NAME)
        np.testing.assert_array_equal(values['conv1/weights'], kernels.filter_bank(3, 3, 1, 32))

    Image.fromarray(255 - mnist.test.images[0]).resize([200, 200]).save(str(tmp_path / 'digit.png'))
    predicted = run_here(lesson, capfd, *flags, '--predict', tmp_path / 'digit.png')
    assert re.search(r'digit\.png +\d +[01]\.\d{4}', predicted.stdout) and predicted.stderr == ''
    assert (tmp_path / 'figures' / NAME / 'predictions.png').exists()


@pytest.fixture(scope='module')
def extra_layer(lesson2, one_epoch, small_data, tmp_path_factory):
    """A network with one layer more, all others being the same, and its lesson."""
    folder = tmp_path_factory.mktemp('extra_layer')
    lesson = edited_lesson(folder, EXTRA_LAYER)
    flags = ['--data-dir', small_data, '--output-dir', folder]
    return Trained(folder, flags, run_once(lesson, *flags, '--epochs', 1)), lesson


@pytest.mark.parametrize('predict', [False, True], ids=['training', 'predict'])
def test_a_checkpoint_of_a_different_network_is_refused(lesson2, capfd, one_epoch, extra_layer, tmp_path, mnist,
                                                        predict):
    larger_run, larger_lesson = extra_layer
    Image.fromarray(255 - mnist.test.images[0]).save(str(tmp_path / 'digit.png'))
    command = ['--predict', tmp_path / 'digit.png'] if predict else ['--epochs', 2]
    for run, lesson, difference in [
            (one_epoch, edited_lesson(tmp_path, THREE_BY_THREE),
             'conv1/weights is 5 x 5 x 1 x 32 in the checkpoint and 3 x 3 x 1 x 32 in this script'),
            (one_epoch, larger_lesson, 'conv3/weights is missing in the checkpoint and 5 x 5 x 64 x 64 in this script'),
            (larger_run, lesson2, 'conv3/biases is 64 in the checkpoint and missing in this script')]:
        before = hashes(run.folder)
        result = run_here(lesson, capfd, *run.flags, *command, check=2)
        assert_one_line(result, 'made by a different network', difference, '--name', '--restart',
                        str(folder_of(run, 'checkpoints')))
        assert 'damaged' not in result.stderr and rows(result) == [] and hashes(run.folder) == before


def test_images_of_another_size_than_the_network_s_are_refused(convnet, tmp_path):
    write_small_data(str(tmp_path / 'larger'), resize=resized_to_32)
    assert_one_line(convnet('--data-dir', tmp_path / 'larger', check=2), '28 x 28', '32 x 32', 'IMAGE_SIZE')


# ---- Flags and errors ----

@pytest.mark.parametrize('flags, complaint', [
    (['--epochs', '0'], 'a whole number of at least 1'), (['--epochs', '-3'], 'a whole number of at least 1'),
    (['--epochs', 'ten'], "found 'ten'"), (['--epochs', '1e3'], "found '1e3'"),
    (['--batch-size', '0'], 'a whole number'), (['--batch-size', '4097'], 'at most 4096'),
    (['--learning-rate', '0'], 'a number above 0'), (['--learning-rate', 'nan'], 'a number above 0'),
    (['--learning-rate', 'inf'], 'a number above 0'), (['--learning-rate', '1.1'], 'at most 1'),
    (['--learning-rate=-1'], 'a number above 0'),
    (['--init-stddev', '-1'], 'at least 0'),
    (['--init-stddev', '11'], 'at most 10'), (['--keep-prob', '0'], 'at least 0.001 and at most 1'),
    (['--keep-prob', '1.5'], 'at most 1'), (['--keep-prob', 'x'], "found 'x'"),
    (['--ema-decay', '1'], 'at most 0.999999'), (['--augment', '28'], 'at most 10'), (['--seed', '-1'], 'at least 0'),
    (['--seed', str(2**31)], 'at most 2147483647'), (['--device', 'tpu'], 'invalid choice'),
    (['--data-dir', 'nowhere'], 'nowhere: expected train-images'), (['--epoch', '1'], 'unrecognized arguments'),
    (['--dry-run'], 'unrecognized arguments')])
def test_bad_flags_are_one_line_and_status_2(convnet, flags, complaint):
    assert_one_line(convnet(*flags, check=2), complaint)


def test_a_gpu_that_is_not_there(lesson2, convnet, without_figures):
    if lesson2.devices.gpus():
        pytest.skip('there is one')
    assert_one_line(convnet('--device', 'gpu', check=2), 'TensorFlow finds no GPU')
    assert rows(convnet('--device', 'cpu', '--epochs', 1))


def test_help_shows_every_flag_and_default(convnet):
    result = convnet('--help')
    shown = ' '.join(result.stdout.split())
    defaults = vars(cli.parse_convnet_flags('', []))
    del defaults['towers'], defaults['target']  # for lesson 3
    for name, value in defaults.items():
        help_text = shown.split(' --' + name.replace('_', '-') + ' ')[-1].split(' --')[0]
        if isinstance(value, (int, float)) and not isinstance(value, bool):
            assert '(default: {})'.format(value) in help_text, name
        else:
            assert ('(default: ' in help_text) == (value not in (False, None)), name
    assert '(default: None)' not in shown
    assert ROOT not in shown and not re.search(r'(^|[\s(:])(/|[A-Z]:\\)\w', shown)  # no absolute path


@pytest.mark.parametrize('place', ['', 'checkpoints', 'graphs', 'figures', 'checkpoints/' + NAME, 'graphs/' + NAME,
                                   'figures/' + NAME])
def test_a_file_where_a_directory_should_be(convnet, tmp_path, place):
    path = tmp_path / 'runs' / place if place else tmp_path / 'runs'
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text('mine')
    result = convnet('--epochs', 1, '--output-dir', tmp_path / 'runs', check=2)
    assert_one_line(result, str(path))
    assert path.read_text() == 'mine' and rows(result) == []


def test_another_dataset_in_mnist_s_format(convnet, tmp_path):
    """Gzipped, with a dot in the name, other pictures: only the format counts."""
    folder = tmp_path / 'fashion'
    folder.mkdir()
    random = np.random.RandomState(0)
    for name, count in ('train', 24), ('t10k', 7):
        write_idx(folder / (name + '-images.idx3-ubyte.gz'), random.randint(0, 256, (count, 28, 28)).astype(np.uint8))
        write_idx(folder / (name + '-labels.idx1-ubyte.gz'), random.randint(0, 10, count).astype(np.uint8))
    (row,) = rows(convnet('--data-dir', folder, '--epochs', 1, '--batch-size', 5))
    assert row[2] in ('0.0000', '0.5000', '1.0000')  # of 2 validation digits
    assert any(row[3] == '{:.4f}'.format(count / 7) for count in range(8))


# ---- Terminals and processes ----

def test_the_readme_s_variable_scopes(lesson2, capfd):
    """Its lines print what their comment says, and the lecture note is wrong where the table below says so."""
    tf = lesson2.tf
    (snippet,) = re.findall('```python\n(.*?)```', open(os.path.join(ROOT, 'README.md')).read(), re.DOTALL)
    with tf.Graph().as_default(), tf.Session() as session:
        names = {}
        exec(snippet, names)
        assert capfd.readouterr().out == re.search('# (.*)', snippet).group(1) + '\n'
        with pytest.raises(ValueError, match='conv1/weights already exists'), tf.variable_scope('conv1'):
            tf.get_variable('weights', [5, 5, 1, 32])
        with pytest.raises(tf.errors.OpError, match='strides in the batch and depth'):
            session.run(tf.nn.conv2d(tf.zeros([1, 9, 9, 2]), tf.zeros([3, 3, 2, 2]), [1, 1, 1, 2], 'SAME'))


def test_what_separable_conv2d_cannot_do(lesson2, capfd, tmp_path, monkeypatch):
    """The lines of docs/try_this.md print what their comment says, and draw its pictures."""
    snippet, _ = re.findall('```python\n(.*?)```', open(os.path.join(ROOT, 'docs', 'try_this.md')).read(), re.DOTALL)
    monkeypatch.chdir(tmp_path)
    names = {}
    with lesson2.tf.Graph().as_default():
        exec(snippet, names)
    assert capfd.readouterr().out == re.search('# red: (.*)', snippet).group(1).replace(', ', '\n') + '\n'
    red = names['kernel'][:, :, 0].reshape(9, 3)  # the nearest product of a matrix and three numbers is the SVD's
    distance = np.linalg.norm(red - names['depthwise'][:, :, 0].reshape(9, 1) * names['pointwise'][0, 0, 0])
    assert distance == pytest.approx(np.linalg.norm(np.linalg.svd(red)[1][1:]), rel=1e-5) and distance > 1
    assert not names['kernel'][:, :, 1:].any()
    for name in 'conv2d.png', 'separable_conv2d.png':
        drawn, in_docs = [np.asarray(Image.open(path), int) for path in (name, os.path.join(ROOT, 'docs', name))]
        assert np.abs(drawn - in_docs).max() <= 1


def test_the_recipe_for_folders_of_pictures(convnet, without_figures, mnist, tmp_path, monkeypatch):
    """The lines of docs/try_this.md, on pictures of two digits: the network is trained and reads their names."""
    _, recipe = re.findall('```python\n(.*?)```', open(os.path.join(ROOT, 'docs', 'try_this.md')).read(), re.DOTALL)
    assert recipe.count('\n') <= 15
    chosen = [(label, image) for label, image in zip(mnist.train.labels, mnist.train.images) if label in (3, 8)][:210]
    for number, (label, image) in enumerate(chosen):
        folder = tmp_path / 'pictures' / {3: 'three', 8: 'eight'}[label]
        folder.mkdir(parents=True, exist_ok=True)
        Image.fromarray(image).resize((56, 56)).convert('RGB').save(str(folder / '{}.png'.format(number)))
    monkeypatch.chdir(tmp_path)
    exec(recipe, {})
    data = utils.read_mnist(str(tmp_path / 'data' / 'mine'))
    assert [len(each.labels) for each in data] == [165, 15, 30]
    for name, label in ('eight', 0), ('three', 1):
        assert (np.concatenate([each.labels for each in data]) == label).sum() == len(os.listdir('pictures/' + name))
    result = convnet('--data-dir', tmp_path / 'data' / 'mine', '--epochs', 3, '--batch-size', 16)
    assert float(rows(result)[-1][3]) > 0.8


def test_the_progress_bar_goes_to_a_terminal(lesson2, convnet_flags, without_figures):
    pty, fcntl, termios = [pytest.importorskip(name) for name in ('pty', 'fcntl', 'termios')]
    terminal, end = pty.openpty()
    fcntl.ioctl(end, termios.TIOCSWINSZ, struct.pack('4H', 24, 100, 0, 0))
    shown = []

    def read():
        try:
            while True:
                shown.append(os.read(terminal, 10000))
        except OSError:  # the other end is closed
            os.close(terminal)
    reader = threading.Thread(target=read)
    reader.start()
    out = io.StringIO()
    with contextlib.redirect_stdout(out), os.fdopen(end, 'w') as stream, contextlib.redirect_stderr(stream):
        result = run_here(lesson2, Streams(out, io.StringIO()), *convnet_flags, '--epochs', 1)
    reader.join(60)
    shown = b''.join(shown)
    assert len(rows(result)) == 1
    assert b'epoch 1:' in shown and b'images/s' in shown and b'loss=' in shown and b'/660 ' in shown


def test_whoever_reads_the_output_may_stop(convnet_flags):
    process = subprocess.Popen([sys.executable, os.path.join(ROOT, '07_convnet_mnist.py'), '--epochs', '4'] +
                               [str(each) for each in convnet_flags], stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                               env=user_environment())
    process.stdout.readline()
    process.stdout.close()
    assert process.stderr.read() == b''
    assert process.wait() == 1


def test_real_errors_still_show(tmp_path):
    """A TensorFlow that cannot be imported shows why, although its noise is held back."""
    broken = tmp_path / 'tensorflow'
    broken.mkdir()
    (broken / '__init__.py').write_text(
        'import os\nos.write(2, b"noise from C++\\n")\nraise ImportError("no AVX here")')
    for name in '07_convnet_mnist.py', '07_basic_filters.py':
        result = run_script(name, check=1, environment={'PYTHONPATH': str(tmp_path)})
        assert 'noise from C++' in result.stderr and 'ImportError: no AVX here' in result.stderr


def test_a_quiet_start_holds_back_noise_and_shows_errors(capfd, monkeypatch):
    noise = ['2026-01-01 00:00:00.000000: W tensorflow/core/platform/x.cc:1] noise', 'WARNING: noise',
             '2026-01-01 00:00:00.000000: E external/cuda/x.cc:1] failed call to cuInit: noise']
    errors = ['2026-01-01 00:00:00.000000: E tensorflow/core/x.cc:1] an error', 'F0101 00:00:00.0 1 x.cc:1] fatal']
    with script.held_back():
        os.write(2, '\n'.join(noise + errors + ['']).encode())
    assert capfd.readouterr().err.splitlines() == errors and script.NOTES[-len(noise):] == noise


# ---- Importing changes nothing ----

LOOK = """
import os, signal, sys, matplotlib
def look():
    return (dict(os.environ), sys.excepthook, sys.stdout, sys.stderr, dict(matplotlib.rcParams),
            [signal.getsignal(each) for each in (signal.SIGINT, signal.SIGTERM)],
            [os.fstat(2), len(os.listdir('/proc/self/fd'))])
before = look()
import importlib
"""


def test_importing_the_lessons_changes_nothing():
    code = LOOK + """
import tensorflow
before = before[:0] + look()  # TensorFlow itself sets some
for name in '07_basic_filters', '07_convnet_mnist', '07_convnet_towers':
    importlib.import_module(name)
assert look() == before, [pair for pair in zip(before, look()) if pair[0] != pair[1]]
print('unchanged')
"""
    result = subprocess.run([sys.executable, '-c', code], cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                            universal_newlines=True, env=user_environment())
    assert result.stdout == 'unchanged\n', result.stderr


def test_a_lesson_runs_twice_in_one_interpreter(small_data, tmp_path):
    """As with %run, or F5 in an IDE; and afterwards, the interpreter's hooks and handlers are its own."""
    code = LOOK + """
import runpy, tensorflow
sys.argv = ['07_convnet_mnist.py', '--epochs', '2', '--data-dir', {data!r}, '--output-dir', {folder!r}]
before = look()
for _ in range(2):
    runpy.run_path('07_convnet_mnist.py', run_name='__main__')
after = look()
assert after[1:] == before[1:] or after[5] == before[5], (before, after)
assert after[1] is before[1] and after[4] == before[4] and after[5] == before[5]
""".format(data=small_data, folder=str(tmp_path))
    result = subprocess.run([sys.executable, '-c', code], cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                            universal_newlines=True, env=user_environment())
    assert result.returncode == 0, result.stderr
    assert result.stdout.count('Try next') == 2 and 'done already: 2' in result.stdout


@pytest.mark.parametrize('error', [OSError(2, 'mine'), ValueError('mine'), KeyError('mine')])
def test_a_student_s_own_error_keeps_its_traceback(error):
    with pytest.raises(type(error)), script.errors_in_one_line():
        raise error


def test_the_snippets_of_the_lecture_note(lesson2):
    """Variable scopes as the note has them, with today's names, in a Python in which the project was imported."""
    tf = lesson2.tf
    with tf.Graph().as_default(), tf.Session() as session:
        with tf.variable_scope('conv1') as scope:
            w = tf.get_variable('weights', [5, 5, 1, 32])
            b = tf.get_variable('biases', [32], initializer=tf.random_normal_initializer())
            conv = tf.nn.conv2d(tf.zeros([2, 28, 28, 1]), w, strides=[1, 1, 1, 1], padding='SAME')
            conv1 = tf.nn.relu(conv + b, name=scope.name)
        with pytest.raises(ValueError, match='conv1/weights already exists'), tf.variable_scope('conv1'):
            tf.get_variable('weights', [5, 5, 1, 32])
        with tf.variable_scope('conv1', reuse=True):
            assert tf.get_variable('weights', [5, 5, 1, 32]) is w
        session.run(tf.global_variables_initializer())
        assert session.run(conv1).shape == (2, 28, 28, 32) and w.op.name == 'conv1/weights'
