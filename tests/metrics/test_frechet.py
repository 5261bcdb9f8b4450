import numpy as np
import pytest

from diffjax.metrics.frechet import frechet, frechet_bias, frechet_from_moments, moments


def covariance(rng, d):
  root = rng.standard_normal((d, d))
  return root @ root.T / d + 0.1 * np.eye(d)


def test_shift_is_its_squared_length():
  rng = np.random.default_rng(0)
  s, a = covariance(rng, 7), rng.standard_normal(7)
  np.testing.assert_allclose(frechet_from_moments(np.zeros(7), s, a, s), a @ a, rtol=1e-10)
  x = rng.standard_normal((50, 7)) @ s
  np.testing.assert_allclose(frechet(x, x + a), a @ a, rtol=1e-10)


@pytest.mark.parametrize('c', [0.0, 0.5, 3.0])
def test_scale_of_the_identity(c):
  d = 9
  value = frechet_from_moments(np.zeros(d), np.eye(d), np.zeros(d), c**2 * np.eye(d))
  np.testing.assert_allclose(value, d * (1 - c) ** 2, atol=1e-12)


def test_commuting_covariances_and_symmetry():
  """For a shared eigenbasis the distance is the sum of (sqrt l - sqrt k)^2; for any two it is symmetric."""
  rng = np.random.default_rng(1)
  basis, _ = np.linalg.qr(rng.standard_normal((6, 6)))
  first, second = rng.uniform(0, 2, 6), rng.uniform(0, 2, 6)
  first[0] = second[1] = 0
  value = frechet_from_moments(np.zeros(6), basis * first @ basis.T, np.zeros(6), basis * second @ basis.T)
  np.testing.assert_allclose(value, np.sum((np.sqrt(first) - np.sqrt(second)) ** 2), atol=1e-7)
  first, second = (rng.standard_normal(6), covariance(rng, 6)), (rng.standard_normal(6), covariance(rng, 6))
  np.testing.assert_allclose(frechet_from_moments(*first, *second), frechet_from_moments(*second, *first), rtol=1e-10)


@pytest.mark.parametrize(('n', 'm', 'shape'), [(360, 360, 'white'), (360, 1437, 'white'), (360, 360, 'decaying')])
def test_bias_formula(n, m, shape):
  """Mean distance of two samples of one law is the formula within 5% (its spread over 100 repeats: about 1.5%)."""
  d, rng = 16, np.random.default_rng(2)
  scale = np.ones(d) if shape == 'white' else 0.8 ** np.arange(d)
  draws = [frechet(rng.standard_normal((n, d)) * scale, rng.standard_normal((m, d)) * scale) for _ in range(100)]
  expected = frechet_bias(np.diag(scale**2), n, m)
  np.testing.assert_allclose(np.mean(draws), expected, rtol=0.05)
  if shape == 'white':
    np.testing.assert_allclose(expected, (1 / n + 1 / m) * (d + d * (d + 1) / 4))


def test_too_few_points_need_shrinkage():
  x = np.random.default_rng(3).standard_normal((8, 8))
  with pytest.raises(ValueError, match='n = 8 points for a covariance in d = 8'):
    frechet(x, x)
  assert frechet(x, x, shrinkage=0.1) == pytest.approx(0, abs=1e-6)
  mean, s = moments(x, shrinkage=1.0)
  np.testing.assert_allclose(s, np.cov(x.T).trace() / 8 * np.eye(8))
  with pytest.raises(ValueError, match='shrinkage = 2'):
    moments(x, shrinkage=2)


def test_refuses_what_it_cannot_measure():
  x = np.zeros((20, 3))
  with pytest.raises(ValueError, match='dimension 3 and 2'):
    frechet(x, x[:, :2])
  with pytest.raises(ValueError, match='NaN or infinity in 1 of 20'):
    frechet(x, np.where(np.arange(20)[:, None] == 4, np.nan, x))
  with pytest.raises(ValueError, match='flatten'):
    frechet(x, np.zeros((20, 2, 2)))
