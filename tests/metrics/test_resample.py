import numpy as np
import pytest

from diffjax.metrics.kernel import kid
from diffjax.metrics.resample import half_samples, interval, matched, shuffled, spread, wilson


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


@pytest.mark.quick('0.5-0.86-1.0')
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


@pytest.mark.parametrize('order', ['sorted', 'mixed', 'unlabelled'])
@pytest.mark.parametrize('n', [1, 7, 40, 119, 120, 500])
def test_spread_keeps_classes_in_proportion_whatever_the_order(order, n):
  """Each class has the floor or the ceiling of its share, no index twice, rising; beyond the size the whole."""
  labels = np.repeat([0, 1, 2, 7], [40, 40, 30, 10])
  labels = np.random.default_rng(4).permutation(labels) if order == 'mixed' else labels
  index = spread(n, 120, None if order == 'unlabelled' else labels)
  assert len(index) == min(n, 120) and (np.diff(index) > 0).all() and 0 <= index[0] and index[-1] < 120
  np.testing.assert_array_equal(index, spread(n, 120, None if order == 'unlabelled' else labels))
  if order == 'unlabelled':
    return
  for c, count in zip(*np.unique(labels, return_counts=True), strict=True):
    share = min(n, 120) * count / 120
    assert np.floor(share) <= (labels[index] == c).sum() <= np.ceil(share)


def test_spread_is_even_within_a_class_and_seeded():
  """Of 1000 in order 10 come one from each hundred; over seeds every example is as likely, in step or out of step."""
  draws = np.stack([spread(10, 1000, seed=seed) for seed in range(2000)])
  np.testing.assert_array_equal(draws // 100, np.broadcast_to(np.arange(10), draws.shape))
  odd = (draws % 2).mean()  # a fixed stride of 100 would take all of one parity
  assert abs(odd - 0.5) <= 5 * 0.5 / np.sqrt(draws.size)
  assert len({tuple(draw) for draw in draws}) > 1990


@pytest.mark.parametrize('n', [50, 51, 400])
@pytest.mark.parametrize('sd', [0.1, 1.0, 30.0])
def test_half_width_of_the_interval_of_a_normal_mean(n, sd):
  """Of the mean of n draws of N(0, sd^2) it is 1.96 sd / sqrt n.

  With S the deviation of these very draws, made equal to sd, it is 1.96 S / sqrt n but for the 2000 halves, with an
  error of 1 / sqrt(4000) = 1.6%, and an odd n's rounding, 1/n: five of the first and the second.
  """
  x = np.random.default_rng(n).standard_normal((n, 1))
  x = sd * (x - x.mean()) / x.std(ddof=1)
  other = np.zeros((2, 1))
  low, high = interval(0.3, half_samples(lambda a, b, _: a.mean() + b.mean(), x, other, draws=2000, seed=1))
  assert (low + high) / 2 == pytest.approx(0.3)
  assert (high - low) / 2 == pytest.approx(1.959964 * sd / np.sqrt(n), rel=5 * 0.016 + 1 / n)


def test_half_widths_over_draws_of_the_law():
  """Without the deviation made equal: the median half-width over 40 draws of N(0, 1)^100 is 1.96 / 10 within 6%.

  One S deviates by 1 / sqrt(200) = 7%, 400 halves by 3.5%; the median of 40 by 1.25 x 7.9% / sqrt 40 = 1.6%.
  """
  rng = np.random.default_rng(6)
  other = np.zeros((2, 1))
  mean = lambda a, b, _: a.mean() + b.mean()  # noqa: E731
  ends = [interval(0.0, half_samples(mean, rng.standard_normal((100, 1)), other, draws=400, seed=i)) for i in range(40)]
  assert np.median([(high - low) / 2 for low, high in ends]) == pytest.approx(0.196, rel=0.06)


def test_interval_is_the_normal_quantile():
  """P(|z| < 1.96) = .95: a value of N(truth, sd^2) has the truth in its interval with that probability."""
  rng = np.random.default_rng(5)
  held = [low <= 2 <= high for low, high in (interval(v, 3.0) for v in 2 + 3 * rng.standard_normal(20_000))]
  assert abs(np.mean(held) - 0.95) <= 4 * np.sqrt(0.95 * 0.05 / 20_000)
