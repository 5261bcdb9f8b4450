"""Bellman-optimal step sizes: the grid whose Euler steps follow a fine trajectory best.

arXiv:2312.16414
"""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from diffjax import noise_levels
from diffjax.contracts import Cond
from diffjax.prediction import Denoise, complete
from diffjax.process import Process
from diffjax.solvers import euler, grids, trajectory

__all__ = ['boss', 'step_costs']


def boss(denoise: Denoise, x: Array, n: int, knots: Any = 100, cond: Cond = None) -> np.ndarray:
  """The n + 1 times, among the knots, whose n Euler steps have the least summed cost on the trajectories from x.

  Args:
    denoise: what is asked for predictions.
    x: starts (B, ...); about a hundred do.
    n: the number of steps.
    knots: decreasing times, or how many steps of the grid evenly spaced in t.
    cond: the condition of each sample, with the batch first.

  Raises:
    InputError: n is not from 1 to the number of steps between the knots.
  """
  process = denoise.process
  ts = grids.uniform(process, knots) if isinstance(knots, int) else noise_levels.checked(process, knots)
  return ts[grids.cheapest_path(step_costs(denoise, x, ts, cond), n)]


def step_costs(denoise: Denoise, x: Array, ts: Any, cond: Cond = None) -> np.ndarray:
  """The error of every possible step of a trajectory, as a matrix of costs.

  c_jk = mean over trajectories of |x_j + (t_k - t_j) v_j - x_k|^2, (K + 1, K + 1) float64; infinite for k <= j.

  x_j and the velocities v_j are those of Euler's method on all of ts, so c_{j,j+1} is 0 up to rounding.
  """
  process, ts = denoise.process, noise_levels.checked(denoise.process, ts)
  end, (points, x0) = trajectory(denoise, euler(process, ts), x, None, cond)
  points = jnp.concatenate([points, end[None]])
  gaps = np.asarray(_gaps(process, points, x0, jnp.asarray(ts, end.dtype)), np.float64)
  return np.where(np.triu(np.ones((len(ts), len(ts)), bool), 1), np.concatenate([gaps, gaps[:1]]), np.inf)


@jax.jit
def _gaps(process: Process, points: Array, x0: Array, ts: Array) -> Array:
  """(K, K + 1): the mean squared miss of the straight line from each node at every node."""

  def row(start: tuple[Array, Array, Array]) -> Array:
    x, clean, t = start
    v = process.velocity(clean, complete(process, x, t, clean).eps, t)

    def miss(node: tuple[Array, Array]) -> Array:
      s, there = node
      return jnp.mean(jnp.sum(jnp.reshape(x + (s - t) * v - there, (len(x), -1)) ** 2, -1))

    return jax.lax.map(miss, (ts, points))

  return jax.lax.map(row, (points[:-1], x0, ts[:-1]))
