import numpy as np
from scipy import stats

from diffjax.metrics.transport import energy_distance, sliced_wasserstein


def test_shift_and_scale_of_one_sample():
  """A shift a gives the mean of (a.u)^2 over directions, |a|^2 / d; a scale c gives (1-c)^2 E|x|^2 / d."""
  rng = np.random.default_rng(0)
  x, a = rng.standard_normal((200, 6)), np.full(6, 0.5)
  # the mean of 2048 squared cosines is 1/d within 4 x sqrt(2/2048) x 1/d
  np.testing.assert_allclose(sliced_wasserstein(x, x + a, 2048) ** 2, a @ a / 6, rtol=4 * np.sqrt(2 / 2048))
  expected = 0.3**2 * np.mean(x**2)
  np.testing.assert_allclose(sliced_wasserstein(x, 1.3 * x, 2048) ** 2, expected, rtol=4 * np.sqrt(2 / 2048))
  assert sliced_wasserstein(x, x[::-1]) == 0


def test_isotropic_gaussians():
  """N(0, I) against N(mu, c^2 I): |mu|^2 / d + (1 - c)^2, up to the null's own square at these sizes."""
  rng = np.random.default_rng(1)
  d, n, c, mu = 8, 4000, 1.5, 0.4
  x, y = rng.standard_normal((n, d)), rng.standard_normal((n, d))
  null = sliced_wasserstein(x, y)
  value = sliced_wasserstein(x, mu + c * y)
  expected = np.sqrt(mu**2 + (1 - c) ** 2)
  assert abs(value - expected) <= 2 * null < 0.2 * expected  # triangle inequality, and room for the directions


def test_unequal_sizes_agree_with_equal_ones():
  """Repeating every point changes no law: the quantile grid and the sorted form agree to the grid's resolution."""
  rng = np.random.default_rng(2)
  x, y = rng.standard_normal((250, 4)), rng.standard_normal((250, 4)) + 1
  np.testing.assert_allclose(sliced_wasserstein(x, np.repeat(y, 2, 0)), sliced_wasserstein(x, y), rtol=0.01)


def absolute(delta, s):
  """E|z| for z ~ N(delta, s^2)."""
  return s * np.sqrt(2 / np.pi) * np.exp(-(delta**2) / (2 * s**2)) + delta * (1 - 2 * stats.norm.cdf(-delta / s))


def test_energy_distance_of_gaussians_on_a_line():
  """N(0,1) against N(delta, c^2) within 3 standard errors; delta 0, c 1 is 'unbiased under the null'."""
  rng = np.random.default_rng(3)
  for delta, c in ((0.0, 1.0), (0.7, 1.0), (0.3, 2.0)):
    draw = [energy_distance(rng.standard_normal((80, 1)), delta + c * rng.standard_normal((60, 1))) for _ in range(200)]
    expected = 2 * absolute(delta, np.sqrt(1 + c**2)) - absolute(0, np.sqrt(2)) - absolute(0, np.sqrt(2) * c)
    assert abs(np.mean(draw) - expected) <= 3 * np.std(draw, ddof=1) / np.sqrt(200)
