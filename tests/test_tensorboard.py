"""TensorBoard in a real browser: headless Chromium looks at the logs of a short run.

Debian's packages chromium and chromium-driver, and selenium; skipped where they are missing. The
README's screenshots come from here:

    python -m pytest tests/test_tensorboard.py --screenshots docs --logs graphs
"""
import contextlib
import io
import os
import re
import shutil
import subprocess
import sys
import time

import pytest
from PIL import Image

from conftest import BOXES, user_environment
from test_training import run_once

webdriver = pytest.importorskip('selenium.webdriver')
DRIVER, BROWSER = shutil.which('chromedriver'), shutil.which('chromium')
if not (DRIVER and BROWSER):
    pytest.skip('no chromium and chromedriver here', allow_module_level=True)

SHOWN_BOXES = BOXES - {'histograms'}  # TensorBoard draws summaries beside what they summarize, and not as a box
FIND = '''
function find(root, selector, found) {  // in shadow roots, too
  found.push(...root.querySelectorAll(selector));
  root.querySelectorAll('*').forEach(each => { if (each.shadowRoot) find(each.shadowRoot, selector, found); });
  return found;
}
return find(document, arguments[0], []).filter(each => each.getBoundingClientRect().width > 0)'''


@pytest.fixture(scope='module')
def logs(request, tmp_path_factory, small_data, lesson2):
    if request.config.getoption('--logs'):
        return request.config.getoption('--logs')
    folder = tmp_path_factory.mktemp('run')
    run_once(lesson2, '--epochs', 3, '--data-dir', small_data, '--output-dir', folder)
    return str(folder / 'graphs')


@pytest.fixture(scope='module')
def address(logs):
    with tensorboard(logs) as address:
        yield address


@contextlib.contextmanager
def tensorboard(logs):
    """Starts TensorBoard, and yields its address."""
    folder, name = os.path.split(os.path.abspath(logs))
    process = subprocess.Popen([sys.executable, '-m', 'tensorboard.main', '--logdir', name, '--host', '127.0.0.1',
                                '--port', '0'], cwd=folder, stderr=subprocess.PIPE, universal_newlines=True,
                               env=user_environment())
    found = None
    for line in process.stderr:
        found = re.search(r'http://127\.0\.0\.1:\d+/', line)
        if found:
            break
    assert found, 'TensorBoard ended with status {}'.format(process.wait())
    yield found.group()
    process.kill()
    process.communicate()


@pytest.fixture(scope='module')
def browser(tmp_path_factory):
    from selenium.webdriver.chrome.service import Service
    options = webdriver.ChromeOptions()
    options.binary_location = BROWSER
    for argument in ('headless', 'no-sandbox', 'disable-gpu', 'disable-dev-shm-usage', 'disable-quic', 'no-first-run',
                     'disable-background-networking', 'disable-component-update', 'disable-sync',
                     'window-size=1400,1200', 'force-device-scale-factor=2',
                     'user-data-dir={}'.format(tmp_path_factory.mktemp('chromium'))):
        options.add_argument('--' + argument)
    service = Service(DRIVER)
    service.start()
    driver = webdriver.Remote(service.service_url, options=options)  # as selenium 3 and 4 both understand it
    yield driver
    driver.quit()
    service.stop()


@pytest.fixture
def page(browser, address):
    """Opens one of TensorBoard's pages; returns a function that finds visible elements, and waits for them."""
    def open_page(name, address=address):
        browser.get('about:blank')
        browser.get(address + '#' + name)

        def find(selector, enough=bool):
            deadline = time.time() + 60
            while time.time() < deadline:
                found = browser.execute_script(FIND, selector)
                if enough(found):
                    return found
                time.sleep(0.2)
            raise AssertionError('{}: waited in vain for {}, found {}'.format(name, selector, sorted(
                each.get_attribute('data-name') or each.tag_name for each in found)))
        return find
    return open_page


@pytest.fixture
def screenshot(request, browser):
    def save(name, elements):
        """Saves a picture of the part of the page in which the elements are, if one is asked for."""
        folder = request.config.getoption('--screenshots')
        if folder:
            time.sleep(2)  # until its animations end
            picture = Image.open(io.BytesIO(browser.get_screenshot_as_png()))
            pixels = picture.width / browser.execute_script('return innerWidth')
            boxes = [element.rect for element in elements]
            left, top = [min(box[side] for box in boxes) - 6 for side in 'xy']
            right, bottom = [max(box[side] + box[size] for box in boxes) + 15
                             for side, size in (('x', 'width'), ('y', 'height'))]
            picture.crop([int(side * pixels) for side in (left, top, right, bottom)]).save(os.path.join(folder, name))
    return save


def still(element):
    """The element, as soon as TensorBoard no longer moves it."""
    before = None
    while element.rect != before:
        before = element.rect
        time.sleep(0.5)
    return element


def names(nodes):
    return {node.get_attribute('data-name') for node in nodes}


def set_aside(browser, find, aside=('checkpoint', 'moving_average', 'train', 'evaluation')):
    """Removes boxes from the main graph, as README says. Returns those that stay, but for TensorBoard's own 'init'."""
    for name in aside:
        box = next(node for node in find('g.node[data-name]') if node.get_attribute('data-name') == name)
        webdriver.ActionChains(browser).click(still(box)).perform()
        find('paper-button', lambda found: any(each.text == 'Remove from main graph' for each in found))
        next(each for each in find('paper-button') if each.text == 'Remove from main graph').click()
        find('paper-button', lambda found: any(each.text == 'Add to main graph' for each in found))
    kept = [node for node in find('g.node[data-name]') if node.get_attribute('data-name') not in aside + ('init',)]
    still(kept[-1])
    webdriver.ActionChains(browser).move_to_element(kept[0]).move_by_offset(0, 60).click().perform()  # selects none
    return kept


def test_the_graph_has_the_boxes_of_the_lecture_and_conv1_opens(page, browser, screenshot):
    find = page('graphs&run=convnet_mnist%2Ftrain')
    nodes = find('g.node[data-name]', lambda found: len(found) >= len(SHOWN_BOXES))
    assert names(nodes) == SHOWN_BOXES
    screenshot('tensorboard_graph.png', set_aside(browser, find))
    nodes = find('g.node[data-name]')
    conv1 = next(node for node in nodes if node.get_attribute('data-name') == 'conv1')
    webdriver.ActionChains(browser).double_click(still(conv1)).perform()
    inside = find('g.node[data-name^="conv1/"]', lambda found: len(found) >= 3)
    assert {'conv1/weights', 'conv1/biases', 'conv1/Conv2D'} <= names(inside)
    assert {name for name in names(find('g.node[data-name]')) if '/' not in name} == SHOWN_BOXES


def test_the_graph_of_two_towers(page, browser, screenshot, small_data, lesson3, tmp_path):
    run_once(lesson3, '--epochs', 1, '--data-dir', small_data, '--output-dir', tmp_path)
    in_towers = {'pool1', 'pool2', 'dropout', 'loss', 'gradients'}
    boxes = SHOWN_BOXES - in_towers | {'tower_0', 'tower_1', 'sum', 'batch_size'}
    with tensorboard(str(tmp_path / 'graphs')) as address:
        find = page('graphs', address)
        assert names(find('g.node[data-name]', lambda found: len(found) >= len(boxes))) == boxes
        screenshot('tensorboard_towers.png', set_aside(browser, find))


def test_the_scalars_show_the_runs(page):
    find = page('scalars')
    assert find('vz-line-chart2, tf-line-chart-data-loader', lambda found: len(found) >= 3)
    for run in 'train', 'validation', 'test':
        assert find('tf-runs-selector, tf-multi-checkbox', lambda found: any(run in each.text for each in found))
    curves = find('svg path.line, svg .plot path, svg .line-plot path', lambda found: len(found) >= 4)
    assert any(len(curve.get_attribute('d') or '') > 20 for curve in curves)


def test_the_images_are_the_figures(page):
    pictures = page('images')('img', lambda found: len(found) >= 2)
    assert all(int(picture.get_property('naturalWidth')) > 300 for picture in pictures[:2])


def test_the_histograms_show_something(page):
    shapes = page('histograms')('svg .histogram path, svg path.outline, svg g.histogram', lambda found: len(found) >= 3)
    assert shapes


def test_the_projector_finds_the_activations(page, browser):
    find = page('projector')
    while True:
        (first, *_) = find('iframe, vz-projector')
        if first.tag_name != 'iframe':
            break
        browser.switch_to.frame(first)
    assert find('span.numDims, span', lambda found: any('1024' in each.text for each in found))
