"""Grids: their ends, their spacing, and what they refuse."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from oracle import PROCESSES

from diffjax import noise_levels, schedules, solvers
from diffjax.solvers import grids

SPACED = [name for name in grids.__all__ if name != 'array']


@pytest.mark.parametrize('to_zero', [True, False])
@pytest.mark.parametrize('name', SPACED)
def test_ends_length_and_order(name, to_zero):
  for make in PROCESSES.values():
    process = make()
    for n in (1, 2, 7, 50):
      ts = getattr(grids, name)(process, n, to_zero=to_zero)
      assert ts.shape == (n + 1,) and ts.dtype == np.float64
      assert ts[0] == float(process.t_max) and ts[-1] == pytest.approx(0 if to_zero else float(process.t_min), abs=0)
      assert np.all(np.diff(ts) < 0)
      np.testing.assert_array_equal(noise_levels.checked(process, ts), ts)


def test_spacing():
  process = schedules.vp_linear()
  np.testing.assert_allclose(np.diff(grids.uniform(process, 8)), -1 / 8)
  np.testing.assert_allclose(np.diff(np.sqrt(grids.quadratic(process, 8))), -1 / 8, atol=1e-12)
  np.testing.assert_allclose(grids.cosine(process, 4)[2], 0.5)
  for ts in (grids.uniform_lam(process, 9)[:-1], grids.uniform_lam(process, 8, to_zero=False)):
    assert len(ts) == 9
    steps = np.diff(noise_levels.at(process, ts)[2])
    np.testing.assert_allclose(steps, steps.mean(), rtol=1e-7)


def test_karras_is_the_published_formula():
  """sigma_i = (s_max^{1/7} + i/(n-1) (s_min^{1/7} - s_max^{1/7}))^7, then 0."""
  for n in (2, 18):
    i = np.arange(n)
    published = (80 ** (1 / 7) + i / (n - 1) * (0.002 ** (1 / 7) - 80 ** (1 / 7))) ** 7
    ts = grids.karras(schedules.edm(), n)
    np.testing.assert_allclose(ts, np.append(published, 0), rtol=1e-6)  # 0.002 is a float32 leaf
  process = schedules.vp_linear()
  alpha, sigma, _ = noise_levels.at(process, grids.karras(process, 9, rho=5.0)[:-1])
  steps = np.diff((sigma / alpha) ** (1 / 5))
  np.testing.assert_allclose(steps, steps.mean(), rtol=1e-7)


def test_pure_noise_has_infinite_lam_at_the_first_node_only():
  process = schedules.flow()
  _, _, lam = noise_levels.at(process, grids.uniform_lam(process, 10))
  assert lam[0] == -np.inf and lam[-1] == np.inf and np.isfinite(lam[1:-1]).all()
  np.testing.assert_allclose(np.diff(lam[1:-1]), np.diff(lam[1:-1]).mean(), rtol=1e-7)


def test_host_values_are_float64():
  """To the last digits of NumPy's own formulas, with the numbers rounded to float32 as the process holds them."""
  t = np.array([0.0, 1e-4, 0.3, 0.9])
  b0, b1, s = (np.float64(np.float32(v)) for v in (0.1, 20.0, 0.008))
  alpha, sigma, _ = noise_levels.at(schedules.vp_linear(), t)
  np.testing.assert_allclose(alpha, np.exp(-(t**2) * (b1 - b0) / 4 - t * b0 / 2), rtol=1e-14)
  np.testing.assert_allclose(alpha**2 + sigma**2, 1, rtol=1e-14)
  u = np.pi / 2 * (t + s) / (1 + s)
  alpha, sigma, _ = noise_levels.at(schedules.cosine(), t)
  np.testing.assert_allclose(alpha, np.cos(u) / np.cos(u[0]), rtol=1e-13)
  np.testing.assert_allclose(alpha**2 + sigma**2, 1, rtol=1e-13)


def test_times_of_inverts_lam_in_float64():
  for make in PROCESSES.values():
    process = make()
    lam = noise_levels.at(process, float(process.t_max) * np.array([0.9, 0.5, 0.1]))[2]
    np.testing.assert_allclose(
      noise_levels.at(process, noise_levels.times_of(process, lam))[2], lam, rtol=1e-9, atol=1e-9
    )


BAD = {
  'rising': [0.2, 0.5],
  'repeating': [1.0, 0.5, 0.5, 0.0],
  'beyond t_max': [1.1, 0.5],
  'negative': [1.0, -0.1],
  'not a number': [1.0, np.nan, 0.0],
  'infinite': [np.inf, 0.5],
  'one time': [1.0],
  'empty': [],
  'two rows': [[1.0, 0.5], [0.4, 0.1]],
}


@pytest.mark.parametrize('ts', BAD.values(), ids=BAD.keys())
def test_bad_grids_are_refused_by_every_solver(ts):
  for name in solvers.tables.__all__:
    with pytest.raises(ValueError, match='^ts: got .*; allowed: '):
      getattr(solvers, name)(schedules.vp_linear(), ts)


def test_bad_counts_and_arrays():
  process = schedules.flow()
  for name in SPACED:
    for n in (0, -1, 2.5, '3'):
      with pytest.raises(ValueError, match='steps: got'):
        getattr(grids, name)(process, n)
  np.testing.assert_array_equal(grids.array(process, 2, [1, 0.5, 0]), [1, 0.5, 0])
  with pytest.raises(ValueError, match='times: got 3 of them for 3 steps; allowed: 4'):
    grids.array(process, 3, [1, 0.5, 0])
  with pytest.raises(ValueError, match='ts: got'):
    grids.array(process, 2, [1, 0.5, 0.7])


def test_late_grids_begin_at_a_noise_level():
  """At the first time that is not above it, on the line itself included; never with all times or with no step."""
  edm = schedules.edm()
  ts = grids.karras(edm, 6)
  np.testing.assert_array_equal(grids.late(edm, ts, ts[2]), ts[2:])
  np.testing.assert_array_equal(grids.late(edm, ts, ts[1] - 1e-3), ts[2:])
  flow = schedules.flow()  # from alpha = 0: sigma / alpha = t / (1 - t)
  np.testing.assert_array_equal(grids.late(flow, np.linspace(1, 0, 5), 1.5), [0.5, 0.25, 0])
  for process, times, level in (
    (edm, ts, ts[0]),
    (edm, ts, ts[-2] / 2),
    (edm, ts[-2:], ts[-2]),
    (flow, [1.0, 0.0], 9.0),
  ):
    with pytest.raises(ValueError, match='level: got .*; allowed: sigma / alpha of at least'):
      grids.late(process, times, level)


def test_host_tables_survive_being_built_while_tracing():
  """The grid is host work: inside a trace the numbers of a closed-over process are still concrete."""
  process = schedules.flow()
  out = jax.jit(lambda x: x * jnp.float32(noise_levels.at(process, [0.25])[1][0]))(jnp.ones(()))
  assert out == 0.25


@pytest.mark.parametrize('kind', PROCESSES)
@pytest.mark.parametrize('data_std', [0.2, 0.5, 2.0])
@pytest.mark.parametrize('power', [1.0, 1.5, 3.0])
def test_noise_share_is_even_in_its_share(kind, data_std, power):
  """In u^(1/power), u = sigma / (alpha data_std + sigma), from its value at t_max to the one at the end."""
  process = PROCESSES[kind]()
  for to_zero in (True, False):
    alpha, sigma, _ = noise_levels.at(process, grids.noise_share(process, 9, to_zero, data_std=data_std, power=power))
    share = (sigma / (alpha * data_std + sigma)) ** (1 / power)
    np.testing.assert_allclose(share, np.linspace(share[0], share[-1], 10), rtol=1e-8, atol=1e-10)
