"""Plug & Play generative networks: Langevin steps at one noise level, by a denoiser and what shall be seen."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array

from diffjax import keys
from diffjax.contracts import Cond
from diffjax.errors import InputError
from diffjax.guidance.transform import as_scale
from diffjax.prediction import Denoise
from diffjax.process import expand

__all__ = ['plug_and_play']


def plug_and_play(
  denoise: Denoise,
  log_weight: Callable,
  x: Array,
  key: Array,
  t: float,
  *,
  steps: int = 200,
  rate: float = 0.1,
  gain: float | None = None,
  noise: float | None = None,
  ascent: float | None = None,
  cond: Cond = None,
) -> Array:
  """Plug & Play: steps by a denoising autoencoder, the gradient of a log-weight r and noise, at one level.

      d = rate (x0_hat - x) + gain grad r(x) + noise z,      x <- x + d

  x is a noisy image over alpha, of level s = sigma / alpha, whose score is (x0_hat - x) / s^2. With gain = rate s^2
  and noise = sqrt(2 rate) s, the defaults, that is Langevin sampling of p_s e^r, p_s the data under noise s; its
  variance is too large by 1 / (1 - rate h s^2 / 2) on a Gaussian of precision h.   arXiv:1612.00005

  The published sampler has noise 1e-17 and divides d by its mean size: with `ascent` the step is ascent d / mean |d|,
  a normalised ascent to one picture instead of draws.

  Args:
    denoise: what is asked for predictions; R in the paper.
    log_weight: r, (x, t, cond) -> (B,), of the noisy image over alpha; log p(class | image), say.
    x: where chains begin, (B, ...), of the data's size.
    key: one typed key, or one a sample (B,).
    t: the level, in the process's own time.
    steps: of each chain.
    rate: e1, below 1.
    gain: e2.
    noise: e3.
    ascent: of normalised ascent; None for Langevin.
    cond: handed to both.

  Returns:
    The ends of the chains, (B, ...), still with noise s on them; `denoise(alpha x, t).x0` takes it off.

  Raises:
    InputError: a rate outside (0, 1), a number of steps that is none, or alpha = 0 at this time.
  """
  alpha, sigma = (float(c) for c in denoise.process.schedule(jnp.asarray(t, float)))
  if not 0 < rate < 1 or steps < 1:
    raise InputError(f'rate, steps: got {rate}, {steps}; allowed: between 0 and 1, and a whole number of at least 1')
  if not (alpha > 0 and sigma > 0):
    raise InputError(f't: got {t:g}, where alpha = {alpha:g}, sigma = {sigma:g}; allowed: a time where both are there')
  level = sigma / alpha
  gain = rate * level**2 if gain is None else gain
  noise = (2 * rate) ** 0.5 * level if noise is None else noise
  numbers = jnp.asarray([t, alpha, rate, gain, noise, 0.0 if ascent is None else ascent], float)
  return _chains(
    denoise, as_scale(log_weight), x, keys.per_sample(key, len(x)), numbers, steps, ascent is not None, cond
  )


def _run(
  denoise: Any, log_weight: Any, x: Array, key_batch: Array, numbers: Array, steps: int, normalised: bool, cond: Cond
) -> Array:
  t, alpha, rate, gain, noise, ascent = numbers.astype(jnp.promote_types(x.dtype, jnp.float32))
  times = jnp.broadcast_to(t, x.shape[:1])

  def step(x: Array, i: Array) -> tuple[Array, None]:
    rise = jax.grad(lambda x: jnp.sum(log_weight(x, times, cond)))(x)
    z = keys.normal(keys.fold(key_batch, i), x)
    d = rate * (denoise(alpha * x, t, cond).x0 - x) + gain * rise + noise * z
    if normalised:
      size = jnp.mean(jnp.abs(d).reshape(len(d), -1), -1)
      d = d * expand(ascent / jnp.maximum(size, 1e-12), d)
    return (x + d).astype(x.dtype), None

  return jax.lax.scan(step, x, jnp.arange(steps))[0]


_chains = jax.jit(_run, static_argnums=(5, 6))
