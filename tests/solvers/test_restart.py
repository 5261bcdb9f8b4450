"""Restart: its rows and evaluations, the factor by which an error shrinks, and the law it leaves."""

import jax
import numpy as np
import pytest
from oracle import PROCESSES, gaussian_law, line

from diffjax import noise_levels, schedules, solvers
from diffjax.exact import mixture
from diffjax.solvers import grids, restart


@pytest.mark.parametrize(
  'steps, level, nfe',
  [
    (18, (3, 2, 0.06, 0.3), 43),
    (18, (3, 5, 0.06, 0.3), 55),
    (18, (3, 20, 0.06, 0.3), 115),
    (20, (9, 30, 0.06, 0.2), 519),
  ],
)
def test_published_evaluations_and_levels(steps, level, nfe):
  """The released settings of CIFAR-10, evaluations as printed; every raised row is at the level asked for."""
  process = schedules.edm()
  ts = grids.karras(process, steps)
  table = restart(solvers.heun, process, ts, levels=[level], s_noise=1.003)
  idle = np.flatnonzero(~table.rows.evaluated)
  assert table.nfe == nfe and len(idle) == level[1] and table.stochastic and table.skips
  low, high = table.rows.t[idle], table.rows.t[idle + 1]
  np.testing.assert_allclose(low, ts[np.argmin(np.abs(ts[1:-1] - level[2])) + 1])
  np.testing.assert_allclose(high, level[3])
  np.testing.assert_allclose(table.rows.of_z[idle, 0], 1.003 * np.sqrt(high**2 - low**2))
  np.testing.assert_array_equal(table.rows.stream, np.arange(len(table.rows.t)))


@pytest.mark.parametrize('name, kind', [('heun', 'edm'), ('dpmpp_2m', 'vp_linear'), ('heun', 'flow')])
def test_an_error_shrinks_by_the_closed_form_in_every_repeat(name, kind):
  """N(0, v): the gain is that without restarts times sqrt((v + low^2) / (v + high^2)) a repeat, and v is kept."""
  process, v = PROCESSES[kind](), 0.25
  ts = grids.karras(process, 200)
  for repeats, high in ((1, 1.0), (3, 1.0), (2, 3.0)):
    gain, noise = gaussian_law(
      restart(getattr(solvers, name), process, ts, levels=[(200, repeats, 0.3, high)]), process, v
    )
    plain, _ = gaussian_law(getattr(solvers, name)(process, ts), process, v)
    alpha, sigma, _ = noise_levels.at(process, ts[1:-1])
    low = (sigma / alpha)[np.argmin(np.abs(sigma / alpha - 0.3))]
    factor = np.sqrt((v + low**2) / (v + high**2))
    np.testing.assert_allclose(gain / plain, factor**repeats, rtol=2e-3)
    alpha, sigma, _ = noise_levels.at(process, ts[:1])
    np.testing.assert_allclose(gain**2 * (alpha**2 * v + sigma**2) + noise, v, rtol=2e-2)


def test_several_levels_keep_the_line():
  """ImageNet-64's kind of setting: several levels, two at one node; a constant pair stays on its line."""
  process = schedules.vp_linear()
  ts = grids.karras(process, 10)
  levels = [(4, 1, 19.0, 40.0), (4, 2, 0.6, 1.1), (3, 1, 0.6, 0.9), (3, 2, 0.05, 0.3)]
  table = restart(solvers.ddim, process, ts, levels=levels)
  assert table.nfe == 10 + 3 + 2 * 3 + 2 + 2 * 2
  true = np.stack(noise_levels.at(process, np.append(table.rows.t, ts[-1]))[:2], 1)
  np.testing.assert_allclose(line(table, process, ts), true, atol=1e-7)
  plain = restart(solvers.dpmpp_2m, process, ts, levels=[])
  np.testing.assert_array_equal(plain.rows.weights, solvers.dpmpp_2m(process, ts).rows.weights)


def test_wrong_masses_of_modes_are_mended():
  """Eight modes of unequal mass, begun from equal masses at sigma .1: of the distance in masses one repeat leaves at
  most half from sigma 1, at most .3 from 2; a higher restart leaves less."""
  process, angles = schedules.edm(), 2 * np.pi * np.arange(8) / 8
  centres, masses = np.stack([np.cos(angles), np.sin(angles)], 1), np.arange(1, 9) / 36
  denoise = mixture(masses, centres, [0.01] * 8).denoiser(process)
  draw = np.random.default_rng(0)
  x = (centres[np.arange(8000) % 8] + np.sqrt(0.02) * draw.standard_normal((8000, 2))).astype(np.float32)

  def off(x):
    near = np.argmin(((np.asarray(x)[:, None] - centres) ** 2).sum(-1), 1)
    return np.abs(np.bincount(near, minlength=8) / len(near) - masses).sum() / 2

  left = [off(x)]
  for high in (0.5, 1.0, 2.0):
    table = restart(solvers.heun, process, [0.1001, 0.1, 0.0], levels=[(12, 1, 0.1, high)])
    left.append(off(solvers.sample(denoise, table, x, jax.random.key(1))))
  assert left[2] <= 0.5 * left[0] and left[3] <= 0.3 * left[0] and sorted(left, reverse=True) == left, left


def test_levels_that_cannot_be():
  process = schedules.vp_linear()
  ts = grids.karras(process, 6)
  for level in ((1, 2, 0.1, 0.3), (3, 0, 0.1, 0.3), (3, 2, 0.3, 0.1), (3, 2, 0.1, 1e9), (3, 2, 0.1)):
    with pytest.raises(ValueError, match=r'levels: got .*; allowed: \(points, repeats, low, high\)'):
      restart(solvers.ddim, process, ts, levels=[level])
  for levels in ([(3, 1, 0.05, 0.3), (3, 1, 1.0, 3.0)], [(3, 1, 1.5, 1.500001)]):
    with pytest.raises(ValueError, match='levels: got .*; allowed: levels by falling noise'):
      restart(solvers.ddim, process, ts, levels=levels)
  with pytest.raises(ValueError, match='ts: got 2 times; allowed: a time between'):
    restart(solvers.ddim, process, [1.0, 0.0], levels=[(3, 1, 1.0, 3.0)])
