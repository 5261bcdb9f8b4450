"""Generators of one evaluation or a few: who makes samples in training, and how the same ones are drawn afterwards.

One evaluation is G(z) = D(sigma z, level). Several go down a list of levels: x0 = D(x, t_k), x = alpha x0 + sigma z
with fresh noise up to t_{k+1}. In training a sample leaves after a random number of them, and only its last evaluation
passes gradients: the student is trained on the inputs that it will meet.   arXiv:2405.14867 sec. 4.4
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.lax import stop_gradient

from diffjax import keys
from diffjax.contracts import Cond, Data, KeyBatch, Params
from diffjax.errors import InputError
from diffjax.fewstep.iterated import Iterated
from diffjax.fewstep.jumps import jump_from
from diffjax.methods.parts import Parts, Sampling
from diffjax.prediction import Denoiser

__all__ = ['approach', 'drawn_labels', 'levels_of', 'made', 'one_step', 'over_levels', 'rollout']


def levels_of(parts: Parts, levels: Sequence[float]) -> tuple[float, ...]:
  """The times at which a generator is asked, falling; t_max alone where none are given.

  Raises:
    InputError: they do not fall, or lie outside (t_min, t_max].
  """
  last, given = float(parts.process.t_max), tuple(float(level) for level in levels)
  chosen = given or (last,)
  falling = all(a > b for a, b in zip(chosen[:-1], chosen[1:], strict=True))
  if not falling or not float(parts.process.t_min) < chosen[-1] or chosen[0] > last * (1 + 1e-6):
    raise InputError(f'levels: got {given}; allowed: falling times above {float(parts.process.t_min):.4g} and up to '
                     f't_max {last:.4g}')  # fmt: skip
  return chosen


def one_step(parts: Parts, level: float) -> Callable[[Params, Data, Cond], Data]:
  """(params, z, cond) -> D(sigma z, level), like z (B, ...): a generator of one evaluation by its noise."""
  t = jnp.asarray(level, jnp.float32)
  sigma = parts.process.schedule(t)[1]
  return lambda params, z, cond=None: parts.denoiser(params)(sigma * z, t, cond).x0


def rollout(parts: Parts, levels: tuple[float, ...]) -> Callable[[Params, KeyBatch, Cond], Data]:
  """(params, keys, cond) -> x (B, ...): what the student makes, of each sample by a random number of evaluations.

  Every number from 1 to len(levels) is as likely; gradients pass the last evaluation alone.
  """
  ts = jnp.asarray(levels, jnp.float32)

  def make(params: Params, key_batch: KeyBatch, cond: Cond = None) -> Data:
    begin, exit, own = keys.split(key_batch, 3)
    last = jnp.floor(keys.uniform(exit) * len(levels)).astype(int)
    denoise = parts.denoiser(params)
    x = approach(denoise, parts.rows(len(key_batch)), ts, (begin, own), last, cond)
    return denoise(x, ts[last], cond).x0

  return make


def approach(
  denoise: Denoiser, like: Data, ts: Array, key_batches: tuple[KeyBatch, KeyBatch], last: Array, cond: Cond = None
) -> Array:
  """What the evaluation of number `last` (B,) is asked, x (B, ...) at ts[last], after those before it; no gradient.

  Args:
    denoise: the student.
    like: what x shall be like, arrays or shapes.
    ts: the levels, falling.
    key_batches: of where a sample begins, and of the noise between levels.
    last: see above.
    cond: of the samples.
  """
  denoise, (begin, own) = stop_gradient(denoise), key_batches
  inputs = [denoise.process.start(begin, like, ts[0])]
  for k in range(len(ts) - 1):
    x0 = denoise(inputs[-1], ts[k], cond).x0
    inputs.append(denoise.process.perturb(x0, keys.normal(keys.fold(own, k), x0), ts[k + 1]))
  return stop_gradient(jnp.stack(inputs)[last, jnp.arange(len(last))])


def drawn_labels(parts: Parts, labels: Sequence[int] = ()) -> Callable[[KeyBatch], Cond]:
  """Makes keys -> labels (B,), drawn evenly from `labels`, or from all; None where the data have none."""
  if not parts.classes:
    return lambda key_batch: None
  among = jnp.asarray(tuple(labels) or range(parts.classes), jnp.int32)
  return lambda key_batch: among[jnp.floor(keys.uniform(key_batch) * len(among)).astype(int)]


def made(parts: Parts, levels: tuple[float, ...], labels: Sequence[int] = ()) -> Callable:
  """(params, keys) -> (x, cond): samples of the student with labels of their own, without data."""
  make, label = rollout(parts, levels), drawn_labels(parts, labels)

  def both(params: Params, key_batch: KeyBatch) -> tuple[Data, Cond]:
    k_label, k_make = keys.split(key_batch, 2)
    cond = label(k_label)
    return make(params, k_make, cond), cond

  return both


def over_levels(parts: Parts, levels: tuple[float, ...]) -> Callable[..., Iterated]:
  """The generator of a method whose student is asked at these levels: len(levels) evaluations, noise between them.

  Raises:
    InputError: `config.sampling.steps` is another number, guidance.
  """
  jump = jump_from(parts, end=0.0)

  def generator(roles: Mapping[str, Any], sampling: Sampling) -> Iterated:
    if sampling.steps != len(levels):
      raise InputError(f'steps: got {sampling.steps}; allowed: {len(levels)}, the levels of the generator')
    if sampling.guided(jump) is not jump:  # type: ignore[arg-type]
      raise InputError('guidance: got some; allowed: none, since generators are guided when they are trained')
    ts = np.asarray(levels)
    rows = tuple(jnp.asarray(row, float) for row in (ts, 0 * ts, np.append(ts[1:], 0.0)))
    law = jnp.asarray(ts[0], float), jnp.zeros(()), jnp.zeros(())
    return Iterated(roles['student'], jump, rows, law, parts.shape)  # type: ignore[arg-type]

  return generator
