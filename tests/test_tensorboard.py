"""TensorBoard in a real browser, which looks at the logs of a short run. The README's screenshots come from here:

    python -m pytest tests/test_tensorboard.py -m "" --screenshots docs
"""
import contextlib
import io
import os
import re
import subprocess
import sys
import time

import pytest
from PIL import Image
from selenium import webdriver

from conftest import BOXES, FIGURES, LAYERS, event_log, lesson2, lesson3, logged, run_here, user_environment

FIND = '''
function find(root, selector, found) {  // in shadow roots, too
  found.push(...root.querySelectorAll(selector));
  root.querySelectorAll('*').forEach(each => { if (each.shadowRoot) find(each.shadowRoot, selector, found); });
  return found;
}
return find(document, arguments[0], []).filter(each => each.getBoundingClientRect().width > 0)'''
TIDY = '''
const [annotations, shapes, operations, boxes] = arguments;
annotations.forEach(each => { each.style.display = 'none'; });  // labels of boxes set aside, which overlap
for (const label of shapes) {  // upright, beside the arrow
  const path = label.previousElementSibling, {x, y} = path.getPointAtLength(path.getTotalLength() / 2);
  label.textContent = label.textContent.includes('\u00d7') ? label.textContent : '';
  label.style.fontSize = '5px';
  for (const [name, value] of Object.entries({x, y, dx: 4, dy: 2})) label.setAttribute(name, value);
}
for (const label of operations) label.setAttribute('dx', -20);  // away from the arrows
for (const box of boxes) box.style.fill = '#eee';  // its colours stand for structure, and say nothing here'''


@pytest.fixture(scope='module')
def address(four_epochs):
    with tensorboard(str(four_epochs.folder / 'graphs')) as address:
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
    try:
        yield found.group()
    finally:
        process.kill()
        process.communicate()


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
            browser.execute_script(TIDY, *[browser.execute_script(FIND, selector) for selector in (
                'g.annotation', 'g.edge text', 'g.op text', 'g.node rect')])
            picture = Image.open(io.BytesIO(browser.get_screenshot_as_png()))
            pixels = picture.width / browser.execute_script('return innerWidth')
            edges = browser.execute_script(FIND, 'path.edgeline')
            boxes = [element.rect for element in list(elements) + edges if element.rect['width']]
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


def set_aside(browser, find, aside):
    """Removes boxes from the main graph, as README says. Returns those that stay."""
    for name in aside:
        box = next(node for node in find('g.node[data-name]') if node.get_attribute('data-name') == name)
        webdriver.ActionChains(browser).click(still(box)).perform()
        find('paper-button', lambda found: any(each.text.endswith('main graph') for each in found))
        for button in [each for each in find('paper-button') if each.text == 'Remove from main graph']:
            button.click()  # TensorBoard itself sets some boxes aside
        find('paper-button', lambda found: any(each.text == 'Add to main graph' for each in found))
    kept = [node for node in find('g.node[data-name]') if node.get_attribute('data-name') not in aside]
    still(kept[-1])
    webdriver.ActionChains(browser).move_to_element(kept[0]).move_by_offset(0, 60).click().perform()  # selects none
    return kept


# ---- What is in the log ----

def test_the_log_of_a_run_and_of_one_that_was_continued(four_epochs, two_epochs):
    """The lecture's graph, and continuous curves: TensorBoard forgets what a run that goes on does again."""
    run_here(lesson2, *two_epochs.flags, '--epochs', 4)
    after_each_epoch = ['accuracy/validation', 'accuracy/test'] + [
        'histograms/{}/{}'.format(layer, kind) for layer in LAYERS
        for kind in ('activations',) + (('weights', 'biases') if 'pool' not in layer else ())]
    expected = dict({tag: [6, 12, 18, 24] for tag in after_each_epoch}, **{'summaries/cross_entropy': [10, 20]})
    for run in four_epochs, two_epochs:
        graph = event_log(run.folder).Graph()
        assert {node.name.split('/')[0] for node in graph.node} - {'save', 'init'} == BOXES
        assert {tag: [step for step, _ in values] for tag, values in logged(run.folder).items()} == expected
        assert set(event_log(run.folder).Tags()['images']) == set(FIGURES)


# ---- What TensorBoard shows ----

def test_the_graph_has_the_boxes_of_the_lecture_and_conv1_opens(page, browser, screenshot, request):
    find = page('graphs&run=convnet_mnist')
    nodes = find('g.node[data-name]', lambda found: len(found) >= len(BOXES) - 2)
    assert names(nodes) - {'save', 'init'} == BOXES - {'summaries', 'histograms'}  # which TensorBoard does not draw
    if request.config.getoption('--screenshots'):
        aside = ['moving_average', 'train', 'evaluation'] + sorted(names(nodes) & {'save', 'init'})
        screenshot('tensorboard_graph.png', set_aside(browser, find, aside))
    conv1 = next(node for node in find('g.node[data-name]') if node.get_attribute('data-name') == 'conv1')
    webdriver.ActionChains(browser).double_click(still(conv1)).perform()
    inside = find('g.node[data-name^="conv1/"]', lambda found: len(found) >= 3)
    assert {'conv1/weights', 'conv1/biases', 'conv1/Conv2D'} <= names(inside)


@pytest.mark.slow
def test_the_graph_of_two_towers(page, browser, screenshot, small_data, tmp_path):
    run_here(lesson3, '--epochs', 1, '--data-dir', small_data, '--output-dir', tmp_path)
    in_towers = {'scale', 'pool1', 'pool2', 'dropout', 'loss'}
    boxes = BOXES - in_towers - {'summaries', 'histograms'} | {'tower_0', 'tower_1', 'sum', 'whole', 'batch_size'}
    with tensorboard(str(tmp_path / 'graphs')) as address:
        find = page('graphs', address)
        found = names(find('g.node[data-name]', lambda found: len(found) >= len(boxes)))
        assert found - {'save', 'init'} == boxes
        aside = ['moving_average', 'train', 'evaluation', 'whole', 'global_step', 'batch_size']
        aside += sorted(found & {'save', 'init'})
        kept = set_aside(browser, find, aside)
        assert names(kept) == boxes - set(aside)
        screenshot('tensorboard_towers.png', kept)


def test_the_scalars_are_curves_of_the_run(page):
    find = page('scalars')
    assert find('vz-line-chart2, tf-line-chart-data-loader', lambda found: len(found) >= 3)
    assert find('tf-runs-selector, tf-multi-checkbox', lambda found: any('convnet_mnist' in each.text
                                                                         for each in found))
    curves = find('svg path.line, svg .plot path, svg .line-plot path', lambda found: len(found) >= 4)
    assert any(len(curve.get_attribute('d') or '') > 20 for curve in curves)


@pytest.mark.parametrize('name, selector', [
    ('images', 'img'), ('histograms', 'svg .histogram path, svg path.outline, svg g.histogram')])
def test_the_images_and_histograms_show_something(page, name, selector):
    found = page(name)(selector, lambda found: len(found) >= 2)
    assert name != 'images' or all(int(picture.get_property('naturalWidth')) > 300 for picture in found)
