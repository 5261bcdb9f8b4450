"""What tests of students share: a target and a network that can hold its answers, and the audit of gradients."""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from diffjax import exact

GAUSSIAN = exact.gaussian([0.7, -0.4], [0.3, 0.05])


class Slopes(NamedTuple):
  """A network that is linear in x at each of n times: what the flow of a Gaussian of diagonal covariance asks for."""

  n: int
  t_max: float

  def __call__(self, params, x, t, cond=None, key=None):
    place = jnp.round(t / 1000 / self.t_max * self.n).astype(int)
    return params['slope'][place] * x + params['bias'][place]

  def init(self, key, x, t, cond=None):
    return {name: 0.1 * jax.random.normal(key, (self.n + 1, *x.shape[1:])) for name in ('slope', 'bias')}


def audit(loss, roles, batch):
  """The largest gradient in each role of the mean loss."""

  def mean(moved):
    return jnp.mean(loss({**roles, **moved}, batch, jax.random.key(3))[0])

  floats = {name: tree for name, tree in roles.items() if name != 'step'}
  grads = jax.jit(jax.grad(mean, allow_int=True))(floats)
  largest = lambda tree: max(  # noqa: E731
    (float(jnp.abs(leaf).max()) for leaf in jax.tree.leaves(tree) if leaf.dtype != jax.dtypes.float0), default=0.0
  )
  return {name: largest(tree) for name, tree in grads.items()}
