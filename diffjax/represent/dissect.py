"""GAN dissection: units of a generator that stand for a class of things, and what becomes of it without them."""

import dataclasses
from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jax import Array

from diffjax.contracts import Cond
from diffjax.errors import InputError
from diffjax.guidance.transform import as_scale
from diffjax.prediction import Denoiser
from diffjax.pytree import PyTree

__all__ = ['Editable', 'Label', 'causal_effect', 'causal_units', 'dissect', 'editable']


class Editable(PyTree):
  """A one-step generator whose units are seen and edited, made by `editable`: (z, keep, add) -> (x, features)."""

  denoise: Denoiser
  cond: Cond
  t: Array
  name: str = dataclasses.field(metadata={'pytree_node': False})

  def __call__(self, z: Array, keep: Any = 1.0, add: Any = 0.0) -> tuple[Array, Array]:
    """The samples of z (B, ...), and the features with which they were made, keep * h + add, (B, ..., units)."""
    inner: Any = self.denoise
    params = inner.params | {'edits': {self.name: (jnp.asarray(keep), jnp.asarray(add))}}
    kind, process = inner.kind, inner.process
    form = kind(process, self.t)
    told = jnp.broadcast_to(form.network_time, (len(z),))
    _, seen = inner.net(params, form.c_in * z, told, self.cond, None)
    edited = inner.replace(params=params, net=dataclasses.replace(inner.net, taps=()))
    return edited(z, self.t, self.cond).x0, seen[self.name]


class Label(NamedTuple):
  """For every unit the class that it overlaps most (U,), its IoU there (U,), and all of them (U, C)."""

  best: Array
  iou: Array
  table: Array


def dissect(features: Array, masks: Array, share: Any = None) -> Label:
  """Labels units by the overlap of where they are on with where a class is.

      IoU(u, c) = |on_u and S_c| / |on_u or S_c|      over all places of n images

  A fixed share q of places in which a unit counts as on, .005 as published, caps the IoU with a class of area p at
  min(p, q) / max(p, q), so that no unit can be given a large class: the area of each class is the share taken here.
  Features are brought to the size of the masks by nearest neighbours.   arXiv:1811.10597

  Args:
    features: (n, h, w, U).
    masks: where each class is, (n, H, W, C) booleans.
    share: of the places in which a unit is on; that of each class where None.

  Raises:
    InputError: images of another number, or a size that features do not divide.
  """
  n, height, width = masks.shape[:3]
  if len(features) != n or height % features.shape[1] or width % features.shape[2]:
    raise InputError(f'features: got {features.shape} for masks of {masks.shape}; allowed: as many images, and a size '
                     'that divides theirs')  # fmt: skip
  grown = jnp.repeat(jnp.repeat(features, height // features.shape[1], 1), width // features.shape[2], 2)
  area = jnp.mean(masks.reshape(-1, masks.shape[-1]), axis=0)
  wanted = area if share is None else jnp.full(area.shape, share)
  flat, there = grown.reshape(-1, grown.shape[-1]), masks.reshape(-1, masks.shape[-1])

  def of_class(c: Array, share: Array) -> Array:
    on, here = flat > jnp.quantile(flat, 1 - share, axis=0), there[:, c][:, None]
    return jnp.sum(on & here, 0) / jnp.maximum(jnp.sum(on | here, 0), 1)

  table = jnp.stack([of_class(jnp.asarray(c), wanted[c]) for c in range(masks.shape[-1])], 1)
  return Label(jnp.argmax(table, 1), jnp.max(table, 1), table)


def causal_effect(
  generate: Callable, presence: Callable, z: Array, chosen: Array, place: Array, level: Array
) -> tuple[Array, Array, Array]:
  """ACE of a set of units on a class: E presence with the units set to `level` at a place - E presence without them.

      h_u <- (1 - a_u M) h_u + a_u M r_u        M the place, r the level, 0 to ablate

  Args:
    generate: (z, keep, add) -> (x, features), such as `editable`.
    presence: x -> how much of the class there is, (B,).
    z: (B, ...).
    chosen: a, (U,) from 0 to 1.
    place: M, (h, w, 1) or (B, h, w, 1), 1 everywhere where ().
    level: r, (U,).

  Returns:
    The effect, and the presence with the units and without them: means over z.

  arXiv:1811.10597
  """
  there = jnp.mean(presence(generate(z, *_edit(chosen, place, level))[0]))
  gone = jnp.mean(presence(generate(z, *_edit(chosen, place, 0.0))[0]))
  return there - gone, there, gone


def causal_units(
  generate: Callable,
  presence: Callable,
  z: Array,
  units: int,
  place: Array,
  level: Array,
  *,
  steps: int = 200,
  learning_rate: float = 0.01,
  penalty: float = 0.005,
) -> Array:
  """How much each unit belongs to the set that makes a class, a in [0, 1]^U, by Adam on minus its effect.

      loss = presence where a is ablated - presence where it is inserted + penalty |a|^2

  The units of the largest a are the set.   arXiv:1811.10597, with the insertion read at its own place

  Args:
    generate: as `causal_effect`.
    presence: as there, differentiable.
    z: a batch, the same in every step.
    units: U.
    place: as there.
    level: as there.
    steps: of Adam.
    learning_rate: of Adam.
    penalty: on the square of a.
  """
  return _found(as_scale(generate), as_scale(presence), z, units, place, level, steps, learning_rate, penalty)


@partial(jax.jit, static_argnames=('units', 'steps'))
def _found(generate, presence, z, units, place, level, steps, rate, penalty):
  optimiser = optax.scale_by_adam()

  def loss(a: Array) -> Array:
    return -causal_effect(generate, presence, z, a, place, level)[0] + penalty * jnp.sum(a**2)

  def step(carry: tuple, _: None) -> tuple[tuple, None]:
    a, state = carry
    move, state = optimiser.update(jax.grad(loss)(a), state)
    return (jnp.clip(a - rate * move, 0, 1), state), None

  a = jnp.full(units, 0.5)
  return jax.lax.scan(step, (a, optimiser.init(a)), None, length=steps)[0][0]


def _edit(chosen: Array, place: Array, level: Any) -> tuple[Array, Array]:
  """(keep, add) of h <- (1 - a M) h + a M r."""
  moved = chosen * place
  return 1 - moved, moved * level


def editable(denoise: Denoiser, name: str, cond: Cond = None, t: Any = None) -> Editable:
  """A denoiser of one network as the one-step generator x0(z, t), its tap `name` seen and edited.

  Args:
    denoise: of a network behind `nets.Apply`; a student of few steps, for one.
    name: one of `Apply.tap_names`.
    cond: of each z.
    t: where the generator is asked, t_max where None.

  Raises:
    InputError: when called, no such tap.
  """
  net: Any = denoise.net
  own = dataclasses.replace(net, taps=(name,), edits=(name,))
  return Editable(denoise.replace(net=own), cond, jnp.asarray(denoise.process.t_max if t is None else t, float), name)
