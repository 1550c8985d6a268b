"""Each benchmark runs, on sizes so tiny that the figures mean nothing. Those whose library is missing leave it out."""
import os
import subprocess
import sys

import pytest

from conftest import ROOT, user_environment

pytestmark = pytest.mark.slow


def benchmark(name, *arguments):
    result = subprocess.run([sys.executable, os.path.join(ROOT, 'tests', 'benchmarks', name)] +
                            [str(each) for each in arguments], stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                            universal_newlines=True, stdin=subprocess.DEVNULL, env=user_environment())
    assert result.returncode == 0, result.stdout + result.stderr
    return result.stdout, result.stderr


def figures_of(stdout, name):
    """The numbers behind a name at the beginning of a line."""
    lines = [line.split(name, 1)[1] for line in stdout.splitlines() if line.lstrip(' |').startswith(name)]
    assert lines, stdout
    return [float(field.strip('%|')) for field in lines[0].split() if field.strip('%|').replace('.', '').isdigit()]


def test_step_time():
    stdout, stderr = benchmark('step_time.py', '--batch-size', 4, '--steps', 2, '--rounds', 1,
                               '--precisions', 'float32')
    for name in ('ours', 'Keras on TensorFlow', 'Keras, jit_compile', 'PyTorch', 'PyTorch channels_last',
                 'torch.compile', 'JAX'):
        assert 'left out: ' + name in stderr or figures_of(stdout, name)[0] > 0
    assert figures_of(stdout, 'ours')[-1] == 1 and 'left out: ours' not in stderr


def test_filters():
    stdout, _ = benchmark('filters.py', '--megapixels', 0.01, '--rounds', 1)
    for name in 'ours', 'OpenCV', 'SciPy', 'Pillow':
        assert figures_of(stdout, name)[0] > 0


def test_time_to_accuracy(small_data):
    stdout, _ = benchmark('time_to_accuracy.py', '--target', 0.12, '--seeds', 1, '--data-dir', small_data)
    assert figures_of(stdout, 'ours')[0] > 0
    assert 'seed 0 ours --bf16' in stdout


def test_overhead(small_data):
    stdout, stderr = benchmark('overhead.py', '--epochs', 2, '--data-dir', small_data)
    for name in 'until all is imported', 'training', 'checkpoints', 'evaluation', 'figures and page':
        assert figures_of(stderr, name)[0] > 0, name
    for name in 'reading the digits', 'summaries':  # less than a hundredth of a second, maybe
        assert figures_of(stderr, name)[0] >= 0, name
    assert ' cores, Python ' in stderr.splitlines()[0] and stdout == ''


def test_profile_ops():
    stdout, _ = benchmark('profile_ops.py', '--steps', 1, '--places')
    for operation in 'Conv2D conv1', 'Conv2D conv2', 'MatMul fc':
        assert operation in stdout or '_Fused' + operation in stdout, operation


def test_accuracy(tmp_path, small_data):
    stdout, _ = benchmark('accuracy.py', '--seeds', 2, '--epochs', 1, '--data-dir', small_data,
                          '--output-dir', tmp_path / 'runs', '--recipes', 'default', 'no-augmentation')
    means = []
    for line, name in zip([3, 5, 10], ['default', 'no-augmentation', 'no-augmentation']):
        recipe, images, mean = [cell.strip() for cell in stdout.splitlines()[line].strip('|').split('|')]
        assert (recipe, images) == (name, 'test')
        mean, deviation, standard_error = map(float, mean.strip(')').replace('(', '±').split('±'))
        assert 0 <= deviation < 0.5 and standard_error == pytest.approx(deviation / 2 ** 0.5, abs=1e-4)
        means.append(mean)
    assert 0.1 <= means[0] <= 1 and '± .0000' not in stdout.splitlines()[3]
    assert stdout.splitlines()[7].startswith('| minus default |')
    assert means[1] - means[0] == pytest.approx(means[2], abs=2e-4) and means[2] != 0
    assert len(os.listdir(str(tmp_path / 'runs' / 'checkpoints'))) == 4


def test_towers():
    stdout, _ = benchmark('towers.py', '--batch-size', 4, '--steps', 2, '--rounds', 1)
    for name in 'towers: 1 in one process', 'towers: 4 in one process', 'towers: 2, two processes of one core':
        assert figures_of(stdout, name)[0] > 0
    assert 26 < figures_of(stdout, 'between two processes, each step')[0] < 40  # MB: the weights, and their gradients
