"""CFG++: guide the denoised point and go back to noise along the unconditional prediction."""

from typing import Any

import jax.numpy as jnp
from jax import Array

from diffjax.contracts import Cond, Data, Memory, Time
from diffjax.guidance.cfg import Free
from diffjax.guidance.transform import as_scale, null_for, value_at
from diffjax.prediction import Denoise, Pred
from diffjax.process import expand, over_time

__all__ = ['cfgpp']


def cfgpp(denoise: Denoise, scale: Any = 0.6, null: Cond = None) -> 'ManifoldGuided':
  """CFG++: guides the denoised point and goes back to noise along the unconditional prediction.

  The pair (u.x0 + scale (c.x0 - u.x0), u.eps), c with the condition and u without.   arXiv:2406.08070 Alg. 2

  Not consistent on purpose: alpha x0 + sigma eps is not x. Run it with `solvers.pair_form(table, process)`; DDIM, which
  is in that form, then takes the paper's step x_s = alpha_s x0 + sigma_s eps. With h = lam_s - lam_t that is `cfg` of
  scale / (1 - e^{-h}), so the effect grows with the number of steps. Scale 0 is the unconditional prediction, and into
  sigma = 0 the step is that of `cfg` of this scale. Costs 2 evaluations of `denoise`.

  Args:
    denoise: what is asked for predictions.
    scale: lambda, published from 0 to 1: a number, one a sample (B,), or a function of t as a pytree.
    null: the condition that means none; the network's own by default.

  Raises:
    InputError: no `null` is given or known, or the network never saw it in training; or (when called) there is no
      condition.
  """
  return ManifoldGuided(denoise, as_scale(scale), null_for(denoise, null))


class ManifoldGuided(Free):
  """Made by `cfgpp`."""

  def __call__(self, x: Data, t: Time, cond: Cond = None, memory: Memory = None) -> Pred:
    c, u, aux = self.pair(x, t, cond, memory)

    def mix(t: Array, c: Array, u: Array) -> Array:
      return (u + expand(value_at(self.scale, jnp.asarray(t)), u) * (c - u)).astype(u.dtype)

    return Pred(over_time(mix, t, c.x0, u.x0), u.eps, aux)
