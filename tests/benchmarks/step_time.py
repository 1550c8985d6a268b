"""One training step of lesson 2, in milliseconds, beside the same network in Keras, PyTorch and JAX.

    python tests/benchmarks/step_time.py

Ours is the inner loop of the lesson as it runs by default: with feeding, augmentation, dropout, the
moving average of the weights, the progress bar and the logs. The others do less: forward, backward,
dropout and Adam, on digits that lie ready in memory.
"""
import argparse
import contextlib
import importlib
import itertools
import os
import shutil
import statistics
import sys
import tempfile

import numpy as np

import rounds

GFLOP_PER_IMAGE = 0.082  # forward and backward; multiplication and addition count as two


def ours(precision, batch_size, steps):
    import utils
    lesson = importlib.import_module('07_convnet_mnist')
    tf, runs = lesson.tf, lesson.runs
    scratch = tempfile.TemporaryDirectory()
    flags = lesson.cli.parse_convnet_flags('', ['--batch-size', str(batch_size), '--output-dir', scratch.name] +
                                           ['--bf16'] * (precision == 'bfloat16'))
    if flags.bf16 and not lesson.devices.can_use_bfloat16():
        raise ImportError('no bfloat16 here')
    data = utils.read_mnist(flags.data_dir)
    data = data._replace(train=utils.Dataset(np.resize(data.train.images, [steps * batch_size, 28, 28]),
                                             np.resize(data.train.labels, [steps * batch_size])))
    images, labels = tf.placeholder(tf.uint8, [None, 28, 28]), tf.placeholder(tf.int32, [None])
    keep_prob = tf.placeholder_with_default(1.0, [])
    _, cross_entropy, train_op = lesson.build_network(flags, images, labels, keep_prob)
    train_op, _ = lesson.moving_average(train_op, flags.ema_decay)
    summary_op = tf.summary.scalar('cross_entropy', cross_entropy)
    session = tf.Session(config=lesson.devices.session_config(flags))
    session.run(tf.global_variables_initializer())
    runs.SECONDS_BETWEEN_SAVES = float('inf')  # or each turn would begin with one, the others' turns being so long
    with contextlib.redirect_stdout(sys.stderr):
        opened = runs.open_run(session, flags, data)
        run = opened.__enter__()
        writer = tf.summary.FileWriter(run.folders.graphs)
        run.newest_checkpoint(writer)
    epochs = itertools.count(1)

    def work(count):
        """The inner loop of the lesson's `train`, over an epoch of `count` steps."""
        epoch = next(epochs)
        train = utils.Dataset(data.train.images[:count * batch_size], data.train.labels[:count * batch_size])
        batches = utils.batches(train, flags.batch_size, flags.augment, flags.seed, epoch)
        for step, (image_batch, label_batch) in enumerate(run.progress(epoch, utils.prefetch(batches)), 1):
            _, loss_value, summary = session.run(
                [train_op, cross_entropy, summary_op],
                feed_dict={images: image_batch, labels: label_batch, keep_prob: flags.keep_prob})
            run.add_loss(loss_value, len(label_batch), step)
            if step % 10 == 0:
                writer.add_summary(summary, step)
            run.must_save()
        return scratch, opened  # they live as long as the work
    return work


def memory_digits(batch_size, steps):
    import utils
    digits = utils.read_mnist(utils.MNIST_DIR).train
    return (np.resize(digits.images, [steps * batch_size, 28, 28]).astype(np.float32)[..., np.newaxis] / 255,
            np.resize(digits.labels, [steps * batch_size]).astype(np.int64))


def keras(precision, batch_size, steps, jit_compile=False):
    os.environ['KERAS_BACKEND'] = 'tensorflow'
    from support import script
    with script.held_back():
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
    model.compile('adam', keras.losses.SparseCategoricalCrossentropy(from_logits=True), jit_compile=jit_compile)
    images, labels = memory_digits(batch_size, steps)
    return lambda count: model.fit(images[:count * batch_size], labels[:count * batch_size],
                                   batch_size=batch_size, verbose=0)


def keras_compiled(precision, batch_size, steps):
    return keras(precision, batch_size, steps, jit_compile=True)


def pytorch(precision, batch_size, steps, memory_format='contiguous_format', compiled=False):
    import torch
    from torch import nn
    if compiled and not shutil.which(os.environ.get('CXX', 'g++')):
        raise ImportError('torch.compile needs a C++ compiler')
    model = nn.Sequential(nn.Conv2d(1, 32, 5, padding='same'), nn.ReLU(), nn.MaxPool2d(2),
                          nn.Conv2d(32, 64, 5, padding='same'), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten(),
                          nn.Linear(3136, 1024), nn.ReLU(), nn.Dropout(0.25), nn.Linear(1024, 10))
    memory_format = getattr(torch, memory_format)
    model.to(memory_format=memory_format).train()
    adam = torch.optim.Adam(model.parameters())
    loss_of = nn.CrossEntropyLoss()
    if compiled:
        model = torch.compile(model)
    images, labels = memory_digits(batch_size, steps)
    images = torch.from_numpy(images.transpose(0, 3, 1, 2)).contiguous(memory_format=memory_format)
    labels = torch.from_numpy(labels)

    def work(count):
        for chosen in torch.randperm(count * batch_size).split(batch_size):
            adam.zero_grad()
            with torch.autocast('cpu', torch.bfloat16, enabled=precision == 'bfloat16'):
                loss = loss_of(model(images[chosen]), labels[chosen])
            loss.backward()
            adam.step()
    return work


def channels_last(precision, batch_size, steps):
    return pytorch(precision, batch_size, steps, 'channels_last')


def torch_compiled(precision, batch_size, steps):
    return pytorch(precision, batch_size, steps, 'channels_last', compiled=True)


def jax(precision, batch_size, steps):
    import jax
    from jax import lax, numpy as jnp
    compute = getattr(jnp, precision)
    random = np.random.RandomState(0)
    shapes = [(5, 5, 1, 32), (5, 5, 32, 64), (3136, 1024), (1024, 10)]
    weights = [(jnp.asarray(random.normal(0, (2 / np.prod(shape[:-1])) ** .5, shape), jnp.float32),
                jnp.zeros(shape[-1])) for shape in shapes]

    def loss_of(weights, images, labels, key):
        conv1, conv2, fc, softmax_linear = jax.tree.map(lambda each: each.astype(compute), weights)
        layer = images.astype(compute)
        for kernel, bias in conv1, conv2:
            layer = lax.conv_general_dilated(layer, kernel, (1, 1), 'SAME', dimension_numbers=('NHWC', 'HWIO', 'NHWC'))
            layer = lax.reduce_window(jax.nn.relu(layer + bias), -jnp.inf, lax.max, (1, 2, 2, 1), (1, 2, 2, 1), 'VALID')
        layer = jax.nn.relu(layer.reshape(len(layer), -1) @ fc[0] + fc[1])
        layer = jnp.where(jax.random.bernoulli(key, 0.75, layer.shape), layer / 0.75, 0)
        logits = (layer @ softmax_linear[0] + softmax_linear[1]).astype(jnp.float32)
        return -jnp.mean(jnp.take_along_axis(jax.nn.log_softmax(logits), labels[:, None], 1))

    @jax.jit
    def step(state, images, labels):
        weights, first, second, number = state
        number = number + 1
        gradients = jax.grad(loss_of)(weights, images, labels, jax.random.key(number))
        first = jax.tree.map(lambda m, g: .9 * m + .1 * g, first, gradients)
        second = jax.tree.map(lambda v, g: .999 * v + .001 * g * g, second, gradients)
        rate = 1e-3 * jnp.sqrt(1 - .999 ** number) / (1 - .9 ** number)
        weights = jax.tree.map(lambda w, m, v: w - rate * m / (jnp.sqrt(v) + 1e-7), weights, first, second)
        return weights, first, second, number

    zeros = jax.tree.map(jnp.zeros_like, weights)
    state = [(weights, zeros, zeros, jnp.array(0))]
    images, labels = memory_digits(batch_size, steps)

    def work(count):
        for chosen in random.permutation(count * batch_size).reshape(count, batch_size):
            state[0] = step(state[0], images[chosen], labels[chosen])
        jax.block_until_ready(state[0])
    return work


COMPETITORS = {'ours': ours, 'Keras on TensorFlow': keras, 'Keras, jit_compile': keras_compiled, 'PyTorch': pytorch,
               'PyTorch channels_last': channels_last, 'torch.compile': torch_compiled, 'JAX': jax}


# ---- The machine's peak: the best that any library's large product or convolution reaches ---------

def tensorflow_peak(precision, operation):
    import tensorflow.compat.v1 as tf
    tf.disable_v2_behavior()
    if precision == 'bfloat16' and tf.__version__ < '2':
        raise ImportError('TensorFlow 1.15 has no bfloat16 on processors')
    operands = [tf.get_variable(name, initializer=tf.ones(shape, precision))
                for name, shape in zip('ab', PEAK_SHAPES[operation])]
    output = tf.matmul(*operands) if operation == 'matmul' else tf.nn.conv2d(*operands, strides=[1] * 4, padding='SAME')
    session = tf.Session(config=tf.ConfigProto(inter_op_parallelism_threads=1))
    session.run(tf.global_variables_initializer())
    return lambda count: [session.run(output.op) for _ in range(count)]


def pytorch_peak(precision, operation):
    import torch
    operands = [torch.ones(shape, dtype=getattr(torch, precision)) for shape in PEAK_SHAPES[operation]]
    if operation == 'matmul':
        return lambda count: [torch.matmul(*operands) for _ in range(count)]
    images = operands[0].permute(0, 3, 1, 2)  # as it is: channels_last
    weights = operands[1].permute(3, 2, 0, 1).contiguous(memory_format=torch.channels_last)
    return lambda count: [torch.nn.functional.conv2d(images, weights, padding='same') for _ in range(count)]


def jax_peak(precision, operation):
    import jax
    operands = [jax.numpy.ones(shape, precision) for shape in PEAK_SHAPES[operation]]
    compute = jax.jit(jax.numpy.matmul if operation == 'matmul' else lambda images, weights:
                      jax.lax.conv_general_dilated(images, weights, (1, 1), 'SAME',
                                                   dimension_numbers=('NHWC', 'HWIO', 'NHWC')))
    return lambda count: [jax.block_until_ready(compute(*operands)) for _ in range(count)]


PEAKS = {'TensorFlow': tensorflow_peak, 'PyTorch': pytorch_peak, 'JAX': jax_peak}
PEAK_SHAPES = {'matmul': [[3072, 3072], [3072, 3072]], 'convolution': [[512, 14, 14, 32], [5, 5, 32, 64]]}
PEAK_GFLOP = {'matmul': 2 * 3.072 ** 3, 'convolution': 2 * 512 * 14 * 14 * 25 * 32 * 64 / 1e9}


def main(flags):
    print(rounds.machine())
    for precision in flags.precisions:
        networks = {name: ['network', name, precision, flags.batch_size, flags.steps] for name in COMPETITORS}
        peaks = {(name, operation): ['peak', name, precision, operation] for name in PEAKS for operation in PEAK_SHAPES}
        times = rounds.compete(__file__, networks, flags.steps, flags.rounds)
        if 'ours' not in times:
            continue
        peak_times = rounds.compete(__file__, peaks, 3, flags.rounds)
        speeds = {key: PEAK_GFLOP[key[1]] / turns.median for key, turns in peak_times.items()}
        best = max(speeds, key=speeds.get)
        print('\n{}: a step of {} images; the median of {} rounds, and the time / ours in each round\n'
              '  {:24}{:>8}{:>10}{:>10}{:>14}{:>16}'.format(precision, flags.batch_size, flags.rounds, '', 'ms',
                                                            'GFLOP/s', 'of peak', 'time / ours', 'from, to'))
        for name, turns in times.items():
            speed = GFLOP_PER_IMAGE * flags.batch_size / turns.median
            ratios = [other / ours for other, ours in zip(turns.seconds, times['ours'].seconds)]
            print('  {:24}{:8.1f}{:10.0f}{:10.0%}{:14.2f}{:10.2f}{:6.2f}'.format(
                name, turns.median * 1e3, speed, speed / speeds[best], statistics.median(ratios), min(ratios),
                max(ratios)))
        print('  peak: {:.0f} GFLOP/s, a {} of {}'.format(speeds[best], best[1], best[0]))


if __name__ == '__main__':
    if sys.argv[1:2] == ['--work']:
        kind, name, precision, *rest = sys.argv[2:]
        rounds.serve(lambda: COMPETITORS[name](precision, *map(int, rest)) if kind == 'network'
                     else PEAKS[name](precision, *rest))
    else:
        parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
        parser.add_argument('--batch-size', type=int, default=128)
        parser.add_argument('--steps', type=int, default=100, help='per turn; with few, what begins a turn would count')
        parser.add_argument('--rounds', type=int, default=5)
        parser.add_argument('--precisions', nargs='+', choices=['float32', 'bfloat16'], default=['float32', 'bfloat16'])
        main(parser.parse_args())
