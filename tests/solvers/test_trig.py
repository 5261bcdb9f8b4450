"""Adams methods in the angle between data and noise."""

import numpy as np
import pytest
from oracle import PROCESSES, gaussian_law, prior_points, run_table, solution

from diffjax import noise_levels, schedules, solvers
from diffjax.solvers import grids
from diffjax.solvers.tables.trig import fitted_weights


@pytest.mark.parametrize(
  'nodes', [[0.0], [0.0, 0.3], [-0.2, 0.0, 0.25], [0.0, 0.4, 0.7, 1.1], [-1e-3, 0.0, 1e-3, 2e-3]]
)
def test_weights_are_exact_for_their_functions(nodes):
  d, u = nodes[1] - nodes[0] if len(nodes) > 1 else 0.2, np.array(nodes)
  w = fitted_weights(u, -d)
  pairs = [(np.cos(u), -np.sin(d)), (np.sin(u), 1 - np.cos(d)), (np.ones_like(u), -d), (u, d**2 / 2)]
  for values, total in pairs[: len(nodes)]:
    np.testing.assert_allclose(w @ values, total, rtol=1e-9, atol=1e-15)


@pytest.mark.parametrize('kind', ['vp_linear', 'edm', 'flow', 'sub_vp'])
def test_gaussian_data_of_the_given_deviation_are_solved_exactly_once_two_values_are_known(kind):
  """v = 0 for N(0, s^2), so every step leaves x / r alone but the first, which turns it and knows the line alone."""
  process, s = PROCESSES[kind](), 0.7
  table = solvers.trig_adams(
    process, grids.noise_share(process, 6), order=2, data_std=s, final_order=2, corrector=False
  )
  ends = []
  for rows in range(1, 7):
    part = table.replace(rows=type(table.rows)(*(leaf[:rows] for leaf in table.rows)))
    ts = [*table.rows.t, 0.0]
    alpha, sigma, _ = noise_levels.at(process, [ts[rows]])
    ends.append(gaussian_law(part, process, s**2)[0] / np.hypot(s * alpha[0], sigma[0]))
  np.testing.assert_allclose(ends[1:], ends[0], rtol=1e-12)


def test_one_step_is_the_denoiser():
  process = schedules.flow()
  table = solvers.trig_adams(process, [1.0, 0.0], order=1)
  np.testing.assert_allclose(np.asarray(table.rows.weights)[0, 0], [0, 0, 0, 1, 0, 0, 0], atol=1e-15)


def test_first_order_is_ddim():
  process = schedules.cosine()
  ts = grids.noise_share(process, 7)
  x = prior_points(process, 20)
  table = solvers.trig_adams(process, ts, order=1, corrector=False)
  np.testing.assert_allclose(run_table(table, process, x), run_table(solvers.ddim(process, ts), process, x), atol=1e-13)


@pytest.mark.parametrize('order, corrector', [(2, False), (3, False), (2, True), (3, True)])
def test_order(order, corrector):
  """Two, and three with the corrector, between 80 and 160 steps on GM-A up to t_min: the first step limits it."""
  process, errors = schedules.vp_linear(), []
  for n in (80, 160):
    ts = grids.noise_share(process, n, to_zero=False)
    table = solvers.trig_adams(process, ts, order=order, corrector=corrector, final_order=order)
    gap = run_table(table, process, prior_points(process, 128)) - solution('vp_linear', 128, ts[0], ts[-1])
    errors.append(np.sqrt(np.mean(gap**2)))
  assert np.log2(errors[0] / errors[1]) > 2 + corrector - 0.15


@pytest.mark.parametrize('kind', ['vp_linear', 'cosine', 'edm'])
@pytest.mark.parametrize('n, gain', [(8, 1.7), (10, 2.5)])
def test_nearer_than_unipc_on_its_best_grid(kind, n, gain):
  """`gain` times, on the smooth mixture, of orders 2 and 3 on any of the library's grids."""
  process = PROCESSES[kind]()
  x = prior_points(process, 256)
  exact = solution(kind, 256, float(process.t_max), 1e-5 * float(process.t_max))

  def error(table):
    return np.sqrt(np.mean(np.sum((run_table(table, process, x) - exact) ** 2, -1)))

  names = [name for name in grids.__all__ if name != 'array']
  best = min(error(solvers.unipc(process, getattr(grids, g)(process, n), order=p)) for g in names for p in (2, 3))
  assert error(solvers.trig_adams(process, grids.noise_share(process, n), order=3)) < best / gain
