"""Adversarial terms: a discriminator tells data from what a student makes, and the student learns to be taken for data.

    L_D = softplus(-l(x)) + softplus(l(x')) + (gamma / 2) |grad_x l(x)|^2,     L_G = softplus(-l(x'))

x real, x' made, l the logit of being real, told the time, the condition and perhaps what x was made from. Who makes x
and x' is a `Draw`; `at_level` noises what one draws. Both losses have the form of a phase, a value an example.
arXiv:1406.2661, arXiv:1801.04406 eq. 9
"""

from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import optax
from jax import Array
from jax.lax import stop_gradient

from diffjax import keys
from diffjax.contracts import KeyBatch
from diffjax.dtypes import widened
from diffjax.errors import InputError
from diffjax.fewstep.flow_map import PROGRESS
from diffjax.fewstep.judges import Draw, Headed, Judge, Network, Shown, judge_of
from diffjax.losses.times import TimeLaw
from diffjax.methods.parts import Parts
from diffjax.process import Process

__all__ = ['Draw', 'Headed', 'Judge', 'Network', 'Shown', 'at_level', 'discriminator_loss', 'from_data',
           'generator_loss', 'judge_of', 'only', 'paced']  # fmt: skip

Loss = Callable[[dict[str, Any], Any, Array], tuple[Array, dict[str, Array]]]


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
