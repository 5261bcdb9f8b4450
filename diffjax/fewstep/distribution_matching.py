"""Distribution matching distillation: what a generator makes, noised, gets the law of the teacher's samples, noised."""

from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array
from jax.lax import stop_gradient

from diffjax import keys, solvers
from diffjax.errors import InputError
from diffjax.fewstep import distances
from diffjax.fewstep.critics import Setting, setting
from diffjax.fewstep.direction import Loss, matched, ranks
from diffjax.fewstep.flow_map import PROGRESS, added, progress
from diffjax.fewstep.reflow import ends, pool_of
from diffjax.fewstep.rollouts import drawn_labels, one_step
from diffjax.methods.parts import Parts
from diffjax.solvers import grids
from diffjax.train.roles import Buffer, Method

__all__ = ['distribution_matching']


def distribution_matching(
  parts: Parts,
  *,
  level: float = 0.0,
  scale: float = 1.0,
  regression: float = 0.25,
  pool: int = 2048,
  fresh: int = 16,
  steps: int = 20,
  distance: Any = None,
  pace: float = 1.0,
) -> Method:
  """One step whose samples have the teacher's law: two denoisers say where to, and pairs hold them in place.

  With x = G(z) = D(sigma z, level), x_t = alpha x + sigma eps and psi the critic,
      x moves along (D_teacher(x_t) - D_psi(x_t)) / mean |x - D_teacher(x_t)|,
  the gradient of the divergence KL of their laws at t; beside it c d(G(z_i), y_i) on pairs of the teacher's flow, whose
  distance is a perceptual one in the paper. Student and critic move in turn. Data are not read.   arXiv:2311.18828

  Args:
    parts: with a teacher of this process.
    level: the time at which the student is asked; t_max unless positive.
    scale: of the teacher's guidance.
    regression: c; 0 leaves the pairs out.
    pool: pairs kept, from which batches are drawn.
    fresh: pairs made at each step, in place of the oldest; a divisor of `pool`.
    steps: of dpmpp_2m on the grid noise_share, by which pairs are made.
    distance: of `fewstep.distances`, l2 unless given.
    pace: the critic's learning rate over the student's.

  Raises:
    InputError: no teacher, or one that does not fit; a number out of its range.
  """
  if regression < 0:
    raise InputError(f'regression: got {regression}; allowed: at least 0')
  own = setting(parts, levels=(level,) if level else (), scale=scale, pace=pace)
  loss, buffers = matching(own), {}
  if regression:
    loss = added(loss, paired_with(own, distances.named(distance or 'l2')), name='regression', most=regression)
    buffers = {PROGRESS: progress(), 'pairs': _pairs(own, (pool, fresh, steps))}
  return own.method((own.critic_phase(), own.student_phase(loss)), buffers=buffers)


def matching(own: Setting) -> Loss:
  """The student's loss of `distribution_matching` without pairs; levels even in rank on [.02, .98]."""
  return matched(own.make, own.fields, own.parts.process, ranks())


def paired_with(own: Setting, distance: Callable[[Array, Array], Array]) -> Loss:
  """The distance from G(z_i) to where the teacher's flow takes z_i, of pairs drawn from the pool."""
  ask = one_step(own.parts, own.levels[0])

  def loss(roles: dict[str, Any], batch: Any, key: Array) -> tuple[Array, dict[str, Array]]:
    kept = roles['pairs']
    row = jnp.floor(keys.uniform(key) * kept.held).astype(jnp.int32)
    z, x, cond = stop_gradient(jax.tree.map(lambda leaf: leaf[row], (kept.z, kept.x, kept.cond)))
    return distance(ask(roles['student'], z, cond), x), {}

  return loss


def _pairs(own: Setting, sizes: tuple[int, int, int]) -> Buffer:
  parts, label = own.parts, drawn_labels(own.parts, own.labels)
  pool, fresh, steps = sizes
  solver = solvers.dpmpp_2m(parts.process, grids.noise_share(parts.process, steps))

  def draw(roles: Mapping[str, Any], batch: Any, key: Array) -> tuple[Array, Array, Any]:
    k_z, k_label = keys.split(keys.per_sample(key, fresh), 2)
    z, cond = keys.normal(k_z, parts.rows(fresh)), label(k_label)
    return z, ends(own.teacher(roles), solver, z, cond), cond

  return pool_of(parts, pool, fresh, draw, lambda roles: roles[PROGRESS])
