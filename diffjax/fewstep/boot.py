"""BOOT: a one-step student without data, that learns the teacher's way from the noise on, its own past as its start."""

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

import jax.numpy as jnp
import numpy as np
from jax import Array

from diffjax import keys
from diffjax.contracts import KeyBatch
from diffjax.errors import InputError
from diffjax.fewstep import distances
from diffjax.fewstep.flow_map import PROGRESS, flow_map_end, progress, pure_noise
from diffjax.fewstep.iterated import Iterated, iterated
from diffjax.fewstep.jumps import Landing, jump_from, transfer_of
from diffjax.fewstep.pairs import Count, Law, Times, rungs
from diffjax.fewstep.segments import by_solver, taught
from diffjax.methods.parts import Parts, Sampling
from diffjax.methods.starts import beginning
from diffjax.process import Process
from diffjax.train.roles import Method, Phase

__all__ = ['boot']

NEAREST = 0.1  # of a span: how near t_max a step of the boundary may end, where y is told from x by a difference


def boot(
  parts: Parts,
  *,
  spans: tuple[float, ...] = (0.04, 0.02),
  boundary: float = 0.1,
  rho: float = 0.0,
  solver: str = 'heun',
  scale: float = 1.0,
) -> Method:
  """The signal y_s of the teacher's way from noise z agrees with a step of the teacher from the student's own y_u.

  |y(z, s) - sg y'|^2, y' the signal at s of the teacher's step from x_u = keep_u x_T + gain_u y(z, u), u > s, where

      x_s = keep_s x_T + gain_s y_s,   keep_s = sigma_s / sigma_T, gain_s = alpha_s - alpha_T keep_s, x_T = sigma_T z.

  y_s is the x0 whose one DDIM step leads from x_T to x_s; as s -> T it is D(x_T, T), the boundary, and at t_min it is
  the sample. A DDIM step is y' = q y_u + (1 - q) D(x_u, u), q = (sigma_s / sigma_u) gain_u / gain_s, the paper's at
  alpha_T = 0. Data are not read, but for labels.   arXiv:2306.05544 eq. 10, Alg. 1

  Args:
    parts: what the config has made; the student begins as its teacher where it can.
    spans: u - s, in the course of the run, as shares of the time; equally many steps each.
    boundary: the share of examples whose u is T itself.
    rho: 0 for spans even in t, otherwise on EDM's grid of that power.
    solver: the teacher's step, 'heun' or 'ddim'.
    scale: the guidance of the teacher, 1 for none.

  Raises:
    InputError: no teacher, or one that does not fit; a number out of its range.
  """
  if not (spans and all(0 < span < 1 for span in spans) and 0 < boundary < 1 and rho >= 0):
    raise InputError(f'spans, boundary, rho: got {spans}, {boundary}, {rho}; allowed: shares between 0 and 1, and 0 or '
                     'a power')  # fmt: skip
  source, teacher = taught(parts, scale)
  alone = jump_from(parts)
  jump = alone.replace(net=Landing(alone.net), paired=True)
  loss = flow_map_end(
    jump,
    bootstrapped(in_turn(spans, parts.steps), boundary, rho),
    by_solver(parts.process, teacher, solver),
    distance=distances.l2(),
    target='student',
    weight=lambda at: transfer_of(parts.process, at.t, at.s)[1] ** -2,
    start=pure_noise,
  )

  def generator(roles: Mapping[str, Any], sampling: Sampling) -> Iterated:
    if sampling.steps != 1:
      raise InputError(f'steps: got {sampling.steps}; allowed: 1, since all jumps of BOOT begin at the noise')
    ends = np.array([float(parts.process.t_max), 0.0])
    asked = dataclasses.replace(sampling, grid=lambda: ends, data=None)  # noise alone, as in training
    return iterated(parts, jump, roles['student'], asked)

  return Method(
    phases=(Phase('student', loss, parts.optimiser()),),
    **beginning(parts, source),
    buffers={PROGRESS: progress()},
    fixed_length=True,
    generator=generator,
  )


def in_turn(values: tuple[float, ...], steps: int) -> Count:
  """The values one after another, equally long each."""
  table = np.asarray(values, float)

  def now(done: Array) -> Array:
    place = jnp.floor(done * len(table) / steps).astype(int)
    return jnp.asarray(table, jnp.float32)[jnp.clip(place, 0, len(table) - 1)]

  return now


def bootstrapped(span: Callable[[Array], Array], boundary: float, rho: float = 0.0) -> Law:
  """From t = t_max to s = u - span, u even on the rest of the ladder; u = t_max with the probability `boundary`.

  There s is even on the first span, as near as `NEAREST` of it, since y_s is told from x_s by a difference.
  """

  def times(process: Process, done: Array, key_batch: KeyBatch) -> Times:
    coin, place = keys.split(key_batch, 2)
    at, d, r = rungs(process, rho), span(done), keys.uniform(place)
    first = keys.bernoulli(coin, boundary)
    u = jnp.where(first, 1.0, d + (1 - d) * r)
    s = jnp.where(first, 1 - d * (NEAREST + (1 - NEAREST) * r), u - d)
    return Times(jnp.full_like(r, process.t_max), at(u), at(s))

  return times
