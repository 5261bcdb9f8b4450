"""Forced weight normalisation: weights of which only the direction counts are kept at unit mean square an output.

Without it each such weight grows, as its gradient is orthogonal to it, and the steps of its direction die away.
A transform of the parameter tree: it knows leaves by name and no network.   arXiv:2312.02696 section 2.3, eq. 66
"""

from typing import Any

import jax
import optax

from diffjax.errors import InputError
from diffjax.nets.magnitude import MP_KERNEL, unit_columns

__all__ = ['project', 'force_norm', 'is_forced']


def is_forced(path: tuple) -> bool:
  """Whether the leaf at this path is one of those weights: its name is that of magnitude-preserving layers."""
  return bool(path) and jax.tree_util.keystr(path[-1:], simple=True) == MP_KERNEL


def project(params: Any) -> Any:
  """Brings weights to unit mean square an output.

  w / (1e-4 + rms of w over all but its last axis) in place of each such weight w; other leaves as they are.
  """
  return jax.tree.map_with_path(lambda path, w: unit_columns(w) if is_forced(path) else w, params)


def force_norm() -> optax.GradientTransformation:
  """The last link of a chain of optimiser transforms: parameters come out as `project(params + updates)`.

  updates <- project(params + updates) - params, for such weights; hence averages, guards against non-finite steps and
  shardings see nothing new. Float32 rounds twice: 1e-7 of a weight's mean square.

  Raises:
    InputError: in init, a tree without any such weight; in update, no params.
  """

  def init(params: Any) -> optax.EmptyState:
    if not any(is_forced(path) for path, _ in jax.tree.leaves_with_path(params)):
      raise InputError(f'optimiser.forced_norm: got parameters without a leaf {MP_KERNEL!r}; allowed: those of a '
                       'magnitude-preserving network such as edm2')  # fmt: skip
    return optax.EmptyState()

  def update(updates: Any, state: Any, params: Any = None) -> tuple[Any, Any]:
    if params is None:
      raise InputError('params: got None; allowed: the parameters that the updates move')

    def one(path: tuple, u: Any, w: Any) -> Any:
      return (unit_columns(w + u.astype(w.dtype)) - w).astype(u.dtype) if is_forced(path) else u

    return jax.tree.map_with_path(one, updates, params), state

  return optax.GradientTransformation(init, update)
