"""Diffusion posterior sampling: the likelihood of the data predicted, its gradient taken through the network."""

from typing import Any

import jax.numpy as jnp
import numpy as np
from flax import struct
from jax import Array
from jax.tree_util import Partial

from diffjax.contracts import Cond, Data, Memory, Time
from diffjax.guidance.tilt import pushed, slope_of
from diffjax.guidance.transform import Transform, as_scale, cost, value_at
from diffjax.inverse.observation import Observation
from diffjax.noise_levels import on_grid
from diffjax.prediction import Denoise, Pred
from diffjax.process import Process

__all__ = ['dps', 'dps_scale']


def dps(denoise: Denoise, observation: Observation, scale: Any = 1.0, *, normalised: bool = False) -> 'Guided':
  """DPS: adds the gradient of the likelihood of the data predicted, through the network, to the score.

      G = scale grad_x log N(y; A D(x, t), R)            or, normalised,  x0 - scale grad_x |y - A D(x, t)|

  arXiv:2209.14687

  As if x0 were known given x_t: biased, whatever the number of steps. On a prior N(0, v), A = 1, scale 1, c = v / r^2,
  the ODE ends at variance v e^{-c}, the SDE at r^2 (1 - e^{-2c}) / 2, where the posterior has v / (1 + c). The
  published step x_s - zeta grad |y - A D| of DDPM is the normalised form under `dps_scale`.

  Args:
    denoise: what is asked for predictions; costs as much again, for the vector-Jacobian product.
    observation: what was seen.
    scale: a number, one a sample (B,), or a function of t as a pytree.
    normalised: the gradient of the residual's norm, which moves the prediction of x0 itself; bounded, where the other
      form needs steps as short as the noise is small.
  """
  return Guided(denoise, observation, as_scale(scale), normalised=normalised)


class Guided(Transform):
  """Made by `dps`."""

  observation: Observation
  scale: Any
  normalised: bool = struct.field(pytree_node=False, kw_only=True)

  def __call__(self, x: Data, t: Time, cond: Cond = None, memory: Memory = None) -> Pred:
    seen, told = self.observation.of(cond)

    def fit(x0: Array, t: Array, cond: Cond) -> Array:
      if not self.normalised:
        return seen.log_likelihood(x0)
      squares = jnp.sum((seen.residual(x0) ** 2).reshape(len(x0), -1), axis=1)
      there = squares > 0
      return -jnp.where(there, jnp.sqrt(jnp.where(there, squares, 1)), 0)

    pred, _, slope = slope_of(self.denoise, fit, x, t, told, memory, at='x0')
    return pushed(self.process, t, pred, slope, Partial(self._gain))

  def _gain(self, t: Array) -> Array:
    """The scale in units of the score."""
    scale = value_at(self.scale, t)
    if not self.normalised:
      return scale
    alpha, sigma = self.process.schedule(t)
    return scale * alpha / sigma**2

  def cost(self, t: float) -> int:
    """A forward and a vector-Jacobian product for every evaluation inside."""
    return 2 * cost(self.denoise, t)


def dps_scale(process: Process, ts: Any, scale: float = 1.0) -> Partial:
  """The scale of the normalised form under which DDPM takes DPS's published step x_s - scale grad |y - A D(x_t)|.

  DDPM's step has x0 with the weight alpha_s (1 - e^{-2h}), h = lam_s - lam_t, by which the scale is divided.

  Args:
    process: the forward process.
    ts: the solver's own grid.
    scale: published .3 to 1.
  """
  ts, alpha, _, lam = on_grid(process, ts)
  share = -alpha[1:] * np.expm1(-2 * (lam[1:] - lam[:-1]))
  return Partial(jnp.interp, xp=jnp.asarray(ts[-2::-1], float), fp=jnp.asarray(scale / share[::-1], float))
