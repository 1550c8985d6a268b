"""What the lessons show of their results: tables on the terminal, figures saved as PNG.

matplotlib is imported when the first figure is drawn; it takes half a second.
"""
import os

import numpy as np

import utils


def print_layers(layers, variables):
    """Prints each layer's output shape, weights and number of parameters. layers: {name: tensor}."""
    print('{:16}{:>16}{:>20}{:>12}'.format('layer', 'output', 'weights', 'parameters'))
    total = 0
    for name, output in layers.items():
        shapes = [variable.shape.as_list() for variable in variables if variable.op.name.startswith(name + '/')]
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
    with utils.writing(path):
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
    with utils.writing(path):
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
    from matplotlib import pyplot
    columns = max(len(row) for row in rows)
    figure, axes = pyplot.subplots(len(rows), columns, squeeze=False, figsize=(2.6 * columns, 3.1 * len(rows)))
    for axis in axes.flat:
        axis.axis('off')
    for row, row_axes in zip(rows, axes):
        for (title, caption, picture), axis in zip(row, row_axes):
            if picture.shape[2] == 1:
                picture = picture.repeat(3, axis=2)  # as RGB, matplotlib does not stretch the contrast
            axis.imshow(picture)
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
    from matplotlib import pyplot
    figure, axis = pyplot.subplots(figsize=(8, 5))
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
    from matplotlib import pyplot
    figure = pyplot.figure(figsize=(11, 5.2))
    grid = figure.add_gridspec(2, 2, height_ratios=[2.5, 1], left=0.02, right=0.98, top=0.93, bottom=0.06, hspace=0.3)
    for place, title, kernels in [(grid[0, 0], 'conv1 before training', before),
                                  (grid[0, 1], 'conv1 after training: learned', after)]:
        axis = figure.add_subplot(place)
        axis.imshow(mosaic(kernels, columns=8), cmap='gray', vmin=-1, vmax=1)
        axis.set_title(title, fontweight='bold', loc='left')
        axis.axis('off')
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


def mosaic(kernels, columns):
    """[h, w, 1, n] -> one array, each kernel scaled to magnitude 1, with white lines between them."""
    h, w, _, count = kernels.shape
    sheet = np.full([count // columns * (h + 1) - 1, columns * (w + 1) - 1], np.nan)
    for index in range(count):
        y, x = index // columns * (h + 1), index % columns * (w + 1)
        kernel = kernels[:, :, 0, index]
        sheet[y:y + h, x:x + w] = kernel / max(abs(kernel).max(), 1e-9)
    return sheet
