"""TSDiff's self-guidance: a series model forecasts, fills gaps and refines forecasts by its own predictions."""

from typing import Any

import jax
import jax.numpy as jnp
from jax import Array
from jax.core import Tracer
from jax.tree_util import Partial

from diffjax import keys
from diffjax.contracts import Cond, Time
from diffjax.errors import InputError
from diffjax.guidance.tilt import Tilted, slope_of, tilt
from diffjax.guidance.transform import as_scale, value_at
from diffjax.prediction import Denoise
from diffjax.process import expand

__all__ = ['mean_energy', 'observed_ddpm', 'observed_series', 'quantile_energy', 'refined']

PLACES = ('new', 'old')


def observed_series(
  denoise: Denoise, observed: Array, mask: Array, scale: Any = 1.0, *, quantiles: Array | None = None
) -> Tilted:
  """Self-guidance, DDIM's form: the gradient, through the network, of how far x0_hat is from what was observed.

      eps + scale sigma grad_x E(x0_hat(x))     E by `mean_energy`, or with quantiles by `quantile_energy`

  With quantiles sample i of S has its own, i / (S + 1), so that samples spread as the predictive law does.
  arXiv:2307.11494 Alg. 2

  Args:
    denoise: what is asked for predictions, a model of whole series that was told nothing.
    observed: (B, ...) series, or 1 for all; what it holds where nothing was observed is not read.
    mask: true where it was observed, in the same shape.
    scale: a number, one a sample (B,), or a function of t as a pytree; published 4 to 8, tuned for each data set.
    quantiles: (B,), each between 0 and 1; None is the mean.

  Raises:
    InputError: a mask of another shape, or a quantile outside (0, 1).
  """
  return tilt(denoise, energy_of(observed, mask, quantiles), scale, at='x0')


def observed_ddpm(
  denoise: Denoise,
  observed: Array,
  mask: Array,
  ts: Array,
  x: Array,
  key: Array,
  scale: Any = 1.0,
  *,
  quantiles: Array | None = None,
  at: str = 'new',
  cond: Cond = None,
) -> Array:
  """Self-guidance, DDPM's form: an ancestral step, then the gradient step scale Sigma grad E.

      x_s ~ N(m(x_t), Sigma),    x_s <- x_s - scale Sigma grad E(x0_hat)

  The published code takes the gradient at the *new* state and the *old* time, where the network is asked again: that is
  `at` 'new'. 'old' takes it at x_t.   arXiv:2307.11494 Alg. 1

  Args:
    denoise: as of `observed_series`, like the next two, and `scale` and `quantiles`.
    observed: see there.
    mask: see there.
    ts: (n + 1,) the grid, falling; the step to its end adds no noise and no gradient.
    x: (B, ...) at the first time.
    key: one typed key, or one a sample (B,).
    scale: see there.
    quantiles: see there.
    at: 'new' or 'old'.
    cond: handed to the denoiser.

  Raises:
    InputError: what `observed_series` refuses, or another place.
  """
  if at not in PLACES:
    raise InputError(f'at: got {at!r}; allowed: {", ".join(PLACES)}')
  weight, process, key_batch = energy_of(observed, mask, quantiles), denoise.process, keys.per_sample(key, len(x))
  scale, ts = as_scale(scale), jnp.asarray(ts, jnp.promote_types(x.dtype, jnp.float32))

  def step(x: Array, row: tuple[Array, Array, Array]) -> tuple[Array, None]:
    t, s, i = row
    pred, _, slope = slope_of(denoise, weight, x, t, cond, at='x0')
    mean, std = process.posterior(x, pred.x0, t, s)
    new = (mean + std * keys.normal(keys.fold(key_batch, i), x)).astype(x.dtype)
    if at == 'new':
      slope = slope_of(denoise, weight, new, t, cond, at='x0')[2]
    return (new + expand(value_at(scale, t), x) * std**2 * slope).astype(x.dtype), None

  return jax.lax.scan(step, x, (ts[:-1], ts[1:], jnp.arange(len(ts) - 1)))[0]


def refined(
  denoise: Denoise,
  series: Array,
  key: Array,
  *,
  t: float,
  tie: float = 1.0,
  steps: int = 20,
  rate: float = 0.1,
  pairs: int = 4,
  noise: float = 0.0,
  cond: Cond = None,
) -> Array:
  """Refines series, forecasts of another model say, by the denoising error of this one.

      y <- y - rate grad [ E |eps - eps_hat(alpha y + sigma eps, t)|^2 + tie |y - series|^2 / 2 ] + noise z

  The expectation is over `pairs` of opposite noises, drawn anew each step. On a Gaussian of mean 0 and covariance S it
  is a constant plus sigma^2 alpha^2 y C^{-2} y with C = alpha^2 S + sigma^2 I, exact for any pair; that is not
  the log-density.   arXiv:2307.11494

  Args:
    denoise: what is asked for predictions.
    series: (B, ...) where it begins, and what it is tied to.
    key: one typed key, or one a sample (B,).
    t: the level, in the process's own time; published 20 of 100 steps.
    tie: how strongly.
    steps: published 20.
    rate: published .1.
    pairs: of noises.
    noise: the deviation of noise added each step, for draws instead of a point; published .1 with rate .1.
    cond: handed to the denoiser.

  Raises:
    InputError: a rate that is not positive, or a number of steps or pairs that is none.
  """
  if not (rate > 0 and steps >= 1 and pairs >= 1):
    raise InputError(f'rate, steps, pairs: got {rate}, {steps}, {pairs}; allowed: a positive number, and whole numbers '
                     'of at least 1')  # fmt: skip
  key_batch, process = keys.per_sample(key, len(series)), denoise.process

  def error(y: Array, key_batch: Array) -> Array:
    eps = jnp.stack([keys.normal(keys.fold(key_batch, i), y) for i in range(pairs)])
    eps = jnp.concatenate([eps, -eps])
    told = jax.vmap(lambda e: denoise(process.perturb(y, e, t), jnp.asarray(t), cond).eps)(eps)
    return jnp.sum((eps - told) ** 2) / len(eps) + tie * jnp.sum((y - series) ** 2) / 2

  def step(y: Array, i: Array) -> tuple[Array, None]:
    own, more = keys.split(keys.fold(key_batch, i), 2)
    moved = y - rate * jax.grad(error)(y, own) + noise * keys.normal(more, y)
    return moved.astype(y.dtype), None

  return jax.lax.scan(step, jnp.asarray(series), jnp.arange(steps))[0]


def energy_of(observed: Array, mask: Array, quantiles: Array | None) -> Partial:
  """Minus the energy, (x0, t, cond) -> (B,), its arrays checked."""
  observed, mask = jnp.asarray(observed), jnp.asarray(mask, bool)
  if mask.shape != observed.shape:
    raise InputError(f'mask: got shape {mask.shape}; allowed: that of what was observed, {observed.shape}')
  observed = jnp.where(mask, observed, 0)  # gaps are often NaN
  if quantiles is None:
    return Partial(mean_energy, observed, mask)
  quantiles = jnp.asarray(quantiles, float)
  if not isinstance(quantiles, Tracer) and not ((quantiles > 0) & (quantiles < 1)).all():
    raise InputError(f'quantiles: got {quantiles.min():g} to {quantiles.max():g}; allowed: numbers between 0 and 1')
  return Partial(quantile_energy, observed, mask, quantiles)


def mean_energy(observed: Array, mask: Array, x0: Array, t: Time = None, cond: Cond = None) -> Array:
  """-sum over what was observed of (y - x0)^2, (B,): the log-weight of the mean."""
  return -jnp.sum(jnp.where(mask, (observed - x0) ** 2, 0).reshape(len(x0), -1), -1)


def quantile_energy(
  observed: Array, mask: Array, quantiles: Array, x0: Array, t: Time = None, cond: Cond = None
) -> Array:
  """-sum over what was observed of max(q e, (q - 1) e), e = y - x0, (B,): the log-weight of a quantile q (B,)."""
  e = observed - x0
  q = expand(quantiles, e)
  return -jnp.sum(jnp.where(mask, jnp.maximum(q * e, (q - 1) * e), 0).reshape(len(x0), -1), -1)
