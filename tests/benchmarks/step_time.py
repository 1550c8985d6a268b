"""One training step of lesson 2, in milliseconds, beside the same network in Keras and PyTorch.

    python tests/benchmarks/step_time.py
    python tests/benchmarks/step_time.py ../another_checkout

Ours is the inner loop of the lesson as it runs by default: with feeding, augmentation, dropout, the moving average of
the weights, the progress bar and the logs. The others do less: forward, backward, dropout and Adam, on digits that lie
ready in memory. The second command races lesson 2 of another checkout of this project, too.
"""
import argparse
import importlib
import itertools
import os
import statistics
import sys
import tempfile

import numpy as np

import rounds


def ours(turns, precision, batch_size, steps, folder=rounds.ROOT):
    """The lesson trains as a user trains; only, its batches come in turns, between which it waits, and never end."""
    sys.path.insert(0, folder)
    lesson = importlib.import_module('07_convnet_mnist')
    if precision == 'bfloat16' and not lesson.devices.can_use_bfloat16():
        raise ImportError('no bfloat16 here')
    batches, prefetch = lesson.utils.batches, lesson.utils.prefetch

    def endless(dataset, batch_size, augment_pixels, seed, epoch, **_):
        for epoch in itertools.count(epoch):
            for images, labels in batches(dataset, batch_size, augment_pixels, seed, epoch):
                if len(labels) == batch_size:
                    yield images, labels

    def in_turns(iterator):
        ahead = prefetch(iterator)
        for count in turns:
            yield from itertools.islice(ahead, count)
        sys.exit()

    lesson.utils.batches, lesson.utils.prefetch = endless, in_turns
    with tempfile.TemporaryDirectory() as scratch:
        lesson.main(['--batch-size', str(batch_size), '--output-dir', scratch] + ['--bf16'] * (precision == 'bfloat16'))


def memory_digits(batch_size, steps):
    import utils
    digits = utils.read_mnist(utils.MNIST_DIR).train
    return (np.resize(digits.images, [steps * batch_size, 28, 28]).astype(np.float32)[..., np.newaxis] / 255,
            np.resize(digits.labels, [steps * batch_size]).astype(np.int64))


def keras(turns, precision, batch_size, steps):
    os.environ['KERAS_BACKEND'] = 'tensorflow'
    import keras
    if precision == 'bfloat16':
        keras.mixed_precision.set_global_policy('mixed_bfloat16')
    layers = keras.layers
    model = keras.Sequential([
        keras.Input([28, 28, 1]),
        layers.Conv2D(32, 5, padding='same', activation='relu'), layers.MaxPooling2D(),
        layers.Conv2D(64, 5, padding='same', activation='relu'), layers.MaxPooling2D(),
        layers.Flatten(), layers.Dense(1024, activation='relu'), layers.Dropout(0.25),
        layers.Dense(10, dtype='float32')])
    model.compile('adam', keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    images, labels = memory_digits(batch_size, steps)
    for count in turns:
        model.fit(images[:count * batch_size], labels[:count * batch_size], batch_size=batch_size, verbose=0)


def pytorch(turns, precision, batch_size, steps):
    import torch
    from torch import nn
    model = nn.Sequential(nn.Conv2d(1, 32, 5, padding='same'), nn.ReLU(), nn.MaxPool2d(2),
                          nn.Conv2d(32, 64, 5, padding='same'), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten(),
                          nn.Linear(3136, 1024), nn.ReLU(), nn.Dropout(0.25), nn.Linear(1024, 10))
    adam = torch.optim.Adam(model.parameters())
    loss_of = nn.CrossEntropyLoss()
    images, labels = [torch.from_numpy(array) for array in memory_digits(batch_size, steps)]
    images = images.permute(0, 3, 1, 2).contiguous()
    for count in turns:
        for chosen in torch.randperm(count * batch_size).split(batch_size):
            adam.zero_grad()
            with torch.autocast('cpu', torch.bfloat16, enabled=precision == 'bfloat16'):
                loss = loss_of(model(images[chosen]), labels[chosen])
            loss.backward()
            adam.step()


COMPETITORS = {'ours': ours, 'Keras on TensorFlow': keras, 'PyTorch': pytorch}


def main(flags):
    print(rounds.machine())
    for precision in flags.precisions:
        networks = {name: [name, precision, flags.batch_size, flags.steps] for name in COMPETITORS}
        if flags.folder:
            networks['ours in ' + flags.folder] = networks['ours'] + [os.path.abspath(flags.folder)]
        times = rounds.compete(__file__, networks, flags.steps, flags.rounds)
        if 'ours' not in times:
            continue
        print('\n{}: a step of {} images; the median of {} rounds, and the time / ours in each round\n'
              '  {:24}{:>8}{:>14}{:>16}'.format(precision, flags.batch_size, flags.rounds, '', 'ms', 'time / ours',
                                                'from, to'))
        for name, seconds in times.items():
            ratios = [other / ours for other, ours in zip(seconds, times['ours'])]
            print('  {:24}{:8.1f}{:14.2f}{:10.2f}{:6.2f}'.format(
                name, statistics.median(seconds) * 1e3, statistics.median(ratios), min(ratios), max(ratios)))


if __name__ == '__main__':
    if sys.argv[1:2] == ['--work']:
        name, precision, batch_size, steps, *folder = sys.argv[2:]
        rounds.serve(lambda turns: COMPETITORS[name](turns, precision, int(batch_size), int(steps), *folder))
    else:
        parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
        parser.add_argument('folder', nargs='?', help='another checkout of this project')
        parser.add_argument('--batch-size', type=int, default=128)
        parser.add_argument('--steps', type=int, default=100, help='per turn; with few, what begins a turn would count')
        parser.add_argument('--rounds', type=int, default=5)
        parser.add_argument('--precisions', nargs='+', choices=['float32', 'bfloat16'], default=['float32', 'bfloat16'])
        main(parser.parse_args())
