"""Puts one small fault after the other into a copy of the project, and runs the tests that ought to notice it.

    python tests/mutants.py
    python tests/mutants.py --only emboss

Ends with exit status 1 if a fault was not noticed, or if the text that it replaces is not there exactly once.
"""
import argparse
import os
import shutil
import subprocess
import sys
import tempfile
import time

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
L1, L2, L3 = '07_basic_filters.py', '07_convnet_mnist.py', '07_convnet_towers.py'
K, U = 'kernels.py', 'utils.py'
CHECKPOINTS, RUN, LOGS = 'support/checkpoints.py', 'support/runs.py', 'support/event_logs.py'
FIGURES, TABLES, OUTPUTS, CLI = 'support/figures.py', 'support/tables.py', 'support/outputs.py', 'support/cli.py'
CLUSTER, DEVICES, DIGITS = 'support/cluster.py', 'support/devices.py', 'support/digits.py'
NETWORK, READ = 'support/pages/network.js', 'support/pages/read_digits.js'
NETWORK_PAGE, NETWORK_INPUT = 'support/pages/convnet_mnist.js', 'support/pages/network_input.js'
FILTERS_PAGE, FILTERS_INPUT = 'support/pages/basic_filters.js', 'support/pages/filters_input.js'

FAULTS = [  # name, file, text, replacement; file of tests, which of them (as pytest -k takes it)
    # Kernels
    ('emboss turned by 180 degrees', K, '[[-2, -1, 0],   #', '[[2, 1, 0],   #', 'kernels', 'emboss'),
    ('edge with the opposite sign', K, '[-1,  8, -1]', '[-1, -8, -1]', 'kernels', 'opencv or edge'),
    ('a blur that sums to 9', K, '[1, 2, 1]]) / 16', '[1, 2, 1]]) / 1.78', 'kernels', 'opencv or sum'),
    ('left and right Sobel swapped', K, "'left_sobel': np.float32([[1, 0, -1],",
     "'left_sobel': np.float32([[-1, 0, 1],", 'kernels', 'sobels'),
    ('RGB kernel with all channel pairs', K, 'grey_kernel(matrix) * np.eye(3, dtype=np.float32)',
     'grey_kernel(matrix) * np.ones([3, 3], np.float32)', 'kernels', 'scipy'),
    ('RGB diagonal mirrored', K, 'np.eye(3, dtype=np.float32)', 'np.eye(3, dtype=np.float32)[::-1]', 'kernels',
     'scipy'),
    ('rotated the other way round', K, 'np.roll(matrix[ring], 1)', 'np.roll(matrix[ring], 2)', 'kernels', 'rotating'),
    ('filter bank off the centre', K, '(height - h) // 2, (width - w) // 2', '(height - h) // 2, 0', 'kernels',
     'bank or coarse'),
    ('filter bank not normalized', K, ' / np.abs(matrix).sum() / in_channels', '', 'kernels', 'bank'),
    # Lesson 1
    ('stride in one direction only', L1, 'filter_bank, strides=[1, stride, stride, 1]',
     'filter_bank, strides=[1, stride, 1, 1]', 'basic_filters', 'panel'),
    ('padding ignored in RGB', L1, 'kernels.rgb_kernel(matrix), [1, stride, stride, 1], padding)',
     "kernels.rgb_kernel(matrix), [1, stride, stride, 1], 'SAME')", 'kernels', 'scipy'),
    ('sepia transposed', L1, 'kernels.grey_kernel(matrix) * SEPIA', 'kernels.grey_kernel(matrix) * SEPIA.T',
     'basic_filters', 'operations'),
    ('depthwise kernel without its channels', L1, 'depthwise_conv2d(images, depthwise,',
     'depthwise_conv2d(images, depthwise[::-1],', 'basic_filters', 'operations'),
    ('grey is the mean of the channels', L1, 'tf.image.rgb_to_grayscale(images)',
     'tf.reduce_mean(images, axis=3, keepdims=True)', 'basic_filters', 'by_hand_of_the_main'),
    ('a patch one pixel off', L1, 'index * stride - zeros // 2', 'index * stride - (zeros + 1) // 2', 'basic_filters',
     'by_hand'),
    ('true convolution not flipped', L1, 'matrix[::-1, ::-1])})', 'matrix)})', 'basic_filters', 'cross_correlation'),
    ('RGB row shows grey outputs', FIGURES, "views['rgb', name]\n        lines", "views['grey', name]\n        lines",
     'basic_filters', 'panel'),
    ('frame with x and y swapped', FIGURES, 'Rectangle((left - 0.5, top - 0.5)', 'Rectangle((top - 0.5, left - 0.5)',
     'basic_filters', 'frame'),
    ('formula of the size swapped', TABLES, "'SAME: ceil(in / stride)', 'VALID: ceil((in - k + 1) / stride)'",
     "'VALID: ceil((in - k + 1) / stride)', 'SAME: ceil(in / stride)'", 'basic_filters', 'output_sizes'),
    # Data
    ('validation digits among the training digits', U, 'train=Dataset(train.images[validation_size:], train.labels['
     'validation_size:])', 'train=Dataset(train.images, train.labels)', 'input', 'raw_file'),
    ('test digits as validation digits', L2, 'batch_size=500):\n', 'batch_size=500, seen=[]):\n    seen.append(dataset)'
     '\n    dataset = seen[0] if len(seen) > 1 else dataset\n', 'training', 'wrong_labels or averaged_network'),
    ('fingerprint of the shapes alone', U, 'sha256.update(array)', 'sha256.update(str(array.shape).encode())',
     'training', 'another_dataset'),
    ('trailing bytes accepted', U, 'if len(data) != size:', 'if len(data) < size:', 'input', 'idx or damaged'),
    ('the same augmentation in each epoch', U, 'RandomState([seed, epoch, start])', 'RandomState([seed, start])',
     'convnet', 'augmentation'),
    ('the same order in each epoch', U, 'RandomState([seed, epoch]).permutation', 'RandomState([seed]).permutation',
     'convnet', 'every_training_digit'),
    ('an epoch entered one batch late', U, 'range(start_batch * batch_size,', 'range((start_batch + 1) * batch_size,',
     'convnet', 'middle or every_training'),
    ('displacements half as large', U, 'scale = pixels /', 'scale = pixels / 2 /', 'convnet', 'displacements'),
    ('interpolation with x and y swapped', U, 'return above + (below - above) * y',
     'return above + (below - above) * x', 'convnet', 'bilinear'),
    ('own digits centred by their box', DIGITS, '(digit.sum(axis=axis) * np.arange(side)).sum() / mass',
     '(side - 1) / 2', 'own_digits', 'photo or form'),
    ('specks are digits', DIGITS, 'if bottom - top > 0.4 * tallest]', ']', 'own_digits', 'each_kind'),
    ('frames are ink', DIGITS, 'for number, box in list(boxes.items())[:MOST_DIGITS]:', 'for number, box in []:',
     'own_digits', 'each_kind'),
    ('lines of ruled paper stay', DIGITS, '    remove_lines(ink)\n', '', 'own_digits', 'each_kind'),
    ('a texture is read', DIGITS, 'np.median(ink) > 0.15 * strongest', 'False', 'own_digits', 'each_kind'),
    ('a hand is read', DIGITS, 'THICKEST = 0.4 ', 'THICKEST = 4 ', 'own_digits', 'each_kind'),
    ('digits from right to left', DIGITS, 'in sorted(digits) if', 'in sorted(digits)[::-1] if', 'own_digits',
     'each_kind'),
    ('colours are averaged', DIGITS, 'np.sqrt(np.square(difference).mean(axis=0))', 'np.abs(difference.mean(axis=0))',
     'own_digits', 'do_not_matter'),
    ('learned kernels compared with themselves', NETWORK, 'layer(found.image, layers[HAND]',
     'layer(found.image, layers[firstConv]', 'network_page', 'hand_coded'),
    ('pooling takes the smallest', NETWORK, 'if (value > largest)', 'if (value < largest)', 'network_page',
     'every_layer'),
    ('a drawing cut at its last row', READ, 'Math.max(right, x)', 'x', 'network_page', 'drawings_become'),
    ('strokes widened to one side', READ, '    largest[i - step] = Math.max(largest[i - step], array[i]);\n', '',
     'network_page', 'drawings_become'),
    ('certainty is printed as 1', NETWORK_PAGE, 'value > 0.99995 ?', 'value > 2 ?', 'network_page', 'quite_certain'),
    ('another channel is enlarged', NETWORK_PAGE, 'drawImage(at(name), left, top,', 'drawImage(at(name), 0, 0,',
     'network_page', 'enlarged'),
    ('a patch beyond the border is explained first', NETWORK_PAGE, 'let y = Math.floor((h - 1) / 2);', 'let y = 0;',
     'network_page', 'strongest'),
    ('lines from other units', NETWORK_PAGE, 'inputs = named.map(part => placeOf(input, part.i))',
     'inputs = named.map((part, i) => placeOf(input, i))', 'network_page', 'largest_effects'),
    ('only the first digit is sent', NETWORK_INPUT, 'images.map(textOf)', 'images.slice(0, 1).map(textOf)',
     'network_page', 'several'),
    ('an output is shown before its time', FILTERS_INPUT, 'i < filled * channels', 'i < (filled + 1) * channels',
     'filters_page', 'enlarged'),
    ('what is enlarged lies elsewhere', FILTERS_PAGE, 'firstY = top - Math.floor((side - height) / 2)', 'firstY = top',
     'filters_page', 'enlarged'),
    ('rotated as the camera lay', U, 'return ImageOps.exif_transpose(image)', 'return image', 'basic_filters', 'exif'),
    # The network and its training
    ('dropout not divided by keep_prob', L2, '(tf.cast(kept, tf.float32) / keep_prob)', 'tf.cast(kept, tf.float32)',
     'convnet', 'dropout'),
    ('the same dropout in each step', L2, 'seed=tf.stack([seed, step])', 'seed=tf.stack([seed, seed])', 'convnet',
     'dropout'),
    ('mean loss a hundred times too small', L2, 'return tf.reduce_mean(tf.nn.sparse', 'return 0.01 * tf.reduce_mean('
     'tf.nn.sparse', 'convnet', 'cross_entropy'),
    ('loss not weighted by the batch', RUN, 'float(loss_value) * batch_size', 'float(loss_value)', 'training',
     'training_loss or hardly'),
    # Several devices
    ('a mean of means', L3, 'tf.reduce_sum(cross_entropies) / tf.cast(batch_size, tf.float32)',
     'tf.reduce_mean(cross_entropies) / 2', 'towers', 'gradients'),
    ('all towers on the first device', L3, 'with tf.device(device), tf.variable_scope', 'with tf.variable_scope',
     'towers', 'its_device'),
    ('the whole batch is sent to each tower', L3, 'tower_images, tower_labels = images[part], labels[part]',
     'with tf.device(device):\n                    tower_images, tower_labels = images[part], labels[part]', 'towers',
     'its_device'),
    ('a port that is in use is shared', CLUSTER, 'probe.bind((', 'str((', 'towers', 'port'),
    ('a hung worker is waited for', CLUSTER, 'TIMEOUT = 30 ', 'TIMEOUT = 3000 ', 'towers', 'hangs'),
    ('any port', CLUSTER, '0 < host_and_port(address)[1] < 65536', 'host_and_port(address)', 'towers', 'tf_config'),
    # What is kept
    ('SIGTERM ends at once', RUN, 'for signum in (signal.SIGINT, signal.SIGTERM)}', 'for signum in (signal.SIGINT,)}',
     'reliability', 'current_step'),
    ("the epoch's loss starts anew", RUN, "self._loss_sum = saved['loss_sum']", 'self._loss_sum = 0.0', 'reliability',
     'current_step'),
    ('a loss that is NaN goes on', RUN, 'if not math.isfinite(loss_value):', 'if False:', 'reliability', 'diverge'),
    ("others' checkpoints are moved", OUTPUTS, 'for name in os.listdir(folder) if is_among(name, own)',
     "for name in os.listdir(folder) if is_among(name, own) or name.startswith('model.ckpt-')", 'outputs', 'stay'),
    ('a kernel that begins with minus is a flag', CLI, '        self._negative_number_matcher =', '        matcher =',
     'basic_filters', 'test_flags'),
    ("others' files are overwritten", OUTPUTS, 'if is_among(name, names) and not is_among(name, own):', 'if False:',
     'outputs', 'somebody'),
    ("others' unfinished files are overwritten", OUTPUTS, "path + '.written_by_lecture_07'", "path + '.tmp'",
     'outputs', 'somebody'),
    ('the lock is not taken', CHECKPOINTS, 'lock.acquire(timeout=0)', 'pass', 'reliability', 'refused'),
    # Figures and output of lesson 2
    ('confusion transposed', FIGURES, 'np.add.at(counts, (labels, predicted), 1)',
     'np.add.at(counts, (predicted, labels), 1'
     ')', 'training', 'confusion'),
    ('axes of the confusion swapped', FIGURES, "xlabel='read as', ylabel='true digit'",
     "xlabel='true digit', ylabel='read as'",
     'training', 'confusion'),
    ('curve: test and validation swapped', FIGURES, "[row['test'] for row in history], 'o-'",
     "[row['validation'] for row in history], 'o-'", 'training', 'curve'),
    ('kernels drawn transposed', FIGURES, 'np.moveaxis(values[:, :, 0], 2, 0)', 'np.moveaxis(values[:, :, 0], 2, 0)'
     '.swapaxes(1, 2)', 'training', 'upright'),
    ('captions of other pictures', FIGURES, 'zip(axes.flat, images, captions)',
     'zip(axes.flat, images[::-1], captions)', 'training', 'mistakes or predictions_stand'),
    ('the table shows the shapes of biases', TABLES, "if variable.op.name.endswith('weights')",
     "if variable.op.name.endswith('biases')", 'training', 'docstring'),
    # What a user's own file of the same name protects
    ('the page is not claimed', RUN, 'figures.TRAINING_FIGURES + [pages.NETWORK_PAGE]', 'figures.TRAINING_FIGURES',
     'outputs', 'somebody'),
    ('the pictures of predictions are not claimed', FIGURES, "outputs.claim(folder, ['predictions.png'])",
     'outputs.claim(folder, [])', 'outputs', 'somebody'),
    ("the projector's files are not claimed", RUN, "event_logs.PROJECTOR_FILES + ['events", "['events", 'outputs',
     'somebody'),
    # Flags of lesson 2 in lesson 3
    ('--init-stddev is ignored by towers', L3, 'seed, flags.init_stddev, flags.conv1)', 'seed, 0, flags.conv1)',
     'towers', 'one_tower'),
    ('--learning-rate is ignored by towers', L3, 'AdamOptimizer(flags.learning_rate)', 'AdamOptimizer(1e-3)', 'towers',
     'one_tower'),
    ('--seed is ignored by towers', L3, 'flags.seed + number)', 'number)', 'towers', 'one_tower'),
    ('towers learn hand-coded kernels', L3, 'zip(gradients, lesson2.learned_variables(flags.conv1))',
     "zip(gradients, lesson2.learned_variables('learned'))", 'towers', 'one_tower'),
    # The device of each tower
    ('sessions share their variables', DEVICES, 'isolate_session_state = True', 'isolate_session_state = False',
     'towers', 'parallel'),
    ('the machine of a tower', DEVICES, "'/job:worker/task:{}'.format(tower % machines)",
     "'/job:worker/task:{}'.format(tower // machines)", 'towers', 'its_device or processes_give'),
    ('the CPU of a tower', DEVICES, "'CPU:{}'.format(tower // machines)", "'CPU:{}'.format(0)", 'towers',
     'its_device or parallel'),
    ('the GPU of a tower', DEVICES, 'tower // machines % gpu_count', '0', 'towers', 'its_device'),
    # The loss that is printed, and what is evaluated
    ('the loss of all epochs so far', RUN, 'self._loss_sum, self._images_seen = 0.0, 0\n        self._write',
     'self._images_seen = 0\n        self._write', 'training', 'training_loss'),
    ('the loss of a continued epoch counts twice', RUN, "'loss_sum': self._loss_sum}",
     "'loss_sum': 2 * self._loss_sum}", 'reliability', 'current_step'),
    ('evaluated without averages', L2, 'averages.restore(evaluation_session, saver.save(', 'saver.restore('
     'evaluation_session, saver.save(', 'training', 'averaged_network'),
    ('dropout in the evaluation', L2, 'tf.placeholder_with_default(1.0,', 'tf.placeholder_with_default(0.5,',
     'training', 'averaged_network'),
    ('the average of a step ago', L2, 'with tf.control_dependencies([train_op]):', 'with tf.control_dependencies([]):',
     'convnet', 'averages'),
    ('conv1 begins at its usual size', L2, "scale=0.02 if kind == 'learned' else 2.0", 'scale=2.0', 'convnet',
     'initial_values'),
    # What is on the disk between any two writes
    ('the JSON comes before the log is checked', RUN, "event_logs.check_written(self.folders.graphs, 'session_log', "
     'step)', 'pass', 'reliability', 'log_is_not_written'),
    ('old checkpoints go before the JSON', RUN, '        outputs.write_whole(self.latest + ',
     "        for step in checkpoints.steps_in(self.folders.checkpoints):\n            os.remove(checkpoints.path_of("
     "self.folders.checkpoints, step) + '.json')\n        outputs.write_whole(self.latest + ", 'reliability',
     'between_any'),
    ('checksums are not compared', CHECKPOINTS, 'reader.get_tensor(each)', 'str(each)', 'reliability',
     'good or flipped'),
    ('four checkpoints are kept', CHECKPOINTS, 'KEPT = 3', 'KEPT = 4', 'training', 'equal_four'),
    ('another network fits', CHECKPOINTS, 'or saved[name] != shapes[name]:', 'or False:', 'training',
     'different_network'),
    ('curves of an abandoned run remain', LOGS, 'tf.SessionLog(status=status)', 'tf.SessionLog()', 'training',
     'continuous_curves'),
    ('logs of one second in any order', LOGS, '>= int(time.time()):', '< 0:', 'reliability', 'one_second'),
    # The fingerprint of the data
    ('the fingerprint leaves out the test digits', U, 'itertools.chain(*datasets)', 'itertools.chain(*datasets[:2])',
     'training', 'another_dataset'),
    ('the fingerprint leaves out the labels', U, 'sha256.update(array)', 'sha256.update(array if array.ndim > 1 else '
     "b'')", 'training', 'another_dataset'),
    # Scales and labels of pictures
    ('names of colours in another order', TABLES, "('  red', '  green', '  blue')", "('  blue', '  green', '  red')",
     'basic_filters', 'by_hand'),
    ('twice the share of white in the activations', FIGURES, 'np.percentile(active, 95)', 'np.percentile(active, 90)',
     'network_page', 'white'),
    ('sum of a kernel with the wrong sign', TABLES, 'return 0.0 if is_zero_sum(matrix) else matrix.sum()',
     'return 0.0 if is_zero_sum(matrix) else abs(matrix.sum())', 'basic_filters', 'sum'),
    ("the lecture's accuracy of another epoch", TABLES, '2: .9401, 3: .9494', '2: .9494, 3: .9401', 'training',
     'lecture'),
    # What comes from outside
    ('a machine twice in TF_CONFIG', CLUSTER, ' == len(set(addresses))', '', 'towers', 'tf_config'),
    ('true is an index', CLUSTER, "type(task['index']) is int", "isinstance(task['index'], int)", 'towers',
     'tf_config'),
    ('a learning rate of 0', CLI, 'or (exclusive and value == low)', '', 'training', 'bad_flags'),
    ('labels above 9', U, 'if labels.max() > 9:', 'if labels.max() > 10:', 'input', 'label'),
]


def copy_project(folder):
    shutil.copytree(ROOT, folder, ignore=lambda parent, names: {
        name for name in names if name in ('.git', '__pycache__', '.pytest_cache') or (
            parent == ROOT and name in ('checkpoints', 'graphs', 'figures', 'docs'))})


def run_tests(folder, file, words):
    """Returns what pytest says of the tests in test_FILE.py that match the words: its exit status and its output."""
    result = subprocess.run(
        [sys.executable, '-m', 'pytest', '-x', '-q', '-n', '0', '-m', '', '-k', words,
         os.path.join(folder, 'tests', 'test_{}.py'.format(file))],
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, universal_newlines=True, timeout=600)
    return result.returncode, result.stdout


def try_fault(folder, fault):
    """Returns 'caught by ...', or what else happened, in capitals."""
    name, file, text, replacement, tests, words = fault
    path = os.path.join(folder, file)
    with open(path, encoding='utf-8') as source:
        whole = source.read()
    if whole.count(text) != 1:
        return 'THE TEXT IS THERE {} TIMES'.format(whole.count(text))
    try:
        with open(path, 'w', encoding='utf-8') as source:
            source.write(whole.replace(text, replacement))
        status, output = run_tests(folder, tests, words)
    finally:
        with open(path, 'w', encoding='utf-8') as source:
            source.write(whole)
    if status < 0:
        return 'caught: signal {} ended the tests'.format(-status)
    failed = [line for line in output.splitlines() if line.startswith(('FAILED', 'ERROR'))]
    if status == 1 and failed:
        return 'caught by ' + failed[0].split('::')[-1].split(' - ')[0]
    return 'SURVIVED' if status == 0 else 'NO TEST RAN: ' + output[-300:]


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('--only', default='', metavar='TEXT', help='only the faults whose name has this text')
    flags = parser.parse_args()
    faults = [fault for fault in FAULTS if flags.only in fault[0]]
    start, bad = time.time(), 0
    with tempfile.TemporaryDirectory() as parent:
        folder = os.path.join(parent, 'copy')
        copy_project(folder)
        for tests in sorted({fault[4] for fault in faults}):  # without a fault, all of them pass
            words = ' or '.join(sorted({fault[5] for fault in faults if fault[4] == tests}))
            status, output = run_tests(folder, tests, words)
            if status != 0:
                sys.exit('test_{}.py fails without a fault:\n{}'.format(tests, output[-3000:]))
        for fault in faults:
            before = time.time()
            verdict = try_fault(folder, fault)
            bad += not verdict.startswith('caught')
            print('{:45} {:22} {:4.0f} s  {}'.format(fault[0], fault[1], time.time() - before, verdict), flush=True)
    print('{} faults, {} caught, {:.0f} minutes'.format(len(faults), len(faults) - bad, (time.time() - start) / 60))
    sys.exit(1 if bad else 0)


if __name__ == '__main__':
    main()
