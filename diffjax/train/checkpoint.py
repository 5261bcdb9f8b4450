"""Checkpoints by Orbax, which is imported here and nowhere else.

A checkpoint is the state as nested dicts of arrays, by path, so that no Python class is needed to read one; beside it
lie the resolved config and a checksum. Saving runs in the background. What goes wrong while saving is a warning, and
the next save tries again; what is corrupt is passed over for the one before; what belongs to another config is refused.
"""

import contextlib
import json
import os
import warnings
from collections.abc import Iterator, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import orbax.checkpoint as ocp
from etils import epath
from jax import Array

from diffjax.errors import InputError
from diffjax.fingerprint import digest
from diffjax.paths import expanded

__all__ = ['Checkpoints', 'checksums']

# What Orbax raises for files that are damaged, missing or cannot be written: TensorStore's errors are ValueErrors.
FAILURES = (OSError, ValueError, LookupError)


class Checkpoints:
  """The checkpoints of one run, in `directory` (a local path, gs:// and the like).

  Args:
    max_to_keep: how many of the last ones stay.
    config: what the run was made from, kept in each; must be JSON.

  Raises:
    InputError: the directory cannot be made or written.
  """

  def __init__(self, directory: str | epath.Path, max_to_keep: int = 2, config: Mapping[str, Any] | None = None):
    directory = expanded(directory, 'workdir')
    local = '://' not in directory  # orbax restores from absolute paths alone
    self.directory = epath.Path(os.path.abspath(directory) if local else directory)
    self.max_to_keep = max_to_keep
    self.config = json.loads(json.dumps(dict(config or {})))
    self.bad: set[int] = set()
    self.failed = False
    try:
      self.directory.mkdir(parents=True, exist_ok=True)
      self.manager = self._open()
    except OSError as error:
      raise InputError(f'workdir: got {directory}; allowed: a directory that can be written ({error})') from None

  def _open(self) -> ocp.CheckpointManager:
    options = ocp.CheckpointManagerOptions(max_to_keep=self.max_to_keep, cleanup_tmp_directories=True)
    standard = ocp.StandardCheckpointHandler
    handlers = dict(state=standard(), digest=standard(), config=ocp.JsonCheckpointHandler())
    return ocp.CheckpointManager(self.directory, options=options, item_handlers=handlers)

  def steps(self) -> tuple[int, ...]:
    """The steps that are there and not known to be corrupt, rising."""
    return tuple(sorted(set(self.manager.all_steps()) - self.bad))

  def save(self, state: Any, step: int) -> bool:
    """Begins to save; False, with a warning, where that fails or the save before this one turns out to have failed."""
    fine = self.wait()
    if step in self.steps():
      return fine
    tree = _nested(state)
    items = ocp.args.Composite(
      state=ocp.args.StandardSave(tree),
      digest=ocp.args.StandardSave({'leaves': checksums(tree)}),
      config=ocp.args.JsonSave(self.config),
    )
    try:
      if step in self.bad:
        self.manager.delete(step)
        self.bad.discard(step)
      self.manager.save(step, args=items, force=True)
    except FAILURES as error:
      return self._failure(error, step)
    return fine

  def wait(self) -> bool:
    """Blocks until the last save is on disk; False, with a warning, where it failed."""
    try:
      self.manager.wait_until_finished()
      self.manager.check_for_errors()
    except FAILURES as error:
      return self._failure(error)
    return True

  def _failure(self, error: Exception, step: int | None = None) -> bool:
    """Goes on with a new manager: the old one has forgotten which checkpoints are still there."""
    which = '' if step is None else f' of step {step}'
    last = max(self._on_disk(), default=None)
    held = 'there is none yet' if last is None else f'step {last} is the last good one'
    warnings.warn(
      f'checkpoint{which} not saved ({_short(error)}); training goes on, {held}', RuntimeWarning, stacklevel=3
    )
    try:
      self.manager = self._open()
    except FAILURES as again:
      warnings.warn(f'{self.directory} cannot be opened either ({_short(again)})', RuntimeWarning, stacklevel=3)
    return False

  def _on_disk(self) -> set[int]:
    try:
      return set(ocp.utils.checkpoint_steps(self.directory)) - self.bad
    except OSError:
      return set()

  def restore(self, target: Any, step: int | None = None) -> Any:
    """The newest state that can be read (or the one of `step`), laid out as `target` asks; None where there is none.

    Args:
      step: the one that is wanted; None takes the newest.
      target: the state's shapes with the shardings it shall have, whatever mesh it was saved from.

    Raises:
      InputError: the checkpoint has other leaves than `target` (they are named), or none of several can be read.
    """
    steps = [step] if step is not None else list(reversed(self.steps()))
    for candidate in steps:
      try:
        return self._read(target, candidate)
      except Mismatch as error:
        raise InputError(str(error)) from None
      except Unreadable as error:
        self._pass_over(candidate, error)
    if steps:
      raise InputError(
        f'workdir: none of the checkpoints {steps} in {self.directory} can be read; remove them to start anew'
      )
    return None

  def _read(self, target: Any, step: int) -> Any:
    tree = _nested(target)
    compare(self._shapes(step), tree, f'{self.directory}/{step}')
    found = self._restore(tree, step)
    return jax.tree.unflatten(jax.tree.structure(target), _leaves(found, target))

  def _shapes(self, step: int) -> Any:
    with _reading():
      shapes = self.manager.item_metadata(step)['state']
    if shapes is None:
      raise Unreadable('it has no metadata')
    return shapes

  def _restore(self, tree: Any, step: int) -> Any:
    whole = jax.tree.leaves(tree)[0].sharding
    count = jax.ShapeDtypeStruct((len(jax.tree.leaves(tree)),), jnp.uint32, sharding=_whole(whole))
    digest = ocp.args.StandardRestore({'leaves': count})
    items = ocp.args.Composite(state=ocp.args.StandardRestore(tree), digest=digest)
    with _reading():
      found = self.manager.restore(step, args=items)
    if not np.array_equal(checksums(found['state']), found['digest']['leaves']):
      raise Unreadable('its checksum differs')
    return found['state']

  def _pass_over(self, step: int, error: 'Unreadable') -> None:
    self.bad.add(step)
    text = f'checkpoint of step {step} in {self.directory} cannot be read ({error}); trying the one before'
    warnings.warn(text, RuntimeWarning, stacklevel=3)

  def load(self, names: tuple[str, ...] = ('roles', 'ema'), step: int | None = None) -> dict[str, Any]:
    """Parts of the newest state that can be read, or of `step`'s, as nested dicts on the first device of this process.

    For who wants parameters and knows nothing of the run; no target is needed.

    Raises:
      InputError: there is no checkpoint, or none that can be read.
    """
    here = jax.sharding.SingleDeviceSharding(jax.local_devices()[0])
    for candidate in [step] if step is not None else list(reversed(self.steps())):
      try:
        shapes = dict(self._shapes(candidate))
        tree = jax.tree.map(lambda s: jax.ShapeDtypeStruct(s.shape, s.dtype, sharding=here), shapes)
        found = self._restore(tree, candidate)
        return {name: found.get(name, {}) for name in names}
      except Unreadable as error:
        self._pass_over(candidate, error)
    raise InputError(f'workdir: got {self.directory}; allowed: a directory with a checkpoint that can be read')

  def read_config(self, step: int | None = None) -> dict[str, Any]:
    """The config kept with a checkpoint, the newest by default."""
    step = max(self.steps()) if step is None else step
    return self.manager.restore(step, args=ocp.args.Composite(config=ocp.args.JsonRestore()))['config']

  def fingerprint(self, step: int) -> str:
    """A short text that tells this checkpoint from others, of the checksums kept with it.

    Raises:
      InputError: they cannot be read.
    """
    here = jax.sharding.SingleDeviceSharding(jax.local_devices()[0])
    shapes = dict(self.manager.item_metadata(step)['digest'] or {})
    if not shapes:
      raise InputError(f'workdir: the checkpoint of step {step} in {self.directory} has no checksum; allowed: one that '
                       'was saved whole')  # fmt: skip
    tree = jax.tree.map(lambda s: jax.ShapeDtypeStruct(s.shape, s.dtype, sharding=here), shapes)
    found = self.manager.restore(step, args=ocp.args.Composite(digest=ocp.args.StandardRestore(tree)))['digest']
    return digest({name: np.asarray(words) for name, words in found.items()})

  def reached_preemption(self, step: int) -> bool:
    """Whether the processes agree to stop at this step; to be asked by all of them at every step."""
    return self.manager.reached_preemption(step)

  def close(self) -> bool:
    """Waits for what is under way and lets go of the directory; False where the last save failed."""
    fine = self.wait()
    self.manager.close()
    return fine


class Mismatch(Exception):
  """A checkpoint of another structure."""


class Unreadable(Exception):
  """A checkpoint that is damaged; the message says how."""


@contextlib.contextmanager
def _reading() -> Iterator[None]:
  """Around a call of Orbax and nothing else: an error of our own code must not pass for a damaged checkpoint."""
  try:
    yield
  except FAILURES as error:
    raise Unreadable(_short(error)) from error


def compare(saved: Any, target: Any, where: str) -> None:
  """Raises Mismatch that names the leaves which differ between a checkpoint's metadata and nested dicts of shapes."""
  stored = {path: tuple(leaf.shape) for path, leaf in _named(saved)}
  wanted = {path: _words_shape(leaf) for path, leaf in _named(target)}
  differ = [f'missing {path}' for path in wanted if path not in stored]
  differ += [f'extra {path}' for path in stored if path not in wanted]
  both = [path for path in wanted if path in stored and stored[path] != wanted[path]]
  differ += [f'{path} has shape {stored[path]}, not {wanted[path]}' for path in both]
  if differ:
    more = f' and {len(differ) - 8} more' if len(differ) > 8 else ''
    listed = '; '.join(differ[:8]) + more
    raise Mismatch(
      f'workdir: the checkpoint {where} is of another config: {listed}; allowed: the config it was made with'
    )


def checksums(tree: Any) -> Array:
  """One checksum a leaf, uint32 (leaves,), the same however the leaves lie on devices.

  sum_i mix(word_i + mix(i)) modulo 2^32
  """
  return jnp.stack([_checksum(leaf) for leaf in jax.tree.leaves(tree)])


@jax.jit
def _checksum(x: Array) -> Array:
  if jnp.issubdtype(x.dtype, jax.dtypes.prng_key):
    x = jax.random.key_data(x)
  x = x.astype(jnp.uint8) if x.dtype == bool else x
  bits = jnp.dtype(f'uint{8 * min(x.dtype.itemsize, 4)}')
  words = jax.lax.bitcast_convert_type(x, bits).astype(jnp.uint32).ravel()
  place = jnp.arange(words.size, dtype=jnp.uint32)
  return jnp.sum(_mix(words + _mix(place)), dtype=jnp.uint32)


def _mix(words: Array) -> Array:
  """A bijection of uint32 in which every bit that goes in moves about half of those that come out (MurmurHash3's)."""
  for shift, odd in ((16, 0x85EBCA6B), (13, 0xC2B2AE35)):
    words = (words ^ (words >> shift)) * jnp.uint32(odd)
  return words ^ (words >> 16)


def _nested(tree: Any) -> dict[str, Any]:
  """Nested dicts by the names along each path; nodes without leaves vanish."""
  nested: dict[str, Any] = {}
  for path, leaf in _named(tree):
    *parents, last = path.split('/')
    node = nested
    for name in parents:
      node = node.setdefault(name, {})
    node[last] = leaf
  return nested


def _leaves(nested: Mapping[str, Any], target: Any) -> list[Any]:
  found = dict(_named(nested))
  return [found[path] for path, _ in _named(target)]


def _named(tree: Any) -> list[tuple[str, Any]]:
  flat, _ = jax.tree_util.tree_flatten_with_path(tree)
  return [(jax.tree_util.keystr(path, simple=True, separator='/'), leaf) for path, leaf in flat]


def _words_shape(leaf: Any) -> tuple[int, ...]:
  """The shape on disk: a typed key is stored as its words."""
  if jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key):
    return tuple(jax.eval_shape(jax.random.key_data, jax.ShapeDtypeStruct(leaf.shape, leaf.dtype)).shape)
  return tuple(leaf.shape)


def _whole(sharding: Any) -> Any:
  if isinstance(sharding, jax.sharding.NamedSharding):
    return jax.sharding.NamedSharding(sharding.mesh, jax.sharding.PartitionSpec())
  return sharding


def _short(error: Exception) -> str:
  return f'{type(error).__name__}: {str(error).strip().splitlines()[0][:160] if str(error).strip() else ""}'
