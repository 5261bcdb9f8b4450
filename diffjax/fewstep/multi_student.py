"""Multi-student distillation: the labels are shared out among students, each of which learns its own alone."""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from flax import struct
from jax import Array

from diffjax import keys
from diffjax.contracts import Cond, Data, KeyBatch
from diffjax.errors import InputError
from diffjax.fewstep.distribution_matching_2 import distribution_matching_2
from diffjax.methods.parts import Parts, Sampling
from diffjax.pytree import PyTree
from diffjax.train.roles import Buffer, Copy, Method, Phase

__all__ = ['multi_student', 'shared_out']

SHARED = ('teacher', 'base')


def multi_student(parts: Parts, *, students: int = 4, shares: Sequence[Sequence[int]] = (), **options: Any) -> Method:
  """Several students, each of `distribution_matching_2` for a share of the labels; a label is drawn by its student.

  Roles are student_k, critic_k and discriminator_k, k from 0; all of them begin as the same teacher. Each sees the data
  of its labels alone. One student of all labels is `distribution_matching_2`.   arXiv:2410.23274

  Args:
    parts: with labels and a teacher of this process.
    students: how many; labels are shared out in consecutive runs of equal length, or nearly.
    shares: the labels of each, in place of that.
    options: of `distribution_matching_2`.

  Raises:
    InputError: no labels, labels that are in no share or in two, and what `distribution_matching_2` refuses.
  """
  own = tuple(tuple(share) for share in shares) or shared_out(parts.classes, students)
  if sorted(label for share in own for label in share) != list(range(parts.classes)) or not all(own) or not own:
    raise InputError(f'students, shares: got {students}, {tuple(shares)}; allowed: each of the {parts.classes} labels '
                     'in one share, and none empty')  # fmt: skip
  if 'labels' in options:
    raise InputError('labels: got some; allowed: none, as shares says which')
  each = [distribution_matching_2(parts, labels=share, **options) for share in own]
  return together(each, own, parts)


def shared_out(classes: int, students: int) -> tuple[tuple[int, ...], ...]:
  """Consecutive labels, as many for each of the students or nearly."""
  ends = [classes * k // max(students, 1) for k in range(students + 1)]
  return tuple(tuple(range(a, b)) for a, b in zip(ends[:-1], ends[1:], strict=True))


def together(methods: Sequence[Method], shares: Sequence[Sequence[int]], parts: Parts) -> Method:
  """One method of several of a kind, each with roles and buffers of its own but for the teacher."""

  def named(name: str, k: int) -> str:
    return name if name in SHARED else f'{name}_{k}'

  def seen(roles: Mapping[str, Any], k: int) -> dict[str, Any]:
    """The roles as method k knows them."""
    mine = {name.removesuffix(f'_{k}'): tree for name, tree in roles.items() if name.endswith(f'_{k}')}
    return {name: roles[name] for name in SHARED if name in roles} | mine

  def phase_of(phase: Phase, k: int) -> Phase:
    loss = lambda roles, batch, key: phase.loss(seen(roles, k), among(batch, shares[k], key), key)  # noqa: E731
    return dataclasses.replace(phase, role=named(phase.role, k), name=named(phase.name, k), loss=loss)

  def buffer_of(buffer: Buffer, k: int) -> Buffer:
    return Buffer(buffer.init, lambda roles, kept, batch, key: buffer.renew(seen(roles, k), kept, batch, key))

  def copy_of(copy: Copy, k: int) -> Copy:
    return dataclasses.replace(copy, source=named(copy.source, k))

  def init(key: Array) -> dict[str, Any]:
    begun = [method.init(jax.random.fold_in(key, k) if k else key) if method.init else {} for k, method in many]
    return {named(role, k): params for k, roles in enumerate(begun) for role, params in roles.items()}

  def generator(roles: Mapping[str, Any], sampling: Sampling) -> Routed:
    drawn = tuple(method.generator(seen(roles, k), sampling) for k, method in many)  # type: ignore[misc]
    owner = [k for label in range(parts.classes) for k, share in enumerate(shares) if label in share]
    return Routed(drawn, jnp.asarray(owner, jnp.int32), parts.classes)

  many = list(enumerate(methods))
  return Method(
    tuple(phase_of(phase, k) for k, method in many for phase in method.phases),
    copies={named(role, k): copy_of(copy, k) for k, method in many for role, copy in method.copied.items()},
    averaged=tuple(named(role, k) for k, method in many for role in method.averaged),
    init=init,
    loads=methods[0].loads,
    buffers={named(name, k): buffer_of(buffer, k) for k, method in many for name, buffer in method.buffers.items()},
    generator=generator,
  )


def among(batch: Any, share: Sequence[int], key: Array) -> Any:
  """The batch with its rows of other labels replaced by drawn ones of these; as it is without labels of theirs."""
  if 'cond' not in batch:
    return batch
  inside = jnp.any(batch['cond'][:, None] == jnp.asarray(tuple(share), jnp.int32), 1)
  logits = jnp.where(inside, 0.0, -jnp.inf)
  own = keys.fold(keys.per_sample(key, len(inside)), 3)
  other = jax.vmap(lambda k: jax.random.categorical(k, logits))(own)
  rows = jnp.where(inside | ~jnp.any(inside), jnp.arange(len(inside)), other)
  return jax.tree.map(lambda leaf: leaf[rows], batch)


class Routed(PyTree):
  """Generators of which each draws the samples of its own labels.

  In a batch each of them is run on all rows and a row keeps its own: one evaluation of a network makes a sample, and a
  mixed batch costs as many as there are generators.

  Attributes:
    drawn: the generators.
    owner: label -> which of them, (classes,).
    classes: the number of labels.
  """

  drawn: tuple[Any, ...]
  owner: Array
  classes: int = struct.field(pytree_node=False)

  @property
  def nfe(self) -> int:
    """Evaluations of a sample's own network."""
    return self.drawn[0].nfe

  @property
  def cost(self) -> float:
    """Forwards that a sample of a mixed batch costs."""
    return sum(draw.cost for draw in self.drawn)

  def check_cond(self, cond: Cond, field: str = 'cond') -> None:
    """Raises InputError for labels that there are not, or none."""
    if cond is None:
      raise InputError(f'{field}: got none; allowed: labels, which say who draws')
    for draw in self.drawn:
      draw.check_cond(cond, field)

  def __call__(self, key_batch: KeyBatch, cond: Cond = None) -> Data:
    """The samples, one a key."""
    self.check_cond(cond)
    each = jnp.stack([draw(key_batch, cond) for draw in self.drawn])
    return each[self.owner[cond], jnp.arange(len(key_batch))]
