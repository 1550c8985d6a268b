"""The page of lesson 1 in a real browser, judged by TensorFlow."""
import base64
import fractions
import io
import os
import pathlib
import re

import numpy as np
import pytest
import scipy.signal
from PIL import Image

from selenium.webdriver.common.action_chains import ActionChains
from selenium.webdriver.common.actions.action_builder import ActionBuilder
from selenium.webdriver.common.actions.interaction import POINTER_TOUCH
from selenium.webdriver.common.actions.pointer_input import PointerInput
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys
from selenium.webdriver.remote.file_detector import UselessFileDetector
from selenium.webdriver.support.ui import Select, WebDriverWait

from conftest import ROOT, lesson1, run_here
from support import pages, results


@pytest.fixture(scope='module')
def folder(tmp_path_factory):
    """A run of lesson 1 on a part of the Chihuahua under a name that tries to break out of the page."""
    folder = tmp_path_factory.mktemp('page')
    picture = folder / 'x" onload=\'é\' <script>alert(1)<&' / '&.png'
    os.makedirs(str(picture.parent))
    with Image.open(os.path.join(ROOT, 'data', 'chihuahua.jpg')) as image:
        image.crop((150, 120, 240, 180)).save(str(picture))
    result = run_here(lesson1, '--no-show', '--output-dir', folder, '--image', picture,
                      '--custom-kernel', '0.5 -1; 2 0.25; -3 1')
    (folder / 'printed').write_text(result.stdout, encoding='utf-8')
    return folder / 'figures' / 'basic_filters'


@pytest.fixture
def page(browser, folder):
    browser.set_window_size(1400, 1200)
    browser.file_detector = UselessFileDetector()  # the browser runs on this machine
    open_page(browser, folder / 'basic_filters.html')
    WebDriverWait(browser, 20).until(lambda driver: driver.execute_script('return output'))
    return browser


def open_page(browser, path):
    """In Firefox without the rule that only the page's own script runs, for the tests look at it by scripts within."""
    if browser.capabilities['browserName'] == 'firefox':
        content = path.read_text(encoding='utf-8')
        path = path.with_name('any_script_' + path.name)
        path.write_text(re.sub("script-src '[^']*'", "script-src 'unsafe-inline'", content), encoding='utf-8')
    browser.get(path.as_uri())


def replace(page, element, keys):
    """Types over what a field has."""
    page.execute_script('arguments[0].select()', element)
    element.send_keys(keys)


def choose(page, name, value):
    element = page.find_element(By.ID, name)
    if name == 'kernels':
        element.find_element(By.CSS_SELECTOR, '[value="{}"]'.format(value)).click()
    else:
        Select(element).select_by_visible_text(value)


def text(page, name):
    return page.find_element(By.ID, name).text


def output(page):
    """[height, width, 1 or 3], as the page computed it."""
    shape, values = page.execute_script(
        'return [[output.height, output.width, output.channels], Array.from(output.array)]')
    return np.array(values).reshape(shape)


def picture(page):
    """float32 [1, height, width, 3], read from the page's own pixels."""
    data = page.execute_script('return document.getElementById("data").textContent')
    url = re.search('"data:image/png;base64,([^"]*)"', data).group(1)
    with Image.open(io.BytesIO(base64.b64decode(url))) as image:
        return np.asarray(image, np.float32)[np.newaxis] / 255


def by_tensorflow(page):
    """What the line of TensorFlow that the page shows gives, for the page's picture."""
    tf = lesson1.tf
    with tf.Graph().as_default(), tf.Session() as session:
        images = tf.constant(picture(page))
        if page.find_element(By.ID, 'colours').get_attribute('value') == 'grey':
            images = tf.image.rgb_to_grayscale(images)
        return session.run(eval(text(page, 'line'), {'tf': tf, 'np': np, 'images': images}))[0]


def assert_equals_tensorflow(page):
    expected, found = by_tensorflow(page), output(page)
    assert found.shape == expected.shape
    scale = max(1, np.abs(expected).max())
    assert np.abs(found - expected).max() <= 1e-5 * scale, text(page, 'line')


def touch(page, element, points):
    """Moves a finger over an element: points (x, y) from 0 to 1 of its width and height."""
    box = page.execute_script('const box = arguments[0].getBoundingClientRect(); '
                              'return [box.left, box.top, box.width, box.height]', element)
    actions = ActionBuilder(page, mouse=PointerInput(POINTER_TOUCH, 'finger'))
    for number, (x, y) in enumerate(points):
        actions.pointer_action.move_to_location(round(box[0] + x * box[2]), round(box[1] + y * box[3]))
        if number == 0:
            actions.pointer_action.pointer_down()
    actions.pointer_action.pointer_up()
    actions.perform()


# ---- Every value equals TensorFlow's ----

def test_every_kernel(page):
    names = page.execute_script('return Object.keys(data.kernels)')
    assert names == list(lesson1.kernels.KERNELS) + ['custom']
    for number, name in enumerate(names):
        choose(page, 'kernels', name)
        choose(page, 'colours', ['grey', 'RGB'][number % 2])
        assert_equals_tensorflow(page)
        is_zero_sum = name in lesson1.kernels.KERNELS and results.is_zero_sum(lesson1.kernels.KERNELS[name])
        assert ('grey 0' in text(page, 'scale')) == (is_zero_sum or name == 'custom')  # whose sum is below 0


@pytest.mark.parametrize('shape', [(4, 3), (5, 6)] + [pytest.param(shape, marks=pytest.mark.slow)
                                                    for shape in [(1, 1), (2, 2), (7, 7)]])
def test_random_kernels_of_all_sizes(page, shape):
    matrix = np.random.RandomState(sum(shape)).normal(size=shape).round(3)
    page.execute_script('setMatrix(arguments[0], "your own")', matrix.tolist())
    for stride in '123':
        choose(page, 'stride', stride)
        for padding in 'SAME', 'VALID':
            choose(page, 'padding', padding)
            for colours in 'grey', 'RGB':
                choose(page, 'colours', colours)
                assert_equals_tensorflow(page)


# ---- What is shown ----

def arithmetic(page):
    """The numbers of the tables: {'patch', 'kernel', 'products'}, each [channels, values].

    All have four decimals; a kernel of whole numbers has none.
    """
    cells = {kind: [table.text.split() for table in page.find_elements(By.CSS_SELECTOR, '#arithmetic .' + kind)]
             for kind in ('patch', 'kernel', 'products')}
    whole = all(float(cell) == int(float(cell)) for row in cells['kernel'] for cell in row)
    for kind, tables in cells.items():
        form = r'-?\d+' if kind == 'kernel' and whole else r'-?\d+\.\d{4}'
        assert all(re.fullmatch(form, cell) for row in tables for cell in row)
    return {kind: np.array(tables, float) for kind, tables in cells.items()}


def test_the_arithmetic_adds_up_and_zeros_stand_beyond_the_border(page):
    choose(page, 'kernels', 'sharpen')
    page.execute_script('choosePixel(0, 0)')
    numbers = arithmetic(page)
    np.testing.assert_allclose(numbers['patch'] * numbers['kernel'], numbers['products'], atol=1e-3)
    assert text(page, 'arithmetic').endswith('sum {:.4f}'.format(output(page)[0, 0, 0]))
    assert numbers['products'].sum() == pytest.approx(output(page)[0, 0, 0], abs=1e-3)
    assert len(page.find_elements(By.CSS_SELECTOR, '#arithmetic td.outside')) == 5
    assert (numbers['patch'][0][[0, 1, 2, 3, 6]] == 0).all()
    choose(page, 'colours', 'RGB')
    page.execute_script('choosePixel(20, 30)')
    numbers = arithmetic(page)
    np.testing.assert_allclose(numbers['products'].sum(axis=1), output(page)[20, 30], atol=1e-3)
    np.testing.assert_allclose(numbers['patch'], picture(page)[0, 19:22, 29:32].reshape(9, 3).T, atol=6e-5)
    headings = page.find_elements(By.XPATH, '//table[@class="patch"]/preceding-sibling::div')
    assert [each.text for each in headings] == ['red patch', 'green patch', 'blue patch']
    sums = ['{:.4f}'.format(value) for value in output(page)[20, 30]]
    assert re.findall(r'sum (\S+)', text(page, 'arithmetic')) == sums and text(page, 'total') == ''
    assert 'weights sum to 1: flat areas keep their brightness' in text(page, 'words')
    page.find_element(By.ID, 'wrong').click()
    assert 'weights, three times over, sum to 3: flat areas become brighter' in text(page, 'words')
    assert re.findall(r'sum (\S+)', text(page, 'arithmetic')) == sums
    page.execute_script('choosePixel(20, 30)')  # whose value a screen reader reads
    assert text(page, 'where').endswith(', '.join(3 * ['{:.4f}'.format(output(page)[20, 30, 0])]))
    assert text(page, 'total') == 'All three add up to {:.4f}.'.format(output(page)[20, 30, 0])


def test_the_page_begins_with_the_pixel_that_the_terminal_explains(page, folder):
    printed = (folder.parent.parent / 'printed').read_text(encoding='utf-8')
    place = re.search(r'custom in grey, row (\d+), column (\d+) of the output', printed).groups()
    assert chosen_pixel(page) == [int(each) for each in place]


def test_sizes_and_the_command(page):
    assert '60 high, 90 wide' in text(page, 'pictureSize')
    choose(page, 'stride', '2')
    choose(page, 'padding', 'VALID')  # the custom kernel, 3 x 2
    assert 'ceil((60 - 3 + 1) / 2) = 29 high, ceil((90 - 2 + 1) / 2) = 45 wide' in text(page, 'resultSize')
    command = text(page, 'command')
    assert command.startswith("python 07_basic_filters.py --image '") and '<script>alert(1)' in command
    assert command.endswith('--custom-kernel "0.5 -1; 2 0.25; -3 1" --stride 2 --padding VALID')
    choose(page, 'kernels', 'edge')
    assert text(page, 'command').endswith('--kernels edge --stride 2 --padding VALID')


def test_dividing_by_the_sum_and_other_sizes(page):
    choose(page, 'rows', '1')
    choose(page, 'columns', '3')
    cells = page.find_elements(By.CSS_SELECTOR, '#editor input')
    assert [cell.get_attribute('value') for cell in cells] == ['0', '2', '0.25']  # the row in the middle
    replace(page, cells[1], Keys.BACKSPACE)
    cells[1].send_keys('0.75')
    assert 'weights sum to 1:' in text(page, 'words')
    replace(page, cells[0], '3')
    assert 'weights sum to 4:' in text(page, 'words')
    page.find_element(By.ID, 'divide').click()
    assert page.execute_script('return matrix') == [[0.75, 0.1875, 0.0625]]
    page.find_element(By.ID, 'flip').click()
    assert page.execute_script('return matrix') == [[0.0625, 0.1875, 0.75]]
    choose(page, 'rows', '4')
    choose(page, 'columns', '5')
    choose(page, 'kernels', 'blur')
    choose(page, 'kernels', 'your own')  # which stayed
    assert page.execute_script('return matrix') == [[0] * 5, [0, 0.0625, 0.1875, 0.75, 0], [0] * 5, [0] * 5]


# ---- Mouse, touch, keys ----

def chosen_pixel(page):
    *place, value = re.fullmatch(r'Output row (\d+), column (\d+)\s*: (\S+)', text(page, 'where')).groups()
    place = list(map(int, place))
    assert float(value) == pytest.approx(output(page)[tuple(place)][0], abs=1e-4)
    return place


def test_mouse_touch_and_keys_choose_the_same_pixel(page):
    page.set_window_size(500, 900)
    canvas = page.find_element(By.ID, 'result')
    page.execute_script('arguments[0].scrollIntoView()', canvas)
    ActionChains(page).move_to_element(canvas).perform()
    row, column = chosen_pixel(page)
    assert abs(row - 30) <= 1 and abs(column - 45) <= 1
    canvas.send_keys(Keys.ARROW_DOWN, Keys.ARROW_DOWN, Keys.ARROW_LEFT)
    assert chosen_pixel(page) == [row + 2, column - 1]
    scrolled = page.execute_script('arguments[0].scrollIntoView({block: "center"}); return scrollY', canvas)
    touch(page, canvas, [(10.5 / 90, 7.5 / 60)])
    row, column = chosen_pixel(page)
    assert abs(row - 7) <= 1 and abs(column - 10) <= 1  # a finger has whole pixels of the screen
    assert page.execute_script('return scrollY') == scrolled


def finger(page, selector, *moves):
    """A finger's events on an element: each is a type, and pixels to the right and down from its middle."""
    page.execute_script('''const [selector, moves] = arguments, element = document.querySelector(selector);
        const {left, top, width, height} = element.getBoundingClientRect();
        element.setPointerCapture = () => {};
        for (const [type, x, y] of moves)
          element.dispatchEvent(new PointerEvent('pointer' + type, {bubbles: true, pointerType: 'touch', buttons: 1,
            clientX: left + width / 2 + x, clientY: top + height / 2 + y}))''', selector, moves)


def test_a_finger_moves_the_pixel(page):
    finger(page, '#picture', ['down', 60, 60])
    row, column = chosen_pixel(page)
    finger(page, '#picture', ['move', 60, 90])
    assert chosen_pixel(page)[0] > row and chosen_pixel(page)[1] == column
    assert page.execute_script('return getComputedStyle(at("picture")).touchAction') == 'none'  # no scrolling there


def test_enter_fixes_the_pixel_and_a_click_or_escape_releases_it(page):
    canvas = page.find_element(By.ID, 'picture')
    place = chosen_pixel(page)
    canvas.send_keys(Keys.SHIFT, Keys.ARROW_RIGHT, Keys.NULL)
    assert chosen_pixel(page) == [place[0], place[1] + 10]
    canvas.send_keys(Keys.ARROW_LEFT, Keys.ENTER)
    ActionChains(page).move_to_element_with_offset(canvas, 20, 20).perform()
    assert chosen_pixel(page) == [place[0], place[1] + 9] and is_kept(page)
    for release in [lambda: canvas.send_keys(Keys.ENTER), lambda: ActionChains(page).double_click(canvas).perform(),
                    lambda: page.find_element(By.ID, 'rows').send_keys(Keys.ESCAPE)]:
        page.execute_script('keep(true)')
        release()
        assert not is_kept(page)
    ActionChains(page).move_to_element_with_offset(canvas, 20, 20).perform()
    assert chosen_pixel(page) != [place[0], place[1] + 9]


def is_kept(page):
    """Whether the frames say by their colour that the pixel is fixed."""
    colour = page.execute_script("return getComputedStyle(at('picture').nextElementSibling).outlineColor")
    return colour != 'rgb(255, 176, 0)'


# ---- Weights as people type them, and what stays ----

def cell(page, row, column):
    return page.find_element(By.CSS_SELECTOR, '#editor [data-y="{}"][data-x="{}"]'.format(row, column))


@pytest.mark.parametrize('typed, value', [('1,5', 1.5), ('-', 0.25), ('Infinity', 0.25), ('', 0), ('1/0', 0.25),
                                          ('1e30', 0.25), ('.0625', 0.0625), ('-2', -2), ('1/9', 1 / 9)])
def test_a_weight_is_what_a_person_means(page, typed, value):
    choose(page, 'kernels', 'blur')
    replace(page, cell(page, 1, 1), typed or Keys.BACKSPACE)
    found = page.execute_script('return matrix[1][1]')
    is_none = typed in ('-', 'Infinity', '1/0', '1e30')  # the weight before stays
    assert found == value
    assert ('--kernels blur' in text(page, 'command')) == is_none
    assert (cell(page, 1, 1).get_attribute('aria-invalid') == 'true') == is_none == ('No number' in text(page, 'error'))
    cell(page, 1, 1).send_keys(Keys.TAB)  # what is no number becomes the weight again, and an empty cell 0
    assert cell(page, 1, 1).get_attribute('aria-invalid') != 'true' and page.switch_to.active_element.tag_name != 'body'
    shown = cell(page, 1, 1).get_attribute('value').replace(',', '.')
    assert float(fractions.Fraction(shown)) == pytest.approx(found, abs=5e-5)
    assert page.execute_script('return matrix[1][1]') == found


def test_weights_change_by_keys(page):
    choose(page, 'kernels', 'identity')
    cell(page, 0, 0).send_keys(Keys.ARROW_UP, Keys.ARROW_UP)
    assert page.execute_script('return matrix[0][0]') == pytest.approx(0.2)
    cell(page, 0, 0).send_keys('3')  # in its place
    assert page.execute_script('return matrix[0][0]') == 3
    for name in 'colours', 'wrong', 'flip':  # only the change is computed, whatever it is of
        choose(page, name, 'RGB') if name == 'colours' else page.find_element(By.ID, name).click()
        replace(page, cell(page, 1, 0), '-0.3')
        replace(page, cell(page, 1, 0), '0.7')
        assert_equals_tensorflow(page)


def test_the_weights_are_one_stop_of_the_tab_key_and_light_their_pixel_and_product(page):
    choose(page, 'kernels', 'edge')
    assert len(page.find_elements(By.CSS_SELECTOR, '#editor [tabindex="0"]')) == 1
    cell(page, 0, 2).send_keys(Keys.ARROW_RIGHT)
    assert page.switch_to.active_element == cell(page, 1, 0)
    ActionChains(page).move_to_element(page.find_element(By.CSS_SELECTOR, '.products [data-y="2"]')).perform()
    lit = page.execute_script('''return [...document.querySelectorAll('[data-y]')].filter(each =>
        getComputedStyle(each).outlineStyle === 'solid' && each !== document.activeElement).map(each =>
        [each.closest('table').className, each.dataset.y, each.dataset.x].join(' '))''')
    assert lit == [name + ' 2 0' for name in ('editor', 'patch', 'kernel', 'products')]


def test_each_kernel_s_button_shows_what_it_makes_of_the_picture(page):
    small = page.execute_script('const {height, width, array} = picture.small; return [height, width, [...array]]')
    image = np.array(small[2], np.float32).reshape(small[:2])
    own = np.float32([[0, 0, 0], [1, -0.2, 0], [0, 0, 0]])
    page.execute_script('setMatrix(arguments[0], "your own")', own.tolist())
    for name, matrix in list(lesson1.kernels.KERNELS.items()) + [('your own', own)]:
        shown = page.execute_script('''const canvas = document.querySelector(arguments[0]), {width, height} = canvas;
            return [...canvas.getContext('2d').getImageData(0, 0, width, height).data].filter((_, i) => i % 4 === 0)
            ''', '#kernels [value="{}"] canvas'.format(name))
        expected = lesson1.figures.to_uint8(scipy.signal.correlate2d(image, matrix, 'same')[..., np.newaxis], matrix)
        assert np.abs(np.array(shown) - expected.ravel().astype(int)).max() <= 1, name


def test_lines_lead_from_the_corners_of_the_patch_to_those_of_the_output_pixel(page):
    *boxes, origin = page.execute_script('''
        return [...['picture', 'result', 'pictureNear', 'resultNear'].map(frameOf), at('lines')].map(each => {
          const {left, top, right, bottom} = each.getBoundingClientRect(); return [left, top, right, bottom]; })''')
    boxes = np.subtract(boxes, 2 * origin[:2]).reshape(2, 2, 4)
    expected = [np.r_[start[[x, y]], end[[x, y]]] for start, end in boxes for x in (0, 2) for y in (1, 3)]
    shown = [re.findall(r'[\d.]+', line.get_attribute('d')) for line in page.find_elements(By.TAG_NAME, 'path')]
    np.testing.assert_allclose(np.array(shown, float), expected, atol=0.01)


def test_of_two_pictures_the_one_that_was_chosen_last_stays(page):
    page.execute_async_script('''const done = arguments[0], decode = createImageBitmap;
        createImageBitmap = file => new Promise(ready => setTimeout(ready, file.name === "slow" ? 300 : 0))
          .then(() => decode(new ImageData(9, 9)));
        for (const name of ['slow', 'quick']) openFile({name});
        setTimeout(() => { createImageBitmap = decode; done() }, 600)''')
    assert '--image "quick"' in text(page, 'command')


def test_the_chosen_place_stays_when_stride_and_padding_change(page):
    choose(page, 'kernels', 'edge')
    page.execute_script('choosePixel(30, 60)')
    for stride, padding in ('2', 'SAME'), ('2', 'VALID'), ('5', 'VALID'), ('1', 'SAME'):
        choose(page, 'stride', stride)
        choose(page, 'padding', padding)
    assert chosen_pixel(page) == [30, 60]


@pytest.mark.parametrize('name, says', [
    ('edge', 'sum to 0: flat areas become 0'), ('blur', 'sum to 1: flat areas keep their brightness'),
    ('blur', 'it mixes neighbours'), ('emboss', 'sum to 1'),
    ([[999999, -1]], 'sum to 999998:'), ([[0, 0]], 'become 0, shown black'), ([[2, -2]], 'become 0, shown grey'),
    ([[1000000, -999999]], 'sum to 1: flat'), ([[0.1, 0.2, -0.3]], 'sum to 0:'),
    ([[1.0005]], 'flat areas keep their brightness'), ([[2]], 'This weight is 2: flat areas become brighter'),
    ([[0, 0.5], [0, 0]], 'become darker'),
    ([[0, 0, 0], [0, -1, 0], [0, 0, 0]], 'become negative'), ([[-1, -1, -1], [-1, 2, -1], [-1, -1, -1]], 'sum to -6')])
def test_the_words_are_those_of_the_kernel(page, name, says):
    page.execute_script('setMatrix(data.kernels[arguments[0]] ?? arguments[0], "your own")', name)
    assert says in text(page, 'words')
    assert ('mixes' in text(page, 'words')) == (name == 'blur')
    matrix = page.execute_script('return matrix')
    assert ('sum to 0:' in text(page, 'words')) == results.is_zero_sum(np.float32(matrix))  # in figures and tables, too


@pytest.mark.parametrize('matrix', [[[1]], [[3]], [[-1]], [[1, -0.9]], [[1, -0.4]], [[9, -9]], [[-0.1, 0.6]],
                                    [[0, 0], [0, 999999]], [[99999]]])
def test_the_share_of_what_the_screen_cannot_show_is_told(page, matrix):
    page.execute_script('setMatrix(arguments[0], "your own")', matrix)
    values, least = output(page), -1 if np.min(matrix) < 0 and np.sum(matrix) < 0.5 else 0
    is_clipped = (values < least - 1e-3) | (values > 1 + 1e-3)
    share = min(int(round(100 * np.mean(is_clipped))), 100 if is_clipped.all() else 99)
    told = re.search(r'white 1(?:; (\d+)% of the values lie outside and are clipped)?$', text(page, 'scale')).group(1)
    assert told == (str(share) if share >= 1 else None)


# ---- Motion, guide, reset ----

def test_play_slides_the_kernel_and_fills_the_output(page):
    choose(page, 'kernels', 'edge')
    page.execute_script('choosePixel(0, 0)')
    live = 'return at("where").ariaLive'
    page.find_element(By.ID, 'play').click()
    assert page.execute_script(live) == 'off'  # screen readers are not told of each step
    page.execute_async_script('setTimeout(arguments[0], 500)')
    assert chosen_pixel(page)[0] == 0 and chosen_pixel(page)[1] < 5  # slow enough to follow
    WebDriverWait(page, 20).until(lambda _: chosen_pixel(page)[0] > 5)
    page.find_element(By.ID, 'play').click()
    assert page.execute_script('choosePixel(pixel.row, pixel.column); ' + live) == 'polite'
    filled = page.execute_script("""const canvas = at('result'), count = filled;
        const bytes = canvas.getContext('2d').getImageData(0, 0, canvas.width, canvas.height).data;
        return [count, Array.from(bytes)]""")
    count, shown, alpha = filled[0], np.array(filled[1])[::4], np.array(filled[1])[3::4]
    assert 5 * 90 < count < 60 * 90 and (alpha[count:] == 0).all() and (alpha[:count] == 255).all()
    expected = 255 * np.clip(0.5 + 0.5 * output(page).ravel()[:count], 0, 1)
    assert np.abs(shown[:count] - expected).max() <= 1
    ActionChains(page).move_to_element(page.find_element(By.ID, 'result')).perform()  # one looks at what there is
    assert page.execute_script('return filled') == count
    page.find_element(By.ID, 'play').click()
    WebDriverWait(page, 20).until(lambda _: page.execute_script('return filled') > count)  # from where it was
    page.find_element(By.ID, 'result').click()  # all is there again
    assert page.execute_script("return at('result').getContext('2d').getImageData(0, 0, 90, 60).data.every("
                               "(byte, i) => i % 4 < 3 || byte === 255)")


def test_play_comes_to_its_end_in_seconds_and_the_mouse_does_not_disturb_it(page):
    before = chosen_pixel(page)
    page.find_element(By.ID, 'play').click()
    canvas = page.find_element(By.ID, 'picture')
    ActionChains(page).move_to_element(canvas).move_by_offset(5, round(0.4 * canvas.size['height'])).perform()
    assert page.execute_script('return pixel.row') < 45  # the mouse is at row 54
    WebDriverWait(page, 20).until(lambda _: text(page, 'play') != page.execute_script('return "\u275a\u275a Pause"'))
    assert chosen_pixel(page) == before
    canvas.send_keys(' ')  # scrolls nothing
    page.find_element(By.ID, 'play').click()
    choose(page, 'kernels', 'edge')  # another output, which is there at once
    assert text(page, 'play').endswith('Play') and page.execute_script('return seen === output')
    assert chosen_pixel(page) == before and page.execute_script('return scrollY') == 0


def test_what_lies_around_the_patch_and_the_output_is_enlarged(page):
    """15 x 15 pixels, framed where the kernel lies; transparent beyond the border, and where no output is yet."""
    choose(page, 'kernels', 'blur')
    page.execute_script('at("play").click(); play(false); slide(30 * 90 + 85)')
    row, column = chosen_pixel(page)
    found = {name: np.array(page.execute_script('''const canvas = at(arguments[0]);
        return Array.from(canvas.getContext('2d').getImageData(0, 0, 15, 15).data)''', name)).reshape(15, 15, 4)
        for name in ('pictureNear', 'resultNear')}
    grey = page.execute_script('return Array.from(picture.grey.array)')
    for name, values, last in [('pictureNear', grey, 60 * 90),
                               ('resultNear', output(page).ravel(), 90 * row + column + 1)]:
        values = np.where(np.arange(60 * 90) < last, values, np.nan).reshape(60, 90)
        around = np.pad(values, 7, mode='constant', constant_values=np.nan)[row:row + 15, column:column + 15]
        is_there = ~np.isnan(around)
        np.testing.assert_array_equal(found[name][..., 3] == 255, is_there)
        assert np.abs(found[name][is_there][:, 0] - 255 * around[is_there]).max() <= 1, name
    frames = page.execute_script('''return ['pictureNear', 'resultNear'].map(name =>
        ['top', 'left', 'height', 'width'].map(side =>
            parseFloat(at(name).nextElementSibling.style[side]) * 15 / 100))''')
    np.testing.assert_allclose(frames, [[6, 6, 3, 3], [7, 7, 1, 1]], atol=1e-3)
    choose(page, 'stride', '2')
    for name, down, right, expected in ('pictureNear', 4, -2, [12, 9]), ('resultNear', -3, 1, [7, 11]):  # a click there
        page.execute_script('keep(true); choosePixel(10, 10)')
        canvas = page.find_element(By.ID, name)
        ActionChains(page).move_to_element(canvas).move_by_offset(*[
            round(steps * canvas.size['width'] / 15) for steps in (right, down)]).click().perform()
        assert chosen_pixel(page) == expected


def test_the_guide_checks_its_question_and_stays_closed(page):
    page.execute_script('at("play").click(); at("play").click()')
    page.find_element(By.ID, 'guideOpen').click()
    for step, action in enumerate(['', '', 'setMatrix(data.kernels.blur, "blur")', 'setMatrix([[1]], "your own")',
                                   'at("stride").value = 2; update()']):
        assert page.find_elements(By.CSS_SELECTOR, '.shown') and 'Yes' not in text(page, 'guideText')
        page.execute_script(action)
        assert ('Yes' in text(page, 'guideText')) == (step > 1)
        page.find_element(By.ID, 'guideNext').click()
        assert page.execute_script('return seen === output')  # after Play, all is there again
    page.find_element(By.ID, 'guideBack').click()
    assert text(page, 'guideText').startswith('5 of 6') and text(page, 'guideText').endswith('Yes: 30 by 45.')
    page.find_element(By.ID, 'guideNext').click()
    for name, solved in [('left_sobel', False), ('edge', False), ('top_sobel', True), ('identity', False),
                         ([[1, 1], [-2, -2], [1, 1]], True), ([[1, 2, 1], [1, -2, 1], [-1, -2, -1]], False),
                         ([[1e-6], [-1e-6]], False)]:  # too weak to be seen
        page.execute_script('setMatrix(data.kernels[arguments[0]] ?? arguments[0], "your own")', name)
        assert ('Yes' in text(page, 'guideText')) == solved, name
    choose(page, 'kernels', 'top_sobel')  # which is not one's own
    assert 'Yes' not in text(page, 'guideText')
    page.find_element(By.ID, 'guideClose').click()
    assert page.switch_to.active_element == page.find_element(By.ID, 'guideOpen')
    assert not page.find_element(By.ID, 'guide').is_displayed()


def test_reset_brings_everything_back(page):
    before = page.execute_script('return Array.from(output.array)')
    for name, value in ('kernels', 'blur'), ('stride', '2'), ('colours', 'RGB'), ('padding', 'VALID'):
        choose(page, name, value)
    page.find_element(By.ID, 'reset').click()
    WebDriverWait(page, 20).until(lambda _: page.execute_script('return output?.array.length') == len(before))
    assert page.execute_script('return Array.from(output.array)') == before


@pytest.mark.parametrize('width, height', [(1366, 650), (1280, 720), (1024, 768), (360, 740), (2560, 1440)])
def test_the_first_screen_shows_picture_kernel_products_and_output(page, width, height):
    set_inner_size(page, max(width, 500), height)
    if width >= 500:
        bottom = page.execute_script('scrollTo(0, 0); return at("where").getBoundingClientRect().bottom - innerHeight')
        assert bottom <= 0
        choose(page, 'colours', 'RGB')  # with its three sums
        assert page.execute_script('return [...document.querySelectorAll("#arithmetic .equation")].every(each => '
                                   'each.getBoundingClientRect().bottom <= arguments[0])', height)
    assert page.execute_script('return document.documentElement.scrollWidth <= innerWidth')


def set_inner_size(page, width, height):
    """Without the browser's own bars, which a window has even where it is not seen."""
    def has_size(page):
        missing = page.execute_script('return [arguments[0] - innerWidth, arguments[1] - innerHeight]', width, height)
        if any(missing):
            outer = page.execute_script('return [outerWidth, outerHeight]')
            page.set_window_size(outer[0] + missing[0], outer[1] + missing[1])
        return not any(missing)
    WebDriverWait(page, 20).until(has_size)


# ---- Pictures of one's own, and safety ----

def test_a_picture_of_one_s_own(page, tmp_path):
    """The name of a file is text, and not HTML."""
    title, name = page.title, '<img src=x onerror=document.title=1> $".png'
    Image.new('RGB', (960, 480), (255, 0, 0)).save(str(tmp_path / name))
    page.find_element(By.ID, 'file').send_keys(str(tmp_path / name))
    says = '240 high, 480 wide (reduced here from 480 by 960)'
    WebDriverWait(page, 20).until(lambda _: text(page, 'pictureSize') == says)
    assert page.execute_script('return picture.rgb.array[0]') == 1
    assert r'--image "<img src=x onerror=document.title=1> \$\".png"' in text(page, 'command')
    (tmp_path / ('no ' + name)).write_text('no picture')
    page.find_element(By.ID, 'file').send_keys(str(tmp_path / ('no ' + name)))
    WebDriverWait(page, 20).until(lambda _: 'no ' + name + ' is no picture' in text(page, 'error'))
    choose(page, 'kernels', 'edge')
    assert output(page)[1:-1, 1:-1] == pytest.approx(0, abs=1e-5)  # the page still works
    assert page.title == title
    for size in (3, 2000), (1080, 2400):
        path = str(tmp_path / '{}.png'.format(size))
        Image.new('RGB', size).save(path)
        page.find_element(By.ID, 'file').send_keys(path)
        WebDriverWait(page, 20).until(lambda _: '{1} by {0}'.format(*size) in text(page, 'pictureSize'))
        assert page.execute_script('return at("where").getBoundingClientRect().bottom + scrollY <= innerHeight')
        choose(page, 'padding', 'VALID')
        assert ('VALID the kernel must fit' in text(page, 'error')) == (size[0] == 3)


FRAMES = 'requestAnimationFrame(() => requestAnimationFrame(arguments[0]))'


def test_the_camera_s_pictures_are_filtered_until_a_click_keeps_one(page):
    """The browser's own test picture, which moves; nothing is asked before the button is pressed."""
    pixels = 'return [picture.grey.height, picture.grey.width, sumOf([...picture.grey.array])]'
    asked = 'const {getUserMedia} = navigator.mediaDevices; ' \
            'navigator.mediaDevices.getUserMedia = given => { window.asked = given; return getUserMedia.call(' \
            'navigator.mediaDevices, given); }'
    before = page.execute_script(asked + '; ' + pixels)
    assert page.execute_script('return window.asked') is None
    page.find_element(By.ID, 'camera').click()
    WebDriverWait(page, 20).until(lambda _: text(page, 'camera') == 'Freeze')
    assert page.execute_script('return window.asked') == {'video': {'width': 480}}
    WebDriverWait(page, 20).until(lambda _: page.execute_script(pixels)[:2] not in [before[:2], [1, 1]])
    first = page.execute_script(pixels)
    WebDriverWait(page, 20).until(lambda _: page.execute_script(pixels) != first)
    replace(page, cell(page, 1, 1), '-')  # an error, and what is read out, stay as they are
    page.execute_async_script(FRAMES)
    assert 'No number' in text(page, 'error') and text(page, 'command').endswith('to save it')
    assert page.find_element(By.ID, 'where').get_attribute('aria-live') == 'off'
    tracks = page.execute_script('window.tracks = camera.getTracks(); return tracks.length')
    page.find_element(By.ID, 'result').click()
    assert page.find_element(By.ID, 'where').get_attribute('aria-live') == 'polite'
    kept = page.execute_script(pixels)
    page.execute_async_script('setTimeout(arguments[0], 200)')
    assert page.execute_script(pixels) == kept and tracks == 1
    assert page.execute_script('return tracks[0].readyState') == 'ended' and text(page, 'camera') == 'Camera'
    page.find_element(By.ID, 'camera').click()
    WebDriverWait(page, 20).until(lambda _: page.execute_script('return !!camera'))
    page.find_element(By.ID, 'play').click()
    assert not page.execute_script('return camera') and text(page, 'play').endswith('Pause')
    choose(page, 'kernels', 'left_sobel')
    kept = page.execute_script(pixels)
    image = np.reshape(page.execute_script('return [...picture.grey.array]'), kept[:2])
    expected = scipy.signal.correlate2d(image, lesson1.kernels.KERNELS['left_sobel'], 'same')
    np.testing.assert_allclose(output(page)[..., 0], expected, atol=1e-6)


def test_without_a_camera_one_line_says_so(page):
    page.execute_script('navigator.mediaDevices.getUserMedia = () => Promise.reject(new Error())')
    page.find_element(By.ID, 'camera').click()
    WebDriverWait(page, 20).until(lambda _: text(page, 'error') == 'There is no camera that this browser may use.')
    assert page.find_element(By.ID, 'camera').is_enabled() and text(page, 'camera') == 'Camera'


@pytest.mark.parametrize('name', list(pages.SCRIPTS))
def test_the_page_in_docs_is_today_s(name):
    in_docs = pathlib.Path(ROOT, 'docs', name).read_text(encoding='utf-8')
    assert re.sub('(?m)id="data">.*$', 'id="data">{}</script>', in_docs) == pages.render(name, {}).decode('utf-8')


def test_a_small_file_that_asks_for_nothing(page, folder):
    assert_asks_for_nothing(page, folder / 'basic_filters.html', 600000)


def assert_asks_for_nothing(page, path, size):
    content = path.read_text(encoding='utf-8')
    assert path.stat().st_size < size and content.count('<script') == 2
    assert content.count('script-src') == content.count("script-src 'sha256-") == 1  # no other script runs
    assert page.execute_script('return performance.getEntriesByType("resource").filter(each => '
                               '!each.name.startsWith("data:")).length') == 0
    blocked = page.execute_async_script('''const done = arguments[0];
        fetch('data:text/plain,x').then(() => done(false), () => done(true))''')
    assert blocked and not re.search('localStorage|sessionStorage|indexedDB|document.cookie|https?://', content)
    for control in page.find_elements(By.CSS_SELECTOR, 'input, select, button'):
        assert control.get_attribute('aria-label') or control.get_attribute('textContent') or page.execute_script(
            'return arguments[0].labels.length', control)
