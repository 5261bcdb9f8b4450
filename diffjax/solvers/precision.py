"""Half-precision samples: a run is carried in float32, the networks alone see the caller's dtype, one rounding ends it.

A register in bfloat16 loses what a step adds as soon as it is below 1/256 of its size, and a sum of a thousand steps
drifts; so nothing but the input of a network is ever half.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import Array

from diffjax.contracts import Cond, Data, Params
from diffjax.dtypes import wide
from diffjax.prediction import Net, Pred

__all__ = ['widened', 'with_networks_in', 'paired', 'rounded']


def widened(x: Data) -> Any:
  """The same numbers with every floating leaf in float32 at least; others stay."""
  return jax.tree.map(lambda leaf: leaf.astype(_wide(leaf)), jax.tree.map(jnp.asarray, x))


def with_networks_in(denoise: Any, x: Data) -> Any:
  """`denoise` with every network inside handed its x in the dtypes of this x (B, ...), whatever the states are in.

  A network is what a `net` field holds, anywhere in a stack of transforms. A denoiser of another kind, closed forms
  among them, sees the states as they are carried. Where no leaf is half, `denoise` itself.
  """
  dtypes = tuple(leaf.dtype for leaf in jax.tree.leaves(x))
  if all(leaf.dtype == _wide(leaf) for leaf in jax.tree.leaves(x)):
    return denoise

  def told(node: Any) -> Any:
    if not hasattr(node, 'net'):
      return node
    inner = {'denoise': with_networks_in(node.denoise, x)} if hasattr(node, 'denoise') else {}
    return node.replace(net=Told(node.net, dtypes), **inner)

  return jax.tree.map(told, denoise, is_leaf=lambda node: hasattr(node, 'net'))


def paired(pred: Pred, x: Data) -> Pred:
  """The prediction with its pair in the dtypes of the point x, whatever the denoiser answered in."""
  cast = lambda part: jax.tree.map(lambda leaf, x: leaf.astype(x.dtype), part, x)  # noqa: E731
  return pred._replace(x0=cast(pred.x0), eps=cast(pred.eps))


def rounded(result: Any, x: Data) -> Any:
  """`result` in the dtypes of x, leaf by leaf; as it is where it is no tree like x."""
  if jax.tree.structure(result) != jax.tree.structure(x):
    return result
  return jax.tree.map(lambda leaf, x: leaf.astype(x.dtype) if _wide(x) == leaf.dtype else leaf, result, x)


class Told(NamedTuple):
  """A network whose x is cast to these dtypes, one a leaf."""

  net: Net
  dtypes: tuple

  def __call__(self, params: Params, x: Data, t: Array, cond: Cond = None, key: Any = None) -> Any:
    leaves, treedef = jax.tree.flatten(x)
    cast = [leaf.astype(dtype) for leaf, dtype in zip(leaves, self.dtypes, strict=True)]
    return self.net(params, jax.tree.unflatten(treedef, cast), t, cond, key)


def _wide(x: Array) -> Any:
  return wide(x) if jnp.issubdtype(x.dtype, jnp.floating) else x.dtype
