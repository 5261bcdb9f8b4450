"""What a student of a teacher's flow is made of: DDIM segments, the prediction they amount to, and one regression.

A segment carries x_t to x_s along the teacher's flow. The student is asked for the prediction X that takes x_t there in
one DDIM step,

    x_s = (sigma_s / sigma_t) x_t + (alpha_s - alpha_t sigma_s / sigma_t) X.
"""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from diffjax import keys
from diffjax.contracts import Cond, KeyBatch
from diffjax.dtypes import widened
from diffjax.errors import InputError
from diffjax.fewstep import distances
from diffjax.fewstep.jumps import transfer_of
from diffjax.losses.denoising import mean_square
from diffjax.methods import Parts
from diffjax.prediction import apply_net, target
from diffjax.process import Process, expand
from diffjax.solvers import transfer

__all__ = ['WEIGHTS', 'Lesson', 'implied_x0', 'jumps', 'matching', 'noised', 'on_grid', 'paired']

Predict = Callable[[Array, Array, Cond], Array]
Net = Callable[[dict[str, Any], Array, Array, Cond], Array]


class Lesson(NamedTuple):
  """What the student is to say: at x = x_t (B, ...), t (B,) and cond, the data `target` (B, ...)."""

  x: Array
  t: Array
  cond: Cond
  target: Array


def jumps(process: Process, predict: Predict, x: Array, ts: Sequence[Array], cond: Cond = None) -> Array:
  """DDIM steps along the times ts, (B,) each and none rising; a step that leads nowhere leaves x as it is.

  `predict` is (x, t, cond) -> x0. arXiv:2010.02502
  """
  for t, s in zip(ts[:-1], ts[1:], strict=True):
    moves = t > s
    t = jnp.where(moves, t, process.t_max)  # no step from t = 0, where eps is 0 / 0
    x = jnp.where(expand(moves, x), transfer(process, x, predict(x, t, cond), t, s), x)
  return x


def implied_x0(process: Process, x: Array, y: Array, t: Array, s: Array) -> Array:
  """The prediction X whose one DDIM step takes x at t to y at s < t; y itself at s = 0.

  X = (y - (sigma_s / sigma_t) x) / (alpha_s - alpha_t sigma_s / sigma_t).   arXiv:2202.00512 app. G
  """
  keep, gain = transfer_of(process, t, s)
  return (y - expand(keep, x) * x) / expand(gain, x)


def noised(process: Process, batch: dict[str, Any], t: Array, key_batch: KeyBatch) -> Array:
  """x_t of the batch's data."""
  x0 = widened(batch['x'])
  return process.perturb(x0, keys.normal(key_batch, x0), t)


def _truncated_snr(process: Process, t: Array) -> Array:
  alpha, sigma = process.schedule(t)
  return jnp.maximum((alpha / sigma) ** 2, 1)


def _snr_plus_one(process: Process, t: Array) -> Array:
  alpha, sigma = process.schedule(t)
  return (alpha / sigma) ** 2 + 1


def _unit(process: Process, t: Array) -> Array:
  return jnp.ones_like(t)


WEIGHTS = dict(truncated_snr=_truncated_snr, snr_plus_one=_snr_plus_one, unit=_unit)
"""Weights of an error in x0 at t: max(snr, 1), snr + 1 (the error of v) and 1, snr = alpha^2 / sigma^2."""


def matching(
  parts: Parts,
  lesson: Callable[[dict[str, Any], dict[str, Any], KeyBatch], Lesson],
  *,
  weight: str = 'truncated_snr',
  distance: str = 'l2',
) -> Callable:
  """The student's error in x0 against a lesson's target, which passes no gradient on.

  E w(t) d(x0(x_t, t), sg target), one value an example.

  Args:
    parts: of the recipe; the student's network is its net.
    lesson: (roles, batch, key batch) -> Lesson.
    weight: of `WEIGHTS`.
    distance: of `fewstep.distances`.

  Raises:
    InputError: a weight or distance of another name.
  """
  if weight not in WEIGHTS:
    raise InputError(f'weight: got {weight!r}; allowed: {", ".join(WEIGHTS)}')
  apart = distances.named(distance)

  def loss(roles: dict[str, Any], batch: dict[str, Any], key: Array) -> tuple[Array, dict[str, Array]]:
    told = lesson(roles, batch, keys.per_sample(key, batch['x'].shape[0]))
    said = parts.denoiser(roles['student'])(told.x, told.t, told.cond).x0
    error = apart(said, jax.lax.stop_gradient(told.target))
    return WEIGHTS[weight](parts.process, told.t) * error, {'t': told.t, 'error': error}

  return loss


class Line(NamedTuple):
  """A pair of data and noise (B, ...), a time t (B,) between them, and cond."""

  x0: Array
  z: Array
  t: Array
  cond: Cond


def paired(parts: Parts, line: Callable[[dict[str, Any], dict[str, Any], KeyBatch], Line]) -> Callable:
  """The student's error on pairs that belong together: denoising, except that the noise is that of the pair.

  E mean |net(x_t, t) - target(x0, z, t)|^2 at x_t = alpha x0 + sigma z, one value an example; on rectified flow with
  kind velocity |v(x_t, t) - (z - x0)|^2.   arXiv:2209.03003 eq. 1

  Args:
    parts: of the recipe; the student's network is its net.
    line: (roles, batch, key batch) -> Line, through which no gradient passes.
  """
  process, kind = parts.process, parts.kind

  def loss(roles: dict[str, Any], batch: dict[str, Any], key: Array) -> tuple[Array, dict[str, Array]]:
    own, k_net = keys.split(keys.per_sample(key, batch['x'].shape[0]), 2)
    x0, z, t, cond = jax.lax.stop_gradient(line(roles, batch, own))
    out = apply_net(parts.net, roles['student'], process, kind, process.perturb(x0, z, t), t, cond=cond, key=k_net)
    error = mean_square(out, target(process, kind, x0, z, t))
    return error, {'t': t, 'error': error}

  return loss


def on_grid(process: Process, solver: Any, steps: int, whole: bool = True) -> Any:
  """The solver, where it asks for predictions at the times t_max i / steps alone, i = 1 .. steps, and at all of them.

  Args:
    process: the forward process.
    solver: of `config.sampling`.
    steps: of the student.
    whole: whether none may be left out: a student of jumps of one length knows no longer ones.

  Raises:
    InputError: it asks elsewhere, or leaves some out.
  """
  asked = np.asarray(solver.rows.t, float)[np.asarray(solver.rows.evaluated)]
  places = asked * steps / float(process.t_max)
  known = np.abs(places - np.round(places)).max() < 1e-3
  if not known or (whole and list(np.round(places)) != list(range(steps, 0, -1))):
    raise InputError(f'steps, grid, solver: got evaluations at t = {", ".join(f"{t:.4g}" for t in asked)}; '
                     f'allowed: a grid uniform of {steps} steps{"" if whole else " or a divisor of it"} and a solver '
                     'of one evaluation a step, which the student was distilled for')  # fmt: skip
  return solver
