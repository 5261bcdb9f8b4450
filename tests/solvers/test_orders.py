"""Convergence orders and the published errors, in float64; float32 against float64."""

from typing import Any, NamedTuple

import jax
import numpy as np
import pytest
from flax import struct
from oracle import ORDERS, PROCESSES, build, gm_a, is_defined_on, legal_grid

from diffjax import schedules, solvers
from diffjax.exact import gaussian, gaussian_flow, mixture
from diffjax.guidance import cfg, dynamic_threshold
from diffjax.solvers import Rows, grids, pad, sample

STOCHASTIC = {'ancestral', 'ddpm', 'ddpm_large', 'euler_maruyama', 'reverse_diffusion'}
STOCHASTIC |= {'sde_adams', 'sde_dpm', 'sde_dpmpp_2m'}


def rms(gap):
  return float(np.sqrt(np.mean(np.sum(np.asarray(gap) ** 2, -1))))


def starts(process, n=512):
  sigma = process.schedule(process.t_max)[1]
  return sigma * jax.random.normal(jax.random.key(0), (n, 2))


def test_every_table_is_declared():
  assert set(ORDERS) | STOCHASTIC == set(solvers.tables.__all__)


@pytest.mark.parametrize('kind', ['vp_linear', 'edm', 'flow'])
def test_orders_on_a_gaussian(x64, kind):
  """Against the closed-form flow of a full-covariance Gaussian; padded, so that all share one program."""
  process = getattr(schedules, kind)()
  target = gaussian([0.3, -0.5], [[0.5, 0.2], [0.2, 0.3]])
  denoise, x = target.denoiser(process), starts(process, 64)
  for name in ('ddim', 'dpmpp_2m', 'euler', 'heun', 'unipc'):  # the others on a mixture, in test_families
    grid = 'uniform' if name == 'euler' and kind != 'edm' else 'uniform_lam'
    errors = []
    for n in (80, 160):
      ts = legal_grid(name, process, n, grid, to_zero=False)
      got = sample(denoise, pad(build(name, process, ts), 320, 6), x)
      errors.append(rms(got - gaussian_flow(target, process, x, ts[0], ts[-1])))
    assert np.log2(errors[0] / errors[1]) == pytest.approx(ORDERS[name], abs=0.25), (name, errors)


# 5, 10 and 20 evaluations on GM-A, VP linear, down to t = .001: rms distance to the ODE's solution, as an independent
# NumPy implementation in float64 found it.
REFERENCE = {
  ('ddim', 'uniform_lam'): (0.456, 0.257, 0.140),
  ('ddim', 'quadratic'): (0.309, 0.168, 0.090),
  ('ddim', 'uniform'): (0.382, 0.195, 0.105),
  ('dpmpp_2m', 'uniform_lam'): (0.207, 0.087, 0.0240),
  ('dpmpp_2m', 'quadratic'): (0.134, 0.039, 0.0101),
  ('dpmpp_2m', 'uniform'): (0.330, 0.110, 0.052),
  ('unipc', 'uniform_lam'): (0.194, 0.069, 0.0115),
  ('unipc', 'quadratic'): (0.113, 0.033, 0.0056),
  ('unipc', 'uniform'): (0.314, 0.108, 0.052),
}


def test_published_errors(x64):
  process = schedules.vp_linear()
  denoise, x = gm_a().denoiser(process), starts(process)
  exact = sample(denoise, solvers.unipc(process, grids.uniform_lam(process, 1000, to_zero=False), order=3), x)
  for (name, grid), errors in REFERENCE.items():
    for n, published in zip((5, 10, 20), errors, strict=True):
      table = build(name, process, legal_grid(name, process, n, grid, to_zero=False))
      assert rms(sample(denoise, pad(table, 20, 6), x) - exact) == pytest.approx(published, rel=0.25), (name, grid, n)
  finer = solvers.unipc(process, grids.uniform_lam(process, 160, to_zero=False), order=3)
  assert rms(sample(denoise, finer, x) - exact) < 1e-5  # order 3 of the predictor, above 3.3 with its corrector


def test_published_errors_of_edm_heun(x64):
  process = schedules.edm()
  denoise, x = gm_a().denoiser(process), starts(process)
  exact = sample(denoise, solvers.unipc(process, grids.karras(process, 400), order=3), x)
  errors = []
  for n, published in ((10, 0.20), (18, 0.045), (40, 0.0078), (80, 0.0018)):
    table = solvers.heun(process, grids.karras(process, n))
    assert table.nfe == 2 * n - 1
    errors.append(rms(sample(denoise, pad(table, 160, 3), x) - exact))
    assert errors[-1] <= 1.3 * published
  assert np.log2(errors[-2] / errors[-1]) == pytest.approx(2, abs=0.25)


@pytest.mark.parametrize('kind', ['vp_linear', 'cosine', 'edm', 'flow'])
@pytest.mark.parametrize(
  'name', [*sorted(set(ORDERS) - {'euler', 'heun_in_t', 'midpoint', 'rk4'}), 'ddpm', 'sde_dpmpp_2m']
)
def test_point_mass_is_reached(kind, name):
  """All of the data at one point: from any grid and number of steps the sample is that point."""
  process = getattr(schedules, kind)()
  c = np.float32([0.3, -0.7])
  denoise, x = gaussian(c, 0.0).denoiser(process), starts(process, 4)
  for grid in ('uniform', 'karras') if name == 'ddim' else ('uniform',):
    for n in (1, 2, 7):
      table = build(name, process, legal_grid(name, process, n, grid))
      got = sample(denoise, pad(table, 28, 6), x, jax.random.key(0))
      np.testing.assert_allclose(got, np.broadcast_to(c, (4, 2)), atol=1e-6)


class ReplayRows(NamedTuple):
  table: Rows
  z: Any

  @property
  def t(self):
    return self.table.t

  @property
  def evaluated(self):
    return self.table.evaluated


@struct.dataclass
class Replay:
  """A table fed with noise drawn beforehand, so that runs in two precisions see the same."""

  table: solvers.Table
  z: jax.Array
  stochastic = False
  skips = False

  @property
  def rows(self):
    return ReplayRows(self.table.rows, self.z)

  def init(self, x, key=None):
    return self.table.init(x, key)

  def point(self, state):
    return self.table.point(state)

  def update(self, state, pred, row, keys, noise):
    means, stds = self.table.transition(state, pred, row.table)
    return tuple(m + s * row.z.astype(m.dtype) for m, s in zip(means, stds, strict=True))

  def output(self, state):
    return self.table.output(state)


@pytest.mark.quick('edm')
@pytest.mark.parametrize('kind', PROCESSES)
def test_float32_is_close_to_float64(kind):
  """5 to 50 evaluations of every table: within 3e-4 of the data's spread, given the same start and the same noise."""
  runs = []
  draws = np.random.default_rng(0).standard_normal((201, 64, 2)).astype(np.float32)
  for wide in (False, True):
    with jax.enable_x64(wide):
      process, target = PROCESSES[kind](), gm_a()
      dtype = np.float64 if wide else np.float32
      spread = float(np.sqrt(np.trace(target.covariance())))
      denoise, x = target.denoiser(process), (np.float32(process.schedule(process.t_max)[1]) * draws[0]).astype(dtype)
      got = {}
      for name in (name for name in solvers.tables.__all__ if is_defined_on(name, kind)):
        for n in (5, 20, 50):
          table = pad(build(name, process, legal_grid(name, process, n)), 200, 6)
          evaluated = table.replace(skips=False, stochastic=False)
          got[name, n] = np.asarray(sample(denoise, Replay(evaluated, draws[1:].astype(dtype)), x))
          assert got[name, n].dtype == dtype
      runs.append(got)
  for case, single in runs[0].items():
    gap = np.abs(single - runs[1][case]).max() / spread
    assert gap <= 3e-4, (case, gap)


def test_a_large_guidance_scale_needs_data_prediction_and_thresholds():
  """Scale 8, 15 steps, two classes within [-1, 1]: thresholded 2M stays within 1.05; noise-form single steps leave."""
  process = schedules.vp_linear()
  target = mixture([0.5, 0.5], [[-0.5, 0.3], [0.5, -0.3]], [0.04, 0.04])
  x, cond = starts(process, 256), np.arange(256) % 2
  ts = grids.uniform_lam(process, 15, to_zero=False)
  guided = cfg(target.denoiser(process), 8.0)
  kept = sample(dynamic_threshold(guided), solvers.dpmpp_2m(process, ts), x, None, cond)
  plain, fast = (sample(guided, make(process, ts), x, None, cond) for make in (solvers.dpmpp_2m, solvers.dpm_fast))
  assert np.abs(kept).max() <= 1.05 < np.abs(plain).max() < np.abs(fast).max()
