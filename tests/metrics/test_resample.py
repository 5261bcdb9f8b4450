import numpy as np
import pytest

from diffjax.metrics.kernel import kid
from diffjax.metrics.resample import half_samples, interval, matched, shuffled, wilson


def test_matched_takes_each_class_without_repeats():
  rng = np.random.default_rng(0)
  pool, labels = np.repeat([2, 0, 1], [5, 4, 3]), np.array([0, 1, 0, 2, 1])
  index = matched(rng, pool, labels)
  np.testing.assert_array_equal(pool[index], labels)
  assert len(set(index)) == 5
  with pytest.raises(ValueError, match='class 1 is wanted 4 times; the pool has 3'):
    matched(rng, pool, np.ones(4, int))


def test_shuffled_keeps_labels_and_moves_all():
  rng = np.random.default_rng(1)
  labels = rng.integers(0, 3, 60)
  draws = np.stack([shuffled(rng, labels) for _ in range(400)])
  np.testing.assert_array_equal(labels[draws], np.broadcast_to(labels, draws.shape))
  assert all(sorted(draw) == list(range(60)) for draw in draws[:5])
  # uniform within the class: slot 0 receives each of its class with frequency 1 / size, within 5 standard errors
  own = np.flatnonzero(labels == labels[0])
  share = np.array([(draws[:, 0] == i).mean() for i in own])
  assert np.abs(share - 1 / len(own)).max() <= 5 * np.sqrt(1 / len(own) / 400)


def test_half_samples_of_a_mean_are_its_standard_error():
  """s sqrt(1/n + 1/m) without classes; within classes the spread between class means drops out."""
  rng = np.random.default_rng(2)
  groups = np.arange(200) % 2, np.arange(300) % 2
  x, y = (rng.standard_normal((len(g), 1)) + 10 * g[:, None] for g in groups)
  mean = lambda a, b, _: a.mean() - b.mean()  # noqa: E731
  whole, within = half_samples(mean, x, y, draws=2000), half_samples(mean, x, y, groups, draws=2000)
  factor = np.sqrt(1 / 200 + 1 / 300)
  # sampling error of 2000 draws is 1.6%, that of s itself 5%
  np.testing.assert_allclose(within, factor, rtol=0.15)
  np.testing.assert_allclose(whole, np.sqrt(1 + 25) * factor, rtol=0.15)


@pytest.mark.parametrize(('shift', 'low', 'high'), [(0.5, 0.86, 1.0), (0.0, 0.98, 1.0)])
def test_interval_of_the_kernel_distance_covers(shift, low, high):
  """Off the null 95% of intervals hold the true value (150 runs: 5 standard errors of 1.8%), under it nearly all."""
  rng = np.random.default_rng(3)
  d, total = 4, 4 * shift**2
  truth = 3 * total / d + 3 * total**2 / d**2 + (total**3 + 6 * total**2 + (3 * d + 6) * total) / d**3
  held = 0
  for i in range(150):
    x, y = rng.standard_normal((100, d)), rng.standard_normal((100, d)) + shift
    ends = interval(kid(x, y), half_samples(kid, x, y, draws=40, seed=i))
    held += ends[0] <= truth <= ends[1]
  assert low <= held / 150 <= high


def test_wilson_solves_its_quadratic():
  """The ends p satisfy (share - p)^2 = z^2 p (1 - p) / n."""
  for share in (0.0, 0.3, 1.0):
    ends = np.array(wilson(share, 50))
    np.testing.assert_allclose((share - ends) ** 2, 1.959964**2 * ends * (1 - ends) / 50, atol=1e-12)
