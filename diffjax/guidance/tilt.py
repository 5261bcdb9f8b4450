"""Tilting a denoiser by a log-weight: the one rule by which anything is added to the score."""

from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from flax import struct
from jax import Array

from diffjax.contracts import Cond, Data, Memory, Time
from diffjax.errors import InputError
from diffjax.guidance.transform import Transform, as_scale, cost, value_at
from diffjax.prediction import Denoise, Pred
from diffjax.process import Process, expand, over_time

__all__ = ['pushed', 'slope_of', 'tilt']

PLACES = ('x', 'x0')


def tilt(
  denoise: Denoise, log_weight: Callable, scale: Any = 1.0, *, at: str = 'x', through: bool = True, price: int = 0
) -> 'Tilted':
  """Adds `scale` times the gradient G of a log-weight r to the score.

      x0 + scale (sigma^2 / alpha) G    eps - scale sigma G

      at 'x'                G = grad_x r(x, t, cond)            r knows noisy points
      at 'x0'               G = grad_x r(x0_hat(x), t, cond)    the vector-Jacobian product goes through the denoiser
      at 'x0', not through  G = grad r at x0_hat, taken as if x0_hat were x

  The law at each level is then p_t e^{r} where r is the logarithm of the mean of the wanted weight given x_t, and an
  approximation of it elsewhere. Where alpha = 0 the prediction stays as it is.

  Args:
    denoise: what is asked for predictions.
    log_weight: r, (x, t, cond) -> (B,); x like the data, t (B,) in the process's own time (or times, one a modality),
      cond as handed to the denoiser. As a pytree (`jax.tree_util.Partial(fn, *arrays)`) its arrays may change without
      another compilation.
    scale: a number, one a sample (B,), or a function of t as a pytree.
    at: where r is taken: 'x' or 'x0'.
    through: at 'x0', whether the gradient goes through the denoiser, which costs as much again.
    price: evaluations that r and its gradient count as in `cost`: 1 for a network, 0 in closed form.

  Raises:
    InputError: another place.
  """
  if at not in PLACES:
    raise InputError(f'at: got {at!r}; allowed: {", ".join(PLACES)}')
  return Tilted(denoise, as_scale(log_weight), as_scale(scale), at=at, through=through, price=price)


class Tilted(Transform):
  """Made by `tilt`."""

  log_weight: Any
  scale: Any
  at: str = struct.field(pytree_node=False, kw_only=True)
  through: bool = struct.field(pytree_node=False, kw_only=True)
  price: int = struct.field(pytree_node=False, kw_only=True)

  def __call__(self, x: Data, t: Time, cond: Cond = None, memory: Memory = None) -> Pred:
    pred, _, slope = slope_of(self.denoise, self.log_weight, x, t, cond, memory, at=self.at, through=self.through)
    return pushed(self.process, t, pred, slope, self.scale)

  def cost(self, t: float) -> int:
    """The evaluations inside, twice where the gradient goes through them, and the price of the log-weight."""
    return cost(self.denoise, t) * (2 if self.at == 'x0' and self.through else 1) + self.price


def pushed(process: Process, t: Time, pred: Pred, slope: Data, scale: Any = 1.0) -> Pred:
  """The prediction with `scale` times `slope` added to the score: x0 + scale (sigma^2/alpha) G, eps - scale sigma G.

  A consistent pair stays one; where alpha = 0 it stays as it is.

  Args:
    process: the forward process.
    t: () or (B,), or times, one a modality.
    pred: the prediction.
    slope: G, like x.
    scale: a number, one a sample (B,), or a function of t.
  """

  def push(rule: Callable, t: Array, out: Array, slope: Array) -> Array:
    alpha, sigma = process.schedule(jnp.asarray(t))
    gain = value_at(scale, t) * jnp.where(alpha > 0, rule(alpha, sigma), 0)
    return (out + expand(gain, out) * slope).astype(out.dtype)

  x0 = over_time(partial(push, lambda alpha, sigma: sigma**2 / alpha), t, pred.x0, slope)
  eps = over_time(partial(push, lambda alpha, sigma: -sigma), t, pred.eps, slope)
  return pred._replace(x0=x0, eps=eps)


def slope_of(
  denoise: Denoise,
  log_weight: Callable,
  x: Data,
  t: Time,
  cond: Cond = None,
  memory: Memory = None,
  *,
  at: str = 'x',
  through: bool = True,
) -> tuple[Pred, Array, Data]:
  """The prediction, the log-weight r (B,) and its gradient G like x; see `tilt` for where both are taken."""
  size = jax.tree.leaves(x)[0].shape[0]
  times = jax.tree.map(lambda t: jnp.broadcast_to(jnp.asarray(t), (size,)), t)

  def total(x: Data) -> tuple[Array, Array]:
    weights = log_weight(x, times, cond)
    return jnp.sum(weights), weights

  if at == 'x' or not through:
    pred = denoise(x, t, cond, memory)
    (_, weights), slope = jax.value_and_grad(total, has_aux=True)(x if at == 'x' else pred.x0)
    return pred, weights, slope

  def estimated(x: Data) -> tuple[Data, Pred]:
    pred = denoise(x, t, cond, memory)
    return pred.x0, pred

  x0, back, pred = jax.vjp(estimated, x, has_aux=True)
  (_, weights), slope = jax.value_and_grad(total, has_aux=True)(x0)
  return pred, weights, back(slope)[0]
