"""Time and memory of lesson 1 for photographs of several sizes, as Markdown.

    python tests/benchmarks/photographs.py --megapixels 3 12 24 48

Each photograph is the Chihuahua, enlarged, with a camera's noise, as a JPEG of 4:3.
"""
import argparse
import os
import subprocess
import sys
import tempfile
import time

import numpy as np
from PIL import Image

import rounds

CODE = '''
import resource, runpy, sys
sys.argv = sys.argv[1:]
sys.path.insert(0, {root!r})
try:
    runpy.run_path(sys.argv[0], run_name='__main__')
finally:
    print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6)  # Linux: in kilobytes
'''


def photograph(path, megapixels):
    height = int((megapixels * 1e6 * 3 / 4) ** 0.5)
    image = Image.open(os.path.join(rounds.ROOT, 'data', 'chihuahua.jpg')).resize((height * 4 // 3, height))
    noise = np.random.RandomState(0).randint(0, 16, [256, 256, 3]).astype(np.uint8)  # a tile: as JPEG expects it
    tiles = Image.fromarray(np.tile(noise, [height // 256 + 1, image.width // 256 + 1, 1])[:height, :image.width])
    Image.blend(image, tiles, 0.2).save(path, quality=90)


def run(path, folder, flags):
    """Returns the seconds and the largest memory, in GB, of the lesson."""
    start = time.time()
    output = subprocess.check_output(
        [sys.executable, '-c', CODE.format(root=rounds.ROOT), os.path.join(rounds.ROOT, '07_basic_filters.py'),
         '--no-show', '--image', path, '--output-dir', folder] + flags, universal_newlines=True)
    return time.time() - start, float(output.splitlines()[-1])


def main(flags):
    print(rounds.machine())
    print('| megapixels | seconds | GB | seconds with --full-size | GB |\n|---|---|---|---|---|')
    with tempfile.TemporaryDirectory() as folder:
        path = os.path.join(folder, 'photograph.jpg')
        for megapixels in flags.megapixels:
            photograph(path, megapixels)
            found = run(path, folder, []) + run(path, folder, ['--full-size'])
            print('| {:g} | {:.0f} | {:.1f} | {:.0f} | {:.1f} |'.format(megapixels, *found), flush=True)


if __name__ == '__main__':
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('--megapixels', nargs='+', type=float, default=[3, 12, 24, 48])
    main(parser.parse_args())
