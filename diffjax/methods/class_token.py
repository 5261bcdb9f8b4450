"""Discriminative class tokens: one row of a trained network's label table is fitted so that a reward sees the class."""

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array
from jax.lax import stop_gradient

from diffjax import keys, rewards
from diffjax.contracts import Params
from diffjax.errors import InputError
from diffjax.guidance import cfg
from diffjax.methods.generator import Generator
from diffjax.methods.parts import Parts, Sampling
from diffjax.methods.starts import tuned
from diffjax.solvers import ddim, grids, sample
from diffjax.train.roles import Copy, Method, Phase

__all__ = ['class_token']


def class_token(
  parts: Parts,
  *,
  reward: Any,
  label: int,
  begin: int | None = None,
  steps: int = 30,
  scale: float = 7.0,
  images: int = 5,
) -> Method:
  """Discriminative class tokens: the embedding of one label is all that moves, by the reward of what is made of it.

      max_e  E r(x0_hat(x_t; e)),     x_t of all DDIM steps but the last, taken without a gradient

  both branches of the guidance see the gradient of the last step. Noises are the same at every step of training. The
  published run stops where a classifier is right for 70% of a batch, or after 15 steps without a new least; here it
  takes `config.train.steps`, by AdamW of rate .00125 and decay .01 if as published.   arXiv:2303.17155

  Args:
    parts: with a base, the run whose label it is.
    reward: of `diffjax.rewards`, a name or a dict of a name and its options, with a gradient; `digit` is a classifier.
    label: whose row moves, and which samples are asked for.
    begin: the label whose row it begins as; its own unless given.
    steps: of DDIM, evenly in t.
    scale: of the guidance, 1 for none; published 7.
    images: a step; published 5.

  Raises:
    InputError: no base or one that does not fit, a network without a label table, a label that there is not, a reward
      of another name, a number out of its range.
  """
  base, worth = tuned(parts), rewards.named(reward)
  begin = label if begin is None else begin
  if not {label, begin} <= set(range(parts.classes)):
    raise InputError(f'label, begin: got {label}, {begin}; allowed: of the {parts.classes} labels of the data')
  if steps < 2 or images < 1 or scale < 0:
    raise InputError(f'steps, images, scale: got {steps}, {images}, {scale:g}; allowed: at least 2, 1 and 0')
  if not rows_of(base.params, parts.classes, label):
    raise InputError(f'base: got {base.name}, whose network has no table of labels; allowed: one trained with labels')
  ts = grids.uniform(parts.process, steps)
  before, last = ddim(parts.process, ts[:-1]), float(ts[-2])

  def whole(roles: Mapping[str, Any]) -> Params:
    return with_row(stop_gradient(roles['base']), roles['token'], parts.classes, label)

  def loss(roles: dict[str, Any], batch: Any, key: Array) -> tuple[Array, dict[str, Array]]:
    cond = jnp.full((images,), label, jnp.int32)
    asked = base.denoiser(whole(roles))
    asked = asked if scale == 1 else cfg(asked, scale)
    start = parts.process.start(keys.per_sample(jax.random.key(0), images), parts.rows(images), ts[0])
    x = sample(stop_gradient(asked), before, start, cond=cond)
    value = worth(asked(x, last, cond).x0, cond)
    return -value, {'reward': stop_gradient(value)}

  def generator(roles: Mapping[str, Any], sampling: Sampling) -> Generator:
    return base.drawn(whole(roles), sampling)  # type: ignore[misc]

  return Method(
    phases=(Phase('token', loss, parts.optimiser()),),
    copies={'token': Copy('base', begins=lambda params: rows_of(params, parts.classes, begin))},
    init=lambda key: {},
    loads=('base',),
    denoiser=lambda roles: base.denoiser(whole(roles)),
    generator=generator,
  )


def rows_of(params: Params, classes: int, label: int) -> dict[str, Array]:
  """The rows of this label in the label tables of a network, by path; shapes of params give shapes."""
  found = {}
  for path, leaf in jax.tree_util.tree_flatten_with_path(params)[0]:
    if _is_table(path, leaf, classes):
      shape = jax.ShapeDtypeStruct(leaf.shape[1:], leaf.dtype)
      found[jax.tree_util.keystr(path)] = shape if isinstance(leaf, jax.ShapeDtypeStruct) else leaf[label]
  return found


def with_row(params: Params, rows: Mapping[str, Array], classes: int, label: int) -> Params:
  """The parameters with these rows for this label, all else as it was; shapes of params as they are."""

  def put(path: Any, leaf: Array) -> Array:
    if isinstance(leaf, jax.ShapeDtypeStruct) or not _is_table(path, leaf, classes):
      return leaf
    return leaf.at[label].set(rows[jax.tree_util.keystr(path)])

  return jax.tree_util.tree_map_with_path(put, params)


def _is_table(path: Any, leaf: Any, classes: int) -> bool:
  names = [getattr(part, 'key', None) for part in path]
  return names[-1:] == ['table'] and leaf.ndim == 2 and leaf.shape[0] == classes + 1
