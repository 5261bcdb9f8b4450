"""One table over everything public that samples, guides, trains or predicts; the properties that all must have.

A new solver, transform, loss or net is one line here; a public name without one fails the suite. An entry has a
pytree of all its numbers, which another seed changes, and a pure function of (numbers, x, cond, keys) with outputs
that have the batch first.
"""

import contextlib
import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from diffjax import guidance, keys, losses, nets, schedules, solvers
from diffjax.kinds import as_kind
from diffjax.prediction import Denoiser
from diffjax.solvers import grids

CLASSES, POINT, IMAGE = 3, (2,), (4, 4, 1)


class Entry(NamedTuple):
  numbers: Callable  # (seed, dtype of the network) -> pytree
  run: Callable  # (numbers, x, cond, keys) -> pytree of arrays (B, ...)
  shape: tuple = POINT


def small(dtype='float32'):
  return nets.mlp(width=8, depth=1, classes=CLASSES, dtype=dtype)


def weights(net, seed, shape=POINT):
  """Parameters in which nothing is at its initial zero."""
  like = jax.eval_shape(net.init, jax.random.key(0), np.zeros((1, *shape)), np.zeros(1), np.zeros(1, int))
  r = np.random.default_rng(seed)
  return jax.tree.map(lambda leaf: np.float32(0.3 * r.standard_normal(leaf.shape)), like)


def denoiser(seed, dtype):
  process = schedules.vp_linear(0.1 + 0.1 * seed, 20.0 - seed)
  return Denoiser(weights(small(dtype), seed), process, as_kind('v'), CLASSES, net=small(dtype))


def run_solver(tree, x, cond, key):
  return solvers.sample(*tree, x, key, cond)


def solver(name, after=lambda table: table):
  """Padded, so that all of them share one compiled program; `tests/solvers` has them as they are."""

  def numbers(seed, dtype):
    denoise = denoiser(seed, dtype)
    ts = grids.uniform(denoise.process, 4) ** (1 + 0.2 * seed)
    return denoise, solvers.pad(after(getattr(solvers, name)(denoise.process, ts)), 16, 6)

  return Entry(numbers, run_solver)


def transform(make):
  """make(denoise, value): the transform with its numbers at `value`, something between 1 and 2."""

  return Entry(lambda seed, dtype: make(denoiser(seed, dtype), 1.3 + 0.2 * seed), run_transform)


def run_transform(denoise, x, cond, key):
  return denoise(x, 0.5, cond)[:2]


def loss(make):
  """make(process, net) -> loss."""

  def run(denoise, x, cond, key):
    return make(denoise.process, denoise.net)({'student': denoise.params}, {'x': x, 'cond': cond}, key)

  return Entry(denoiser, run)


def net(make, shape=POINT, **options):
  """The network and its weights; time and label move with the sample."""

  def numbers(seed, dtype):
    return Static(make(classes=CLASSES, dtype=dtype, **options)), weights(make(classes=CLASSES, **options), seed, shape)

  def run(tree, x, cond, key):
    return tree[0].value(tree[1], x, 100.0 * cond + 5, cond, key)

  return Entry(numbers, run, shape)


@jax.tree_util.register_static
class Static(NamedTuple):
  value: Any


def towards_zero(x, t, cond):
  """A classifier's log probability for the tests."""
  return -jnp.sum(x**2, -1) * (1 + cond)


SOLVERS = {
  'ddim': solver('ddim'),
  'ddpm': solver('ddpm'),
  'ddpm_large': solver('ddpm_large'),
  'deis_rhoab': solver('deis_rhoab'),
  'deis_rhork': solver('deis_rhork'),
  'deis_tab': solver('deis_tab'),
  'dpm_fast': solver('dpm_fast'),
  'dpm_solver': solver('dpm_solver'),
  'dpmpp_2m': solver('dpmpp_2m'),
  'dpmpp_2s': solver('dpmpp_2s'),
  'dpmpp_3m': solver('dpmpp_3m'),
  'dpmpp_3m_compat': solver('dpmpp_3m_compat'),
  'dpmpp_3s': solver('dpmpp_3s'),
  'euler': solver('euler'),
  'euler_maruyama': solver('euler_maruyama'),
  'exponential_adams': solver('exponential_adams'),
  'f_pndm': solver('f_pndm'),
  'ghvb': solver('ghvb'),
  'heun': solver('heun'),
  'ipndm': solver('ipndm'),
  'midpoint': solver('midpoint'),
  'rk4': solver('rk4'),
  's_pndm': solver('s_pndm'),
  'sde_dpm': solver('sde_dpm'),
  'sde_dpmpp_2m': solver('sde_dpmpp_2m'),
  'unipc': solver('unipc'),
}
TABLE_TRANSFORMS = {
  'heavy_ball': solver('dpmpp_2m', after=solvers.heavy_ball),
  'nesterov': solver('dpmpp_2m', after=solvers.nesterov),
}
TRANSFORMS = {
  'cfg': transform(lambda denoise, v: guidance.cfg(denoise, v, interval=(0.1, v))),
  'classifier_guidance': transform(lambda denoise, v: guidance.classifier_guidance(denoise, towards_zero, v)),
  'dynamic_threshold': transform(lambda denoise, v: guidance.dynamic_threshold(denoise, v / 2, v / 4)),
  'threshold': transform(lambda denoise, v: guidance.threshold(denoise, -v / 4, v / 4)),
}
LOSSES = {
  'denoising': loss(lambda process, net: losses.denoising(process, net, drop=0.2, null=CLASSES)),
}
NETS = {
  'mlp': net(nets.mlp, width=8, depth=2),
  'unet': net(nets.unet, IMAGE, width=4, levels=(1,), blocks=1, attention=(4,), dropout=0.2),
}
ENTRIES = SOLVERS | TABLE_TRANSFORMS | TRANSFORMS | LOSSES | NETS
every = pytest.mark.parametrize('name', ENTRIES)

# Public names that are not themselves a transform or a net.
HELPERS = {'branches', 'chain', 'cost', 'Apply', 'MLP', 'UNet'}


@pytest.mark.parametrize(
  'table, public',
  [
    (SOLVERS, solvers.tables),
    (TABLE_TRANSFORMS, solvers.transforms),
    (TRANSFORMS, guidance.__all__),
    (LOSSES, losses.__all__),
    (NETS, nets.__all__),
  ],
  ids=['solvers', 'tables', 'guidance', 'losses', 'nets'],
)
def test_nothing_public_is_missing(table, public):
  assert set(table) == set(public) - HELPERS


def inputs(entry, n=4):
  x = np.random.default_rng(0).standard_normal((n, *entry.shape)).astype(np.float32)
  return x, np.arange(n, dtype=np.int32) % CLASSES, keys.per_sample(jax.random.key(0), n)


def close(got, want):
  for a, b in zip(jax.tree.leaves(got), jax.tree.leaves(want), strict=True):
    np.testing.assert_allclose(a, b, rtol=2e-5, atol=2e-5)


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


@every
def test_compiled_is_not_compiled_and_numbers_never_recompile(name, compiles):
  entry = ENTRIES[name]
  x, others = inputs(entry), entry.numbers(1, 'float32')
  first = compiled(entry.run)(entry.numbers(0, 'float32'), *x)
  with (
    jax.disable_jit() if name in SOLVERS | TABLE_TRANSFORMS else contextlib.nullcontext()
  ):  # `sample` is itself compiled
    close(first, entry.run(entry.numbers(0, 'float32'), *x))
  with compiles(0):
    second = compiled(entry.run)(others, *x)
  assert not np.array_equal(jax.tree.leaves(first)[0], jax.tree.leaves(second)[0])


@every
def test_samples_do_not_know_each_other(name):
  """The first rows of a batch, and its halves under pmap of vmap, are what the whole batch gives."""
  entry = ENTRIES[name]
  x, numbers = inputs(entry), entry.numbers(0, 'float32')
  whole = compiled(entry.run)(numbers, *x)
  split = halves(entry.run)(numbers, *jax.tree.map(lambda leaf: leaf.reshape(1, 2, 2, *leaf.shape[1:]), x))
  close(jax.tree.map(lambda leaf: leaf.reshape(4, *leaf.shape[3:]), split), whole)
  first = compiled(entry.run)(numbers, *jax.tree.map(lambda leaf: leaf[:3], x))
  close(first, jax.tree.map(lambda leaf: leaf[:3], whole))


@every
@pytest.mark.parametrize('dtype', ['float32', 'bfloat16'])
def test_state_stays_float32(name, dtype):
  """Whatever the activations of the network."""
  entry = ENTRIES[name]
  out = jax.eval_shape(entry.run, entry.numbers(0, dtype), *inputs(entry))
  assert all(leaf.dtype == jnp.float32 and leaf.shape[0] == 4 for leaf in jax.tree.leaves(out))


@every
def test_gradients_are_finite(name):
  """In every number and in x; and not all zero."""
  entry = ENTRIES[name]
  slopes = gradient(entry.run)(entry.numbers(0, 'float32'), *inputs(entry))
  real = [leaf for leaf in jax.tree.leaves(slopes) if leaf.dtype != jax.dtypes.float0]
  assert all(np.isfinite(leaf).all() for leaf in real) and np.any(slopes[1])


@pytest.mark.parametrize('name', TRANSFORMS)
def test_transforms_predict_consistently(name):
  """alpha x0 + sigma eps is still x, in every kind of transform."""
  entry = ENTRIES[name]
  x, cond, key = inputs(entry)
  denoise = entry.numbers(0, 'float32')
  x0, eps = compiled(entry.run)(denoise, x, cond, key)
  np.testing.assert_allclose(denoise.process.perturb(x0, eps, 0.5), x, atol=2e-6)
