"""Discriminators: networks of a role of their own, or heads on a feature of another role's, and what they are shown."""

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple, Protocol

import jax
import jax.numpy as jnp
from jax import Array

from diffjax import nets
from diffjax.contracts import Cond, KeyBatch, Params
from diffjax.dtypes import widened
from diffjax.errors import InputError
from diffjax.fewstep.jumps import coordinate
from diffjax.kinds import Kind
from diffjax.methods.parts import Parts
from diffjax.process import Process, expand

__all__ = ['Draw', 'Headed', 'Judge', 'Network', 'Shown', 'judge_of']


class Shown(NamedTuple):
  """What is judged: x (B, ...) at times t (B,), its condition, and what it was made from where that is told."""

  x: Array
  t: Array
  cond: Cond = None
  beside: Array | None = None


Draw = Callable[[Mapping[str, Any], Any, KeyBatch], Shown]
"""(roles, batch, keys (B,)) -> Shown. A discriminator's step hands one key to both of its draws, which share noise by
it or not; the loss is a sum over the two, so its mean does not depend on that."""


class Judge(Protocol):
  """The logit of being real, (roles, Shown) -> (B,) float32, whose own weights are those of `role`."""

  @property
  def role(self) -> str:
    """The role that a discriminator's phase moves."""
    ...

  def __call__(self, roles: Mapping[str, Any], shown: Shown) -> Array:
    """The logits."""
    ...


class Network(NamedTuple):
  """A discriminator that is a network: the mean of its output over positions.

  Attributes:
    net: (params, x, t, cond, key) -> (B, ..., 1), of x and what is beside it along the last axis.
    process, kind: of the scale of x and the time coordinate that it is told.
    like: zeros in the shapes of (x, t, cond).
    beside: whether it sees what x was made from.
    role: of its weights.
  """

  net: Any
  process: Process
  kind: Kind
  like: tuple[Array, Array, Cond]
  beside: bool = False
  role: str = 'discriminator'

  def init(self, key: Array) -> Params:
    """Fresh weights."""
    x, t, cond = self.like
    return self.net.init(key, jnp.concatenate([x, x], -1) if self.beside else x, t, cond)

  def __call__(self, roles: Mapping[str, Any], shown: Shown) -> Array:
    """The logits (B,)."""
    x, told = scaled(self.process, self.kind, shown)
    if shown.beside is not None and self.beside:
      x = jnp.concatenate([x, shown.beside], -1)
    return mean_of(self.net(roles[self.role], x, told, shown.cond, None))


class Headed(NamedTuple):
  """A discriminator that is a head on a feature of another role's network.

  Attributes:
    trunk: (params, x, t, cond, key) -> (out, {name: feature}), a network with a tap (`nets.Apply.taps`).
    head: a network of a feature, its output as of `Network`.
    process, kind, like: as of `Network`.
    features: the role whose weights the trunk has.
    role: of the head's weights.
  """

  trunk: Any
  head: Any
  process: Process
  kind: Kind
  like: tuple[Array, Array, Cond]
  features: str = 'teacher'
  role: str = 'discriminator'

  def init(self, key: Array) -> Params:
    """Fresh weights of the head."""
    x, t, cond = self.like
    _, taps = jax.eval_shape(lambda: self.trunk(self.trunk.init(key, x, t, cond), x, t, cond, None))
    (feature,) = taps.values()
    return self.head.init(key, jnp.zeros(feature.shape, jnp.float32), t)

  def __call__(self, roles: Mapping[str, Any], shown: Shown) -> Array:
    """The logits (B,)."""
    x, told = scaled(self.process, self.kind, shown)
    _, taps = self.trunk(roles[self.features], x, told, shown.cond, None)
    (feature,) = taps.values()
    return mean_of(self.head(roles[self.role], widened(feature), told, None, None))


def scaled(process: Process, kind: Kind, shown: Shown) -> tuple[Array, Array]:
  """What a network is handed for x and its time."""
  c_in, told = coordinate(process, kind, shown.t)
  return expand(c_in, shown.x) * shown.x, told


def mean_of(out: Array) -> Array:
  """The mean over all but the batch, float32."""
  return jnp.mean(widened(out).reshape(len(out), -1), -1)


def judge_of(parts: Parts, spec: Any = None, *, beside: bool = False) -> Any:
  """The discriminator of a recipe.

  Args:
    parts: what the config has made.
    spec: dict(name=..., **options) of `diffjax.nets`; the student's architecture with one output channel unless given.
      With feature=..., a tap of the teacher's network, it is a head on that feature of the frozen teacher.
    beside: whether it sees what x was made from.

  Raises:
    InputError: another name, options that the network does not take, a student's network without an output channel, or
      a feature without a teacher's network.
  """
  if spec is not None and 'feature' in spec:
    return _headed(parts, dict(spec), beside)
  if spec is None:
    module: Any = getattr(parts.net, 'module', None)
    if not hasattr(module, 'out_channels'):
      raise InputError('discriminator: got none, for a student whose network cannot have one output channel; allowed: '
                       'dict(name=..., **options) of a network')  # fmt: skip
    one = {'times': 1} if hasattr(module, 'times') else {}
    net = dataclasses.replace(parts.net, module=module.clone(out_channels=1, **one), taps=(), hooks=())
  else:
    net = _named(dict(spec), parts.classes)
  return Network(net, parts.process, parts.kind, parts.inputs(1), beside)


def _headed(parts: Parts, options: dict[str, Any], beside: bool) -> Headed:
  teacher = parts.teacher
  if teacher is None or teacher.net is None or beside:
    raise InputError(f'discriminator: got feature={options["feature"]!r}; allowed: with a teacher that is a network, '
                     'where the discriminator sees x alone')  # fmt: skip
  trunk = dataclasses.replace(teacher.net, taps=(options.pop('feature'),))
  return Headed(trunk, _named(options, 0), parts.process, teacher.kind, parts.inputs(1))  # type: ignore[arg-type]


def _named(options: dict[str, Any], classes: int) -> Any:
  known = [name for name in nets.__all__ if name.islower()]
  name = options.pop('name', None)
  if name not in known:
    raise InputError(f'discriminator: got {name!r}; allowed: {", ".join(known)}')
  try:
    return getattr(nets, name)(**(dict(out_channels=1, classes=classes) | options))
  except TypeError:
    raise InputError(f'discriminator: got {name} with {", ".join(options)}; allowed: the options of {name}') from None
