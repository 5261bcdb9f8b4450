"""What training is made of: roles that are moved, the phases that move them, and the state that is carried.

`roles` is a dict name -> params: {'student'}, or {'teacher', 'student', 'critic', ...}. A phase moves one of them by
one loss and one optimiser; a method is a tuple of phases, and says how the trained roles draw. One train step
(`diffjax.train.step`) serves them all.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import optax
from flax import struct
from jax import Array

from diffjax.errors import InputError
from diffjax.pytree import PyTree

__all__ = ['Buffer', 'Copy', 'Given', 'Method', 'Phase', 'TrainState', 'active_phases']

Loss = Callable[[dict[str, Any], Any, Array], tuple[Array, dict[str, Array]]]


@dataclass(frozen=True)
class Phase:
  """Move `role` by `optimiser` under `loss` at the steps offset, offset + every, offset + 2 every, ...

  Attributes:
    loss: (roles, batch, key batch (B,)) -> (values (B,) or scalar, aux dict of (B,) arrays). The mean of the values is
      minimised over `roles[role]` alone. aux['t'] and aux['error'] are logged by time bin, the others by their mean.
    name: the phase in logs and optimiser states; the role unless two phases move the same one.
  """

  role: str
  loss: Loss
  optimiser: optax.GradientTransformation
  every: int = 1
  offset: int = 0
  name: str = ''

  def __post_init__(self):
    if self.every < 1 or not 0 <= self.offset < self.every:
      raise InputError(f'phase {self.role}: got every={self.every}, offset={self.offset}; allowed: 0 <= offset < every')
    object.__setattr__(self, 'name', self.name or self.role)


@dataclass(frozen=True)
class Copy:
  """A role that begins as a copy of another and, where `average` is given, follows it as a moving average.

  Attributes:
    average: what `diffjax.train.ema` makes; None leaves the copy as it began (a frozen teacher).
    begins: the source's params -> its own, where it has more than the source; for copies that follow nobody.
  """

  source: str
  average: Any = None
  begins: Callable[[Any], Any] | None = None

  def __post_init__(self):
    if self.average is not None and self.begins is not None:
      raise InputError(
        f'copies: got an average of {self.source} that begins as something else; allowed: one of the two'
      )

  def of(self, params: Any) -> Any:
    """What it begins as, of these params of the source."""
    return params if self.begins is None else self.begins(params)


@dataclass(frozen=True)
class Buffer:
  """What a step keeps beside the roles and renews before its phases: chains, a replay of samples, rollouts.

  Losses find it in `roles` under its name. It is no role: nothing moves it by a gradient. A renewal that is not finite
  is left out.

  Attributes:
    init: key -> arrays.
    renew: (roles, arrays, batch, key) -> arrays, of the same shapes; roles as they are before the step, and in them the
      buffers by name, those that come before this one renewed.
  """

  init: Callable[[Array], Any]
  renew: Callable[[dict[str, Any], Any, Any, Array], Any]


class Given(NamedTuple):
  """Roles whose parameters come from elsewhere: their shapes by role, and what reads them when a run begins."""

  shapes: Mapping[str, Any]
  load: Callable[[], Mapping[str, Any]]


@dataclass(frozen=True)
class Method:
  """Phases in the order in which a step takes them; later ones see what earlier ones moved.

  Attributes:
    copies: role -> role or `Copy` it begins as, of a role that is there before it. Made inside jit(init): an alias
      would die when the state is donated.
    averaged: the roles whose moving averages are kept for sampling; the first phase's unless given.
    init: key -> role -> params, of every role that is neither a copy nor loaded.
    loads: the roles, of 'teacher' and 'base', that begin as the weights of the run which the config names so.
    buffers: what is kept and renewed beside the roles, by name.
    fixed_length: whether its course is laid out over the whole run, which then cannot be made longer.
    needs: what a batch must hold beside 'x' and, where the data have labels, 'cond'.
    conditions: those of `needs` that a generator is given too: its cond is then {'label': labels or None, name: ...}.
    figures: families of figures to evaluate by, beside those of the kind of data (`metrics.FAMILIES`).
    denoiser: role -> params -> the unguided Denoiser, where the method trains one.
    classifier: role -> params -> logits (x, t) -> (B, C) of noisy data, where the method trains them.
    generator: (role -> params, how to sample) -> what draws; `diffjax.methods.generator`.

  Raises:
    InputError: no phases, two phases of one name, a copy of a role that no one initialises, a role with two beginnings.
  """

  phases: tuple[Phase, ...]
  copies: Mapping[str, str | Copy] = field(default_factory=dict)
  averaged: tuple[str, ...] = ()
  init: Callable[[Array], Mapping[str, Any]] | None = None
  loads: tuple[str, ...] = ()
  buffers: Mapping[str, Buffer] = field(default_factory=dict)
  fixed_length: bool = False
  needs: tuple[str, ...] = ()
  conditions: tuple[str, ...] = ()
  figures: tuple[str, ...] = ()
  denoiser: Callable[[Mapping[str, Any]], Any] | None = None
  classifier: Callable[[Mapping[str, Any]], Any] | None = None
  generator: Callable[[Mapping[str, Any], Any], Any] | None = None

  def __post_init__(self):
    phases = tuple(self.phases)
    names = [phase.name for phase in phases]
    if not phases or len(set(names)) < len(names):
      raise InputError(f'phases: got {names}; allowed: at least one, each of another name (give Phase(..., name=))')
    places = list(self.copies)
    early = [role for i, role in enumerate(places) if self.copied[role].source in places[i:]]
    if early:
      raise InputError(f'copies: {early} are made from copies that come later; allowed: a source that is there before')
    twice = sorted({*self.copies, *self.loads} & set(self.buffers) | set(self.copies) & set(self.loads))
    if twice:
      raise InputError(f'copies, loads, buffers: got {twice} in two of them; allowed: one beginning each')
    object.__setattr__(self, 'phases', phases)
    object.__setattr__(self, 'copies', dict(self.copies))
    object.__setattr__(self, 'buffers', dict(self.buffers))
    object.__setattr__(self, 'averaged', tuple(self.averaged) or (phases[0].role,))

  @property
  def copied(self) -> dict[str, Copy]:
    """The copies, each as a `Copy`."""
    return {role: Copy(made) if isinstance(made, str) else made for role, made in self.copies.items()}


class TrainState(PyTree):
  """All that a run carries from step to step, and all that a checkpoint holds.

  Attributes:
    step: () int32, steps done; also the position in the data.
    roles: role -> params.
    opt: phase name -> optimiser state.
    ema: role -> name of the average -> params, float32.
    key: one typed key, never advanced: step i draws from fold_in(key, i).
    skipped: () int32, steps in which a loss or gradient was not finite.
    skipped_in_a_row: () int32, how many of those the last steps were, one after another.
    meter: sums of what is logged since it was last read.
    buffers: name -> what a method keeps and renews beside its roles.
  """

  step: Array
  roles: dict[str, Any]
  opt: dict[str, Any]
  ema: dict[str, dict[str, Any]]
  key: Array
  skipped: Array
  skipped_in_a_row: Array
  meter: dict[str, Any]
  buffers: dict[str, Any] = struct.field(default_factory=dict)


def active_phases(method: Method, step: int) -> tuple[int, ...]:
  """The indices of the phases due at `step`, a static argument of the train step: one program a distinct set."""
  return tuple(i for i, phase in enumerate(method.phases) if step % phase.every == phase.offset)
