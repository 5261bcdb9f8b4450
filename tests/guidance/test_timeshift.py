"""Time shift: which time it finds and how well it can, what it leaves alone, what it costs a perfect network."""

import jax.numpy as jnp
import numpy as np
import pytest

from diffjax import noise_levels, schedules, solvers
from diffjax.guidance import cost, time_shift
from diffjax.prediction import as_denoiser
from diffjax.solvers import grids, pair_form, sample

PROCESS = schedules.vp_linear()
C2 = 0.01  # variance of the data
STEP = 1e-3  # of 1000


def ball(x, t, cond):
  """Exact x0 of N(0, .01 I), at per-sample t."""
  alpha, sigma = PROCESS.schedule(t)
  return (alpha * C2 / (alpha**2 * C2 + sigma**2))[:, None] * x


DENOISE = as_denoiser(ball, PROCESS)


def draws(t, n, d, c2=C2, seed=0):
  alpha, sigma, _ = (part[0] for part in noise_levels.at(PROCESS, [t]))
  return np.float32(np.sqrt(alpha**2 * c2 + sigma**2)) * np.random.default_rng(seed).standard_normal((n, d), np.float32)


def test_the_window_is_searched_for_sigma():
  """sigma(t_s)^2 = var(x) inside the window, its nearer end otherwise."""
  x = draws(0.5, 64, 256)
  shifted = time_shift(DENOISE, 0.3, 0.1)
  got = np.asarray(shifted.times(x, 0.5), np.float64)
  inside = (got > 0.351) & (got < 0.649)
  assert inside.sum() > 32
  sigma = noise_levels.at(PROCESS, got)[1]
  np.testing.assert_allclose(sigma[inside] ** 2, x[inside].var(1), rtol=1e-4)
  np.testing.assert_allclose(shifted.times(100 * x, 0.5), 0.65, rtol=1e-6)
  np.testing.assert_allclose(shifted.times(0 * x, jnp.linspace(0.2, 0.8, 64)), np.linspace(0.05, 0.65, 64), rtol=1e-5)
  np.testing.assert_allclose(shifted.times(100 * x, 0.95), 1.0)


@pytest.mark.parametrize('d', [256, 4096])
def test_how_well_it_finds_the_time(d):
  """t_s - t has deviation sqrt(2 / d) v / v', v = alpha^2 c^2 + sigma^2 and v' of sigma^2, and bias alpha^2 c^2 / v'.

  To 15% and a fifth of the deviation, with 2000 samples: by the variance's own sampling error.
  """
  t, n = 0.1, 2000
  x = draws(t, n, d)
  alpha, sigma = (float(part) for part in PROCESS.schedule(jnp.asarray(t)))
  slope = 2 * sigma * float(PROCESS.rates(t)[1])
  std = np.sqrt(2 / d) * (alpha**2 * C2 + sigma**2) / slope
  gap = np.asarray(time_shift(DENOISE, 0.15, 0.01).times(x, t), np.float64) - t
  assert gap.std() == pytest.approx(std, rel=0.15)
  assert gap.mean() == pytest.approx(alpha**2 * C2 / slope, abs=0.2 * std)


def test_it_recovers_a_mislabelled_time():
  """x from t + 8 steps of 1000 labelled t, w = 40: within 2 steps for 95%, once sqrt(2 / d) v / v' is below 1 step.

  At d = 256 that deviation is 5 to 20 steps and nothing could; here it is .4, as for large images, and c^2 = .001.
  """
  t = 0.2
  x = draws(t + 8 * STEP, 40, 2**17, c2=1e-3)
  found = np.asarray(time_shift(DENOISE, 40 * STEP, 0.1).times(x, t), np.float64)
  assert np.mean(np.abs(found - (t + 8 * STEP)) <= 2 * STEP) >= 0.95


def test_what_it_leaves_alone():
  """No window, t at or below the cutoff, and t_max: the denoiser itself, bit for bit."""
  x = draws(0.5, 6, 16)
  for t, window, cutoff in ((0.5, 0.0, 0.0), (5e-4, 0.0, 0.0), (0.3, 0.2, 0.3), (1.0, 0.4, 0.1)):
    times = jnp.full(6, t)
    want = DENOISE(x, times)
    for shift in ('source', 'net_only'):
      got = time_shift(DENOISE, window, cutoff, shift)(x, jnp.float32(t))
      np.testing.assert_array_equal(got.x0, want.x0)
      np.testing.assert_array_equal(got.eps, want.eps)
  assert cost(time_shift(DENOISE, 0.1, 0.1), 0.5) == 1


def test_what_each_shift_returns():
  x, t = 1.05 * draws(0.5, 6, 16), 0.5
  source, net_only = (time_shift(DENOISE, 0.1, 0.1, shift) for shift in ('source', 'net_only'))
  times = source.times(x, t)
  assert np.all(np.asarray(times) != t)
  want = DENOISE(x, times)
  got = source(x, t)
  np.testing.assert_allclose(got.x0, want.x0, rtol=1e-6)
  np.testing.assert_allclose(got.eps, want.eps, rtol=1e-6)
  np.testing.assert_allclose(PROCESS.perturb(got.x0, got.eps, times), x, atol=1e-5)
  got = net_only(x, t)
  np.testing.assert_allclose(got.eps, want.eps, rtol=1e-6)
  np.testing.assert_allclose(PROCESS.perturb(got.x0, got.eps, t), x, atol=1e-5)
  half = net_only(x.astype(jnp.bfloat16), jnp.float32(t))
  assert half.x0.dtype == half.eps.dtype == jnp.bfloat16


def test_modalities_have_times_of_their_own():
  x = {'a': draws(0.5, 6, 16), 'b': draws(0.52, 6, 64, seed=1)}
  times = time_shift(DENOISE, 0.1, 0.1).times(x, {'a': 0.5, 'b': 0.5})
  for name in x:
    alone = time_shift(DENOISE, 0.1, 0.1).times(x[name], 0.5)
    np.testing.assert_array_equal(times[name], alone)


@pytest.mark.parametrize('shift', ['source', 'net_only'])
def test_a_perfect_network_is_hardly_disturbed(shift):
  """20 DDIM steps on N(0, .01 I), d = 256, w = 40 steps and cutoff 200: the spread moves by at most 5%."""
  table = pair_form(solvers.ddim(PROCESS, grids.uniform(PROCESS, 20)), PROCESS)
  x = np.random.default_rng(0).standard_normal((64, 256)).astype(np.float32)
  base, got = (sample(d, table, x) for d in (DENOISE, time_shift(DENOISE, 40 * STEP, 200 * STEP, shift)))
  assert float(np.std(got)) == pytest.approx(float(np.std(base)), rel=0.05)
  assert not np.allclose(got, base, rtol=1e-3)


def test_refusals():
  for options, message in (
    ({'window': -0.1, 'cutoff': 0.1}, 'window: got -0.1; allowed: a number of at least 0'),
    ({'window': 0.1, 'cutoff': -0.1}, 'cutoff: got -0.1; allowed'),
    ({'window': 0.1, 'cutoff': 0.1, 'shift': 'target'}, "shift: got 'target'; allowed: source, net_only"),
  ):
    with pytest.raises(ValueError, match=message):
      time_shift(DENOISE, **options)
