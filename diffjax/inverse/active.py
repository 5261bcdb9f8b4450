"""Active diffusion subsampling: what to look at next is what the particles disagree about most."""

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from diffjax import keys
from diffjax.contracts import Cond
from diffjax.errors import InputError
from diffjax.inverse.observation import Observation, gaussian
from diffjax.inverse.operators import Mask, check
from diffjax.inverse.pigdm import pigdm
from diffjax.prediction import Denoise
from diffjax.solvers import Solver
from diffjax.solvers.noise import independent

__all__ = ['Looked', 'active', 'disagreement']


class Looked(NamedTuple):
  """What active subsampling returns.

  Attributes:
    x: the particles (B, K, ...).
    keep: 1 where it was looked, (B, ...).
    picks: the number of the group looked at, in order, (B, picks).
  """

  x: Array
  keep: Array
  picks: Array


def active(
  denoise: Denoise,
  solver: Solver,
  truth: Array,
  key: Array,
  *,
  picks: int,
  particles: int = 16,
  groups: Any = None,
  noise: Any = None,
  guide: Callable = pigdm,
  window: float = 0.8,
  cond: Cond = None,
) -> Looked:
  """ADS: K particles are drawn given what was seen so far; at chosen rows one more group of elements is looked at.

  argmax_a H_a with H_a = -sum_i log sum_j exp(-|x0_i - x0_j|^2_a / 2 s^2) over the particles' predictions of group a, s
  the deviation of the noise: the entropy of their mixture, up to what all groups share.   arXiv:2406.14388 Alg. 1

  After the paper, whose release has the other sign in the exponent. Each sample has its own particles, picks and mask;
  it is told values of `truth` with noise there alone.

  Args:
    denoise: what is asked for predictions, unguided.
    solver: the method on its grid; its evaluations are K a sample.
    truth: x0 (B, ...), looked at where picked.
    key: one typed key, or one a sample.
    picks: groups looked at.
    particles: K, published 16.
    groups: the number of the group of every element, an integer array like one example, 0 .. G - 1; by default each
      pixel of an image, or each element, is one.
    noise: of looking, `gaussian` of .05 by default.
    guide: (denoise, observation) -> denoiser, the posterior method.
    window: the share of the rows, from the first, in which the picks lie evenly.
    cond: the condition of each sample.

  Raises:
    InputError: more picks than groups or rows in the window, fewer than 2 particles, or groups of another shape.
  """
  shape = truth.shape[1:]
  if groups is None:
    plane = shape[:2] if len(shape) == 3 else shape
    groups = np.arange(int(np.prod(plane))).reshape(*plane, *(1,) * (len(shape) - len(plane)))
  groups = np.broadcast_to(np.asarray(groups), shape)
  check(truth, shape, 'truth')
  count, rows = int(groups.max()) + 1, len(solver.rows.t)
  last = int(rows * window)
  if not 1 <= picks <= min(count, last):
    raise InputError(f'picks: got {picks}; allowed: 1 to {min(count, last)}, of {count} groups in {last} rows')
  if particles < 2:
    raise InputError(f'particles: got {particles}; allowed: 2 and more, since their disagreement is asked')
  when = np.zeros(rows, bool)
  when[np.linspace(0, last - 1, picks).round().astype(int)] = True
  key_batch = keys.per_sample(key, len(truth))
  noise = gaussian() if noise is None else noise
  member = jnp.asarray(np.eye(count)[groups.reshape(-1)], jnp.float32)  # (d, G)
  x, keep, chosen = _active(denoise, solver, truth, key_batch, cond, noise, member, jnp.asarray(when), guide, particles)
  return Looked(x, keep, chosen[when].T)


@partial(jax.jit, static_argnames=('guide', 'particles'))
def _active(denoise, solver, truth, key_batch, cond, noise, member, when, guide, particles):
  size, shape = len(truth), truth.shape[1:]
  draw, start, own = keys.split(key_batch, 3)
  spread = lambda leaf: jnp.repeat(leaf, particles, axis=0)  # noqa: E731
  many = jax.vmap(lambda key: jax.random.split(key, particles))
  y, cond = spread(noise.draw(draw, truth)), jax.tree.map(spread, cond)
  x = denoise.process.start(many(start).reshape(-1), y, jnp.asarray(solver.rows.t)[0])
  own = many(own).reshape(-1)
  std = jnp.sqrt(jnp.mean(noise.variance(y)))

  def step(carry: tuple, now: tuple[Any, Array]) -> tuple:
    (state, seen), (row, look) = carry, now
    keep = (seen @ member.T).reshape(size, *shape)
    operator = Mask(spread(keep), shape=shape, out=shape)
    guided = guide(denoise, Observation(operator, spread(keep) * y, noise))
    pred = guided(solver.point(state), row.t.astype(x.dtype), cond, None)
    worth = disagreement(pred.x0.reshape(size, particles, -1), member, std)
    pick = jnp.argmax(jnp.where(seen > 0, -jnp.inf, worth), axis=1)
    seen = jnp.where(look, jnp.maximum(seen, jax.nn.one_hot(pick, member.shape[1])), seen)
    return (solver.update(state, pred, row, own, independent), seen), pick

  seen = jnp.zeros((size, member.shape[1]), jnp.float32)
  carry = (solver.init(x, own), seen)
  (state, seen), chosen = jax.lax.scan(step, carry, (jax.tree.map(jnp.asarray, solver.rows), when))
  out = solver.output(state).reshape(size, particles, *shape)
  return out, (seen @ member.T).reshape(size, *shape), chosen


def disagreement(x0: Array, member: Array, std: Any) -> Array:
  """-sum_i log sum_j exp(-d_ij^2 / 2 std^2) of every group, (B, G).

  x0 (B, K, d) are the particles' predictions, member (d, G) is 1 where an element is of a group, and d_ij^2 the squared
  distance of two particles over the elements of the group.
  """
  squares = (x0[:, :, None] - x0[:, None]) ** 2 @ member
  return -jnp.sum(jax.nn.logsumexp(-squares / (2 * std**2), axis=2), axis=1)
