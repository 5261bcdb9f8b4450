"""Distillation of guided models: a student that is told the scale, and then takes ever fewer steps."""

import dataclasses
from collections.abc import Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from diffjax import guidance, keys
from diffjax.contracts import Cond, Data, KeyBatch, Memory, Params, Time
from diffjax.errors import InputError
from diffjax.fewstep.lessons import Lesson, matching, noised, on_grid
from diffjax.fewstep.progressive import halving
from diffjax.fewstep.stages import halvings, plan, restarted, tutor
from diffjax.guidance.transform import Transform
from diffjax.methods import Parts, Sampling, Solved, solved
from diffjax.methods.starts import fits, grafted, loads
from diffjax.noise_levels import on_grid as levels
from diffjax.prediction import Pred
from diffjax.process import Process
from diffjax.solvers import Table, TableBuilder
from diffjax.train.roles import Copy, Method, Phase

__all__ = ['guided']


def guided(
  parts: Parts,
  scales: tuple[float, float] = (1.0, 4.0),
  start: int = 32,
  end: int = 4,
  stages: tuple[float, ...] = (),
  stochastic: bool = False,
) -> Method:
  """Distillation of guided diffusion: one evaluation for two, at any scale, and then ever fewer steps.

  With a scale s uniform on `scales`, of each example, and w(t) = max(alpha^2 / sigma^2, 1),

      first stage    w(t) |x0_student(x_t, t, c, s) - sg [u + s (c - u)]|^2,  c and u the teacher's, t uniform;
      then           progressive distillation, the scale handed on to the tutor: `start` to `end` steps.

  Scale 1 is the plain conditional model, the paper's w = 0. The network is told the scale as its second time, from 0 to
  1000 over `scales`, whose weights begin at zero in a student that begins as its teacher. At sampling it is that of
  `config.sampling.guidance_scale`, at the cost of one evaluation.

  The stochastic sampler takes one step of two strides and goes back one by the forward process, in place of
  `config.sampling.solver`; its student is taught steps of two strides from every place of the grid.

  arXiv:2210.03142 Alg. 1-2, app. B

  Args:
    parts: with labels, a network of two times and a teacher of this process.
    scales: the least and the greatest scale.
    start: steps of the student of the first stage, as a teacher.
    end: steps of the last student.
    stages: the share of the run that the first stage, and each halving, has; equal by default.
    stochastic: whether it is for the stochastic sampler.

  Raises:
    InputError: no labels, no teacher or another's, a network of one time, scales or steps that do not fit.
  """
  teacher, process = parts.source('teacher'), parts.process
  if not parts.classes:
    raise InputError('data.classes: got 0; allowed: labels, to be guided by')
  if getattr(getattr(parts.net, 'module', None), 'times', 1) != 2:
    raise InputError('net: got one that is told a single time; allowed: times=2, the second for the scale')
  if len(scales) != 2 or not scales[0] < scales[1]:
    raise InputError(f'scales: got {scales}; allowed: the least and a greater one')
  counts, reach = halvings(start, end), 2 if stochastic else 1
  cut = plan(parts.steps, 1 + len(counts), stages)
  coarse = 1.0 if process.by_noise or parts.kind.by_noise else 1000.0
  told = dataclasses.replace(parts, net=Scaled(parts.net, (scales[0], scales[1]), coarse))
  shapes = jax.eval_shape(parts.init, jax.random.key(0))
  begins_as = fits(parts, teacher)

  def own(roles: Mapping[str, Any], x: Array, t: Array, cond: Cond) -> Array:
    return told.denoiser(roles['tutor'].params)(x, t, cond).x0

  halved = halving(
    process, lambda roles: jnp.asarray(counts, jnp.float32)[cut.stage(roles['tutor'].step) - 1], own, reach
  )

  def lesson(roles: Mapping[str, Any], batch: dict[str, Any], key_batch: KeyBatch) -> Lesson:
    k_scale, k_t, k_eps, k_halved = keys.split(key_batch, 4)
    cond = {'label': batch['cond'], 'scale': scales[0] + keys.uniform(k_scale) * (scales[1] - scales[0])}

    def first() -> Lesson:
      t = process.t_min + keys.uniform(k_t) * (process.t_max - process.t_min)
      x = noised(process, batch, t, k_eps)
      denoise = guidance.cfg(teacher.denoiser(roles.get('teacher', ())), cond['scale'])
      return Lesson(x, t, cond, denoise(x, t, cond['label']).x0)

    def later() -> Lesson:
      return halved(roles, {**batch, 'cond': cond}, k_halved)

    return jax.lax.cond(cut.stage(roles['tutor'].step) == 0, first, later)

  def generator(roles: Mapping[str, Any], sampling: Sampling) -> Solved:
    if not scales[0] <= sampling.scale <= scales[1]:
      raise InputError(f'guidance_scale: got {sampling.scale:g}; allowed: {scales[0]:g} to {scales[1]:g}, which the '
                       'student was taught')  # fmt: skip
    denoise = AtScale(told.denoiser(roles['student']), jnp.asarray(sampling.scale, float))
    solver = leap_and_renoise(process, sampling.grid()) if stochastic else sampling.solver()
    return solved(denoise, on_grid(process, solver, end), parts.shape, sampling.data)

  return Method(
    (Phase('student', matching(told, lesson), restarted(parts.optimiser, cut)),),
    copies={'student': Copy('teacher', begins=lambda params: grafted(shapes, params))} if begins_as else {},
    init=lambda key: {} if begins_as else {'student': parts.init(key)},
    loads=loads(teacher),
    buffers={'tutor': tutor(shapes, cut.starts)},
    fixed_length=True,
    generator=generator,
  )


class Scaled(NamedTuple):
  """A network of two times as one of {'label', 'scale'}: the scale, from 0 to `size` over `scales`, is the second."""

  net: Any
  scales: tuple[float, float]
  size: float

  @property
  def module(self) -> Any:
    """The network's own."""
    return self.net.module

  def __call__(self, params: Params, x: Data, t: Array, cond: Any = None, key: Any = None) -> Any:
    low, high = self.scales
    place = self.size * (cond['scale'] - low) / (high - low)
    return self.net(params, x, jnp.stack([t, jnp.broadcast_to(place, t.shape)], 1), cond['label'], key)


class AtScale(Transform):
  """A denoiser that is told {'label', 'scale'} at one scale."""

  scale: Array

  def __call__(self, x: Data, t: Time, cond: Cond = None, memory: Memory = None) -> Pred:
    return self.denoise(x, t, {'label': cond, 'scale': self.scale}, memory)


def leap_and_renoise(process: Process, ts: Any) -> Table:
  """The stochastic sampler: DDIM over two strides of the grid, then the forward process back over one.

  x_far = alpha_far x0 + sigma_far eps,  x_s = (alpha_s / alpha_far) x_far + sqrt(sigma_s^2 - (alpha_s sigma_far /
  alpha_far)^2) z; the last step goes to 0 without noise. n evaluations on a grid of n strides.

  arXiv:2210.03142 sec. 4
  """
  ts, alpha, sigma, _ = levels(process, ts)
  table, n = TableBuilder('x'), len(ts) - 1
  for i in range(n):
    near, far = i + 1, min(i + 2, n)
    after = alpha[far] * table.x0 + sigma[far] * table.eps
    if near < far:
      ratio = alpha[near] / alpha[far]
      after = ratio * after + np.sqrt(sigma[near] ** 2 - (ratio * sigma[far]) ** 2) * table.z
    table.row(ts[i], x=after)
  return table.done()
