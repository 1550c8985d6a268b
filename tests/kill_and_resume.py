"""Kills a training process with SIGKILL at random moments and lets the same command continue it.

    python tests/kill_and_resume.py --kills 100

In the end all variables, the table and TensorBoard's scalars must equal those of a run that was
never stopped. Each run saves after every step, so that many kills fall into a checkpoint's writing.
"""
import argparse
import hashlib
import os
import random
import subprocess
import sys
import tempfile
import time

from conftest import ROOT, prefixes, user_environment, write_small_data

from support import runs

NAME = 'convnet_mnist'  # of a run, by default
TRAIN = '''
import importlib, sys
sys.path[:0] = [{root!r}, {root!r} + '/tests']
from support import script
script.start()
lesson = importlib.import_module('07_convnet_mnist')
from support import runs
runs.SECONDS_BETWEEN_SAVES = {seconds}
{patch}
with script.errors_in_one_line():
    lesson.main()
'''


def start(folder, data, epochs, seconds_between_saves=0, flags=(), patch=''):
    """Starts lesson 2 as a process of its own, with all it writes under folder. patch: Python to run before."""
    code = TRAIN.format(root=ROOT, seconds=seconds_between_saves, patch=patch)
    return subprocess.Popen(
        [sys.executable, '-c', code, '--data-dir', str(data), '--epochs', str(epochs), '--output-dir', str(folder)] +
        [str(flag) for flag in flags],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, universal_newlines=True, env=user_environment())


def checkpoint_folder(folder):
    return os.path.join(str(folder), 'checkpoints', NAME)


def digest(folder):
    """SHA-256 over all variables of the newest checkpoint: weights, Adam's slots, averages, step; and over its JSON."""
    newest = prefixes(checkpoint_folder(folder))[0]
    reader = runs.tf.train.NewCheckpointReader(newest)
    with open(newest + '.json', 'rb') as file:
        sha256 = hashlib.sha256(file.read())
    for name in sorted(reader.get_variable_to_shape_map()):
        value = reader.get_tensor(name)
        sha256.update(name.encode() + (value if isinstance(value, bytes) else value.tobytes()))
    return sha256.hexdigest()


def scalars(folder):
    """What TensorBoard itself reads from the logs, histograms too: {tag: [(step, value), ...]}."""
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
    log = EventAccumulator(os.path.join(str(folder), 'graphs', NAME), size_guidance={'scalars': 0, 'histograms': 0})
    log.Reload()
    found = {tag: [(event.step, event.value) for event in log.Scalars(tag)] for tag in log.Tags()['scalars']}
    found.update({tag: [(event.step, event.histogram_value) for event in log.Histograms(tag)]
                  for tag in log.Tags()['histograms']})
    return found


def table(output):
    return [line for line in output.splitlines() if line[:5].strip().isdigit()]


def run_to_the_end(folder, data, epochs, flags=()):
    process = start(folder, data, epochs, seconds_between_saves=1000, flags=flags)
    output, errors = process.communicate()
    assert process.returncode == 0, output + errors
    return table(output)


def progress(folder):
    """Returns the step of the newest checkpoint (0: there is none), and whether another is half written."""
    names = os.listdir(checkpoint_folder(folder)) if os.path.isdir(checkpoint_folder(folder)) else []
    steps = [int(name[len('model.ckpt-'):-len('.index')]) for name in names if name.endswith('.index')]
    return max(steps, default=0), any('tempstate' in name or 'checkpoint.tmp' in name for name in names)


def run_with_kills(folder, data, epochs, kills, seed, longest, flags=()):
    """Kills `kills` times, each time at a random moment within `longest` seconds; then lets it finish.

    Returns the table, how often it was killed before its end, and how many of these kills fell into a checkpoint's
    writing.
    """
    moments, killed, cut_short = random.Random(seed), 0, 0
    for number in range(1, kills + 1):
        process, moment = start(folder, data, epochs, flags=flags), moments.uniform(0, longest)
        try:
            process.communicate(timeout=moment)
            print('{:3}: ended before {:.2f} s'.format(number, moment))
            continue
        except subprocess.TimeoutExpired:
            process.kill()
            process.communicate()
        killed += 1
        step, unfinished = progress(folder)
        cut_short += unfinished
        print('{:3}: killed after {:.2f} s, step {}{}'.format(
            number, moment, step, ', a checkpoint half written' if unfinished else ''), flush=True)
    return run_to_the_end(folder, data, epochs, flags), killed, cut_short


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('--kills', type=int, default=100)
    parser.add_argument('--epochs', type=int, default=100)
    parser.add_argument('--seed', type=int, default=int(time.time()))
    parser.add_argument('--longest', type=float, default=8, help='seconds until the latest kill of a process')
    flags = parser.parse_args()
    print('seed {}'.format(flags.seed))
    with tempfile.TemporaryDirectory() as folder:
        data, killed, whole = [os.path.join(folder, name) for name in ('data', 'killed', 'whole')]
        write_small_data(data)
        rows, kills, cut_short = run_with_kills(killed, data, flags.epochs, flags.kills, flags.seed, flags.longest)
        same = {'table': rows == run_to_the_end(whole, data, flags.epochs),
                'variables': digest(killed) == digest(whole),
                'scalars in TensorBoard': scalars(killed) == scalars(whole)}
    print('{} kills, {} of them while a checkpoint was written. {}'.format(kills, cut_short, ', '.join(
        '{}: {}'.format(name, 'equal' if equal else 'DIFFERENT') for name, equal in same.items())))
    sys.exit(0 if all(same.values()) else 1)


if __name__ == '__main__':
    main()
