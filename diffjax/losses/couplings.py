"""Couplings: which noise a batch's examples are paired with. (x0, eps, cond) -> eps, its rows permuted.

The data stay in place, and with them labels, weights and all else of a row. `__all__` lists what a config may name.
"""

import jax
import jax.numpy as jnp
import optax
from flax import struct
from jax import Array

from diffjax.contracts import Cond, Data
from diffjax.errors import InputError
from diffjax.pytree import PyTree

__all__ = ['independent', 'minibatch_ot']


class Coupling(PyTree):
  """A coupling.

  Attributes:
    assigned: whether noise is assigned by the cost of moving it to its example.
    classwise: only among the examples of one label.
  """

  assigned: bool = struct.field(pytree_node=False, default=False)
  classwise: bool = struct.field(pytree_node=False, default=False)

  @property
  def batch_coupled(self) -> bool:
    """Whether a row depends on the rest of its batch."""
    return self.assigned

  def check(self, labelled: bool) -> None:
    """Raises InputError where labels would say something of the noise, which sampling does not know."""
    if self.assigned and labelled and not self.classwise:
      raise InputError('coupling: got minibatch_ot with labels, of which the noise would then tell; allowed: '
                       'dict(name="minibatch_ot", classwise=True), or data without labels')  # fmt: skip

  def __call__(self, x0: Data, eps: Data, cond: Cond = None) -> Data:
    """The noise of each example."""
    if not self.assigned:
      return eps
    self.check(cond is not None)
    order = assignment(_flat(x0), _flat(eps), cond)
    return jax.tree.map(lambda leaf: leaf[order], eps)


def independent() -> Coupling:
  """Noise as it was drawn, independent of the example."""
  return Coupling()


def minibatch_ot(classwise: bool = False) -> Coupling:
  """Optimal transport within a batch: the permutation of the noise with the least sum of |x0 - eps|^2.

  The paths of a flow trained on it are straighter; its marginals are the same. With labels noise may only change
  places within a label: otherwise it would depend on the label, and sampling, where it does not, would be of another
  law. Exact, by the Hungarian algorithm, whose time grows with the cube of the batch: a hundred is many.

  arXiv:2302.00482 sec. 3.2, arXiv:2304.14772

  Args:
    classwise: noise changes places within a label only; needed where there are labels.
  """
  return Coupling(assigned=True, classwise=classwise)


def assignment(x0: Array, eps: Array, cond: Cond = None) -> Array:
  """The row of eps (B, d) of each row of x0 (B, d), the least cost in all; within labels (B,) where there are any."""
  highest = jax.lax.Precision.HIGHEST
  cost = -2 * jnp.matmul(x0, eps.T, precision=highest)  # |x0|^2 and |eps|^2 are the same of every permutation
  if cond is not None:
    apart = jnp.asarray(cond)[:, None] != jnp.asarray(cond)
    span = jnp.max(cost) - jnp.min(cost)
    cost = jnp.where(apart, jnp.max(cost) + len(cost) * span, cost)  # dearer than all that a permutation can save
  rows, columns = optax.assignment.hungarian_algorithm(jax.lax.stop_gradient(cost))
  return jnp.zeros_like(columns).at[rows].set(columns)


def _flat(x: Data) -> Array:
  return jnp.concatenate([leaf.reshape(len(leaf), -1) for leaf in jax.tree.leaves(x)], axis=1)
