"""DPM-OT: the noisiest part of a trajectory as an optimal transport map from noise to noisy training points."""

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import struct
from jax import Array

from diffjax import keys
from diffjax.contracts import KeyBatch
from diffjax.errors import InputError
from diffjax.noise_levels import at
from diffjax.process import Process
from diffjax.pytree import PyTree
from diffjax.solvers.own.sn_dpm import given_keys
from diffjax.solvers.own.teleport import Preceded
from diffjax.solvers.sample import Solver

__all__ = ['dpm_ot', 'transport']

STREAM = 2**31 - 1  # of the noise at the start, beyond the rows
ROUNDS = (10, 40, 160, 640, 2560)  # draws of the source a point, round by round


def transport(process: Process, x0: Any, t: float, key: Array, *, steps: int = 100, rate: float = 0.1) -> 'Transport':
  """The semi-discrete optimal transport map from N(0, I) to n data points noised to time t, of mass 1/n each.

  p_i = alpha x0_i + sigma z_i. The map is the gradient of Brenier's potential u(z) = max_i <p_i, z> + h_i: it sends z
  to the p_i of the largest, and is optimal for |z - p_i|^2 once every cell has the mass 1/n. So h minimises the convex
  E u - mean h, whose gradient is mass_i - 1/n; here by Adam on draws of the source, ever more of them and at a lower
  rate round by round. The released program trains h under a uniform source and samples from a Gaussian one; the source
  here is that of sampling.

  arXiv:2307.11308 Alg. 1

  Args:
    process: the forward process.
    x0: data (n, ...), n at least 2.
    t: the time of the points, at most t_max.
    key: one typed key.
    steps: of every round.
    rate: of the first round, times the root mean square of the points.

  Raises:
    InputError: fewer than two points, t outside (0, t_max], or a number that is not positive.
  """
  x0 = jnp.asarray(x0)
  if x0.ndim < 2 or len(x0) < 2:
    raise InputError(f'x0: got shape {x0.shape}; allowed: at least two examples, the batch first')
  if not 0 < t <= float(process.t_max):
    raise InputError(f't: got {t}; allowed: above 0, at most {float(process.t_max):g}')
  if not (steps >= 1 and rate > 0):
    raise InputError(f'steps, rate: got {steps}, {rate}; allowed: positive numbers')
  points = process.perturb(x0, keys.normal(keys.per_sample(jax.random.fold_in(key, 0), len(x0)), x0), jnp.asarray(t))
  flat, heights = points.reshape(len(points), -1), jnp.zeros(len(points), points.dtype)
  unit = rate * jnp.sqrt(jnp.mean(flat**2))
  for i, draws in enumerate(ROUNDS):
    heights = _raised(flat, heights, jax.random.fold_in(key, i + 1), unit * 0.3**i, draws * len(flat), steps)
  return Transport(x0, points, heights, jnp.asarray(t, float))


class Transport(PyTree):
  """Made by `transport`: the data and the noised points (n, ...), the heights (n,) and the time of the points."""

  x0: Array
  points: Array
  heights: Array
  t: Array

  def cell(self, z: Array) -> Array:
    """The number of the cell in which z (B, ...) lies, (B,)."""
    return jnp.argmax(_planes(self.points.reshape(len(self.points), -1), self.heights, z.reshape(len(z), -1)), axis=1)

  def __call__(self, z: Array) -> Array:
    """The point that z is sent to."""
    return self.points[self.cell(z)]


def dpm_ot(solver: Solver, process: Process, transport: Transport, *, fresh: bool = False) -> 'Transported':
  """`solver`, laid out on a grid that starts late, begun at the point that noise is transported to.

  x_T / sigma_T ~ N(0, I) is sent to a noised training point at the first time of the grid, without an evaluation; then
  the M steps of the solver run. With xi the Lipschitz constant of the exact flow from there,

      W2(samples, data) <= xi (W2(points, p_t) + diameter sqrt(sum_i |mass_i - 1/n|)) + the solver's error.

  As published a point keeps the noise that it was transported with, so there are n different samples, and for exact
  cells W2(points, p_t) is that of n draws, whatever t. With fresh noise on x0_i it is alpha W2(training data, data) at
  most: then little noise memorises the training data, and much needs more steps.   arXiv:2307.11308

  Args:
    solver: laid out from the time of the points.
    process: the forward process.
    transport: the map.
    fresh: whether every sample draws the noise of its point anew, from its key.

  Raises:
    InputError: the solver does not start at the time of the points.
  """
  first = float(np.asarray(solver.rows.t)[0])
  if not np.isclose(first, float(transport.t), rtol=1e-5):
    raise InputError(
      f'solver: got one from t = {first:.6g}; allowed: from {float(transport.t):.6g}, that of the points'
    )
  sigma = float(at(process, [float(process.t_max)])[1][0])
  return Transported(solver, process, transport, jnp.asarray(sigma, float), fresh=bool(fresh))


class Transported(Preceded):
  """Made by `dpm_ot`."""

  transport: Transport
  unit: Array

  fresh: bool = struct.field(pytree_node=False, kw_only=True)

  @property
  def stochastic(self) -> bool:
    return self.fresh or self.solver.stochastic

  def init(self, x: Array, key_batch: KeyBatch | None = None) -> Any:
    """The solver's start at the point of the noise."""
    place, known = self.transport.cell(x / self.unit.astype(x.dtype)), self.transport
    if not self.fresh:
      return self.solver.init(known.points[place].astype(x.dtype), key_batch)
    noise = keys.normal(keys.fold(given_keys(key_batch), STREAM), x)
    return self.solver.init(self.process.perturb(known.x0[place].astype(x.dtype), noise, known.t), key_batch)


def _planes(points: Array, heights: Array, z: Array) -> Array:
  """<p_i, z> + h_i for flat points and noise, (B, n)."""
  return jnp.matmul(z, points.T, precision='highest') + heights


@partial(jax.jit, static_argnames=('draws', 'steps'))
def _raised(points: Array, heights: Array, key: Array, rate: Array, draws: int, steps: int) -> Array:
  """Heights after a round of Adam on one set of draws, the rate falling to 0."""
  n = len(points)
  z = jax.random.normal(key, (draws, points.shape[1]), points.dtype)

  def step(i: Array, carry: tuple[Array, Array, Array]) -> tuple[Array, Array, Array]:
    heights, first, second = carry
    cells = jnp.argmax(_planes(points, heights, z), axis=1)
    gradient = jnp.zeros(n, points.dtype).at[cells].add(n / draws) - 1
    first, second = 0.9 * first + 0.1 * gradient, 0.99 * second + 0.01 * gradient**2
    pace = rate * (1 - i / steps) * jnp.sqrt(1 - 0.99 ** (i + 1)) / (1 - 0.9 ** (i + 1))
    heights = heights - pace * first / (jnp.sqrt(second) + 1e-8)
    return heights - jnp.mean(heights), first, second

  return jax.lax.fori_loop(0, steps, step, (heights, jnp.zeros(n), jnp.zeros(n)))[0]
