"""Each benchmark, and each script of docs/, runs, on sizes so tiny that most figures mean nothing."""
import os
import re
import textwrap

import pytest

from conftest import ROOT, run_python, run_script

pytestmark = pytest.mark.slow


def benchmark(name, *arguments):
    return run_python(os.path.join(ROOT, 'tests', 'benchmarks', name), *arguments)


def test_step_time():
    result = benchmark('step_time.py', ROOT, '--batch-size', 4, '--steps', 2, '--rounds', 1, '--precisions', 'float32')
    rows = dict(re.findall(r'^  (.*?) +\d+\.\d +(\d+\.\d\d) ', result.stdout, re.MULTILINE))
    assert float(rows['ours']) == 1 and float(rows['ours in ' + ROOT]) > 0
    for name in 'Keras on TensorFlow', 'PyTorch':
        assert 'left out: ' + name in result.stderr or float(rows[name]) > 0


def test_accuracy(tmp_path, small_data):
    stdout = benchmark('accuracy.py', '--seeds', 2, '--epochs', 1, '--data-dir', small_data, '--output-dir',
                       tmp_path / 'runs', '--recipes', 'default', 'no-augmentation').stdout
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
    assert len(os.listdir(str(tmp_path / 'runs' / 'graphs'))) == 4


def test_each_number_of_the_gradient_by_hand_stands_in_try_this():
    printed = run_script('docs/gradient_by_hand.py').stdout
    with open(os.path.join(ROOT, 'docs', 'try_this.md')) as file:
        assert textwrap.indent(printed, '    ') in file.read()


def test_scripts_of_docs_that_draw(four_epochs, tmp_path):
    run_script('docs/pictures.py', *four_epochs.flags, cwd=str(tmp_path))
    colours = run_script('docs/colours.py', '--seeds', 1, '--steps', 2, cwd=str(tmp_path)).stdout.split()
    assert colours[::5] == ['learned', 'random', 'hand-coded'] and all(0 < float(each) < 0.9 for each in colours[2::5])
    assert sorted(os.listdir(str(tmp_path))) == ['augmentation.png', 'colours.png', 'kernels_form.png']
