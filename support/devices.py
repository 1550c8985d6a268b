"""On which device TensorFlow computes, and in which precision. To be imported within cli.quiet_start()."""
import tensorflow.compat.v1 as tf

import utils

GPUS = tf.config.experimental.list_physical_devices('GPU')  # TensorFlow comments on the devices now, not in a session
tf.logging.set_verbosity(tf.logging.ERROR)  # in a lesson on TensorFlow 1.x, deprecation warnings are no news


def session_config(device='auto', bf16=False):
    """Returns a tf.ConfigProto for --device auto, cpu or gpu, and for bfloat16 where it is supported.

    Raises UserError for gpu on a machine without one.
    """
    if device == 'gpu' and not GPUS:
        raise utils.UserError('--device gpu: TensorFlow finds no GPU here; use --device auto or cpu')
    config = tf.ConfigProto(inter_op_parallelism_threads=1,  # one op at a time, each on all cores: fastest here
                            allow_soft_placement=True)
    config.gpu_options.allow_growth = True  # only as much GPU memory as is needed
    if device == 'cpu':
        config.device_count['GPU'] = 0
    if bf16 and can_use_bfloat16():
        config.graph_options.rewrite_options.auto_mixed_precision_onednn_bfloat16 = 1  # ON
    return config


def can_use_bfloat16():
    """TensorFlow 1.15 has no bfloat16 for CPUs; a CPU without the instructions would be slower than in float32."""
    return cpu_has_bfloat16() and hasattr(tf.ConfigProto().graph_options.rewrite_options,
                                          'auto_mixed_precision_onednn_bfloat16')


def cpu_has_bfloat16():
    """Whether the CPU has instructions for bfloat16; False where Linux cannot be asked."""
    try:
        with open('/proc/cpuinfo') as file:
            return 'avx512_bf16' in file.read()
    except OSError:
        return False
