"""The start belongs to the grid's first time: its time, its law, what comes of it, and when it warns."""

import warnings

import jax
import jax.numpy as jnp
import numpy as np
import oracle
import pytest

from diffjax import exact, keys, noise_levels, schedules, solvers, statistics
from diffjax.methods import solved
from diffjax.runs.generate import generate, key_batch, trajectories
from diffjax.solvers import grids
from diffjax.train.sharding import make_mesh

PROCESSES = ('vp_linear', 'cosine', 'sub_vp', 've', 'edm', 'flow', 'sigmoid')
MEAN, STD = 0.3, 0.5


def late(process, n, share=0.2):
  """A grid that begins where alpha STD / sigma is this share, evenly in lam to t_min and then 0."""
  lam = np.linspace(np.log(share / STD), float(noise_levels.at(process, [float(process.t_min)])[2][0]), n)
  return np.append(noise_levels.times_of(process, lam), 0.0)


@pytest.mark.parametrize('name', [*solvers.tables.__all__, *solvers.with_statistics, *solvers.own_step])
def test_every_solver_says_where_it_begins(name):
  """Whatever its rows are: those of a churned, padded or leaping one too."""
  process = schedules.vp_linear()
  ts = late(process, 8)
  known = {'dpm_v3': statistics.linear_form, 'analytic_dpm': statistics.isotropic}
  given = (known[name](process),) if name in known else ()
  solver = getattr(solvers, name)(process, ts, *given)
  assert float(solvers.start_time(process, solver, STD)) == ts[0]


def test_what_is_made_of_solvers_says_so_too():
  process = schedules.edm()
  ts = late(process, 8)
  table = solvers.ddim(process, ts)
  moved = solvers.heavy_ball(solvers.ipndm(process, ts), 0.8)
  for made in (solvers.churn(solvers.heun, process, ts), solvers.pad(table, 20, 3), moved):
    assert float(solvers.start_time(process, made, STD)) == ts[0]
  gaussian = statistics.gaussian(np.random.default_rng(0).standard_normal((9, 2)))
  assert (
    float(solvers.start_time(process, solvers.teleport(table, process, gaussian))) == 80
  )  # leaps from t_max to ts[0]


@pytest.mark.parametrize('kind', PROCESSES)
def test_the_law_of_x_at_the_first_time(kind):
  """alpha m + sqrt(alpha^2 s^2 + sigma^2) z of the same z, element by element; sigma z at t_max as ever."""
  process = getattr(schedules, kind)()
  ts = late(process, 4)
  batch, like = keys.per_sample(jax.random.key(0), 6), jnp.zeros((6, 3))
  z, mean = np.asarray(keys.normal(batch, like)), np.array([1.0, -2.0, 0.5])
  solver = solvers.ddim(process, ts)
  alpha, sigma, _ = (v[0] for v in noise_levels.at(process, ts))
  for m, s, x in (
    (mean, STD, solvers.start(process, solver, jax.random.key(0), like, mean, STD)),
    (MEAN, STD, solvers.start(process, solver, batch, like, MEAN, STD)),
    (0.0, 0.0, process.start(batch, like, ts[0])),
  ):
    np.testing.assert_allclose(x, alpha * m + np.sqrt(alpha**2 * s**2 + sigma**2) * z, rtol=1e-5, atol=1e-6 * sigma)
  whole = solvers.ddim(process, grids.uniform(process, 4))
  last = np.float32(process.schedule(process.t_max)[1])
  np.testing.assert_array_equal(solvers.start(process, whole, batch, like), last * z)
  np.testing.assert_array_equal(process.prior(batch, like), last * z)


def test_each_modality_begins_by_its_own_numbers():
  process = schedules.edm()
  like = {'a': jnp.zeros((5, 2)), 'b': jnp.zeros((5, 3, 1))}
  mean, std = {'a': np.array([1.0, 2.0]), 'b': 3.0}, {'a': 4.0, 'b': 0.5}
  batch = keys.per_sample(jax.random.key(0), 5)
  z, x = keys.normal(batch, like), process.start(batch, like, 5.0, mean, std)
  for name in like:
    wanted = mean[name] + np.sqrt(std[name] ** 2 + 25) * np.asarray(z[name])
    np.testing.assert_allclose(x[name], wanted, rtol=1e-5)
  np.testing.assert_allclose(process.start(batch, like, 5.0, 1.0)['b'], 1 + 5 * np.asarray(z['b']), rtol=1e-6)


@pytest.mark.parametrize('kind', PROCESSES)
def test_samples_of_a_late_grid_have_the_law_of_the_data(kind):
  """N(.3, .5^2) through the draws of the commands; the grid of 60 steps begins at alpha s / sigma = .4, 4000 samples.

  The flow of a Gaussian is x0 = m + s z for any start, DDIM's error is below .005, and noise alone for a start would
  end at .5 / sqrt(1 + .16) = .464.
  """
  process, n = getattr(schedules, kind)(), 4000
  solver = solvers.dpmpp_2m(process, late(process, 60, 0.4))
  denoise = exact.gaussian([MEAN], STD**2).denoiser(process)
  drawn = solved(denoise, solver, (1,), statistics.Spread(np.full(1, MEAN), STD))
  x = generate(drawn, n, seed=3, batch=n)
  assert abs(x.mean() - MEAN) < 4 * STD / np.sqrt(n) + 0.005
  assert abs(x.std() - STD) < 4 * STD / np.sqrt(2 * n) + 0.005


def test_from_noise_of_level_11_on_edm():
  """The case that was found: samples of std 3.75, since they began at 80 z."""
  process = schedules.edm()
  ts = np.append(np.geomspace(11.0, 0.002, 40), 0.0)
  denoise = exact.gaussian([0.0], STD**2).denoiser(process)
  for data in (None, statistics.Spread(np.zeros(1), STD)):
    x = generate(solved(denoise, solvers.heun(process, ts), (1,), data), 4000, seed=1, batch=4000)
    assert abs(x.std() - STD) < 4 * STD / np.sqrt(8000) + 0.005


def test_ways_and_searches_begin_there_too():
  """The first point of `trajectories` is the start of the same samples."""
  process = schedules.edm()
  solver, data = solvers.ddim(process, late(process, 3)), statistics.Spread(np.full(2, MEAN), STD)
  denoise = exact.gaussian([MEAN] * 2, STD**2).denoiser(process)
  drawn = solved(denoise, solver, (2,), data)
  x, _ = drawn.start(key_batch(5, np.arange(4)))
  points, _ = trajectories(drawn, None, 4, 5, make_mesh(1))
  np.testing.assert_allclose(points[0], x, rtol=1e-6)
  assert np.abs(points[0]).max() < 20  # sigma is 2.5 there, 80 at t_max


@pytest.mark.parametrize('kind', PROCESSES)
def test_it_warns_where_neither_law_holds(kind):
  """With the first time and the signal's share; not for whole grids, nor for a point of the user's own."""
  process = getattr(schedules, kind)()
  key, like = jax.random.key(0), jnp.zeros((2, 1))

  def told(share, *known):
    solver = solvers.ddim(process, late(process, 3, share))
    with warnings.catch_warnings(record=True) as caught:
      warnings.simplefilter('always')
      solvers.start(process, solver, key, like, *known)
    words = [str(w.message) for w in caught]
    assert all(f't = {solver.rows.t[0]:.4g}' in text for text in words)
    return words

  assert not told(0.04)  # a tenth of noise in a deviation of 1 is .02 in the square
  assert 'alpha std / sigma = 0.4:' in told(0.2)[0] and 'tell the mean and deviation' in told(0.2)[0]
  assert not told(0.4, MEAN, STD)
  assert 'alpha std / sigma = 0.8:' in told(0.8, MEAN, STD)[0]
  denoise = exact.gaussian([MEAN], STD**2).denoiser(process)
  with warnings.catch_warnings():
    warnings.simplefilter('error')
    solvers.start(process, solvers.ddim(process, grids.uniform(process, 3)), key, like)
    solvers.sample(denoise, oracle.build('ddim', process, late(process, 3, 2.0)), jnp.ones((2, 1)))


def test_other_grids_and_numbers_are_one_program_and_traces_are_silent(compiles):
  process, like = schedules.edm(), jax.ShapeDtypeStruct((4, 2), jnp.float32)
  draw = jax.jit(lambda solver, key, std: solvers.start(process, solver, key, like, 0.0, std))
  tables = [solvers.ddim(process, late(process, 5, share)) for share in (0.3, 5.0)]
  key = jax.random.key(0)
  draw(tables[0], key, 1.0)
  with compiles(0), warnings.catch_warnings():
    warnings.simplefilter('error')
    draw(tables[1], key, 2.0)
