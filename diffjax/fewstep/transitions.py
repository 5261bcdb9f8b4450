"""The multistep sampler as a policy: Gaussian transitions, ways drawn from them, and the log-probability of a way.

From a level t a jump leads to u, and noise from there up to the next level:

    x_up ~ N((alpha_up / alpha_u) J(x_t, t -> u), sigma_up^2 - (alpha_up sigma_u / alpha_u)^2)

The last jump has no noise after it. Log-probabilities are means over the dimensions, so that a bound on their ratios is
one for data of any size.   arXiv:2404.03673 sec. 4
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from diffjax.contracts import Cond, KeyBatch, Params
from diffjax.errors import InputError
from diffjax.fewstep.iterated import Iterated
from diffjax.fewstep.jumps import Jump
from diffjax.methods import Sampling, Source
from diffjax.process import expand
from diffjax.solvers import grids

__all__ = ['Policy', 'Transition', 'Way', 'log_prob', 'log_probs', 'policy', 'rollout', 'transition']

GRIDS = ('uniform', 'quadratic', 'cosine', 'noise_share')  # those that keep above t_min
Policy = Callable[[Params], Iterated]


class Transition(NamedTuple):
  """The law of the next point: a mean (B, ...) and a deviation (B,)."""

  mean: Array
  std: Array


class Way(NamedTuple):
  """The points before each jump, (n, B, ...), and the sample, (B, ...)."""

  points: Array
  end: Array


def transition(
  jump: Jump, params: Params, x: Array, t: Array, u: Array, up: Array, cond: Cond = None, key: Any = None
) -> Transition:
  """The law of x at the level `up`, from x (B, ...) at t by way of u; all times (B,)."""
  process = jump.process
  ratio = process.schedule(up)[0] / process.schedule(u)[0]
  std = process.schedule(up)[1] * jnp.sqrt(-jnp.expm1(2 * (process.lam(up) - process.lam(u))))
  return Transition(expand(ratio, x) * jump(params, x, t, u, cond, key), std)


def log_prob(law: Transition, x: Array) -> Array:
  """The log-density N(x; mean, std^2) of each example over the number of dimensions, (B,) float32."""
  apart = ((x - law.mean) / expand(law.std, x)).astype(jnp.float32).reshape(len(x), -1)
  return -0.5 * jnp.mean(apart**2, -1) - jnp.log(law.std) - 0.5 * jnp.log(2 * jnp.pi)


def rollout(draw: Iterated, key_batch: KeyBatch, cond: Cond = None) -> Way:
  """The ways of the samples that `draw` gives for these keys, through which no gradient passes."""
  end, points = draw.run(key_batch, cond, lambda x, t: x)
  return jax.lax.stop_gradient(Way(points, end))


def log_probs(draw: Iterated, way: Way, cond: Cond = None) -> Array:
  """The log-probability of each noisy transition of a way under `draw`, (n - 1, B); one network call for all."""
  before, after = way.points[:-1], way.points[1:]
  n, rows = before.shape[:2]
  flat = lambda x: x.reshape(n * rows, *x.shape[2:])  # noqa: E731
  t, u, up = (jnp.repeat(row[:-1], rows) for row in draw.rows)
  conds = jax.tree.map(lambda c: jnp.tile(c, (n, *[1] * (c.ndim - 1))), cond)
  law = transition(draw.jump, draw.params, flat(before), t, u, up, conds)
  return log_prob(law, flat(after)).reshape(n, rows)


def policy(base: Source, steps: int, grid: Any = 'uniform', scale: float = 1.0) -> Policy:
  """The sampler of a run of jumps, as a function of its weights, in so many steps.

  Args:
    base: the run.
    steps: jumps of a sample, two at least.
    grid: of `solvers.grids`, as `config.sampling.grid`; or the times themselves, falling, from which jumps go.
    scale: for a student that is told it.

  Raises:
    InputError: another grid, too few steps, or a run that draws without noise between jumps.
  """
  if isinstance(grid, str) and grid not in GRIDS:
    raise InputError(f'grid: got {grid!r}; allowed: {", ".join(GRIDS)}, or the times themselves')
  if not (isinstance(steps, int) and steps >= 2):
    raise InputError(f'steps: got {steps!r}; allowed: a whole number of at least 2, since the last has no noise after')
  named = isinstance(grid, str)
  if not named and (len(grid) != steps or not (np.diff((*grid, 0.0)) < 0).all()):
    raise InputError(f'grid: got {grid} for {steps} steps; allowed: as many times, falling and above 0')
  times: Any = getattr(grids, grid)(base.process, steps) if named else grids.array(base.process, steps, (*grid, 0.0))
  asked = Sampling(steps, lambda: times, _no_solver, lambda denoise: denoise, scale=scale)

  def made(params: Params) -> Iterated:
    return base.drawn(params, asked)  # type: ignore[misc]

  draw = made(base.params) if base.drawn else None  # shapes will do for the weights
  if not isinstance(draw, Iterated):
    raise InputError(f'base: got {base.name}, which does not draw by jumps; allowed: a run of a consistency method')
  _, landed, up = (np.asarray(row)[:-1] for row in draw.rows)
  if not (up > landed * (1 + 1e-6)).all():
    raise InputError(f'base: got {base.name}, which draws without noise between its jumps; allowed: with gamma = 1')
  return made


def _no_solver() -> Any:
  raise InputError('base: got a run that draws by a solver; allowed: one that draws by jumps')
