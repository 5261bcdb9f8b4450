"""Masked editing: where a source is protected, x is the source under one noise at every level."""

from typing import Any

import jax.numpy as jnp
from jax import Array

from diffjax.contracts import Cond, Data, Memory, Time
from diffjax.errors import InputError
from diffjax.guidance.transform import Transform
from diffjax.prediction import Denoise, Pred

__all__ = ['protected']


def protected(denoise: Denoise, source: Any, noise: Any, mask: Any) -> 'Protected':
  """Masked editing: the denoiser sees the noisy source where it is protected, and predicts it there.

  x <- alpha source + sigma noise where the mask is true, and there the pair is (source, noise).   arXiv:2108.01073

  The noise is the same at every step. The pair is that of the new x: run it with `solvers.pair_form(table, process)`,
  or with DDIM; a sample then has the source itself where it is protected. The paper passes three times, each begun from
  the edit before (`solvers.from_source`).

  Args:
    denoise: what is asked for predictions.
    source: (B, ...), the batch first, or 1 for all.
    noise: a standard normal draw in the same shape.
    mask: true where the source is protected; what broadcasts against it.

  Raises:
    InputError: noise of another shape than the source.
  """
  source, noise = jnp.asarray(source), jnp.asarray(noise)
  if source.shape != noise.shape:
    raise InputError(f'noise: got shape {noise.shape}; allowed: that of the source, {source.shape}')
  return Protected(denoise, source, noise, jnp.asarray(mask, bool))


class Protected(Transform):
  """Made by `protected`."""

  source: Array
  noise: Array
  mask: Array

  def __call__(self, x: Data, t: Time, cond: Cond = None, memory: Memory = None) -> Pred:
    source, noise = (jnp.broadcast_to(a, x.shape).astype(x.dtype) for a in (self.source, self.noise))
    kept = self.process.perturb(source, noise, t)
    pred = self.denoise(jnp.where(self.mask, kept, x).astype(x.dtype), t, cond, memory)
    keep = lambda mine, own: jnp.where(self.mask, mine, own).astype(x.dtype)  # noqa: E731
    return pred._replace(x0=keep(self.source, pred.x0), eps=keep(self.noise, pred.eps))
