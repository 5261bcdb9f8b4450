import jax
import jax.numpy as jnp
import numpy as np
import pytest

from diffjax.train import ema


def track(average, values):
  mean = jnp.asarray(values[0] * 0 + 17.0)  # a start that must be forgotten
  step = jax.jit(lambda mean, value, n: ema.update(average, mean, value, n))
  for n, value in enumerate(values, 1):
    mean = step(mean, value, n)
  return float(mean)


@pytest.mark.parametrize('width', [0.05, 0.1, 0.2])
def test_power_average_is_its_integral(width):
  """The recursion's weights are prod beta; they approach (gamma + 1) tau^gamma / t^(gamma + 1), to O(1/n)."""
  n = 2000
  tau = np.arange(1, n + 1)
  values = np.sin(tau / 300)
  gamma = ema.gamma_of(width)
  grid = (np.arange(200000) + 0.5) / 200000
  integral = np.mean((gamma + 1) * grid**gamma * np.sin(grid * n / 300))
  assert abs(track(ema.power(width), values.astype(np.float32)) - integral) < 3 * (gamma + 1) / n


@pytest.mark.parametrize('width', [0.05, 0.1, 0.25])
def test_power_average_of_a_power_is_closed(width):
  """Of theta = tau: (gamma + 1) / (gamma + 2) t, and the product of the betas exactly."""
  n, g = 500, ema.gamma_of(width)
  weights = np.ones(1)
  for k in range(2, n + 1):
    beta = (1 - 1 / k) ** (g + 1)
    weights = np.append(weights * beta, 1 - beta)
  expected = weights @ np.arange(1, n + 1)
  assert abs(track(ema.power(width), np.arange(1, n + 1, dtype=np.float32)) / expected - 1) < 1e-5
  assert abs(expected / n - (g + 1) / (g + 2)) < 2 / n


def test_widths():
  for width in np.linspace(0.02, 0.28, 14):
    assert abs(ema.width_of(ema.gamma_of(width)) / width - 1) < 1e-9
  for width, gamma in ((0.05, 16.972), (0.10, 6.937), (0.15, 3.558), (0.20, 1.826)):
    assert abs(ema.gamma_of(width) - gamma) < 6e-4
  grid = (np.arange(10**6) + 0.5) / 10**6
  density = 7.937 * grid**6.937
  assert abs(np.sqrt(np.mean(density * grid**2) - np.mean(density * grid) ** 2) - 0.1) < 1e-4


def test_constant_average():
  """After the warm-up the weights are geometric; during it beta is n / (n + 9)."""
  average = ema.constant(0.9)
  assert float(average.rate(1)) == pytest.approx(0.9)
  assert float(average.rate(81)) == pytest.approx(0.1, rel=1e-6)
  assert float(average.rate(10**6)) == pytest.approx(0.1, rel=1e-6)
  values = np.random.default_rng(0).normal(size=400).astype(np.float32)
  tail = 0.1 * 0.9 ** np.arange(300) @ values[::-1][:300]
  assert abs(track(average, values) - tail) < 1e-6


def test_float32_of_bfloat16_params():
  mean = ema.update(ema.constant(0.999), jnp.ones(3), jnp.full(3, 2, jnp.bfloat16), 10**6)
  assert mean.dtype == jnp.float32
  np.testing.assert_allclose(mean, 1.001, rtol=1e-7)


def test_config_entries():
  assert [a.name for a in ema.averages((0.999, 'power:.05', 'constant:.5'))] == ['0.999', 'power_0.05', '0.5']
  for bad in ((1.0,), ('powr:.1',), ('power:.4',), (0.9, 0.9), ('x',)):
    with pytest.raises(ValueError, match='ema: got .*allowed'):
      ema.averages(bad)
