"""The digits: split, values and labels are scikit-learn's; no TensorFlow, no chatter, no race."""

import subprocess
import sys

import numpy as np
import pytest
from sklearn.datasets import load_digits

from diffjax.data import load

PROGRAM = """
import sys
from diffjax.data import batches, load
train, test = (load('digits', split) for split in ('train', 'test'))
batch = next(batches(train, 128, 0))
assert 'tensorflow' not in sys.modules
print(train.size, test.size, batch['x'].shape)
"""


@pytest.mark.parametrize('split, rows', [('train', slice(0, 1437)), ('test', slice(1437, 1797))])
def test_split_is_the_permutation(home, split, rows):
  """Row k of a split is row pi(k) of scikit-learn's array, 0..16 mapped to -1..1 exactly (sixteenths are dyadic)."""
  data, order = load_digits(), np.random.RandomState(0).permutation(1797)[rows]
  digits = load('digits', split, home)
  assert (digits.size, digits.shape, digits.classes) == (len(order), (8, 8, 1), 10)
  assert digits.levels == 17
  arrays = digits.arrays()
  assert arrays['x'].dtype == np.float32 and arrays['cond'].dtype == np.int32
  np.testing.assert_array_equal((arrays['x'][..., 0] + 1) * 8, data.images[order])
  np.testing.assert_array_equal(arrays['cond'], data.target[order])


def test_reads_at_random(digits):
  arrays = digits.arrays()
  for i in (0, 700, 1436):
    np.testing.assert_array_equal(digits.source[i]['x'], arrays['x'][i])
    assert digits.source[i]['cond'] == arrays['cond'][i]
  np.testing.assert_array_equal(digits.take([5, 1436, 0])['x'], arrays['x'][[5, 1436, 0]])


def test_tfds_splits(home):
  np.testing.assert_array_equal(
    load('digits', 'train[100:300]', home).arrays()['cond'], load('digits', 'train', home).arrays()['cond'][100:300]
  )


@pytest.mark.parametrize('processes', [1, pytest.param(2, marks=pytest.mark.slow)])
def test_silent_without_tensorflow_and_safe_in_parallel(processes, tmp_path):
  """Fresh processes prepare the same directory at the same time; none fails, speaks or imports TensorFlow."""
  environment = {
    'TFDS_DATA_DIR': str(tmp_path),
    'PYTHONPATH': ':'.join(p for p in sys.path if p),
    'HOME': str(tmp_path),
  }
  environment['JAX_PLATFORMS'] = 'cpu'
  options = dict(stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment)
  runs = [subprocess.Popen([sys.executable, '-c', PROGRAM], **options) for _ in range(processes)]
  for run in runs:
    out, err = run.communicate(timeout=60)
    assert (run.returncode, out, err) == (0, '1437 360 (128, 8, 8, 1)\n', '')
  assert [p.name for p in (tmp_path / 'digits').iterdir()] == ['1.0.0']  # nothing half-written is left
