"""What lesson 2 spends on anything but training: start-up, summaries, checkpoints, evaluation.

    python tests/benchmarks/overhead.py
"""
import argparse
import importlib
import os
import statistics
import subprocess
import sys
import tempfile
import time

import rounds


def timed(owner, name, spent, key):
    """Replaces the function by one that adds its seconds to spent[key]."""
    function = getattr(owner, name)

    def replacement(*args, **kwargs):
        start = time.time()
        try:
            return function(*args, **kwargs)
        finally:
            spent[key] = spent.get(key, 0) + time.time() - start
    setattr(owner, name, replacement)


def work(started, arguments):
    """One run of the lesson, in this process, which began at the time `started`."""
    lesson = importlib.import_module('07_convnet_mnist')
    from support import cli, training_run
    import utils
    spent = {'until all is imported': time.time() - started}
    for owner, name, key in [
            (utils, 'read_mnist', 'reading the digits'), (lesson, 'build_graph', 'building the graph'),
            (lesson, 'train_epoch', 'epochs'), (training_run.Run, 'log', 'summaries'), (training_run.Run, 'save_if_due', 'saves within'),
            (training_run.Run, 'save', 'checkpoints'), (lesson, 'evaluate', 'evaluation'),
            (lesson, 'show_what_it_learned', 'figures and projector')]:
        timed(owner, name, spent, key)
    steps = {2: [], 3: []}  # seconds of each training step by its number of fetches: 3 with average and summary
    ends = []
    run = lesson.tf.Session.run

    def timed_run(session, fetches, feed_dict=None, **options):
        start = time.time()
        result = run(session, fetches, feed_dict, **options)
        if isinstance(fetches, list) and isinstance(fetches[0], lesson.tf.Operation):
            ends.append(time.time())
            steps[len(fetches)].append(ends[-1] - start)
        return result
    lesson.tf.Session.run = timed_run
    lesson.main(cli.parse_convnet_flags('', arguments))
    plain, more = [statistics.median(seconds) for seconds in (steps[2][1:], steps[3][1:])]
    extra = len(steps[3]) * max(more - plain, 0) + spent['summaries']
    training = spent['epochs'] - spent['saves within'] - extra
    for text, seconds in [(key, spent[key]) for key in ('until all is imported', 'reading the digits',
                                                        'building the graph')] + [
                         ('from the start to the end of the first step', ends[0] - started), ('training', training)]:
        print('{:46}{:8.2f} s'.format(text, seconds), file=sys.stderr)
    rest = {'averages and summaries, by every tenth step': extra,
            'checkpoints': spent['checkpoints'], 'evaluation': spent['evaluation']}
    rest.update({'these three': sum(rest.values()), 'figures and projector': spent['figures and projector']})
    for text, seconds in rest.items():
        print('{:46}{:8.2f} s{:8.1%} of training'.format(text, seconds, seconds / training), file=sys.stderr)


if __name__ == '__main__':
    if sys.argv[1:2] == ['--work']:
        work(float(sys.argv[2]), sys.argv[3:])
    else:
        parser = argparse.ArgumentParser(description=__doc__.splitlines()[0],
                                         epilog='Flags that it does not know go to the lesson.')
        parser.add_argument('--epochs', type=int, default=2)
        options, more = parser.parse_known_args()
        print(rounds.machine(), flush=True)
        with tempfile.TemporaryDirectory() as scratch:
            subprocess.check_call([sys.executable, __file__, '--work', str(time.time()), '--epochs', str(options.epochs),
                                   '--checkpoint-dir', os.path.join(scratch, 'checkpoints'), '--figure-dir', scratch,
                                   '--log-dir', os.path.join(scratch, 'graphs')] + more, stdout=subprocess.DEVNULL)
