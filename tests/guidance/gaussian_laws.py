"""Gaussians under guidance: where the ODE, the SDE and weighed particles end, without a draw.

Predictions of Gaussian targets are affine in x and weight rates quadratic, so a few points tell each step's law.
"""

import jax
import jax.numpy as jnp
import numpy as np

from diffjax import kinds, schedules
from diffjax.prediction import Denoiser

MEANS, VARIANCES = [1.0, 0.0, -0.6], [0.25, 1.25, 0.8]


def gaussians(params, x, t, cond, key):
  """Exact x0 of N(m, v) of the label on the EDM process, told log(sigma)/4."""
  m, v = params[0][cond], params[1][cond]
  sigma2 = jnp.exp(8 * t)
  return ((v * x[:, 0] + sigma2 * m) / (v + sigma2))[:, None]


def several():
  """The exact denoiser of three Gaussians by label; label 1 stands for no condition."""
  params = jnp.asarray(MEANS), jnp.asarray(VARIANCES)
  return Denoiser(params, schedules.edm(), kinds.x0(), null=1, net=gaussians)


def alone(label):
  """That of one of them, whatever the condition."""
  params = jnp.full(3, MEANS[label]), jnp.full(3, VARIANCES[label])
  return Denoiser(params, schedules.edm(), kinds.x0(), null=1, net=gaussians)


def levels(n):
  """EDM's grid of n noise levels, and 0."""
  return np.append((80 ** (1 / 7) + np.linspace(0, 1, n) * (0.002 ** (1 / 7) - 80 ** (1 / 7))) ** 7, 0.0)


def at_three(denoise, t, of):
  """What `of` says of the predictions at x = -1, 0, 1, (3,), under label 0."""
  return of(denoise(jnp.asarray([[-1.0], [0.0], [1.0]]), t, jnp.zeros(3, jnp.int32)))


def flow(denoise, n):
  """Mean and variance of the probability-flow ODE from N(0, 80^2), by Heun in sigma, Euler into 0."""
  ts = jnp.asarray(levels(n))

  def slope(x, t):
    low, middle, high = at_three(denoise, t, lambda pred: pred.eps[:, 0])
    return middle + (high - low) / 2 * x

  def step(x, ends):
    t, s = ends
    eps = slope(x, t)
    last = s == 0
    again = slope(x + (s - t) * eps, jnp.where(last, t, s))
    return x + (s - t) * jnp.where(last, eps, (eps + again) / 2), None

  low, high = jax.lax.scan(step, jnp.asarray([-80.0, 80.0]), (ts[:-1], ts[1:]))[0]
  return (low + high) / 2, ((high - low) / 2) ** 2


def diffusion(denoise, n, weighed=False):
  """Mean and variance of the reverse SDE in ancestral steps, as particles weighed by the weight rate if asked."""
  ts = jnp.asarray(levels(n))

  def step(law, ends):
    (m, v), (t, s) = law, ends
    low, middle, high = at_three(denoise, t, lambda pred: pred.x0[:, 0])
    k = 1 - s**2 / t**2
    gain = 1 - k + k * (high - low) / 2
    if weighed:  # N(m, v) times exp((t - s) rate): curvature and slope of the exponent
      a, b, c = (t - s) * at_three(denoise, t, lambda pred: pred.aux['weight_rate'])
      new = 1 / (1 / v - (a - 2 * b + c))
      m, v = new * (m / v + (c - a) / 2), new
    return (gain * m + k * middle, gain**2 * v + s**2 * k), None

  return jax.lax.scan(step, (jnp.zeros(()), jnp.asarray(6400.0)), (ts[:-1], ts[1:]))[0]
