"""What is common to methods that give what a student makes the law of its teacher: who makes, teaches and learns it.

The critic is a network like the teacher's that learns, by denoising, the law of what the student makes. Where teacher
and critic agree at every noise level, so do the laws. None of this reads data.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import jax
from jax import Array

from diffjax import losses
from diffjax.contracts import Cond
from diffjax.errors import InputError
from diffjax.fewstep.adversarial import paced
from diffjax.fewstep.direction import Field, Loss, Made, denoised, ranks
from diffjax.fewstep.rollouts import levels_of, made, over_levels
from diffjax.fewstep.segments import taught
from diffjax.methods.parts import Parts, Source
from diffjax.methods.starts import loads, same_network
from diffjax.prediction import Denoise
from diffjax.train.roles import Copy, Method, Phase

__all__ = ['Setting', 'setting']


@dataclass(frozen=True)
class Setting:
  """The teacher, the student and the critic of a run; made by `setting`.

  Attributes:
    parts: what the config has made; its net is the student's, the critic's is the teacher's where that has one.
    source: the teacher.
    teacher: roles -> its denoiser, guided.
    levels: the times at which the student is asked when it makes a sample.
    labels: those it is asked for; () for all.
    pace: the critic's learning rate over the student's.
  """

  parts: Parts
  source: Source
  teacher: Callable[[Mapping[str, Any]], Denoise]
  levels: tuple[float, ...]
  labels: tuple[int, ...]
  pace: float

  @property
  def make(self) -> Made:
    """(the student's params, keys) -> (x, cond)."""
    return made(self.parts, self.levels, self.labels)

  def critic(self, roles: Mapping[str, Any]) -> Denoise:
    """The critic's denoiser, which is never guided."""
    closed = self.source.kind is None
    return (self.parts.denoiser if closed else self.source.denoiser)(roles['critic'])

  def fields(self, roles: Mapping[str, Any], cond: Cond) -> tuple[Field, Field]:
    """The teacher's residual and, taken away, the critic's."""
    return Field(1.0, self.teacher(roles), cond), Field(-1.0, self.critic(roles), cond)

  def learned(self, make: Made | None = None, weigh: Callable[[Cond], Array] | None = None) -> Loss:
    """The critic's denoising loss on what the student makes, its levels even in rank; `weigh` as of `denoised`."""
    closed, parts = self.source.kind is None, self.parts
    net, kind = (parts.net, parts.kind) if closed else (self.source.net, self.source.kind)
    plain = losses.denoising(parts.process, net, kind, times=ranks(0.0, 1.0), role='critic')  # type: ignore[arg-type]
    return denoised(make or self.make, plain, weigh=weigh)

  def critic_phase(self, loss: Loss | None = None) -> Phase:
    """The critic moves at every step."""
    return Phase('critic', loss or self.learned(), paced(self.parts, self.pace))

  def student_phase(self, loss: Loss, every: int = 1) -> Phase:
    """The student moves at the last of each `every` steps, after the critic."""
    if every < 1:
      raise InputError(f'every: got {every}; allowed: a whole number of at least 1')
    own = self.parts.optimiser() if every == 1 else self.parts.optimiser(max(self.parts.steps // every, 1))
    return Phase('student', loss, own, every, every - 1)

  def method(self, phases: Sequence[Phase], *, init: Callable[[Array], Any] | None = None, **more: Any) -> Method:
    """The method of these phases: student and critic begin as the teacher where they can, and afresh elsewhere.

    `init` makes what there is beside them; `more` goes into `Method`.
    """
    parts = self.parts
    copies: dict[str, str | Copy] = {} if self.source.kind is None else {'critic': 'teacher'}
    if same_network(parts, self.source):
      copies['student'] = 'teacher'

    def begin(key: Array) -> dict[str, Any]:
      fresh = {'student': parts.init(key), 'critic': parts.init(jax.random.fold_in(key, 1))}
      others = {} if init is None else init(jax.random.fold_in(key, 2))
      return {name: params for name, params in fresh.items() if name not in copies} | others

    return Method(
      tuple(phases),
      copies=copies,
      averaged=('student',),
      init=begin,
      loads=loads(self.source),
      generator=over_levels(parts, self.levels),
      **more,
    )


def setting(
  parts: Parts, *, levels: Sequence[float] = (), labels: Sequence[int] = (), scale: float = 1.0, pace: float = 1.0
) -> Setting:
  """The setting of a recipe.

  Args:
    parts: what the config has made.
    levels: see `rollouts.levels_of`; t_max alone unless given.
    labels: those that the student is asked for; all unless given.
    scale: of the teacher's guidance.
    pace: the critic's learning rate over the student's.

  Raises:
    InputError: no teacher or one that does not fit, levels or labels that there are not, a pace that is not positive.
  """
  source, teacher = taught(parts, scale)
  wrong = [label for label in labels if not 0 <= label < parts.classes]
  if wrong:
    raise InputError(f'labels: got {wrong[0]}; allowed: those of the data, below {parts.classes}')
  return Setting(parts, source, teacher, levels_of(parts, levels), tuple(labels), pace)
