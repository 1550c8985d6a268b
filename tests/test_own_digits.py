"""Your own digits: found in pictures, brought to MNIST's form, and read. MNIST is the judge."""
import os
import re
from unittest import mock

import matplotlib
import numpy as np
import pytest
import scipy.special
from PIL import Image, ImageDraw, ImageFont

import own_digits
from conftest import lesson2, make_small, network_of, run_here
from support import digits


@pytest.fixture
def read(tmp_path):
    """Saves a picture, and reads it as one digit."""
    def save_and_read(image, name='digit.png'):
        image.save(str(tmp_path / name))
        (image,) = digits.read_digits(str(tmp_path / name)).images
        return image
    return save_and_read


def test_the_form_is_that_of_mnist(read):
    image = Image.new('RGB', (300, 200), (250, 240, 230))
    ImageDraw.Draw(image).rectangle([200, 20, 220, 140], fill=(20, 30, 120))
    found = read(image)
    rows, columns = [np.flatnonzero(found.max(axis=axis) > 100) for axis in (1, 0)]
    assert len(rows) == 20 and 2 <= len(columns) <= 5
    ink = found / found.sum()
    assert (ink.sum(axis=1) * np.arange(28)).sum() == pytest.approx(14, abs=0.51)
    assert (ink.sum(axis=0) * np.arange(28)).sum() == pytest.approx(14, abs=0.51)


def stroke(size=200, ink=0, paper=255):
    image = Image.new('L', (size, size), paper)
    ImageDraw.Draw(image).line([(60, 40), (140, 40), (90, 160)], fill=ink, width=14)
    return image


def test_size_mode_file_type_and_polarity_do_not_matter(read):
    expected = read(stroke()).astype(int)
    transparent = Image.merge('LA', (Image.new('L', (200, 200), 0), stroke(ink=255, paper=0)))
    equally_bright = Image.merge('RGB', (stroke(ink=255, paper=0), Image.new('L', (200, 200)), stroke()))  # red on blue
    for name, image in [('rgb.png', stroke().convert('RGB')), ('palette.gif', stroke().convert('P')),
                        ('bits.png', stroke().convert('1')), ('jpeg.jpg', stroke()),
                        ('dark.png', stroke(ink=255, paper=0)), ('grey.png', stroke(ink=140, paper=90)),
                        ('sixteen.png', Image.fromarray(np.asarray(stroke()).astype(np.uint16) * 257)),
                        ('clear.png', transparent), ('colours.png', equally_bright),
                        ('large.bmp', stroke().resize((900, 900), Image.BICUBIC))]:
        found = read(image, name).astype(int)
        assert np.abs(found - expected).mean() < 10, name  # another digit: 30 to 50


@pytest.mark.parametrize('flags', [[], ['--ema-decay', 0], ['--conv1', 'hand-coded']])
def test_the_weights_are_those_that_were_evaluated(convnet, monkeypatch, tmp_path, mnist, flags):
    """The probabilities are those of the network that the table is about, with the averages of its weights."""
    make_small(monkeypatch.setattr)
    Image.fromarray(255 - mnist.test.images[0]).save(str(tmp_path / '7.png'))
    convnet('--epochs', 2, *flags)
    network = network_of(tmp_path, conv1=flags[-1] if '--conv1' in flags else 'learned')
    images = np.array(digits.read_digits(str(tmp_path / '7.png')).images)
    expected = scipy.special.softmax(network(images)['softmax_linear'][0])
    result = convnet('--predict', tmp_path / '7.png')
    digit, first, second, other = re.search(r'7\.png +(\d) +(\S+)  (\d) \((\S+)\)', result.stdout).groups()
    assert [int(digit), int(second)] == list(np.argsort(expected)[:-3:-1])
    assert [float(first), float(other)] == pytest.approx(sorted(expected)[:-3:-1], abs=2e-4)


# ---- What people bring ----

def sheet(rows, slant=0.0, step=40, size=(400, 260), **options):
    """A white picture with dark digits of a font in rows, each lower by `slant` pixels than its left neighbour."""
    font = ImageFont.truetype(os.path.join(matplotlib.get_data_path(), 'fonts', 'ttf', 'DejaVuSans.ttf'), 36)
    image = Image.new('L', size, 255)
    for row, text in enumerate(rows):
        for column, digit in enumerate(text):
            place = 30 + step * column, 20 + 50 * row + slant * column
            ImageDraw.Draw(image).text(place, digit, font=font, fill=30, **options)
    return image


def find(image, tmp_path):
    image.save(str(tmp_path / 'sheet.png'))
    return digits.read_digits(str(tmp_path / 'sheet.png'))


@pytest.mark.parametrize('slant', [-2, 0, 4])
@pytest.mark.parametrize('rows', [['7'], ['123', '45', '6789'], ['3', '1', '4', '5'], ['02468024']])
def test_rows_are_read_from_top_to_bottom_and_each_from_left_to_right(tmp_path, rows, slant):
    found = find(sheet(rows, slant, size=(400, 320)), tmp_path)
    assert found.rows == [len(row) for row in rows] and found.doubts == []
    places = [(30 + 40 * column, 20 + 50 * row + slant * column) for row, text in enumerate(rows)
              for column in range(len(text))]
    assert np.abs(np.array(found.boxes)[:, :2] - places).max() < 20


def changed(image, draw):
    draw(ImageDraw.Draw(image))
    return image


@pytest.mark.parametrize('image, doubt, ignored', [
    (sheet(['23']).crop((0, 34, 400, 260)), 'ink at border', None),
    (changed(sheet(['123']), lambda pen: pen.line([60, 45, 100, 45], fill=30, width=6)), 'digits may touch', None),
    (changed(sheet(['111', '333']), lambda pen: pen.rectangle([300, 40, 308, 46], fill=30)), 'pieces left out',
     'specks: 1'),
    (changed(sheet(['12', '34']), lambda pen: pen.point([300, 40], fill=30)), None, 'specks: 1'),
    (changed(sheet(['12', '34']), lambda pen: pen.line([0, 180, 400, 183], fill=120, width=2)), None, 'lines: 1'),
    (changed(sheet(['12', '34']), lambda pen: pen.polygon([(400, 100), (400, 260), (240, 260)], fill=30)), None,
     'dark areas: 1')])
def test_doubts_and_what_is_ignored_are_said(tmp_path, image, doubt, ignored):
    found = find(image, tmp_path)
    assert doubt in found.doubts if doubt else found.doubts == []
    assert ignored is None or ignored in found.ignored


def test_a_digit_of_any_margin_and_white_on_transparent_is_found(mnist, tmp_path):
    for image in mnist.test.images[:20]:
        large = Image.fromarray(image).resize((140, 140), Image.BICUBIC)
        tight = large.crop(large.point([255 * (value > 100) for value in range(256)]).getbbox())
        assert find(tight, tmp_path).rows == [1]
        white = Image.merge('LA', (Image.new('L', large.size, 255), large))
        assert np.abs(find(white, tmp_path).images[0].astype(int) - find(large, tmp_path).images[0]).mean() < 10


def test_doubts_make_a_picture_unsure(real_epoch, tmp_path):
    sheet(['23', '45']).crop((0, 34, 400, 260)).save(str(tmp_path / 'cut.png'))
    result = run_here(lesson2, '--output-dir', real_epoch.folder, '--predict', tmp_path / 'cut.png')
    assert re.search(r'cut\.png +\d\d  \S+ \S+  unsure: ink at border\n +\d\d ', result.stdout)
    assert result.stdout.count('unsure: ink at border') == 2


@pytest.mark.parametrize('kind', sorted(own_digits.KINDS))
def test_each_kind_of_picture(real_epoch, mnist, kind):
    """The digits of nearly all pictures are in their place and read; pictures without are refused, or unsure."""
    examples = own_digits.pictures(kind, 20, mnist.test)
    count, placed, total, right, wrong, _, refused = own_digits.read(examples, network_of(real_epoch.folder))
    if kind.startswith('no digit'):
        assert wrong <= 1
        assert refused >= {'no digit: photo': 14, 'no digit: wall': 18, 'no digit: text': 14}.get(kind, 0)
    else:
        assert placed >= 0.9 * count and right >= (.4 if 'European' in kind else .9) * total  # its 1s look like a 7


def test_pictures_of_a_folder_go_on_after_one_that_cannot_be_read(real_epoch, tmp_path):
    folder = tmp_path / 'drawn'
    folder.mkdir()
    sheet(['12']).save(str(folder / 'a row.png'))
    Image.new('L', (40, 40), 255).save(str(folder / 'b blank.png'))
    (folder / 'c no picture.txt').write_text('7')
    stroke().save(str(folder / 'd seven.png'))
    result = run_here(lesson2, '--output-dir', real_epoch.folder, '--predict', folder, check=2)
    lines = result.stdout.splitlines()[1:3]
    assert re.search(r'a row\.png +\d\d  [01]\.\d{4} [01]\.\d{4}(  unsure)?$', lines[0]), lines
    assert re.search(r'd seven\.png +\d +[01]\.\d{4}  \d \(', lines[1]), lines
    assert [re.search('[bc] [a-z ]*', line).group() for line in result.stderr.splitlines()] == ['b blank',
                                                                                                'c no picture']


def test_a_folder_that_may_not_be_listed_is_one_line_and_others_go_on(monkeypatch, tmp_path, capsys):
    stroke().save(str(tmp_path / 'seven.png'))
    monkeypatch.setattr(os, 'scandir', mock.Mock(side_effect=PermissionError(13, 'Permission denied')))
    paths = [str(tmp_path), str(tmp_path / 'seven.png')]
    with pytest.raises(SystemExit), digits.read_pictures(paths, 28) as (found, _):
        assert [picture.rows for picture in found] == [[1]]
    assert re.search(r'^[^\n]+ cannot be listed \(Permission denied\)\n$', capsys.readouterr().err)
