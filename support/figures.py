"""Everything that is drawn."""
import collections
import io
import os

import numpy as np
import tensorflow.compat.v1 as tf
from matplotlib import style
from matplotlib.figure import Figure
from matplotlib.patches import Polygon, Rectangle
from matplotlib.ticker import NullLocator
from PIL import Image

import kernels
from support import outputs, results, script

WINDOWS = []  # the figures of pyplot that new_figure made
FILTERS_FIGURES = ['basic_filters.png', 'conv_ops.png', 'padding.png']


def save_figure(figure, path, dpi=100):
    """Writes a Figure as PNG. Returns the same as tf.Summary.Image."""
    file = io.BytesIO()
    figure.savefig(file, format='png', dpi=dpi, pil_kwargs={'compress_level': 1})  # in a third of the time
    outputs.write_whole(path, file.getvalue())
    width, height = Image.open(file).size
    return tf.Summary.Image(width=width, height=height, encoded_image_string=file.getvalue())


# ---- Lesson 1 ------------------------------------------------------------------------------------

# What a screen can show of a picture or an output of the size [height, width]: an overview, and a detail, which is
# framed in it; frame: top, left and side.
View = collections.namedtuple('View', 'size overview frame detail')


def view(output, matrix, flags, pixel, size):
    """Returns the View of an output [height, width, 1 or 3] of a kernel [h, w].

    pixel: row and column in the picture, of the size [height, width], whose surroundings are the detail.
    """
    shown = to_uint8(output, matrix)
    height, width = shown.shape[:2]
    side = min(max(min(height, width) // 12, 6), height, width)
    margin = (np.array(matrix.shape) - 1) // 2 if flags.padding == 'VALID' else 0  # pixels that no output is for
    centre = (np.array(pixel) + 0.5 - margin) / (np.array(size) - 2 * margin)  # from 0 to 1
    top, left = [int(min(max(middle * full - side / 2, 0), max(full - side, 0)))
                 for middle, full in zip(centre, (height, width))]
    overview = pillow_image(shown).reduce(max(min(height, width) // 1000, 1))
    return View((height, width), overview, (top, left, side), shown[top:top + side, left:left + side].copy())


def to_uint8(values, matrix):
    """Converts an output [height, width, 1 or 3] to uint8 for display, on one scale for all kernels.

    A kernel that sums to 0 gives positive and negative values: 0 becomes grey, -1 black and 1 white. Of any
    other, 0 becomes black and 1 white. What lies beyond is clipped; nothing is stretched to full contrast.
    """
    shown = 0.5 + 0.5 * values if results.is_zero_sum(matrix) else values.copy()
    np.clip(shown, 0, 1, out=shown)  # in place: a photograph at full size is large
    shown *= 255
    return shown.astype(np.uint8)


def scale_text(matrix):
    return 'shown -1 to 1' if results.is_zero_sum(matrix) else 'shown 0 to 1'


def filtered_pictures(views):
    """Returns a summary of the views {(kind, name): View} but for the originals, for TensorBoard's images."""
    summary = tf.Summary()
    for (kind, name), shown in views.items():
        if name != 'original':
            step = -(-max(shown.overview.size) // 1000)
            picture = Image.fromarray(np.asarray(shown.overview)[::step, ::step])
            summary.value.add(tag='{}/{}'.format(kind, name), image=image_summary(picture))
    return summary


def pillow_image(picture):
    """uint8 [height, width, 1 or 3] -> a Pillow image."""
    return Image.fromarray(picture[:, :, 0] if picture.shape[2] == 1 else picture)


def image_summary(image):
    """A Pillow image -> tf.Summary.Image."""
    file = io.BytesIO()
    image.save(file, 'PNG', compress_level=1)
    return tf.Summary.Image(width=image.width, height=image.height, encoded_image_string=file.getvalue())


@style.context('default')
def plot_filters(folder, flags, picture, grey_picture, values, matrices, pixel, patch_start):
    """Saves the figures of lesson 1. Returns all filtered pictures for TensorBoard, as a tf.Summary.

    picture [height, width, 3] and grey_picture [height, width, 1]; values: 'grey', 'rgb' or 'operations', name and
    output [height, width, 1 or 3], one after the other; matrices {name: kernel}; pixel: row and column in the picture
    whose surroundings are magnified; patch_start: the function of lesson 1.
    """
    size = picture.shape[:2]
    views = {(kind, 'original'): view(original, np.ones([1, 1]), flags, pixel, size)
             for kind, original in (('grey', grey_picture), ('rgb', picture))}
    for kind, name, value in values:
        matrix = matrices.get(name, kernels.KERNELS['emboss'])  # emboss: of the operations
        views[kind, name] = view(value, matrix, flags, pixel, size)
    columns = [('original', results.shape_text(size), views['grey', 'original'], views['rgb', 'original'])]
    for name, matrix in matrices.items():
        grey, rgb = views['grey', name], views['rgb', name]
        lines = fraction_lines(matrix)
        if len(lines) > 4 or max(map(len, lines)) > 17:
            lines = ['{} x {} numbers'.format(*matrix.shape)]
        caption = ([] if grey.size == size else [results.shape_text(grey.size)]) + [
            'sum {:.3g}'.format(results.kernel_sum(matrix)), scale_text(matrix)] + lines
        columns.append((name, '\n'.join(caption), grey, rgb))
    figures = [plot_panels(new_figure(not flags.no_show), columns),
               plot_operations(new_figure(not flags.no_show), views),
               plot_padding(new_figure(not flags.no_show), patch_start)]
    for figure, name in zip(figures, FILTERS_FIGURES):
        save_figure(figure, os.path.join(folder, name), dpi=150)
    return filtered_pictures(views)


def fraction_lines(matrix):
    """The lines of a kernel: as whole numbers over one denominator, such as 16, where that is possible."""
    for denominator in range(1, 17):
        numerators = np.round(matrix * denominator)
        if np.abs(matrix * denominator - numerators).max() < 1e-6:
            return results.matrix_lines(numerators + 0.0) + (['/ {}'.format(denominator)] if denominator > 1 else [])
    return results.matrix_lines(matrix)


def plot_panels(figure, columns):
    """Columns of (title, caption, grey View, RGB View); below the two pictures of each, a detail is magnified.

    The figure fits on a screen of 1366 x 768 pixels.
    """
    height, width = columns[0][2].size
    aspect = min(max(height / width, 0.4), 2.5)
    side = min(12.9 / len(columns), max(5.1 / (2 * aspect + 1), 1.25))  # width of a column, in inches
    rows = min(aspect * side, (5.1 - side) / 2), side                   # heights of a picture and of a detail
    left, top, bottom = 0.4, 0.3, 1.25
    size = [max(len(columns) * side + 0.5, 6.3), 2 * rows[0] + rows[1] + top + bottom]
    figure.set_size_inches(*size)
    grid = figure.add_gridspec(3, len(columns), height_ratios=[rows[0], rows[0], rows[1]], left=left / size[0],
                               right=(left + len(columns) * side) / size[0], top=1 - top / size[1],
                               bottom=bottom / size[1], hspace=0.04, wspace=0.06)
    for column, (title, caption, grey, rgb) in enumerate(columns):
        axes = [figure.add_subplot(grid[row, column]) for row in range(3)]
        show_picture(axes[0], grey)
        show_picture(axes[1], rgb)
        for axis in axes:
            axis.set_anchor('W')
        show_detail(axes[:2], axes[2], grey)
        axes[0].set_title(title, fontsize=8.5 * min(side, 1.3), fontweight='bold', loc='left')
        axes[2].text(0, -0.04, caption, fontsize=8, va='top', family='monospace', transform=axes[2].transAxes)
        if column == 0:
            for axis, label in zip(axes, ('grey', 'RGB', 'grey detail')):
                axis.text(-0.04, 0.5, label, rotation=90, ha='right', va='center', transform=axis.transAxes)
    figure.text(left / size[0], 0.015, 'Shown from 0 (black) to 1 (white), and from -1 to 1 if a kernel sums to 0, so '
                                       'that 0 is grey.', fontsize=9)
    return figure


def show_picture(axis, view):
    """Shows a View without stretching its contrast."""
    height, width = view.size
    axis.imshow(view.overview.convert('RGB'), extent=[-0.5, width - 0.5, height - 0.5, -0.5])
    axis.set(xticks=[], yticks=[])  # and a frame, for a picture may be all white


def show_detail(framed_axes, axis, view):
    top, left, side = view.frame
    axis.imshow(view.detail.repeat(3, axis=2), interpolation='nearest')
    axis.set(xticks=[], yticks=[])
    for spine in axis.spines.values():
        spine.set_color('goldenrod')
    for framed in framed_axes:
        framed.add_patch(Rectangle((left - 0.5, top - 0.5), side, side, fill=False, color='gold'))


def plot_operations(figure, views):
    """What the lecture's three operations make of a picture with the kernel emboss. views: {(kind, name): View}."""
    captions = {
        'original': 'The other five panels: emboss,\nby each operation',
        'conv2d, all channel pairs': 'kernel [3, 3, 3, 3]: emboss in all nine channel\npairs. Wrong: each channel out '
                                     'is the sum of\nthree: grey, and three times too bright',
        'conv2d, diagonal': 'kernel [3, 3, 3, 3]: emboss from red to red,\ngreen to green, blue to blue, zeros '
                            'elsewhere.\nCorrect: the colours stay',
        'depthwise_conv2d': 'kernel [3, 3, 3, 1]: each channel by itself.\nThe same picture as conv2d, diagonal,\n'
                            'with 27 weights',
        'conv2d, mixing': 'kernel [3, 3, 3, 3]: 81 weights, emboss times\na number for each channel pair: sepia',
        'separable_conv2d': '[3, 3, 3, 1], then pointwise [1, 1, 3, 3].\nThe same picture as conv2d, mixing,\n'
                            'with 27 + 9 = 36 weights'}
    original = views['rgb', 'original']
    height = min(3.5 * max(original.size[0] / original.size[1], 0.2), 2.5)  # of a panel, in inches
    size = [11, 2 * height + 2]  # fits on a screen of 1366 x 768 pixels
    figure.set_size_inches(*size)
    axes = figure.subplots(2, 3)
    for axis, (name, caption) in zip(axes.flat, captions.items()):
        show_picture(axis, original if name == 'original' else views['operations', name])
        axis.set_title(name, fontsize=13, fontweight='bold', loc='left')
        axis.set_anchor('NW')
        axis.text(0, -0.02, caption, fontsize=9, va='top', transform=axis.transAxes)
    figure.subplots_adjust(left=0.01, right=0.99, top=1 - 0.35 / size[1], bottom=0.7 / size[1], hspace=0.95 / height,
                           wspace=0.05)
    return figure


def plot_padding(figure, patch_start, kernel_size=3, stride=2):
    """Which pixels and zeros each output of SAME is computed from, along one axis, for an even and an odd size."""
    figure.set_size_inches(8, 3.8)
    for axis, size in zip(figure.subplots(2), (6, 7)):
        count = -(-size // stride)
        starts = [patch_start(index, size, kernel_size, stride, 'SAME') for index in range(count)]
        for place in range(starts[0], starts[-1] + kernel_size):
            is_pixel = 0 <= place < size
            axis.add_patch(Rectangle((place, 0), 1, 1, facecolor='0.8' if is_pixel else 'white', edgecolor='black',
                                     linestyle='-' if is_pixel else ':'))
            axis.text(place + 0.5, 0.5, 'pixel {}'.format(place) if is_pixel else '0', ha='center', va='center')
        for index, start in enumerate(starts):
            y = -0.3 - 0.5 * (index % 2)
            axis.plot([start + 0.05, start + kernel_size - 0.05], [y, y], color='C{}'.format(index), linewidth=3)
            axis.text(start + kernel_size / 2, y - 0.08, 'output {}'.format(index), ha='center', va='top')
        title = ('SAME, {0} pixels, kernel {1}, stride {2}: ceil({0} / {2}) = {3} outputs; zeros: {4} before, {5} after'
                 .format(size, kernel_size, stride, count, -starts[0], starts[-1] + kernel_size - size))
        axis.set_title(title, fontsize=10, loc='left')
        axis.set(xlim=(-1.2, 8.2), ylim=(-1.3, 1.05))
        axis.axis('off')
    figure.subplots_adjust(left=0.02, right=0.98, top=0.92, bottom=0.02, hspace=0.3)
    return figure


def new_figure(window):
    """Returns a figure, in a window if one is wanted. Without a display, pyplot chooses a backend without windows."""
    if not window:
        return Figure()
    from matplotlib import pyplot  # half a second, which lesson 2 does without
    WINDOWS.append(pyplot.figure())
    return WINDOWS[-1]


def show_windows():
    """Opens the windows of the figures, where there is a display, and waits until they are closed."""
    if WINDOWS:
        from matplotlib import pyplot
        if pyplot.get_backend().lower() not in ('agg', 'cairo', 'pdf', 'pgf', 'ps', 'svg', 'template'):
            if 'inline' not in pyplot.get_backend():  # of a notebook, which has no windows
                print('Close the windows to end.', flush=True)
            pyplot.show()
        while WINDOWS:
            pyplot.close(WINDOWS.pop())


# ---- Lesson 2 ------------------------------------------------------------------------------------

@style.context('default')
def plot_results(run, trained):
    """Saves the figures of lesson 2. Returns them as a tf.Summary. trained: results.Results."""
    test = trained.test
    plots = {'network': plot_network(trained),
             'training_curve': plot_training_curve(run.history, run.data.lecture_accuracy),
             'confusion': plot_confusion(test.labels, trained.probabilities.argmax(axis=1), run.data.classes),
             'mistakes': plot_mistakes(test, trained.probabilities, run.data.classes)}
    layers = list(trained.activations)
    convolutions = [name for name in layers if getattr(trained.weights.get(name + '/weights'), 'ndim', 0) == 4]
    if convolutions:
        weights = convolutions[0] + '/weights'
        plots['learned_kernels'] = plot_kernels(convolutions[0], trained.initial_weights[weights],
                                                trained.weights[weights])
        plots['activations'] = plot_activations(test.images[0], trained.weights[weights],
                                                {name: trained.activations[name] for name in convolutions})
    summary = tf.Summary()
    for name in sorted(plots):
        image = save_figure(plots[name], os.path.join(run.folders.figures, name + '.png'))
        summary.value.add(tag=name, image=image)
    return summary


def plot_network(trained):
    """The layers as boxes, their volume in proportion, and framed on the image what one value of each sees of it.

    trained: results.Results. Lengths are in pixels of the image.
    """
    image = trained.test.images[0]
    height, width = image.shape
    figure = Figure()
    axis = figure.add_axes([0, 0, 1, 1])
    axis.imshow(image, cmap='Greys', extent=[0, width, 0, height])
    axis.add_patch(Rectangle((0, 0), width, height, fill=False))
    columns = [(width, 'right', 'black', ['a test image', results.shape_text(image.shape), 'parameters',
                                          'one value sees'])]
    x, highest = width, height
    for index, (name, values) in enumerate(trained.activations.items()):
        colour, kernel, sees = 'C{}'.format(index), 'all', 'all'
        if values.ndim == 3:
            kernel = sees = '?'
        if trained.windows.get(name):
            size, strides, first, last = trained.windows[name]
            kernel, sees = results.shape_text(size), results.shape_text(last - first + 1)
            kernel += '\nstride {}'.format(strides[0]) if strides[0] > 1 else ''
            inset = 0.2 * (len(trained.windows) - index)  # or the edges of two frames would cover each other
            axis.add_patch(Rectangle((first[1] + inset, height - 1 - last[0] + inset),
                                     *(last - first + 1 - 2 * inset)[::-1], fill=False, edgecolor=colour, linewidth=2))
        axis.annotate('', (x + 9, 8), (x + 1, 8), arrowprops={'arrowstyle': '->'})
        axis.text(x + 5, 9, kernel, ha='center')
        x += 10
        tall, deep = values.shape[:2] if values.ndim == 3 else [min(values.size, 32), (values.size / 128) ** 0.5]
        thick, slant = values.size / tall / deep / 4, deep / 3
        corners = np.array([(0, 0), (thick, 0), (thick, tall), (0, tall)]) + [x, 0]
        for edge, alpha in (corners, 0.5), (corners[[1, 2]], 0.8), (corners[[2, 3]], 0.3):  # front, side, top
            back = edge[::-1] + slant if len(edge) == 2 else edge[:0]
            axis.add_patch(Polygon(np.concatenate([edge, back]), facecolor=colour, alpha=alpha))
        parameters = sum(value.size for key, value in trained.weights.items() if key.startswith(name + '/'))
        columns.append((x, 'left', colour, [name, results.shape_text(values.shape), '{:,}'.format(parameters), sees]))
        x, highest = x + max(thick + slant, 10), max(highest, tall + slant)
    for left, side, colour, lines in columns:
        for row, line in enumerate(lines):
            axis.text(left, -3 - 3 * row, line, ha=side, color=colour, weight='normal' if row else 'bold')
    axis.set(xlim=(-1, x + 9), ylim=(-14, highest + 1))
    figure.set_size_inches((x + 10) / 14, (highest + 15) / 14)
    axis.axis('off')
    return figure


def plot_kernels(name, before, after):
    """A layer's kernels [h, w, in, out] before and after training, of the first channel in, beside hand-coded ones."""
    footnote = 'White: positive. Grey: 0. Black: negative. Each kernel is scaled by itself: see the largest weights.'
    panels = {name + ' before training': before, name + ' after training': after}
    if np.array_equal(before, after):
        panels = {name + ', not trained': after}
    if min(before.shape[:2]) >= 3:
        panels['hand-coded'] = kernels.filter_bank(*before.shape)
        footnote += '\nHand-coded: blur, sharpen, edge, Sobel and emboss in all orientations{}.'.format(
            ', and at the end some at twice the size' if min(before.shape[:2]) >= 5 else '')
    figure = Figure(figsize=(4.5 * len(panels), 3.1))
    grid = figure.add_gridspec(1, len(panels), left=0.02, right=0.98, top=0.9, bottom=0.13, wspace=0.08)
    for column, (title, values) in enumerate(panels.items()):
        title += ': largest weight {:.2f}'.format(np.abs(values).max())
        show_tiles(figure.add_subplot(grid[column]), title, normalized_kernels(values), columns=8)
    figure.text(0.02, 0.03, footnote, fontsize=9)
    return figure


def plot_activations(image, conv1_kernels, layers):
    """An image [h, w], conv1's kernels [h, w, in, out] each beside its activation, and the other layers' activations.

    layers: {name: activations [h, w, channels]}, conv1 first.
    """
    figure = Figure(figsize=(3 + 5.5 * len(layers), 7))
    grid = figure.add_gridspec(1, 1 + len(layers), width_ratios=[0.35] + [1] * len(layers), left=0.02, right=0.98,
                               top=0.92, bottom=0.07, wspace=0.06)
    show_tiles(figure.add_subplot(grid[0]), 'a test image', image[np.newaxis] / 255, columns=1)
    for index, (name, activations) in enumerate(layers.items()):
        active = activations[activations > 0]
        tiles = np.moveaxis(activations, 2, 0) / (np.percentile(active, 95) if active.size else 1)
        tiles = np.sqrt(tiles.clip(0, 1))
        count, height, width = tiles.shape
        title = '{}: {} activations of {} x {}'.format(name, count, height, width)
        columns = 8
        if index == 0:
            left = normalized_kernels(conv1_kernels)
            rows_of, columns_of = [np.arange(size) * left.shape[1 + axis] // size
                                   for axis, size in enumerate((height, width))]
            space = np.full([count, height, 1], np.nan)
            tiles = np.concatenate([left[:, rows_of][:, :, columns_of], space, tiles], axis=2)
            title, columns = '{}: {} kernels, each beside its activation'.format(name, count), 4
        show_tiles(figure.add_subplot(grid[1 + index]), title, tiles, columns, gap=max(2, height // 9))
    figure.text(0.02, 0.02, 'Kernels: white is positive, grey 0, black negative. Activations: black is 0 or less; '
                            'white are the strongest 5% of the positive ones;\nweak ones are brightened (square root). '
                            'Grey where there is no ink: a positive bias.', fontsize=9)
    return figure


def normalized_kernels(values):
    """[h, w, in, out] -> [out, h, w]: the first channel in, each kernel scaled from [-largest, largest] to [0, 1]."""
    tiles = np.moveaxis(values[:, :, 0], 2, 0)
    return 0.5 + 0.5 * tiles / np.maximum(np.abs(tiles).max(axis=(1, 2), keepdims=True), 1e-9)


def show_tiles(axis, title, tiles, columns, gap=1, captions=()):
    """Shows tiles [n, h, w], 0 to 1, in rows of so many columns, with white lines between them, or captions above."""
    count, height, width = tiles.shape
    canvas = np.full([max(1, -(-count // columns) * (height + gap) - gap), columns * (width + gap) - gap], np.nan)
    for index, tile in enumerate(tiles):
        y, x = index // columns * (height + gap), index % columns * (width + gap)
        canvas[y:y + height, x:x + width] = tile
    for index, caption in enumerate(captions):
        axis.text(index % columns * (width + gap), index // columns * (height + gap) - 2, caption, fontsize=8)
    axis.imshow(canvas, cmap='gray', vmin=0, vmax=1)
    axis.set_title(title, fontweight='bold', loc='left', pad=20 if captions else 6)
    axis.set_anchor('NW')
    axis.axis('off')


def plot_training_curve(history, lecture_accuracy):
    """Validation and test accuracy by epoch, beside the lecture's if there is one, on a logit scale.

    On it, .9, .99 and .999 are about equally far apart.
    """
    figure = Figure(figsize=(8, 5))
    axis = figure.subplots()
    epochs = [row['epoch'] for row in history]
    shown = [epoch for epoch in lecture_accuracy if epoch <= max(epochs[-1], 5)]
    for images, style_of_line, size in ('test', 'o-', 6), ('validation', 's--', 4):
        label = '{}: {:.4f} after epoch {}'.format(images, history[-1][images], epochs[-1])
        axis.plot(epochs, [row[images] for row in history], style_of_line, markersize=size, label=label)
    if shown:
        axis.plot(shown, [lecture_accuracy[epoch] for epoch in shown], 'k^:', label="the lecture's test accuracy")
    axis.set(xlabel='epochs', ylabel='accuracy (logit scale: .9, .99, .999 about equally far apart)',
             title='Accuracy after each epoch')
    axis.set_yscale('logit', nonpositive='clip')
    low, high = axis.get_ylim()
    ticks = [tick for tick in (.1, .2, .5, .8, .9, .95, .98, .99, .995, .998, .999) if low <= tick <= high]
    axis.set_yticks(ticks)
    axis.set_yticklabels(['{:g}'.format(tick) for tick in ticks])
    axis.yaxis.set_minor_locator(NullLocator())
    axis.xaxis.get_major_locator().set_params(integer=True)
    axis.grid(alpha=0.3)
    axis.legend(loc='best')
    return figure


def plot_confusion(labels, predicted, classes):
    """How often each class was read as which. labels, predicted: [n]; classes: their names."""
    counts = np.zeros([len(classes), len(classes)], int)
    np.add.at(counts, (labels, predicted), 1)
    mistakes = counts * (1 - np.eye(len(classes), dtype=int))
    side = min(max(7, 0.35 * len(classes)), 20)  # inches
    figure = Figure(figsize=(side, side - 0.4))
    axis = figure.subplots()
    axis.imshow(mistakes, cmap='Greys', vmax=max(2 * mistakes.max(), 1))  # at most half dark: the numbers stay readable
    for (y, x), count in np.ndenumerate(counts):
        if count and len(classes) <= 60:  # there is no room for more numbers
            axis.text(x, y, count, ha='center', va='center',
                      fontsize=9 if x == y else 12, color='0.5' if x == y else 'k')
    axis.set(xticks=range(len(classes)), yticks=range(len(classes)), xlabel='read as', ylabel='label',
             title='{} of {:,} test images misread'.format(mistakes.sum(), len(labels)))
    names = list(map(short, classes))
    axis.set_xticklabels(names, rotation=90 if max(map(len, names)) > 3 else 0)
    axis.set_yticklabels(names)
    figure.tight_layout()
    return figure


def short(name, length=12):
    """A name from outside, for a figure: in one line, its end cut off, and no formula."""
    name = script.printable(name)
    return (name if len(name) <= length else name[:length - 3] + '...').replace('$', r'\$')


def plot_mistakes(dataset, probabilities, classes):
    """Up to 25 misread images, first those whose label got the lowest probability. probabilities: [n, classes]."""
    predicted = probabilities.argmax(axis=1)
    wrong = results.worst_mistakes(dataset, probabilities)
    worst = wrong[:25]
    names = list(map(short, classes))
    captions = ['{}, read as {} ({:.3f})'.format(names[dataset.labels[index]], names[predicted[index]],
                                                 probabilities[index, predicted[index]]) for index in worst]
    figure = Figure(figsize=(9, 1 + 1.9 * max(1, -(-len(worst) // 5))), constrained_layout=True)
    title = '{} of {:,} misread. The worst: the label, what was read, and its probability'.format(
        len(wrong), len(dataset.labels))
    show_tiles(figure.subplots(), title, dataset.images[worst] / 255, 5, gap=8, captions=captions)
    return figure


@style.context('default')
def plot_predictions(flags, found, images, probabilities, classes):
    """Saves the pictures, each digit in a numbered box, beside what the network saw and read. Returns the path.

    found: digits.Found of each picture; images [n, h, w] and probabilities [n, classes] of all their digits.
    """
    folder = outputs.run_folders(flags.output_dir, flags.name).figures
    path = os.path.join(folder, 'predictions.png')
    outputs.make([folder])
    lines = [max(2, -(-len(picture.boxes) // 8)) for picture in found]
    lines = lines[:np.searchsorted(np.cumsum(lines), 60, side='right')]  # more pictures would make the figure too high
    found = found[:len(lines)]
    figure = Figure(figsize=(12, 0.5 + 1.3 * sum(lines)), constrained_layout=True)
    figure.suptitle('What was found, and what the network saw, what it read, and its probability', fontweight='bold')
    grid = figure.add_gridspec(len(found), 2, width_ratios=[1, 2], height_ratios=lines)
    first = 0
    for index, picture in enumerate(found):
        left, right = [figure.add_subplot(grid[index, column]) for column in (0, 1)]
        left.imshow(picture.picture)
        left.set_title(script.printable(os.path.basename(picture.path))[-40:].replace('$', r'\$'), fontsize=9)
        left.axis('off')
        left.set_anchor('N')
        captions = []
        for number, ((x, y, x_end, y_end), row) in enumerate(zip(picture.boxes, probabilities[first:]), 1):
            left.add_patch(Rectangle((x, y), x_end - x, y_end - y, fill=False, color='C1'))
            left.text(x, y, number, color='C1', fontsize=8 if number < 50 else 6, ha='right', va='bottom')
            captions.append('{}: {} ({:.3f})'.format(number, short(classes[row.argmax()]), row.max()))
        show_tiles(right, '', images[first:first + len(captions)] / 255, 8, gap=10, captions=captions)
        first += len(captions)
    save_figure(figure, path)
    return path
