"""The network of lesson 2: its shapes, variables, loss and batches."""
import time

import numpy as np
import pytest
import scipy.ndimage

import utils

VARIABLES = {  # name: shape and, of the initial values with seed 0, the first and the sum of squares
    'conv1/weights': ([5, 5, 1, 32], -0.026087852, 0.65272547),
    'conv1/biases': ([32], 0.0, 0.0),
    'conv2/weights': ([5, 5, 32, 64], -0.048777048, 127.85205),
    'conv2/biases': ([64], 0.0, 0.0),
    'fc/weights': ([3136, 1024], 0.030480029, 2047.6408),
    'fc/biases': ([1024], 0.0, 0.0),
    'softmax_linear/weights': ([1024, 10], 0.010526354, 9.9003195),
    'softmax_linear/biases': ([10], 0.0, 0.0),
}


@pytest.fixture
def tf(lesson2):
    with lesson2.tf.Graph().as_default():
        yield lesson2.tf


def test_layer_shapes_are_the_lecture_s(lesson2, tf):
    layers = lesson2.inference(tf.zeros([5, 28, 28, 1]))
    assert {name: layer.shape.as_list() for name, layer in layers.items()} == {
        'conv1': [5, 28, 28, 32], 'pool1': [5, 14, 14, 32], 'conv2': [5, 14, 14, 64], 'pool2': [5, 7, 7, 64],
        'fc': [5, 1024], 'softmax_linear': [5, 10]}
    shapes = {variable.op.name: variable.shape.as_list() for variable in tf.trainable_variables()}
    assert shapes == {name: shape for name, (shape, _, _) in VARIABLES.items()}
    assert sum(np.prod(shape) for shape in shapes.values()) == 3274634


def test_initial_values_are_equal_on_both_tensorflows(lesson2, tf):
    lesson2.inference(tf.zeros([1, 28, 28, 1]), seed=0)
    with tf.Session() as session:
        session.run(tf.global_variables_initializer())
        for variable in tf.trainable_variables():
            value = session.run(variable)
            _, first, squares = VARIABLES[variable.op.name]
            assert value.ravel()[0] == pytest.approx(first, rel=1e-6), variable.op.name
            assert np.square(value, dtype=np.float64).sum() == pytest.approx(squares, rel=1e-6), variable.op.name


def test_another_seed_gives_other_values(lesson2, tf):
    lesson2.inference(tf.zeros([1, 28, 28, 1]), seed=1)
    with tf.Session() as session:
        session.run(tf.global_variables_initializer())
        weights = session.run(tf.trainable_variables()[0])
    assert weights.ravel()[0] != pytest.approx(VARIABLES['conv1/weights'][1], rel=1e-3)


def test_reuse_shares_all_variables_and_without_it_they_clash(lesson2, tf):
    lesson2.inference(tf.zeros([1, 28, 28, 1]))
    with pytest.raises(ValueError, match='already exists'):
        lesson2.inference(tf.zeros([1, 28, 28, 1]))
    with tf.variable_scope(tf.get_variable_scope(), reuse=True):
        lesson2.inference(tf.zeros([1, 28, 28, 1]))
    assert len(tf.global_variables()) == 8


def test_initial_loss_is_that_of_guessing(lesson2, tf, mnist):
    images = tf.constant(mnist.train.images[:500, :, :, np.newaxis] / np.float32(255))
    for seed in range(3):
        with tf.variable_scope('seed{}'.format(seed)):
            logits = lesson2.inference(images, seed)['softmax_linear']
            loss = lesson2.cross_entropy(logits, tf.constant(mnist.train.labels[:500].astype(np.int32)))
        with tf.Session() as session:
            session.run(tf.global_variables_initializer())
            assert 2.2 < session.run(loss) < 2.8


def test_the_network_computes_what_numpy_computes(lesson2, tf):
    """The whole forward pass, written once more with scipy."""
    import scipy.signal
    images = np.random.RandomState(0).rand(3, 28, 28, 1).astype(np.float32)
    logits = lesson2.inference(tf.constant(images))['softmax_linear']
    with tf.Session() as session:
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
        hidden = conv_relu_pool(conv_relu_pool(image, w1, b1), w2, b2).ravel()
        hidden = np.maximum(hidden.dot(w3) + b3, 0)
        np.testing.assert_allclose(logit, hidden.dot(w4) + b4, rtol=1e-3, atol=1e-4)


def test_dropout_keeps_the_mean_and_depends_on_seed_and_step_alone(lesson2, tf):
    step = tf.placeholder(tf.int64, [])
    dropped = lesson2.dropout(tf.ones([200, 1024]), 0.75, 7, step)
    with tf.Session() as session:
        first = session.run(dropped, {step: 3})
    with tf.Session() as session:  # a new session, as after a resume
        again, other = session.run(dropped, {step: 3}), session.run(dropped, {step: 4})
    np.testing.assert_array_equal(first, again)
    assert (first != other).mean() == pytest.approx(2 * 0.75 * 0.25, abs=0.01)
    assert set(np.unique(first)) == {0, np.float32(1 / 0.75)}
    assert first.mean() == pytest.approx(1, abs=0.01)


def test_every_training_digit_comes_once_per_epoch(lesson2):
    count = 1000
    digits = utils.Digits(np.arange(count, dtype=np.uint16)[:, None, None] * np.ones([1, 28, 28], np.uint16),
                          np.arange(count, dtype=np.uint16))
    epochs = [list(utils.batches(digits, 128, 0, seed=5, epoch=epoch, first=0)) for epoch in (1, 2, 1)]
    for batches in epochs:
        assert [len(labels) for _, labels in batches] == [128] * 7 + [104]
        assert sorted(np.concatenate([labels for _, labels in batches])) == list(range(count))
        for images, labels in batches:
            assert (images == labels[:, None, None]).all()
    orders = [np.concatenate([labels for _, labels in batches]) for batches in epochs]
    assert (orders[0] == orders[2]).all() and (orders[0] != orders[1]).any()


def test_an_epoch_can_be_entered_in_the_middle(lesson2, mnist):
    whole = list(utils.batches(mnist.test, 300, 2, seed=1, epoch=4, first=0))
    rest = list(utils.batches(mnist.test, 300, 2, seed=1, epoch=4, first=20))
    assert len(rest) == len(whole) - 20
    for expected, found in zip(whole[20:], rest):
        np.testing.assert_array_equal(expected[0], found[0])
        np.testing.assert_array_equal(expected[1], found[1])


def test_only_training_digits_that_shall_be_are_distorted(lesson2, mnist):
    same, bent = [next(utils.batches(mnist.train, 50, distort, seed=0, epoch=1, first=0)) for distort in (0, 1.0)]
    np.testing.assert_array_equal(same[1], bent[1])
    assert bent[0].dtype == np.uint8
    changed = (same[0] != bent[0]).any(axis=(1, 2))
    assert changed.all()
    ink = [images.sum(axis=(1, 2), dtype=float) for images in (same[0], bent[0])]
    assert ink[1] / ink[0] == pytest.approx(1, abs=0.5)  # bent, not lost


def test_ahead_keeps_the_order_and_works_ahead():
    begun = []

    def items():
        for number in range(5):
            begun.append(number)
            yield number
        raise RuntimeError('at the end')

    found = []
    with pytest.raises(RuntimeError, match='at the end'):
        for number in utils.ahead(items()):
            found.append(number)
            deadline = time.time() + 20
            while len(begun) < min(number + 2, 5) and time.time() < deadline:
                time.sleep(0.001)
            assert begun == list(range(min(number + 2, 5)))  # the next, but no more
    assert found == [0, 1, 2, 3, 4]


def test_bilinear_is_that_of_scipy(mnist):
    random = np.random.RandomState(0)
    images = mnist.test.images[:20, :, :25]  # height and width differ
    y, x = random.uniform(-5, 33, [2, 20, 28, 25]).astype(np.float32)
    expected = [scipy.ndimage.map_coordinates(image.astype(np.float32), [y, x], order=1, mode='nearest')
                for image, y, x in zip(images, y, x)]
    np.testing.assert_allclose(utils.bilinear(images, y, x), expected, atol=0.3)  # it ends 0.001 pixel before the border


@pytest.mark.parametrize('pixels', [0.5, 2])
def test_distortions_are_as_large_as_asked_for(pixels):
    """Two ramps, each pixel's value its own row or column, tell where a pixel comes from."""
    row, column = np.mgrid[:100, :100].astype(np.uint8)
    found = [utils.distort(np.stack([ramp] * 500), pixels, np.random.RandomState(7)).astype(float)
             for ramp in (row, column)]
    dy, dx = found[0] - row, found[1] - column
    middle = np.s_[:, 30:70, 30:70]  # which comes from inside
    for moved in dy[middle], dx[middle]:
        assert moved.mean() == pytest.approx(0, abs=0.15 * pixels)
        shift = moved.mean(axis=(1, 2))
        assert shift.std() == pytest.approx(pixels, rel=0.2)
        assert 0.2 * pixels < (moved - shift[:, None, None]).std() < pixels  # the bending, less than the shift
    assert abs(np.corrcoef(dy[:, 50, 50], dx[:, 50, 50])[0, 1]) < 0.2


def test_evaluation_counts_all_and_changes_nothing(lesson2, tf, mnist):
    """With moving averages and with a batch that does not divide the digits, judged by NumPy's argmax."""
    digits = utils.Digits(mnist.test.images[:1003], mnist.test.labels[:1003])
    images, labels = tf.placeholder(tf.float32, [None, 28, 28, 1]), tf.placeholder(tf.uint8, [None])
    step = tf.get_variable('step', [], tf.int64, tf.zeros_initializer(), trainable=False)
    logits = lesson2.inference(images)['softmax_linear']
    _, average_op, averages = lesson2.training(
        lesson2.cross_entropy(logits, tf.cast(labels, tf.int32)), step, 1e-3, 0.9)
    _, _, _, correct = lesson2.evaluation(images, labels, averages)
    with tf.Session() as session:
        session.run(tf.global_variables_initializer())
        scaled = digits.images[..., np.newaxis] / np.float32(255)
        for _ in range(3):
            session.run(average_op, {images: scaled[:128], labels: digits.labels[:128]})
        before = session.run(tf.global_variables())
        counted = sum(session.run(correct, {images: scaled[i:i + 100], labels: digits.labels[i:i + 100]})
                      for i in range(0, 1003, 100))
        after = session.run(tf.global_variables())
        for variable in tf.trainable_variables():  # now the averages in the variables' place, for the judge
            variable.load(session.run(averages.average(variable)), session)
        expected = session.run(logits, {images: scaled}).argmax(axis=1)
    assert counted == (expected == digits.labels).sum()
    for one, other in zip(before, after):
        np.testing.assert_array_equal(one, other)
