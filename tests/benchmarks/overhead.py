"""What lesson 2 spends on anything but training: start-up, summaries, checkpoints, evaluation.

    python tests/benchmarks/overhead.py

The table goes to stderr. Each moment counts for one line only: a checkpoint within an epoch counts as
a checkpoint, not as training.
"""
import argparse
import collections
import contextlib
import importlib
import subprocess
import sys
import tempfile
import time

import rounds

LOADING, GRAPH, TRAINING = 'until all is imported', 'building the graph, opening the session', 'training'
OVERHEAD = ['summaries', 'checkpoints', 'evaluation', 'figures and page']


class Stopwatch:
    """Adds up seconds[key]. While a measurement goes on within another one, only the inner one counts."""

    def __init__(self, started):
        self.seconds, self.keys, self.last = collections.Counter(), [LOADING], started

    def charge(self):
        now = time.time()
        self.seconds[self.keys[-1]] += now - self.last
        self.last = now

    @contextlib.contextmanager
    def measure(self, key):
        self.charge()
        self.keys.append(key)
        try:
            yield
        finally:
            self.charge()
            self.keys.pop()

    def wrap(self, owner, name, key):
        """Measures each call of a function or method from now on."""
        function = getattr(owner, name)

        def measured(*args, **kwargs):
            with self.measure(key):
                return function(*args, **kwargs)
        setattr(owner, name, measured)

    def wrap_progress(self, owner):
        """Measures Run.progress, a generator, together with the body of the loop over it."""
        progress = owner.progress

        def measured(*args):
            with self.measure(TRAINING):
                yield from progress(*args)
        owner.progress = measured


def work(started, arguments):
    """One run of the lesson, in this process, which began at the time `started`."""
    import utils
    lesson = importlib.import_module('07_convnet_mnist')
    run_class = lesson.runs.Run
    watch = Stopwatch(started)
    watch.charge()
    watch.keys = [GRAPH]
    for owner, name, key in [
            (utils, 'read_mnist', 'reading the digits'), (run_class, 'newest_checkpoint', 'restoring'),
            (lesson.tf.summary.FileWriter, 'add_summary', 'summaries'), (lesson.figures, 'histograms', 'summaries'),
            (lesson.tf.train.Saver, 'save', 'checkpoints'), (run_class, '_write_json', 'checkpoints'),
            (lesson, 'accuracy', 'evaluation'), (lesson.runs, 'results', 'figures and page'),
            (lesson.figures, 'plot_results', 'figures and page'),
            (lesson.pages, 'write_network_page', 'figures and page')]:
        watch.wrap(owner, name, key)
    watch.wrap_progress(run_class)
    first_step_ends = []
    add_loss = run_class.add_loss

    def add_loss_and_note(*args):
        first_step_ends.append(time.time())
        add_loss(*args)
    run_class.add_loss = add_loss_and_note
    lesson.main(arguments)

    seconds = watch.seconds
    rows = [(key, seconds[key]) for key in (LOADING, 'reading the digits', GRAPH, 'restoring')]
    rows += [('from the start to the end of the first step', first_step_ends[0] - started),
             (TRAINING, seconds[TRAINING])]
    for key, value in rows:
        print('{:46}{:8.2f} s'.format(key, value), file=sys.stderr)
    for key in OVERHEAD:
        print('{:46}{:8.2f} s{:8.1%} of training'.format(key, seconds[key], seconds[key] / seconds[TRAINING]),
              file=sys.stderr)


if __name__ == '__main__':
    if sys.argv[1:2] == ['--work']:
        work(float(sys.argv[2]), sys.argv[3:])
    else:
        parser = argparse.ArgumentParser(description=__doc__.splitlines()[0],
                                         epilog='Flags that it does not know go to the lesson.')
        parser.add_argument('--epochs', type=int, default=2)
        options, more = parser.parse_known_args()
        print(rounds.machine(), file=sys.stderr, flush=True)
        with tempfile.TemporaryDirectory() as scratch:
            subprocess.check_call([sys.executable, __file__, '--work', str(time.time()), '--epochs',
                                   str(options.epochs), '--output-dir', scratch] + more, stdout=subprocess.DEVNULL)
