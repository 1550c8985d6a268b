"""Test accuracy of lesson 2 by epoch: mean and standard deviation over several seeds, as Markdown.

    python tests/benchmarks/accuracy.py --seeds 5 --epochs 10
    python tests/benchmarks/accuracy.py --ingredients --seeds 3 --epochs 10

Each seed is one run, kept in --folder: the same command again continues, or only prints.
Flags that it does not know go to the lesson.
"""
import argparse
import os
import statistics
import subprocess
import sys

import rounds

INGREDIENTS = {
    'all, the default': [],
    'without the average of the weights': ['--average', '0'],
    'without distortions': ['--distort', '0'],
    'without the shrinking rate': ['--decay', '1'],
    'without dropout': ['--keep-prob', '1'],
    'without scaled initial weights': ['--stddev', '1'],
    'dropout alone: the lecture\'s recipe': ['--average', '0', '--distort', '0', '--decay', '1', '--stddev', '1'],
}


def test_accuracies(folder, seed, epochs, flags):
    """Runs the lesson and returns {epoch: test accuracy}."""
    name = '_'.join([flag.lstrip('-') for flag in flags if os.sep not in flag] + ['seed', str(seed)])
    run = os.path.join(folder, name)
    command = [sys.executable, os.path.join(rounds.ROOT, '07_convnet_mnist.py'), '--epochs', str(epochs),
               '--seed', str(seed), '--checkpoint-dir', run, '--log-dir', os.path.join(run, 'graphs'),
               '--figure-dir', run] + flags
    process = subprocess.Popen(command, stdout=subprocess.PIPE, universal_newlines=True,
                               env=dict(os.environ, PYTHONUNBUFFERED='1'))
    found = {}
    for epoch, test in rounds.table_rows(process.stdout):
        found[epoch] = test
        print('seed {}  epoch {:2}  {:.4f}  {}'.format(seed, epoch, test, ' '.join(flags)), file=sys.stderr, flush=True)
    if process.wait():
        raise SystemExit('{} ended with status {}'.format(' '.join(command), process.returncode))
    return found


def mean_and_deviation(values):
    text = '{:.4f}'.format(statistics.mean(values))
    if len(values) > 1:
        text += ' ± {:.4f}'.format(statistics.stdev(values))
    return text.replace('0.', '.')


def main(options, flags):
    recipes, epochs = {'mean ± standard deviation': []}, [1, 2, 3, 5, 10, 25, 40, 50]  # the lecture's
    if options.ingredients:
        recipes, epochs = INGREDIENTS, [1, 10]
    shown = [epoch for epoch in epochs if epoch <= options.epochs]
    lines = ['| epochs | {} |'.format(' | '.join(map(str, shown))), '|---|' + '---|' * len(shown)]
    for name, more in recipes.items():
        runs = [test_accuracies(options.folder, seed, options.epochs, more + flags) for seed in range(options.seeds)]
        lines.append('| {} | {} |'.format(name, ' | '.join(mean_and_deviation([run[epoch] for run in runs])
                                                           for epoch in shown)))
    print('\n'.join(lines))


if __name__ == '__main__':
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('--seeds', type=int, default=5)
    parser.add_argument('--epochs', type=int, default=10)
    parser.add_argument('--ingredients', action='store_true', help='what each ingredient of the recipe gives')
    parser.add_argument('--folder', default=os.path.join(rounds.ROOT, 'checkpoints', 'accuracy'),
                        help='to keep the runs in')
    main(*parser.parse_known_args())
