"""Which axis of the mesh each logical axis of a weight is split over: the one place where that is decided.

Networks name the axes of their weights (`nets.Apply.axes`) and know no mesh. A table here gives each name an axis of
the mesh or None; what it leaves whole `state_shardings` may split over fsdp. Optimiser states, averages and copies of
roles end in the path of the weight they belong to, and lie as it does.
"""

import warnings
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import jax
from flax import linen as nn
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from diffjax.errors import InputError
from diffjax.train.sharding import AXES

__all__ = ['NAMES', 'TRANSFORMER', 'CHANNELS', 'Layout', 'checked', 'layout']

NAMES = ('in', 'out', 'heads', 'mlp', 'embed', 'label', 'layers')
TRANSFORMER = dict(heads='model', mlp='model', embed='model')
"""q, k, v and the hidden layer by what they write, the maps back by what they read: two sums of all tokens over `model`
a block and pass, as what lies between the blocks is whole. Embeddings are split, and the adaptive norms that read them:
sums of one vector a sample; a label that is a token is not, as it would split all tokens.   arXiv:1909.08053"""
CHANNELS = dict(out='model')
"""Every layer by the channels it writes; each gathers those it reads."""

Rules = Mapping[str, str | None]


def checked(given: Iterable[Any]) -> Rules:
  """The pairs (logical name, mesh axis or None) of a config as a table.

  Raises:
    InputError: something else than a pair, a name or an axis that does not exist, a name given twice.
  """
  made: dict[str, str | None] = {}
  for pair in given:
    if not isinstance(pair, tuple | list) or len(pair) != 2:
      raise InputError(f"got {pair!r}; allowed: pairs (logical name, mesh axis or None) such as ('mlp', 'model')")
    name, axis = pair
    if name not in NAMES:
      raise InputError(f'got the logical axis {name!r}; allowed: {", ".join(NAMES)}')
    if axis is not None and axis not in AXES:
      raise InputError(f'got the mesh axis {axis!r} for {name!r}; allowed: {", ".join(AXES)}, None')
    if name in made:
      raise InputError(f'got {name!r} twice, for {made[name]} and {axis}; allowed: each name once')
    made[name] = axis
  return made


def layout(names: Any, given: Iterable[Any] = ()) -> 'Layout':
  """The layout of a network's weights: by `TRANSFORMER` where it has 'mlp' features, else by `CHANNELS`.

  Args:
    names: a PartitionSpec of logical names a weight, from `Apply.axes`.
    given: pairs (logical name, mesh axis or None) that take the place of the table's. One whose name no weight has is
      told by a warning.

  Raises:
    InputError: what `checked` refuses, or two names of one weight on the same mesh axis.
  """
  flat = jax.tree.leaves_with_path(names, is_leaf=lambda leaf: isinstance(leaf, PartitionSpec))
  weights = {jax.tree_util.keystr(path, simple=True, separator='/'): tuple(spec) for path, spec in flat}
  there = {name for axes in weights.values() for name in axes if name is not None}
  given = checked(given)
  for name in given:
    if name not in there:
      text = f'mesh.rules: no weight has the axis {name!r}, the rule does nothing; there are {", ".join(sorted(there))}'
      warnings.warn(text, RuntimeWarning, stacklevel=2)
  rules = {**(TRANSFORMER if 'mlp' in there else CHANNELS), **given}
  for path, axes in weights.items():
    taken: dict[str, str] = {}
    for name in axes:
      axis = rules.get(name or '')
      if axis in taken:
        raise InputError(f'got {taken[axis]!r} and {name!r} both on {axis}, which meet in the weight {path}; allowed: '
                         f'None for one of them')  # fmt: skip
      if axis is not None:
        taken[axis] = name
  return Layout(weights, rules)


@dataclass(frozen=True)
class Layout:
  """Rules and the logical names of the weights they are for, by path."""

  weights: Mapping[str, tuple[str | None, ...]]
  rules: Rules

  def __call__(self, path: str, shape: tuple[int, ...]) -> tuple[str | None, ...]:
    """The mesh axis of each axis of a leaf of the state, by the longest end of its path that is a weight's.

    An axis without a rule is None, but for 'layers', which keeps its name: fsdp takes it last. Leaves of no weight are
    whole.
    """
    parts = path.split('/')
    ends = ('/'.join(parts[i:]) for i in range(len(parts)))
    found = next((self.weights[end] for end in ends if end in self.weights), ())
    if len(found) != len(shape):
      return (None,) * len(shape)
    return tuple(self.rules.get(name or '') or ('layers' if name == 'layers' else None) for name in found)

  def check_heads(self, mesh: Mesh, heads: Mapping[str, int]) -> None:
    """Raises InputError where the mesh axis of 'heads' does not divide the heads of an attention, given by name."""
    axis = self.rules.get('heads')
    for name, count in heads.items() if axis else ():
      if count % mesh.shape[axis]:
        raise InputError(f'{axis}: got {mesh.shape[axis]}; allowed: a number that divides the {count} heads of {name}, '
                         f"or config.mesh.rules with ('heads', None)")  # fmt: skip

  def activations(self, mesh: Mesh) -> Any:
    """A context in which networks are traced so that features lie as the rules of the layers at hand say.

    What enters and leaves each linear map is split over data and fsdp by its batch, and by its features where their
    name has a rule. Left to itself XLA may split a product as its weight lies on fsdp, and send activations to and fro
    instead of the weight.
    """
    parts = mesh.shape['data'] * mesh.shape['fsdp']

    def lie(x: Any, name: str | None) -> Any:
      if not isinstance(x, jax.Array) or x.ndim < 2 or x.shape[0] % parts:
        return x
      axis = self.rules.get(name or '')
      last = axis if axis == 'model' and x.shape[-1] % mesh.shape[axis] == 0 else None
      spec = PartitionSpec(('data', 'fsdp'), *(None,) * (x.ndim - 2), last)
      return jax.lax.with_sharding_constraint(x, NamedSharding(mesh, spec))

    def intercept(call: Callable, args: tuple, kwargs: dict, context: Any) -> Any:
      axes = getattr(context.module, 'logical_axes', ())  # of a `nets.layers.ShardedLayer`
      if not axes or context.method_name != '__call__':
        return call(*args, **kwargs)
      out = call(lie(args[0], axes[0]), *args[1:], **kwargs)
      return jax.tree.map(lambda x: lie(x, axes[-1]), out)

    return nn.intercept_methods(intercept)
