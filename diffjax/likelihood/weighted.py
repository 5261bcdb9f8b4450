"""The importance-weighted bound of a stochastic sampler."""

from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import Array

from diffjax import keys, labels
from diffjax.contracts import Cond, Data, KeyBatch
from diffjax.dtypes import widened
from diffjax.errors import InputError
from diffjax.likelihood.flow import prior_log_density
from diffjax.likelihood.steps import Steps, laid_out, norm2, reconstruction
from diffjax.prediction import Denoise

__all__ = ['Weighted', 'importance_bound']


class Weighted(NamedTuple):
  """The lower bound of log p(x0) in nats (B,), and how many of its paths count (B,)."""

  log_p: Array
  effective: Array


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
  `bounds.discrete_bound`, whose negative has this mean at one path. Useful in few dimensions: `effective` is
  (sum w)^2 / sum w^2 of the `samples` paths.

  arXiv:1509.00519
  """
  if samples < 1:
    raise InputError(f'samples: got {samples}; allowed: a whole number of at least 1')
  steps, decoder = laid_out(denoise.process, ts, variance, decoder_std, levels)
  labels.check_for(denoise, cond)
  key = keys.per_sample(key, len(x0))
  back = jax.tree.map(lambda leaf: leaf[::-1], steps)
  return _weighted(denoise, widened(x0), key, cond, back, decoder, samples, levels, decoder_std is not None)


@partial(jax.jit, static_argnames=('samples', 'levels', 'network'))
def _weighted(denoise, x0, key, cond, back, decoder, samples, levels, network):
  process = denoise.process
  gauss = lambda off, var: -(norm2(off) / var + off[0].size * jnp.log(2 * jnp.pi * var)) / 2  # noqa: E731

  def path(own: KeyBatch) -> Array:
    z = keys.normal(keys.fold(own, 0), x0)
    x = process.perturb(x0, z, decoder.t)
    sigma = process.schedule(decoder.t)[1]
    log_w = -reconstruction(denoise, x0, x, cond, decoder, levels, network) - gauss(sigma * z, sigma**2)

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
