"""Pairs of modalities: of one digit each, in the split's order, with the moments they promise, together in batches."""

import numpy as np
import pytest

from diffjax.data import batches, load
from diffjax.data.pairs import bold, edges


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


@pytest.mark.parametrize('name', ['digits_edges', 'digits_noisy', 'digits_styles', 'digits_coarse'])
def test_sources_go_with_their_digits(home, digits, name):
  """In the order of the digits, and in batches together; the digit is x, of the styles it is the source."""
  data, known = load(name, 'train', home), digits.arrays()
  assert (data.kind, data.shape, data.others, data.classes) == ('pairs', (8, 8, 1), {'source': (8, 8, 1)}, 10)
  whole = data.arrays()
  np.testing.assert_array_equal(whole['source' if name == 'digits_styles' else 'x'], known['x'])
  np.testing.assert_array_equal(whole['cond'], known['cond'])
  batch = next(batches(data, 32, 0))
  where = 'source' if name in ('digits_styles', 'digits_noisy') else 'x'
  for row in range(32):
    i = np.flatnonzero((whole[where] == batch[where][row]).all((1, 2, 3)))[0]
    for key in data.keys:
      np.testing.assert_array_equal(batch[key][row], whole[key][i])


def test_edges():
  """Of a plane a x + b y the slope inside, half of it across an edge, whatever the direction; of a constant none."""
  row, column = np.mgrid[:8, :8][..., None] / 16
  plane = np.stack([0.6 * row + 0.8 * column, 0 * row])
  found = (edges(plane) + 1) * np.sqrt(2)
  np.testing.assert_allclose(found[0, 1:-1, 1:-1], 2 / 16, rtol=1e-6)
  np.testing.assert_allclose(found[0, 0, 1:-1], 2 / 16 * np.hypot(0.3, 0.8), rtol=1e-6)
  np.testing.assert_allclose(found[1], 0, atol=1e-12)
  board = np.where(np.mgrid[:8, :8].sum(0) // 2 % 2, 1, -1)[None, ..., None]  # the steepest there is: both slopes at 1
  assert edges(board).max() == 1 and edges(board).min() >= -1


def test_noise_is_normal(home):
  """Of the stated deviation, independent of the digit, others by seed and by split."""
  digits, noise = (load('digits_noisy', 'train', home, noise=0.25, seed=s).arrays() for s in (0, 1))
  z = (digits['source'] - digits['x']).ravel() / 0.25
  assert abs(z.mean()) < 6 / np.sqrt(z.size) and abs(z.var() - 1) < 6 * np.sqrt(2 / z.size)
  assert abs(np.mean(z**4) - 3) < 6 * np.sqrt(96 / z.size)
  assert abs(np.mean(z * digits['x'].ravel())) < 6 / np.sqrt(z.size)
  assert abs(np.mean(z * (noise['source'] - noise['x']).ravel() / 0.25)) < 6 / np.sqrt(z.size)


def test_bold():
  """One dot becomes a dark cross on light; nothing is lost: the negative covers what was written."""
  dot = np.full((1, 8, 8, 1), -1.0)
  dot[0, 3, 4] = 0.5
  cross = np.ones((8, 8))
  for r, c in ((3, 4), (2, 4), (4, 4), (3, 3), (3, 5)):
    cross[r, c] = -0.5
  np.testing.assert_array_equal(bold(dot)[0, ..., 0], cross)


@pytest.mark.parametrize('factor', [2, 4, 8])
def test_coarse(home, factor):
  """Constant on blocks and of their means: what is lost has mean 0 on each, and again is the same."""
  whole = load('digits_coarse', 'test', home, factor=factor).arrays()
  blocks = lambda x: x.reshape(len(x), 8 // factor, factor, 8 // factor, factor)  # noqa: E731
  source, lost = blocks(whole['source']), blocks(whole['x'] - whole['source'])
  assert (np.ptp(source, axis=(2, 4)) == 0).all() and np.ptp(source) > 0
  np.testing.assert_allclose(lost.mean((2, 4)), 0, atol=1e-6)
