"""Where the noise of a stochastic solver comes from."""

import jax
import numpy as np
import pytest
from oracle import m1

from diffjax import keys, schedules, solvers
from diffjax.solvers import grids, noise


def table(process, n):
  return solvers.sde_dpmpp_2m(process, grids.uniform_lam(process, n))


def draws(source, solver, n, seed=0, d=1):
  """(rows, n, d): z of every row of `solver`."""
  batch, like = keys.per_sample(jax.random.key(seed), n), np.zeros((n, d), np.float32)
  rows = jax.tree.map(np.asarray, solver.rows)
  one = jax.jit(lambda row: source(batch, row, like))
  return np.stack([one(jax.tree.map(lambda leaf, i=i: leaf[i], rows)) for i in range(len(rows.t))])


@pytest.mark.parametrize('kind', ['vp_linear', 'edm', 'flow'])
def test_brownian_draws_are_standard_and_independent(kind):
  """The covariance of the rows over 20,000 paths is the identity to five standard errors."""
  process, n = getattr(schedules, kind)(), 20_000
  z = draws(noise.brownian(table(process, 6), process), table(process, 6), n)[..., 0]
  np.testing.assert_allclose(z @ z.T / n, np.eye(6), atol=5 * np.sqrt(2 / n))
  np.testing.assert_allclose(z.mean(1), 0, atol=5 / np.sqrt(n))


def test_a_brownian_path_does_not_depend_on_the_grid():
  """Two steps add to the one step that spans them: z sqrt(length) is additive."""
  process = schedules.vp_linear()
  fine = np.array([1.0, 0.8, 0.55, 0.4, 0.2, 0.0])
  one, two = (solvers.ddpm(process, ts) for ts in (fine[[0, 2, 4, 5]], fine))
  source_one, source_two = (noise.brownian(t, process) for t in (one, two))
  lengths = [np.sqrt(np.diff(np.asarray(source.ends), axis=1)) for source in (source_one, source_two)]
  coarse, finer = draws(source_one, one, 50)[..., 0], draws(source_two, two, 50)[..., 0]
  coarse, finer = coarse * lengths[0], finer * lengths[1]
  np.testing.assert_allclose(coarse[:2], finer[[0, 2]] + finer[[1, 3]], atol=2e-6)


@pytest.mark.slow
def test_one_path_gives_one_picture_at_different_numbers_of_steps():
  """Samples at 40 and 80 steps are at most a third as far apart as with independent draws, in root mean square."""
  process, target = schedules.vp_linear(), m1()
  x = np.random.default_rng(0).standard_normal((400, 1)).astype(np.float32)

  def run(n, source):
    solver = table(process, n)
    return solvers.sample(target.denoiser(process), solver, x, jax.random.key(1), noise_source=source(solver))

  def gap(source):
    return float(np.sqrt(np.mean((run(40, source) - run(80, source)) ** 2)))

  assert gap(lambda solver: noise.brownian(solver, process)) < gap(lambda solver: noise.independent) / 3


def test_given_draws_are_used_and_fixed_zeros_give_the_mean():
  process, target = schedules.vp_linear(), m1()
  solver, x = table(process, 5), np.linspace(-1, 1, 8, dtype=np.float32)[:, None]
  independent = draws(noise.independent, solver, 8)
  want = solvers.sample(target.denoiser(process), solver, x, jax.random.key(0))
  got = solvers.sample(target.denoiser(process), solver, x, jax.random.key(5), noise_source=noise.fixed(independent))
  np.testing.assert_allclose(got, want, atol=1e-6)  # compiled elsewhere, the draws round differently
  a, b = (
    solvers.sample(target.denoiser(process), solver, x, jax.random.key(s), noise_source=noise.fixed(0 * independent))
    for s in (0, 1)
  )
  np.testing.assert_array_equal(a, b)


def test_another_path_is_another_picture_and_nothing_recompiles(compiles):
  process, target = schedules.vp_linear(), m1()
  solver, other = table(process, 5), solvers.sde_dpmpp_2m(process, grids.uniform(process, 5))
  x = np.zeros((4, 1), np.float32)
  first = solvers.sample(
    target.denoiser(process), solver, x, jax.random.key(0), noise_source=noise.brownian(solver, process)
  )
  with compiles(0):
    second = solvers.sample(
      target.denoiser(process), other, x, jax.random.key(1), noise_source=noise.brownian(other, process)
    )
  assert not np.allclose(first, second)
