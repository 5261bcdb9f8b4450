"""Patches lie in their half and are the photograph's pixels; sources are what they say of them."""

import numpy as np
import pytest
from sklearn.datasets import load_sample_images

from diffjax.data import load


@pytest.fixture(scope='module')
def photographs():
  """China and flower, 0 to 255, as the package has them."""
  found = load_sample_images()
  return [found.images[[i for i, f in enumerate(found.filenames) if name in f][0]] for name in ('china', 'flower')]


@pytest.mark.parametrize('split, first', [('train', 0), ('test', 320)])
def test_patches_are_pixels_of_their_half(photographs, split, first):
  """Each is found in its photograph at its corner, which lies in the half with all of it; both ends are reached."""
  data = load('photographs', split, size=200, n=300)
  assert (data.kind, data.shape, data.names) == ('images', (200, 200, 3), ('china', 'flower'))
  source, seen = data.source, []
  for i in range(0, 300, 30):
    example, (row, column) = data.take([i]), source.corners[i]
    pixels = photographs[example['cond'][0]][row : row + 200, first + column : first + column + 200]
    np.testing.assert_array_equal(np.rint((example['x'][0] + 1) * 127.5), pixels)
    seen.append(example['cond'][0])
  rows, columns = source.corners.T
  assert columns.min() <= 5 and 115 <= columns.max() <= 120  # 121 places: none of five ends with probability 4e-6
  assert rows.min() <= 12 and 215 <= rows.max() <= 227
  assert abs(np.mean(source.label) - 0.5) < 6 / np.sqrt(4 * 300) and set(seen) == {0, 1}


def test_one_photograph_alone():
  """Its patches are those of both whose label it is, at the same corners."""
  both, one = (load('photographs', size=40, n=60, **options).source for options in ({}, dict(which='flower')))
  np.testing.assert_array_equal(one.corners, both.corners)
  assert (one.label == 1).all()
  with pytest.raises(ValueError, match="data.which: got 'temple'; allowed: 'china', 'flower'"):
    load('photographs', size=40, n=1, which='temple')


def test_the_largest_patch_is_the_half(photographs):
  """Uniform corners: 320 wide there is one column, and 108 rows."""
  source = load('photographs', 'test', size=320, n=2000).source
  assert (source.corners[:, 1] == 0).all()
  counts = np.bincount(source.corners[:, 0], minlength=108)
  assert len(counts) == 108 and np.abs(counts - 2000 / 108).max() < 6 * np.sqrt(2000 / 108)


def test_sources():
  """Grey is the weighted sum of colours, coarse the mean of blocks; x does not depend on which is asked for."""
  plain, grey, coarse = (load('photographs', n=20, source=s, factor=4).arrays() for s in (None, 'grey', 'coarse'))
  for other in (grey, coarse):
    np.testing.assert_array_equal(plain['x'], other['x'])
  assert 'source' not in plain and grey['source'].shape == (20, 16, 16, 1)
  r, g, b = np.moveaxis(plain['x'].astype(np.float64), -1, 0)
  np.testing.assert_allclose(grey['source'][..., 0], 0.299 * r + 0.587 * g + 0.114 * b, atol=1e-6)
  blocks = plain['x'].reshape(20, 4, 4, 4, 4, 3).mean((2, 4))
  np.testing.assert_allclose(coarse['source'], blocks.repeat(4, 1).repeat(4, 2), atol=1e-6)


def test_seeds():
  a, b, c = (load('photographs', n=9, seed=s).source.corners for s in (0, 0, 1))
  assert (a == b).all() and (a != c).any()
