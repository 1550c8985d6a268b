"""What the benchmarks share: every competitor works in a process of its own, and they take turns, round by round.

The machine may be busy with something else at any time. So only figures of the same rounds are compared.
"""
import json
import os
import platform
import re
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


def serve(compete):
    """The competitor's side: compete(turns) prepares itself, then does `count` units of work for each count in turns."""
    answers = os.fdopen(os.dup(1), 'w')
    os.dup2(2, 1)  # what a library prints must not get among the answers

    def reply(**answer):
        print(json.dumps(answer), file=answers, flush=True)

    def turns():
        reply()
        for line in sys.stdin:
            start = time.perf_counter()
            yield int(line)
            reply(seconds=(time.perf_counter() - start) / int(line))

    try:
        compete(turns())
    except ImportError as error:
        reply(missing=str(error))


def compete(script, competitors, units, rounds):
    """competitors: {name: arguments for the script's --work} -> {name: seconds per unit in each round}.

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
    return answers


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
