"""Consistency models: a jump to the data agrees with itself along the flow, taught or from data alone."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import jax.numpy as jnp
from jax import Array

from diffjax.errors import InputError
from diffjax.fewstep import distances, pairs
from diffjax.fewstep.analytic import Formed, formed
from diffjax.fewstep.flow_map import PROGRESS, flow_map, inverse_gap, progress
from diffjax.fewstep.iterated import drawing
from diffjax.fewstep.jumps import jump_from
from diffjax.fewstep.segments import Segment, by_solver, data_line, taught
from diffjax.methods.parts import Parts, Source
from diffjax.methods.starts import check_fits, loads
from diffjax.train.ema import constant
from diffjax.train.roles import Copy, Method, Phase

__all__ = ['consistency_distillation', 'consistency_training', 'improved_consistency_training']


def consistency_distillation(
  parts: Parts,
  *,
  intervals: int = 17,
  rho: float = 7.0,
  solver: str = 'heun',
  distance: Any = None,
  decay: float = 0.95,
  scale: float = 1.0,
  warm: bool = False,
  form: Any = None,
) -> Method:
  """A jump to the data agrees with itself one teacher step nearer the data.

  d(f(x_t, t), sg f'(x_u, u)), x_u a step of the teacher from t to its neighbour u on EDM's grid.

  The student learns jumps from the grid's points alone: it draws from those nearest to `config.sampling.grid`.

  arXiv:2303.01469 Alg. 2

  Args:
    parts: what the config has made.
    intervals: of the grid; the paper's 18 points are 17.
    rho: of the grid.
    solver: the teacher's step, 'heun' or 'ddim'.
    distance: 'l2' (unless given), 'l1', 'pseudo_huber', or a dict of a name and its options.
    decay: of the average that is the target, f'.
    scale: the guidance of the teacher, 1 for none.
    warm: whether the student begins as the teacher.
    form: of the jumps, 'through' unless given, or 'analytic', measured on the teacher (`fewstep.analytic.formed`).

  Raises:
    InputError: no teacher, or one that does not fit; a number out of its range.
  """
  source, teacher = taught(parts, scale)
  own, segment = formed(form, parts, jump_from(parts), source, teacher), by_solver(parts.process, teacher, solver)
  return distilled(parts, source, own, segment, intervals=intervals, rho=rho, distance=distance, decay=decay, warm=warm)


def distilled(
  parts: Parts,
  source: Source,
  own: Formed,
  segment: Segment,
  *,
  intervals: int,
  rho: float,
  distance: Any,
  decay: float,
  warm: bool,
) -> Method:
  """A method whose student's jump to the data agrees with itself where a teacher's segment leads."""
  if warm:
    check_fits(parts, source)
  law, apart = pairs.neighbours(pairs.constantly(intervals), rho=rho), distances.named(distance or 'l2')
  loss = own.loss(lambda jump: flow_map(jump, law, segment, distance=apart))
  copies = own.copies | {'target': Copy('student', constant(decay))}
  return Method(
    phases=(Phase('student', loss, parts.optimiser()),),
    copies={'student': 'teacher'} | copies if warm else copies,
    init=lambda key: own.init() | ({} if warm else {'student': parts.init(key)}),
    loads=loads(source),
    generator=drawing(parts, own.jump, known=pairs.nodes(parts.process, intervals, rho)),
  )


def consistency_training(
  parts: Parts, *, first: int = 2, last: int = 150, decay: float = 0.9, rho: float = 7.0, distance: Any = None
) -> Method:
  """A jump to the data agrees with itself on the line from the noise to the example, on a grid that grows finer.

  d(f(x0 + t z, t), sg f'(x0 + u z, u)) on any process; the grid has N(k) intervals at step k of K and the target
  follows at mu(k) = exp(first log(decay) / N(k)).   arXiv:2303.01469 Alg. 3

  Args:
    parts: what the config has made.
    first: N at the first step.
    last: N at the last.
    decay: of the target at the first step.
    rho: of the grid.
    distance: as of `consistency_distillation`.

  Raises:
    InputError: a number out of its range.
  """
  return _trained(parts, dict(first=first, last=last, rho=rho, distance=distance), decay=decay)


def improved_consistency_training(
  parts: Parts,
  *,
  first: int = 10,
  last: int = 1280,
  rho: float = 7.0,
  stopped: bool = True,
  distance: Any = None,
  weighted: bool = True,
  doubled: bool = True,
  normal: tuple[float, float] | None = (-1.1, 2.0),
  decay: float = 0.9,
) -> Method:
  """Consistency training with the improvements of iCT, each of which can be left out.

  d_c(f(x0 + t z, t), sg f(x0 + u z, u)) / (t - u).   arXiv:2310.14189

  Args:
    parts: what the config has made.
    first: the intervals of the grid at the first step.
    last: those at the last.
    rho: of the grid.
    stopped: the target is the student itself, not an average of it.
    distance: the pseudo-Huber distance unless given; on few dimensions with its c = .1 sqrt(d)
      (`distances.pseudo_huber`).
    weighted: the weight 1 / (t - u).
    doubled: the intervals double at even times; otherwise they grow as those of `consistency_training`.
    normal: mean and deviation of log(sigma / alpha); () draws the intervals evenly.
    decay: of the average at the first step, where `stopped` is False.

  Raises:
    InputError: a number out of its range.
  """
  options = dict(
    first=first, last=last, rho=rho, distance=distance or 'pseudo_huber', doubled=doubled, weighted=weighted
  )
  return _trained(parts, options, normal=normal or None, decay=None if stopped else decay)


def _trained(
  parts: Parts, options: Mapping[str, Any], *, decay: float | None, normal: tuple[float, float] | None = None
) -> Method:
  first, last = options['first'], options['last']
  if not 1 <= first <= last:
    raise InputError(f'first, last: got {first}, {last}; allowed: 1 <= first <= last')
  growing = pairs.doubling if options.get('doubled') else pairs.square_root
  count = growing(first, last, parts.steps)
  jump = jump_from(parts)
  loss = flow_map(
    jump,
    pairs.neighbours(count, rho=options['rho'], normal=normal),
    data_line(parts.process),
    distance=distances.named(options['distance'] or 'l2'),
    target='student' if decay is None else 'target',
    weight=inverse_gap if options.get('weighted') else None,
  )
  return Method(
    phases=(Phase('student', loss, parts.optimiser()),),
    copies={} if decay is None else {'target': Copy('student', Scheduled(first, decay, count))},
    init=lambda key: {'student': parts.init(key)},
    buffers={PROGRESS: progress()},
    fixed_length=True,
    generator=drawing(parts, jump),
  )


@dataclass(frozen=True)
class Scheduled:
  """The average whose decay at a grid of N intervals is exp(first log(decay) / N)."""

  first: int
  decay: float
  count: pairs.Count

  def __post_init__(self):
    if not 0 < self.decay < 1:
      raise InputError(f'decay: got {self.decay}; allowed: 0 < decay < 1')

  @property
  def name(self) -> str:
    """What it is called."""
    return f'scheduled_{self.decay:g}'

  def rate(self, n: Array | int) -> Array:
    """The share of the student in the average at update n, from 1."""
    return -jnp.expm1(self.first * jnp.log(self.decay) / self.count(jnp.asarray(n) - 1))
