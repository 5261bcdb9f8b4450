"""Distances on the device against the direct formula: sizes that are no multiple of a chunk, ties, near copies."""

import numpy as np
import pytest

from diffjax.metrics import nearest, pairs, tiles
from diffjax.metrics.nearest import Nearest
from diffjax.metrics.neighbours import neighbours
from diffjax.metrics.transport import energy_distance

EPS = 2.0**-24


def direct(x, y, k=1, among=False):
  """The k-th least |x_i - y_j|^2, row by row, in float64."""
  squared = np.array([np.square(y.astype(np.float64) - row).sum(1) for row in x.astype(np.float64)])
  if among:
    np.fill_diagonal(squared, np.inf)
  return np.sort(squared, 1)[:, k - 1]


@pytest.fixture
def small(monkeypatch):
  """Chunks and blocks that sets of a hundred do not fill."""
  monkeypatch.setattr(nearest, 'chunk_rows', lambda numbers: 64)
  monkeypatch.setattr(nearest, 'QUERIES', 32)


def found(x, y, k=1, among=False):
  search = Nearest(x, k, among)
  for start in range(0, len(y), search.chunk):
    search.add(y[start : start + search.chunk])
  return search.squared(lambda index: y[index])


@pytest.mark.parametrize('k', [1, 5])
@pytest.mark.parametrize(('n', 'm'), [(70, 200), (32, 64), (5, 7), (33, 129)])
def test_the_distances_are_those_of_the_direct_formula(small, n, m, k):
  rng = np.random.default_rng(n)
  x, y = (rng.standard_normal((size, 48)).astype(np.float32) for size in (n, m))
  np.testing.assert_allclose(found(x, y, k), direct(x, y, k), rtol=1e-12)
  if n > k:
    np.testing.assert_allclose(found(x, x, k, among=True), direct(x, x, k, True), rtol=1e-12)


def test_equal_images_are_at_distance_nought_however_bright(small):
  """|a|^2 + |b|^2 - 2 a.b of images far from their mean would be off by 1e-7 |a|^2 = .05 here."""
  rng = np.random.default_rng(0)
  y = (1000 * rng.standard_normal(48) + rng.standard_normal((150, 48))).astype(np.float32)
  x = np.concatenate([y[[3, 149, 64]], y[:2] + np.float32(1)])
  squared = found(x, y)
  assert (squared[:3] == 0).all()
  np.testing.assert_allclose(squared, direct(x, y), rtol=1e-12)


@pytest.mark.parametrize('gap', [0.0, 1e-7, 1e-4, 1e-2])
def test_more_near_copies_than_a_query_keeps(small, gap):
  """A hundred candidates that float32 cannot order: the nearest is the nearest all the same."""
  rng = np.random.default_rng(1)
  seed = rng.standard_normal(48)
  y = np.concatenate([seed + gap * rng.standard_normal((100, 48)), rng.standard_normal((30, 48))])
  x = np.stack([seed, seed + 1.0])
  np.testing.assert_allclose(found(x, y, 3), direct(x, y, 3), rtol=1e-9, atol=1e-30)
  np.testing.assert_allclose(found(y, y, 3, among=True), direct(y, y, 3, True), rtol=1e-9, atol=1e-30)


def test_no_more_is_held_than_a_chunk(small):
  """Candidates are asked for again only where they may be the nearest, and never all at once."""
  rng = np.random.default_rng(2)
  x, y = rng.standard_normal((40, 48)), rng.standard_normal((1000, 48))
  search, asked = Nearest(x), []
  for start in range(0, 1000, search.chunk):
    search.add(y[start : start + search.chunk])
  search.squared(lambda index: asked.append(index) or y[index])
  assert sum(map(len, asked)) <= 2 * len(x)
  assert all((np.diff(index) > 0).all() for index in asked)


def test_sets_of_other_sizes_share_the_programs(small, compiles):
  rng = np.random.default_rng(3)
  x, y = rng.standard_normal((70, 20)), rng.standard_normal((200, 20))
  found(x, y)
  with compiles(0):
    found(x[:50], y[:190])


def test_fewer_candidates_than_k_are_refused():
  search = Nearest(np.zeros((3, 2)), 2)
  search.add(np.zeros((1, 2)))
  with pytest.raises(ValueError, match='k: got 2 nearest of 1'):
    search.squared(lambda index: np.zeros((len(index), 2)))


@pytest.mark.parametrize('tile', [16, 2048])
@pytest.mark.parametrize('kind', ['apart', 'copies', 'collapsed', 'lattice', 'distant'])
def test_figures_on_the_device_are_those_on_the_host(kind, tile, monkeypatch):
  """Counts are equal, in tiles of any size, with ties too: samples that are copies, one point, or of a lattice."""
  rng = np.random.default_rng(4)
  x, y = rng.standard_normal((90, 6)) + 5, 1.1 * rng.standard_normal((73, 6)) + 5
  if kind == 'copies':
    y[:40] = x[20:60]
  elif kind == 'collapsed':
    y = np.broadcast_to(x[7], y.shape)
  elif kind == 'lattice':
    x, y = np.round(x[:, :2]), np.round(y[:, :2])
  elif kind == 'distant':
    x, y = x + 1e6, np.concatenate([x[:30], y]) + 1e6
  host = neighbours(x, y), energy_distance(x, y), pairs.total_distance(x, x)
  monkeypatch.setattr(pairs, 'BLOCK', 16)
  monkeypatch.setattr(tiles, 'TILE', tile)
  assert neighbours(x, y) == host[0]
  # a pair of equal points is exactly 0, another right to 1e-7 of the sets' size at worst
  np.testing.assert_allclose(energy_distance(x, y), host[1], atol=1e-9)
  np.testing.assert_allclose(pairs.total_distance(x, x), host[2], rtol=1e-10)
