"""Lesson 2 as its users run it: the table, what it leaves on the disk, its flags and its errors."""
import os
import re
import struct
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image

import kernels
from support import cli, training_run
import utils
from conftest import ROOT, run_script, user_environment, write_idx

ROW = re.compile(r'^ +(\d+)  +([\d.]+)  +(0\.\d{4}|1\.0000)  (0\.\d{4}|1\.0000)  +(0\.\d{4})?$', re.MULTILINE)
BOXES = {'data', 'conv1', 'pool1', 'conv2', 'pool2', 'fc', 'softmax_linear', 'loss', 'accuracy', 'train'}


def rows(result):
    return ROW.findall(result.stdout)


def events(tf, log_dir, run):
    folder = os.path.join(str(log_dir), run)
    return [event for name in sorted(os.listdir(folder)) if 'tfevents' in name
            for event in tf.train.summary_iterator(os.path.join(folder, name))]


def all_variables(lesson2, folder):
    """{name: value} of the newest checkpoint in a folder."""
    reader = lesson2.tf.train.NewCheckpointReader(training_run.checkpoints(str(folder))[0])
    return {name: reader.get_tensor(name) for name in reader.get_variable_to_shape_map()}


def assert_equal_runs(one, other):
    assert set(one) == set(other)
    for name in one:
        np.testing.assert_array_equal(one[name], other[name], err_msg=name)


def test_one_real_epoch(real_epoch):
    assert real_epoch.stderr == ''  # no progress bar without a terminal
    assert '55,000 training, 5,000 validation and 10,000 test digits' in real_epoch.stdout
    assert '3,274,634' in real_epoch.stdout
    (row,) = rows(real_epoch)
    assert row[0] == '1' and float(row[3]) >= 0.98 and row[4] == '0.9111'
    logs = [os.path.join(folder, name) for folder, _, names in os.walk(str(real_epoch.folder / 'graphs'))
            for name in names if 'tfevents' in name]
    assert sum(map(os.path.getsize, logs)) < 1e6


FIGURES = ['learned_kernels', 'activations', 'training_curve', 'confusion', 'mistakes']


def test_the_figures_are_drawn_named_and_sent_to_tensorboard(real_epoch, lesson2):
    sent = {value.tag: value.image.encoded_image_string
            for event in events(lesson2.tf, real_epoch.folder / 'graphs', 'train')
            for value in event.summary.value if value.HasField('image')}
    assert sorted(sent) == sorted(FIGURES)
    for name in FIGURES:
        path = str(real_epoch.folder / 'figures' / (name + '.png'))
        assert path in real_epoch.stdout
        assert np.asarray(Image.open(path).convert('L')).std() > 20
        with open(path, 'rb') as file:
            assert file.read() == sent[name]


def test_histograms_once_per_epoch(convnet, lesson2, tmp_path):
    convnet('--epochs', 2)
    found = {}
    for event in events(lesson2.tf, tmp_path / 'graphs', 'train'):
        for value in event.summary.value:
            if value.HasField('histo'):
                found.setdefault(value.tag, []).append((event.step, value.histo.num))
    variables = {'train/{}/{}'.format(layer, kind): None for layer in ('conv1', 'conv2', 'fc', 'softmax_linear')
                 for kind in ('weights', 'biases')}
    layers = {'train/{}/activations'.format(layer) for layer in
              ('conv1', 'pool1', 'conv2', 'pool2', 'fc', 'softmax_linear')}
    assert set(found) == set(variables) | layers
    for name, points in found.items():
        assert [step for step, _ in points] == [6, 12], name
    assert found['train/fc/weights'][0][1] == 3136 * 1024 and found['train/conv1/activations'][0][1] == 60 * 28 * 28 * 32


def test_the_projector_gets_the_activations_with_labels_and_pictures(convnet, lesson2, tmp_path, small_data):
    convnet('--epochs', 1)
    folder = tmp_path / 'graphs' / 'test'
    vectors = np.loadtxt(str(folder / 'fc.tsv'))
    test = utils.read_mnist(small_data).test
    assert vectors.shape == (130, 1024) and (vectors >= 0).all() and vectors.std() > 0
    assert np.loadtxt(str(folder / 'labels.tsv')).tolist() == test.labels.tolist()
    sprite = np.asarray(Image.open(str(folder / 'sprite.png')))
    assert sprite.shape == (12 * 28, 12 * 28)  # 12 x 12 places for 130 digits
    np.testing.assert_array_equal(255 - sprite[28:56, 56:84], test.images[14])
    config = (folder / 'projector_config.pbtxt').read_text()
    assert 'fc.tsv' in config and 'labels.tsv' in config and 'sprite.png' in config


def test_hand_coded_kernels_stay_as_they_are(convnet, lesson2, tmp_path):
    convnet('--conv1', 'hand-coded', '--epochs', 2)
    values = all_variables(lesson2, tmp_path / 'checkpoints')
    np.testing.assert_array_equal(values['conv1/weights'], kernels.bank())
    assert np.abs(values['conv1/biases']).max() > 0 and 'conv1/weights/Adam' not in values


def test_one_epoch_and_three_more_equal_four(convnet, lesson2, tmp_path, small_data):
    first = convnet('--epochs', 1)
    longer = convnet('--epochs', 4)
    assert 'Continuing from' in longer.stdout and rows(longer)[0] == rows(first)[0]
    assert [row[0] for row in rows(longer)] == ['1', '2', '3', '4']
    assert [row[4] for row in rows(longer)] == ['0.9111', '0.9401', '0.9494', '']
    again = convnet('--epochs', 4)
    assert '4 epochs asked for, 4 done already' in again.stdout and rows(again) == rows(longer)
    evaluated = re.search(r'validation (\S+), test (\S+)$', again.stdout, re.MULTILINE)
    assert evaluated.groups() == rows(longer)[-1][2:4]

    straight = convnet('--epochs', 4, '--checkpoint-dir', tmp_path / 'straight', '--log-dir', tmp_path / 'graphs2')
    assert rows(straight) == rows(longer)
    assert_equal_runs(all_variables(lesson2, tmp_path / 'checkpoints'), all_variables(lesson2, tmp_path / 'straight'))


def test_tensorboard_gets_a_clean_graph_and_two_curves(convnet, lesson2, tmp_path):
    convnet('--epochs', 4)
    convnet('--epochs', 8)
    (graph,) = [lesson2.tf.GraphDef.FromString(event.graph_def)
                for event in events(lesson2.tf, tmp_path / 'graphs', 'train') if event.HasField('graph_def')]
    assert {node.name.split('/')[0] for node in graph.node} == BOXES
    assert graph.ByteSize() < 1e6  # the digits are not in it
    scalars = {run: {} for run in ('train', 'validation', 'test')}
    for run in scalars:
        for event in events(lesson2.tf, tmp_path / 'graphs', run):
            assert run == 'train' or not event.HasField('graph_def')
            for value in event.summary.value:
                scalars[run].setdefault(value.tag, []).append((event.step, value.simple_value))
    assert {'train/loss', 'train/learning_rate'} <= set(scalars['train'])
    steps = sorted({*range(10, 48, 10), *range(6, 49, 6)})  # every tenth, and the last of an epoch
    assert [step for step, _ in scalars['train']['train/loss']] == steps
    rates = [rate for _, rate in scalars['train']['train/learning_rate']]
    np.testing.assert_allclose(rates, [1e-3 * 0.95 ** ((step - 1) // 6) for step in steps], rtol=1e-5)
    assert [step for step, _ in scalars['validation']['accuracy']] == [6 * epoch for epoch in range(1, 9)]
    assert len(scalars['test']['accuracy']) == 8


def test_other_settings_are_refused_and_named(convnet, tmp_path):
    convnet('--epochs', 1)
    before = sorted(os.listdir(str(tmp_path / 'checkpoints')))
    result = convnet('--seed', 3, '--batch-size', 64, check=2)
    assert '--seed 0 (now 3)' in result.stderr and '--batch-size 128 (now 64)' in result.stderr
    assert result.stderr.count('\n') == 1 and sorted(os.listdir(str(tmp_path / 'checkpoints'))) == before


@pytest.mark.parametrize('first, then', [([], ['--average', 0]), (['--average', 0], [])])
def test_a_checkpoint_with_other_variables_is_refused_for_its_settings(convnet, first, then):
    convnet('--epochs', 1, *first)
    result = convnet('--epochs', 1, *then, check=2)
    assert 'trained with --average' in result.stderr and result.stderr.count('\n') == 1


@pytest.mark.parametrize('flags', [
    ['--batch-size', 64], ['--learning-rate', 0.01], ['--decay', 0.1], ['--keep-prob', 0.5], ['--average', 0],
    ['--distort', 0], ['--stddev', 0.1], ['--conv1', 'hand-coded'], ['--seed', 9]])
def test_every_setting_changes_the_result(convnet, flags):
    settled = ['--epochs', 2, '--restart']
    assert rows(convnet(*settled)) != rows(convnet(*settled, *flags))


def test_restart_moves_everything_aside(convnet, tmp_path):
    convnet('--epochs', 1)
    kept = {name: (tmp_path / 'checkpoints' / name).read_bytes() for name in os.listdir(str(tmp_path / 'checkpoints'))
            if name.startswith('model')}
    result = convnet('--epochs', 1, '--restart', '--seed', 1, '--checkpoint-dir', str(tmp_path / 'checkpoints') + '/')
    assert str(tmp_path / 'checkpoints.1') in result.stdout and 'Continuing' not in result.stdout
    assert {name: (tmp_path / 'checkpoints.1' / name).read_bytes() for name in kept} == kept
    assert set(os.listdir(str(tmp_path / 'graphs.1'))) == {'train', 'validation', 'test'}


def test_dry_run_leaves_nothing(convnet, tmp_path):
    result = convnet('--dry-run')
    assert 'nothing of it is kept' in result.stdout and len(rows(result)) == 1
    assert os.listdir(str(tmp_path)) == []


def test_bfloat16_trains_or_falls_back(convnet, lesson2):
    in_float32 = convnet('--epochs', 5)
    result = convnet('--bf16', '--epochs', 5, '--restart')
    assert result.stderr == '' and float(rows(result)[-1][3]) > 0.5
    assert (rows(result) == rows(in_float32)) == (not cli.can_use_bfloat16())


def test_the_progress_bar_goes_to_a_terminal(convnet_flags):
    pty, fcntl, termios = [pytest.importorskip(name) for name in ('pty', 'fcntl', 'termios')]
    terminal, end = pty.openpty()
    fcntl.ioctl(end, termios.TIOCSWINSZ, struct.pack('4H', 24, 100, 0, 0))
    process = subprocess.Popen([sys.executable, os.path.join(ROOT, '07_convnet_mnist.py'), '--epochs', '1'] +
                               [str(flag) for flag in convnet_flags], stderr=end, stdout=subprocess.PIPE,
                               env=user_environment())
    os.close(end)
    shown = b''
    try:
        while True:
            shown += os.read(terminal, 10000)
    except OSError:  # the process has ended
        os.close(terminal)
    assert process.wait() == 0 and len(ROW.findall(process.stdout.read().decode())) == 1
    assert b'epoch 1:' in shown and b'images/s' in shown and b'loss=' in shown


@pytest.mark.parametrize('flags, complaint', [
    (['--epochs', '0'], 'a whole number of at least 1'), (['--epochs', '-3'], 'a whole number of at least 1'),
    (['--epochs', 'ten'], "found 'ten'"), (['--epochs', '1e3'], "found '1e3'"),
    (['--batch-size', '0'], 'a whole number'), (['--batch-size', '4097'], 'at most 4096'),
    (['--batch-size', '661'], 'at most the 660 training digits'),
    (['--learning-rate', '0'], 'a number above 0'), (['--learning-rate', 'nan'], 'a number above 0'),
    (['--learning-rate', 'inf'], 'a number above 0'), (['--learning-rate', '1.1'], 'at most 1'), (['--learning-rate=-1'], 'a number above 0'),
    (['--decay', '1.01'], 'at most 1'), (['--keep-prob', '0'], 'at least 0.001 and at most 1'),
    (['--keep-prob', '1.5'], 'at most 1'), (['--keep-prob', 'x'], "found 'x'"),
    (['--average', '1'], 'at most 0.999999'), (['--distort', '28'], 'at most 10'), (['--seed', '-1'], 'at least 0'),
    (['--seed', str(2**31)], 'at most 2147483647'), (['--device', 'tpu'], 'invalid choice'),
    (['--data-dir', 'nowhere'], 'nowhere: expected train-images'), (['--epoch', '1'], 'unrecognized arguments')])
def test_bad_flags_are_one_line_and_status_2(convnet, flags, complaint):
    result = convnet(*flags, check=2)
    assert complaint in result.stderr and result.stderr.count('\n') == 1 and 'Traceback' not in result.stderr


def test_a_loss_that_is_no_number_ends_the_run(convnet, lesson2, monkeypatch):
    cross_entropy = lesson2.cross_entropy
    monkeypatch.setattr(lesson2, 'cross_entropy', lambda logits, labels: cross_entropy(logits, labels) * float('nan'))
    result = convnet('--epochs', 1, check=2)
    assert 'the loss has become nan' in result.stderr and result.stderr.count('\n') == 1 and rows(result) == []


def test_a_gpu_that_is_not_there(lesson2, convnet):
    if lesson2.GPUS:
        pytest.skip('there is one')
    result = convnet('--device', 'gpu', check=2)
    assert 'TensorFlow finds no GPU' in result.stderr and result.stderr.count('\n') == 1
    assert rows(convnet('--device', 'cpu', '--epochs', 1, '--restart'))


def test_help_is_quick_and_shows_every_default(lesson2):
    result = run_script('07_convnet_mnist.py', '--help')
    for flag in vars(cli.parse_convnet_flags('', [])):
        assert '--' + flag.replace('_', '-') in result.stdout
    assert ' '.join(result.stdout.split()).count('(default: ') == len(vars(cli.parse_convnet_flags('', [])))


@pytest.mark.parametrize('place', ['checkpoint-dir', 'log-dir', 'figure-dir'])
def test_a_file_where_a_directory_should_be(convnet, tmp_path, place):
    (tmp_path / 'file').write_text('mine')
    result = convnet('--epochs', 1, '--' + place, tmp_path / 'file', check=2)
    assert str(tmp_path / 'file') in result.stderr and result.stderr.count('\n') == 1
    assert (tmp_path / 'file').read_text() == 'mine'


def test_a_figure_that_cannot_be_written_is_found_before_the_training(convnet, tmp_path):
    (tmp_path / 'figures').mkdir()
    Image.new('L', (5, 5)).save(str(tmp_path / 'figures' / 'training_curve.png'))
    result = convnet('--epochs', 1, check=2)
    assert 'not a picture that this script made' in result.stderr and rows(result) == []


def test_whoever_reads_the_output_may_stop(convnet_flags):
    command = [sys.executable, os.path.join(ROOT, '07_convnet_mnist.py'), '--epochs', '4'] + [str(each) for each in convnet_flags]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=user_environment())
    process.stdout.readline()
    process.stdout.close()
    assert process.stderr.read() == b''
    process.wait()


def test_logs_go_by_the_name_of_the_checkpoints(lesson2):
    assert cli.parse_convnet_flags('', []).log_dir == os.path.join(ROOT, 'graphs', 'convnet_mnist')
    assert cli.parse_convnet_flags('', ['--checkpoint-dir', 'a/seed1/']).log_dir == os.path.join(ROOT, 'graphs', 'seed1')


def test_real_errors_still_show(convnet_flags, tmp_path):
    """A TensorFlow that cannot be imported shows why, although its noise is held back."""
    broken = tmp_path / 'tensorflow'
    broken.mkdir()
    (broken / '__init__.py').write_text('import os\nos.write(2, b"noise from C++\\n")\nraise ImportError("no AVX here")')
    for script in '07_convnet_mnist.py', '07_basic_filters.py':
        result = run_script(script, check=1, environment={'PYTHONPATH': str(tmp_path)})
        assert 'noise from C++' in result.stderr and 'ImportError: no AVX here' in result.stderr


def test_fashion_mnist_s_form_with_other_names(convnet, tmp_path):
    """Gzipped, with a dot in the name, other pictures: only the format counts."""
    folder = tmp_path / 'fashion'
    folder.mkdir()
    random = np.random.RandomState(0)
    for name, count in ('train', 24), ('t10k', 7):
        write_idx(folder / (name + '-images.idx3-ubyte.gz'), random.randint(0, 256, (count, 28, 28)).astype(np.uint8))
        write_idx(folder / (name + '-labels.idx1-ubyte.gz'), random.randint(0, 10, count).astype(np.uint8))
    result = convnet('--data-dir', folder, '--epochs', 1, '--batch-size', 5)
    assert '22 training, 2 validation and 7 test digits' in result.stdout
