"""The door between linen modules and the rest of the library."""

import dataclasses
from typing import Any

import jax
from flax import linen as nn

__all__ = ['Apply']


@dataclasses.dataclass(frozen=True)
class Apply:
  """The pure function out = net(params, x, t, cond, key) of a linen module; with `taps`, (out, {name: feature}).

  x is (B, ...), or whatever pytree the module takes; t the embedding coordinate, (B,); cond integer labels (B,) or
  None (the null label); key None (deterministic) or a batch of B typed keys, from which row i draws its own dropout.
  params is the plain dictionary `init` returns. Equal modules give equal, equally hashed functions, so one can be a
  static field or a static argument and rebuilding it never compiles again.

  `taps` names inner features (`tap_names` lists them). Nothing else is stored, and the names are part of the hash.
  ValueError if a name is not among them.
  """

  module: nn.Module
  taps: tuple[str, ...] = ()

  def __call__(self, params, x, t, cond=None, key=None):
    variables = {'params': params}
    if not self.taps:
      return self.module.apply(variables, x, t, cond, key)
    out, sown = self.module.apply(variables, x, t, cond, key, mutable=[TAP + name for name in self.taps])
    missing = [name for name in self.taps if TAP + name not in sown]
    if missing:
      allowed = ', '.join(self.tap_names(x, t, cond))
      raise ValueError(f'taps: {missing[0]!r} is not a feature of {type(self.module).__name__}; allowed: {allowed}')
    return out, {name: jax.tree.leaves(sown[TAP + name])[0] for name in self.taps}

  def init(self, key, x, t, cond=None) -> dict[str, Any]:
    """Float32 weights as a plain dictionary of arrays, from one key; the arguments give shapes only."""
    return jax.tree.map(_value, self._boxed(key, x, t, cond), is_leaf=_is_box)

  def axes(self, x, t, cond=None) -> dict[str, Any]:
    """Logical axis names of every weight: a PartitionSpec a leaf, in the structure of `init`; computes nothing.

    Names: 'in' and 'out' (features a weight reads and writes), 'heads' (queries, keys, values and what leaves them),
    'embed' (the time and label embedding), 'label' (rows of a label table). Spatial axes have no name.
    """
    boxed = jax.eval_shape(self._boxed, jax.random.key(0), x, t, cond)
    return nn.get_partition_spec(boxed)

  def tap_names(self, x, t, cond=None) -> tuple[str, ...]:
    """Names that `taps` may hold for inputs of these shapes; computes nothing."""

    def sown(key):
      return self.module.init(key, x, t, cond, None, mutable=True)

    return tuple(sorted(c[len(TAP) :] for c in jax.eval_shape(sown, jax.random.key(0)) if c.startswith(TAP)))

  def _boxed(self, key, x, t, cond):
    return self.module.init(key, x, t, cond, None, mutable=('params',))['params']


TAP = 'tap:'


def tap(module: nn.Module, name: str, value):
  """Offer `value` under the module's path and `name`. One collection a name: stored only where `Apply.taps` asks."""
  path = '/'.join((*module.path, name))
  module.sow(TAP + path, 'value', value, reduce_fn=lambda _, new: new, init_fn=lambda: None)


def _is_box(leaf) -> bool:
  return isinstance(leaf, nn.meta.AxisMetadata)


def _value(leaf):
  # `unbox` would constrain the value to a mesh that happens to be open; shardings are the training loop's business.
  return leaf.unbox(apply_constraint=False) if isinstance(leaf, nn.LogicallyPartitioned) else leaf
