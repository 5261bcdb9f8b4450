"""Tables in data form: the same samples on consistent predictions, float32 on every grid, and the warning."""

import warnings

import jax
import numpy as np
import pytest
from oracle import PROCESSES, build, gm_a, legal_grid, predict, prior_points, run_table
from test_orders import Replay

from diffjax import noise_levels, schedules, solvers
from diffjax.guidance import threshold
from diffjax.solvers import TableBuilder, grids, in_data_form, pad, sample

NOISE = [
  ('ipndm', {}),
  ('deis_rhoab', {}),
  ('ghvb', {}),
  ('exponential_adams', {'form': 'eps'}),
  ('exponential_adams', {'form': 'eps', 'corrector': True}),
  ('dpmpp_2s', {}),
]


def clipped(x, alpha, sigma):
  x0 = np.clip(predict(x, alpha, sigma)[0], -0.5, 0.5)
  return x0, (x - alpha * x0) / sigma


@pytest.mark.parametrize('name, options', NOISE)
@pytest.mark.parametrize('kind', ['cosine', 'edm', 'flow'])
def test_samples_are_those_of_the_table(name, options, kind):
  """In float64, with the exact predictions and with clipped ones; registers, evaluations and noise flags stay."""
  process = PROCESSES[kind]()
  for ts in (grids.uniform(process, 7), grids.uniform_lam(process, 9, to_zero=False)):
    table = build(name, process, ts, **options)
    same, x = in_data_form(table, process), prior_points(process, 6)
    assert (same.registers, same.nfe, same.stochastic, same.skips) == (table.registers, table.nfe, False, False)
    for say in (predict, clipped):
      np.testing.assert_allclose(
        run_table(same, process, x, say), run_table(table, process, x, say), rtol=1e-8, atol=1e-8
      )
    eps = same.rows.of_eps
    far = np.less(*noise_levels.at(process, table.rows.t)[:2])
    assert not eps[far].any()  # alpha < sigma: no eps is read


def test_what_is_left_of_a_difference_of_eps():
  """eps_u - eps_t = (alpha_u / sigma_u) (x0_t - x0_u) after DDIM's step from t to u, both in data form."""
  process = schedules.cosine()
  ts = np.array([0.99, 0.95, 0.9])
  alpha, sigma, _ = noise_levels.at(process, ts)
  table = TableBuilder('x', 'e')
  table.row(ts[0], x=alpha[1] * table.x0 + sigma[1] * table.eps, e=table.eps)
  table.row(ts[1], x=table.eps - table.e)
  rows = in_data_form(table.done(), process).rows.weights  # the register e becomes e - x_u / sigma_u
  np.testing.assert_allclose(rows[0, 1, 2], -alpha[1] / sigma[1], rtol=1e-9)
  np.testing.assert_allclose(rows[1, 0], [0, -1, -alpha[1] / sigma[1], 0, 0, 0], atol=1e-12)


def test_noise_and_element_wise_weights():
  """Every z where it was; vectors as weights act coordinate by coordinate."""
  process = schedules.vp_linear()
  ts = grids.uniform(process, 6, to_zero=False)
  alpha, sigma, _ = noise_levels.at(process, ts)
  w = np.array([0.5, 0.8])
  table = TableBuilder('x', 'e')
  for t, a, b in zip(ts[:-1], alpha[1:] / alpha[:-1], 0.1 * sigma[1:], strict=True):
    table.row(t, x=a * table.x - 0.3 * a * (w * table.eps + (1 - w) * table.e) + b * table.z, e=table.eps)
  table = table.done()
  same = in_data_form(table, process)
  assert same.stochastic and same.rows.weights.shape == table.rows.weights.shape == (6, 2, 6, 2)
  with jax.enable_x64(True):
    process, x = schedules.vp_linear(), prior_points(schedules.vp_linear(), 5)
    denoise = gm_a().denoiser(process)
    got, want = (sample(denoise, t, x, jax.random.key(0)) for t in (same, table))
  np.testing.assert_allclose(got, want, rtol=1e-7, atol=1e-7)


def test_a_thresholded_network_gives_the_same_in_float32():
  process = schedules.vp_linear()
  denoise, x = threshold(gm_a().denoiser(process)), prior_points(process, 8).astype(np.float32)
  table = solvers.ipndm(process, grids.uniform(process, 10))
  np.testing.assert_allclose(sample(denoise, in_data_form(table, process), x), sample(denoise, table, x), atol=3e-5)


# On rectified flow these weights of DEIS tAB are in the thousands, and of both signs: nodes close in t, far in rho.
HARD = {('deis_tab', 'shifted', 'karras'): 1e-3}


@pytest.mark.parametrize('kind', ['cosine', 'sub_vp', 'shifted'])
@pytest.mark.parametrize('grid', ['karras', 'uniform_lam'])
def test_float32_on_the_hard_grids(kind, grid):
  """5 and 7 steps that leap: within 3e-4 of the data's spread or, where the method explodes, of its own sample."""
  names = ('deis_rhork', 'deis_tab', 'dpm_fast', 'dpm_solver', 'f_pndm', 'heun', 's_pndm', 'sde_dpm')
  draws = np.random.default_rng(0).standard_normal((41, 64, 2)).astype(np.float32)
  runs = []
  for wide in (False, True):
    with jax.enable_x64(wide):
      process, got = PROCESSES[kind](), {}
      dtype = np.float64 if wide else np.float32
      x = (np.float32(process.schedule(process.t_max)[1]) * draws[0]).astype(dtype)
      for name in names:
        for n in (5, 7):
          table = pad(build(name, process, legal_grid(name, process, n, grid)), 40, 6).replace(
            skips=False, stochastic=False
          )
          got[name, n] = np.asarray(sample(gm_a().denoiser(process), Replay(table, draws[1:].astype(dtype)), x))
      runs.append(got)
  spread = float(np.sqrt(np.trace(gm_a().covariance())))
  for case, single in runs[0].items():
    size = max(spread, np.abs(runs[1][case]).max())
    bound = HARD.get((case[0], kind, grid), 3e-4)
    assert np.abs(single - runs[1][case]).max() <= bound * size, case


def test_leaps_of_the_noise_form_are_warned_of():
  """Once a table, with the remedy; the remedy and shorter steps are silent."""
  process = schedules.vp_linear()
  leap, short = grids.uniform_lam(process, 2), grids.uniform_lam(process, 20)
  for name, options in (
    ('ghvb', {'order': 1}),
    ('ipndm', {'order': 1}),
    ('deis_rhoab', {'order': 2}),
    ('exponential_adams', {'order': 1, 'form': 'eps'}),
  ):
    with pytest.warns(
      UserWarning, match=r'the step from t = 1 to 0.001 raises alpha 152-fold in noise form.*in_data_form'
    ):
      build(name, process, leap, **options)
    with warnings.catch_warnings():
      warnings.simplefilter('error')
      build(name, process, short, **options)
  with warnings.catch_warnings():
    warnings.simplefilter('error')
    for name in ('dpm_solver', 'heun', 'sde_dpm', 's_pndm'):
      build(name, process, leap)
    solvers.exponential_adams(process, leap, order=2)
