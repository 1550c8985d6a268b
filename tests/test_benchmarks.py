"""Each benchmark runs, on sizes so tiny that the figures mean nothing. Those whose library is missing leave it out."""
import os
import subprocess
import sys

from conftest import ROOT, user_environment


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
    stdout, stderr = benchmark('step_time.py', '--batch-size', 4, '--steps', 2, '--rounds', 1, '--precisions', 'float32')
    for name in 'ours', 'Keras on TensorFlow', 'PyTorch', 'PyTorch channels_last', 'JAX':
        assert 'left out: ' + name in stderr or figures_of(stdout, name)[0] > 0
    assert figures_of(stdout, 'ours')[-1] == 1 and 'left out: ours' not in stderr


def test_filters():
    stdout, _ = benchmark('filters.py', '--megapixels', 0.01, '--rounds', 1)
    for name in 'ours', 'OpenCV', 'SciPy', 'Pillow':
        assert figures_of(stdout, name)[0] > 0


def test_scaling(tmp_path):
    picture = tmp_path / 'scaling.png'
    stdout, _ = benchmark('scaling.py', '--batch-sizes', 4, '--images', 8, '--megapixels', 0.01, '--rounds', 1, '--output', picture)
    assert picture.read_bytes().startswith(b'\x89PNG')
    assert figures_of(stdout, 'ours, ms per image')[0] > 0 and figures_of(stdout, 'OpenCV, ms per kernel')[0] > 0


def test_time_to_accuracy(small_data):
    stdout, _ = benchmark('to_99.py', '--target', 0.12, '--seeds', 1, '--data-dir', small_data)
    assert figures_of(stdout, 'ours')[0] > 0
    assert 'seed 0 ours --bf16' in stdout


def test_overhead(small_data):
    _, stderr = benchmark('overhead.py', '--epochs', 4, '--data-dir', small_data)
    assert figures_of(stderr, 'evaluation')[0] > 0 and figures_of(stderr, 'checkpoints')[0] > 0


def test_where_time_goes():
    stdout, _ = benchmark('where_time_goes.py', '--steps', 1)
    assert 'Conv2D' in stdout


def test_accuracy(tmp_path, small_data):
    stdout, _ = benchmark('accuracy.py', '--seeds', 2, '--epochs', 1, '--data-dir', small_data,
                          '--folder', tmp_path / 'runs')
    mean = stdout.splitlines()[-1].split('|')[2].split('±')
    assert 0.1 <= float(mean[0]) <= 1 and 0 < float(mean[1]) < 0.5
