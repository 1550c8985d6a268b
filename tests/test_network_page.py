"""The page of lesson 2 in a real browser, judged by TensorFlow and by --predict."""
import base64
import io
import re

import numpy as np
import pytest
from PIL import Image

import utils
from test_filters_page import touch
from test_tensorboard import browser, webdriver  # noqa: F401, which skips where there is no Chromium
from test_training import all_variables, averages, folder_of, network_values

from selenium.webdriver.common.by import By  # noqa: E402
from selenium.webdriver.common.keys import Keys  # noqa: E402

LAYERS = ['conv1', 'pool1', 'conv2', 'pool2', 'fc', 'softmax_linear']


@pytest.fixture(scope='module')
def page_path(real_epoch):
    path = real_epoch.folder / 'figures' / 'convnet_mnist' / 'convnet_mnist.html'
    assert 'open {} in a browser'.format(path) in real_epoch.stdout
    return path


@pytest.fixture(scope='module')
def opened(browser, page_path):  # noqa: F811
    browser.get(page_path.as_uri())
    return browser


@pytest.fixture
def page(opened):
    opened.set_window_size(1400, 1200)
    opened.execute_script('chosen = null; clear(); read(bytesOf(data.digits[0].pixels), "Test")')
    return opened


def send_images(images):
    return base64.b64encode(images.tobytes()).decode()


def text(page, name):
    return page.find_element(By.ID, name).text


# ---- Judged by TensorFlow ----

@pytest.fixture(scope='module')
def weights(lesson2, real_epoch):
    return averages(all_variables(lesson2.tf, folder_of(real_epoch, 'checkpoints')))


def test_a_thousand_test_digits_are_read_as_tensorflow_reads_them(page, lesson2, weights, mnist):
    images = mnist.test.images[:1000]
    expected = network_values(lesson2, weights, images)['softmax_linear']
    page.set_script_timeout(120)
    found = np.array(page.execute_script('''const bytes = bytesOf(arguments[0]);
        return Array.from({length: 1000}, (_, i) =>
            Array.from(inference(bytes.slice(784 * i, 784 * i + 784)).softmax_linear.array))''', send_images(images)))
    assert (found.argmax(axis=1) != expected.argmax(axis=1)).sum() <= 2
    print('largest difference of a logit: {:.3f}'.format(np.abs(found - expected).max()))
    assert np.abs(found - expected).max() < 0.3  # of logits from -10 to 20, by weights of 8 bits


def test_the_activations_of_every_layer(page, lesson2, weights, mnist):
    expected = network_values(lesson2, weights, mnist.test.images[:1])
    found = page.execute_script('return Object.fromEntries(arguments[0].map(name => '
                                '[name, Array.from(network[name].array)]))', LAYERS)
    for name in LAYERS:
        difference = np.abs(np.array(found[name]) - expected[name].ravel()).max()
        print('{}: {:.4f} of {:.2f}'.format(name, difference, np.abs(expected[name]).max()))
        assert difference < 0.03 * np.abs(expected[name]).max(), name


# ---- Judged by --predict ----

STROKES = {  # points in a square of 1 x 1
    1: [[(.5, .1), (.5, .9)]], 2: [[(.2, .3), (.5, .1), (.8, .3), (.2, .9), (.8, .9)]],
    3: [[(.2, .15), (.7, .15), (.45, .45), (.75, .7), (.5, .9), (.2, .8)]],
    4: [[(.7, .9), (.7, .1), (.2, .6), (.9, .6)]],
    7: [[(.2, .1), (.8, .1), (.4, .9)]], 0: [[(.5, .1), (.2, .5), (.5, .9), (.8, .5), (.5, .1)]]}


@pytest.mark.parametrize('side, left, top, pen', [
    (200, 40, 40, 18), (60, 5, 5, 6), (60, 210, 215, 8), (240, 20, 20, 40), (150, 120, 10, 4)],
    ids=['large', 'small in a corner', 'small in the other', 'thick', 'thin'])
def test_a_drawing_becomes_the_28_x_28_of_predict(page, tmp_path, side, left, top, pen):
    for digit, strokes in STROKES.items():
        points = [[[left + side * x, top + side * y] for x, y in stroke] for stroke in strokes]
        url, seen = page.execute_script('''clear();
            drawing.lineWidth = arguments[1]; drawing.lineCap = 'round';
            for (const stroke of arguments[0]) {
              drawing.beginPath(); stroke.forEach(point => drawing.lineTo(...point)); drawing.stroke();
            }
            return [at('drawing').toDataURL(), Array.from(readDigit(drawing))]''', points, pen)
        path = tmp_path / '{}.png'.format(digit)
        path.write_bytes(base64.b64decode(url.split(',')[1]))
        expected = utils.read_digit(str(path))
        difference = np.abs(np.array(seen).reshape(28, 28) - expected.astype(int)).max()
        print('{}: {}'.format(digit, difference))
        assert difference <= 2, digit


def test_drawings_are_read_as_predict_reads_them(page, lesson2, weights):
    for digit, ((first, *rest),) in STROKES.items():
        page.execute_script('clear()')
        canvas = page.find_element(By.ID, 'drawing')
        size = canvas.size
        actions = webdriver.ActionChains(page).move_to_element(canvas)
        place = [.5, .5]
        for number, point in enumerate([first] + rest):
            if number == 1:
                actions.click_and_hold()
            actions.move_by_offset(round((point[0] - place[0]) * .8 * size['width']),
                                   round((point[1] - place[1]) * .8 * size['height']))
            place = point
        actions.release().perform()
        url = page.execute_async_script('const done = arguments[0]; '
                                        'requestAnimationFrame(() => done(at("drawing").toDataURL()))')
        seen = utils.read_digit(io.BytesIO(base64.b64decode(url.split(',')[1])))
        logits = network_values(lesson2, weights, seen[np.newaxis])['softmax_linear']
        assert 'the network reads {} '.format(logits.argmax()) in text(page, 'answer'), digit


# ---- What is shown ----

def numbers(page, kind):
    return np.array([float(cell) for table in page.find_elements(By.CSS_SELECTOR, '#arithmetic .' + kind)
                     for cell in table.text.split()])


def frames(page):
    """The frames that are shown: {canvas: [top, left, height, width]}, in pixels of the canvas."""
    return {name: [round(number, 3) for number in place] for name, place in page.execute_script('''
        return [...document.querySelectorAll('.framed i')].filter(each => !each.hidden).map(each => {
          const canvas = each.previousElementSibling, lengths = [canvas.height, canvas.width];
          return [canvas.id, ['top', 'left', 'height', 'width'].map((side, i) =>
            parseFloat(each.style[side]) * lengths[i % 2] / 100)];
        })''')}


def test_the_arithmetic_of_conv1_adds_up(page):
    page.execute_script('chosen = {name: "conv1", y: 8, x: 12, channel: 7}; explain()')
    assert frames(page) == {'conv1': [31 + 8, 3 * 60 + 29 + 12, 1, 1], 'image': [6, 10, 5, 5]}
    patch, kernel, products = [numbers(page, kind) for kind in ('patch', 'kernel', 'products')]
    np.testing.assert_allclose(patch * kernel, products, atol=1e-3)
    total, bias, result, shown = map(float, re.search(
        r'(\S+) \+ bias (\S+) = (\S+); relu makes it (\S+)\.', text(page, 'arithmetic')).groups())
    assert products.sum() == pytest.approx(total, abs=2e-3) and total + bias == pytest.approx(result, abs=2e-4)
    assert shown == max(result, 0) == pytest.approx(
        page.execute_script('return valueAt(network.conv1, 8, 12, 7)'), abs=1e-4)


def test_conv2_names_the_channels_that_contribute_most_and_pooling_the_largest_of_four(page):
    canvas = page.find_element(By.ID, 'conv2')
    canvas.send_keys(Keys.ARROW_DOWN, Keys.ARROW_RIGHT, Keys.PAGE_DOWN)
    assert text(page, 'arithmetic').startswith('conv2, channel 1, row 1, column 1 ')
    page.execute_script('chosen = {name: "conv2", y: 6, x: 7, channel: 3}; explain()')
    total, bias, result, shown = map(float, re.search(
        r'(\S+) \+ bias (\S+) = (\S+); relu makes it (\S+)\.', text(page, 'arithmetic')).groups())
    assert shown == max(result, 0) == pytest.approx(
        page.execute_script('return valueAt(network.conv2, 6, 7, 3)'), abs=1e-3)
    assert 'The sum runs over all 32 channels of pool1. Channel' in text(page, 'arithmetic')
    page.execute_script('chosen = {name: "pool1", y: 5, x: 6, channel: 2}; explain()')
    assert frames(page) == {'conv1': [10, 2 * 60 + 29 + 12, 2, 2], 'pool1': [5, 2 * 17 + 6, 1, 1]}
    assert numbers(page, 'four').max() == pytest.approx(
        page.execute_script('return valueAt(network.pool1, 5, 6, 2)'), abs=1e-4)


def test_pointing_in_a_narrow_window_touching_and_choosing(page):
    page.set_window_size(500, 900)
    canvas = page.find_element(By.ID, 'pool1')
    page.execute_script('arguments[0].scrollIntoView()', canvas)
    touch(page, canvas, [((2 * 17 + 4.5) / (8 * 17), (17 + 3.5) / (4 * 17))])
    assert re.match('pool1, channel 10, row [34], column [45] ', text(page, 'arithmetic'))
    drawing = page.find_element(By.ID, 'drawing')
    page.execute_script('clear(); arguments[0].scrollIntoView()', drawing)
    touch(page, drawing, [(.2, .2), (.5, .2), (.8, .2), (.6, .5), (.4, .9)])
    page.execute_async_script('requestAnimationFrame(() => requestAnimationFrame(arguments[0]))')
    assert 'Your drawing: the network reads 7 ' in text(page, 'answer')
    buttons = page.find_elements(By.CSS_SELECTOR, '#digits button, #mistakes button')
    assert len(buttons) == 40 and all(button.get_attribute('aria-label') for button in buttons)
    buttons[1].send_keys(Keys.ENTER)
    assert 'Test digit, a 2: the network reads 2 ' in text(page, 'answer')
    buttons[20].send_keys(Keys.ENTER)
    assert 'the network reads {} '.format(buttons[20].get_attribute('aria-label')[-1]) in text(page, 'answer')


def test_a_quick_page_that_asks_for_nothing(page, page_path):
    milliseconds = page.execute_script('''const start = performance.now(), bytes = bytesOf(data.digits[3].pixels);
        for (let i = 0; i < 10; i++) inference(bytes);
        return (performance.now() - start) / 10''')
    print('{:.0f} ms for a forward pass'.format(milliseconds))
    assert milliseconds < 200 and page_path.stat().st_size < 5e6
    content = page_path.read_text(encoding='utf-8')
    assert not re.search('localStorage|sessionStorage|indexedDB|document.cookie|https?://', content)
    assert page.execute_script('return performance.getEntriesByType("resource").length') == 0
    assert page.execute_async_script('''const done = arguments[0];
        fetch('data:text/plain,x').then(() => done(false), () => done(true))''')


def test_pictures_with_one_channel(page):
    """What is drawn of conv1: to the left of each activation its kernel."""
    url = page.execute_script('return at("conv1").toDataURL()')
    canvas = np.asarray(Image.open(io.BytesIO(base64.b64decode(url.split(',')[1]))).convert('L'), float)
    kernel = page.execute_script('return [0, 4].map(y => [0, 4].map(x => kernelOf(layers.conv1, 0, 1)[y][x]))')
    corners = canvas[[0, 27]][:, [60, 60 + 27]]  # of the second tile
    assert (np.sign(corners - 127.5) == np.sign(kernel)).all()
