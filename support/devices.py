"""On which device TensorFlow computes, and in which precision."""
import sys

import tensorflow.compat.v1 as tf

import utils
from support import script


def gpus():
    return tf.config.experimental.list_physical_devices('GPU')


def tower_devices(addresses, flags):
    """Returns the device of each tower: the GPUs, or else logical CPUs, of one machine after the other in turn.

    addresses: of the machines in a cluster, [] without one.
    """
    gpu_count = 0 if flags.device == 'cpu' else len(gpus())
    machines = max(1, len(addresses))
    return ['{}/{}'.format('/job:worker/task:{}'.format(tower % machines) if addresses else '',
                           'GPU:{}'.format(tower // machines % gpu_count) if gpu_count else
                           'CPU:{}'.format(tower // machines)) for tower in range(flags.towers)]


def warn_of_unused_gpu(flags):
    """Says on stderr that this machine has a GPU that TensorFlow cannot use."""
    if flags.device != 'cpu' and tf.test.is_built_with_cuda() and not gpus() and script.has_nvidia_gpu():
        print('warning: this machine has an NVIDIA GPU, but TensorFlow cannot use it and computes on the CPU; '
              'docs/devices.md says what to install', file=sys.stderr)


def training_devices(session, flags):
    """Returns the names of the devices that train, as TensorFlow calls them, such as CPU:0: at most one per tower."""
    found = [tf.DeviceSpec.from_string(each.name) for each in session.list_devices()]
    kind = 'GPU' if any(each.device_type == 'GPU' for each in found) else 'CPU'
    found = sorted((each.device_index, each.task, each.job) for each in found if each.device_type == kind)
    return ['{}{}:{}'.format('' if job == 'localhost' else '/job:{}/task:{}/'.format(job, task), kind, number)
            for number, task, job in found[:flags.towers]]


def session_config(flags, machines=1):
    """Returns a tf.ConfigProto for the flags; machines: how many share the towers.

    Raises UserError for --device gpu on a machine without one, and for --bf16 on a GPU.
    """
    if flags.device == 'gpu' and not gpus():
        raise utils.UserError('--device gpu: TensorFlow finds no GPU here; use --device auto or cpu')
    if flags.bf16 and flags.device != 'cpu' and gpus():
        raise utils.UserError('--bf16: TensorFlow has it for CPUs only; leave it out, or add --device cpu')
    config = tf.ConfigProto(allow_soft_placement=True)
    config.device_count['CPU'] = -(-flags.towers // machines)  # one logical CPU for each tower
    config.inter_op_parallelism_threads = config.device_count['CPU']  # a tower: one operation at a time, on all cores
    config.gpu_options.allow_growth = True  # only as much GPU memory as is needed
    if machines > 1:
        config.inter_op_parallelism_threads += 1  # one answers while the towers compute
        config.operation_timeout_in_ms = 20000  # a longer step is given up: a worker may hang
    if flags.device == 'cpu':
        config.device_count['GPU'] = 0
    if flags.bf16 and can_use_bfloat16():
        config.graph_options.rewrite_options.auto_mixed_precision_onednn_bfloat16 = 1  # ON
    return config


def can_use_bfloat16():
    """Whether TensorFlow and the CPU have bfloat16. 1.15 has none; without the CPU's instructions it would be slow."""
    options = tf.ConfigProto().graph_options.rewrite_options
    try:
        with open('/proc/cpuinfo') as file:  # Linux only
            return hasattr(options, 'auto_mixed_precision_onednn_bfloat16') and 'avx512_bf16' in file.read()
    except OSError:
        return False
