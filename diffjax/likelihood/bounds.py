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
import numpy as np
from jax import Array

from diffjax import keys, labels
from diffjax.contracts import Cond, Data, KeyBatch
from diffjax.dtypes import widened
from diffjax.errors import InputError
from diffjax.likelihood.decoders import decoded
from diffjax.likelihood.flow import prior_log_density
from diffjax.losses.times import TimeLaw, uniform
from diffjax.noise_levels import on_grid
from diffjax.prediction import Denoise
from diffjax.process import Process

__all__ = ['Bound', 'Weighted', 'continuous_bound', 'discrete_bound', 'importance_bound']


class Bound(NamedTuple):
  """The terms of the bound in nats: prior (B,), diffusion (B, steps), reconstruction (B,)."""

  prior: Array
  diffusion: Array
  reconstruction: Array

  @property
  def total(self) -> Array:
    """The upper bound of -log p(x0), (B,)."""
    return self.prior + jnp.sum(self.diffusion, -1) + self.reconstruction


class Weighted(NamedTuple):
  """The lower bound of log p(x0) in nats (B,), and how many of its paths count (B,)."""

  log_p: Array
  effective: Array


class Steps(NamedTuple):
  """The steps t -> s of a grid, (n,) each: times, levels at s, the pull of x0, the variances of q and of the model."""

  t: Array
  s: Array
  pull: Array
  keep: Array
  exact: Array
  model: Array


class Decoder(NamedTuple):
  """The deviation of the data about the network's x0, or nan about x / alpha; and the last time."""

  std: Array
  t: Array


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
  steps, decoder = _checked(denoise.process, ts, variance, decoder_std, levels)
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
  _check_levels(levels)
  labels.check_for(denoise, cond)
  key = keys.per_sample(key, len(x0))
  return _continuous(denoise, widened(x0), key, cond, times or uniform(), samples, levels)


def importance_bound(
  denoise: Denoise,
  x0: Data,
  ts: Any,
  key: Array,
  cond: Cond = None,
  *,
  samples: int = 16,
  variance: Any = 'small',
  decoder_std: float | None = None,
  levels: int | None = None,
) -> Weighted:
  """The importance-weighted bound of the ancestral sampler, which grows with the paths to log p(x0).

  log mean over paths x_1..x_T ~ q of p(x_T) prod p(x_s | x_t) p(x0 | x_1) / prod q(x_t | x_s); arguments and errors as
  `discrete_bound`, whose negative has this mean at one path. Useful in few dimensions: `effective` is
  (sum w)^2 / sum w^2 of the `samples` paths.

  arXiv:1509.00519
  """
  if samples < 1:
    raise InputError(f'samples: got {samples}; allowed: a whole number of at least 1')
  steps, decoder = _checked(denoise.process, ts, variance, decoder_std, levels)
  labels.check_for(denoise, cond)
  key = keys.per_sample(key, len(x0))
  back = jax.tree.map(lambda leaf: leaf[::-1], steps)
  return _weighted(denoise, widened(x0), key, cond, back, decoder, samples, levels, decoder_std is not None)


def _checked(
  process: Process, ts: Any, variance: Any, decoder_std: float | None, levels: int | None
) -> tuple[Steps, Decoder]:
  """The steps of a grid, and how its end is decoded."""
  grid = on_grid(process, ts)
  if not np.isfinite(grid.lam[-1]):
    raise InputError(f'ts: got {grid.ts[-1]:g} at the end, of infinite lam; allowed: a later time')
  if decoder_std is not None and not decoder_std > 0:
    raise InputError(f'decoder_std: got {decoder_std}; allowed: a positive number, or None')
  _check_levels(levels)
  alpha, sigma = grid.alpha[1:], grid.sigma[1:]
  gap = grid.lam[1:] - grid.lam[:-1]
  new = -np.expm1(-2 * gap)  # the share of the noise at s that is drawn anew
  exact, large = sigma**2 * new, grid.sigma[:-1] ** 2 * new
  if isinstance(variance, str):
    if variance not in ('small', 'large'):
      raise InputError(f'variance: got {variance!r}; allowed: small, large, or numbers ({len(exact)},)')
    model = exact if variance == 'small' else large
  else:
    model = np.asarray(variance, np.float64)
    if model.shape != exact.shape or not (model > 0).all():
      raise InputError(f'variance: got shape {model.shape}; allowed: positive numbers, shape {exact.shape}')
  keep = sigma / grid.sigma[:-1] * np.exp(-gap)
  steps = Steps(*(jnp.asarray(v, float) for v in (grid.ts[:-1], grid.ts[1:], alpha * new, keep, exact, model)))
  std = np.nan if decoder_std is None else decoder_std
  return steps, Decoder(jnp.asarray(std, float), jnp.asarray(grid.ts[-1], float))


def _check_levels(levels: int | None) -> None:
  if levels is not None and levels < 2:
    raise InputError(f'levels: got {levels}; allowed: a whole number of at least 2, or None')


def _norm2(x: Array) -> Array:
  return jnp.sum(x.reshape(len(x), -1) ** 2, axis=-1)


def _prior(process: Process, x0: Array) -> Array:
  alpha, sigma = process.schedule(process.t_max)
  total = alpha**2 + sigma**2
  return (alpha**2 * _norm2(x0) / total + x0[0].size * (sigma**2 / total - 1 - jnp.log(sigma**2 / total))) / 2


def _reconstruction(
  denoise: Denoise, x0: Array, x: Array, cond: Cond, decoder: Decoder, levels: int | None, network: bool
) -> Array:
  """-log p(x0 | x), x at the decoder's time."""
  alpha, sigma = denoise.process.schedule(decoder.t)
  if network:
    mean, std = widened(denoise(x, decoder.t, cond).x0), decoder.std
  else:
    mean, std = x / alpha, sigma / alpha
  return -decoded(x0, mean, std, levels, network)


@partial(jax.jit, static_argnames=('levels', 'network'))
def _discrete(denoise, x0, key, cond, steps, decoder, levels, network):
  process, d = denoise.process, x0[0].size

  def term(_: None, row: tuple[Array, Steps]) -> tuple[None, Array]:
    i, step = row
    x = process.perturb(x0, keys.normal(keys.fold(key, i), x0), step.t)
    off = step.pull**2 * _norm2(widened(denoise(x, step.t, cond).x0) - x0)
    ratio = step.exact / step.model
    return None, (d * (ratio - 1 - jnp.log(ratio)) + off / step.model) / 2

  n = len(steps.t)
  diffusion = jax.lax.scan(term, None, (jnp.arange(n), steps))[1]
  x = process.perturb(x0, keys.normal(keys.fold(key, n), x0), decoder.t)
  last = _reconstruction(denoise, x0, x, cond, decoder, levels, network)
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
    error = _norm2(widened(denoise(process.perturb(x0, eps, t), t, cond).eps) - eps)
    slope = process.g2(t) / (2 * process.schedule(t)[1] ** 2)  # -lam'
    return None, slope * error / times.density(process, t) / samples

  diffusion = jax.lax.scan(term, None, jnp.arange(samples))[1]
  decoder = Decoder(jnp.asarray(jnp.nan), process.t_min)
  x = process.perturb(x0, keys.normal(keys.fold(key, samples + 1), x0), process.t_min)
  last = _reconstruction(denoise, x0, x, cond, decoder, levels, network=False)
  return Bound(_prior(process, x0), diffusion.T, last)


@partial(jax.jit, static_argnames=('samples', 'levels', 'network'))
def _weighted(denoise, x0, key, cond, back, decoder, samples, levels, network):
  process = denoise.process
  gauss = lambda off, var: -(_norm2(off) / var + off[0].size * jnp.log(2 * jnp.pi * var)) / 2  # noqa: E731

  def path(own: KeyBatch) -> Array:
    z = keys.normal(keys.fold(own, 0), x0)
    x = process.perturb(x0, z, decoder.t)
    sigma = process.schedule(decoder.t)[1]
    log_w = -_reconstruction(denoise, x0, x, cond, decoder, levels, network) - gauss(sigma * z, sigma**2)

    def forward(carry: tuple[Array, Array], row: tuple[Array, Steps]) -> tuple[tuple[Array, Array], None]:
      (x, log_w), (i, step) = carry, row
      # q(x_t | x_s), whose variance belongs to the posterior's as the noise at t does to that at s
      ratio = process.schedule(step.t)[0] / process.schedule(step.s)[0]
      var = step.exact * (process.schedule(step.t)[1] / process.schedule(step.s)[1]) ** 2
      z = keys.normal(keys.fold(own, i + 1), x)
      later = ratio * x + jnp.sqrt(var) * z
      mean = step.pull * widened(denoise(later, step.t, cond).x0) + step.keep * later
      gain = gauss(x - mean, step.model) - gauss(jnp.sqrt(var) * z, var)
      return (later, log_w + gain), None

    rows = (jnp.arange(len(back.t)), back)
    (x, log_w), _ = jax.lax.scan(forward, (x, log_w), rows)
    return log_w + prior_log_density(process, x)

  log_w = jax.lax.map(lambda i: path(keys.fold(key, i)), jnp.arange(samples))
  log_p = jax.nn.logsumexp(log_w, axis=0) - jnp.log(samples)
  return Weighted(log_p, jnp.exp(2 * (log_p + jnp.log(samples)) - jax.nn.logsumexp(2 * log_w, axis=0)))
