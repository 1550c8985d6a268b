"""What is not the lesson: a quiet start, flags, reading MNIST and pictures, what a run keeps on the disk."""
import argparse
import collections
import concurrent.futures
import contextlib
import functools
import gzip
import hashlib
import itertools
import json
import math
import operator
import os
import re
import signal
import struct
import sys
import tempfile
import time
import warnings
import zlib

import numpy as np

HERE = os.path.dirname(os.path.abspath(__file__))
MNIST_DIR = os.path.join(HERE, 'data', 'mnist')
MNIST_SHA256 = {  # of what the files in data/mnist unpack to
    'train-images-idx3-ubyte.gz': 'ba891046e6505d7aadcbbe25680a0738ad16aec93bde7f9b65e87a2fc25776db',
    'train-labels-idx1-ubyte.gz': '65a50cbbf4e906d70832878ad85ccda5333a97f0f4c3dd2ef09a8a9eef7101c5',
    't10k-images-idx3-ubyte.gz': '0fa7898d509279e482958e8ce81c8e77db3f2f8254e26661ceb7762c4d494ce7',
    't10k-labels-idx1-ubyte.gz': 'ff7bcfd416de33731a308c3f266cc351222c34898ecbeaf847f06e48f7ec33f2'}

Digits = collections.namedtuple('Digits', 'images labels')  # uint8 [n, 28, 28] and uint8 [n]
Mnist = collections.namedtuple('Mnist', 'train validation test')


# ---- A quiet start, and errors in one line -------------------------------------------------------

@contextlib.contextmanager
def quiet_start():
    """Holds back what TensorFlow prints on stderr while it loads and looks for devices.

    Lines of severity E or F still come through, except the one that says that a computer
    without a GPU has none; if the block raises, everything does. Whoever sets
    TF_CPP_MIN_LOG_LEVEL wants to read it all, and gets it at once.
    """
    if 'TF_CPP_MIN_LOG_LEVEL' in os.environ:
        yield
        return
    os.environ['TF_CPP_MIN_LOG_LEVEL'] = '2'
    sys.stderr.flush()
    terminal = os.dup(2)
    failed = True
    with tempfile.TemporaryFile() as held:
        os.dup2(held.fileno(), 2)  # the C++ side writes to the file descriptor, not to sys.stderr
        try:
            yield
            failed = False
        except KeyboardInterrupt:
            failed = False
            sys.exit(130)
        finally:
            sys.stderr.flush()
            os.dup2(terminal, 2)
            os.close(terminal)
            held.seek(0)
            for line in held.read().decode(errors='replace').splitlines():
                error = re.match(r'[EF]\d{4} |\S+ \S+: [EF] ', line) and 'cuInit' not in line
                if failed or error:
                    print(line, file=sys.stderr)


class UserError(Exception):
    """What the user can put right: says what was wrong, what was expected and what to do."""


@contextlib.contextmanager
def errors_in_one_line():
    """Ends the program with exit status 2 and one line on stderr for what a user can put right."""
    try:
        yield
    except UserError as error:
        message = str(error)
    except BrokenPipeError:  # whoever reads the output, such as head, has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(1)
    except OSError as error:  # a path that cannot be read or written, a full disk
        message = '{}: {}'.format(error.filename, error.strerror) if error.filename else str(error)
    except KeyboardInterrupt:
        sys.exit(130)
    else:
        return
    print('{}: error: {}'.format(os.path.basename(sys.argv[0]), message), file=sys.stderr)
    sys.exit(2)


def cpu_has_bfloat16():
    """Whether the processor multiplies bfloat16 by itself; False where Linux cannot be asked."""
    try:
        with open('/proc/cpuinfo') as file:
            return 'avx512_bf16' in file.read()
    except OSError:
        return False


# ---- Flags ---------------------------------------------------------------------------------------

class Flags(argparse.ArgumentParser):
    """An ArgumentParser that shows every default and reports an error in one line."""

    def __init__(self, description):
        super().__init__(description=description, allow_abbrev=False,
                         formatter_class=argparse.ArgumentDefaultsHelpFormatter)

    def error(self, message):
        self.exit(2, '{}: error: {} (--help lists all flags)\n'.format(self.prog, message))


def number(kind, low, high=math.inf, above=False):
    """A type for Flags: an int or a float from low (or, if above, more than low) to high."""
    expected = '{}{}{}'.format('a whole number' if kind is int else 'a number',
                               ' above {}'.format(low) if above else ' of at least {}'.format(low),
                               '' if high == math.inf else ' and at most {}'.format(high))

    def convert(text):
        try:
            value = kind(text)
        except ValueError:
            value = math.nan
        if not (low <= value <= high) or value == math.inf or (above and value == low):
            raise argparse.ArgumentTypeError('expected {}, found {!r}'.format(expected, text))
        return value
    return convert


# ---- MNIST ---------------------------------------------------------------------------------------

def read_mnist(directory):
    """Reads a data set in MNIST's form, for example MNIST itself or Fashion-MNIST.

    Returns Mnist(train, validation, test), each Digits of uint8 images [n, 28, 28], 0 to 255,
    and uint8 labels [n], 0 to 9. The first twelfth of the training file (MNIST: 5,000) is the
    validation set, as in TensorFlow's own tutorials. The files in data/mnist are checked
    against their published SHA-256. Raises UserError for files that are missing or damaged.
    """
    train, test = read_digits(directory, 'train'), read_digits(directory, 't10k')
    held_out = len(train.labels) // 12
    if held_out == 0:
        raise UserError('{}: expected at least 12 training digits, found {}'.format(
            directory, len(train.labels)))
    return Mnist(train=Digits(train.images[held_out:], train.labels[held_out:]),
                 validation=Digits(train.images[:held_out], train.labels[:held_out]), test=test)


def distort(images, pixels, random):
    """Draws each image [n, h, w] on a sheet of rubber and pulls at it at random: uint8 -> uint8, the same shape.

    Where a pixel comes from is its place plus a sum of 4 x 4 cosine waves. The longest, a constant,
    shifts the image by about `pixels`; the next stretch, shear and turn it; the short ones bend it.
    random: a numpy RandomState.
    """
    count, height, width = images.shape
    rows, columns = [np.arange(size, dtype=np.float32) for size in (height, width)]
    waves = [np.cos(np.pi / len(places) * np.outer(places + 0.5, np.arange(4, dtype=np.float32)))
             for places in (rows, columns)]
    heights = pixels / (1 + np.arange(4)[:, np.newaxis] + np.arange(4))  # the shorter the wave, the lower
    amplitudes = (random.normal(size=[count, 2, 4, 4]) * heights).astype(np.float32)
    dy, dx = np.moveaxis(waves[0] @ amplitudes @ waves[1].T, 1, 0)
    return (bilinear(images, rows[:, np.newaxis] + dy, columns + dx) + 0.5).astype(np.uint8)


def bilinear(images, y, x):
    """The values of images [n, h, w] at y and x [n, h, w], in pixels, not only whole ones -> float32 [n, h, w].

    Beyond the border the border's value goes on.
    """
    count, height, width = images.shape
    y, x = np.clip(y, 0, height - 1.001), np.clip(x, 0, width - 1.001)
    top, left = y.astype(np.int32), x.astype(np.int32)
    y -= top  # now: how far from there to the next pixel
    x -= left
    corner = (np.arange(count)[:, np.newaxis, np.newaxis] * height + top) * width + left
    flat = images.ravel().astype(np.float32)
    above = flat[corner] * (1 - x) + flat[corner + 1] * x
    below = flat[corner + width] * (1 - x) + flat[corner + width + 1] * x
    return above * (1 - y) + below * y


def ahead(items):
    """Yields the items of an iterator. While the caller works on one, a thread prepares the next."""
    with concurrent.futures.ThreadPoolExecutor(1) as thread:
        coming = thread.submit(next, items, None)
        while True:
            item = coming.result()
            if item is None:
                return
            coming = thread.submit(next, items, None)
            yield item


def fingerprint(mnist):
    """A short text that is the same for the same digits only."""
    sha256 = hashlib.sha256()
    for array in itertools.chain(*mnist):
        sha256.update(array)
    return sha256.hexdigest()[:12]


def read_digits(directory, name):
    """Reads the images and the labels of 'train' or 't10k' and checks that they fit each other."""
    images_path = find_idx(directory, name + '-images', 3)
    labels_path = find_idx(directory, name + '-labels', 1)
    digits = Digits(read_idx(images_path, 3), read_idx(labels_path, 1))
    if digits.images.shape[1:] != (28, 28):
        raise UserError('{}: expected pictures of 28 x 28 pixels, found {} x {}'.format(
            images_path, *digits.images.shape[1:]))
    if len(digits.images) != len(digits.labels):
        raise UserError('{}: expected one label for each of the {:,} pictures, found {:,}'.format(
            labels_path, len(digits.images), len(digits.labels)))
    if digits.labels.max() > 9:
        raise UserError('{}: expected labels from 0 to 9, found {}'.format(labels_path, digits.labels.max()))
    return digits


def find_idx(directory, name, dimensions):
    """Some tools write train-images-idx3-ubyte, others train-images.idx3-ubyte; either may be gzipped."""
    for dot in '-.':
        for ending in '.gz', '':
            path = os.path.join(directory, '{}{}idx{}-ubyte{}'.format(name, dot, dimensions, ending))
            if os.path.exists(path):
                return path
    raise UserError('{}: expected {}-idx{}-ubyte, plain or .gz, found no such file; see data/README.md'.format(
        directory, name, dimensions))


def read_idx(path, dimensions):
    """Reads an IDX file of unsigned bytes, plain or gzipped: uint8 with 1 or 3 dimensions.

    Raises UserError if the file is damaged, or is another one. Takes no more memory than a
    small multiple of what the file really holds, whatever its header claims.
    """
    magic = bytes([0, 0, 8, dimensions])  # 8 stands for unsigned bytes
    try:
        with open(path, 'rb') as file:
            zipped = file.read(2) == b'\x1f\x8b'
        with (gzip.open if zipped else open)(path, 'rb') as stream:
            header = stream.read(4 + 4 * dimensions)
            if header[:4] != magic or len(header) < 4 + 4 * dimensions:
                raise UserError('{}: expected an IDX file, which begins with the bytes {}, found {}'.format(
                    path, magic.hex(), header[:4].hex() or 'an empty file'))
            shape = struct.unpack('>{}I'.format(dimensions), header[4:])
            size = functools.reduce(operator.mul, shape)  # not np.prod: a header may claim more than int64 holds
            if size == 0:
                raise UserError('{}: expected at least one picture or label, found none'.format(path))
            data = bytearray()
            while len(data) <= size:  # one byte too many shows that the header is wrong
                piece = stream.read(1 << 20)
                if not piece:
                    break
                data += piece
    except (OSError, EOFError, zlib.error) as error:
        raise UserError('{}: cannot be read ({}); copy it anew'.format(path, error.args[-1]))
    if len(data) != size:
        raise UserError('{}: expected {:,} bytes after the header, found {}; copy it anew'.format(
            path, size, 'more' if len(data) > size else '{:,}'.format(len(data))))
    folder, name = os.path.split(os.path.realpath(path))
    if folder == os.path.realpath(MNIST_DIR) and name in MNIST_SHA256:
        found = hashlib.sha256(header + data).hexdigest()
        if found != MNIST_SHA256[name]:
            raise UserError('{}: expected SHA-256 {}, found {}; copy it anew'.format(
                path, MNIST_SHA256[name], found))
    return np.frombuffer(data, np.uint8).reshape(shape)


# ---- Pictures ------------------------------------------------------------------------------------

def read_image(path):
    """Reads any picture that Pillow can read: float32 [height, width, 3], RGB, 0 to 1.

    Turned upright as its EXIF data say, the first frame of an animation, transparent parts on
    white, 16 bits at full precision. Raises UserError for anything else.
    """
    from PIL import Image, ImageOps
    try:
        with warnings.catch_warnings():
            warnings.simplefilter('ignore')  # of harmless damage, say to EXIF data
            warnings.simplefilter('error', Image.DecompressionBombWarning)
            image = ImageOps.exif_transpose(Image.open(path))  # also loads it
        if image.mode[0] in 'IF':  # 16 or 32 bits of grey, which Pillow would clip at 255
            grey = np.nan_to_num(np.asarray(image, np.float32))
            grey /= 65535 if image.mode[0] == 'I' else 1 if grey.max() <= 1 else 255
            return np.repeat(np.clip(grey, 0, 1)[:, :, np.newaxis], 3, axis=2)
        if image.mode in ('RGBA', 'LA', 'PA', 'RGBa', 'La') or 'transparency' in image.info:
            image = image.convert('RGBA')
            image = Image.alpha_composite(Image.new('RGBA', image.size, 'white'), image)
        return np.asarray(image.convert('RGB'), np.float32) / 255
    except Image.UnidentifiedImageError:
        raise UserError('{}: expected a picture, found something else'.format(path))
    except (Image.DecompressionBombWarning, Image.DecompressionBombError) as error:
        raise UserError('{}: expected a picture of ordinary size ({})'.format(path, str(error).split(',')[0]))
    except Exception as error:  # Pillow's readers raise many kinds for damaged files
        raise UserError('{}: expected a whole picture, found: {}'.format(
            path, getattr(error, 'strerror', None) or str(error).split('\n')[0] or type(error).__name__))


# ---- A training run on the disk ------------------------------------------------------------------

class Run:
    """What a training run keeps: checkpoints, TensorBoard's logs, the rows of its table.

    Used as a context manager, it holds the checkpoint directory's lock and turns SIGINT and
    SIGTERM into a stop after the current step. Settings, rows and the epoch's loss so far travel
    as text inside the checkpoint, in a string variable: what belongs together is saved together.
    """

    SECONDS_BETWEEN_SAVES = 20

    def __init__(self, checkpoint_dir, log_dir, settings, restart=False):
        """settings: whatever changes the result, {name: value}. restart: move old files aside first.

        Raises UserError if a directory cannot be written, or another run is using it.
        """
        self.checkpoint_dir, self.log_dir = os.path.abspath(checkpoint_dir), os.path.abspath(log_dir)
        self.settings = settings
        self.rows = []  # of the table, one for each finished epoch
        self.loss_sum = 0.0  # over the digits seen so far in the unfinished epoch
        self.restored = self.latest = None  # the checkpoint that this run continued, and its newest one
        self.steps_restored = 0
        self._signal = None
        self._writers = {}
        with writing(self.checkpoint_dir):
            os.makedirs(self.checkpoint_dir, exist_ok=True)
        self._lock = self._acquire_lock()
        for name in os.listdir(self.checkpoint_dir):  # what a killed run was writing when it died
            if re.match(r'(model\.ckpt-\d+\..*\.tempstate\d+|checkpoint\.tmp[0-9a-f]+)$', name):
                os.remove(os.path.join(self.checkpoint_dir, name))
        if restart:
            move_aside(self.checkpoint_dir, r'model\.ckpt-|checkpoint$')
            move_aside(self.log_dir, r'(train|validation|test)$')

    def __enter__(self):
        self._handlers = {number: signal.signal(number, self._stop) for number in (signal.SIGINT, signal.SIGTERM)}
        return self

    def __exit__(self, *exception):
        for number, handler in self._handlers.items():
            signal.signal(number, handler)
        try:
            with writing(self.log_dir):
                for writer in self._writers.values():
                    writer.close()
        finally:
            self._lock.release()
        if self._signal and exception[0] is None:  # it came after the last step: all is done and saved
            sys.exit(128 + self._signal)

    def _stop(self, number, frame):
        self._signal = number
        signal.signal(number, signal.SIG_DFL)  # the second one ends the process at once

    def _acquire_lock(self):
        import filelock
        path = os.path.join(self.checkpoint_dir, 'lock')
        lock = filelock.FileLock(path)
        with writing(self.checkpoint_dir):
            try:
                lock.acquire(timeout=0)
            except filelock.Timeout:
                with open(path + '.pid') as file:
                    raise UserError('{}: in use by the run with process id {}; wait for its end, or choose another '
                                    '--checkpoint-dir and --log-dir'.format(self.checkpoint_dir, file.read()))
            with open(path + '.pid', 'w') as file:  # not in the lock itself, which Windows lets nobody read
                file.write(str(os.getpid()))
        return lock

    def resume(self, session, saver, step, notes):
        """Restores the newest good checkpoint, if there is one, and opens TensorBoard's logs.

        session: with initialized variables. step: the int64 variable that counts training steps.
        notes: a string variable, for this class alone. Returns the number of steps done.
        Raises UserError if there are checkpoints but none is good, or the settings differ.
        """
        self._session, self._saver, self._step, self._notes = session, saver, step, notes
        self.restored = self.latest = self._restore_newest()
        if self.restored:
            print('Continuing from {}\n'.format(self.restored))
        self._saved_at = time.monotonic()
        steps = self.steps_restored = int(session.run(step))
        with writing(self.log_dir):
            for name in 'train', 'validation', 'test':
                done = steps if name == 'train' else self.rows[-1]['step'] if self.rows else 0
                self._writers[name] = open_log(os.path.join(self.log_dir, name), done,
                                               session.graph if name == 'train' else None)
        return steps

    def _restore_newest(self):
        import tensorflow.compat.v1 as tf
        prefixes, bad = checkpoints(self.checkpoint_dir), []
        for prefix in prefixes:
            try:
                saved = json.loads(tf.train.NewCheckpointReader(prefix).get_tensor(self._notes.op.name).decode())
                self._refuse_other_settings(prefix, saved['settings'])
                self._saver.restore(self._session, prefix)
            except UserError:
                raise
            except Exception as error:  # for damage, the readers of 1.15 and 2.21 raise many kinds
                bad.append(prefix)
                print('warning: {} is damaged and passed over ({})'.format(
                    prefix, str(error).splitlines()[0][:100]), file=sys.stderr)
            else:
                self._saver.recover_last_checkpoints([each for each in reversed(prefixes) if each not in bad])
                self.rows, self.loss_sum = saved['rows'], saved['loss_sum']
                return prefix
        if bad:
            raise UserError('{}: none of its checkpoints is whole; --restart moves them aside and begins anew'
                            .format(self.checkpoint_dir))

    def _refuse_other_settings(self, prefix, saved):
        different = ['{} {} (now {})'.format(name, saved.get(name), value)
                     for name, value in self.settings.items() if saved.get(name) != value]
        if different:
            raise UserError('{}: trained with {}; give the same, or another --checkpoint-dir, or --restart'.format(
                prefix, ', '.join(different)))

    def end_epoch(self, row, step):
        """Keeps the epoch's row {'epoch', 'loss', 'validation', 'test'} and saves."""
        self.rows.append(dict(row, step=step))
        self.loss_sum = 0.0
        for name in 'validation', 'test':
            self.log(name, {'accuracy': row[name]}, step)
        self.save()
        self._end_if_asked()

    def save(self):
        """Writes a checkpoint, after what TensorBoard shall show up to this step."""
        for directory, name in (self.checkpoint_dir, 'lock.pid'), (self.log_dir, 'train'):
            if not os.path.exists(os.path.join(directory, name)):  # the Saver would make a new one, without its lock
                raise UserError('{}: has vanished while the run was writing to it; bring it back, and the same '
                                'command continues from the last checkpoint'.format(directory))
        with writing(self.log_dir):
            for writer in self._writers.values():
                writer.flush()
        self._notes.load(json.dumps({'settings': self.settings, 'rows': self.rows, 'loss_sum': self.loss_sum},
                                    sort_keys=True), self._session)
        with writing(self.checkpoint_dir):
            self.latest = self._saver.save(self._session, os.path.join(self.checkpoint_dir, 'model.ckpt'),
                                           global_step=self._step, write_meta_graph=False)
        self._saved_at = time.monotonic()

    def save_if_due(self):
        """To be called after each step: saves now and then, and ends the program if asked to stop."""
        if self._signal or time.monotonic() - self._saved_at > self.SECONDS_BETWEEN_SAVES:
            self.save()
            self._end_if_asked()

    def _end_if_asked(self):
        if self._signal:
            print('Stopped and saved as {}; the same command continues from there.'.format(self.latest), flush=True)
            sys.exit(128 + self._signal)

    def log(self, name, summary, step):
        """Adds a summary, as tf.summary.merge gives it or {tag: value}, to the log 'train', 'validation' or 'test'."""
        import tensorflow.compat.v1 as tf
        if isinstance(summary, dict):
            summary = tf.Summary(value=[tf.Summary.Value(tag=tag, simple_value=value)
                                        for tag, value in summary.items()])
        self._writers[name].add_summary(summary, step)


@contextlib.contextmanager
def writing(path):
    """Turns the many errors of a disk that is full, read-only or gone into a UserError."""
    try:
        yield
    except Exception as error:
        if not isinstance(error, OSError) and not type(error).__module__.startswith('tensorflow'):
            raise
        reason = re.search('; ([^;\n]+)', str(error))  # TensorFlow: FILE; REASON, among much else
        raise UserError('{}: cannot be written ({})'.format(
            path, getattr(error, 'strerror', None) or (reason.group(1) if reason else str(error).splitlines()[0])))


def checkpoints(directory):
    """The checkpoints in a directory, newest first, as the prefixes that Saver.restore takes.

    These are all that have an index or that the Saver's own list names; data without either
    are what a run was writing when it was killed.
    """
    names = [name for name in os.listdir(directory) if name.endswith('.index')]
    if os.path.exists(os.path.join(directory, 'checkpoint')):
        with open(os.path.join(directory, 'checkpoint'), errors='replace') as file:
            names += [name for name in re.findall(r'model\.ckpt-\d+', file.read())
                      if os.path.exists(os.path.join(directory, name + '.data-00000-of-00001'))]
    steps = {int(found.group(1)) for found in (re.match(r'model\.ckpt-(\d+)', name) for name in names) if found}
    return [os.path.join(directory, 'model.ckpt-{}'.format(step)) for step in sorted(steps, reverse=True)]


def move_aside(directory, pattern):
    """Moves what a run wrote to a directory into a new one beside it, with a number at its name's end."""
    names = [name for name in os.listdir(directory) if re.match(pattern, name)] if os.path.isdir(directory) else []
    if names:
        aside = next(path for path in ('{}.{}'.format(directory, i) for i in itertools.count(1))
                     if not os.path.exists(path))
        with writing(aside):
            os.makedirs(aside)
            for name in names:
                os.rename(os.path.join(directory, name), os.path.join(aside, name))
        print('Moved the earlier files of {} to {}'.format(directory, aside))


def open_log(directory, step, graph):
    """A FileWriter that continues after a step; TensorBoard forgets what was logged beyond it."""
    import tensorflow.compat.v1 as tf
    os.makedirs(directory, exist_ok=True)
    graph_logged = any(holds_graph(os.path.join(directory, name)) for name in os.listdir(directory))
    writer = tf.summary.FileWriter(directory, None if graph_logged else graph)
    writer.add_session_log(tf.SessionLog(status=tf.SessionLog.START), step + 1)
    writer.flush()
    return writer


def holds_graph(path):
    import tensorflow.compat.v1 as tf
    try:
        return any(event.HasField('graph_def') for event in tf.train.summary_iterator(path))
    except tf.errors.OpError:  # the last record is cut off, or this is no event file
        return False
