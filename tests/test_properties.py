"""One table over everything public that samples, guides, trains or predicts; the properties that all must have.

A new solver, transform, loss or net is one line in the entries_ROOM.py beside its room's tests; a public name without
one fails the suite. An entry has a pytree of all its numbers, which another seed changes, and a pure function of
(numbers, x, cond, keys) with outputs that have the batch first.
"""

import contextlib
import functools
import importlib.util
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from entries import CLASSES

from diffjax import keys


def collected():
  """group -> (its entries by name, the names that it must have), of every room."""
  groups = {}
  for path in sorted(Path(__file__).parent.glob('*/entries_*.py')):
    spec = importlib.util.spec_from_file_location(path.stem, path)
    room = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(room)
    groups |= room.GROUPS
  return groups


GROUPS = collected()
ENTRIES = {name: entry for entries, _ in GROUPS.values() for name, entry in entries.items()}
every = pytest.mark.parametrize('name', ENTRIES)


def of(*groups):
  return [name for group in groups for name in GROUPS[group][0]]


# Rows whose programs take seconds to compile each; the suite's own time has a bound, and `make test-slow` runs all.
DEAR = {'analytic_dpm', 'attentive_eraser', 'continuous_bound', 'dit', 'dopri5', 'dpm_adaptive', 'edm2', 'egnn',
        'elbo', 'find', 'fokker_planck', 'gms', 'high_order', 'locally_regularised', 'log_density', 'modalities',
        'npr_dpm', 'paths', 'perturbed_attention', 'rollover', 's4', 'schedule_variance', 'sine', 'svdd',
        'tree_sampling', 'tree_search', 'twisted', 'unet', 'unidiffuser', 'uvit', 'zero_order'}  # fmt: skip


def cheap(names, apart=lambda name: False):
  """The parameter `name` of a test, those slow that are dear or that the test sets `apart`."""
  slow = [name in DEAR or apart(name) for name in names]
  rows = [pytest.param(n, marks=pytest.mark.slow) if s else n for n, s in zip(names, slow, strict=True)]
  return pytest.mark.parametrize('name', rows)


COMPILED = of('solvers', 'table transforms', 'adaptive')  # by themselves, `sample` and the like


@pytest.mark.parametrize('group', GROUPS)
def test_nothing_public_is_missing(group):
  entries, public = GROUPS[group]
  assert set(entries) == set(public)


def test_every_room_has_rows():
  assert set(GROUPS) == {
    'solvers',
    'table transforms',
    'adaptive',
    'starts',
    'guidance',
    'inverse',
    'likelihood',
    'losses',
    'nets',
    'represent',
    'steering',
  }
  assert len(ENTRIES) == sum(len(entries) for entries, _ in GROUPS.values())
  assert DEAR | ALONE <= set(ENTRIES) and all((ALONE - DEAR) & set(entries) for entries, _ in GROUPS.values())


def inputs(entry, n=4):
  x = np.random.default_rng(0).standard_normal((n, *entry.shape)).astype(np.float32)
  return x, np.arange(n, dtype=np.int32) % CLASSES, keys.per_sample(jax.random.key(0), n)


def close(entry, got, want):
  for a, b in zip(jax.tree.leaves(got), jax.tree.leaves(want), strict=True):
    np.testing.assert_allclose(a, b, rtol=entry.close, atol=entry.close)


# Entries that share `run` and the shapes of their numbers share these programs.
compiled = functools.cache(jax.jit)


@functools.cache
def halves(run):
  axes = (None, 0, 0, 0)
  return jax.pmap(jax.vmap(run, axes), in_axes=axes)


@functools.cache
def gradient(run):
  def total(numbers, x, cond, key):
    return sum(jnp.sum(leaf**2) for leaf in jax.tree.leaves(run(numbers, x, cond, key)))

  return jax.jit(jax.grad(total, argnums=(0, 1), allow_int=True))


def twin(name):
  """The entry whose compiled program is that of this one."""
  entry = ENTRIES[name]
  if not entry.padded:
    return entry
  return ENTRIES['ancestral' if entry.numbers(0, 'float32')[1].stochastic else 'ddim']


@every
def test_numbers_never_recompile(name, compiles):
  """Nor does another padded table."""
  entry = ENTRIES[name]
  x, (one, two) = inputs(entry), (entry.numbers(seed, 'float32') for seed in (0, 1))
  compiled(entry.run)(twin(name).numbers(0, 'float32'), *x)
  with compiles(0):
    first, second = (compiled(entry.run)(numbers, *x) for numbers in (one, two))
  assert not np.array_equal(jax.tree.leaves(first)[0], jax.tree.leaves(second)[0])


ALONE = {'cfg', 'ddim', 'denoising', 'discrete_bound', 'dynamic_threshold', 'f_pndm', 'feynman_kac', 'mlp', 'pair_form',
         'predictor_corrector', 'proximal', 'response', 'sada', 'start', 'tilt'}  # fmt: skip


def alike(name):
  """All rows but a few of each kind: that jit changes nothing is mostly a property of what they share."""
  return name not in ALONE


@cheap(ENTRIES, alike)
def test_compiled_is_not_compiled(name):
  entry = ENTRIES[name]
  x, numbers = inputs(entry), entry.numbers(0, 'float32')
  first = compiled(entry.run)(numbers, *x)
  with jax.disable_jit() if name in COMPILED else contextlib.nullcontext():
    close(entry, first, entry.run(numbers, *x))


@cheap(ENTRIES)
def test_samples_do_not_know_each_other(name):
  """Beside another, and in halves under pmap of vmap, a row is what it is in the whole batch."""
  entry = ENTRIES[name]
  x, numbers = inputs(entry), entry.numbers(0, 'float32')
  whole = compiled(entry.run)(numbers, *x)
  split = halves(entry.run)(numbers, *jax.tree.map(lambda leaf: leaf.reshape(1, 2, 2, *leaf.shape[1:]), x))
  close(entry, jax.tree.map(lambda leaf: leaf.reshape(4, *leaf.shape[3:]), split), whole)
  order = np.array([0, 1, 2, 0])  # the program of the whole batch
  beside = compiled(entry.run)(numbers, *jax.tree.map(lambda leaf: leaf[order], x))
  close(entry, beside, jax.tree.map(lambda leaf: leaf[order], whole))


@every
@pytest.mark.parametrize('dtype', ['float32', 'bfloat16'])
def test_state_stays_float32(name, dtype):
  """Whatever the activations of the network."""
  entry = ENTRIES[name]
  out = jax.eval_shape(entry.run, entry.numbers(0, dtype), *inputs(entry))
  assert all(leaf.dtype == jnp.float32 and leaf.shape[0] == 4 for leaf in jax.tree.leaves(out))


@pytest.mark.parametrize('name', [*COMPILED, 'start', *of('guidance')])
@pytest.mark.parametrize('dtype', ['bfloat16', 'float16'])
def test_the_dtype_of_x_is_kept(name, dtype):
  """Samples and predictions have that of x; how samples are rounded is in `tests/solvers/test_precision.py`."""
  entry = ENTRIES[name]
  x, *rest = inputs(entry)
  out = jax.eval_shape(entry.run, entry.numbers(0, 'float32'), x.astype(dtype), *rest)
  assert all(leaf.dtype == dtype for leaf in jax.tree.leaves(out))


@cheap([name for name, entry in ENTRIES.items() if entry.reverse])
def test_gradients_are_finite(name):
  """In every number and in x; and, in x where it is read, not all zero."""
  entry = ENTRIES[name]
  slopes = gradient(entry.run)(entry.numbers(0, 'float32'), *inputs(entry))
  real = [leaf for leaf in jax.tree.leaves(slopes) if leaf.dtype != jax.dtypes.float0]
  assert all(np.isfinite(leaf).all() for leaf in real) and np.any(slopes[1]) == entry.reads_x


@pytest.mark.parametrize(
  'name', sorted(set(of('guidance')) - {'cfgpp', 'elucd_kick', 'protected'})
)  # which break the pair on purpose
def test_transforms_predict_consistently(name):
  """alpha x0 + sigma eps is still x, in every kind of transform."""
  entry = ENTRIES[name]
  x, cond, key = inputs(entry)
  denoise = entry.numbers(0, 'float32')
  x0, eps = compiled(entry.run)(denoise, x, cond, key)
  np.testing.assert_allclose(denoise.process.perturb(x0, eps, 0.5), x, atol=2e-6)
