"""Posterior sampling of flows that keep the noise predicted: FlowChef and FlowDPS."""

from typing import Any

import jax.numpy as jnp
import numpy as np
from flax import struct
from jax import Array

from diffjax.contracts import Cond, Data, Memory, Time
from diffjax.errors import InputError
from diffjax.guidance.transform import Transform, as_scale, value_at
from diffjax.inverse.observation import Observation
from diffjax.noise_levels import on_grid
from diffjax.prediction import Denoise, Pred
from diffjax.process import Process, expand
from diffjax.solvers import Table, TableBuilder

__all__ = ['flowchef', 'flowdps', 'flowdps_steps']


def flowchef(denoise: Denoise, observation: Observation, scale: Any = 50.0) -> 'Descended':
  """FlowChef: moves x0 down the gradient of the residual's norm, not through the network, and keeps eps.

  x0 - scale grad_{x0} |y - A x0|.   arXiv:2412.00100

  Not consistent on purpose: run it with `solvers.pair_form(table, process)`; of published steps, which move x_s itself,
  the scale is alpha_s times ours. No sampler of the posterior: with eps kept the variance falls to 0. Costs nothing more.

  Args:
    denoise: what is asked for predictions.
    observation: what was seen.
    scale: a number, one a sample (B,), or a function of t as a pytree.
  """
  return Descended(denoise, observation, as_scale(scale), steps=1, weighed=False)


def flowdps(denoise: Denoise, observation: Observation, scale: Any = 30.0, *, steps: int = 3) -> 'Descended':
  """FlowDPS: some steps of that descent, of which x0 takes the share sigma; eps is kept.

  alpha x0 + sigma (x0 after the steps), in flow time.   arXiv:2503.08136 Alg. 1

  Run it under `flowdps_steps`, with its noise put back; no sampler of the posterior, see there.

  Args:
    denoise: what is asked for predictions; nothing more is asked.
    observation: what was seen.
    scale: of a step, like `flowchef`.
    steps: of the descent.

  Raises:
    InputError: fewer than one step.
  """
  if not (isinstance(steps, int | np.integer) and steps >= 1):
    raise InputError(f'steps: got {steps!r}; allowed: a whole number of at least 1')
  return Descended(denoise, observation, as_scale(scale), steps=int(steps), weighed=True)


class Descended(Transform):
  """Made by `flowchef` and `flowdps`."""

  observation: Observation
  scale: Any
  steps: int = struct.field(pytree_node=False, kw_only=True)
  weighed: bool = struct.field(pytree_node=False, kw_only=True)

  def __call__(self, x: Data, t: Time, cond: Cond = None, memory: Memory = None) -> Pred:
    seen, told = self.observation.of(cond)
    pred = self.denoise(x, t, told, memory)
    scale = value_at(self.scale, jnp.asarray(t))
    x0 = pred.x0
    for _ in range(self.steps):
      x0 = x0 + expand(scale, x0) * _downhill(seen, x0)
    share = self.process.schedule(jnp.asarray(t))[1] if self.weighed else jnp.ones(())
    return pred._replace(x0=(pred.x0 + expand(share, x0) * (x0 - pred.x0)).astype(pred.x0.dtype))


def _downhill(seen: Observation, x0: Array) -> Array:
  """A^T (y - A x0) / |y - A x0|, 0 where nothing is missed."""
  miss = seen.residual(x0)
  squares = jnp.sum((miss**2).reshape(len(miss), -1), axis=1)
  there = squares > 0
  size = jnp.where(there, jnp.sqrt(jnp.where(there, squares, 1)), 1)
  return seen.operator.adjoint(miss / expand(size, miss))


def flowdps_steps(process: Process, ts: Any) -> Table:
  """FlowDPS's steps: back to noise along the noise predicted and fresh noise, in shares of the level.

  x_s = alpha_s x0 + sigma_s (sqrt(sigma_s) eps + sqrt(1 - sigma_s) z), of flows, sigma at most 1.   arXiv:2503.08136

  Its noise does not vanish with the length of steps, so that it draws another law than the flow's from any number of
  them: of data N(0, 1) one of variance .6 to .7.

  Args:
    process: the forward process.
    ts: the time grid, n + 1 strictly decreasing times.

  Raises:
    InputError: sigma is above 1.
  """
  ts, alpha, sigma, _ = on_grid(process, ts)
  if sigma.max() > 1 + 1e-6:
    raise InputError(f'process: got sigma = {sigma.max():.3g}; allowed: at most 1, as of a flow')
  table = TableBuilder('x')
  for i, t in enumerate(ts[:-1]):
    a, s = alpha[i + 1], min(sigma[i + 1], 1.0)
    table.row(t, x=a * table.x0 + s * np.sqrt(s) * table.eps + s * np.sqrt(1 - s) * table.z)
  return table.done()
