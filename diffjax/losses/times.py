"""Laws of the training time t on [t_min, t_max], each known by its quantile function and its density.

A law is a pytree, (process, keys) -> t (B,), with `law.density(process, t)`; its numbers are leaves. `__all__` lists
what a config may name.
"""

import jax.numpy as jnp
from flax import struct
from jax import Array
from jax.scipy.stats import norm
from jax.tree_util import Partial

from diffjax import keys
from diffjax.contracts import KeyBatch
from diffjax.errors import InputError
from diffjax.process import Process
from diffjax.pytree import PyTree

__all__ = ['uniform', 'logit_normal', 'lognormal', 'stratified']

Number = float | Array


class TimeLaw(PyTree):
  """A law of t: draws are quantiles of one uniform a sample, so sample k never depends on its batch.

  Attributes:
    quantile: (process, u) -> t for u in (0, 1).
    form: (process, t) -> the density of t on [t_min, t_max].
    batch_coupled: the uniforms of a batch are one draw, moved on by 1/B from sample to sample.
  """

  quantile: Partial
  form: Partial
  batch_coupled: bool = struct.field(pytree_node=False, default=False)

  def __call__(self, process: Process, key_batch: KeyBatch) -> Array:
    """One time a key, (B,), within [t_min, t_max]."""
    u = self.uniforms(key_batch)
    edge = jnp.finfo(u.dtype).epsneg
    return jnp.clip(self.quantile(process, jnp.clip(u, edge, 1 - edge)), process.t_min, process.t_max)

  def uniforms(self, key_batch: KeyBatch) -> Array:
    """What times are quantiles of, (B,) on [0, 1)."""
    u = keys.uniform(key_batch)
    return (u[0] + jnp.arange(u.size) / u.size) % 1 if self.batch_coupled else u

  def density(self, process: Process, t: Array) -> Array:
    """The density p(t), the shape of t; it integrates to one over [t_min, t_max]."""
    return self.form(process, t)


def uniform() -> TimeLaw:
  """Uniform on [t_min, t_max]."""
  return TimeLaw(Partial(_uniform), Partial(_uniform_density))


def _uniform(process: Process, u: Array) -> Array:
  return process.t_min + u * (process.t_max - process.t_min)


def _uniform_density(process: Process, t: Array) -> Array:
  return jnp.ones_like(t) / (process.t_max - process.t_min)


def logit_normal(mean: Number = 0.0, std: Number = 1.0) -> TimeLaw:
  """The logit-normal law of time, which favours the middle.

  logit r ~ N(mean, std^2) for r = (t - t_min) / (t_max - t_min); larger means train on more noise.

  p(t) = exp(-(logit r - mean)^2 / 2 std^2) / (std sqrt(2 pi) r (1 - r) (t_max - t_min)).   arXiv:2403.03206 sec. 3.1
  """
  return TimeLaw(*_both(_logit_normal, _logit_normal_density, mean, std))


def _logit_normal(mean: Array, std: Array, process: Process, u: Array) -> Array:
  r = 1 / (1 + jnp.exp(-(mean + std * norm.ppf(u))))
  return _uniform(process, r)


def _logit_normal_density(mean: Array, std: Array, process: Process, t: Array) -> Array:
  span = process.t_max - process.t_min
  edge = jnp.finfo(t.dtype).eps
  r = jnp.clip((t - process.t_min) / span, edge, 1 - edge)
  return norm.pdf(jnp.log(r) - jnp.log1p(-r), mean, std) / (r * (1 - r) * span)


def lognormal(mean: Number = -1.2, std: Number = 1.2) -> TimeLaw:
  """EDM's lognormal law of noise levels, on any process.

  ln(sigma/alpha) ~ N(mean, std^2), cut off at [t_min, t_max]: EDM's law of noise levels, on any process.

  p(t) = N(-lam(t); mean, std^2) |lam'(t)| / (mass between -lam(t_min) and -lam(t_max)).   arXiv:2206.00364 tab. 1
  """
  return TimeLaw(*_both(_lognormal, _lognormal_density, mean, std))


def _cut(mean: Array, std: Array, process: Process) -> tuple[Array, Array]:
  """The normal distribution function at both ends."""
  return norm.cdf(-process.lam(process.t_min), mean, std), norm.cdf(-process.lam(process.t_max), mean, std)


def _lognormal(mean: Array, std: Array, process: Process, u: Array) -> Array:
  low, high = _cut(mean, std, process)
  return process.lam_inverse(-mean - std * norm.ppf(low + u * (high - low)))


def _lognormal_density(mean: Array, std: Array, process: Process, t: Array) -> Array:
  low, high = _cut(mean, std, process)
  t = jnp.minimum(t, process.t_max * (1 - jnp.finfo(t.dtype).eps))  # its limit where alpha(t_max) = 0 and lam' = -inf
  slope = process.g2(t) / (2 * process.schedule(t)[1] ** 2)  # -lam'
  return norm.pdf(-process.lam(t), mean, std) * slope / (high - low)


def stratified(law: TimeLaw | None = None) -> TimeLaw:
  """Couples the times of a batch so that they cover the law evenly.

  `law` (uniform) at the low-discrepancy quantiles (u + i/B) mod 1, u one draw a batch.   arXiv:2107.00630 app. I.1

  Each t still has the law's density, but the times of a batch are coupled: sample k then depends on its batch.
  """
  return (uniform() if law is None else law).replace(batch_coupled=True)


def _both(quantile, density, mean: Number, std: Number) -> tuple[Partial, Partial]:
  if not jnp.all(jnp.asarray(std) > 0):
    raise InputError(f'std: got {std}; allowed: a positive number')
  numbers = jnp.asarray(mean, float), jnp.asarray(std, float)
  return Partial(quantile, *numbers), Partial(density, *numbers)
