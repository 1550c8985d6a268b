"""What the benchmarks share: every competitor works in a process of its own, and they take turns, round by round.

The machine may be busy with something else at any time. So only figures of the same rounds are compared.
"""
import collections
import json
import os
import platform
import re
import statistics
import subprocess
import sys
import time

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
LESSON_2 = os.path.join(ROOT, '07_convnet_mnist.py')
sys.path.insert(0, ROOT)


class Competitor:
    """A process that prepares itself, then works and answers with the time whenever it is asked to."""

    def __init__(self, script, arguments):
        self.process = subprocess.Popen([sys.executable, script, '--work'] + [str(each) for each in arguments],
                                        stdin=subprocess.PIPE, stdout=subprocess.PIPE, universal_newlines=True)
        self.missing = self.answer().get('missing')

    def answer(self):
        line = self.process.stdout.readline()
        if not line:
            raise SystemExit('{}: it stopped with status {}'.format(self.process.args, self.process.wait()))
        return json.loads(line)

    def work(self, units):
        """Returns the seconds per unit."""
        self.process.stdin.write('{}\n'.format(units))
        self.process.stdin.flush()
        return self.answer()['seconds']

    def close(self):
        self.process.stdin.close()
        self.process.wait()


def serve(prepare):
    """The competitor's side: prepare() returns a function that does as many units of work as it is told."""
    answers = os.fdopen(os.dup(1), 'w')
    os.dup2(2, 1)  # what a library prints must not get among the answers

    def reply(**answer):
        print(json.dumps(answer), file=answers, flush=True)

    try:
        work = prepare()
    except ImportError as error:
        return reply(missing=str(error))
    reply()
    for line in sys.stdin:
        start = time.perf_counter()
        work(int(line))
        reply(seconds=(time.perf_counter() - start) / int(line))


class Turns(collections.namedtuple('Turns', 'seconds')):
    """Seconds per unit in each round."""

    @property
    def median(self):
        return statistics.median(self.seconds)


def compete(script, competitors, units, rounds):
    """competitors: {name: arguments for the script's --work} -> {name: Turns}.

    Each warms up with one short turn that does not count. One that lacks its library is named on
    stderr and left out.
    """
    running = {}
    for name, arguments in competitors.items():
        competitor = Competitor(script, arguments)
        if competitor.missing:
            print('left out: {} ({})'.format(name, competitor.missing), file=sys.stderr)
        else:
            competitor.work(max(1, units // 4))
            running[name] = competitor
    answers = {name: [] for name in running}
    for _ in range(rounds):
        for name, competitor in running.items():
            answers[name].append(competitor.work(units))
    for competitor in running.values():
        competitor.close()
    return {name: Turns(seconds) for name, seconds in answers.items()}


def table_rows(lines):
    """Yields {'epoch', 'validation', 'test'} for each row of the table that lesson 2 prints."""
    for line in lines:
        fields = line.split()  # epoch, training loss, validation, test, and perhaps the lecture's
        if len(fields) in (4, 5) and fields[0].isdigit():
            yield {'epoch': int(fields[0]), 'validation': float(fields[2]), 'test': float(fields[3])}


def machine():
    """One line: the processor, its instructions for bfloat16, how many of its cores we may use, and the Python."""
    model = platform.processor() or platform.machine()
    try:
        with open('/proc/cpuinfo') as file:
            text = file.read()
        model = re.search('model name.*: (.*)', text).group(1)
        model += ' with ' + (', '.join(name for name in ('avx512_bf16', 'amx_bf16') if name in text) or 'no bfloat16')
    except (OSError, AttributeError):
        pass
    cores = len(os.sched_getaffinity(0)) if hasattr(os, 'sched_getaffinity') else os.cpu_count()
    return '{}, {} cores, Python {}'.format(model, cores, platform.python_version())
