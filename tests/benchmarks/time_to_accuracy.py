"""Seconds from the start of a process until 99.0% of the test digits are read correctly.

    python tests/benchmarks/time_to_accuracy.py

Ours is lesson 2 as it runs by default, and with --bf16. The others have the networks and settings
that keras-io's mnist_convnet and pytorch/examples' mnist publish. They read the digits from data/,
and each is evaluated on the test digits after every epoch.
"""
import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import time

import rounds


def digits(directory):
    """The whole training set, of which ours holds back 5,000, and the test set."""
    import numpy as np
    import utils
    train, validation, test = utils.read_mnist(directory)
    images, labels = [np.concatenate(pair) for pair in zip(validation, train)]
    return images, labels, test.images, test.labels


def keras(directory, seed, epochs):
    os.environ['KERAS_BACKEND'] = 'tensorflow'
    from support import script
    with script.held_back():
        import keras
    keras.utils.set_random_seed(seed)
    layers = keras.layers
    images, labels, test_images, test_labels = digits(directory)
    model = keras.Sequential([
        keras.Input([28, 28, 1]),
        layers.Conv2D(32, 3, activation='relu'), layers.MaxPooling2D(),
        layers.Conv2D(64, 3, activation='relu'), layers.MaxPooling2D(),
        layers.Flatten(), layers.Dropout(0.5), layers.Dense(10, activation='softmax')])
    model.compile('adam', 'sparse_categorical_crossentropy', metrics=['accuracy'])
    count = len(labels) * 9 // 10  # a tenth is held back
    images, test_images = [each[..., None].astype('float32') / 255 for each in (images[:count], test_images)]
    for epoch in range(1, epochs + 1):
        model.fit(images, labels[:count], batch_size=128, verbose=0)
        print(epoch, 'nan', 'nan', '{:.4f}'.format(model.evaluate(test_images, test_labels, verbose=0)[1]), flush=True)


def pytorch(directory, seed, epochs):
    import torch
    from torch import nn
    torch.manual_seed(seed)
    images, labels, test_images, test_labels = [torch.from_numpy(array.copy()) for array in digits(directory)]
    images, test_images = [(each[:, None].float() / 255 - 0.1307) / 0.3081 for each in (images, test_images)]
    model = nn.Sequential(nn.Conv2d(1, 32, 3), nn.ReLU(), nn.Conv2d(32, 64, 3), nn.ReLU(), nn.MaxPool2d(2),
                          nn.Dropout(0.25), nn.Flatten(), nn.Linear(9216, 128), nn.ReLU(), nn.Dropout(0.5),
                          nn.Linear(128, 10), nn.LogSoftmax(1))
    optimizer = torch.optim.Adadelta(model.parameters(), lr=1.0)
    schedule = torch.optim.lr_scheduler.StepLR(optimizer, 1, 0.7)
    for epoch in range(1, epochs + 1):
        model.train()
        for chosen in torch.randperm(len(labels)).split(64):
            optimizer.zero_grad()
            nn.functional.nll_loss(model(images[chosen]), labels[chosen].long()).backward()
            optimizer.step()
        schedule.step()
        model.eval()
        with torch.no_grad():
            correct = sum((model(each).argmax(1) == wanted).sum().item()
                          for each, wanted in zip(test_images.split(1000), test_labels.split(1000)))
        print(epoch, 'nan', 'nan', '{:.4f}'.format(correct / len(test_labels)), flush=True)


OTHERS = {'keras-io mnist_convnet': (keras, 15), 'pytorch/examples mnist': (pytorch, 14)}  # and their epochs


def race(command, target):
    """Returns the seconds, the epochs and the accuracy when it reached the target, or at its end."""
    start = time.perf_counter()
    process = subprocess.Popen([sys.executable] + command, stdout=subprocess.PIPE, universal_newlines=True,
                               env=dict(os.environ, PYTHONUNBUFFERED='1'))
    reached = None
    for row in rounds.table_rows(process.stdout):
        reached = time.perf_counter() - start, row['epoch'], row['test']
        if row['test'] >= target:
            process.kill()
            break
    process.communicate()
    return reached


def main(flags):
    print('{}\nseconds to {:.1%} of the test digits'.format(rounds.machine(), flags.target))
    taken = {}
    for seed in range(flags.seeds):
        with tempfile.TemporaryDirectory() as scratch:
            commands = {name: [rounds.LESSON_2, '--seed', str(seed), '--data-dir', flags.data_dir,
                               '--output-dir', os.path.join(scratch, name)] + more
                        for name, more in (('ours', []), ('ours --bf16', ['--bf16']))}
            commands.update({name: [__file__, '--work', name, flags.data_dir, str(seed)] for name in OTHERS})
            for name, command in commands.items():
                reached = race(command, flags.target)
                if reached is None:
                    print('  left out: {}'.format(name))
                    continue
                print('  seed {} {:24}{:6.0f} s   epoch {:2}  {:.4f}{}'.format(
                    seed, name, *reached, '' if reached[2] >= flags.target else '  not reached'), flush=True)
                taken.setdefault(name, []).append(reached[0])
    print('{:28}{:>10}{:>16}{:>24}'.format('median', 's', 'time / ours', 'time / ours --bf16'))
    medians = {name: statistics.median(seconds) for name, seconds in taken.items()}
    for name, seconds in medians.items():
        print('  {:26}{:10.0f}{:16.1f}{:24.1f}'.format(
            name, seconds, seconds / medians['ours'], seconds / medians['ours --bf16']))


if __name__ == '__main__':
    if sys.argv[1:2] == ['--work']:
        train, epochs = OTHERS[sys.argv[2]]
        train(sys.argv[3], int(sys.argv[4]), epochs)
    else:
        parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
        parser.add_argument('--seeds', type=int, default=3, help='how many rounds, each with another seed')
        parser.add_argument('--target', type=float, default=0.99)
        parser.add_argument('--data-dir', default=os.path.join(rounds.ROOT, 'data', 'mnist'))
        main(parser.parse_args())
