"""Adversarial terms: a discriminator tells data from what a student makes, and the student learns to be taken for data.

    L_D = softplus(-l(x)) + softplus(l(x')) + (gamma / 2) |grad_x l(x)|^2,     L_G = softplus(-l(x'))

x real, x' made, l the logit of being real, told the time, the condition and perhaps what x was made from. Who makes x
and x' is a `Draw`; `at_level` noises what one draws. Both losses have the form of a phase, a value an example.
arXiv:1406.2661, arXiv:1801.04406 eq. 9
"""

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple, Protocol

import jax
import jax.numpy as jnp
import optax
from jax import Array
from jax.lax import stop_gradient

from diffjax import keys, nets
from diffjax.contracts import Cond, KeyBatch, Params
from diffjax.dtypes import widened
from diffjax.errors import InputError
from diffjax.fewstep.flow_map import PROGRESS
from diffjax.fewstep.jumps import coordinate
from diffjax.kinds import Kind
from diffjax.losses.times import TimeLaw
from diffjax.methods.parts import Parts
from diffjax.process import Process, expand

__all__ = ['Draw', 'Headed', 'Judge', 'Network', 'Shown', 'at_level', 'discriminator_loss', 'from_data',
           'generator_loss', 'judge_of', 'only', 'paced']  # fmt: skip

Loss = Callable[[dict[str, Any], Any, Array], tuple[Array, dict[str, Array]]]


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
    if self.beside:
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


def judge_of(parts: Parts, spec: Any = None, *, beside: bool = False) -> Network:
  """The discriminator of a recipe.

  Args:
    parts: what the config has made.
    spec: dict(name=..., **options) of `diffjax.nets`; the student's architecture with one output channel unless given.
    beside: whether it sees what x was made from.

  Raises:
    InputError: another name, options that the network does not take, or a student's network without an output channel.
  """
  if spec is None:
    module = getattr(parts.net, 'module', None)
    if not hasattr(module, 'out_channels'):
      raise InputError('discriminator: got none, for a student whose network cannot have one output channel; allowed: '
                       'dict(name=..., **options) of a network')  # fmt: skip
    one = {'times': 1} if hasattr(module, 'times') else {}
    net = dataclasses.replace(parts.net, module=module.clone(out_channels=1, **one), taps=(), hooks=())
  else:
    net = _named(dict(spec), parts.classes)
  return Network(net, parts.process, parts.kind, parts.inputs(1), beside)


def _named(options: dict[str, Any], classes: int) -> Any:
  known = [name for name in nets.__all__ if name.islower()]
  name = options.pop('name', None)
  if name not in known:
    raise InputError(f'discriminator: got {name!r}; allowed: {", ".join(known)}')
  try:
    return getattr(nets, name)(**(dict(out_channels=1, classes=classes) | options))
  except TypeError:
    raise InputError(f'discriminator: got {name} with {", ".join(options)}; allowed: the options of {name}') from None


def paced(parts: Parts, pace: float = 1.0) -> optax.GradientTransformation:
  """The run's optimiser with its learning rate times `pace`, for a discriminator that is to be faster or slower."""
  if not pace > 0:
    raise InputError(f'pace: got {pace}; allowed: a positive multiple of the learning rate')
  return parts.optimiser() if pace == 1 else optax.chain(parts.optimiser(), optax.scale(pace))


def from_data(roles: Mapping[str, Any], batch: Any, key_batch: KeyBatch) -> Shown:
  """The data as they are, at t = 0."""
  x = widened(batch['x'])
  return Shown(x, jnp.zeros(len(x), x.dtype), batch.get('cond'))


def at_level(draw: Draw, process: Process, law: TimeLaw) -> Draw:
  """What another draws at t = 0, noised to a time of a law: x_t = alpha_t x + sigma_t eps.

  Real and made then overlap, which keeps the discriminator's gradient alive.   arXiv:2206.02262
  """

  def noised(roles: Mapping[str, Any], batch: Any, key_batch: KeyBatch) -> Shown:
    shown = draw(roles, batch, key_batch)
    k_t, k_eps = keys.split(keys.fold(key_batch, 2), 2)
    t = law(process, k_t)
    return shown._replace(x=process.perturb(shown.x, keys.normal(k_eps, shown.x), t), t=t)

  return noised


def only(roles: Mapping[str, Any], *names: str) -> dict[str, Any]:
  """The roles, with gradients in these alone."""
  return {name: tree if name in names else stop_gradient(tree) for name, tree in roles.items()}


def generator_loss(judge: Judge, made: Draw, *, moves: str = 'student') -> Loss:
  """The non-saturating loss softplus(-l(x')) of the role that makes x'.

  Args:
    judge: l; its weights get no gradient.
    made: draws x', with a gradient.
    moves: the role that gets one.
  """

  def loss(roles: dict[str, Any], batch: Any, key: Array) -> tuple[Array, dict[str, Array]]:
    roles = only(roles, moves)
    shown = made(roles, batch, keys.per_sample(key, len(batch['x'])))
    error = jax.nn.softplus(-judge(roles, shown))
    return error, {'t': shown.t, 'error': error}

  return loss


def discriminator_loss(
  judge: Judge, real: Draw, made: Draw, *, r1: float = 0.0, every: int = 1, moves: tuple[str, ...] = ()
) -> Loss:
  """The discriminator's loss softplus(-l(x)) + softplus(l(x')) + (r1 / 2) |grad_x l(x)|^2.

  Args:
    judge: l.
    real: draws x.
    made: draws x'; no gradient passes through it.
    r1: the weight of the penalty, which looks at x alone and not at what is beside it.   arXiv:1801.04406 eq. 9
    every: the penalty is there in one step of so many, not multiplied by their number; a method then keeps
      `flow_map.progress()` under `flow_map.PROGRESS`.
    moves: the roles that get a gradient; the judge's own unless given.

  Raises:
    InputError: a negative weight, or a penalty in no step.
  """
  if r1 < 0 or every < 1:
    raise InputError(f'r1, every: got {r1}, {every}; allowed: at least 0, and a whole number of at least 1')

  def loss(roles: dict[str, Any], batch: Any, key: Array) -> tuple[Array, dict[str, Array]]:
    key = keys.per_sample(key, len(batch['x']))
    roles = only(roles, *(moves or (judge.role,)))
    x, other = (stop_gradient(draw(roles, batch, key)) for draw in (real, made))
    yes, no = judge(roles, x), judge(roles, other)
    error = jax.nn.softplus(-yes) + jax.nn.softplus(no)
    aux = {'t': x.t, 'error': error, 'real': yes, 'made': no}
    if not r1:
      return error, aux

    def penalty() -> Array:
      return 0.5 * r1 * slope_square(judge, roles, x)

    due = roles[PROGRESS] % every == 0 if every > 1 else None
    extra = penalty() if due is None else jax.lax.cond(due, penalty, lambda: jnp.zeros_like(error))
    return error + extra, {**aux, 'r1': extra}

  return loss


def slope_square(judge: Judge, roles: Mapping[str, Any], shown: Shown) -> Array:
  """|grad_x l(x)|^2 of each example, over all of its dimensions, (B,)."""
  grad = jax.grad(lambda x: jnp.sum(judge(roles, shown._replace(x=x))))(shown.x)
  return jnp.sum(widened(grad).reshape(len(grad), -1) ** 2, -1)
