"""All but One: a class is erased from a model by an edit of its guidance, its unconditional predictions pinned."""

from typing import Any

import jax
import jax.numpy as jnp
from jax import Array
from jax.lax import stop_gradient

from diffjax.errors import InputError
from diffjax.guidance import branches
from diffjax.losses.denoising import mean_square, started
from diffjax.losses.times import uniform
from diffjax.methods.parts import Parts
from diffjax.methods.starts import tuned, tuning
from diffjax.train.roles import Method, Phase

__all__ = ['all_but_one']


def all_but_one(
  parts: Parts, *, erase: int, instead: int, away: float = 0.5, pin: float = 1.0, keep: float = 1.0
) -> Method:
  """All but One: asked for the erased class the model makes another one, and the rest as before.

  With the guidance term d(c) = eps(x, c) - eps(x, none), * the frozen base and sg no gradient:

      |eps(x, erased) - sg eps(x, none) - [d*(instead) - away (eps*(x, erased) - eps*(x, instead))]|^2
        + pin |eps(x, none) - eps*(x, none)|^2 + keep |eps(x, c) - eps*(x, c)|^2

  c the label of the example where it is not the erased one. Where it is 0, guidance of scale w has the weights
  w (1 + away) on instead, -w away on the erased class and 1 - w on none. After the abstract alone: no code or text of
  the formula was found.   arXiv:2312.12807

  Args:
    parts: with a base, the run that is tuned, which was trained with its null label too.
    erase: the class.
    instead: the class made in its place.
    away: eta, how far from the erased one.
    pin: mu, of the unconditional predictions.
    keep: of the other classes.

  Raises:
    InputError: no base or one that does not fit, a class that there is not, or the same twice, a negative number.
  """
  base = tuned(parts)
  if len({erase, instead} & set(range(parts.classes))) < 2:
    raise InputError(f'erase, instead: got {erase}, {instead}; allowed: two of the {parts.classes} labels of the data')
  if min(away, pin, keep) < 0:
    raise InputError(f'away, pin, keep: got {away:g}, {pin:g}, {keep:g}; allowed: numbers from 0')

  def loss(roles: dict[str, Any], batch: Any, key: Array) -> tuple[Array, dict[str, Array]]:
    x0, eps, t, label, _ = started(parts.process, uniform(), batch, key)
    x = parts.process.perturb(x0, eps, t)
    none, erased, other = (jnp.full_like(label, c) for c in (parts.classes, erase, instead))
    student, frozen = base.denoiser(roles['student']), base.denoiser(stop_gradient(roles['base']))
    own, _ = branches(student, x, t, (none, erased, label))
    old, _ = branches(frozen, x, t, (none, erased, label, other))
    null, gone, kept = (pred.eps for pred in own)
    null_old, gone_old, kept_old, other_old = (pred.eps for pred in old)
    wanted = stop_gradient(null) + edited(null_old, gone_old, other_old, away)
    edit, drift = mean_square(gone, wanted), mean_square(null, null_old)
    rest = jnp.where(label == erase, 0, mean_square(kept, kept_old))
    return edit + pin * drift + keep * rest, {'edit': edit, 'drift': drift, 'rest': rest}

  return Method(phases=(Phase('student', loss, parts.optimiser()),), **tuning(base))


def edited(none: Array, erased: Array, instead: Array, away: Any) -> Array:
  """The guidance term that the erased class shall have: (instead - none) - away (erased - instead)."""
  return jax.tree.map(lambda n, e, i: (i - n) - away * (e - i), none, erased, instead)
