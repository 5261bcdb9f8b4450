"""Analytic-DPM: the variance law on Gaussians, the true conditional variance, its bounds, and the best grid."""

import itertools

import jax
import numpy as np
import pytest
from oracle import PROCESSES, gaussian_law, gm_a, m1

from diffjax import keys, noise_levels, schedules, solvers, statistics
from diffjax.solvers import grids
from diffjax.solvers.tables.analytic import step_costs

VP = schedules.vp_linear()


def stds(table):
  return np.asarray(table.rows.of_z)[:, 0]


@pytest.mark.parametrize('eta', [0.0, 0.6, 1.0])
@pytest.mark.parametrize('kind', PROCESSES)
def test_gaussian_data_keep_their_variance_in_any_number_of_steps(kind, eta):
  """alpha^2 c^2 + sigma^2 at the last node, from its value at the first, whatever lies between: to 1e-6 of it."""
  process, var = PROCESSES[kind](), 0.25
  known = statistics.isotropic(process, var)
  for n in (1, 5, 10, 50):
    ts = np.linspace(float(process.t_max), max(float(process.t_min), 1e-3), n + 1)
    total = np.square(noise_levels.at(process, ts[[0, -1]])[:2]).T @ [var, 1.0]
    gain, noise = gaussian_law(solvers.analytic_dpm(process, ts, known, eta), process, var)
    assert abs((gain**2 * total[0] + noise) / total[1] - 1) < 1e-6, n


@pytest.mark.parametrize('name, ratios', [('ddpm', (0.246, 0.444, 0.789)), ('ddpm_large', (1.886, 1.387, 1.070)),
                                          ('ddim', (0.291, 0.560, 0.893))])  # fmt: skip
def test_other_variances_miss_it_as_published(name, ratios):
  for n, ratio in zip((5, 10, 50), ratios, strict=True):
    gain, noise = gaussian_law(getattr(solvers, name)(VP, np.linspace(1, 1e-3, n + 1)), VP, 0.25)
    assert (gain**2 + noise) / 0.25 == pytest.approx(ratio, rel=2e-3)


@pytest.mark.quick('0.5')
@pytest.mark.parametrize('eta', [0.0, 0.5, 1.0])
def test_the_variance_is_that_of_the_step(eta):
  """Of x_s about the mean, over pairs drawn from the process: E |x_s - mean|^2 / d, to the error of 40000 pairs, 3%.

  So the two fixed variances have lower likelihoods: log v + E |x_s - mean|^2 / (d v) is least there, to .03^2 / 2.
  """
  law, n = gm_a(), 40000
  denoise, r = law.denoiser(VP), np.random.default_rng(0)
  x0 = np.asarray(law.sample(keys.per_sample(jax.random.key(0), n)))
  known = statistics.energies(denoise, x0, jax.random.key(1), knots=40, batch=n)
  for ts in ([1.0, 0.5, 0.1], [0.6, 0.3, 1e-3]):
    table = solvers.analytic_dpm(VP, ts, known, eta)
    alpha, sigma, lam = noise_levels.at(VP, ts)
    for i in range(2):
      own = eta * sigma[i + 1] * np.sqrt(-np.expm1(2 * (lam[i] - lam[i + 1])))
      eps, z = r.standard_normal((2, n, 2))
      x = alpha[i] * x0 + sigma[i] * eps
      after = alpha[i + 1] * x0 + np.sqrt(sigma[i + 1] ** 2 - own**2) * eps + own * z
      pred = denoise(x.astype(np.float32), ts[i])
      weights = table.rows.weights[i, 0]
      gap = after - weights[1] * np.asarray(pred.x0) - weights[2] * np.asarray(pred.eps)
      true, got = np.mean(gap**2), stds(table)[i] ** 2
      assert got == pytest.approx(true, rel=0.03)
      for other in (own**2, sigma[i] ** 2 - (alpha[i] / alpha[i + 1] * sigma[i + 1]) ** 2):
        if other > 0:
          assert np.log(got) + true / got <= np.log(other) + true / other + 5e-4


@pytest.mark.slow
def test_wasserstein_distance_on_the_bimodal_target():
  """M1, uniform in t down to .001: the published distances, and closer than either fixed variance at every K."""
  law, n = m1(), 100000
  denoise = law.denoiser(VP)
  truth = np.sort(np.asarray(law.sample(keys.per_sample(jax.random.key(9), n)))[:, 0])
  x0 = law.sample(keys.per_sample(jax.random.key(0), 50000))
  known = statistics.energies(denoise, x0, jax.random.key(1), knots=40, batch=50000)
  x = VP.prior(keys.per_sample(jax.random.key(5), n), np.zeros((n, 1), np.float32))
  published = {4: (0.136, 0.239, 0.303), 5: (0.134, 0.212, 0.244), 10: (0.120, 0.124, 0.145)}
  for k, figures in published.items():
    ts, found = np.linspace(1, 1e-3, k + 1), []
    for table in (solvers.analytic_dpm(VP, ts, known), solvers.ddpm(VP, ts), solvers.ddpm_large(VP, ts)):
      end = np.sort(np.asarray(solvers.sample(denoise, table, x, jax.random.key(3)))[:, 0])
      found.append(np.abs(end - truth).mean())
    assert found[0] < min(found[1:]), (k, found)
    np.testing.assert_allclose(found, figures, rtol=0.05)


def test_bounds():
  """Small variance <= optimal <= that with C at its bound; a Gamma of 1 or more is the small variance itself."""
  ts = grids.uniform_lam(VP, 8, to_zero=False)
  alpha, sigma, lam = noise_levels.at(VP, ts)
  small = sigma[1:] * np.sqrt(-np.expm1(-2 * np.diff(lam)))
  known = statistics.isotropic(VP, 1.0)
  gain = alpha[1:] * -np.expm1(-2 * np.diff(lam))  # c at eta = 1
  none = known.replace(value=np.full(2, 1e-9), low=-0.3, high=0.5)  # the network finds no noise at all
  np.testing.assert_allclose(stds(solvers.analytic_dpm(VP, ts, none, bound='energy')),
                             np.sqrt(small**2 + gain**2 * np.exp(-2 * lam[:-1])), rtol=1e-6)  # fmt: skip
  bounded = np.sqrt(small**2 + gain**2 * np.minimum(np.exp(-2 * lam[:-1]), 0.4**2))
  np.testing.assert_allclose(stds(solvers.analytic_dpm(VP, ts, none)), bounded, rtol=1e-6)
  for value in (1.0, 1.3):
    over = known.replace(value=np.full(2, value))
    np.testing.assert_allclose(stds(solvers.analytic_dpm(VP, ts, over)), small, rtol=1e-5)
  np.testing.assert_allclose(stds(solvers.analytic_dpm(VP, ts, known, last_noise=1.0))[-1],
                             min(small[-1], 2 / 255 * np.sqrt(np.pi / 2)))  # fmt: skip


@pytest.mark.parametrize('kind', PROCESSES)
def test_finite_at_both_ends_and_no_noise_at_the_last(kind):
  process = PROCESSES[kind]()
  for grid in (grids.uniform, grids.karras):
    for eta in (0.0, 1.0):
      ts = grid(process, 6)
      table = solvers.analytic_dpm(process, ts, statistics.isotropic(process), eta)
      assert np.isfinite(table.rows.weights).all() and table.nfe == 6
      if noise_levels.at(process, [0.0])[1][0] == 0:
        assert stds(table)[-1] == 0 and table.rows.weights[-1, 0, 1] == pytest.approx(1)


def test_costs_of_steps_are_the_logarithm_of_their_variances():
  """log of optimal over small variance is 2 h + F, from the table itself."""
  known = statistics.isotropic(VP, 0.25)
  ts = np.linspace(1, 0.01, 9)
  alpha, sigma, lam = noise_levels.at(VP, ts)
  costs = step_costs(known, lam[::-1])[::-1, ::-1]  # [s, r] by place in ts
  for r, s in itertools.combinations(range(9), 2):
    small = sigma[s] ** 2 * -np.expm1(2 * (lam[r] - lam[s]))
    got = stds(solvers.analytic_dpm(VP, ts[[r, s]], known))[0] ** 2
    assert costs[s, r] == pytest.approx(np.log(got / small) - 2 * (lam[s] - lam[r]), abs=1e-9)


def test_dynamic_programme_is_brute_force():
  r = np.random.default_rng(0)
  for _ in range(20):
    costs = np.where(np.arange(8)[:, None] < np.arange(8), r.standard_normal((8, 8)), np.inf)
    every = {(0, *inner, 7): 0.0 for inner in itertools.combinations(range(1, 7), 2)}
    total = {path: sum(costs[a, b] for a, b in itertools.pairwise(path)) for path in every}
    assert tuple(grids.cheapest_path(costs, 3)) == min(total, key=total.__getitem__)


@pytest.mark.parametrize('kind', ['vp_linear', 'flow', 'edm'])
def test_best_grids(kind):
  """n + 1 times of the process, no dearer than the evenly spaced ones; a uniform tail where estimates are bad."""
  process = PROCESSES[kind]()
  known = statistics.isotropic(process, 0.25)
  lam = noise_levels.at(process, float(process.t_max) * np.arange(1, 101) / 100)[2]
  costs = step_costs(known, lam)
  for n in (2, 5, 20):
    ts = solvers.analytic_grid(process, known, n, candidates=100)
    assert len(ts) == n + 1 and ts[0] == float(process.t_max) and ts[-1] == 0 and (np.diff(ts) < 0).all()
    places = np.round(ts[-2::-1] / float(process.t_max) * 100).astype(int) - 1
    even = np.linspace(0, 99, n).round().astype(int)
    assert sum(map(costs.__getitem__, itertools.pairwise(places))) <= sum(
      map(costs.__getitem__, itertools.pairwise(even))
    )
  at_knots = statistics.NoiseEnergy(known.stamp, np.linspace(known.lam[0], known.lam[1], 50), None)
  bad = at_knots.replace(value=np.where(np.arange(50) < 15, 1.001, known.energy(at_knots.lam)))
  ts = solvers.analytic_grid(process, bad, 10, candidates=100)
  assert len(ts) == 11 and (np.diff(ts) < 0).all() and ts[0] == float(process.t_max)


def test_refusals():
  ts, known = grids.uniform(VP, 4), statistics.isotropic(VP)
  for options, words in (({'eta': 1.1}, 'eta: got 1.1'), ({'bound': 'x'}, "bound: got 'x'; allowed: data, energy"),
                         ({'last_noise': 0.0}, 'last_noise: got 0.0')):  # fmt: skip
    with pytest.raises(ValueError, match=words):
      solvers.analytic_dpm(VP, ts, known, **options)
  with pytest.raises(ValueError, match='NoneType; allowed: NoiseEnergy, made by diffjax statistics'):
    solvers.analytic_dpm(VP, ts, None)
  with pytest.raises(ValueError, match='made for another process'):
    solvers.analytic_dpm(schedules.cosine(), ts * 0.99, known)
  for n in (1, 11):
    with pytest.raises(ValueError, match=f'n: got {n}; allowed: a whole number from 2 to the 10'):
      solvers.analytic_grid(VP, known, n, candidates=10)


@pytest.mark.parametrize('bad, n', [(1, 10), (5, 10), (7, 20), (20, 10), (30, 12), (60, 5)])
def test_tail_of_the_best_grid(bad, n):
  """Of 100 candidates the last 2 `bad` hold floor(.8 n 2 bad / 100) nodes, at least one and at most n - 2, even."""
  lam = noise_levels.at(VP, np.arange(1, 101) / 100)[2][::-1]
  known = statistics.NoiseEnergy(statistics.isotropic(VP, 0.25).stamp, lam, np.where(np.arange(100) < bad, 1.001, 0.5))
  places = np.round(solvers.analytic_grid(VP, known, n, candidates=100)[-2::-1] * 100).astype(int) - 1
  length = min(2 * bad, 98)
  first = 99 - length  # the last candidate before the tail is a node, the best path's last
  nodes = min(max(int(0.8 * n * length / 100 + 1e-9), 1), n - 2)
  assert first in places and np.sum(places > first) == nodes
  np.testing.assert_array_equal(places[places >= first], np.linspace(first, 99, nodes + 1).round())
