"""Time and memory of both lessons as the work grows: a table as Markdown and docs/scaling.png.

    python tests/benchmarks/scaling.py
"""
import argparse
import os

import rounds
import filters
import step_time

BATCH_SIZES = [32, 64, 128, 256, 512, 1024]
MEGAPIXELS = [0.25, 1, 4, 12, 24, 48]


def measure(flags):
    """Returns {(panel, name): [(size, seconds per image or kernel, bytes)]}."""
    lines = {}
    for size in flags.batch_sizes:
        competitors = {name: ['network', name, 'float32', size, flags.images // size] for name in ('ours', 'PyTorch')}
        for name, turns in rounds.compete(step_time.__file__, competitors, flags.images // size, flags.rounds).items():
            lines.setdefault(('batch', name), []).append((size, turns.median / size, turns.peak))
    for kind in 'grey', 'RGB':
        for size in flags.megapixels:
            competitors = {name: [name, kind, size] for name in ('ours', 'OpenCV')}
            for name, turns in rounds.compete(filters.__file__, competitors, 1, flags.rounds).items():
                lines.setdefault((kind, name), []).append(
                    (size, turns.median / len(filters.kernels.KERNELS), turns.peak))
    return lines


def print_tables(lines):
    print(rounds.machine())
    for (panel, name), points in lines.items():
        print('\n| {} | {} |\n|---|{}'.format(
            'batch size' if panel == 'batch' else 'megapixels, ' + panel,
            ' | '.join('{:g}'.format(size) for size, _, _ in points), '---|' * len(points)))
        print('| {}, ms per {} | {} |'.format(name, 'image' if panel == 'batch' else 'kernel',
                                              ' | '.join('{:.3g}'.format(seconds * 1e3) for _, seconds, _ in points)))
        print('| {}, GB of memory | {} |'.format(
            name, ' | '.join('{:.1f}'.format(peak / 1e9) for _, _, peak in points)))


def draw(lines, path):
    import matplotlib
    matplotlib.use('Agg')
    from matplotlib import pyplot
    figure, axes = pyplot.subplots(2, 2, figsize=(10, 7), sharex='col')
    styles = {'ours': '-', 'PyTorch': '--', 'OpenCV': '--'}
    markers = {'batch': 'o', 'grey': 's', 'RGB': '^'}
    for (panel, name), points in lines.items():
        sizes, seconds, peaks = zip(*points)
        column = 0 if panel == 'batch' else 1
        for row, values in enumerate([[each * 1e3 for each in seconds], [each / 1e9 for each in peaks]]):
            axes[row][column].plot(sizes, values, styles[name], marker=markers[panel],
                                   color='black' if name == 'ours' else 'grey',
                                   label=name if panel == 'batch' else '{}, {}'.format(name, panel))
    axes[0][0].set(title='Lesson 2: training', ylabel='milliseconds per image')
    axes[0][1].set(title='Lesson 1: filters', ylabel='milliseconds per kernel', yscale='log')
    axes[1][0].set(xlabel='batch size', ylabel='memory of the process, GB', xscale='log', xticks=BATCH_SIZES)
    axes[1][1].set(xlabel='megapixels', ylabel='memory of the process, GB', xscale='log', xticks=MEGAPIXELS)
    for axis in axes.flat:
        axis.xaxis.set_major_formatter('{x:g}')
        axis.xaxis.set_minor_locator(matplotlib.ticker.NullLocator())
        axis.grid(alpha=0.3)
        if axis.get_yscale() == 'linear':
            axis.set_ylim(bottom=0)
    axes[0][0].legend(loc='lower left')
    axes[0][1].legend(loc='upper left')
    figure.tight_layout()
    figure.savefig(path, dpi=110)
    print('\nFigure  {}'.format(path))


if __name__ == '__main__':
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('--batch-sizes', type=int, nargs='+', default=BATCH_SIZES)
    parser.add_argument('--images', type=int, default=5120, help='per turn')
    parser.add_argument('--megapixels', type=float, nargs='+', default=MEGAPIXELS)
    parser.add_argument('--rounds', type=int, default=3)
    parser.add_argument('--output', default=os.path.join(rounds.ROOT, 'docs', 'scaling.png'))
    options = parser.parse_args()
    measured = measure(options)
    print_tables(measured)
    draw(measured, options.output)
