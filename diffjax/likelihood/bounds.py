"""Variational bounds on the log-likelihood of a denoiser's stochastic sampler, term by term, in nats an example.

-log p(x0) <= prior + diffusion + reconstruction
prior           KL(q(x_T | x0) || N(0, alpha_T^2 + sigma_T^2))
diffusion       sum over steps t -> s of KL(q(x_s | x_t, x0) || N(mean with the predicted x0, v)), or its limit
reconstruction  -log p(x0 | x at the last time)
"""

from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import Array

from diffjax import keys, labels
from diffjax.contracts import Cond, Data
from diffjax.dtypes import widened
from diffjax.errors import InputError
from diffjax.likelihood.steps import Decoder, Steps, check_levels, laid_out, norm2, reconstruction
from diffjax.losses.times import TimeLaw, uniform
from diffjax.prediction import Denoise
from diffjax.process import Process

__all__ = ['Bound', 'continuous_bound', 'discrete_bound']


class Bound(NamedTuple):
  """The terms of the bound in nats: prior (B,), diffusion (B, steps), reconstruction (B,)."""

  prior: Array
  diffusion: Array
  reconstruction: Array

  @property
  def total(self) -> Array:
    """The upper bound of -log p(x0), (B,)."""
    return self.prior + jnp.sum(self.diffusion, -1) + self.reconstruction


def discrete_bound(
  denoise: Denoise,
  x0: Data,
  ts: Any,
  key: Array,
  cond: Cond = None,
  *,
  variance: Any = 'small',
  decoder_std: float | None = None,
  levels: int | None = None,
) -> Bound:
  """The variational bound of the ancestral sampler on a grid, one fresh noise a step.

  KL(q(x_s | x_t, x0) || N(mu, v)) = (d [log(v / b) + b / v - 1] + |mu_q - mu|^2 / v) / 2, b the posterior variance.

  arXiv:2006.11239 eq. 5, arXiv:2102.09672, arXiv:2107.00630 eq. 13

  Args:
    denoise: what is asked for predictions.
    x0: data (B, ...).
    ts: the times, falling; the data are decoded at the last one, where lam must be finite.
    key: one typed key, or one an example.
    cond: the condition of each example.
    variance: v of each step: 'small', that of the posterior; 'large', that of q(x_t | x_s); or (n,) numbers.
    decoder_std: the deviation of the data about the network's x0 at the last time; None asks no network there: about
      x / alpha, sigma / alpha.
    levels: how many values a component of x0 has, evenly on [-1, 1]; None where it is continuous.

  Raises:
    InputError: a grid that is none or ends in infinite lam, another variance, fewer than two levels, wrong labels.
  """
  steps, decoder = laid_out(denoise.process, ts, variance, decoder_std, levels)
  labels.check_for(denoise, cond)
  return _discrete(denoise, widened(x0), keys.per_sample(key, len(x0)), cond, steps, decoder, levels,
                   decoder_std is not None)  # fmt: skip


def continuous_bound(
  denoise: Denoise,
  x0: Data,
  key: Array,
  cond: Cond = None,
  *,
  samples: int = 16,
  times: TimeLaw | None = None,
  levels: int | None = None,
) -> Bound:
  """The variational bound in continuous time, which depends on the process by its two ends alone.

  diffusion = -int lam'(t) E |eps - eps_hat(x_t)|^2 dt over [t_min, t_max], as `samples` evaluations an example at the
  stratified quantiles of a law of t, each divided by its density; data are decoded at t_min, about x / alpha.

  arXiv:2107.00630 eq. 15 and 18

  Args:
    denoise: what is asked for predictions.
    x0: data (B, ...).
    key: one typed key, or one an example.
    cond: the condition of each example.
    samples: evaluations of an example.
    times: the law of t; None is uniform.
    levels: as of `discrete_bound`.

  Raises:
    InputError: no samples, fewer than two levels, wrong labels.
  """
  if samples < 1:
    raise InputError(f'samples: got {samples}; allowed: a whole number of at least 1')
  check_levels(levels)
  labels.check_for(denoise, cond)
  key = keys.per_sample(key, len(x0))
  return _continuous(denoise, widened(x0), key, cond, times or uniform(), samples, levels)


def _prior(process: Process, x0: Array) -> Array:
  alpha, sigma = process.schedule(process.t_max)
  total = alpha**2 + sigma**2
  return (alpha**2 * norm2(x0) / total + x0[0].size * (sigma**2 / total - 1 - jnp.log(sigma**2 / total))) / 2


@partial(jax.jit, static_argnames=('levels', 'network'))
def _discrete(denoise, x0, key, cond, steps, decoder, levels, network):
  process, d = denoise.process, x0[0].size

  def term(_: None, row: tuple[Array, Steps]) -> tuple[None, Array]:
    i, step = row
    x = process.perturb(x0, keys.normal(keys.fold(key, i), x0), step.t)
    off = step.pull**2 * norm2(widened(denoise(x, step.t, cond).x0) - x0)
    ratio = step.exact / step.model
    return None, (d * (ratio - 1 - jnp.log(ratio)) + off / step.model) / 2

  n = len(steps.t)
  diffusion = jax.lax.scan(term, None, (jnp.arange(n), steps))[1]
  x = process.perturb(x0, keys.normal(keys.fold(key, n), x0), decoder.t)
  last = reconstruction(denoise, x0, x, cond, decoder, levels, network)
  return Bound(_prior(process, x0), diffusion.T, last)


@partial(jax.jit, static_argnames=('samples', 'levels'))
def _continuous(denoise, x0, key, cond, times, samples, levels):
  process = denoise.process
  first = times.uniforms(keys.fold(key, samples))
  edge = jnp.finfo(first.dtype).epsneg

  def term(_: None, i: Array) -> tuple[None, Array]:
    u = jnp.clip((first + i) / samples, edge, 1 - edge)
    t = jnp.clip(times.quantile(process, u), process.t_min, process.t_max)
    eps = keys.normal(keys.fold(key, i), x0)
    error = norm2(widened(denoise(process.perturb(x0, eps, t), t, cond).eps) - eps)
    slope = process.g2(t) / (2 * process.schedule(t)[1] ** 2)  # -lam'
    return None, slope * error / times.density(process, t) / samples

  diffusion = jax.lax.scan(term, None, jnp.arange(samples))[1]
  decoder = Decoder(jnp.asarray(jnp.nan), process.t_min)
  x = process.perturb(x0, keys.normal(keys.fold(key, samples + 1), x0), process.t_min)
  last = reconstruction(denoise, x0, x, cond, decoder, levels, network=False)
  return Bound(_prior(process, x0), diffusion.T, last)
