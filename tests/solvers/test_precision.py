"""Half-precision samples are those of float32 rounded once, in every table and every solver with a step of its own."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import struct
from oracle import is_defined_on, legal_grid

from diffjax import guidance, schedules, solvers, statistics
from diffjax.exact import gaussian, mixture
from diffjax.kinds import as_kind
from diffjax.prediction import Denoiser, Pred, complete
from diffjax.process import Process
from diffjax.solvers import grids, noise, pad, sample, trajectory
from diffjax.solvers.own.adaptive import dopri5, dpm_adaptive
from diffjax.statistics.types import Gaussian

HALVES = pytest.mark.parametrize('dtype', ['bfloat16', 'float16'])
KEY, N = jax.random.key(0), 64


def start(process, dtype, shape=(N, 1)):
  """Starts that float32 holds too, exactly."""
  x = process.schedule(process.t_max)[1] * jax.random.normal(KEY, shape)
  return x.astype(dtype)


def once_rounded(got, want, dtype):
  """`got` in this dtype is `want`, which is float32, rounded once: within half a step of the dtype, and 1e-5."""
  assert got.dtype == jnp.dtype(dtype) and want.dtype == jnp.float32
  bound = jnp.finfo(dtype).eps / 2 * np.abs(want) + 1e-5
  assert (np.abs(np.asarray(got, np.float32) - want) <= bound).all()


def both(run, process, dtype, shape=(N, 1)):
  """What `run` makes of the half-precision starts, and of the same numbers in float32."""
  x = start(process, dtype, shape)
  once_rounded(run(x), run(x.astype(jnp.float32)), dtype)


@HALVES
@pytest.mark.parametrize(
  'name, n',
  [('euler', 1000), ('dpmpp_2m', 1000), pytest.param('trig_adams', 200, marks=pytest.mark.slow), ('ddpm', 1000)],
)
def test_many_steps_end_in_one_rounding(name, n, dtype):
  """The flow of N(.3, .5^2): in bfloat16 registers Euler's 1000 steps ended .58 away, in those of float32 .0007."""
  process, target = schedules.flow(), gaussian([0.3], 0.25)
  table, denoise = getattr(solvers, name)(process, grids.uniform(process, n)), target.denoiser(process)
  both(lambda x: sample(denoise, table, x, KEY), process, dtype)
  if not table.stochastic:
    x = start(process, dtype).astype(jnp.float32)
    wanted = 0.3 + 0.5 * np.asarray(x)
    got = np.asarray(sample(denoise, table, x.astype(dtype)), np.float32)
    assert (np.abs(got - wanted) <= 0.004 * np.abs(wanted) + 2e-3).all()


@pytest.mark.parametrize(
  'kind, dtype', [('flow', 'bfloat16'), ('flow', 'float16'), ('vp_linear', 'bfloat16'), ('edm', 'bfloat16')]
)
@pytest.mark.parametrize('name', solvers.tables.__all__)
def test_every_table(name, kind, dtype):
  """Padded to one size, so that all share the programs of their process."""
  if not is_defined_on(name, kind):
    return
  process = getattr(schedules, kind)()
  table = pad(getattr(solvers, name)(process, legal_grid(name, process, 6)), 24, 6)
  denoise = gaussian([0.3], 0.25).denoiser(process)
  both(lambda x: sample(denoise, table.replace(stochastic=True), x, KEY), process, dtype)


PROCESS = schedules.vp_linear()
TS = grids.uniform(PROCESS, 8, to_zero=False)
SLANTED = np.array([[1.0, 0.9], [0.2, 0.0]])
OWN = {
  'predictor_corrector': lambda: solvers.predictor_corrector(PROCESS, TS),
  'sn_dpm': lambda: solvers.sn_dpm(PROCESS, TS, clip=(-3, 3)),
  'npr_dpm': lambda: solvers.npr_dpm(PROCESS, TS, data_var=1.0),
  'full_dpm': lambda: solvers.full_dpm(PROCESS, TS, data_var=1.0),
  'gms': lambda: solvers.gms(PROCESS, TS, clip=(-3, 3)),
  'analytic_dpm': lambda: solvers.analytic_dpm(PROCESS, TS, statistics.isotropic(PROCESS)),
  'dpm_v3': lambda: solvers.dpm_v3(
    PROCESS, TS, statistics.linear_form(PROCESS).replace(l=SLANTED, s=SLANTED - 1, b=0.1 * SLANTED)
  ),
  'teleport': lambda: solvers.teleport(
    solvers.dpmpp_2m(PROCESS, TS[2:]), PROCESS, Gaussian(mean=np.zeros(2), basis=np.eye(2), var=np.full(2, 0.3))
  ),
}


ALIKE = ('npr_dpm', 'gms')  # their step is written beside that of sn_dpm


@pytest.mark.parametrize(
  'name', [pytest.param(name, marks=pytest.mark.slow) if name in ALIKE else name for name in OWN]
)
def test_every_step_of_its_own(name):
  assert {*solvers.own_step, *solvers.with_statistics} <= set(OWN)
  denoise = mixture([0.5, 0.5], [[1.0, 0.5], [-0.8, -1.0]], [0.3, 0.2]).moments_denoiser(PROCESS)
  solver = OWN[name]()
  denoise = guidance.with_covariance(denoise, 2) if name == 'full_dpm' else denoise
  both(lambda x: sample(denoise, solver, x, KEY), PROCESS, 'bfloat16', (16, 2))


@pytest.mark.parametrize('solver', [pytest.param(dopri5, marks=pytest.mark.slow), dpm_adaptive])
def test_adaptive(solver):
  denoise = gaussian([0.3], 0.25).denoiser(PROCESS)
  both(lambda x: solver(denoise, x, rtol=1e-3, atol=1e-3).x, PROCESS, 'bfloat16')


@pytest.mark.slow
def test_other_sources_of_noise():
  process = schedules.flow()
  table, denoise = solvers.ddpm(process, grids.uniform(process, 6)), gaussian([0.3], 0.25).denoiser(process)
  for source in (noise.fixed(jax.random.normal(KEY, (6, N, 1))), noise.brownian(table, process)):
    both(lambda x: sample(denoise, table, x, KEY, noise_source=source), process, 'bfloat16')  # noqa: B023


SEEN = []


def tanh_net(params, x, t, cond=None, key=None):
  """A network of the dtype of its input; a product of two dtypes would be refused by a convolution."""
  SEEN.append(x.dtype)
  return jnp.tanh(x * params.astype(x.dtype))


@pytest.mark.parametrize('wrap', ['plain', 'cfg', 'threshold', 'time_shift', 'with_moments', 'all'])
def test_networks_alone_see_half_precision(wrap):
  """Under any stack of transforms; and the pair that its output makes is consistent with x in float32."""
  layers = {
    'plain': lambda d: d,
    'cfg': lambda d: guidance.cfg(d, 1.5, null=0),
    'threshold': lambda d: guidance.dynamic_threshold(d, 0.9, 0.5),
    'time_shift': lambda d: guidance.time_shift(d, 0.1, 0.3, 'net_only'),
    'with_moments': lambda d: guidance.with_moments(d, tanh_net, jnp.float32(0.7), ('eps2',)),
  }
  pairs = []
  base = Denoiser(jnp.float32(0.8), PROCESS, as_kind('eps'), net=tanh_net)
  denoise = layers['with_moments'](layers['threshold'](layers['cfg'](base))) if wrap == 'all' else layers[wrap](base)
  table, x = solvers.dpmpp_2m(PROCESS, TS), start(PROCESS, 'bfloat16', (4, 2))
  SEEN.clear()
  got = sample(Spy(denoise, pairs.append), table, x, cond=jnp.ones(4, jnp.int32))
  assert set(SEEN) == {got.dtype} == {jnp.dtype('bfloat16')}
  assert all(leaf.dtype == jnp.float32 for pred in pairs for leaf in jax.tree.leaves(pred))


@struct.dataclass
class Spy:
  """Notes what a denoiser is shown and says, while it is traced."""

  denoise: Any
  note: Any = struct.field(pytree_node=False)

  @property
  def process(self):
    return self.denoise.process

  def __call__(self, x, t, cond=None, memory=None):
    pred = self.denoise(x, t, cond, memory)
    self.note((x, pred))
    return pred


@struct.dataclass
class Remembering:
  """Its own last prediction, half of it, is the next one's offset: memory of the dtype of x."""

  process: Process

  def __call__(self, x, t, cond=None, memory=None):
    before = jnp.zeros_like(x) if memory is None else memory
    pred = complete(self.process, x, t, 0.3 + 0.1 * x + 0.5 * before)
    return pred._replace(aux={'memory': pred.x0})


@struct.dataclass
class Halved:
  """A denoiser that answers in half precision whatever it is asked in."""

  process: Process

  def __call__(self, x, t, cond=None, memory=None):
    pred = complete(self.process, x, t, jnp.tanh(x))
    return Pred(pred.x0.astype(jnp.bfloat16), pred.eps.astype(jnp.bfloat16))


@HALVES
def test_memory_and_paths(dtype):
  """Memory is carried in float32; points and predictions on a path are rounded once each."""
  process = schedules.flow()
  table = solvers.dpmpp_2m(process, grids.uniform(process, 50))
  denoise = Remembering(process)
  both(lambda x: sample(denoise, table, x), process, dtype)
  x = start(process, dtype)
  half, full = trajectory(denoise, table, x), trajectory(denoise, table, x.astype(jnp.float32))
  for got, want in zip(jax.tree.leaves(half), jax.tree.leaves(full), strict=True):
    once_rounded(got, want, dtype)
  both(lambda x: sample(Halved(process), pad(table, 60, 3), x), process, dtype)


def test_modalities_keep_their_own_dtypes_and_float64_stays(compiles):
  """A tree of bfloat16 and float32; float64 under x64; another number is no other program."""
  process = schedules.flow()
  table = solvers.dpmpp_2m(process, grids.uniform(process, 8))
  shown = []

  def two(params, x, t, cond=None, key=None):
    shown.append({name: leaf.dtype.name for name, leaf in x.items()})
    return {name: jnp.tanh(params * leaf) for name, leaf in x.items()}

  denoise = Denoiser(jnp.float32(0.5), process, as_kind('x0'), net=two)
  x = {'a': start(process, 'bfloat16'), 'b': start(process, 'float32')}
  got = sample(denoise, table, x)
  assert {name: leaf.dtype for name, leaf in got.items()} == {name: leaf.dtype for name, leaf in x.items()}
  assert all(seen == {'a': 'bfloat16', 'b': 'float32'} for seen in shown)
  with compiles(0):
    sample(denoise.replace(params=jnp.float32(0.7)), table, x)
  with jax.enable_x64(True):
    denoise = gaussian([0.3], 0.25).denoiser(schedules.flow())
    for name in ('float64', 'float32', 'bfloat16'):
      assert sample(denoise, table, start(process, name)).dtype == jnp.dtype(name)
