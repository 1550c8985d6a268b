"""A moving average of the weights, with which the network is evaluated. To be imported after TensorFlow."""
import tensorflow.compat.v1 as tf

EMA_INTERVAL = 10  # training steps from one update to the next: as good as after each step, and costs a tenth


def moving_average(decay, global_step):
    """Exponential moving averages (EMA) of all weights and biases.

    Each training step follows a few images, so the weights wander around a good place; their average is nearer to
    it. Returns the op that updates it, average = d * average + (1 - d) * variable, with d = decay, but at most
    (1 + n) / (10 + n) in update n; and a getter for `evaluation`, with which tf.get_variable returns the averages.
    """
    with tf.name_scope('moving_average'):
        ema = tf.train.ExponentialMovingAverage(decay, num_updates=global_step // EMA_INTERVAL)
        ema_op = ema.apply(tf.trainable_variables())

    def ema_getter(getter, *args, **kwargs):  # TensorFlow calls it with the getter that it replaces
        variable = getter(*args, **kwargs)
        average = ema.average(variable)
        return variable if average is None else average  # hand-coded kernels have none
    return ema_op, ema_getter
