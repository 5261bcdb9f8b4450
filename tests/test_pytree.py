"""Two types of record are never one structure, whatever their fields."""

import importlib
import inspect
import pkgutil

import jax
import jax.numpy as jnp
from flax import struct

import diffjax
from diffjax import exact, schedules
from diffjax.guidance.thresholds import Clipped, DynamicallyClipped
from diffjax.pytree import PyTree


def modules():
  return [importlib.import_module(found.name) for found in pkgutil.walk_packages(diffjax.__path__, 'diffjax.')]


def below(kind):
  return {each for inner in kind.__subclasses__() for each in {inner, *below(inner)}}


def records():
  """Every record of the library."""
  modules()
  return [kind for kind in below(PyTree) if kind.__module__.startswith('diffjax.')]


def structure(kind):
  """Of a record of this type whose children are numbers, with the library's defaults elsewhere."""
  blank = object.__new__(kind)
  for name, field in kind.__dataclass_fields__.items():
    child = field.metadata.get('pytree_node', True)
    object.__setattr__(blank, name, 0.0 if child else field.default if name == 'type_name' else None)
  return jax.tree.structure(blank)


def test_structures_of_different_types_differ():
  """Pairwise, with the same children and static values."""
  kinds = records()
  assert len(kinds) > 20
  structures = {kind.__qualname__: structure(kind) for kind in kinds}
  names = sorted(structures)
  same = [(a, b) for a in names for b in names if a < b and structures[a] == structures[b]]
  assert not same


def test_a_compiled_function_tells_them_apart():
  """Pairs of types that are alike in all but their name; each of 5 fresh functions sees both."""
  process, target = schedules.cosine(), exact.ring8()
  plain, full = target.denoiser(process), target.moments_denoiser(process)
  assert jax.tree.structure(plain) != jax.tree.structure(full)
  low, high = jnp.zeros(()), jnp.ones(())
  for number in range(5):
    kind = jax.jit(lambda record, number=number: jnp.asarray(number + isinstance(record, Clipped)))
    assert int(kind(Clipped(plain, low, high))) == number + 1
    assert int(kind(DynamicallyClipped(plain, low, high))) == number


def test_no_record_of_the_library_is_bare():
  """Each derives from the base that knows its type."""
  for module in modules():
    for _, kind in inspect.getmembers(module, inspect.isclass):
      bare = issubclass(kind, struct.PyTreeNode) and kind.__module__.startswith('diffjax.')
      assert not bare or issubclass(kind, PyTree), kind
