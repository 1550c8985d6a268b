"""Kills a training process with SIGKILL at random moments and lets the same command continue it.

    python tests/kill_and_resume.py --kills 100

In the end all variables, the table and TensorBoard's curves must equal those of a run that was never stopped.
"""
import argparse
import os
import random
import subprocess
import sys
import tempfile
import time

from conftest import ROOT, Result, assert_equal_runs, checkpoint_folder, user_environment, write_small_data
from support import checkpoints

TRAIN = '''
import importlib, sys
sys.path[:0] = [{root!r}, {root!r} + '/tests']
from support import script
script.start('__main__')
lesson = importlib.import_module('07_convnet_mnist')
{patch}
with script.errors_in_one_line():
    lesson.main()
'''


def start(folder, data, *flags, patch='', **options):
    """Starts lesson 2 as a process of its own, with all it writes under folder. patch: Python to run before."""
    command = [sys.executable, '-c', TRAIN.format(root=ROOT, patch=patch), '--data-dir', data, '--output-dir', folder]
    streams = dict({'stdout': subprocess.PIPE, 'stderr': subprocess.PIPE}, **options)
    return subprocess.Popen([str(each) for each in command + list(flags)], universal_newlines=True,
                            env=user_environment({'PYTHONUNBUFFERED': '1'}), **streams)


def read_until(process, text):
    """Reads the process's output until a line has this text."""
    for line in process.stdout:
        if text in line:
            return
    raise AssertionError(process.stderr.read())


def run_to_the_end(*arguments):
    process = start(*arguments)
    result = Result(None, *process.communicate())._replace(returncode=process.returncode)
    assert process.returncode == 0, result
    return result


def unfinished(folder):
    """Names of files in which a write was cut short."""
    return [name for _, _, names in os.walk(str(folder)) for name in names if 'temp' in name or '.tmp' in name]


def run_with_kills(folder, data, flags, kills, seed, longest):
    """Kills `kills` times, mostly within `longest` seconds after the first output; then lets it finish.

    Returns the Result of the last process, how often it was killed before its end, and how many of these kills fell
    into a checkpoint's writing.
    """
    moments, killed, cut_short = random.Random(seed), 0, 0
    for number in range(1, kills + 1):
        process = start(folder, data, *flags)
        if moments.random() < 0.9:  # else it is killed while its libraries load
            read_until(process, 'Trains on')
        try:
            process.communicate(timeout=moments.uniform(0, longest))
            print('{:3}: had ended'.format(number), flush=True)
            continue
        except subprocess.TimeoutExpired:
            process.kill()
            process.communicate()
        killed += 1
        cut_short += bool(unfinished(folder))
        print('{:3}: killed after step {} was saved{}'.format(
            number, (checkpoints.steps_in(checkpoint_folder(folder)) + [0])[0],
            ', a checkpoint half written' if unfinished(folder) else ''), flush=True)
    return run_to_the_end(folder, data, *flags), killed, cut_short


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('--kills', type=int, default=100)
    parser.add_argument('--epochs', type=int, default=300)
    parser.add_argument('--seed', type=int, default=int(time.time()))
    parser.add_argument('--longest', type=float, default=4, help='seconds in which a process may train, at most')
    flags = parser.parse_args()
    print('seed {}'.format(flags.seed))
    with tempfile.TemporaryDirectory() as folder:
        data, killed, whole = [os.path.join(folder, name) for name in ('data', 'killed', 'whole')]
        write_small_data(data, 120, 20)
        command = ['--epochs', flags.epochs, '--batch-size', 32]
        result, kills, cut_short = run_with_kills(killed, data, command, flags.kills, flags.seed, flags.longest)
        assert_equal_runs(killed, result, whole, run_to_the_end(whole, data, *command))
    print('{} kills, {} of them while a checkpoint was written: variables, table, settings and history, scalars and '
          'histograms in TensorBoard: equal'.format(kills, cut_short))


if __name__ == '__main__':
    main()
