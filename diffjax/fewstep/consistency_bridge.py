"""Consistency models of bridges: from what data are paired with to the data, by two evaluations or a few more."""

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from diffjax import keys, losses
from diffjax.contracts import Cond, Data, KeyBatch
from diffjax.errors import InputError
from diffjax.fewstep import distances, pairs
from diffjax.fewstep.beside import SOURCE, beside, told
from diffjax.fewstep.bridge import bridge, pull
from diffjax.fewstep.flow_map import PROGRESS, flow_map, inverse_gap, progress
from diffjax.fewstep.iterated import Iterated, iterated
from diffjax.fewstep.jumps import Jump, jump_from
from diffjax.fewstep.segments import by_solver, data_line, taught
from diffjax.methods.parts import Parts, Sampling
from diffjax.methods.starts import beginning
from diffjax.prediction import Denoiser
from diffjax.process import Process, expand
from diffjax.train.ema import constant
from diffjax.train.roles import Copy, Method, Phase

__all__ = ['bridge_denoising', 'consistency_bridge_distillation', 'consistency_bridge_training']


def bridge_denoising(parts: Parts, *, gap: float = 1e-3) -> Method:
  """A denoiser of the bridge between x and its 'source', y: the teacher of `consistency_bridge_distillation`.

  E mean |net(x_t, t, y) - target|^2 at x_t = a y + b x0 + c eps, the kind's target on the process (b, c). It draws by
  the bridge's steps without noise, after one evaluation at y.   arXiv:2309.16948, arXiv:2405.15885

  Args:
    parts: what the config has made; data with 'source' of the shape of x, a network that reads one.
    gap: how far from t_max the bridge begins, where it has no noise.

  Raises:
    InputError: other data, process or network.
  """
  own = _across(parts, gap)
  plain = losses.denoising(own.process, own.net, own.kind, given=(SOURCE,))
  jump = jump_from(own)

  def denoiser(roles: Mapping[str, Any]) -> Denoiser:
    return own.denoiser(roles['student'], 'its method drops no labels' if parts.classes else '')

  return Method(
    phases=(Phase('student', plain, parts.optimiser()),),
    init=lambda key: {'student': own.init(key)},
    denoiser=denoiser,
    generator=_drawing(parts, own, jump, gamma=0.0),
    **PAIRED,
  )


def consistency_bridge_distillation(
  parts: Parts,
  *,
  intervals: int = 32,
  rho: float = 0.0,
  solver: str = 'ddim',
  distance: Any = None,
  decay: float = 0.95,
  gap: float = 1e-3,
  gamma: float = 1.0,
) -> Method:
  """A jump along the bridge to the data agrees with itself one step of a bridge's denoiser nearer the data.

  d(h(x_t, t, y), sg h'(x_u, u, y)), x_u the teacher's step from x_t = a y + b x0 + c eps to its neighbour u; h is the
  bridge's step to t_min with the x0 that the network tells, so that h = x there.   arXiv:2410.22637 (CBD)

  Args:
    parts: what the config has made; data with 'source' of the shape of x, a network that reads one, and a teacher of
      this bridge. The student begins as its teacher where it can.
    intervals: of the grid from t_min to t_max - gap.
    rho: of the grid; 0 for one even in t.
    solver: the teacher's step, 'ddim', which is DBIM's first order, or 'heun'.
    distance: as of `consistency_distillation`.
    decay: of the average that is the target.
    gap: how far from t_max the bridge begins, where it has no noise.
    gamma: when sampling, 1 jumps to the data and back along the bridge each time, 0 follows it.

  Raises:
    InputError: other data, process or network; no teacher or one that does not fit.
  """
  own, (source, teacher) = _across(parts, gap), taught(parts)
  jump = jump_from(own)
  loss = flow_map(
    jump,
    pairs.neighbours(pairs.constantly(intervals), rho=rho),
    by_solver(own.process, teacher, solver),
    distance=distances.named(distance or 'l2'),
  )
  begins = beginning(dataclasses.replace(own, process=parts.process), source)
  copies = begins.pop('copies') | {'target': Copy('student', constant(decay))}
  return Method(
    phases=(Phase('student', told(loss), parts.optimiser()),),
    copies=copies,
    generator=_drawing(parts, own, jump, gamma),
    **begins,
    **PAIRED,
  )


def consistency_bridge_training(
  parts: Parts,
  *,
  first: int = 8,
  last: int = 128,
  rho: float = 0.0,
  distance: Any = None,
  weighted: bool = True,
  gap: float = 1e-3,
  gamma: float = 1.0,
) -> Method:
  """A jump along the bridge to the data agrees with itself at the same noise nearer the data, on a growing grid.

  d(h(x_t, t, y), sg h(x_u, u, y)) / (t - u), both points of one bridge, a y + b x0 + c eps.   arXiv:2410.22637 (CBT)

  Args:
    parts: as of `consistency_bridge_distillation`, without a teacher.
    first: the intervals of the grid at the first step; they double at even times.
    last: those at the last.
    rho: of the grid; 0 for one even in t.
    distance: the pseudo-Huber distance unless given; on few dimensions with its c = .1 sqrt(d).
    weighted: the weight 1 / (t - u).
    gap: as of `consistency_bridge_distillation`.
    gamma: likewise.

  Raises:
    InputError: other data, process or network; a number out of its range.
  """
  if not 1 <= first <= last:
    raise InputError(f'first, last: got {first}, {last}; allowed: 1 <= first <= last')
  own = _across(parts, gap)
  jump = jump_from(own)
  loss = flow_map(
    jump,
    pairs.neighbours(pairs.doubling(first, last, parts.steps), rho=rho),
    data_line(own.process),
    distance=distances.named(distance or 'pseudo_huber'),
    target='student',
    weight=inverse_gap if weighted else None,
  )
  return Method(
    phases=(Phase('student', told(loss), parts.optimiser()),),
    init=lambda key: {'student': own.init(key)},
    buffers={PROGRESS: progress()},
    fixed_length=True,
    generator=_drawing(parts, own, jump, gamma),
    **PAIRED,
  )


PAIRED: dict[str, Any] = dict(needs=(SOURCE,), conditions=(SOURCE,))


def _across(parts: Parts, gap: float) -> Parts:
  """The parts on the bridge: its process, and a network that sees y."""
  if parts.others.get(SOURCE) != parts.shape:
    raise InputError(f'data.others: got {dict(parts.others)}; allowed: source of the shape of x, {parts.shape}')
  return dataclasses.replace(beside(parts), process=bridge(parts.process, gap))


class Bridged(Iterated):
  """Jumps from y along the bridge: one evaluation at y tells where they begin, x = a y + b J(0) + c z.

  Points of the bridge are shifted by a y within, and shown as they are.   arXiv:2405.15885 sec. 4.1

  Attributes:
    base: the process whose bridge it is.
  """

  base: Process

  @property
  def nfe(self) -> int:
    """Jumps of a sample, and the evaluation at y."""
    return len(self.rows[0]) + 1

  def check_cond(self, cond: Cond, field: str = 'cond') -> None:
    """Raises InputError for labels that the network does not have, or without what data are paired with."""
    if not (isinstance(cond, dict) and SOURCE in cond):
      raise InputError(f'{field}: got no source; allowed: a dict of label and source, one a sample')
    super().check_cond(cond, field)

  def begin(self, z: Array, cond: Cond = None) -> Array:
    """The first point for the latent z (B, ...), shifted."""
    t = self.rows[0][0]
    b, c = self.jump.process.schedule(t)
    return b * self.jump(self.params, jnp.zeros_like(z), t, self.jump.end, cond) + c * z

  def decode(self, z: Array, cond: Cond) -> Array:
    """The samples of latents z (B, ...), with the same noise, if any, between their jumps: to interpolate between."""
    own = keys.per_sample(jax.random.key(0), 1)[jnp.zeros(len(z), int)]
    return self._ended(self.begin(z, cond), own, cond, lambda x, t: ())[0]

  def run(self, key_batch: KeyBatch, cond: Cond = None, seen: Callable = lambda x, t: ()) -> tuple[Data, Any]:
    """The samples, and what seen(x, t) keeps of the point before each jump, stacked."""
    k_begin, own = keys.split(key_batch, 2)
    z = keys.normal(k_begin, jax.ShapeDtypeStruct((len(key_batch), *self.shape), jnp.float32))
    return self._ended(self.begin(z, cond), own, cond, lambda x, t: seen(x + self._pull(t, x, cond), t))

  def path(self, key_batch: KeyBatch, cond: Cond = None) -> tuple[Data, tuple[Data, Data]]:
    """The samples, the points before each jump and where a jump to the end would have led, (n, B, ...) each."""
    end = self.jump.end

    def seen(x: Array, t: Array) -> tuple[Array, Array]:
      shifted = x - self._pull(t, x, cond)
      return x, self.jump(self.params, shifted, t, end, cond) + self._pull(end, x, cond)

    return self.run(key_batch, cond, seen)

  def _ended(self, x: Array, own: KeyBatch, cond: Cond, seen: Callable) -> tuple[Array, Any]:
    x, kept = self.jumps_from(x, own, cond, seen)
    return x + self._pull(self.jump.end, x, cond), kept

  def _pull(self, t: Array, x: Array, cond: Cond) -> Array:
    return expand(pull(self.base, t), x) * cond[SOURCE].astype(x.dtype)


def _drawing(parts: Parts, own: Parts, jump: Jump, gamma: float) -> Callable[..., Bridged]:
  """The generator: jumps between the times of `sampling.grid`, those beyond t_max - gap moved there."""

  def generator(roles: Mapping[str, Any], sampling: Sampling) -> Bridged:
    first = float(own.process.t_max)
    asked = dataclasses.replace(sampling, grid=lambda: np.minimum(np.asarray(sampling.grid()), first), data=None)
    made = iterated(own, jump, roles['student'], asked, gamma)
    return Bridged(made.params, made.jump, made.rows, made.law, made.shape, parts.process)

  return generator
