"""Pairs of modalities: of one digit each, in the split's order, with the moments they promise, together in batches."""

import numpy as np
import pytest

from diffjax.data import batches, load


def test_labels(home, digits):
  data = load('digits_labels', 'train', home)
  assert data.shape == {'image': (8, 8, 1), 'label': (10,)} and data.classes is None
  assert (data.size, data.nbytes) == (1437, 4 * 1437 * 74)
  x, known = data.arrays()['x'], digits.arrays()
  np.testing.assert_array_equal(x['image'], known['x'])
  np.testing.assert_array_equal(x['label'].argmax(1), known['cond'])
  assert x['label'].dtype == np.float32
  every = x['label'][[np.argmax(known['cond'] == k) for k in range(10)]]
  np.testing.assert_allclose(every.mean(0), np.zeros(10), atol=1e-6)
  np.testing.assert_allclose(every.var(0), np.ones(10), rtol=1e-6)


def test_projection(home):
  """Linear in the image, the same map on both splits, of mean 0 and variance 1 on the one it is trained on."""
  train, test = (load('digits_projection', split, home).arrays()['x'] for split in ('train', 'test'))
  assert train['projection'].shape == (1437, 16)
  np.testing.assert_allclose(train['projection'].mean(0), np.zeros(16), atol=1e-5)
  np.testing.assert_allclose(train['projection'].std(0), np.ones(16), rtol=1e-5)
  images = np.concatenate([train['image'].reshape(-1, 64), np.ones((1437, 1))], 1)
  fit = np.linalg.lstsq(images, train['projection'], rcond=None)[0]
  again = np.concatenate([test['image'].reshape(-1, 64), np.ones((360, 1))], 1) @ fit
  assert np.linalg.matrix_rank(fit[:64]) == 16
  np.testing.assert_allclose(again, test['projection'], atol=1e-3)


@pytest.mark.parametrize('name', ['digits_labels', 'digits_projection'])
def test_batches_keep_pairs_together(home, name):
  data = load(name, 'train', home)
  batch, whole = next(batches(data, 32, 0)), data.arrays()['x']
  rows = [np.flatnonzero((whole['image'] == image).all((1, 2, 3)))[0] for image in batch['x']['image']]
  other = data.shape.keys() - {'image'}
  for key in other:
    np.testing.assert_array_equal(batch['x'][key], whole[key][rows])
