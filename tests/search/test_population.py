"""A population of tables is each of its tables, in one program."""

import jax
import jax.numpy as jnp
import numpy as np
import oracle
import pytest

from diffjax import schedules, search, solvers
from diffjax.solvers import grids


def tables(process, rng):
  """250 tables of six evaluations: 50 with free choices, 200 times of 2M, which are quicker to build."""
  knots = grids.uniform(process, 50, to_zero=False)
  spaces = [search.Space(process, 6, knots)] * 50 + [search.Space(process, 6, knots, solvers.dpmpp_2m)] * 200
  return [space.table(space.draw(rng)) for space in spaces]


def test_errors_are_those_of_each_table_alone():
  """Different methods, lengths and registers, against NumPy in float64: equal to float32's rounding."""
  process = schedules.vp_linear()
  build = lambda name, n: getattr(solvers, name)(process, grids.quadratic(process, n, to_zero=False))  # noqa: E731
  several = [build('ddim', 4), build('dpmpp_2m', 6), build('unipc', 5), build('dpmpp_2s', 6), build('heun', 3)]
  x = oracle.prior_points(process, 32)
  wanted = np.random.default_rng(1).standard_normal((32, 2))
  alone = [np.sqrt(np.mean(np.sum((oracle.run_table(t, process, x) - wanted) ** 2, -1))) for t in several]
  for chunk in (2, 64):
    found = search.errors(
      oracle.gm_a().denoiser(process), search.population(several), jnp.asarray(x), jnp.asarray(wanted), chunk=chunk
    )
    np.testing.assert_allclose(found, alone, rtol=1e-4)


@pytest.mark.slow
def test_a_thousand_candidates_never_compile_again(compiles):
  process = schedules.vp_linear()
  denoise, rng = oracle.gm_a().denoiser(process), np.random.default_rng(0)
  x = jax.random.normal(jax.random.key(0), (16, 2))
  batches = [search.population(tables(process, rng), 6, 8) for _ in range(4)]
  first = search.errors(denoise, batches[0], x, x)
  seen = [first]
  with compiles(0):
    seen += [search.errors(denoise, batch, x, x) for batch in batches[1:]]
  seen = np.concatenate(seen)
  assert len(seen) == 1000 and np.isfinite(seen).all() and len(np.unique(seen)) > 950


def test_a_member_is_the_table_that_went_in(x64):
  process = schedules.edm()
  several = [solvers.ddim(process, grids.karras(process, 4)), solvers.unipc(process, grids.karras(process, 6))]
  stacked = search.population(several)
  x = 80 * np.random.default_rng(0).standard_normal((8, 2))
  for i, table in enumerate(several):
    one = search.member(stacked, i)
    assert one.nfe == table.nfe
    np.testing.assert_allclose(oracle.run_table(one, process, x), oracle.run_table(table, process, x), atol=1e-12)


def test_the_reference_solves_the_equation():
  """Against a Runge-Kutta solution of 800 steps: float32's rounding, 2e-5, not a step error."""
  process = oracle.PROCESSES['vp_linear']()
  x = oracle.prior_points(process, 64)
  found = search.reference(oracle.gm_a().denoiser(process), jnp.asarray(x), to_zero=False)
  wanted = oracle.solution('vp_linear', 64, 1.0, float(process.t_min))
  assert float(search.rms(found, jnp.asarray(wanted))) < 1e-4


def test_refusals():
  process = schedules.vp_linear()
  ts = grids.uniform(process, 4)
  with pytest.raises(ValueError, match='noise at place 1'):
    search.population([solvers.ddim(process, ts), solvers.ddpm(process, ts)])
  with pytest.raises(ValueError, match='got none'):
    search.population([])
  with pytest.raises(ValueError, match='registers: got 1; allowed: at least the 2'):
    search.population([solvers.dpmpp_2m(process, ts)], registers=1)
