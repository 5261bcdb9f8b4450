"""The scan: evaluations counted, one compilation, memory, modalities, gradients, solvers that are no tables."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import struct
from oracle import NFE, build, gm_a, legal_grid

from diffjax import noise_levels, schedules, solvers
from diffjax.exact import mixture
from diffjax.kinds import as_kind
from diffjax.prediction import Denoiser, as_denoiser, complete
from diffjax.process import Process
from diffjax.solvers import TableBuilder, grids, pad, sample, trajectory

X = np.random.default_rng(0).standard_normal((4, 2)).astype(np.float32)
SEEN, TRACES = [], []


@struct.dataclass
class Seen:
  """Notes on the host the time of every evaluation that really happens."""

  denoise: Any

  @property
  def process(self):
    return self.denoise.process

  def __call__(self, x, t, cond=None, memory=None):
    jax.debug.callback(lambda t: SEEN.append(float(t)), t)
    return self.denoise(x, t, cond, memory)


def evaluations(table):
  SEEN.clear()
  denoise = Seen(gm_a().denoiser(schedules.vp_linear()))
  jax.block_until_ready(sample(denoise, table, X, jax.random.key(0)))
  jax.effects_barrier()
  return sorted(SEEN, reverse=True)


@pytest.mark.parametrize('name, nfe', [(name, NFE.get(name, 5)) for name in solvers.tables.__all__])
def test_evaluations_are_counted(name, nfe):
  """solver.nfe is what happens, at the times the rows name, padded or not."""
  process = schedules.vp_linear()
  table = build(name, process, legal_grid(name, process, 5))
  assert table.nfe == nfe
  np.testing.assert_allclose(evaluations(table), np.sort(table.rows.t)[::-1], rtol=1e-6)
  wide = pad(table, 20, 6)
  assert wide.nfe == nfe
  np.testing.assert_allclose(evaluations(wide), np.sort(table.rows.t)[::-1], rtol=1e-6)


def with_idle_rows():
  """DDIM with a row that only scales between its evaluations, as a restart would."""
  process = schedules.vp_linear()
  alpha, sigma, _ = noise_levels.at(process, [0.9, 0.5, 0.1])
  table = TableBuilder('x')
  table.row(0.9, x=alpha[1] * table.x0 + sigma[1] * table.eps)
  table.row(0.5, evaluated=False, x=2 * table.x)
  table.row(0.5, evaluated=False, x=0.5 * table.x)
  table.row(0.5, x=alpha[2] * table.x0 + sigma[2] * table.eps)
  return table.done()


def test_rows_that_are_not_live_are_not_evaluated():
  table = with_idle_rows()
  assert table.nfe == 2
  np.testing.assert_allclose(evaluations(table), [0.9, 0.5], rtol=1e-6)
  plain = solvers.ddim(schedules.vp_linear(), [0.9, 0.5, 0.1])
  denoise = gm_a().denoiser(schedules.vp_linear())
  np.testing.assert_allclose(sample(denoise, table, X), sample(denoise, plain, X), rtol=1e-6)


def net(params, x, t, cond=None, key=None):
  TRACES.append(x.shape)
  h = jnp.tanh(x @ params['in'] + t[:, None] / 1000 + params['label'][cond])
  return h @ params['out']


def params(seed):
  r = np.random.default_rng(seed)
  draw = {'in': (2, 8), 'label': (3, 8), 'out': (8, 2)}
  return {name: jnp.asarray(0.5 * r.standard_normal(shape), jnp.float32) for name, shape in draw.items()}


def denoiser(process, seed=0):
  return Denoiser(params(seed), process, as_kind('v'), net=net)


def test_numbers_change_without_another_compilation(compiles):
  """Parameters, seed, start, labels, grid, method options, schedule: one program, traced once; building is free too."""

  def arguments(seed=0, betas=(0.1, 20.0), warp=1.0, name='ddpm', **options):
    process = schedules.vp_linear(*betas)
    table = build(name, process, grids.uniform(process, 6) ** warp, **options)
    return denoiser(process, seed), table, (1 + seed) * X, jax.random.key(seed), jnp.full(4, seed % 3)

  others = [
    arguments(seed=1),
    arguments(betas=(0.2, 18)),
    arguments(betas=(1, np.float32(7))),
    arguments(warp=1.5),
    arguments(name='ddim', eta=0.3),
    arguments(name='euler_maruyama'),
  ]
  first = sample(*arguments())
  traces = len(TRACES)
  with compiles(0):
    arguments(betas=(0.3, 15.0), warp=1.2)
    results = [sample(*other) for other in others]
  assert len(TRACES) == traces
  assert all(not np.array_equal(first, result) for result in results)


def test_another_structure_does_compile(compiles):
  """The counter counts: another number of rows is another program."""
  process = schedules.vp_linear()
  table = solvers.ddim(process, grids.uniform(process, 17))
  with compiles(1):
    sample(denoiser(process), table, X, cond=np.zeros(4, np.int32))


@struct.dataclass
class Counter:
  """Predicts, for every sample, the number of evaluations it has seen before this one."""

  process: Process

  def __call__(self, x, t, cond=None, memory=None):
    before = jnp.zeros(x.shape[0]) if memory is None else memory
    pred = complete(self.process, x, t, jnp.broadcast_to(before[:, None], x.shape))
    return pred._replace(aux={'memory': before + 1})


def test_memory_passes_from_evaluation_to_evaluation():
  process = schedules.vp_linear()
  denoise = Counter(process)
  for name, last in (('ddim', 5), ('dpmpp_2m', 5), ('unipc', 5), ('heun', 10)):  # the last step returns x0
    table = build(name, process, grids.uniform(process, 6))
    np.testing.assert_allclose(sample(denoise, table, X), last, atol=1e-5)
    np.testing.assert_allclose(sample(denoise, pad(table, 15, 4), X), last, atol=1e-5)
  _, (_, clean) = trajectory(denoise, with_idle_rows(), X)
  np.testing.assert_array_equal(clean[jnp.array([0, 3])], np.stack([np.zeros_like(X), np.ones_like(X)]))


def test_path_shows_points_and_predictions():
  process = schedules.vp_linear()
  denoise, table = gm_a().denoiser(process), solvers.ddim(process, grids.uniform(process, 4))
  end, (points, clean) = trajectory(denoise, table, X)
  assert points.shape == clean.shape == (4, 4, 2)
  np.testing.assert_allclose(end, sample(denoise, table, X), rtol=1e-6)
  np.testing.assert_array_equal(points[0], X)
  np.testing.assert_allclose(clean[-1], end, atol=1e-6)
  for i, t in enumerate(table.rows.t):
    np.testing.assert_allclose(denoise(points[i], t).x0, clean[i], atol=1e-5)


def test_modalities_share_one_table():
  """A pytree of x: each modality is sampled as if alone when the network treats them apart."""
  process = schedules.flow()
  wide = mixture([0.5, 0.5], [[0.0, 1.0, 0.0], [1.0, 0.0, -1.0]], [0.2, 0.1])
  x = {'a': X, 'b': np.random.default_rng(1).standard_normal((4, 3)).astype(np.float32)}

  def both(x, t, cond=None):
    alpha, sigma = process.schedule(t)
    return {'a': gm_a().predict(x['a'], alpha, sigma).x0, 'b': wide.predict(x['b'], alpha, sigma).x0}

  table = solvers.unipc(process, grids.uniform(process, 5))
  got = sample(as_denoiser(both, process), table, x)
  for part, target in (('a', gm_a()), ('b', wide)):
    np.testing.assert_allclose(got[part], sample(target.denoiser(process), table, x[part]), atol=2e-6)
  noisy = sample(as_denoiser(both, process), solvers.ddpm(process, grids.uniform(process, 5)), x, jax.random.key(0))
  assert noisy['b'].shape == (4, 3) and np.isfinite(noisy['a']).all()


class Steps(NamedTuple):
  t: Any
  s: Any
  evaluated: Any
  stream: Any


@struct.dataclass
class Clipped:
  """Not a table: DDIM whose prediction is clipped, with a state of its own that counts the clipped values."""

  process: Process
  rows: Steps
  stochastic: bool = struct.field(pytree_node=False, default=False)
  skips: bool = struct.field(pytree_node=False, default=False)

  def init(self, x, key=None):
    return {'now': x, 'clipped': jnp.zeros(x.shape[0])}

  def point(self, state):
    return state['now']

  def transition(self, state, pred, row):
    x0 = jnp.clip(pred.x0, -1, 1)
    now = solvers.transfer(self.process, state['now'], x0, row.t, row.s)
    return {'now': now, 'clipped': state['clipped'] + jnp.sum(x0 != pred.x0, -1)}, None

  def update(self, state, pred, row, keys, noise):
    return self.transition(state, pred, row)[0]

  def output(self, state):
    return state


def test_a_solver_that_is_no_table():
  process = schedules.vp_linear()
  ts = grids.uniform(process, 5, to_zero=False).astype(np.float32)
  solver = Clipped(process, Steps(ts[:-1], ts[1:], np.ones(5, bool), np.arange(5)))
  assert isinstance(solver.rows.t, np.ndarray)
  denoise = gm_a().denoiser(process)
  got = sample(denoise, solver, X)
  inside = as_denoiser(lambda x, t, cond=None: jnp.clip(denoise(x, t).x0, -1, 1), process)
  np.testing.assert_allclose(got['now'], sample(inside, solvers.ddim(process, ts), X), atol=1e-5)
  assert got['clipped'].shape == (4,) and got['clipped'].sum() > 0


def test_gradients_equal_finite_differences(x64):
  """Through the scan, in the table's numbers, the parameters and the start; the masked program too."""
  process = schedules.vp_linear()
  table = solvers.dpmpp_2m(process, grids.uniform(process, 4))
  weights = jax.tree.map(lambda p: p.astype(float), params(0))
  for run in (table, pad(table, 6, 3)):

    @jax.jit
    def loss(table_weights, weights, x, run=run):
      solver = run.replace(rows=run.rows._replace(weights=table_weights))
      denoise = Denoiser(weights, process, as_kind('v'), net=net)
      return jnp.sum(sample(denoise, solver, x, cond=np.zeros(4, int)) ** 2)

    at = (jnp.asarray(run.rows.weights), weights, jnp.asarray(X, float))
    slopes = jax.jit(jax.grad(loss, argnums=(0, 1, 2)))(*at)
    for i in range(3):
      r = np.random.default_rng(i)
      way = jax.tree.map(lambda v: r.standard_normal(v.shape), at[i])  # noqa: B023
      h = 1e-6
      ends = [loss(*at[:i], jax.tree.map(lambda v, w: v + d * w, at[i], way), *at[i + 1 :]) for d in (h, -h)]  # noqa: B023
      along = sum(jnp.vdot(g, w) for g, w in zip(jax.tree.leaves(slopes[i]), jax.tree.leaves(way), strict=True))
      assert float(along) == pytest.approx(float(ends[0] - ends[1]) / (2 * h), rel=1e-6)


def test_keys_are_asked_for():
  process = schedules.vp_linear()
  denoise, table = gm_a().denoiser(process), solvers.ddpm(process, grids.uniform(process, 3))
  with pytest.raises(ValueError, match='key: got None; allowed: a typed key'):
    sample(denoise, table, X)
  with pytest.raises(ValueError, match='key: got None'):
    trajectory(denoise, table, X)
  with pytest.raises(ValueError, match='key: got .* without a key type'):
    sample(denoise, table, X, jax.random.PRNGKey(0))
  with pytest.raises(ValueError, match=r'key: got a batch of shape \(3,\); allowed: .* shape \(4,\)'):
    sample(denoise, table, X, jax.random.split(jax.random.key(0), 3))


def test_a_table_may_be_built_inside_a_program():
  """Tables are host work, but may be written where they are used, inside a jitted function."""
  process = schedules.cosine()
  denoise = gm_a().denoiser(process)
  inside = jax.jit(lambda x: sample(denoise, solvers.unipc(process, grids.karras(process, 4)), x))
  np.testing.assert_allclose(
    inside(X), sample(denoise, solvers.unipc(process, grids.karras(process, 4)), X), rtol=1e-5, atol=1e-6
  )
