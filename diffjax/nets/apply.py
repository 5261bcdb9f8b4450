"""The door between linen modules and the rest of the library."""

import dataclasses
import fnmatch
from collections.abc import Callable
from typing import Any

import jax
from flax import linen as nn

from diffjax import labels
from diffjax.errors import InputError

from .taps import TAP, edits_of, intercepting

__all__ = ['Apply']


@dataclasses.dataclass(frozen=True)
class Apply:
  """A linen module as the pure function of parameters that the library calls a network.

  The pure function out = net(params, x, t, cond, key) of a linen module; with `taps`, (out, {name: feature}).

  x is (B, ...), or whatever pytree the module takes; t the embedding coordinate, (B,); cond integer labels (B,) or
  None (the null label); key None (deterministic) or a batch of B typed keys, from which row i draws its own dropout.
  params is the plain dictionary `init` returns. Equal modules give equal, equally hashed functions, so one can be a
  static field or a static argument and rebuilding it never compiles again.

  `taps` names inner features (`tap_names` lists them). Nothing else is stored, and the names are part of the hash.

  `hooks` holds pairs (pattern, hook): in every attention whose name (`hook_names`) matches, hook(attend, q, k, v,
  given) takes the place of attend(q, k, v); queries, keys and values (B, N, heads, d), hook a module-level function as
  in `diffjax.nets.hooks`. `given` is what params['hooks'][name] holds, None where nothing: arrays that change, are
  trained or sharded like other weights. Layers under `scan` are one attention of one name.

  `edits` names taps (as `taps` does) whose features become keep * h + add on their way: (keep, add) = params['edits'][
  name], broadcast against the feature. Of networks under `scan` those within the blocks are out of reach.

  InputError if a name is not among them, a pattern fits none, or a label is none of the module's (`diffjax.labels`).
  """

  module: nn.Module
  taps: tuple[str, ...] = ()
  hooks: tuple[tuple[str, Callable], ...] = ()
  edits: tuple[str, ...] = ()

  def __call__(self, params, x, t, cond=None, key=None):
    """What the network returns for x (B, ...) at t, its hooks in place."""
    labels.check(cond, getattr(self.module, 'classes', 0))
    if self.hooks:
      given = params.get('hooks', {})
      params, seen = {name: value for name, value in params.items() if name != 'hooks'}, {}
      with intercepting(self.hooks, given, seen):
        out = self._run(params, x, t, cond, key)
      self._check_hooks(given, seen)
      return out
    return self._run(params, x, t, cond, key)

  def _run(self, params, x, t, cond, key):
    variables = {'params': params}
    if self.edits:
      given = params['edits']
      variables = {'params': {name: value for name, value in params.items() if name != 'edits'}}
      self._check_edits(x, t, cond)
      variables |= edits_of({name: given[name] for name in self.edits})
    if not self.taps:
      return self.module.apply(variables, x, t, cond, key)
    out, sown = self.module.apply(variables, x, t, cond, key, mutable=[TAP + name for name in self.taps])
    missing = [name for name in self.taps if TAP + name not in sown]
    if missing:
      allowed = ', '.join(self.tap_names(x, t, cond))
      raise InputError(f'taps: {missing[0]!r} is not a feature of {type(self.module).__name__}; allowed: {allowed}')
    return out, {name: jax.tree.leaves(sown[TAP + name])[0] for name in self.taps}

  def _check_edits(self, x, t, cond):
    known = self.tap_names(x, t, cond)
    for name in self.edits:
      if name not in known:
        raise InputError(f'edits: {name!r} is no feature of {type(self.module).__name__}; allowed: {", ".join(known)}')

  def _check_hooks(self, given, seen):
    for name in (*(pattern for pattern, _ in self.hooks), *given):
      if not fnmatch.filter(seen, name):
        allowed = ', '.join(sorted(seen)) or 'none'
        raise InputError(f'hooks: {name!r} is no attention of {type(self.module).__name__}; allowed: {allowed}')

  def init(self, key, x, t, cond=None) -> dict[str, Any]:
    """Float32 weights as a plain dictionary of arrays, from one key; the arguments give shapes only."""
    return jax.tree.map(_value, self._boxed(key, x, t, cond), is_leaf=_is_box)

  def axes(self, x, t, cond=None) -> dict[str, Any]:
    """Logical axis names of every weight: a PartitionSpec a leaf, in the structure of `init`; computes nothing.

    Names: 'in' and 'out' (features a weight reads and writes), 'heads' (queries, keys, values and what leaves them),
    'mlp' (the hidden features of a transformer block), 'embed' (the time and label embedding), 'label' (rows of a
    label table), 'layers' (blocks under `scan`). Spatial axes have no name.
    """
    boxed = jax.eval_shape(self._boxed, jax.random.key(0), x, t, cond)
    return nn.get_partition_spec(boxed)

  def tap_names(self, x, t, cond=None) -> tuple[str, ...]:
    """Names that `taps` may hold for inputs of these shapes; computes nothing."""
    sown = jax.eval_shape(lambda key: self._everything(key, x, t, cond), jax.random.key(0))
    return tuple(sorted(c[len(TAP) :] for c in sown if c.startswith(TAP)))

  def hook_names(self, x, t, cond=None) -> tuple[str, ...]:
    """Names of the attentions that `hooks` may take over for inputs of these shapes; computes nothing."""
    return tuple(sorted(self.heads(x, t, cond)))

  def heads(self, x, t, cond=None) -> dict[str, int]:
    """How many heads each attention has, by its name; computes nothing."""
    seen = {}
    with intercepting((), {}, seen):
      jax.eval_shape(lambda key: self._everything(key, x, t, cond), jax.random.key(0))
    return seen

  def _everything(self, key, x, t, cond):
    return self.module.init(key, x, t, cond, None, mutable=True)

  def _boxed(self, key, x, t, cond):
    return self.module.init(key, x, t, cond, None, mutable=('params',))['params']


def _is_box(leaf) -> bool:
  return isinstance(leaf, nn.meta.AxisMetadata)


def _value(leaf):
  # `unbox` would constrain the value to a mesh that happens to be open; shardings are the training loop's business.
  return leaf.unbox(apply_constraint=False) if isinstance(leaf, nn.LogicallyPartitioned) else leaf
