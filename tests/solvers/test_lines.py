"""The line test: a constant pair (x0, eps) must be carried along alpha x0 + sigma eps. Then what tables refuse."""

import warnings

import numpy as np
import pytest
from oracle import PROCESSES, apply_row, build, is_defined_on, legal_grid, line

from diffjax import noise_levels, schedules, solvers
from diffjax.solvers import Table, grids

# Where each table keeps the line exactly. Steps in t are exact only where alpha and sigma are linear in t. The noise of
# Euler-Maruyama and of SDE-DPM-Solver has the true variance only to first order, so they keep it nowhere.
EVERYWHERE = tuple(PROCESSES)
EXACT = {
  'ancestral': (),  # its variance may be larger
  'ddim': EVERYWHERE,
  'ddpm': EVERYWHERE,  # in mean and variance
  'ddpm_large': (),  # its variance is larger
  'deis_rhoab': EVERYWHERE,
  'deis_rhork': EVERYWHERE,
  'deis_tab': EVERYWHERE,
  'dpm_fast': EVERYWHERE,
  'dpm_solver': EVERYWHERE,
  'dpmpp_2m': EVERYWHERE,
  'dpmpp_2s': EVERYWHERE,
  'dpmpp_3m': EVERYWHERE,
  'dpmpp_3m_compat': EVERYWHERE,
  'dpmpp_3s': EVERYWHERE,
  'euler': ('edm', 'flow'),
  'euler_maruyama': (),
  'exponential_adams': EVERYWHERE,
  'f_pndm': EVERYWHERE,
  'flow_sde': EVERYWHERE,
  'ghvb': EVERYWHERE,
  'heun': EVERYWHERE,
  'heun_in_t': ('edm', 'flow'),
  'ipndm': EVERYWHERE,
  'midpoint': ('edm', 'flow'),
  'reverse_diffusion': (),
  'rk4': ('edm', 'flow'),
  's_pndm': EVERYWHERE,
  'sde_adams': EVERYWHERE,
  'sde_dpm': (),
  'sde_dpmpp_2m': EVERYWHERE,
  'trig_adams': EVERYWHERE,
  'unipc': EVERYWHERE,
}
OPTIONS = {
  'ddim': ({'eta': 0.0}, {'eta': 0.5}),
  'deis_rhoab': tuple({'order': p} for p in (1, 2, 4)),
  'deis_rhork': tuple({'tableau': name} for name in ('heun', 'rk4')),
  'deis_tab': tuple({'order': p} for p in (1, 2, 4)),
  'dpm_solver': tuple({'order': p, 'taylor': taylor} for p in (1, 2, 3) for taylor in (False, True)),
  'dpmpp_3s': ({}, {'taylor': True}),
  'heun': ({}, {'midpoint': 0.5}, {'s_churn': 0.0, 'midpoint': 2 / 3}),
  'dpmpp_3m': ({}, {'lower_final': False}),
  'exponential_adams': (
    {'order': 1, 'form': 'eps'},
    {'order': 4, 'corrector': True},
    {'form': 'eps', 'corrector': True},
  ),
  'ghvb': tuple({'order': w} for w in (0.5, 1.8, 2, 3.5)),
  'ipndm': tuple({'order': p} for p in (1, 2, 3, 4)),
  'sde_adams': tuple({'order': p} for p in (1, 2, 4)),
  'trig_adams': ({'order': 4}, {'order': 2, 'corrector': False}, {'order': 3, 'data_std': 2.0, 'final_order': 2}),
  'sde_dpmpp_2m': ({}, {'exact': True}),
  'unipc': ({'order': 1}, {'order': 2, 'b1': True}, {'order': 2}, {'order': 3}, {'order': 4}),
}
STOCHASTIC = {'ddpm', 'flow_sde', 'sde_adams', 'sde_dpmpp_2m'}  # of those that keep it
TYPED = {'uniform', 'uniform_lam', 'karras'}
# Extrapolations whose weights, of both signs, come to 1e3 and more over a few steps, and what they leave of 1e-16.
ROUNDED = {'deis_tab': 1e-8, 'dpm_fast': 1e-10, 'dpm_solver': 1e-10, 'f_pndm': 1e-10, 'deis_rhork': 1e-11}


def truth(process, table, ts):
  return np.stack(noise_levels.at(process, np.append(table.rows.t, ts[-1]))[:2], 1)


def test_every_table_is_declared():
  assert set(EXACT) == set(solvers.tables.__all__)


@pytest.mark.parametrize('name', [name for name in EXACT if EXACT[name]])
def test_line(name):
  """Every point at which the network is evaluated, and the sample, lie on the line."""
  for kind in EXACT[name]:
    process = PROCESSES[kind]()
    for grid in TYPED:
      for to_zero in (True, False):
        for n in (4, 11):
          ts = legal_grid(name, process, n, grid, to_zero)
          for options in OPTIONS.get(name, ({},)):
            table = build(name, process, ts, **options)
            want = truth(process, table, ts)
            scale = np.abs(want).max()
            np.testing.assert_allclose(line(table, process, ts) / scale, want / scale, atol=ROUNDED.get(name, 1e-12))


@pytest.mark.parametrize(
  'name, rate',
  [('euler', 1), ('euler_maruyama', 1), ('heun_in_t', 2), ('midpoint', 2), ('reverse_diffusion', 1), ('sde_dpm', 1)],
)
def test_line_is_approached_by_the_others(name, rate):
  for kind in set(EVERYWHERE) - set(EXACT[name]) - {'ve', 'shifted'}:
    process = PROCESSES[kind]()
    gaps = []
    for n in (200, 400):
      ts = np.linspace(0.9, 0.1, n + 1) * float(process.t_max)
      table = build(name, process, ts)
      gaps.append(np.abs(line(table, process, ts)[:-1] - truth(process, table, ts)[:-1]).max())
    assert gaps[1] < 0.5 * float(process.t_max) and np.log2(gaps[0] / gaps[1]) == pytest.approx(rate, abs=0.15), kind


def registers_on_the_line(table, process, ts):
  """(rows, q + 4, 2): what each row reads. Differences of predictions vanish there: the orders see their weights."""
  state, read = np.zeros((len(table.registers), 2)), []
  state[0] = [part[0] for part in noise_levels.at(process, ts[:1])[:2]]
  for weights in table.rows.weights:
    read.append(np.concatenate([state, [[1, 0], [0, 1], [1, 0], [0, 1]]]))
    state = apply_row(weights, state, [1, 0], [0, 1])[0]
  return np.array(read)


def test_line_sees_an_error_of_a_thousandth_in_any_coefficient():
  process = schedules.vp_linear()
  ts = grids.uniform_lam(process, 8)
  for name in (name for name in EXACT if EXACT[name] == EVERYWHERE and name not in STOCHASTIC):
    table = build(name, process, ts)
    seen = np.abs(registers_on_the_line(table, process, ts)).max(2) > 1e-6
    for place in np.argwhere((np.abs(table.rows.weights[:, 0]) > 1e-6) & seen):
      weights = table.rows.weights.copy()
      weights[place[0], 0, place[1]] *= 1.001
      wrong = table.replace(rows=table.rows._replace(weights=weights))
      gap = np.abs(line(wrong, process, ts) - truth(process, table, ts)).max()
      assert gap > 1e-10, (name, place)  # without it, 1e-12


@pytest.mark.parametrize('name', EXACT)
def test_tables_are_finite_at_both_ends(name):
  """sigma = 0 at the end of every grid, alpha = 0 at the start of rectified flow; no warning from NumPy either."""
  with warnings.catch_warnings():
    warnings.simplefilter('error')
    warnings.filterwarnings('ignore', '.*in noise form')  # of float32
    for make in (make for kind, make in PROCESSES.items() if is_defined_on(name, kind)):
      process = make()
      for grid in ('uniform', 'uniform_lam', 'quadratic', 'cosine', 'karras'):
        for n in (1, 2, 20):
          assert np.isfinite(build(name, process, legal_grid(name, process, n, grid)).rows.weights).all()


@pytest.mark.parametrize('name', [name for name in EXACT if EXACT[name] == EVERYWHERE])
def test_last_step_to_the_data_is_first_order(name):
  """Into sigma = 0 every method returns the prediction itself."""
  for make in PROCESSES.values():
    process = make()
    if noise_levels.at(process, [0.0])[1][0] > 0:  # VE never reaches sigma = 0
      continue
    last = build(name, process, grids.uniform(process, 6)).rows.weights[-1, 0]
    x0 = np.eye(len(last))[len(last) - 4]
    np.testing.assert_allclose(np.delete(last, -3), np.delete(x0, -3), atol=1e-12)  # eps has weight sigma = 0 or so


def test_unipc_of_order_one_without_lowering_is_ddim_at_its_first_step():
  process = schedules.vp_linear()
  ts = grids.uniform_lam(process, 5)
  for order in (1, 2, 3):
    first = solvers.unipc(process, ts, order=order).rows.weights[0, 0]
    alpha, sigma, _ = noise_levels.at(process, ts)
    np.testing.assert_allclose(first[0], sigma[1] / sigma[0], rtol=1e-13)
    np.testing.assert_allclose(first[-4], alpha[1] - alpha[0] * sigma[1] / sigma[0], rtol=1e-13)


def test_refusals():
  process = schedules.vp_linear()
  ts = grids.uniform(process, 3)
  for order in (0, 4, 1.5):
    with pytest.raises(ValueError, match='order: got .*; allowed: a whole number from 1 to the 3 steps'):
      solvers.unipc(process, ts, order=order)
  for eta in (-0.1, 1.1, float('nan')):
    with pytest.raises(ValueError, match='eta: got'):
      solvers.ddim(process, ts, eta=eta)
  with pytest.raises(ValueError, match='row 0 at t = 1 .*not finite'), warnings.catch_warnings():
    warnings.simplefilter('error')
    solvers.euler_maruyama(schedules.flow(), grids.uniform(schedules.flow(), 3))


def test_tables_hold_float64_numpy():
  table = solvers.unipc(schedules.cosine(), grids.uniform(schedules.cosine(), 4))
  assert isinstance(table, Table) and isinstance(table.rows.weights, np.ndarray)
  assert table.rows.weights.dtype == table.rows.t.dtype == np.float64
