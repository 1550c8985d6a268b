"""What a user can do wrong is one line on stderr, with status 2; and what is just right is accepted."""
import json
import os
import sys

import filelock
import pytest
from PIL import Image

from conftest import assert_one_line, hashes, lesson1, lesson2, lesson3, rows, run_here
from support import cli

FILTERS, CONVNET, TOWERS = cli.parse_filters_flags, cli.parse_convnet_flags, cli.parse_towers_flags
ROW = ' '.join(['1'] * 31)
LIMITS = [  # parser, flag, the smallest and largest that are accepted, what is refused, and the words for it
    (FILTERS, '--stride', ['1', ' 7 ', '1000'], ['0', '-1', '1001', '1.5'], 'a whole number'),
    (FILTERS, '--custom-kernel', ['1', '999999', ' 1,2 ; 3e-1 4 ;', ';'.join([ROW] * 31)],
     ['', ';', '1 2; 3', '1 nan', '1 inf', '1e6', '1;;1', ROW + ' 1', ';'.join(['1'] * 32)], 'rows of equal length'),
    (FILTERS, '--custom-kernel', [], ['-1,0,1 -2,0,2 -1,0,1', '0,5 0,5; 0,5 0,5'], 'write 0.5 1.5; -1 0 1, not'),
    (CONVNET, '--epochs', ['1', str(10**30)], ['0', '-3', 'ten', '1e3', ''], 'a whole number'),
    (CONVNET, '--batch-size', ['1', '4096'], ['0', '4097', '1.0'], 'at most 4096'),
    (CONVNET, '--learning-rate', ['1e-300', '.5', '1'], ['0', '-0.0', '-1', '1.1', 'nan', 'inf'], 'above 0'),
    (CONVNET, '--keep-prob', ['0.001', '1'], ['0', '1.5', 'x'], 'at least 0.001 and at most 1'),
    (CONVNET, '--init-stddev', ['0', '10'], ['-1', '11'], 'at least 0 and at most 10'),
    (CONVNET, '--ema-decay', ['0', '0.999999'], ['1', '-1'], 'at most 0.999999'),
    (CONVNET, '--augment', ['0', '10'], ['-0.1', '28'], 'at most 10'),
    (CONVNET, '--seed', ['0', str(2**31 - 1)], ['-1', str(2**31)], 'at most 2147483647'),
    (CONVNET, '--name', ['a', 'a.b_1-c'], ['a/b', '..', '.', '', 'a b', 'x.', 'basic_filters', 'é'], 'expected letters'),
    (TOWERS, '--towers', ['1', '64'], ['0', '65'], 'at most 64')]


@pytest.mark.parametrize('parse, flag, good, bad, words', LIMITS, ids=[row[1] for row in LIMITS])
def test_flags_at_their_limits(capsys, parse, flag, good, bad, words):
    for text in good:
        value = vars(parse('', ['{}={}'.format(flag, text)]))[flag[2:].replace('-', '_')]
        assert flag in ('--custom-kernel', '--name') or value == type(value)(text)
    for text in bad:
        with pytest.raises(SystemExit) as stop:
            parse('', ['{}={}'.format(flag, text)])
        errors = capsys.readouterr().err
        assert stop.value.code == 2 and errors.count('\n') == 1 and words in errors and repr(text)[:20] in errors


def test_home_in_a_flag():
    """After = a shell leaves ~ as it is."""
    for parse, flag in (FILTERS, 'image'), (FILTERS, 'output_dir'), (CONVNET, 'data_dir'), (CONVNET, 'predict'):
        value = getattr(parse('', ['--{}=~/x'.format(flag.replace('_', '-'))]), flag)
        assert value in (os.path.expanduser('~/x'), [os.path.expanduser('~/x')])


@pytest.fixture
def place(tmp_path, monkeypatch):
    """A working directory with a text, a blank picture and an empty folder in it."""
    (tmp_path / 'text.png').write_text('mine')
    (tmp_path / 'empty').mkdir()
    Image.new('L', (40, 40), 255).save(str(tmp_path / 'blank.png'))
    if hasattr(os, 'mkfifo'):  # not on Windows
        os.mkfifo(str(tmp_path / 'pipe'))
    monkeypatch.setitem(sys.modules, 'pillow_heif', None)  # as if it were not installed
    monkeypatch.chdir(str(tmp_path))
    return tmp_path


@pytest.mark.parametrize('lesson, flags, words', [
    (lesson1, ['--kernels', 'blurr'], "invalid choice: 'blurr'"), (lesson1, ['--padding', 'FULL'], 'invalid choice'),
    (lesson1, ['--custom', '1'], 'unrecognized arguments'), (lesson1, ['--log-dir', 'x'], 'unrecognized arguments'),
    (lesson1, ['--image', 'missing.jpg'], 'missing.jpg: expected a picture'),
    (lesson1, ['--image', '.'], 'Is a directory'), (lesson1, ['--image', 'text.png'], 'expected a picture'),
    (lesson1, ['--image', 'pipe'], 'it is no file, but a pipe'),
    (lesson1, ['--image', 'a.HEIC'], 'pip install pillow-heif'),
    (lesson1, ['--output-dir', 'text.png'], 'cannot be written'),
    (lesson2, ['--epoch', '1'], 'unrecognized arguments'), (lesson2, ['--device', 'tpu'], 'invalid choice'),
    (lesson2, ['--data-dir', 'nowhere'], 'nowhere: expected train-images'),
    (lesson2, ['--output-dir', 'text.png'], 'text.png'),
    (lesson2, ['--output-dir', 'cs20 [2017]'], 'start from within that folder'),
    (lesson2, ['--output-dir', 'back\\slash'], 'start from within that folder'),
    (lesson2, ['--output-dir', '\udcff'], 'UTF-8'),
    (lesson2, ['--predict', 'blank.png'], 'nothing that stands out'),
    (lesson2, ['--predict', 'missing.png'], 'missing.png: expected a picture'),
    (lesson2, ['--predict', 'text.png'], 'expected a picture'),
    (lesson2, ['--predict', 'empty'], 'expected pictures, found none'),
    (lesson2, ['--predict', 'blank.png', '--name', 'other'], 'expected a checkpoint')])
def test_a_mistake_is_one_line_and_changes_nothing(place, four_epochs, lesson, flags, words):
    before = hashes(place)
    always = ['--no-show', '--output-dir', place] if lesson is lesson1 else four_epochs.flags
    result = run_here(lesson, *always, *flags, check=2)
    assert_one_line(result, words)
    assert rows(result) == [] and hashes(place) == before


@pytest.mark.parametrize('path', ['checkpoints', 'graphs', 'figures', 'checkpoints/convnet_mnist',
                                  'graphs/convnet_mnist', 'figures/convnet_mnist'])
def test_a_file_where_a_folder_should_be(place, small_data, path):
    os.makedirs(os.path.dirname(path) or '.', exist_ok=True)
    (place / path).write_text('mine')
    result = run_here(lesson2, '--data-dir', small_data, '--output-dir', place, check=2)
    assert_one_line(result, path, 'cannot be written')
    assert (place / path).read_text() == 'mine'


def test_a_file_system_without_locks(place, small_data, monkeypatch):
    def acquire(*arguments, **options):
        raise NotImplementedError
    monkeypatch.setattr(filelock.FileLock, 'acquire', acquire)
    result = run_here(lesson2, '--data-dir', small_data, '--output-dir', place, check=2)
    assert_one_line(result, 'its file system has no locks')


def test_a_device_that_is_not_there_or_cannot_do_it(place, small_data, monkeypatch):
    flags = ['--data-dir', small_data, '--output-dir', place]
    monkeypatch.setattr(lesson2.devices, 'gpus', lambda: [])
    assert_one_line(run_here(lesson2, *flags, '--device', 'gpu', check=2), 'TensorFlow finds no GPU')
    monkeypatch.setattr(lesson2.devices, 'gpus', lambda: ['one'])
    assert_one_line(run_here(lesson2, *flags, '--bf16', check=2), '--bf16', '--device cpu')


@pytest.mark.parametrize('workers, index', [
    (['a:1', 'b:1'], 2), (['a:1', 'b:1'], -1), (['a:1', 'b:1'], '0'), (['a:1', 'b:1'], True), (['a:1', 'a:1'], 0),
    (['a:1', 'b:65536'], 0), (['a:1', 'b:0'], 0), (['a', 'b'], 0), ([], 0), (None, 0)])
def test_a_wrong_tf_config(place, monkeypatch, workers, index):
    config = {'cluster': {'worker': workers}, 'task': {'type': 'worker', 'index': index}}
    for text in '{', '[]', json.dumps(config), json.dumps(dict(config, cluster={'worker': ['a:1'], 'ps': ['b:1']})):
        monkeypatch.setenv('TF_CONFIG', text)
        assert_one_line(run_here(lesson3, '--output-dir', place, check=2), 'TF_CONFIG: expected {"cluster"', text)
