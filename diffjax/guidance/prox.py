"""The proximal step: the predicted x0 is moved along the gradient of a log-weight, without asking the network again."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from flax import struct
from jax import Array

from diffjax.contracts import Cond, Data, Memory, Time
from diffjax.errors import InputError
from diffjax.guidance.transform import Transform, as_scale, cost, value_at
from diffjax.prediction import Denoise, Pred, complete
from diffjax.process import expand, over_time

__all__ = ['prox']


def prox(
  denoise: Denoise, log_weight: Callable, rate: Any, *, steps: int = 5, spread: Any = None, price: int = 0
) -> 'Proximal':
  """Moves the predicted x0 by gradient steps on a log-weight r of it; the noise follows, so the pair is consistent.

      z <- z + rate grad r(z)                              without a spread v, `steps` times from z = x0_hat
      z <- z + rate [v grad r(z) - (z - x0_hat)]           with one: to argmax r(z) - |z - x0_hat|^2 / 2 v

  With v the variance of x0 given x_t, a Gaussian's, and steps enough, that is the mean given what r observes. No
  gradient goes through the denoiser. With a spread it converges for rate (1 + v L) < 2, L the curvature of r.

  Args:
    denoise: what is asked for predictions.
    log_weight: r, (x0, t, cond) -> (B,), as of `guidance.tilt`.
    rate: the step: a number, one a sample (B,), or a function of t as a pytree.
    steps: how many.
    spread: v, in the same forms; None ties z to nothing but its start.
    price: evaluations that r and its gradient count as, each step: 1 for a network, 0 in closed form.

  Raises:
    InputError: a number of steps that is none.
  """
  if not (isinstance(steps, int) and steps >= 1):
    raise InputError(f'steps: got {steps}; allowed: a whole number of at least 1')
  tie = None if spread is None else as_scale(spread)
  return Proximal(denoise, as_scale(log_weight), as_scale(rate), tie, steps=steps, price=price)


class Proximal(Transform):
  """Made by `prox`."""

  log_weight: Any
  rate: Any
  spread: Any
  steps: int = struct.field(pytree_node=False, kw_only=True)
  price: int = struct.field(pytree_node=False, kw_only=True)

  def __call__(self, x: Data, t: Time, cond: Cond = None, memory: Memory = None) -> Pred:
    pred = self.denoise(x, t, cond, memory)
    size = jax.tree.leaves(x)[0].shape[0]
    times = jax.tree.map(lambda t: jnp.broadcast_to(jnp.asarray(t), (size,)), t)
    rise = jax.grad(lambda z: jnp.sum(self.log_weight(z, times, cond)))

    def move(t: Array, z: Array, slope: Array, start: Array) -> Array:
      if self.spread is not None:
        slope = expand(value_at(self.spread, t), z) * slope - (z - start)
      return (z + expand(value_at(self.rate, t), z) * slope).astype(z.dtype)

    x0 = jax.lax.fori_loop(0, self.steps, lambda _, z: over_time(move, t, z, rise(z), pred.x0), pred.x0)
    return complete(self.process, x, t, x0, pred.aux)

  def cost(self, t: float) -> int:
    """The evaluations inside, and the price of the log-weight at each step."""
    return cost(self.denoise, t) + self.steps * self.price
