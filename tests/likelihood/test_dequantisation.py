"""Variational dequantisation of a Gaussian whose bins are wide: its bound lies between the uniform one and the mass."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.optimize import minimize
from scipy.special import log_expit, logit
from scipy.stats import norm

from diffjax import keys
from diffjax.errors import InputError
from diffjax.likelihood import dequantised, dequantised_bound, dequantiser, fit_dequantiser, in_bits

LEVELS, WIDTH, MEAN, STD = 5, 0.5, 0.1, 0.2  # a deviation of .4 of a bin
STEPS = 40
VALUES = np.linspace(-1, 1, LEVELS)
MASS = np.diff(norm.cdf(np.append(VALUES - WIDTH / 2, 1 + WIDTH / 2), MEAN, STD))
P = MASS / MASS.sum()
CELLS = (np.arange(1000) + 0.5) / 1000  # of a uniform variable


def log_density(y, key_batch):
  return jax.scipy.stats.norm.logpdf(y[..., 0], MEAN, STD)


def gap(value, mass, shift, log_scale):
  """Nats of log-mass that q of these parameters loses, by quadrature over the quantiles of its logistic."""
  drawn = logit(CELLS)
  y = shift + np.exp(log_scale) * drawn
  slope = lambda z: log_expit(z) + log_expit(-z)  # noqa: E731
  point = value + WIDTH * (1 / (1 + np.exp(-y)) - 0.5)
  log_q = slope(drawn) - log_scale - slope(y)
  return np.log(mass) - np.mean(norm.logpdf(point, MEAN, STD) - log_q + np.log(WIDTH))


def mean_gap(q):
  """Of a dequantiser, in expectation over the data, by 4096 draws a value with one standard error."""
  x = jnp.repeat(jnp.asarray(VALUES, jnp.float32), 4096)[:, None]
  bound = np.asarray(jax.jit(dequantised_bound, static_argnums=1)(q, log_density, x, jax.random.key(5)), np.float64)
  each = np.log(MASS)[:, None] - bound.reshape(LEVELS, -1)
  return P @ each.mean(1), np.sqrt(P**2 @ each.var(1) / each.shape[1])


def test_the_learned_bound_lies_between_the_uniform_one_and_the_mass():
  """Untrained it is the uniform bound (4 errors); trained within .01 nats of the family's best; the gap shrinks."""
  uniform = P @ [gap(v, m, 0, 0) for v, m in zip(VALUES, MASS, strict=True)]
  best = P @ [minimize(lambda p, v=v, m=m: gap(v, m, *p), (0, 0)).fun for v, m in zip(VALUES, MASS, strict=True)]
  assert 0 < best < uniform / 5
  x = jnp.asarray(np.random.default_rng(0).choice(VALUES, (4096, 1), p=P), jnp.float32)
  q, gaps = dequantiser(jax.random.key(0), (1,), LEVELS), []
  for stage in range(8):
    if stage in (0, 1):
      gaps.append(mean_gap(q))
    q, bounds = fit_dequantiser(q, log_density, x, jax.random.key(stage), steps=STEPS)
  gaps.append(mean_gap(q))
  assert abs(gaps[0][0] - uniform) <= 4 * gaps[0][1], (gaps, uniform)
  assert gaps[0][0] > gaps[1][0] > gaps[2][0] > 0, gaps
  assert best - 4 * gaps[2][1] <= gaps[2][0] <= best + 0.01, (gaps, best)
  assert bounds.shape == (STEPS,) and abs(bounds.mean() - (P @ np.log(MASS) - gaps[2][0])) <= 0.1


def test_log_q_is_the_density_of_the_noise_and_fresh_noise_is_uniform():
  """E 1 / q = 1 in every bin, for parameters far from the first; log q of a fresh one is 0."""
  key = keys.per_sample(jax.random.key(2), 20000)
  x = jnp.tile(jnp.asarray([[0.5, -1.0]]), (20000, 1))
  fresh = dequantiser(jax.random.key(0), (2,), LEVELS)
  points, log_q = fresh(key, x)
  np.testing.assert_allclose(log_q, 0, atol=1e-5)
  assert (abs(points - x) <= WIDTH / 2).all()
  spread, expected = np.asarray(points - x).var(0), np.asarray(dequantised(key, x, LEVELS) - x).var(0)
  np.testing.assert_allclose(spread, WIDTH**2 / 12, rtol=0.04)  # 4 errors are .025
  np.testing.assert_allclose(expected, WIDTH**2 / 12, rtol=0.04)
  far = fresh.replace(params=fresh.params | {'bias': jnp.asarray([0.5, -0.4, 0.2, 0.3])})
  points, log_q = far(key, x)
  each = np.exp(-np.asarray(log_q, np.float64))
  assert abs(each.mean() - 1) <= 4 * each.std() / np.sqrt(len(each)) < 0.2
  assert (abs(points - x) <= WIDTH / 2).all()


def test_bits_need_no_width():
  """A uniform density on the bins has log P = -d log levels: log2 levels bits a dimension, whatever the draws."""
  d, x = 3, jnp.zeros((2, 3))
  flat = lambda y, key_batch: jnp.full(len(y), -d * np.log(LEVELS * WIDTH))  # noqa: E731
  bound = dequantised_bound(dequantiser(jax.random.key(0), (d,), LEVELS), flat, x, jax.random.key(0), samples=2)
  np.testing.assert_allclose(in_bits(bound, d), np.log2(LEVELS), rtol=1e-5)


def test_bad_input_is_refused():
  q = dequantiser(jax.random.key(0), (1,), LEVELS)
  with pytest.raises(InputError, match='levels: got 1'):
    dequantiser(jax.random.key(0), (1,), 1)
  with pytest.raises(InputError, match='hidden: got 0'):
    dequantiser(jax.random.key(0), (1,), LEVELS, hidden=0)
  with pytest.raises(InputError, match='samples: got 0'):
    dequantised_bound(q, log_density, jnp.zeros((2, 1)), jax.random.key(0), samples=0)
  with pytest.raises(InputError, match='steps: got 0'):
    fit_dequantiser(q, log_density, jnp.zeros((2, 1)), jax.random.key(0), steps=0)
