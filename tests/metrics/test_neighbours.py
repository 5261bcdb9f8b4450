import numpy as np
import pytest

from diffjax.metrics import pairs
from diffjax.metrics.neighbours import coverage_null, near_copies, near_copies_held_out, neighbours
from diffjax.metrics.pairs import kth_nearest


def two(rng, n, m, d=8):
  return rng.standard_normal((n, d)), rng.standard_normal((m, d))


@pytest.mark.parametrize(('n', 'm'), [(120, 120), (150, 90)])
def test_null_expectations(n, m):
  """One law: density 1, coverage its formula, precision = recall at n = m; all within 4 standard errors."""
  rng = np.random.default_rng(0)
  values = np.array([neighbours(*two(rng, n, m)) for _ in range(100)])
  mean, error = values.mean(0), values.std(0, ddof=1) / 10
  precision, _, density, coverage = mean
  assert abs(density - 1) <= 4 * error[2]
  assert abs(coverage - coverage_null(n, m)) <= 4 * error[3]
  if n == m:
    difference = values[:, 0] - values[:, 1]  # of one draw: the two are correlated
    assert abs(difference.mean()) <= 4 * difference.std(ddof=1) / 10
    assert precision < 0.99


def test_coverage_null_is_the_published_value():
  assert coverage_null(360, 360, 3) == pytest.approx(0.876, abs=1e-3)
  assert coverage_null(360, 360, 5) == pytest.approx(0.969, abs=1e-3)


def test_line_by_hand():
  """Points 0, 1, 3 against 1.5, 100, k = 1: balls of radius 1, 1, 2 and 98.5, 98.5."""
  reference, samples = np.array([[0.0], [1.0], [3.0]]), np.array([[1.5], [100.0]])
  precision, recall, density, coverage = neighbours(reference, samples, k=1)
  # 1.5 lies in the balls of 1 and 3; all references lie within 98.5 of 1.5
  assert (precision, recall, density, coverage) == (0.5, 1.0, 1.0, pytest.approx(2 / 3))


def test_swapping_sets_swaps_precision_and_recall():
  x, y = two(np.random.default_rng(1), 60, 60)
  a, b = neighbours(x, 1.3 * y), neighbours(1.3 * y, x)
  assert (a.precision, a.recall) == (b.recall, b.precision)
  assert a.precision < a.recall


def test_ties_of_a_memoriser(monkeypatch):
  """Samples equal to the reference: each ball holds itself and k - 1 neighbours strictly, in blocks of any size."""
  x, _ = two(np.random.default_rng(2), 40, 1)
  for block in (2**22, 100):
    monkeypatch.setattr(pairs, 'BLOCK', block)
    assert neighbours(x, x[::-1]) == (1.0, 1.0, 1.0, 1.0)


def test_collapse_has_precision_without_recall():
  rng = np.random.default_rng(3)
  x, y = two(rng, 100, 100)
  precision, recall, _, coverage = neighbours(x, 0.05 * y)
  assert precision == 1
  assert recall < 0.05 and coverage < 0.6


def test_kth_nearest_excludes_only_itself():
  x = np.array([[0.0], [0.0], [2.0]])
  np.testing.assert_array_equal(kth_nearest(x, k=1), [0, 0, 4])
  np.testing.assert_array_equal(kth_nearest(x, np.array([[1.0], [5.0]]), k=2), [25, 25, 9])
  with pytest.raises(ValueError, match='k = 3 nearest neighbours of 2'):
    kth_nearest(x, k=3)


def test_near_copies():
  rng = np.random.default_rng(4)
  train, held_out, fresh = (rng.standard_normal((n, 3)) for n in (600, 200, 2000))
  noisy = train[:300] + 1e-3 * rng.standard_normal((300, 3))
  assert near_copies(train, train, held_out) == (1.0, 1.0, 0.0)
  assert near_copies(noisy, train, held_out).share > 0.95
  known, new = near_copies_held_out(train, held_out), near_copies(fresh, train, held_out)
  # new points of one law: nearer to the larger set with probability 600 / 800 (599 to 800 without its own image)
  error = np.sqrt(0.75 * 0.25 / 200)
  assert abs(known.nearer - 0.75) <= 4 * error and abs(new.nearer - 0.75) <= 4 * error
  # in d dimensions a < b / 2 has probability r / (r + 2^d), r = 600 / 200 (nearest distances of a locally even law)
  expected = 3 / (3 + 2**3)
  error = np.sqrt(expected * (1 - expected) / 200)
  assert abs(known.share - expected) <= 4 * error and abs(new.share - expected) <= 4 * error


def test_an_image_of_both_splits_is_not_a_copy():
  point = np.zeros((1, 4))
  assert near_copies(point, point, point) == (0.0, 0.0, 1.0)
