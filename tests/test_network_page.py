"""The page of lesson 2 in a real browser, judged by TensorFlow and by --predict; and the picture of the activations."""
import base64
import re
import types

import numpy as np
import pytest
import scipy.signal
import scipy.special
from PIL import Image

from selenium import webdriver
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys

import kernels
import utils
from conftest import lesson2, network_of
from support import digits, pages, results
from test_filters_page import FRAMES, assert_asks_for_nothing, finger, open_page, set_inner_size, touch


@pytest.fixture(scope='module')
def page_path(four_epochs):
    path = four_epochs.folder / 'figures' / 'convnet_mnist' / 'convnet_mnist.html'
    assert re.search('open .*convnet_mnist.html in a browser', four_epochs.result.stdout)
    return path


@pytest.fixture(scope='module')
def opened(browser, page_path):
    open_page(browser, page_path)
    return browser


@pytest.fixture
def page(opened):
    opened.set_window_size(1400, 1200)
    opened.execute_script('chosen = null; clear(); read(bytesOf(data.digits[0].pixels), "Test")')
    return opened


@pytest.fixture(scope='module')
def network(four_epochs):
    return network_of(four_epochs.folder)


def send_images(images):
    return base64.b64encode(images.tobytes()).decode()


def text(page, name):
    return page.find_element(By.ID, name).text


# ---- Judged by TensorFlow ----

@pytest.mark.parametrize('count', [100, pytest.param(1000, marks=pytest.mark.slow)])
def test_test_digits_are_read_as_tensorflow_reads_them(page, network, mnist, count):
    images = mnist.test.images[:count]
    expected = network(images)['softmax_linear']
    page.set_script_timeout(200)
    found = np.array(page.execute_script('''const bytes = bytesOf(arguments[0]);
        return Array.from({length: bytes.length / 784}, (_, i) =>
            Array.from(inference(bytes.slice(784 * i, 784 * i + 784)).softmax_linear.array))''', send_images(images)))
    assert (found.argmax(axis=1) != expected.argmax(axis=1)).mean() <= 0.003
    assert np.abs(found - expected).max() < 0.03 * np.abs(expected).max()  # by weights of 8 bits


def test_the_answer_and_the_bars_have_four_digits(page, network, mnist):
    (logits,) = network(mnist.test.images[:1])['softmax_linear'].astype(float)
    expected = np.exp(logits) / np.exp(logits).sum()
    second, first = np.argsort(expected)[-2:]
    found = re.fullmatch(r'Test: the network reads (\d) \(probability (\S+)\); next (\d) \(probability (\S+)\)\.',
                         text(page, 'answer')).groups()
    assert [int(found[0]), int(found[2])] == [first, second]
    heading, _, bars = text(page, 'bars').partition('probability')
    assert heading.split()[0] == 'logit'
    bars = np.array(bars.split()).reshape(10, 3)  # digit, logit, probability
    assert list(bars[:, 0]) == list('0123456789') and found[1] == bars[first, 2] and found[3] == bars[second, 2]
    assert all(re.fullmatch(r'>0\.9999|<0\.0001|0\.\d{4}', each) for each in bars[:, 2])
    probability = scipy.special.softmax(bars[:, 1].astype(float))
    np.testing.assert_allclose(probability, expected, atol=0.02)
    np.testing.assert_allclose([float(each.strip('<>')) for each in bars[:, 2]], probability, atol=1e-3)


@pytest.mark.parametrize('name, inputs', [('fc', 'pool2'), ('softmax_linear', 'fc')])
def test_a_unit_names_what_has_the_largest_effects(page, name, inputs):
    if name == 'softmax_linear':
        page.find_element(By.CSS_SELECTOR, '#bars [data-digit="3"]').click()
    else:
        page.execute_script('choose("fc", 0, 0, 3)')
    values, weights = page.execute_script('''const {weights, biases} = layers[arguments[1]];
        return [Array.from(network[arguments[0]].array), Array.from(weights.filter((_, i) => i % biases.length === 3))]
        ''', inputs, name)
    effects = np.array(values) * weights
    shown = page.execute_script("return [...document.querySelectorAll('.largest td:last-child')].map(cell => "
                                "Number(cell.textContent))")
    largest = np.abs(effects).argsort()[::-1][:6]
    np.testing.assert_allclose(shown, effects[largest], atol=6e-5)
    total, bias, result = re.search(r'sum (\S+) \+ bias (\S+) = (\S+);', text(page, 'arithmetic')).groups()
    assert float(total) == pytest.approx(effects.sum(), abs=6e-5)
    value = page.execute_script('return valueAt(network[arguments[0]], 0, 0, 3)', name)
    assert value == pytest.approx(float(result) if name == 'softmax_linear' else max(float(result), 0), abs=2e-4)
    if name == 'softmax_linear':
        softmax = re.search(r'e(\S+) / (\S+) is <?(\S+)\.\n', text(page, 'arithmetic')).groups()
        logits = page.execute_script('return [...network[LAST].array]')
        expected = [logits[3], np.exp(logits).sum(), scipy.special.softmax(logits)[3]]
        np.testing.assert_allclose(np.array(softmax, float), expected, rtol=1e-4, atol=1e-4)
    circles = page.execute_script('''const {left, top, width} = at(arguments[0]).getBoundingClientRect();
        return [...document.querySelectorAll('#lines circle')].map(each => {
          const circle = each.getBoundingClientRect(), scale = at(arguments[0]).width / width;
          return [(circle.top + circle.bottom) / 2 - top, (circle.left + circle.right) / 2 - left].map(
            length => Math.floor(length * scale));
        })''', inputs)  # around the activations of the table, by the pixel of their layer's canvas
    places = [np.unravel_index(index, (7, 7, 64)) for index in largest]
    assert circles == ([[c // 8 * 10 + y, c % 8 * 10 + x] for y, x, c in places] if name == 'fc' else
                       [list(divmod(index, 32)) for index in largest])
    assert len(page.find_elements(By.CSS_SELECTOR, '#lines path')) == (6 if name == 'fc' else 0)
    pressed = page.find_elements(By.CSS_SELECTOR, '#bars [aria-pressed=true]')
    assert [each.text for each in pressed] == (['3'] if name == 'softmax_linear' else [])


def test_hand_coded_kernels_take_the_place_of_the_learned_ones(page, mnist):
    """Judged by SciPy. The layers after them stay those of the network, and see what they make of the image."""
    before = page.execute_script('return [...network[LAST].array]')
    page.find_element(By.ID, 'handCoded').click()
    conv1, conv2, weights, biases = page.execute_script("""const {weights, biases} = layers.conv2;
        return [[...network.conv1.array], [...network.conv2.array], [...weights], biases]""")
    image, bank = mnist.test.images[0] / 255, kernels.filter_bank()[:, :, 0]
    expected = np.stack([scipy.signal.correlate2d(image, bank[:, :, k], mode='same') for k in range(32)]).clip(0)
    np.testing.assert_allclose(np.reshape(conv1, [28, 28, 32]), np.moveaxis(expected, 0, 2), atol=1e-6)
    pool1, weights = expected.reshape(32, 14, 2, 14, 2).max(axis=(2, 4)), np.reshape(weights, [5, 5, 32, 64])
    for k in 0, 40:
        sums = [scipy.signal.correlate2d(pool1[c], weights[:, :, c, k], mode='same') for c in range(32)]
        np.testing.assert_allclose(np.reshape(conv2, [14, 14, 64])[..., k], (sum(sums) + biases[k]).clip(0), atol=1e-4)
    assert text(page, 'arithmetic').startswith('conv1, channel ')
    shown = numbers(page, 'kernel').reshape(5, 5)
    assert (np.abs(bank - shown[..., np.newaxis]).max(axis=(0, 1)) < 6e-5).any()
    kernel = "return [...at('conv1').getContext('2d').getImageData(0, 0, 28, 28).data]"  # of channel 0
    drawn = page.execute_script(kernel)
    page.execute_script('hide(14, 14, true)')
    page.find_element(By.ID, 'handCoded').click()
    of_whole, hidden = page.execute_script('const {y, x, stays} = hidden; return [ofWhole, [y, x, stays]]')
    assert hidden == [14, 14, True] and of_whole.startswith('7')  # as the learned kernels read it
    page.execute_script('hide()')
    assert page.execute_script('return [...network[LAST].array]') == before and page.execute_script(kernel) != drawn
    page.find_element(By.ID, 'clear').click()
    page.execute_script('useKernels(true); useKernels(false)')
    assert not page.find_element(By.ID, 'bars').is_displayed() and text(page, 'answer').startswith('Draw a digit')


# ---- What is drawn ----

def paint(page, picture):
    """Puts a picture, uint8 [280, 280], into the field for drawing."""
    page.execute_script('''const grey = bytesOf(arguments[0]), image = new ImageData(280, 280);
        image.data.forEach((_, i) => image.data[i] = i % 4 === 3 ? 255 : grey[i >> 2]);
        drawing.putImageData(image, 0, 0)''', send_images(picture))


@pytest.mark.parametrize('boxes, says', [
    ([], 'Draw a digit, or choose one.'), ([(60, 60, 200, 200)], 'This does not look like a digit.'),  # too thick
    ([(40, 40, 58, 240), (140, 40, 158, 240)], 'Draw one digit'), ([(40, 40, 58, 240), (75, 40, 158, 58)], 'Your d'),
    ([(100, 20, 118, 110), (100, 180, 118, 270)], 'Draw one digit'), ([(140, 140, 160, 240)], 'Your drawing: the ')])
def test_two_digits_far_apart_and_what_is_no_stroke_are_refused(page, boxes, says):
    canvas = Image.new('L', (280, 280), 255)
    for box in boxes:
        canvas.paste(0, box)
    paint(page, np.asarray(canvas))
    page.execute_script('readDrawing()')
    assert text(page, 'answer').startswith(says)
    if not says.startswith('Your'):  # nothing is left of the digit before, but the drawing
        assert not any(page.find_element(By.ID, name).is_displayed() for name in ('bars', 'layers', 'arithmetic'))
        pixel = page.execute_script('return drawing.getImageData(140, 140, 1, 1).data[0]')
        assert pixel == canvas.getpixel((140, 140))


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


def sum_and_bias(page):
    """The numbers of a convolution's sum, each with four digits: sum, bias, result, after relu."""
    return [float(number) for number in re.search(
        r'sum (-?\d+\.\d{4}) \+ bias (-?\d+\.\d{4}) = (-?\d+\.\d{4}); relu makes it (\d+\.\d{4})'
        r'(?:, as all below 0)?\.',
        text(page, 'arithmetic')).groups()]


def value_at(page, name, y, x, channel):
    return pytest.approx(page.execute_script('return valueAt(network[arguments[0]], ...arguments[1])', name,
                                             [y, x, channel]), abs=6e-5)


def test_the_arithmetic_of_conv1_adds_up(page):
    page.execute_script('chosen = {name: "conv1", y: 8, x: 12, channel: 7}; explain()')
    assert frames(page) == {'conv1': [31 + 8, 3 * 60 + 29 + 12, 1, 1], 'image': [6, 10, 5, 5], 'channel': [8, 12, 1, 1]}
    patch, kernel, products = [numbers(page, kind) for kind in ('patch', 'kernel', 'products')]
    np.testing.assert_allclose(patch * kernel, products, atol=1e-3)
    total, bias, result, shown = sum_and_bias(page)
    assert products.sum() == pytest.approx(total, abs=2e-3) and total + bias == pytest.approx(result, abs=2e-4)
    assert shown == max(result, 0) == value_at(page, 'conv1', 8, 12, 7)


def test_conv2_has_a_bar_for_each_channel_and_shows_the_products_of_the_one_that_is_pressed(page):
    pool1, weights = page.execute_script('return [Array.from(network.pool1.array), Array.from(layers.conv2.weights)]')
    patch = np.reshape(pool1, [14, 14, 32])[4:9, 5:10]  # under the kernel's centre at row 6, column 7
    effects = (patch[..., np.newaxis] * np.reshape(weights, [5, 5, 32, 64])).sum(axis=(0, 1))  # [in, out]
    strongest = np.abs(effects).argmax(axis=0)
    negative = np.flatnonzero(effects[strongest, range(64)] < 0)
    for channel in [negative[0]] + list(set(range(64)) - set(negative))[:1]:
        page.execute_script('chosen = {name: "conv2", y: 6, x: 7, channel: arguments[0]}; explain()', int(channel))
        total, bias, result, shown = sum_and_bias(page)
        assert total == pytest.approx(effects[:, channel].sum(), abs=6e-5)
        assert total + bias == pytest.approx(result, abs=2e-4)
        assert shown == max(result, 0) == value_at(page, 'conv2', 6, 7, int(channel))
        bars = page.find_elements(By.CSS_SELECTOR, '#numbers [data-from]')
        assert [bar.get_attribute('aria-label') for bar in bars] == [
            'channel {}, sum {:.4f}'.format(*each) for each in enumerate(effects[:, channel])]
        first, second = np.abs(effects[:, channel]).argsort()[::-1][:2]
        for each in first, second:
            assert 'sum {:.4f}'.format(effects[each, channel]) in text(page, 'numbers')
            np.testing.assert_allclose(numbers(page, 'patch'), patch[:, :, each].ravel(), atol=6e-5)
            assert frames(page)['pool1'][:2] == [each // 6 * 17 + 4, each % 6 * 17 + 5]
            bars[second].send_keys(Keys.ENTER)
            assert page.switch_to.active_element.get_attribute('aria-pressed') == 'true'
            bars = page.find_elements(By.CSS_SELECTOR, '#numbers [data-from]')


def test_pooling_shows_the_largest_of_four_and_keys_move(page):
    canvas = page.find_element(By.ID, 'conv2')
    y, x, channel = page.execute_script('const {y, x, channel} = strongestOf("conv2"); return [y, x, channel]')
    keys = [Keys.ARROW_UP, Keys.ARROW_RIGHT, Keys.PAGE_DOWN if channel < 63 else Keys.PAGE_UP]  # from the strongest
    canvas.send_keys(*keys)
    assert text(page, 'arithmetic').startswith('conv2, channel {}, row {}, column {}\n'.format(
        channel + (1 if channel < 63 else -1), y - 1, x + 1))
    page.execute_script('chosen = {name: "pool1", y: 5, x: 6, channel: 2}; explain()')
    assert frames(page) == {'conv1': [10, 2 * 60 + 29 + 12, 2, 2], 'pool1': [5, 2 * 17 + 6, 1, 1],
                            'channel': [5, 6, 1, 1]}
    assert numbers(page, 'four').max() == value_at(page, 'pool1', 5, 6, 2)


def test_pointing_in_a_narrow_window_touching_and_choosing(page, network, mnist):
    page.set_window_size(500, 900)
    canvas = page.find_element(By.ID, 'pool1')
    page.execute_script('arguments[0].scrollIntoView()', canvas)
    touch(page, canvas, [((2 * 17 + 4.5) / (6 * 17), (17 + 3.5) / (6 * 17))])
    panel = page.find_element(By.ID, 'arithmetic')
    assert re.match('pool1, channel 8, row [34], column [45]\n', panel.text)
    heights = []
    page.execute_script('arguments[0].classList.remove("open")', panel)
    for _ in range(3):  # it shows its numbers when it is tapped
        heights.append(panel.size['height'])
        page.find_element(By.CSS_SELECTOR, '#words h2').click()
    assert heights[0] == heights[2] < heights[1] < 0.6 * 900
    page.execute_script('choose("conv2", 3, 3, 3)')
    page.find_elements(By.CSS_SELECTOR, '.sums button')[1].click()  # in the panel, which stays open
    assert panel.size['height'] > heights[0] and 'channel 1 patch' in panel.text
    drawing = page.find_element(By.ID, 'drawing')
    page.execute_script('clear(); arguments[0].scrollIntoView()', drawing)
    touch(page, drawing, [(.2, .2), (.5, .2), (.8, .2), (.6, .5), (.4, .9)])
    page.execute_async_script(FRAMES)
    assert re.match(r'Your drawing: the network reads \d ', text(page, 'answer'))
    buttons = page.find_elements(By.CSS_SELECTOR, '#digits button, #mistakes button')
    reads = network(mnist.test.images[:10])['softmax_linear'].argmax(axis=1)
    assert all(button.get_attribute('aria-label') and min(button.size.values()) >= 24 for button in buttons)
    buttons[1].send_keys(Keys.ENTER)
    assert page.find_element(By.CSS_SELECTOR, '.digit[aria-pressed=true]') == buttons[1]
    assert 'Test digit, a 2: the network reads {} '.format(reads[1]) in text(page, 'answer')
    buttons[10].send_keys(Keys.ENTER)
    assert 'the network reads {} '.format(buttons[10].text[-1]) in text(page, 'answer')


def test_a_finger_that_scrolls_over_a_layer_chooses_nothing(page):
    webdriver.ActionChains(page).move_to_element(page.find_element(By.ID, 'answer')).perform()
    place = page.execute_script('choose("conv1", 1, 2, 3); return chosen')
    finger(page, '#pool1', ['down', 20, 20], ['move', 20, 60], ['cancel', 20, 60])
    assert page.execute_script('return chosen') == place
    finger(page, '#pool1', ['down', 20, 20], ['up', 20, 20])
    assert page.execute_script('return chosen.name') == 'pool1'
    assert not page.execute_script('return hidden')
    touches = [page.execute_script('return getComputedStyle(document.querySelector(arguments[0])).touchAction', each)
               for each in ('#pool1', '.digit canvas', '#image', '#drawing')]
    assert touches == ['pan-y', 'auto', 'none', 'none']
    finger(page, '#image', ['down', 0, 0])  # one can scroll beside it
    assert page.execute_script('return hidden.stays')


def test_a_new_image_has_its_strongest_activation_explained_unless_one_was_clicked(page):
    """Of a convolution, the strongest of those whose patch lies inside its input."""
    digits = page.find_elements(By.CSS_SELECTOR, '#digits button')
    for layer, digit, border in ('conv1', None, 2), ('pool1', 3, 0), ('conv2', 5, 2), ('softmax_linear', 1, 0):
        page.execute_script('isKept = false; choose(arguments[0], 0, 0, 0)', layer)
        if digit is None:  # a line at the upper border, which is white
            page.execute_script('read(Uint8Array.from({length: 784}, (_, i) => i < 84 ? 255 : 0), "Test")')
        else:
            digits[digit].click()
        value, shape, array = page.execute_script('''const {y, x, channel, name} = chosen, layer = network[name];
            return [valueAt(layer, y, x, channel), [layer.height, layer.width, layer.channels], [...layer.array]]''')
        inside = np.reshape(array, shape)[border:shape[0] - border, border:shape[1] - border]
        assert value == inside.max() > 0 and (digit is not None or max(array) > value)
    page.execute_script('isKept = true; choose("pool1", 1, 2, 3)')
    digits[4].click()
    assert page.execute_script('return [chosen.y, chosen.x, chosen.channel]') == [1, 2, 3]
    page.execute_script('isKept = false')


@pytest.mark.parametrize('name, place, channel', [('conv1', (20, 11), 13), ('conv2', (6, 3), 42)])
def test_the_channel_of_the_chosen_activation_is_enlarged_and_answers_to_the_pointer(page, name, place, channel):
    page.execute_script('choose(arguments[0], 0, 0, arguments[1])', name, channel)
    found, values = page.execute_script('''const {width, height} = at('channel'), layer = network[chosen.name];
        return [Array.from(at('channel').getContext('2d').getImageData(0, 0, width, height).data), layer.array.filter(
            (_, i) => i % layer.channels === chosen.channel).toString().split(',').map(Number)]''')
    brightness = np.reshape(found, [-1, 4])[:, :3].sum(axis=1)
    assert len(values) == len(brightness) and max(values) > 0
    order = np.argsort(values, kind='stable')
    assert (np.diff(brightness[order]) >= -2).all() and np.ptp(brightness) > 50  # the stronger, the brighter
    canvas, side = page.find_element(By.ID, 'channel'), int(len(values) ** 0.5)
    size = canvas.size
    webdriver.ActionChains(page).move_to_element(canvas).perform()
    page.execute_script('choose(arguments[0], 0, 0, arguments[1])', name, channel)  # the mouse may have crossed a layer
    webdriver.ActionChains(page).move_to_element(canvas).move_by_offset(*[
        round(((place[i] + 0.5) / side - 0.5) * size[length]) for i, length in ((1, 'width'), (0, 'height'))]).perform()
    assert page.execute_script('return [chosen.name, chosen.y, chosen.x, chosen.channel]') == [name, *place, channel]
    canvas.send_keys(Keys.ARROW_UP, Keys.PAGE_UP)
    assert page.execute_script('return [chosen.y, chosen.x, chosen.channel]') == [place[0] - 1, place[1], channel - 1]
    page.execute_script('choose("fc", 0, 0, 0)')
    assert not canvas.is_displayed()


@pytest.mark.parametrize('width, height', [(1366, 650), (1280, 720), (1024, 768)])
def test_the_arithmetic_is_on_one_screen_and_the_guide_moves_no_layer(page, width, height):
    set_inner_size(page, width, height)
    for name in 'conv1', 'pool1', 'conv2', 'fc', 'softmax_linear':
        page.execute_script('choose(arguments[0], 3, 3, 3)', name)
        assert page.execute_script("""return [...document.querySelectorAll('#numbers table')].every(each =>
            each.getBoundingClientRect().bottom + scrollY <= innerHeight)"""), name
        assert page.execute_script('return document.documentElement.scrollWidth <= innerWidth')
    assert len(set(page.execute_script("""return GUIDE.map((_, step) => {
        showGuide(step);
        return at('layers').getBoundingClientRect().top + scrollY; })"""))) == 1


def test_a_group_of_digits_is_one_stop_of_the_tab_key(page):
    for name in 'digits', 'bars':
        buttons = page.find_elements(By.CSS_SELECTOR, '#{} button'.format(name))
        stops = [i for i, button in enumerate(buttons) if button.get_attribute('tabindex') == '0']
        assert len(buttons) == 10 and len(stops) == 1
        buttons[stops[0]].send_keys(Keys.ARROW_RIGHT, Keys.NULL)
        page.switch_to.active_element.send_keys(Keys.ARROW_UP)
        assert page.switch_to.active_element == buttons[stops[0]]
        page.switch_to.active_element.send_keys(Keys.ARROW_LEFT)
        assert page.switch_to.active_element == buttons[stops[0] - 1]


def test_the_numbers_of_a_patch_are_legible_on_the_colours_of_activations(page):
    """Judged by the contrast that WCAG defines."""
    styles = page.execute_script('''choose('pool1', 0, 0, 0); const strongest = strongestIn(network.conv1);
        return Array.from({length: 101}, (_, i) => patchStyle(i / 100 * strongest))''')
    for style in styles:
        *parts, colour = re.fullmatch(r'background: rgb\((\d+) (\d+) (\d+)\); color: (black|white)', style).groups()
        parts = np.array(parts, float) / 255
        linear = np.where(parts <= 0.04045, parts / 12.92, ((parts + 0.055) / 1.055) ** 2.4)
        luminance = linear @ [0.2126, 0.7152, 0.0722] + 0.05
        assert (luminance / 0.05 if colour == 'black' else 1.05 / luminance) >= 4.5, style
    assert len(set(styles)) > 90


def test_a_test_digit_is_in_the_field_until_the_first_stroke(page):
    """Judged by what is dark there, in a grid of 28 x 28."""
    dark = """const bytes = drawing.getImageData(0, 0, 280, 280).data, centre = i => 10 * i + 5;
        return Array.from({length: 784}, (_, i) =>
            bytes[4 * (280 * centre(Math.floor(i / 28)) + centre(i % 28))] < 128)"""
    page.execute_script('document.querySelector("#digits button").click()')
    digit = page.execute_script('return Array.from(bytesOf(data.digits[0].pixels), value => value > 128)')
    assert np.mean(np.array(page.execute_script(dark)) == digit) > 0.98 and np.sum(digit) > 40
    point(page, ['down', 7, 5], ['up', 7, 5])
    assert 0 < np.sum(page.execute_script(dark)) <= 4


def point(page, *events):
    """Events of pointers on the drawing: each is a type, the pointer's number, and pixels from the top and the left."""
    page.execute_script("""const canvas = at('drawing'), {left, top} = canvas.getBoundingClientRect();
        canvas.setPointerCapture = () => {};
        for (const [type, pointerId, offset] of arguments[0])
          canvas.dispatchEvent(new PointerEvent('pointer' + type, {
            pointerId, buttons: 1, clientX: left + offset, clientY: top + offset}));
        delete canvas.setPointerCapture""", events)


def test_clear_leaves_nothing_and_one_pointer_draws(page):
    page.find_element(By.CSS_SELECTOR, '.digit').click()
    page.execute_script('past = []; showGuide(5)')
    layers = page.find_element(By.ID, 'layers')
    place = layers.location
    page.find_element(By.ID, 'clear').click()
    assert page.execute_script('return showGuide()') == 0 and layers.location == place  # nothing moves
    assert text(page, 'answer') == 'Draw a digit, or choose one.'
    assert not any(page.find_element(By.ID, name).is_displayed() for name in ('bars', 'layers', 'conv1', 'arithmetic'))
    point(page, ['move', 1, 20], ['down', 1, 50], ['move', 2, 200], ['move', 1, 60], ['up', 1, 60], ['move', 1, 150],
          ['down', 1, 100], ['up', 1, 100])
    ink = np.array(page.execute_script("""return [20, 55, 100, 150, 200].map(place => {
        const scale = 280 / at('drawing').getBoundingClientRect().width;
        return drawing.getImageData(place * scale, place * scale, 1, 1).data[0]})"""))
    assert list(ink < 128) == [False, True, True, False, False]  # a tap is a dot
    ink = 'return drawing.getImageData(0, 0, 280, 280).data.filter(byte => byte < 128).length'
    dark = [page.execute_script(ink)]
    page.find_element(By.CSS_SELECTOR, '.digit').click()
    page.find_element(By.ID, 'undo').click()  # the drawing is there again
    assert page.execute_script('return !isTestDigit()')
    while page.find_element(By.ID, 'undo').is_enabled():
        dark.append(page.execute_script(ink))
        page.find_element(By.ID, 'undo').click()
    assert dark[0] == dark[1] > dark[2] > page.execute_script(ink) == 0 and len(dark) == 3  # one stroke after the other
    assert page.switch_to.active_element == page.find_element(By.ID, 'clear')  # Undo would have lost the focus


def test_a_stroke_that_leaves_the_field_goes_on_along_its_border(page):
    field = page.find_element(By.ID, 'drawing')
    side = field.size['width']
    actions = webdriver.ActionChains(page).move_to_element(field).click_and_hold()
    actions.move_by_offset(side, 0).move_by_offset(0, side // 4).release().perform()
    assert page.execute_script('return drawing.getImageData(277, 175, 1, 1).data[0]') < 128


def test_one_can_draw_by_keys(page):
    field = page.find_element(By.ID, 'drawing')
    page.find_element(By.CSS_SELECTOR, '.digit').click()
    field.send_keys(Keys.SHIFT, *12 * [Keys.ARROW_DOWN])
    field.send_keys(*9 * [Keys.ARROW_RIGHT])
    field.send_keys(Keys.SHIFT, Keys.ARROW_DOWN)
    page.find_element(By.ID, 'undo').click()  # the second stroke
    page.execute_async_script(FRAMES)
    assert text(page, 'answer').startswith('Your drawing: the network reads 1 ')
    rows, columns = np.nonzero(page.execute_script('''return range(280).map(y => range(280).map(x =>
        drawing.getImageData(x, y, 1, 1).data[0] < 128))'''))
    assert [rows.min(), rows.max(), columns.min(), columns.max()] == pytest.approx([47, 233, 131, 149], abs=1)


def test_a_square_under_the_pointer_hides_a_part_of_the_image_from_the_network(page, network, mnist):
    before = page.execute_script('choose("conv1", 8, 12, 7); return [...network[LAST].array]')
    whole = re.search(r'reads (.*\))[;,].* next', text(page, 'answer')).group(1)
    canvas = page.find_element(By.ID, 'image')
    page.execute_script('arguments[0].scrollIntoView({block: "center"})', canvas)
    webdriver.ActionChains(page).move_to_element(canvas).move_by_offset(0, -canvas.size['height'] // 5).perform()
    y, x = page.execute_script('return [hidden.y, hidden.x]')
    image = mnist.test.images[:1].copy()
    image[:, y - 3:y + 4, x - 3:x + 4] = 0
    expected = network(image)['softmax_linear'][0]
    found = page.execute_script('return [...network[LAST].array]')
    assert np.abs(found - expected).max() < 0.03 * np.abs(expected).max() < np.abs(np.subtract(found, before)).max()
    colours = np.reshape(page.execute_script(
        "return [...at('image').getContext('2d').getImageData(0, 0, 28, 28).data]"), [28, 28, 4])
    is_grey = (colours[..., :3] == 136).all(axis=-1)
    assert is_grey[y - 3:y + 4, x - 3:x + 4].all() and is_grey.sum() == 49
    assert frames(page)['image'] == [6, 10, 5, 5] and text(page, 'answer').startswith('A part hidden: ')  # its patch
    assert text(page, 'answer').endswith('; of the whole it read {}.'.format(whole))
    webdriver.ActionChains(page).click().perform()  # which keeps it
    page.find_element(By.ID, 'pool1').click()
    assert page.execute_script('return [...network[LAST].array]') == found and text(page, 'words').startswith('pool1')
    page.find_element(By.ID, 'image').send_keys(Keys.ESCAPE)
    assert page.execute_script('return [...network[LAST].array]') == before and text(page, 'answer').startswith('Test')
    page.execute_script('keep(false)')
    webdriver.ActionChains(page).move_to_element(canvas).perform()
    webdriver.ActionChains(page).move_to_element(page.find_element(By.ID, 'answer')).perform()
    assert page.execute_script('return !hidden')  # without a click
    for is_hidden in True, False:  # a finger's second tap takes it away
        touch(page, canvas, [(0.4, 0.4)])
        assert page.execute_script('return !!hidden') == is_hidden
    page.find_element(By.ID, 'image').send_keys(Keys.ARROW_DOWN, Keys.ARROW_RIGHT)
    assert page.execute_script('return [hidden.y, hidden.x]') == [15, 15]
    page.find_element(By.CSS_SELECTOR, '.digit').click()
    assert page.execute_script('return !hidden')


def test_the_guide_moves_the_chosen_activation(page):
    found = page.execute_script('''return GUIDE.map((_, step) => {
        showGuide(step);
        return [chosen?.name, chosen && valueAt(network[chosen.name], chosen.y, chosen.x, chosen.channel)]; })''')
    assert [name for name, _ in found] == [None, None, 'conv1', 'pool1', 'conv2', 'fc'] + 2 * ['softmax_linear']
    assert found[-1][1] == max(page.execute_script('return [...network[LAST].array]'))
    done = [page.execute_script('useKernels(arguments[1]); read(new Uint8Array(784), arguments[0]); '
                                'return isUnsure()', *given) and 'Done' in text(page, 'guideText')
            for given in [('Test', False), ('Your drawing', False), ('Your drawing', True)]]
    assert done == [False, True, False]  # a drawing is asked for, and the network that was trained
    page.execute_script('useKernels(false); document.querySelector("#mistakes button").click(); showGuide(0)')
    assert text(page, 'guideText').endswith('This one is read wrongly.')
    page.find_element(By.ID, 'clear').click()
    assert text(page, 'guideText').endswith('Draw a digit to see it.')


def test_mistakes_are_what_the_page_reads_and_in_the_order_that_it_says(page):
    logits = page.execute_script(
        'return data.mistakes.map(({pixels}) => [...inference(bytesOf(pixels))[LAST].array])')
    captions = [button.text.split('\u2192') for button in page.find_elements(By.CSS_SELECTOR, '#mistakes button')]
    labels, reads = np.array(captions, int).T
    assert len(labels) > 1 and (labels != reads).all() and (reads == np.argmax(logits, axis=1)).all()
    probabilities = scipy.special.softmax(logits, axis=1)[range(len(labels)), labels]
    assert (np.diff(probabilities) > -0.02).all()  # by weights of 8 bits


def test_a_quick_page_that_asks_for_nothing(page, page_path):
    assert_asks_for_nothing(page, page_path, 5e6)
    milliseconds = page.execute_script("""clear(); drawing.lineWidth = 18; drawing.beginPath();
        drawing.moveTo(60, 60); drawing.lineTo(200, 60); drawing.lineTo(120, 220); drawing.stroke();
        const times = []; for (let i = 0; i < 12; i++) {
          const start = performance.now(); readDrawing(); times.push(performance.now() - start); }
        return times.sort((a, b) => a - b)[5]""")
    assert milliseconds < 300  # about 20 on a quiet machine


# ---- Judged by --predict ----

def test_digits_drawn_large_are_read_as_predict_reads_them(browser, real_epoch, mnist, tmp_path):
    """By a network that knows digits; each scales pictures in its own way."""
    open_page(browser, real_epoch.folder / 'figures' / 'convnet_mnist' / 'convnet_mnist.html')
    paths = [str(tmp_path / '{:03d}.png'.format(number)) for number in range(100)]
    for path, image in zip(paths, mnist.test.images):
        large = Image.fromarray(255 - image).resize((200, 200), Image.BICUBIC)
        canvas = Image.new('L', (280, 280), 255)
        canvas.paste(large, (20, 60))
        canvas.save(path)
    with digits.read_pictures(paths, 28) as (_, images):
        assert len(images) == len(paths)
        expected = network_of(real_epoch.folder)(images)['softmax_linear'].argmax(axis=1)
    found = []
    for path in paths:
        with Image.open(path) as image:
            paint(browser, np.asarray(image))
        browser.execute_script('readDrawing()')
        found += re.findall(r'the network reads (\d)', text(browser, 'answer'))
    assert np.sum(np.array(found, int) == expected) >= 99


# ---- The page cannot lie ----

def random_network(kinds, activation, pooling, padding='SAME'):
    """Results of a network of layers (kind, size) that TensorFlow computes, with random weights."""
    tf = results.tf
    random = np.random.RandomState(0)
    activation = getattr(tf, activation, None) or getattr(tf.nn, activation)
    images = random.randint(0, 256, [20, 28, 28]).astype(np.uint8)
    value, weights, layers = tf.constant(images[..., np.newaxis] / np.float32(255)), {}, {}
    for number, (kind, size) in enumerate(kinds):
        name = '{}{}'.format(kind, number)
        if kind == 'pool':
            value = getattr(tf.nn, pooling + '_pool')(value, [1, 2, 2, 1], [1, 2, 2, 1], 'SAME')
        else:
            if kind == 'dense':
                value = tf.reshape(value, [20, -1])
            shape = [size[0], size[0], value.shape[3], size[1]] if kind == 'conv' else [value.shape[1], size]
            shape = [int(side) for side in shape]
            weights[name + '/weights'] = random.normal(0, np.prod(shape[:-1]) ** -.5, shape).astype(np.float32)
            weights[name + '/biases'] = random.normal(0, .1, shape[-1:]).astype(np.float32)
            value = (tf.nn.conv2d(value, weights[name + '/weights'], [1] * 4, padding) if kind == 'conv' else
                     tf.matmul(value, weights[name + '/weights'])) + weights[name + '/biases']
            value = activation(value) if number < len(kinds) - 1 else value
        layers[name] = value
    with tf.Session() as session:
        found, probabilities = session.run([layers, tf.nn.softmax(value)])
    test = utils.Dataset(images, probabilities.argmax(axis=1).astype(np.uint8))
    kinds = {name: layer.op.type for name, layer in layers.items()}
    return results.Results(kinds, {}, {}, weights, {name: each[0] for name, each in found.items()},
                           probabilities, test)


LECTURE = [('conv', (5, 4)), ('pool', 0), ('conv', (3, 6)), ('pool', 0), ('dense', 12), ('dense', 10)]
THREE = [('conv', (3, 3)), ('pool', 0), ('conv', (2, 4)), ('pool', 0), ('conv', (5, 5)), ('pool', 0), ('dense', 10)]


@pytest.mark.parametrize('kinds, activation, pooling, written', [
    (LECTURE, 'relu', 'max', True), (LECTURE, 'tanh', 'avg', True), (THREE, 'tanh', 'max', True),
    (THREE, 'relu', 'avg', True), (LECTURE, 'sigmoid', 'max', False), (LECTURE, 'elu', 'max', False)])
def test_the_page_is_written_for_networks_that_it_computes_alone(browser, tmp_path, capsys, kinds,
                                                                 activation, pooling, written):
    with results.tf.Graph().as_default():
        given = random_network(kinds, activation, pooling)
    path = write_page(tmp_path, given)
    assert path.exists() == written and ('cannot compute' in capsys.readouterr().out) != written
    if written:
        open_page(browser, path)
        found = browser.execute_script('const bytes = bytesOf(arguments[0]); return Object.fromEntries(Object.entries('
                                       'inference(bytes)).map(([name, {array}]) => [name, Array.from(array)]))',
                                       send_images(given.test.images[:1]))
        for name, expected in given.activations.items():
            np.testing.assert_allclose(found[name], expected.ravel(), atol=0.03 * np.abs(expected).max(), err_msg=name)
        title = browser.find_element(By.CSS_SELECTOR, '#layers figure:nth-of-type(2) figcaption').text
        assert title == 'conv0: kernels, and 28 x 28 x {}'.format(kinds[0][1][1])


def write_page(folder, given, classes=utils.DIGITS):
    run = types.SimpleNamespace(folders=types.SimpleNamespace(figures=str(folder)),
                                data=types.SimpleNamespace(classes=classes))
    path = folder / 'convnet_mnist.html'
    assert pages.write_network_page(run, given) == (str(path) if path.exists() else None)
    return path


def test_the_names_of_classes_stand_on_the_page_and_run_nothing(browser, tmp_path):
    names = ['<img src=x onerror="document.title=1">'] + ['boot'] * 9
    with results.tf.Graph().as_default():
        open_page(browser, write_page(tmp_path, random_network(LECTURE, 'relu', 'max'), names))
    browser.execute_script('choose(LAST, 0, 0, 0)')
    assert [each.text for each in browser.find_elements(By.CSS_SELECTOR, '#bars button')] == names
    assert browser.find_element(By.CSS_SELECTOR, '#words h2').text == 'dense5, logit of ' + names[0]
    assert 'the network reads ' in text(browser, 'answer') and not browser.find_elements(By.TAG_NAME, 'img')


def test_a_mistake_that_weights_of_8_bits_may_read_in_another_way_is_left_out(browser, tmp_path):
    with results.tf.Graph().as_default():
        given = random_network(LECTURE, 'relu', 'max')
    given.probabilities[3:5] = [[0.44, 0.43, 0.13] + [0] * 7, [0.5, 0.37, 0.13] + [0] * 7]
    given.test.labels[3:5] = 2
    open_page(browser, write_page(tmp_path, given))
    assert [each.text for each in browser.find_elements(By.CSS_SELECTOR, '#mistakes button')] == ['2\u21920']


def test_a_page_that_does_not_compute_what_tensorflow_computed_says_so(browser, tmp_path):
    """A network of known operations, with another padding."""
    with results.tf.Graph().as_default():
        given = random_network(LECTURE, 'relu', 'max', padding='VALID')
    open_page(browser, write_page(tmp_path, given))
    assert browser.find_element(By.TAG_NAME, 'main').text.startswith('This page cannot compute this network')


def test_white_in_the_figure_of_the_activations_are_the_strongest_5_percent_of_the_positive_ones():
    activations = np.maximum(np.random.RandomState(0).normal(size=[14, 14, 8]), 0)
    weights = np.random.RandomState(1).normal(size=[5, 5, 1, 8])
    figure = lesson2.figures.plot_activations(np.zeros([28, 28]), weights, {
        'conv1': np.ones([28, 28, 8]), 'conv2': activations})
    (axis,) = [axis for axis in figure.axes if axis.get_title(loc='left').startswith('conv2: 8 activations of 14 x 14')]
    shown = np.sort(np.ma.filled(axis.images[0].get_array(), np.nan), axis=None)[:activations.size]  # NaN are last
    positive = np.sort(activations[activations > 0])
    assert (shown == 0).sum() == activations.size - len(positive)
    white = round(0.05 * len(positive))
    assert abs((shown == 1).sum() - white) <= 1
    np.testing.assert_allclose(shown[shown > 0][:-white - 1],
                               np.sqrt(positive / np.percentile(positive, 95))[:-white - 1])
    assert axis.images[0].get_clim() == (0, 1) and 'strongest 5%' in figure.texts[0].get_text()
