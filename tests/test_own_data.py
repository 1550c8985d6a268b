"""Own data goes in, the own network comes out: a folder of pictures, and the code of docs/take_it_with_you.md."""
import os
import re
import shutil

import numpy as np
import pytest
from PIL import Image, ImageDraw

import utils
from conftest import ROOT, network_of, rows, run_python, tf
from support import own_data

CLASSES = ['circle', 'square', 'triangle']


def draw(name, random):
    """A thin shape of low contrast, dark on grey."""
    paper = int(random.randint(90, 140))
    picture = Image.new('L', tuple(map(int, random.randint(80, 200, 2))), paper)
    canvas, side = ImageDraw.Draw(picture), random.uniform(.25, .4) * min(picture.size)
    x, y = np.array(picture.size) / 2 + random.uniform(-8, 8, 2)
    box, options = [x - side, y - side, x + side, y + side], {'width': 5, 'fill': paper - 25}
    if name == 'circle':
        canvas.ellipse(box, width=5, outline=paper - 25)
    elif name == 'square':
        canvas.line([(x - side, y - side), (x + side, y - side), (x + side, y + side), (x - side, y + side),
                     (x - side, y - side)], **options)
    else:
        canvas.line([(x, y - side), (x + side, y + side), (x - side, y + side), (x, y - side)], **options)
    return picture


@pytest.fixture(scope='module')
def shapes(tmp_path_factory):
    """Sixty pictures of each of three shapes, in folders, with files that are no pictures; and the dataset of them."""
    folder, random = tmp_path_factory.mktemp('shapes'), np.random.RandomState(1)
    for name in CLASSES:
        (folder / 'pictures' / name).mkdir(parents=True)
        for number in range(60):
            draw(name, random).save(str(folder / 'pictures' / name / '{:02}.png'.format(number)))
    (folder / 'pictures' / 'circle' / 'broken.jpg').write_bytes(b'\xff\xd8 no picture')
    (folder / 'pictures' / 'square' / 'notes.txt').write_text('no picture')
    result = run_python('-m', 'support.own_data', folder / 'pictures', folder / 'mine', cwd=ROOT)
    return folder, result


def test_a_folder_of_pictures_becomes_a_dataset(shapes):
    folder, result = shapes
    assert '180 pictures of circle, square, triangle' in result.stdout and '--data-dir' in result.stdout
    assert [re.search(r'left out: .*(broken.jpg|notes.txt)', line).group(1)
            for line in result.stderr.splitlines() if 'error' in line] == ['broken.jpg', 'notes.txt']
    data = utils.read_mnist(str(folder / 'mine'))
    assert data.classes == CLASSES and not data.are_digits
    assert [np.bincount(each.labels).tolist() for each in data[:3]] == [[48] * 3, [4] * 3, [8] * 3]
    paths = sorted((folder / 'pictures').glob('*/*.png'))
    expected = [own_data.image_of(utils.read_image(str(path)), 28) for path in paths]
    images = np.concatenate([each.images for each in data[:3]])
    assert sorted(image.tobytes() for image in images) == sorted(image.tobytes() for image in expected)
    assert images.min(axis=(1, 2)).max() < 80 and images.max(axis=(1, 2)).min() > 195  # whatever the contrast was


def test_the_network_learns_the_classes_and_reads_them_in_pictures(convnet, shapes, tmp_path):
    folder, _ = shapes
    trained = convnet('--data-dir', folder / 'mine', '--epochs', 12, '--batch-size', 16)
    assert "lecture's" not in trained.stdout and 'digit' not in trained.stdout
    assert '108 training steps are few' in trained.stdout and float(rows(trained)[-1][3]) > 0.95
    random, names = np.random.RandomState(2), CLASSES * 4
    for number, name in enumerate(names):
        picture = draw(name, random)
        if number > 5:  # light on dark, as in no training image
            picture = Image.fromarray(255 - np.asarray(picture))
        picture.save(str(tmp_path / '{:02}.png'.format(number)))
    result = convnet('--predict', *sorted(tmp_path.glob('*.png')))
    read = re.findall(r'\d\d\.png +(\w+)', result.stdout)
    assert len(read) == 12 and sum(map(str.__eq__, read, names)) >= 10


@pytest.mark.parametrize('classes, message', [
    ([], 'it cannot be listed'), (['cat'], 'expected 2 to 256 folders of pictures.*found 1'),
    (['cat', 'dog', '.hidden'], 'dog: expected pictures, found none')])
def test_folders_that_cannot_become_a_dataset(tmp_path, classes, message):
    for name in classes:
        (tmp_path / 'pictures' / name).mkdir(parents=True)
        if name == 'cat':
            (tmp_path / 'pictures' / name / 'a.png').write_text('')
    with pytest.raises(utils.UserError, match=message):
        own_data.main([str(tmp_path / 'pictures'), str(tmp_path / 'mine')])
    assert not (tmp_path / 'mine').exists()
    with pytest.raises(utils.UserError, match='expected a new or an empty folder'):  # it would hide MNIST's files
        own_data.main([str(tmp_path / 'pictures'), utils.MNIST_DIR])


def test_the_background_is_that_of_nearly_all_images():
    images = np.zeros([3000, 28, 28], np.uint8)
    assert own_data.background(images) == 'dark' and own_data.background(255 - images) == 'light'
    images[:1500] = 255  # sorted by class
    assert own_data.background(images) is None


# ---- The network, taken elsewhere ----

@pytest.mark.slow
def test_take_it_with_you(four_epochs, tmp_path, mnist):
    """Each piece of code prints what its comment says, from a folder that was moved, and computes as the scripts do."""
    shutil.copytree(str(four_epochs.folder / 'checkpoints'), str(tmp_path / 'checkpoints'))
    with open(os.path.join(ROOT, 'docs', 'take_it_with_you.md'), encoding='utf-8') as file:
        pieces = re.findall('```python\n(.*?)```', file.read(), re.DOTALL)
    is_old = tf.__version__.startswith('1.')
    environment = {'PYTHONPATH': ROOT, 'PATH': os.path.dirname(os.sys.executable) + os.pathsep + os.environ['PATH']}
    probabilities = {}
    for piece in pieces:
        assert piece.count('\n') <= 15
        if is_old and any(each in piece for each in ('tf.saved_model.load', 'tf.lite', 'tf.nn.conv2d')):
            continue
        piece = re.sub(r'print\((.*)\.argmax\(axis=1\)\)', r'np.save("read", \1)', 'import numpy as np\n' + piece)
        run_python('-c', piece, cwd=str(tmp_path), environment=environment)
        if (tmp_path / 'read.npy').exists():
            probabilities[piece] = np.load(str(tmp_path / 'read.npy'))
            (tmp_path / 'read.npy').unlink()
    logits = network_of(tmp_path)(mnist.test.images[:5])['softmax_linear'].astype(float)
    expected = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    assert len(probabilities) == (2 if is_old else 4)
    for found in probabilities.values():
        np.testing.assert_allclose(found, expected[:len(found)], atol=1e-5)
    assert sorted(np.load(str(tmp_path / 'network.npz')).keys()) == sorted(
        '{}/{}'.format(layer, kind) for layer in ('conv1', 'conv2', 'fc', 'softmax_linear')
        for kind in ('weights', 'biases'))
