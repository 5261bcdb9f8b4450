"""A student with a loss of its own and, beside it, a discriminator that it is to deceive."""

import dataclasses
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp

from diffjax.contracts import KeyBatch
from diffjax.fewstep.adversarial import Draw, Headed, Network, Shown, discriminator_loss, generator_loss, paced
from diffjax.fewstep.flow_map import PROGRESS, added, drawn, progress
from diffjax.fewstep.jumps import Jump
from diffjax.fewstep.pairs import Law
from diffjax.methods.parts import Parts
from diffjax.train.roles import Method, Phase

__all__ = ['contested', 'from_jump']


def from_jump(jump: Jump, law: Law, role: str = 'student') -> Draw:
  """Where jumps lead from noised data, to the jumps' end; they are judged as data are, at t = 0."""

  def draw(roles: Mapping[str, Any], batch: Any, key_batch: KeyBatch) -> Shown:
    at, point, k_net = drawn(jump.process, law, roles, batch, key_batch)
    x = jump(roles[role], point.x, at.t, jump.end, point.cond, k_net)
    return Shown(x, jnp.zeros_like(at.t), point.cond)

  return draw


def contested(
  method: Method,
  parts: Parts,
  judge: Network | Headed,
  real: Draw,
  made: Draw,
  *,
  most: float,
  least: float = 0.0,
  leaf: str = '',
  start: int = 0,
  pace: float = 1.0,
) -> Method:
  """The method with an adversarial term in its first phase and a last phase that moves the discriminator.

  Args:
    method: whose first phase moves the student.
    parts: of the recipe.
    judge: the discriminator.
    real: draws what it is to call real.
    made: draws what the student makes.
    most: of the term's weight, see `flow_map.added`.
    least: of it.
    leaf: of it.
    start: of it.
    pace: the discriminator's learning rate as a multiple of the student's.
  """
  first, *others = method.phases
  term = generator_loss(judge, made)
  loss = added(first.loss, term, name='adversarial', most=most, least=least, leaf=leaf, start=start)
  judging = Phase(judge.role, discriminator_loss(judge, real, made), paced(parts, pace))
  begin = method.init or (lambda key: {'student': parts.init(key)})
  read = (judge.features,) if isinstance(judge, Headed) and judge.features not in method.loads else ()
  return dataclasses.replace(
    method,
    phases=(dataclasses.replace(first, loss=loss), *others, judging),
    init=lambda key: {**begin(key), judge.role: judge.init(jax.random.fold_in(key, 1))},
    loads=(*method.loads, *read),
    buffers={PROGRESS: progress(), **method.buffers} if start else method.buffers,
    fixed_length=method.fixed_length or start > 0,
  )
