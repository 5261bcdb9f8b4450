import numpy as np
import pytest
from scipy import stats

from diffjax.metrics import kernel
from diffjax.metrics.kernel import cubic, gaussian, kid, median_distance, mmd, permutation_p
from diffjax.metrics.transport import energy_distance

D = 16


def draws(statistic, shift, n, repeats, seed=0):
  rng = np.random.default_rng(seed)
  return np.array([statistic(rng.standard_normal((n, D)), rng.standard_normal((n, D)) + shift) for _ in range(repeats)])


def within_three_errors(values, expected):
  error = values.std(ddof=1) / np.sqrt(len(values))
  assert abs(values.mean() - expected) <= 3 * error, (values.mean(), expected, error)


def kid_of_shift(total, d):
  return 3 * total / d + 3 * total**2 / d**2 + (total**3 + 6 * total**2 + (3 * d + 6) * total) / d**3


@pytest.mark.parametrize('shift', [0.0, 0.1, 0.4])
def test_kid_of_shifted_gaussians(shift):
  """Closed form within 3 standard errors; at shift 0 this is 'unbiased under the null'."""
  within_three_errors(draws(kid, shift, 150, 200), kid_of_shift(D * shift**2, D))


@pytest.mark.parametrize('shift', [0.0, 0.3])
def test_gaussian_mmd_of_shifted_gaussians(shift):
  s2 = 3.0**2
  expected = 2 * (s2 / (s2 + 2)) ** (D / 2) * (1 - np.exp(-D * shift**2 / (2 * (s2 + 2))))
  within_three_errors(draws(lambda x, y: mmd(x, y, gaussian(3.0)), shift, 100, 200), expected)


@pytest.mark.parametrize('statistic', [kid, energy_distance])
def test_fixed_class_counts_leave_the_null_unbiased(statistic):
  """Same class counts, same class laws: mean 0 with labels, several errors below 0 without."""
  rng = np.random.default_rng(4)
  labels = np.repeat(np.arange(5), [2, 4, 6, 8, 10])

  def draw():
    return 3 * np.eye(5)[labels] + rng.standard_normal((30, 5))

  pairs = [(draw(), draw()) for _ in range(300)]
  within_three_errors(np.array([statistic(x, y, (labels, labels)) for x, y in pairs]), 0)
  plain = np.array([statistic(x, y) for x, y in pairs])
  assert plain.mean() < -5 * plain.std(ddof=1) / np.sqrt(300)


def test_one_class_is_the_plain_statistic():
  rng = np.random.default_rng(5)
  x, y = rng.standard_normal((9, 3)), rng.standard_normal((7, 3))
  one = np.zeros(9, int), np.zeros(7, int)
  np.testing.assert_allclose(kid(x, y, one), kid(x, y), rtol=1e-12)
  np.testing.assert_allclose(energy_distance(x, y, one), energy_distance(x, y), rtol=1e-12)


def test_definition_and_blocks(monkeypatch):
  """The streamed sums are the double loop of the definition, unequal sizes, whatever the block."""
  rng = np.random.default_rng(1)
  x, y = rng.standard_normal((7, 3)), rng.standard_normal((5, 3))
  k = lambda a, b: (a @ b / 3 + 1) ** 3  # noqa: E731
  within = [np.mean([k(a, b) for i, a in enumerate(z) for j, b in enumerate(z) if i != j]) for z in (x, y)]
  expected = sum(within) - 2 * np.mean([k(a, b) for a in x for b in y])
  for block in (2048, 2):
    monkeypatch.setattr(kernel, 'BLOCK', block)
    np.testing.assert_allclose(kid(x, y), expected, rtol=1e-10)
    np.testing.assert_allclose(mmd(x, y, cubic), expected, rtol=1e-10)


def test_permutation_p_is_uniform_under_the_null_and_small_off_it():
  rng = np.random.default_rng(2)
  labels = (np.arange(40) % 4, np.arange(40) % 4)

  def p(shift, i, groups):
    # class means lie apart: fixed class counts make the plain test conservative, the one within classes exact
    x, y = (rng.standard_normal((40, 4)) + 3 * np.eye(4)[labels[0]] for _ in range(2))
    return permutation_p(x, y + shift, labels=groups, draws=99, seed=i)

  within = [p(0, i, labels) for i in range(100)]
  assert stats.kstest(within, 'uniform').pvalue > 0.01
  assert stats.kstest([p(0, i, None) for i in range(100)], 'uniform').pvalue < 0.01
  assert np.median([p(0.5, i, labels) for i in range(5)]) <= 0.05


def test_permutation_p_of_a_set_against_itself_is_large():
  x = np.random.default_rng(3).standard_normal((50, 3))
  assert permutation_p(x, x) > 0.9


def test_bandwidth():
  assert median_distance(np.array([[0.0], [1.0], [3.0]])) == 2
  with pytest.raises(ValueError, match='bandwidth = 0'):
    gaussian(0)


@pytest.mark.parametrize('groups', [False, True])
def test_moments_give_the_sum_over_pairs(groups, monkeypatch):
  """Of more points than d^2 the distance comes from moments: the value of the Gram matrix, whatever the block."""
  rng = np.random.default_rng(6)
  x, y = rng.standard_normal((31, 3)) + 1, rng.standard_normal((23, 3))
  labels = (np.arange(31) % 2, np.arange(23) % 2) if groups else None
  plain = mmd(x, y, lambda a, b: cubic(a, b), labels)
  monkeypatch.setattr(kernel, 'BLOCK', 7)
  np.testing.assert_allclose(kid(x, y, labels), plain, rtol=1e-10)
