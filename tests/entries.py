"""What the rows of the property table are made of; each room has its own rows beside its tests, in entries_ROOM.py."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import numpy as np

from diffjax import nets, schedules
from diffjax.exact import mixture
from diffjax.kinds import as_kind
from diffjax.prediction import Denoiser

CLASSES, POINT, IMAGE = 3, (2,), (4, 4, 1)
CLASSED = mixture([1, 1, 1], [[0, 0], [1, 0], [0, 1]], [0.5, 0.2, 0.3])  # a component a class


class Entry(NamedTuple):
  numbers: Callable  # (seed, dtype of the network) -> pytree
  run: Callable  # (numbers, x, cond, keys) -> pytree of arrays (B, ...)
  shape: tuple = POINT
  close: float = 2e-5  # to which other programs agree
  reverse: bool = True  # whether gradients are taken backwards through it
  reads_x: bool = True  # whether x is more to it than a shape
  padded: bool = False  # a table of one size, so that all of them share one compiled program


def small(dtype='float32'):
  return nets.mlp(width=8, depth=1, classes=CLASSES, dtype=dtype)


def weights(net, seed, shape=POINT):
  """Parameters in which nothing is at its initial zero."""
  like = jax.eval_shape(net.init, jax.random.key(0), np.zeros((1, *shape)), np.zeros(1), np.zeros(1, int))
  r = np.random.default_rng(seed)
  return jax.tree.map(lambda leaf: np.float32(0.3 * r.standard_normal(leaf.shape)), like)


def denoiser(seed, dtype, shape=POINT):
  process = schedules.vp_linear(0.1 + 0.1 * seed, 20.0 - seed)
  return Denoiser(weights(small(dtype), seed, shape), process, as_kind('v'), CLASSES, net=small(dtype))


@jax.tree_util.register_static
class Static(NamedTuple):
  value: Any
