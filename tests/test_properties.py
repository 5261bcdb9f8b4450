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

from diffjax import guidance, keys, losses, nets, schedules, solvers, statistics
from diffjax.exact import mixture
from diffjax.kinds import as_kind
from diffjax.prediction import Denoiser
from diffjax.solvers import grids

CLASSES, POINT, IMAGE = 3, (2,), (4, 4, 1)
CLASSED = mixture([1, 1, 1], [[0, 0], [1, 0], [0, 1]], [0.5, 0.2, 0.3])  # a component a class


class Entry(NamedTuple):
  numbers: Callable  # (seed, dtype of the network) -> pytree
  run: Callable  # (numbers, x, cond, keys) -> pytree of arrays (B, ...)
  shape: tuple = POINT
  padded: bool = False  # a table of one size, so that all of them share one compiled program


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
  """A padded table; `tests/solvers` has them as they are."""
  return padded(lambda process, ts: after(getattr(solvers, name)(process, ts)), to_zero=True)


def padded(make, to_zero=False):
  """make(process, ts): a table, padded."""

  def numbers(seed, dtype):
    denoise = denoiser(seed, dtype)
    ts = grids.uniform(denoise.process, 4, to_zero) ** (1 + 0.2 * seed)
    return denoise, solvers.pad(make(denoise.process, ts), 16, 6)

  return Entry(numbers, run_solver, padded=True)


def rewritten(make):
  """make(process, ts): a table made of another, unpadded."""

  def numbers(seed, dtype):
    denoise = denoiser(seed, dtype)
    return denoise, make(denoise.process, grids.uniform(denoise.process, 4, to_zero=False) ** (1 + 0.2 * seed))

  return Entry(numbers, run_solver)


def informed(name, known, entry=rewritten):
  """known(process): the statistics that the table is laid out on."""
  return entry(lambda process, ts: getattr(solvers, name)(process, ts, known(process)))


def slanted(process):
  """Linear terms that differ between elements."""
  l = np.array([[1.0, 0.9], [0.2, 0.0]])  # noqa: E741
  return statistics.linear_form(process).replace(l=l, s=l - 1, b=0.1 * l)


def informed_by_heads(name):
  """An own-step solver of a denoiser with moments of the noise."""

  def numbers(seed, dtype):
    denoise, net = denoiser(seed, dtype), nets.mlp(width=8, depth=1, out_channels=6, classes=CLASSES, dtype=dtype)
    heads = guidance.with_moments(denoise, net, weights(net, seed + 10), ('eps2', 'eps3', 'residual2'))
    ts = grids.uniform(denoise.process, 4, to_zero=False) ** (1 + 0.2 * seed)
    return heads, getattr(solvers, name)(denoise.process, ts, clip=(-3 - seed, 3), data_var=1 + seed)

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


class Apart(NamedTuple):
  """A network of several modalities that never meet."""

  net: Any

  def __call__(self, params, x, t, cond, key):
    return {name: self.net(params, x[name], t[name], cond, key) for name in x}


def loss_of_two(make):
  """A `loss` of a point and of itself reversed."""

  def run(denoise, x, cond, key):
    batch = {'x': {'a': x, 'b': x[:, ::-1]}, 'cond': cond}
    return make(denoise.process, Apart(denoise.net))({'student': denoise.params}, batch, key)

  return Entry(denoiser, run)


def net(make, shape=POINT, **options):
  """The network and its weights; time and label move with the sample."""

  def numbers(seed, dtype):
    return Static(make(classes=CLASSES, dtype=dtype, **options)), weights(make(classes=CLASSES, **options), seed, shape)

  def run(tree, x, cond, key):
    return tree[0].value(tree[1], x, 100.0 * cond + 5, cond, key)

  return Entry(numbers, run, shape)


class Twice:
  """`unidiffuser` of a point and of itself reversed, each at its own time."""

  def __init__(self, **options):
    self.net = nets.unidiffuser(**options)

  def init(self, key, x, t, cond):
    return self.net.init(key, *self._pair(x, t), cond)

  def __call__(self, params, x, t, cond, key):
    return self.net(params, *self._pair(x, t), cond, key)

  def __eq__(self, other):
    return isinstance(other, Twice) and self.net == other.net

  def __hash__(self):
    return hash(self.net)

  def _pair(self, x, t):
    return {'a': x, 'b': x[:, ::-1]}, {'a': t, 'b': t / 2}


@jax.tree_util.register_static
class Static(NamedTuple):
  value: Any


def towards_zero(x, t, cond):
  """A classifier's log probability for the tests."""
  return -jnp.sum(x**2, -1) * (1 + cond)


SOLVERS = {
  'analytic_dpm': informed('analytic_dpm', statistics.isotropic, padded),
  'ancestral': solver('ancestral'),
  'ddim': solver('ddim'),
  'ddpm': solver('ddpm'),
  'ddpm_large': solver('ddpm_large'),
  'deis_rhoab': solver('deis_rhoab'),
  'deis_rhork': solver('deis_rhork'),
  'deis_tab': solver('deis_tab'),
  'dpm_fast': solver('dpm_fast'),
  'dpm_solver': solver('dpm_solver'),
  'dpm_v3': informed('dpm_v3', slanted),
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
  'gms': informed_by_heads('gms'),
  'heun': solver('heun'),
  'heun_in_t': solver('heun_in_t'),
  'ipndm': solver('ipndm'),
  'midpoint': solver('midpoint'),
  'npr_dpm': informed_by_heads('npr_dpm'),
  'predictor_corrector': rewritten(solvers.predictor_corrector),
  'reverse_diffusion': solver('reverse_diffusion'),
  'rk4': solver('rk4'),
  's_pndm': solver('s_pndm'),
  'sde_adams': solver('sde_adams'),
  'sde_dpm': solver('sde_dpm'),
  'sde_dpmpp_2m': solver('sde_dpmpp_2m'),
  'sn_dpm': informed_by_heads('sn_dpm'),
  'trig_adams': solver('trig_adams'),
  'unipc': solver('unipc'),
}
TABLE_TRANSFORMS = {
  'churn': padded(lambda process, ts: solvers.churn(solvers.dpmpp_2m, process, ts, 1.0)),
  'denoise_to_zero': padded(
    lambda process, ts: solvers.denoise_to_zero(solvers.dpmpp_2m(process, ts), process, ts[-1])
  ),
  'dualfast': padded(lambda process, ts: solvers.dualfast(solvers.dpmpp_2m(process, ts), process, 0.2)),
  'heavy_ball': solver('dpmpp_2m', after=solvers.heavy_ball),
  'in_data_form': rewritten(lambda process, ts: solvers.in_data_form(solvers.ipndm(process, ts), process)),
  'nesterov': solver('dpmpp_2m', after=solvers.nesterov),
  'pair_form': padded(lambda process, ts: solvers.pair_form(solvers.dpmpp_2m(process, ts), process)),
}
TRANSFORMS = {
  'mean_reverting': transform(lambda denoise, v: guidance.mean_reverting(denoise, jnp.asarray([v, -v]))),
  'cfg': transform(lambda denoise, v: guidance.cfg(denoise, v, interval=(0.1, v))),
  'cfgpp': transform(guidance.cfgpp),
  'classifier_guidance': transform(lambda denoise, v: guidance.classifier_guidance(denoise, towards_zero, v)),
  'dynamic_threshold': transform(lambda denoise, v: guidance.dynamic_threshold(denoise, v / 2, v / 4)),
  'threshold': transform(lambda denoise, v: guidance.threshold(denoise, -v / 4, v / 4)),
  'time_shift': transform(lambda denoise, v: guidance.time_shift(denoise, v / 4, v / 8, 'net_only')),
}
LOSSES = {
  'denoising': loss(lambda process, net: losses.denoising(process, net, drop_cond=0.2, null=CLASSES)),
  'modalities': loss_of_two(losses.modalities),
  'moments': loss(
    lambda process, net: losses.moments(process, net, ('residual2',), CLASSED.denoiser(process)),
  ),
}
NETS = {
  'edm2': net(
    nets.edm2, IMAGE, width=4, channel_mult=(1,), blocks_per_level=1, attention=(4,), head_dim=4, dropout=0.2
  ),
  'dit': net(nets.dit, IMAGE, width=8, depth=1, heads=2),
  'mlp': net(nets.mlp, width=8, depth=2),
  'unet': net(nets.unet, IMAGE, width=4, channel_mult=(1,), blocks_per_level=1, attention=(4,), dropout=0.2),
  'unidiffuser': net(Twice, width=8, depth=2, heads=2),
  'uvit': net(nets.uvit, IMAGE, width=8, depth=2, heads=2),
}
ENTRIES = SOLVERS | TABLE_TRANSFORMS | TRANSFORMS | LOSSES | NETS
every = pytest.mark.parametrize('name', ENTRIES)

# Public names that are not themselves a transform or a net.
HELPERS = {'branches', 'chain', 'cost', 'with_moments', 'Apply', 'DiT', 'EDM2', 'MLP', 'UNet', 'UniDiffuser', 'UViT'}


@pytest.mark.parametrize(
  'table, public',
  [
    (SOLVERS, (*solvers.tables.__all__, *solvers.with_statistics, *solvers.own_step)),
    (TABLE_TRANSFORMS, solvers.table_transforms),
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


@pytest.mark.parametrize(
  'name',
  [  # the others' programs are those of these, as the last test says
    pytest.param(name, marks=pytest.mark.slow) if entry.padded and name not in ('ancestral', 'ddim', 'f_pndm') else name
    for name, entry in ENTRIES.items()
  ],
)
def test_compiled_is_not_compiled(name):
  entry = ENTRIES[name]
  x, numbers = inputs(entry), entry.numbers(0, 'float32')
  first = compiled(entry.run)(numbers, *x)
  with (
    jax.disable_jit() if name in SOLVERS | TABLE_TRANSFORMS else contextlib.nullcontext()
  ):  # `sample` is itself compiled
    close(first, entry.run(numbers, *x))


@every
def test_samples_do_not_know_each_other(name):
  """Beside another, and in halves under pmap of vmap, a row is what it is in the whole batch."""
  entry = ENTRIES[name]
  x, numbers = inputs(entry), entry.numbers(0, 'float32')
  whole = compiled(entry.run)(numbers, *x)
  split = halves(entry.run)(numbers, *jax.tree.map(lambda leaf: leaf.reshape(1, 2, 2, *leaf.shape[1:]), x))
  close(jax.tree.map(lambda leaf: leaf.reshape(4, *leaf.shape[3:]), split), whole)
  order = np.array([0, 1, 2, 0])  # the program of the whole batch
  beside = compiled(entry.run)(numbers, *jax.tree.map(lambda leaf: leaf[order], x))
  close(beside, jax.tree.map(lambda leaf: leaf[order], whole))


@every
@pytest.mark.parametrize('dtype', ['float32', 'bfloat16'])
def test_state_stays_float32(name, dtype):
  """Whatever the activations of the network."""
  entry = ENTRIES[name]
  out = jax.eval_shape(entry.run, entry.numbers(0, dtype), *inputs(entry))
  assert all(leaf.dtype == jnp.float32 and leaf.shape[0] == 4 for leaf in jax.tree.leaves(out))


@pytest.mark.parametrize('name', SOLVERS | TABLE_TRANSFORMS | TRANSFORMS)
@pytest.mark.parametrize('dtype', ['bfloat16', 'float16'])
def test_the_dtype_of_x_is_kept(name, dtype):
  """Samples and predictions have that of x; how samples are rounded is in `tests/solvers/test_precision.py`."""
  entry = ENTRIES[name]
  x, *rest = inputs(entry)
  out = jax.eval_shape(entry.run, entry.numbers(0, 'float32'), x.astype(dtype), *rest)
  assert all(leaf.dtype == dtype for leaf in jax.tree.leaves(out))


@every
def test_gradients_are_finite(name):
  """In every number and in x; and not all zero."""
  entry = ENTRIES[name]
  slopes = gradient(entry.run)(entry.numbers(0, 'float32'), *inputs(entry))
  real = [leaf for leaf in jax.tree.leaves(slopes) if leaf.dtype != jax.dtypes.float0]
  assert all(np.isfinite(leaf).all() for leaf in real) and np.any(slopes[1])


@pytest.mark.parametrize('name', sorted(set(TRANSFORMS) - {'cfgpp'}))  # which breaks the pair on purpose
def test_transforms_predict_consistently(name):
  """alpha x0 + sigma eps is still x, in every kind of transform."""
  entry = ENTRIES[name]
  x, cond, key = inputs(entry)
  denoise = entry.numbers(0, 'float32')
  x0, eps = compiled(entry.run)(denoise, x, cond, key)
  np.testing.assert_allclose(denoise.process.perturb(x0, eps, 0.5), x, atol=2e-6)
