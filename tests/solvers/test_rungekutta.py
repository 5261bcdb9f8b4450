"""Runge-Kutta methods in t: their order also in the step to t = 0, where that is a point like any other."""

import numpy as np
import pytest
from oracle import ORDERS, PROCESSES, build, prior_points, run_table, solution

from diffjax import noise_levels, solvers
from diffjax.solvers import grids
from diffjax.solvers.tables.rungekutta import RALSTON2, RALSTON3, TABLEAUX

METHODS = {'heun_in_t': 2, 'midpoint': 2, 'rk4': 4}  # and evaluations a step
# alpha and sigma have finite rates at t = 0; grids of times u^p, u even, see what each of them does there
ORDINARY = {'edm': 5, 'flow': 1, 'shifted': 1, 'sub_vp': 2}
MEAN, STD = np.array([0.3, -0.5]), np.array([0.6, 0.3])


def gaussian(x, alpha, sigma):
  """(x0, eps) of N(MEAN, STD^2)."""
  slope = (x - alpha * MEAN) / (alpha**2 * STD**2 + sigma**2)
  return MEAN + alpha * STD**2 * slope, sigma * slope


@pytest.mark.parametrize('kind', ORDINARY)
@pytest.mark.parametrize('name', METHODS)
def test_order_down_to_the_data(name, kind):
  """Against the closed-form flow of a Gaussian, at t = 0 itself."""
  process, errors = PROCESSES[kind](), []
  x = prior_points(process, 64)
  alpha, sigma, _ = noise_levels.at(process, [float(process.t_max)])
  end = MEAN + STD * (x - alpha * MEAN) / np.hypot(alpha * STD, sigma)
  for n in (80, 160):
    ts = float(process.t_max) * np.linspace(1, 0, n + 1) ** ORDINARY[kind]
    errors.append(np.sqrt(np.mean((run_table(build(name, process, ts), process, x, gaussian) - end) ** 2)))
  assert np.log2(errors[0] / errors[1]) > ORDERS[name] - 0.25, errors


@pytest.mark.parametrize('name', METHODS)
def test_evaluations_of_the_last_step(name):
  """None at t = 0, where eps is 0 / 0 for a prediction of x0; one, of DDIM, where alpha and sigma are no line there."""
  for kind, make in PROCESSES.items():
    process, stages = make(), METHODS[name]
    table = build(name, process, grids.uniform(process, 5))
    if kind == 've':  # sigma(0) > 0: a step like the others
      assert table.nfe == 5 * stages
      continue
    last = min(stages, 3) if kind in ORDINARY else 1
    assert table.nfe == 4 * stages + last and table.rows.t.min() > 0
    if last == 1:
      np.testing.assert_allclose(table.rows.weights[-1, 0, -4:], [1, 0, 0, 0], atol=1e-12)


@pytest.mark.parametrize(
  'name, n, gain', [('rk4', 5, 20), ('rk4', 12, 100), ('midpoint', 10, 3), ('heun_in_t', 10, 1.5)]
)
def test_nearer_than_by_a_last_step_of_ddim(name, n, gain):
  """On GM-A and rectified flow, evenly spaced."""
  process = PROCESSES['flow']()
  ts, x = grids.uniform(process, n), prior_points(process, 128)
  exact = solution('flow', 128, 1 - 1e-6, 1e-6)
  full = build(name, process, ts)
  ddim = solvers.denoise_to_zero(build(name, process, ts[:-1]), process, ts[-2])
  errors = [np.sqrt(np.mean((run_table(table, process, x) - exact) ** 2)) for table in (ddim, full)]
  assert errors[0] > gain * errors[1], errors


RULES = {'midpoint': 2, 'heun': 2, 'kutta3': 3, 'rk4': 4}


@pytest.mark.parametrize('rule, order', [(RALSTON2, 2), (RALSTON3, 3), *((TABLEAUX[n], p) for n, p in RULES.items())])
def test_rules_meet_the_conditions_of_their_order(rule, order):
  """Butcher's, a rooted tree each, up to order four."""
  c, b, a = np.array(rule.c), np.array(rule.b), np.zeros((len(rule.b), len(rule.b)))
  for i, row in enumerate(rule.a):
    a[i + 1, : i + 1] = row
  np.testing.assert_allclose(a.sum(1), c, atol=1e-15)
  trees = [(1, b.sum(), 1), (2, b @ c, 1 / 2), (3, b @ c**2, 1 / 3), (3, b @ a @ c, 1 / 6)]
  trees += [(4, b @ c**3, 1 / 4), (4, b * c @ a @ c, 1 / 8), (4, b @ a @ c**2, 1 / 12), (4, b @ a @ a @ c, 1 / 24)]
  for p, value, want in trees:
    assert p > order or value == pytest.approx(want, rel=1e-12)
  assert rule not in (RALSTON2, RALSTON3) or c.max() < 1  # the step to t = 0 looks at no time but earlier ones
