"""Adaptive projected guidance: guide across what is predicted, not along it, and not too far."""

from typing import Any

import jax
import jax.numpy as jnp
from jax import Array

from diffjax.contracts import Cond, Data, Memory, Time
from diffjax.dtypes import wide
from diffjax.errors import InputError
from diffjax.guidance.cfg import Free
from diffjax.guidance.rescale import moved_by
from diffjax.guidance.transform import as_scale, null_for, value_at
from diffjax.prediction import Denoise, Pred
from diffjax.process import expand, over_time

__all__ = ['apg']


def apg(
  denoise: Denoise, scale: Any, along: float = 0.0, radius: float = 2.5, momentum: float = -0.75, null: Cond = None
) -> 'Projected':
  """Adaptive projected guidance: of the difference of the two predictions of x0 it takes what is new and not too large.

      m <- (c - u) + momentum m,     d = m min(1, radius / |m|),     d_c = (d.c / |c|^2) c
      x0 = c + (scale - 1) (d - d_c + along d_c)          norms and products over all elements of a sample

  arXiv:2410.02416 Alg. 1

  m is what the sample remembers from one evaluation to the next, 0 before the first. With along = 1, radius = inf and
  momentum = 0 it is `cfg`; with along = 0 data of one dimension stay conditional. Scale 1 is the conditional
  prediction. Costs 2 evaluations of `denoise`.

  Args:
    denoise: what is asked for predictions.
    scale: a number, one a sample (B,), or a function of t as a pytree; 1 outside an interval guides within it alone.
    along: eta, of the part along the prediction itself, which over-saturates images.
    radius: r, in the units of |x0|: published 2.5 for latents of 64 x 64 x 4, 15 for larger ones.
    momentum: beta, below 0; published -.75.
    null: the condition that means none; the network's own by default.

  Raises:
    InputError: a radius that is not positive, |momentum| not below 1, no `null` is given or known, or the network never
      saw it in training; or (when called) there is no condition.
  """
  if not radius > 0:
    raise InputError(f'radius: got {radius}; allowed: a positive number')
  if not abs(momentum) < 1:
    raise InputError(f'momentum: got {momentum}; allowed: between -1 and 1')
  numbers = (jnp.asarray(number, float) for number in (along, radius, momentum))
  return Projected(denoise, as_scale(scale), null_for(denoise, null), *numbers)


class Projected(Free):
  """Made by `apg`; it remembers {'difference': m, 'denoise': what the denoiser remembers}."""

  along: Array
  radius: Array
  momentum: Array

  def __call__(self, x: Data, t: Time, cond: Cond = None, memory: Memory = None) -> Pred:
    before = {'difference': jax.tree.map(jnp.zeros_like, x), 'denoise': None} if memory is None else memory
    c, u, aux = self.pair(x, t, cond, before['denoise'])
    kept = jax.tree.map(lambda c, u, m: c - u + self.momentum.astype(c.dtype) * m, c.x0, u.x0, before['difference'])

    def push(t: Array, m: Array, c: Array) -> Array:
      dtype = wide(c)
      flat, c = (a.reshape(len(a), -1).astype(dtype) for a in (m, c))
      size = jnp.sqrt(jnp.sum(flat**2, 1, keepdims=True) + jnp.finfo(dtype).tiny)
      d = flat * jnp.minimum(1, self.radius / size)
      onto = jnp.sum(d * c, 1, keepdims=True) / jnp.maximum(jnp.sum(c**2, 1, keepdims=True), jnp.finfo(dtype).tiny) * c
      d = (d + (self.along - 1) * onto).reshape(m.shape)
      return (expand(value_at(self.scale, jnp.asarray(t)) - 1, m) * d).astype(m.dtype)

    pred = moved_by(self, c, t, over_time(push, t, kept, c.x0), 'x0')
    after = {'difference': kept, 'denoise': aux.get('memory')}
    return pred._replace(aux=aux | {'conditional': c, 'memory': after})
