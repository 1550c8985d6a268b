"""What the lessons show of their results: tables on the terminal, figures saved as PNG.

matplotlib is imported when the first figure is drawn; it takes half a second.
"""
import os

import numpy as np

import utils
from support import cli


def print_layers(layers, variables):
    """Prints each layer's output shape, weights and number of parameters. layers: {name: tensor}."""
    print('{:16}{:>16}{:>20}{:>12}'.format('layer', 'output', 'weights', 'parameters'))
    total = 0
    for name, output in layers.items():
        shapes = [variable.shape.as_list() for variable in variables
                  if variable.op.name in (name + '/weights', name + '/biases')]
        parameters = sum(int(np.prod(shape)) for shape in shapes)
        total += parameters
        print('{:16}{:>16}{:>20}{:>12,}'.format(name, ' x '.join(map(str, output.shape.as_list()[1:])),
                                                ' x '.join(map(str, shapes[0])) if shapes else '', parameters))
    print('{:52}{:>12,}\n'.format('in all', total))


def print_rows(rows, lecture, header=False):
    """Prints rows of the table of epochs, beside the lecture's {epoch: test accuracy}."""
    if header:
        print('epoch  training loss  validation    test  lecture')
    for row in rows:
        print('{epoch:5}  {loss:13.4f}  {validation:10.4f}  {test:6.4f}  {:>7}'.format(
            '{:.4f}'.format(lecture[row['epoch']]) if row['epoch'] in lecture else '', **row), flush=True)


def print_predictions(names, probabilities):
    """Prints the digit and the runner-up for each picture. probabilities: [n, 10]."""
    width = max(len(name) for name in names)
    print('{:{}}  digit  probability  runner-up'.format('picture', width))
    for name, row in zip(names, probabilities):
        second, first = np.argsort(row)[-2:]
        print('{:{}}  {:5}  {:11.4f}  {} ({:.4f})'.format(name, width, first, row[first], second, row[second]))


def without_windows():
    """To be called before the first figure by whoever will not call show_windows: no display is needed then."""
    os.environ.pop('MPLBACKEND', None)  # a notebook's terminal inherits one that works only in the notebook
    import matplotlib
    matplotlib.use('Agg')


def with_windows():
    """To be called before the first figure by whoever will call show_windows."""
    try:
        from matplotlib import pyplot
        pyplot.switch_backend(pyplot.get_backend())  # loads it
    except (ImportError, ValueError):  # MPLBACKEND names a backend that does not work here
        without_windows()


def show_windows():
    """Opens a window for each figure, where there is a display; else does nothing."""
    from matplotlib import pyplot
    if pyplot.get_backend().lower() not in ('agg', 'cairo', 'pdf', 'pgf', 'ps', 'svg', 'template'):
        pyplot.show()


def check_target(path):
    """Raises UserError unless a figure can be written there: over no picture but one that was written here."""
    from PIL import Image
    if not path.lower().endswith('.png'):
        raise utils.UserError('{}: expected a name that ends in .png'.format(path))
    with cli.writing(path):
        os.makedirs(os.path.dirname(os.path.abspath(path)), exist_ok=True)
    if os.path.exists(path):
        try:
            with Image.open(path) as old:
                ours = old.info.get('Software') == 'lecture 07'
        except Exception:  # whatever it is, it is no picture of ours
            ours = False
        if not ours:
            raise utils.UserError('{}: exists, and is not a picture that this script made; '
                                  'choose another name or move it away'.format(path))


def save_figure(figure, path):
    """Writes a PNG, whole or not at all."""
    check_target(path)
    unfinished = '{}.{}.tmp'.format(path, os.getpid())
    with cli.writing(path):
        try:
            figure.savefig(unfinished, format='png', dpi=100, metadata={'Software': 'lecture 07'})
            os.replace(unfinished, path)
        finally:
            if os.path.exists(unfinished):
                os.remove(unfinished)


def draw_pictures(path, rows, detail=None):
    """Saves a grid of pictures; rows of (title, caption, uint8 [height, width, 1 or 3]).

    detail: a point (y, x), each from 0 to 1; every picture shows its surroundings magnified.
    """
    from PIL import Image
    from matplotlib import pyplot
    columns = max(len(row) for row in rows)
    figure, axes = pyplot.subplots(len(rows), columns, squeeze=False, figsize=(2.6 * columns, 3.1 * len(rows)))
    for axis in axes.flat:
        axis.axis('off')
    for row, row_axes in zip(rows, axes):
        for (title, caption, picture), axis in zip(row, row_axes):
            if picture.shape[2] == 1:
                picture = picture.repeat(3, axis=2)  # as RGB, matplotlib does not stretch the contrast
            height, width = picture.shape[:2]
            smaller = Image.fromarray(picture).reduce(max(min(height, width) // 1000, 1))  # of a photo, for speed
            axis.imshow(smaller, extent=[-0.5, width - 0.5, height - 0.5, -0.5])
            axis.set_title(title, fontsize=13, fontweight='bold', loc='left')
            axis.text(0, -0.02, caption, fontsize=8, va='top', family='monospace', transform=axis.transAxes)
            if detail:
                add_detail(axis, picture, detail)
    figure.tight_layout()
    save_figure(figure, path)


def add_detail(axis, picture, point):
    from matplotlib.patches import Rectangle
    height, width = picture.shape[:2]
    side = max(min(height, width) // 12, 4)
    top = int(min(max(point[0] * height - side / 2, 0), height - side))
    left = int(min(max(point[1] * width - side / 2, 0), width - side))
    inset = axis.inset_axes([0.6, 0, 0.4, 0.4])
    inset.imshow(picture[max(top, 0):, max(left, 0):][:side, :side], interpolation='nearest')
    inset.set(xticks=[], yticks=[])
    for frame in inset.spines.values():
        frame.set_color('gold')
    axis.add_patch(Rectangle((left, top), side, side, fill=False, color='gold'))


def draw_training_curve(path, rows, lecture):
    """Saves validation and test accuracy by epoch, beside the lecture's {epoch: accuracy}."""
    from matplotlib.figure import Figure
    figure = Figure(figsize=(8, 5))
    axis = figure.subplots()
    epochs = [row['epoch'] for row in rows]
    axis.plot(epochs, [row['test'] for row in rows], 'o-', color='C0', label='test')
    axis.plot(epochs, [row['validation'] for row in rows], 's--', color='C1', markersize=4, label='validation')
    shown = [epoch for epoch in lecture if epoch <= max(epochs[-1], 5)]
    axis.plot(shown, [lecture[epoch] for epoch in shown], 'k^:', label="the lecture's test accuracy")
    axis.set(xlabel='epochs', ylabel='accuracy', title='Accuracy by epoch')
    axis.xaxis.get_major_locator().set_params(integer=True)
    axis.grid(alpha=0.3)
    axis.legend(loc='lower right')
    save_figure(figure, path)


def draw_kernels(path, before, after, hand_coded):
    """Saves conv1's kernels [5, 5, 1, 32] before and after training, above the {name: matrix} of lesson 1."""
    from matplotlib.figure import Figure
    figure = Figure(figsize=(11, 5.2))
    grid = figure.add_gridspec(2, 2, height_ratios=[2.5, 1], left=0.02, right=0.98, top=0.93, bottom=0.06, hspace=0.3)
    for place, title, kernels in [(grid[0, 0], 'conv1 before training', before),
                                  (grid[0, 1], 'conv1 after training', after)]:
        kernels = np.moveaxis(kernels[:, :, 0], 2, 0)
        kernels = kernels / np.maximum(abs(kernels).max(axis=(1, 2), keepdims=True), 1e-9)
        draw_tiles(figure.add_subplot(place), title, kernels, columns=8, low=-1, high=1)
    row = grid[1, :].subgridspec(1, len(hand_coded))
    for index, (name, matrix) in enumerate(hand_coded.items()):
        axis = figure.add_subplot(row[index])
        axis.imshow(matrix / abs(matrix).max(), cmap='gray', vmin=-1, vmax=1)
        axis.set(xticks=[], yticks=[], xlabel=name)
        if index == 0:
            axis.set_title('hand-coded, from lesson 1', fontweight='bold', loc='left')
    figure.text(0.98, 0.33, 'each kernel: white its largest magnitude if positive, black if negative, grey 0',
                ha='right', fontsize=9)
    save_figure(figure, path)


def draw_activations(path, image, conv1, conv2):
    """Saves what conv1 [28, 28, 32] and conv2 [14, 14, 64] answer to one image [28, 28]."""
    from matplotlib.figure import Figure
    figure = Figure(figsize=(11.5, 6.6))
    grid = figure.add_gridspec(1, 3, width_ratios=[1.2, 1.5, 3], left=0.02, right=0.98, top=0.94, bottom=0.06)
    draw_tiles(figure.add_subplot(grid[0]), 'a test digit', image[np.newaxis], 1, 0, 255)
    for place, title, layer, columns in [(grid[1], 'conv1: 32 answers, 28 x 28', conv1, 4),
                                         (grid[2], 'conv2: 64 answers, 14 x 14', conv2, 8)]:
        draw_tiles(figure.add_subplot(place), title, np.moveaxis(layer, 2, 0), columns, 0, layer.max())
    figure.text(0.02, 0.02, 'one square for each kernel: black 0 (relu cuts off what is below), '
                            'white the strongest answer of the layer', fontsize=9)
    save_figure(figure, path)


def draw_tiles(axis, title, tiles, columns, low, high):
    """Shows tiles [n, h, w] in rows of so many columns, with white lines between them; low is black, high is white."""
    count, h, w = tiles.shape
    sheet = np.full([-(-count // columns) * (h + 1) - 1, columns * (w + 1) - 1], np.nan)
    for index, tile in enumerate(tiles):
        y, x = index // columns * (h + 1), index % columns * (w + 1)
        sheet[y:y + h, x:x + w] = tile
    axis.imshow(sheet, cmap='gray', vmin=low, vmax=high)
    axis.set_title(title, fontweight='bold', loc='left')
    axis.axis('off')


def draw_confusion(path, labels, predicted):
    """Saves how often each digit was read as which. labels, predicted: [n]."""
    from matplotlib.figure import Figure
    counts = np.zeros([10, 10], int)
    np.add.at(counts, (labels, predicted), 1)
    mistakes = counts * (1 - np.eye(10, dtype=int))
    figure = Figure(figsize=(7, 6.6))
    axis = figure.subplots()
    axis.imshow(mistakes, cmap='Greys', vmax=max(2 * mistakes.max(), 1))  # at most half dark: the numbers stay readable
    for (y, x), count in np.ndenumerate(counts):
        if count:
            axis.text(x, y, count, ha='center', va='center',
                      fontsize=9 if x == y else 12, color='0.5' if x == y else 'k')
    axis.set(xticks=range(10), yticks=range(10), xlabel='read as', ylabel='digit',
             title='{} of {:,} test digits misread'.format(mistakes.sum(), len(labels)))
    figure.tight_layout()
    save_figure(figure, path)


def draw_mistakes(path, digits, probabilities):
    """Saves the 25 digits whose true label got the least probability, [n, 10]."""
    predicted = probabilities.argmax(axis=1)
    wrong = np.flatnonzero(predicted != digits.labels)
    worst = wrong[np.argsort(probabilities[wrong, digits.labels[wrong]])][:25]
    captions = ['{}, read as {} ({:.3f})'.format(digits.labels[each], predicted[each],
                                                 probabilities[each, predicted[each]]) for each in worst]
    draw_captioned(path, 'The worst mistakes: label, what was read, and its probability',
                   digits.images[worst], captions)


def draw_predictions(path, names, images, probabilities):
    """Saves what the network saw of each picture, images [n, 28, 28], and what it read."""
    captions = ['{}\n{} ({:.3f})'.format(os.path.basename(name), row.argmax(), row.max())
                for name, row in zip(names, probabilities)]
    draw_captioned(path, 'What the network saw, what it read, and its probability', images, captions)


def draw_captioned(path, title, images, captions):
    from matplotlib.figure import Figure
    rows = max(1, -(-len(images) // 5))
    figure = Figure(figsize=(9, 0.6 + 2 * rows))
    axes = figure.subplots(rows, 5, squeeze=False)
    for axis in axes.flat:
        axis.axis('off')
    for axis, image, caption in zip(axes.flat, images, captions):
        axis.axis('on')  # a frame, which shows where in the 28 x 28 pixels the digit stands
        axis.set(xticks=[], yticks=[])
        axis.imshow(image, cmap='Greys', vmin=0, vmax=255)
        axis.set_title(caption, fontsize=9)
    figure.suptitle(title, fontweight='bold')
    figure.tight_layout(rect=[0, 0, 1, 1 - 0.1 / (0.6 + 2 * rows)])
    save_figure(figure, path)


def as_summary(paths):
    """{name: PNG file} -> a summary for TensorBoard's images."""
    import tensorflow.compat.v1 as tf
    from PIL import Image
    values = []
    for name, path in paths.items():
        with Image.open(path) as picture, open(path, 'rb') as file:
            values.append(tf.Summary.Value(tag=name, image=tf.Summary.Image(
                width=picture.width, height=picture.height, encoded_image_string=file.read())))
    return tf.Summary(value=values)
