"""The network of lesson 2: its variables, loss, sharing, moving averages and batches."""
import threading

import numpy as np
import pytest
import scipy.ndimage
import scipy.signal
import scipy.stats

import utils
from conftest import lesson2, tf
from support import figures, results

VARIABLES = {  # name: of the initial values with seed 0 the first and the sum of squares; inputs; scale
    'conv1/weights': (0.021876436, 0.6671087, 25, 0.02),
    'conv1/biases': (0.0, 0.0, None, None),
    'conv2/weights': (0.0049054539, 128.01118, 800, 2),
    'conv2/biases': (0.0, 0.0, None, None),
    'fc/weights': (-0.040467925, 2048.592, 3136, 2),
    'fc/biases': (0.0, 0.0, None, None),
    'softmax_linear/weights': (0.054601382, 10.045236, 1024, 1),
    'softmax_linear/biases': (0.0, 0.0, None, None),
}


@pytest.fixture(autouse=True)
def session():
    """A session, in a graph of its own, for each test."""
    with tf.Graph().as_default(), tf.Session() as session:
        tf.set_random_seed(0)
        yield session


def values_of_variables(session):
    return session.run({variable.op.name: variable for variable in tf.trainable_variables()})


# ---- The network ----

def test_initial_values_are_equal_on_both_tensorflows_and_as_wide_as_the_formula_says(session):
    lesson2.inference(tf.zeros([1, 28, 28], tf.uint8), 1.0)
    session.run(tf.global_variables_initializer())
    values = values_of_variables(session)
    assert set(values) == set(VARIABLES)
    for name, (first, squares, inputs, scale) in VARIABLES.items():
        assert values[name].ravel()[0] == pytest.approx(first, rel=1e-6), name
        assert np.square(values[name], dtype=np.float64).sum() == pytest.approx(squares, rel=1e-6), name
        if inputs:
            assert values[name].std() == pytest.approx(np.sqrt(scale / inputs), rel=0.05), name


@pytest.mark.parametrize('stddev', [1, 0.1])
def test_init_stddev_is_the_deviation_of_all_weights(session, stddev):
    """Judged by scipy's truncated normal distribution, which ends at two deviations."""
    lesson2.inference(tf.zeros([1, 28, 28], tf.uint8), 1.0, stddev=stddev)
    session.run(tf.global_variables_initializer())
    values = values_of_variables(session)
    shrunk = scipy.stats.truncnorm(-2, 2).std()
    for name in [name for name in values if name.endswith('/biases')]:
        assert not values.pop(name).any(), name
    for name, value in values.items():
        tolerance = 4 / np.sqrt(2 * value.size)  # four standard errors
        assert value.std() == pytest.approx(stddev * shrunk, rel=tolerance), name
        assert abs(value.mean()) < stddev * 4 / np.sqrt(value.size) and np.abs(value).max() <= 2 * stddev, name
    firsts = [value.ravel()[0] for value in values.values()]
    assert len(set(firsts)) == len(firsts) == 4  # no two variables have the same random numbers


def test_initial_loss_is_that_of_guessing_and_depends_on_the_seed(mnist):
    losses = []
    for seed in range(3):
        with tf.Graph().as_default(), tf.Session() as session:
            tf.set_random_seed(seed)
            logits = lesson2.inference(tf.constant(mnist.train.images[:500]), 1.0)
            loss = lesson2.loss(logits, tf.constant(mnist.train.labels[:500].astype(np.int32)))
            session.run(tf.global_variables_initializer())
            losses.append(session.run(loss))
    assert len(set(losses)) == 3 and min(losses) > 2.2 and max(losses) < 2.8


def test_the_network_computes_what_scipy_computes(session):
    """The whole forward pass, written once more with scipy."""
    images = np.random.RandomState(0).randint(0, 256, [3, 28, 28]).astype(np.uint8)
    logits = lesson2.inference(tf.constant(images), 1.0)
    session.run(tf.global_variables_initializer())
    for variable in tf.trainable_variables():
        if 'biases' in variable.op.name:  # they start at zero, which would hide a missing one
            variable.load(np.linspace(-0.1, 0.1, int(variable.shape[0]), dtype=np.float32), session)
    w1, b1, w2, b2, w3, b3, w4, b4 = session.run(tf.trainable_variables())
    ours = session.run(logits)

    def conv_relu_pool(x, w, b):
        out = np.stack([sum(scipy.signal.correlate2d(x[:, :, c], w[:, :, c, k], 'same') for c in range(x.shape[2]))
                        for k in range(w.shape[3])], axis=2)
        out = np.maximum(out + b, 0)
        return out.reshape(out.shape[0] // 2, 2, out.shape[1] // 2, 2, -1).max(axis=(1, 3))

    for image, logit in zip(images, ours):
        hidden = conv_relu_pool(conv_relu_pool(image[:, :, np.newaxis] / 255, w1, b1), w2, b2).ravel()
        hidden = np.maximum(hidden.dot(w3) + b3, 0)
        np.testing.assert_allclose(logit, hidden.dot(w4) + b4, rtol=1e-3, atol=1e-4)


def test_dropout_keeps_the_mean_and_depends_on_seed_and_step_alone():
    step = tf.train.get_or_create_global_step()
    dropped = lesson2.dropout(tf.ones([200, 1024]), 0.75, 7)
    another_seed = lesson2.dropout(tf.ones([200, 1024]), 0.75, 8)
    kept = lesson2.dropout(tf.ones([200, 1024]), 1.0, 7)
    with tf.Session() as session:
        first = session.run(dropped, {step: 3})
        assert (session.run(kept, {step: 3}) == 1).all()
    with tf.Session() as session:  # a new session, as after a resume
        again, *others = [session.run(each, {step: number})
                          for each, number in ((dropped, 3), (dropped, 4), (another_seed, 3))]
    np.testing.assert_array_equal(first, again)
    for other in others:
        assert (first != other).mean() == pytest.approx(2 * 0.75 * 0.25, abs=0.01)
    assert set(np.unique(first)) == {0, np.float32(1 / 0.75)}
    assert first.mean() == pytest.approx(1, abs=0.01)


@pytest.mark.parametrize('kernel, stride, padding, pool, pool_stride', [
    [(5, 5), 1, 'SAME', 2, 2], [(3, 4), 2, 'SAME', 3, 2], [(4, 3), 2, 'VALID', 2, 1]])
def test_what_a_value_sees_is_where_its_gradient_is_not_0(session, kernel, stride, padding, pool, pool_stride):
    layer = images = tf.constant(0.0, shape=[1, 40, 43, 1])
    for channels in 1, 2:
        weights = tf.ones(kernel + (channels, 2))
        layer = tf.nn.relu(1 + tf.nn.conv2d(layer, weights, [1, stride, stride, 1], padding))  # 0 would stop it
        layer = tf.nn.avg_pool(layer, [1, pool, pool, 1], [1, pool_stride, pool_stride, 1], 'SAME')
    window = results.window(layer)
    row, column = [size // 2 for size in layer.shape.as_list()[1:3]]
    gradient, = tf.gradients(layer[0, row, column, 0], images)
    seen = np.argwhere(session.run(gradient)[0, :, :, 0])
    np.testing.assert_array_equal(seen.min(axis=0), window.first.clip(0))
    np.testing.assert_array_equal(seen.max(axis=0), np.minimum(window.last, [39, 42]))
    assert list(window.size) == [pool, pool] and list(window.strides) == [pool_stride, pool_stride]


@pytest.mark.parametrize('change', [
    lambda layer: layer + tf.nn.max_pool(layer, [1, 3, 3, 1], [1, 1, 1, 1], 'SAME'),
    lambda layer: tf.nn.conv2d(layer, np.ones([3, 3, 1, 1], np.float32), [1] * 4, 'SAME', dilations=[1, 2, 2, 1]),
    lambda layer: tf.reduce_mean(layer, axis=[1, 2], keepdims=True), tf.nn.relu])
def test_what_a_value_sees_is_not_told_of_other_operations(change):
    assert results.window(change(tf.zeros([1, 28, 28, 1]))) is None


def test_a_changed_network_is_drawn_as_it_is(session, mnist):
    images = tf.placeholder(tf.uint8, [None, 28, 28])
    conv3 = lesson2.conv_relu(tf.cast(images[..., tf.newaxis], tf.float32), 6, 'conv3', lesson2.initial_weights(1))
    logits = lesson2.fully_connected(lesson2.max_pool(conv3, 'pool3'), 10, 'scores', lesson2.initial_weights(2))
    for layer in conv3, tf.get_default_graph().get_tensor_by_name('pool3:0'), logits:
        tf.add_to_collection(tf.GraphKeys.ACTIVATIONS, layer)
    session.run(tf.global_variables_initializer())
    test = utils.Dataset(*[array[:2] for array in mnist.test])
    trained = results.compute(session, None, images, logits, test)
    texts = [text.get_text() for text in figures.plot_network(trained).axes[0].texts if text.get_text()]
    assert texts[:3] == ['5 x 5', '2 x 2\nstride 2', 'all']
    assert texts[7:] == ['conv3', '28 x 28 x 6', '156', '5 x 5', 'pool3', '14 x 14 x 6', '0', '6 x 6',
                         'scores', '10', '11,770', 'all']


# ---- Training and evaluation ----

def test_a_second_network_without_reuse_raises_and_with_reuse_shares_all_variables():
    lesson2.inference(tf.zeros([1, 28, 28], tf.uint8), 1.0)
    before = tf.trainable_variables()
    with pytest.raises(ValueError, match='conv1/weights already exists'):
        lesson2.inference(tf.zeros([1, 28, 28], tf.uint8), 1.0)
    with tf.variable_scope(tf.get_variable_scope(), reuse=True):
        lesson2.inference(tf.zeros([1, 28, 28], tf.uint8), 1.0)
    assert tf.trainable_variables() == before and len(before) == 8


@pytest.mark.parametrize('decay', [0.999, 0.3, 0.0])
def test_training_steps_are_those_of_adam_and_the_averages_follow_them(session, mnist, decay):
    """Adam's first step, judged by NumPy; then average = d * average + (1 - d) * variable after each step."""
    images, labels = tf.constant(mnist.train.images[:128]), tf.constant(mnist.train.labels[:128].astype(np.int32))
    cross_entropy = lesson2.loss(lesson2.inference(images, 1.0), labels)
    variables = tf.trainable_variables()
    gradients = tf.gradients(cross_entropy, variables)
    train_op, ema = lesson2.train_and_average(lesson2.training(cross_entropy, 1e-3), decay)
    averages = [ema.average(variable) for variable in variables]
    session.run(tf.global_variables_initializer())
    before, gradient_values = session.run([variables, gradients])
    expected = before
    for number in range(1, 4):
        session.run(train_op)
        values = session.run(variables)
        if number == 1:
            for old, gradient, new in zip(before, gradient_values, values):
                step = 1e-3 * gradient / (np.abs(gradient) + 1e-8 / np.sqrt(1 - 0.999))
                np.testing.assert_allclose(new - old, -step, atol=2e-5)
        used = min(decay, (1 + number) / (10 + number))
        expected = [used * average + (1 - used) * value for average, value in zip(expected, values)]
        for found, wanted in zip(session.run(averages), expected):
            np.testing.assert_allclose(found, wanted, rtol=1e-4, atol=1e-6)
    assert session.run(tf.train.get_global_step()) == 3


def test_evaluation_counts_the_correct_ones_and_changes_nothing(session, mnist):
    """1,003 digits, which no batch size divides, judged by NumPy."""
    dataset = utils.Dataset(mnist.test.images[:1003], mnist.test.labels[:1003])
    images, labels = tf.placeholder(tf.uint8, [None, 28, 28]), tf.placeholder(tf.int32, [None])
    logits = lesson2.inference(images, 1.0)
    correct = lesson2.evaluation(logits, labels)
    session.run(tf.global_variables_initializer())
    before = values_of_variables(session)
    found = lesson2.accuracy(session, correct, images, labels, dataset)
    expected = session.run(logits, {images: dataset.images}).argmax(axis=1) == dataset.labels
    after = values_of_variables(session)
    assert found == pytest.approx(expected.mean(), abs=1e-9) and 0 < found < 0.5
    for name in before:
        np.testing.assert_array_equal(before[name], after[name])


# ---- Batches ----

def test_every_training_digit_comes_once_per_epoch():
    count = 1000
    digits = utils.Dataset(np.arange(count, dtype=np.uint16)[:, None, None] * np.ones([1, 28, 28], np.uint16),
                           np.arange(count, dtype=np.uint16))
    epochs = [list(utils.batches(digits, 128, 0, seed=5, epoch=epoch)) for epoch in (1, 2, 1)]
    for batches in epochs:
        assert [len(labels) for _, labels in batches] == [128] * 7 + [104]
        assert sorted(np.concatenate([labels for _, labels in batches])) == list(range(count))
        for images, labels in batches:
            assert (images == labels[:, None, None]).all()
    orders = [np.concatenate([labels for _, labels in batches]) for batches in epochs]
    assert (orders[0] == orders[2]).all() and (orders[0] != orders[1]).any()


def test_images_are_augmented_if_asked_for(mnist):
    same, warped = [next(utils.batches(mnist.train, 50, pixels, seed=0, epoch=1)) for pixels in (0, 1.0)]
    np.testing.assert_array_equal(same[1], warped[1])
    assert warped[0].dtype == np.uint8
    changed = (same[0] != warped[0]).any(axis=(1, 2))
    assert changed.all()
    ink = [images.sum(axis=(1, 2), dtype=float) for images in (same[0], warped[0])]
    assert ink[1] / ink[0] == pytest.approx(1, abs=0.5)  # warped, not lost


def test_augmentation_differs_between_epochs_batches_and_seeds(mnist):
    """The dataset is one digit many times, so that only the augmentation can make a difference."""
    digits = utils.Dataset(np.repeat(mnist.train.images[:1], 40, axis=0), np.zeros(40, np.uint8))
    warped = [images for seed, epoch in ((0, 1), (0, 2), (1, 1))
              for images, _ in utils.batches(digits, 20, 1.0, seed=seed, epoch=epoch)]
    assert len({image.tobytes() for images in warped for image in images}) == 3 * 40


def test_prefetch_keeps_the_order_and_works_ahead():
    begun = [threading.Event() for _ in range(7)]

    def items():
        for number in range(5):
            begun[number].set()
            yield number
        raise RuntimeError('at the end')

    found = []
    with pytest.raises(RuntimeError, match='at the end'):
        for number in utils.prefetch(items()):
            found.append(number)
            if number < 4:
                assert begun[number + 1].wait(60)  # the thread prepares the next one meanwhile
            assert not begun[number + 2].is_set()  # and no more than that
    assert found == [0, 1, 2, 3, 4]
    assert list(utils.prefetch(iter([]))) == []


def test_bilinear_sample_is_that_of_scipy(mnist):
    random = np.random.RandomState(0)
    images = mnist.test.images[:20, :, :25]  # height and width differ
    y, x = random.uniform(-5, 33, [2, 20, 28, 25]).astype(np.float32)
    expected = [scipy.ndimage.map_coordinates(image.astype(np.float32), [y, x], order=1, mode='nearest')
                for image, y, x in zip(images, y, x)]
    # 0.3: ours ends 0.001 pixels before the border.
    np.testing.assert_allclose(utils.bilinear_sample(images, y, x), expected, atol=0.3)


@pytest.mark.parametrize('pixels', [0.5, 2])
def test_displacements_are_as_large_as_asked_for(pixels):
    """Two ramps, each pixel's value its own row or column, tell where a pixel comes from."""
    row, column = np.mgrid[:100, :100].astype(np.uint8)
    found = [utils.augment(np.stack([ramp] * 500), pixels, np.random.RandomState(7)).astype(float)
             for ramp in (row, column)]
    dy, dx = found[0] - row, found[1] - column
    middle = np.s_[:, 30:70, 30:70]  # which comes from inside
    for moved in dy[middle], dx[middle]:
        assert moved.mean() == pytest.approx(0, abs=0.15 * pixels)
        shift = moved.mean(axis=(1, 2))
        assert shift.std() == pytest.approx(pixels, rel=0.2)
        assert 0.2 * pixels < (moved - shift[:, None, None]).std() < pixels  # the bending, less than the shift
    assert abs(np.corrcoef(dy[:, 50, 50], dx[:, 50, 50])[0, 1]) < 0.2
