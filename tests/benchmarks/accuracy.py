"""Accuracy of lesson 2 by epoch, as Markdown: mean ± standard deviation over seeds (standard error of the mean).

Of several recipes, a second table has the differences from the first, seed by seed.

    python tests/benchmarks/accuracy.py --seeds 5 --epochs 10
    python tests/benchmarks/accuracy.py --seeds 3 --epochs 10 --recipes default hand-coded course

Each seed of a recipe is one run, which is kept: the same command again continues it, or only prints. After a change
of the lesson, choose another --output-dir.
Flags that it does not know go to the lesson.
"""
import argparse
import os
import statistics
import subprocess
import sys

import rounds

RECIPES = {
    'default': [],
    'no-moving-average': ['--ema-decay', '0'],
    'no-augmentation': ['--augment', '0'],
    'no-dropout': ['--keep-prob', '1'],
    'init-stddev-1': ['--init-stddev', '1'],
    'course': ['--init-stddev', '1', '--ema-decay', '0', '--augment', '0'],
    'hand-coded': ['--conv1', 'hand-coded'],
    'random': ['--conv1', 'random'],
}
EPOCHS = [1, 2, 3, 5, 10, 25, 40, 50]  # the lecture's


def run_seed(recipe, seed, options, flags):
    """Runs the lesson and returns {epoch: {'validation': accuracy, 'test': accuracy}}."""
    name = '-'.join([recipe] + [flag.strip('-') for flag in flags if os.sep not in flag] + ['seed', str(seed)])
    command = [sys.executable, rounds.LESSON_2, '--epochs', str(options.epochs), '--seed', str(seed), '--name', name,
               '--output-dir', options.output_dir] + RECIPES[recipe] + flags
    process = subprocess.Popen(command, stdout=subprocess.PIPE, universal_newlines=True,
                               env=dict(os.environ, PYTHONUNBUFFERED='1'))
    accuracies = {}
    for line in process.stdout:
        fields = line.split()  # epoch, training loss, validation, test, and perhaps the lecture's
        if len(fields) in (4, 5) and fields[0].isdigit():
            accuracies[int(fields[0])] = {'validation': float(fields[2]), 'test': float(fields[3])}
            print(name, line.rstrip(), file=sys.stderr, flush=True)
    if process.wait():
        raise SystemExit('{} ended with status {}'.format(' '.join(command), process.returncode))
    return accuracies


def mean_and_spread(values, form='{:.4f}'):
    """The mean; of several values also their standard deviation, and in brackets the standard error of the mean."""
    text = form.format(statistics.mean(values))
    if len(values) > 1:
        deviation = statistics.stdev(values)
        text += ' ± {:.4f} ({:.5f})'.format(deviation, deviation / len(values) ** 0.5)
    return text.replace('0.', '.')


def print_table(title, shown, values, form):
    """values: {name: for each seed {epoch: {images: value}}}"""
    print('| {} | images | {} |\n|---|---|{}'.format(title, ' | '.join(map(str, shown)), '---|' * len(shown)))
    for name, runs in values.items():
        for images in 'validation', 'test':
            print('| {} | {} | {} |'.format(name, images, ' | '.join(
                mean_and_spread([run[epoch][images] for run in runs], form) for epoch in shown)))


def main(options, flags):
    shown = [epoch for epoch in EPOCHS if epoch <= options.epochs]
    runs = {recipe: [run_seed(recipe, seed, options, flags) for seed in range(options.seeds)]
            for recipe in options.recipes}
    print_table('recipe', shown, runs, '{:.4f}')
    first, *others = runs
    if others:
        print()
        print_table('minus ' + first, shown, {
            recipe: [{epoch: {images: run[epoch][images] - base[epoch][images] for images in ('validation', 'test')}
                      for epoch in shown} for run, base in zip(runs[recipe], runs[first])]
            for recipe in others}, '{:+.4f}')


if __name__ == '__main__':
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('--seeds', type=int, default=5)
    parser.add_argument('--epochs', type=int, default=10)
    parser.add_argument('--recipes', nargs='+', choices=list(RECIPES), default=['default'], metavar='RECIPE',
                        help=', '.join('{} ({})'.format(name, ' '.join(more)) for name, more in RECIPES.items()))
    parser.add_argument('--output-dir', default=os.path.join(rounds.ROOT, 'checkpoints', 'accuracy'),
                        help='to keep the runs in')
    main(*parser.parse_known_args())
