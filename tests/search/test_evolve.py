"""Evolution: bars on held-out starts, set before any run, and what it promises whatever the objective."""

import jax
import numpy as np
import oracle
import pytest

from diffjax import schedules, search, solvers
from diffjax.solvers import grids


@pytest.fixture(scope='module')
def gm_a():
  """(process, knots, score on 256 starts, held-out error on 256 others) of GM-A, to t_min."""
  process = schedules.vp_linear()
  denoise = oracle.gm_a().denoiser(process)
  x = jax.random.normal(jax.random.key(0), (512, 2))
  ends = search.reference(denoise, x, to_zero=False)

  def score(tables):
    return search.errors(denoise, tables, x[:256], ends[:256])

  def held(table):
    return float(search.errors(denoise, search.population([table]), x[256:], ends[256:])[0])

  return process, grids.uniform(process, 100, to_zero=False), score, held


def test_choices_and_times_at_six_evaluations(gm_a):
  """500 candidates reach .075; the best published baseline among them has .071 on the quadratic grid."""
  process, knots, score, held = gm_a
  seen = []
  found = search.evolve(search.Space(process, 6, knots), lambda tables: seen.append(1) or score(tables))
  assert len(seen) == 10 and held(found.table) <= 0.075
  assert found.error <= min(found.baselines.values()) and (np.diff(found.history) <= 0).all()
  assert found.table.nfe == 6 and found.times[0] == 1 and found.times[-1] == knots[-1]


@pytest.mark.slow
@pytest.mark.parametrize('seed', range(3))
@pytest.mark.parametrize(
  'name, n, bar, even',
  [('ddim', 4, 0.30, 0.478), ('ddim', 6, 0.21, 0.309), ('ddim', 10, 0.14, 0.186),
   ('dpmpp_2m', 4, 0.18, 0.450), ('dpmpp_2m', 6, 0.08, 0.249), ('dpmpp_2m', 10, 0.035, 0.107)],
)  # fmt: skip
def test_times_alone(name, n, bar, even, seed, gm_a):
  """750 candidates; the uniform grid's error is that of an independent NumPy run within a tenth."""
  process, knots, score, held = gm_a
  space = search.Space(process, n, knots, getattr(solvers, name))
  found = search.evolve(space, score, generations=15, seed=seed)
  assert held(found.table) <= bar
  uniform = held(getattr(solvers, name)(process, grids.uniform(process, n, to_zero=False)))
  assert uniform == pytest.approx(even, rel=0.1) and found.error <= uniform


def test_a_small_space_is_found_out_and_nothing_is_tried_twice():
  """Two inner times among six knots: 15 grids, all tried, the best returned."""
  process = schedules.flow()
  knots = grids.uniform(process, 7)
  space, tried = search.Space(process, 3, knots, solvers.ddim), []

  def score(tables):
    ts = np.asarray(tables.rows.t)
    tried.extend(tuple(row) for row in ts)
    return np.abs(ts[:, 1] - knots[4]) + np.abs(ts[:, 2] - knots[5]) + 1e-3

  found = search.evolve(space, score, size=8, generations=12, parents=4)
  np.testing.assert_array_equal(found.times, knots[[0, 4, 5, 7]])
  assert found.error == pytest.approx(1e-3) and len(set(tried)) == 15


def test_candidates_stay_in_the_space():
  rng = np.random.default_rng(0)
  process = schedules.edm()
  space = search.Space(process, 5, grids.karras(process, 20), orders=(2, 3), forms=('x0',), scalings=('b1',))
  a, b = space.draw(rng), space.draw(rng)
  for _ in range(200):
    a, b = space.mutate(a, rng, 0.3), space.cross(a, b, rng)
    for times, choices in (a, b):
      assert len(set(times)) == 4 and list(times) == sorted(times) and 0 < times[0] and times[-1] < 20
      assert {c.order for c in choices} <= {2, 3} and not any(c.form == 'eps' for c in choices)
      assert {c.scaling for c in choices} == {'b1'}
  assert space.mutate(a, rng, 1e-12) == a


def test_the_same_seed_finds_the_same(gm_a):
  process, knots, score, _ = gm_a
  space = search.Space(process, 3, knots, solvers.ddim)
  a, b, c = (search.evolve(space, score, size=8, generations=2, seed=seed) for seed in (0, 0, 1))
  assert a.history == b.history and (a.times == b.times).all()
  assert a.history != c.history


def test_refusals():
  process = schedules.flow()
  knots = grids.uniform(process, 7)
  for space, options, words in (
    (search.Space(process, 9, knots), {}, 'n: got 9; allowed: 1 to the 7'),
    (search.Space(process, 3, knots[::-1]), {}, 'strictly decreasing'),
    (search.Space(process, 3, knots, orders=()), {}, 'orders: got none'),
    (search.Space(process, 3, knots), dict(size=0), 'size: got 0'),
    (search.Space(process, 3, knots), dict(rate=0.0), 'rate: got 0.0'),
  ):
    with pytest.raises(ValueError, match=words):
      search.evolve(space, None, **options)
