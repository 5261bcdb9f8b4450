"""Segments: who carries x_t to x_u, for a jump to be compared with. (roles, point, t, u) -> x_u (B, ...)."""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from diffjax import guidance, keys, solvers
from diffjax.contracts import Cond, KeyBatch
from diffjax.errors import InputError
from diffjax.fewstep.jumps import Jump
from diffjax.fewstep.pairs import Ladder
from diffjax.methods.parts import Parts, Source
from diffjax.prediction import Denoise, complete
from diffjax.process import Process, expand

__all__ = ['Point', 'Segment', 'by_jump', 'by_noisy_steps', 'by_solver', 'data_line', 'taught', 'velocity']


class Point(NamedTuple):
  """A noised example: x_t = alpha_t x0 + sigma_t eps, its condition, and the keys of a segment that draws noise."""

  x: Array
  x0: Array
  eps: Array
  cond: Cond
  key: Any = None


Segment = Callable[[Mapping[str, Any], Point, Array, Array], Array]
Teacher = Callable[[Mapping[str, Any]], Denoise]


def taught(parts: Parts, scale: float = 1.0) -> tuple[Source, Teacher]:
  """The teacher of the run, and roles -> its denoiser, guided where the scale is not 1.

  Raises:
    InputError: there is none, it does not fit, or there are no labels to guide by.
  """
  source = parts.source('teacher')
  if scale != 1 and not parts.classes:
    raise InputError(f'scale: got {scale}; allowed: 1, since the data have no labels')

  def teacher(roles: Mapping[str, Any]) -> Denoise:
    denoise = source.denoiser(roles.get('teacher', ()))
    return denoise if scale == 1 else guidance.cfg(denoise, scale)

  return source, teacher


def data_line(process: Process) -> Segment:
  """The line from the noise to the example, x_u = alpha_u x0 + sigma_u eps: a one-sample estimate of the flow."""
  return lambda roles, point, t, u: process.perturb(point.x0, point.eps, u)


def by_solver(
  process: Process, teacher: Teacher, name: str = 'heun', *, most: int = 1, ladder: tuple[int, float] = (0, 7.0)
) -> Segment:
  """The teacher's flow by one step of a solver, or by as many as there are rungs of a ladder from t to u.

  Args:
    process: of the jumps and the teacher.
    teacher: roles -> its denoiser.
    name: 'heun' or 'ddim'.
    most: steps that it takes at most; those of a shorter way stand still.
    ladder: the intervals and rho of the ladder, where it takes several.

  Raises:
    InputError: another name, or Heun where alpha(t_max) is 0.
  """
  if name not in ('heun', 'ddim'):
    raise InputError(f'solver: got {name!r}; allowed: heun, ddim')
  if name == 'heun' and not np.isfinite(float(process.lam(process.t_max))):
    raise InputError('solver: got heun on a process whose alpha(t_max) is 0; allowed: ddim')

  def step(denoise: Denoise, x: Array, t: Array, u: Array, cond: Cond) -> Array:
    if name == 'heun':
      return solvers.heun_transfer(denoise, x, t, u, cond)
    return solvers.transfer(process, x, denoise(x, t, cond).x0, t, u)

  def segment(roles: Mapping[str, Any], point: Point, t: Array, u: Array) -> Array:
    denoise = teacher(roles)
    if most == 1:
      return step(denoise, point.x, t, u, point.cond)
    n, rho = ladder
    rungs = Ladder(process, rho)
    low, high = rungs.ends()

    def rank(t: Array) -> Array:
      return jnp.clip(jnp.round(n * (jnp.exp(-process.lam(t) / rho) - low) / (high - low)), 0, n)

    first, last = rank(t), rank(u)

    def one(x: Array, i: Array) -> tuple[Array, None]:
      before, after = (rungs(jnp.maximum(first - j, last) / n) for j in (i, i + 1))
      return step(denoise, x, before, after, point.cond), None

    return jax.lax.scan(one, point.x, jnp.arange(most))[0]

  return segment


def by_noisy_steps(process: Process, teacher: Teacher, eta: float, *, steps: int = 1) -> Segment:
  """The teacher's stochastic flow: DDIM steps, evenly in lam, of which each draws a part of its noise anew.

  x_s = alpha_s x0 + sigma_s (e^{-eta^2 h} eps + sqrt(1 - e^{-2 eta^2 h}) z), h = lam_s - lam_t: eta 0 is DDIM to the
  last bit, eta 1 the reverse SDE.   arXiv:2403.01505

  Raises:
    InputError: eta outside [0, 1], or no step.
  """
  if not (0 <= eta <= 1 and isinstance(steps, int) and steps >= 1):
    raise InputError(f'eta, steps: got {eta}, {steps}; allowed: 0, the flow, to 1, and a whole number of at least 1')

  def step(denoise: Denoise, x: Array, t: Array, s: Array, cond: Cond, key_batch: KeyBatch) -> Array:
    pred = complete(process, x, t, denoise(x, t, cond).x0)
    if not eta:
      return process.perturb(pred.x0, pred.eps, s)
    rate = eta**2 * (process.lam(s) - process.lam(t))
    fresh = jnp.sqrt(-jnp.expm1(-2 * rate))
    eps = expand(jnp.exp(-rate), x) * pred.eps + expand(fresh, x) * keys.normal(key_batch, x)
    return process.perturb(pred.x0, eps, s)

  def segment(roles: Mapping[str, Any], point: Point, t: Array, u: Array) -> Array:
    denoise = teacher(roles)
    if steps == 1:
      return step(denoise, point.x, t, u, point.cond, point.key)
    first, last = process.lam(t), process.lam(u)

    def at(i: Array) -> Array:
      between = process.lam_inverse(first + i / steps * (last - first))
      return jnp.where(i == 0, t, jnp.where(i == steps, u, between))

    def one(x: Array, i: Array) -> tuple[Array, None]:
      return step(denoise, x, at(i), at(i + 1), point.cond, keys.fold(point.key, i)).astype(x.dtype), None

    return jax.lax.scan(one, point.x, jnp.arange(steps))[0]

  return segment


def by_jump(jump: Jump, role: str) -> Segment:
  """The jump itself, of this role's weights."""
  return lambda roles, point, t, u: jump(roles[role], point.x, t, u, point.cond)


def velocity(process: Process, teacher: Teacher | None = None) -> Callable[[Mapping[str, Any], Point, Array], Array]:
  """(roles, point, t) -> dx/dt: of the line from the noise to the example, or of the flow of a teacher."""

  def slope(roles: Mapping[str, Any], point: Point, t: Array) -> Array:
    if teacher is None:
      return process.velocity(point.x0, point.eps, t)
    pred = teacher(roles)(point.x, t, point.cond)
    return process.velocity(pred.x0, pred.eps, t)

  return slope
