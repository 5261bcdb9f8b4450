"""Score forgetting distillation: one step that has unlearned a class, without data."""

from collections.abc import Mapping
from typing import Any

import jax.numpy as jnp
from jax import Array

from diffjax import keys
from diffjax.contracts import Cond, Data, KeyBatch, Params
from diffjax.errors import InputError
from diffjax.fewstep.critics import setting
from diffjax.fewstep.direction import ranks
from diffjax.fewstep.rollouts import drawn_labels, rollout
from diffjax.fewstep.score_identity import Asked, identity
from diffjax.methods.parts import Parts
from diffjax.train.roles import Method

__all__ = ['score_forgetting']


def score_forgetting(
  parts: Parts,
  *,
  forget: int,
  override: int | None = None,
  weight: float = 0.01,
  share: float = 0.5,
  level: float = 0.0,
  alpha: float = 1.2,
  low: float = 0.0,
  high: float = 0.8,
  pace: float = 1.0,
) -> Method:
  """One step that makes another class's samples when it is asked for the forgotten one, and the rest as the teacher.

  With the loss L(c, c') of `score_identity` for a teacher told c' and a student and critic told c,
      E L(c, c) over the classes that remain  +  lam L(forgotten, override),
  and the critic learns what is made of each with the same weights. Data are not read.   arXiv:2409.11219

  Args:
    parts: with a teacher of this process, and labels.
    forget: the class.
    override: what is made in its place; another one drawn evenly for each sample unless given.
    weight: lam.
    share: of a batch's rows that are asked for the forgotten class, on average; of no effect on expected values.
    level: the time at which the student is asked; t_max unless positive.
    alpha: as of `score_identity`.
    low: the least rank on EDM's ladder that is drawn.
    high: the greatest.
    pace: the critic's learning rate over the student's.

  Raises:
    InputError: no labels, a class that there is not or that overrides itself; no teacher, or one that does not fit; a
      number out of its range.
  """
  own = setting(parts, levels=(level,) if level else (), pace=pace)
  known = range(parts.classes)
  if forget not in known or len(known) < 2 or (override is not None and (override not in known or override == forget)):
    raise InputError(f'forget, override: got {forget}, {override}; allowed: two of the {parts.classes} labels of the '
                     'data, or None for override')  # fmt: skip
  if not (weight > 0 and 0 < share < 1):
    raise InputError(f'weight, share: got {weight}, {share}; allowed: a positive number, and a share between 0 and 1')
  make, remaining = rollout(parts, own.levels), drawn_labels(parts, [label for label in known if label != forget])

  def both(params: Params, key_batch: KeyBatch) -> tuple[Data, Cond]:
    coin, k_label, k_make = keys.split(key_batch, 3)
    label = jnp.where(keys.bernoulli(coin, share), forget, remaining(k_label))
    return make(params, k_make, label), label

  def weights(label: Cond) -> Array:
    return jnp.where(label == forget, weight / share, 1 / (1 - share))

  def asked(roles: Mapping[str, Any], label: Cond, key_batch: Array) -> Asked:
    instead = remaining(key_batch) if override is None else override
    return own.teacher(roles), jnp.where(label == forget, instead, label), own.critic(roles), label, weights(label)

  loss = identity(both, asked, parts.process, ranks(low, high), alpha)
  return own.method((own.critic_phase(own.learned(both, weights)), own.student_phase(loss)))
