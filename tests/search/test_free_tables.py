"""Free numbers give back the table they came from, in float64 by plain NumPy, and keep their promises when moved."""

import jax
import jax.numpy as jnp
import numpy as np
import oracle
import pytest

from diffjax import noise_levels, search, solvers
from diffjax.solvers import grids


@pytest.mark.parametrize('kind', ['vp_linear', 'edm', 'flow'])
@pytest.mark.parametrize('name', ['ddim', 'dpmpp_2m', 'unipc', 'dpmpp_3s', 'ipndm', 'deis_tab'])
def test_a_table_comes_back(name, kind):
  """Samples agree to 1e-9 of the size of the start (the inverse of lam is in float64, coefficients up to 1e2)."""
  process = oracle.PROCESSES[kind]()
  ts = grids.quadratic(process, 6, to_zero=False)
  if kind == 'flow':
    ts[0] = 0.999
  table = oracle.build(name, process, ts)
  with jax.enable_x64(True):
    again = search.free(oracle.PROCESSES[kind](), table).final()
  x = oracle.prior_points(process, 16)
  np.testing.assert_allclose(
    oracle.run_table(again, process, x), oracle.run_table(table, process, x), rtol=0, atol=1e-9 * np.abs(x).max()
  )
  np.testing.assert_allclose(again.rows.t, ts[:-1], rtol=1e-6)


@pytest.mark.parametrize('kind', ['vp_linear', 'edm', 'flow', 'cosine'])
def test_whatever_moves_times_fall_and_rows_keep_to_the_line(kind):
  """Random spacing and look; the end is the grid's. From alpha = 0 too."""
  rng = np.random.default_rng(0)
  with jax.enable_x64(True):
    process = oracle.PROCESSES[kind]()
    start = search.free(process, solvers.ddim(process, grids.uniform(process, 6)))
    for _ in range(5):
      moved = start.replace(spacing=jnp.asarray(rng.normal(size=6)), look=jnp.asarray(rng.normal(size=(6, 5))))
      table = moved.final()
      ts = np.append(table.rows.t, 0.0)
      assert (np.diff(ts) < 0).all() and ts[0] == float(process.t_max) and ts[-2] > float(process.t_min)
      levels = np.stack(noise_levels.at(process, ts)[:2], 1)
      np.testing.assert_allclose(oracle.line(table, process, ts), levels, rtol=1e-8, atol=1e-9 * levels.max())


def test_gradients_reach_every_number():
  """Central differences in float64, to 1e-5: spacing, look, scale and told."""
  with jax.enable_x64(True):
    process = oracle.PROCESSES['vp_linear']()
    denoise = oracle.gm_a().denoiser(process)
    start = search.free(process, solvers.dpmpp_2m(process, grids.quadratic(process, 4)))
    x = jnp.asarray(oracle.prior_points(process, 8))
    loss = jax.jit(lambda f: jnp.mean(solvers.sample(denoise, f.table(), x) ** 2))
    slope = jax.grad(loss)(start)
    for name, place in (('spacing', 1), ('look', (3, 1)), ('look', (2, 0)), ('scale', 2), ('told', 2)):
      value = getattr(start, name)
      up, down = (loss(start.replace(**{name: value.at[place].add(d)})) for d in (1e-5, -1e-5))
      assert float(getattr(slope, name)[place]) == pytest.approx(float((up - down) / 2e-5), rel=1e-5, abs=1e-9)


def test_refusals():
  process = oracle.PROCESSES['vp_linear']()
  ts = grids.quadratic(process, 4)
  for table in (solvers.ddpm(process, ts), solvers.heun(process, ts)):
    with pytest.raises(ValueError, match='falling times'):
      search.free(process, table)
  with pytest.raises(ValueError, match='row 0 leaves the line'):
    search.free(process, solvers.euler(process, ts))
