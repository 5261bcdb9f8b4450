"""Orders of every option, the published errors, and what makes one method another; by NumPy alone, in float64."""

import inspect
import warnings

import numpy as np
import pytest
from oracle import ORDERS, PROCESSES, build, distance_to_solution, predict, prior_points, run_table

from diffjax import noise_levels, schedules, solvers, statistics
from diffjax.errors import InputError
from diffjax.solvers import grids, in_data_form
from diffjax.solvers.tables.adams import adams_weights
from diffjax.solvers.tables.deis import tab_weights

# (method, options, order): every table as it comes, and with its options. Two have tests of their own.
CASES = [(name, {}, order) for name, order in ORDERS.items() if name not in ('euler', 'trig_adams')]
CASES += [
  ('dpmpp_3m', {'lower_final': False}, 3),
  ('exponential_adams', {'order': 1}, 1),
  ('exponential_adams', {'order': 2, 'form': 'eps'}, 2),
  ('exponential_adams', {'order': 3, 'form': 'eps'}, 3),
  ('exponential_adams', {'order': 4, 'lower_final': False}, 4),
  ('exponential_adams', {'order': 2, 'corrector': True}, 3),
  ('exponential_adams', {'order': 3, 'corrector': True, 'form': 'eps', 'lower_final': False}, 4),
  ('unipc', {'order': 2, 'b1': True}, 3),
  ('dpm_solver', {'order': 3}, 3),
  *(('dpm_solver', {'order': p, 'taylor': True}, p) for p in (2, 3)),
  ('dpmpp_2s', {'taylor': True}, 2),
  ('dpmpp_3s', {'taylor': True}, 3),
  *(('heun', {'midpoint': a}, 2) for a in (0.5, 2 / 3)),
  *(('deis_tab', {'order': p}, p) for p in (1, 2, 3)),
  *(('deis_rhoab', {'order': p}, p) for p in (1, 2, 3)),
  *(('deis_rhork', {'tableau': name}, p) for name, p in (('midpoint', 2), ('kutta3', 3), ('rk4', 4))),
  ('ipndm', {'order': 2}, 2),
  ('ghvb', {'order': 0.5}, 1),
  ('ghvb', {'order': 1.8}, 2),
]


@pytest.mark.parametrize('name, options, order', CASES)
def test_orders_on_a_mixture(name, options, order):
  for kind in ('vp_linear',) if options else ('vp_linear', 'edm', 'flow'):
    process, errors = PROCESSES[kind](), []
    lam = noise_levels.at(process, [0.999 * float(process.t_max), float(process.t_min)])[2]
    for n in (160, 320):
      ts = noise_levels.times_of(process, np.linspace(*lam, n + 1))
      errors.append(distance_to_solution(build(name, process, ts, **options), kind, ts[-1], 32))
    assert np.log2(errors[0] / errors[1]) == pytest.approx(order, abs=0.25), (kind, errors)


# 5, 10 and 20 evaluations on GM-A, VP linear, down to t = .001: rms distance to the ODE's solution, as an independent
# NumPy implementation in float64 found it; each is met within a quarter.
REFERENCE = [
  ('dpmpp_3m_compat', {}, 'uniform_lam', (0.167, 0.095, 0.0093)),
  ('dpmpp_3m_compat', {}, 'quadratic', (0.115, 0.052, 0.0107)),
  ('dpmpp_3m_compat', {}, 'uniform', (0.325, 0.107, 0.061)),
  ('unipc', {'order': 3}, 'uniform_lam', (0.166, 0.064, 0.0079)),
  ('unipc', {'order': 3}, 'quadratic', (0.111, 0.057, 0.0067)),
  ('unipc', {'order': 3}, 'uniform', (0.312, 0.109, 0.058)),
  ('deis_tab', {}, 'uniform_lam', (0.217, 0.057, 0.0126)),
  ('deis_tab', {}, 'quadratic', (0.132, 0.022, 0.0028)),
  ('deis_tab', {}, 'uniform', (0.266, 0.108, 0.0163)),
  ('deis_rhoab', {}, 'uniform_lam', (0.409, 0.161, 0.0406)),
  ('deis_rhoab', {}, 'quadratic', (0.238, 0.078, 0.0128)),
  ('deis_rhoab', {}, 'uniform', (0.254, 0.097, 0.0158)),
  ('ipndm', {}, 'uniform_lam', (0.205, 0.037, 0.0099)),
  ('ipndm', {}, 'quadratic', (0.058, 0.015, 0.0042)),
  ('ipndm', {}, 'uniform', (0.278, 0.108, 0.0151)),
  ('ghvb', {}, 'uniform_lam', (0.179, 0.062, 0.0152)),
  ('ghvb', {}, 'quadratic', (0.081, 0.018, 0.0043)),
]


@pytest.mark.parametrize('name, options, grid, published', REFERENCE)
def test_published_errors(name, options, grid, published):
  process = schedules.vp_linear()
  got = []
  for n in (5, 10, 20):
    ts = getattr(grids, grid)(process, n, to_zero=False)
    got.append(distance_to_solution(build(name, process, ts, **options), 'vp_linear', ts[-1]))
  np.testing.assert_allclose(got, published, rtol=0.25)


def sent(table, process):
  """Each row's x as (x, then registers, then x0), its eps and x0 exchanged by x = alpha x0 + sigma eps."""
  alpha, sigma, _ = noise_levels.at(process, table.rows.t)
  rows = table.rows.weights[:, 0].copy()
  share = rows[:, -3] / sigma
  rows[:, 0] += share
  rows[:, -4] -= share * alpha
  rows[:, -3] = 0
  return rows


@pytest.mark.parametrize('kind', ['vp_linear', 'edm', 'cosine'])
def test_first_order_methods_are_ddim(kind):
  """Row by row on consistent predictions, coefficient by coefficient."""
  process = PROCESSES[kind]()
  ts = grids.karras(process, 7)
  want = sent(solvers.ddim(process, ts), process)
  for name, options in (
    ('exponential_adams', {'form': 'x0'}),
    ('exponential_adams', {'form': 'eps'}),
    ('deis_tab', {}),
    ('deis_rhoab', {}),
    ('ipndm', {}),
    ('ghvb', {}),
    ('dpm_solver', {}),
    ('unipc', {}),
  ):
    table = build(name, process, ts, order=1, **options)
    n = len(table.registers)
    got = sent(table, process)
    if name != 'unipc':  # whose corrector uses what was predicted before
      np.testing.assert_allclose(got[:, [0, n]], want[:, :2], atol=1e-12, err_msg=name)
      assert not np.delete(got, [0, n], 1).any()
    else:
      np.testing.assert_allclose(got[0, [0, n]], want[0, :2], atol=1e-12)


def test_eulers_step_in_edms_time_is_ddim():
  process = schedules.edm()
  ts = grids.karras(process, 7)
  got, want = (sent(table(process, ts), process) for table in (solvers.euler, solvers.ddim))
  np.testing.assert_allclose(got, want, atol=1e-12)


def test_heun_is_a_runge_kutta_method_in_rho():
  process = schedules.vp_linear()
  ts = grids.karras(process, 7)
  got, want = solvers.deis_rhork(process, ts), solvers.heun(process, ts)
  np.testing.assert_allclose(got.rows.t, want.rows.t)
  x = prior_points(process, 8)
  np.testing.assert_allclose(run_table(got, process, x), run_table(want, process, x), rtol=1e-9)


def test_adams_bashforth_in_rho_has_the_classical_weights_on_equal_steps():
  process = schedules.edm()
  ts = np.linspace(80, 1, 9)
  for order in (1, 2, 3, 4):
    classical = solvers.ipndm(process, ts, order=order)
    rho, t = (build(name, process, ts, order=order).rows.weights for name in ('deis_rhoab', 'deis_tab'))  # rho is t
    np.testing.assert_allclose(rho, classical.rows.weights, rtol=1e-9, atol=1e-12)
    np.testing.assert_allclose(t, in_data_form(classical, process).rows.weights, rtol=1e-9, atol=1e-12)


def test_weights_in_t_are_the_riemann_sums_of_the_published_code():
  """int l_j(t) drho by 10000 points of rho, to 1e-4."""
  process = schedules.vp_linear()
  ts = grids.quadratic(process, 10, to_zero=False)
  for i in (4, 9):
    weights = tab_weights(process, ts)(i, 4)
    fine = np.linspace(ts[i], ts[i + 1], 10001)
    a, s, _ = noise_levels.at(process, fine)
    for j in range(4):
      others = np.delete(ts[i - 3 : i + 1][::-1], j)
      basis = np.prod((fine[:, None] - others) / (ts[i - j] - others), axis=1)
      assert weights[j] == pytest.approx(np.sum(np.diff(s / a) * basis[:-1]), abs=1e-4 * np.abs(weights).max())


def thirds(process, outer, orders):
  """A grid through these times, the inner nodes of each step of equal length in lam: the published r."""
  lam = noise_levels.at(process, outer)[2]
  parts = [np.linspace(a, b, p + 1)[1:] for a, b, p in zip(lam, lam[1:], orders, strict=False)]
  inner = noise_levels.times_of(process, np.concatenate(parts))
  ts = np.concatenate([outer[:1], inner])
  ts[np.cumsum([0, *orders])] = outer
  return ts


@pytest.mark.parametrize(
  'grid, published',
  [('uniform_lam', (1.17, 0.141, 0.0231)), ('quadratic', (1.27, 0.060, 0.0058)), ('uniform', (2.19, 0.142, 0.108))],
)
def test_published_errors_of_dpm_fast(grid, published):
  """Steps of equal length in lam on its own grid, steps between the nodes of the others."""
  process, got = schedules.vp_linear(), []
  for n, orders in ((5, [3, 2]), (10, [3, 3, 3, 1]), (20, [3, 3, 3, 3, 3, 3, 2])):
    if grid == 'uniform_lam':
      outer = grids.uniform_lam(process, len(orders), to_zero=False)
    else:
      outer = getattr(grids, grid)(process, n, to_zero=False)[np.cumsum([0, *orders])]
    table = solvers.dpm_fast(process, thirds(process, outer, orders))
    assert table.nfe == n
    got.append(distance_to_solution(table, 'vp_linear', outer[-1]))
  np.testing.assert_allclose(got, published, rtol=0.25)


THIRD = [('dpm_fast', {}), ('dpm_solver', {'order': 3}), ('dpmpp_3s', {})]


@pytest.mark.parametrize('n, starts', [(3, [0, 2]), (6, [0, 3, 5]), (7, [0, 3, 6]), (8, [0, 3, 6]), (9, [0, 3, 6, 8])])
@pytest.mark.parametrize('name, options', THIRD)
def test_third_order_single_steps_of_a_number_of_evaluations(name, options, n, starts):
  """3, .., 3, 2, 1 or 3, .., 3, n mod 3: each node is evaluated once, and where steps start tells the orders."""
  process = schedules.vp_linear()
  ts = grids.uniform(process, n, to_zero=False)
  table = build(name, process, ts, **options)
  np.testing.assert_array_equal(table.rows.t, ts[:-1])
  firsts = np.flatnonzero(~table.rows.weights[:, 0, 1:3].any(1))  # rows that read neither base nor prediction
  np.testing.assert_array_equal(firsts, starts)
  if name != 'dpm_fast' and n % 3 == 0:
    equal = build(name, process, ts, lower_final=False, **options)
    firsts = np.flatnonzero(~equal.rows.weights[:, 0, 1:3].any(1))
    np.testing.assert_array_equal(firsts, range(0, n, 3))


KEPT = ('dpmpp_2m', 'dpmpp_3m', 'dpmpp_3m_compat', 'exponential_adams', 'sde_adams', 'sde_dpmpp_2m', 'unipc')


@pytest.mark.parametrize('name', KEPT)
def test_order_is_kept_to_the_end(name):
  """With `lower_final` off the last step is what it is on a grid that goes on, and the order of all of them is whole.

  To infinite lam it is of first order all the same.
  """
  process = schedules.vp_linear()
  for ts in (grids.uniform_lam(process, 7, to_zero=False), grids.uniform(process, 7, to_zero=False)):
    on = build(name, process, ts, lower_final=False).rows.weights[:-1]
    np.testing.assert_array_equal(build(name, process, ts[:-1], lower_final=False).rows.weights, on)
    assert not np.allclose(build(name, process, ts[:-1]).rows.weights[-1], on[-1], rtol=1e-4)
  to_data = build(name, process, grids.uniform(process, 7), lower_final=False).rows.weights[-1, 0, -4:-1]
  np.testing.assert_allclose(to_data, [1, 0, 0], atol=1e-12)


@pytest.mark.parametrize('form', ['x0', 'eps'])
def test_adams_weights_integrate_the_polynomial(form):
  """Against Gauss-Legendre quadrature of Lagrange's polynomials under e^{-(h - l)} and e^{h - l}."""
  at, w = np.polynomial.legendre.leggauss(40)
  at = (at + 1) / 2
  for h in (0.01, 0.3, 2.0):
    for nodes in ([0.0], [0, -1.0], [0, -0.7, -1.9, -2.2], [0, -1.3, 1.0]):
      for j, weight in enumerate(adams_weights(np.array(nodes), h, form)):
        others = [r for i, r in enumerate(nodes) if i != j]
        basis = np.prod([(at - r) / (nodes[j] - r) for r in others], axis=0) if others else 1.0
        assert weight == pytest.approx(
          np.sum(w / 2 * h * np.exp((h if form == 'eps' else -h) * (1 - at)) * basis), rel=1e-9
        )


def test_a_form_is_one_of_two():
  process = schedules.flow()
  for method in (solvers.exponential_adams, solvers.sde_adams):
    with pytest.raises(InputError, match="form: got 'data'; allowed: x0, eps"):
      method(process, grids.uniform(process, 3), form='data')


def test_multistep_methods_are_exponential_adams():
  """UniPC wherever rho is solved for (two differences or more); DPM-Solver++(3M) of equal steps, both to round-off."""
  process = schedules.vp_linear()
  ts = grids.quadratic(process, 12)
  for order in (3, 4):
    uni = solvers.unipc(process, ts, order=order).rows.weights
    exact = solvers.exponential_adams(process, ts, order=order, corrector=True).rows.weights
    np.testing.assert_allclose(uni[3:-3], exact[3:-3], rtol=1e-9, atol=1e-11)
    assert not np.allclose(uni[1], exact[1], rtol=1e-4)
  ts = grids.uniform_lam(process, 12, to_zero=False)
  three = solvers.dpmpp_3m(process, ts).rows.weights
  exact = solvers.exponential_adams(process, ts).rows.weights
  np.testing.assert_allclose(three[2:-2], exact[2:-2], rtol=1e-9, atol=1e-12)


def test_b1_differs_from_b2_at_single_differences_only():
  process = schedules.vp_linear()
  ts = grids.uniform(process, 9)
  one, two = (solvers.unipc(process, ts, order=3, b1=b1).rows.weights for b1 in (True, False))
  np.testing.assert_array_equal(one[3:-3], two[3:-3])
  assert not np.allclose(one[1], two[1], rtol=1e-3)


@pytest.mark.parametrize('name', ['deis_rhoab', 'deis_tab', 'exponential_adams', 'unipc'])
def test_orders_that_do_not_exist_are_refused(name):
  process = schedules.vp_linear()
  for order in (0, 5, 1.5, '2'):
    with pytest.raises(ValueError, match='^order: got .*; allowed: a whole number from 1 to the 4 steps of the grid'):
      build(name, process, grids.uniform(process, 4), order=order)


USUAL = {
  'deis_rhoab': 4,
  'deis_tab': 4,
  'dpm_solver': 2,
  'dpm_v3': 3,
  'exponential_adams': 3,
  'ghvb': 2.5,
  'ipndm': 4,
  'sde_adams': 3,
  'trig_adams': 2,
  'unipc': 2,
}


@pytest.mark.parametrize('name', [*solvers.tables.__all__, *solvers.with_statistics, *solvers.own_step])
def test_any_number_of_steps_and_no_order_above_it(name):
  """A method on fewer steps than its order has that many; the same order asked for is refused."""
  process, make = schedules.vp_linear(), getattr(solvers, name)
  known = [statistics.NEUTRAL[solvers.with_statistics[name]](process)] if name in solvers.with_statistics else []
  assert ('order' in inspect.signature(make).parameters) == (name in USUAL)
  for n in (1, 2, 3, 5):
    ts = grids.uniform(process, n, to_zero=False)
    table = make(process, ts, *known)
    assert table.nfe >= n
    if name in USUAL:
      same = make(process, ts, *known, order=min(USUAL[name], n))
      np.testing.assert_array_equal(table.rows.weights, same.rows.weights)
      with pytest.raises(ValueError, match=f'^order: got {n + 1}; allowed: '):
        make(process, ts, *known, order=n + 1)


def test_what_is_left_of_a_method_on_few_steps():
  """Single steps of the order there is room for; F-PNDM by Runge-Kutta steps alone."""
  process = schedules.vp_linear()
  one, two, three = (grids.uniform(process, n, to_zero=False) for n in (1, 2, 3))
  for name in ('dpmpp_2s', 'dpmpp_3s', 'dpm_fast'):
    np.testing.assert_allclose(
      sent(build(name, process, one), process)[:, [0, -4]],
      sent(solvers.ddim(process, one), process)[:, [0, -4]],
      atol=1e-12,
    )
  for name, same in (('dpmpp_3s', 'dpmpp_2s'), ('dpm_fast', 'dpm_solver')):
    np.testing.assert_array_equal(build(name, process, two).rows.weights, build(same, process, two).rows.weights)
  assert [solvers.f_pndm(process, ts).nfe for ts in (one, two, three)] == [4, 8, 12]


def test_other_refusals():
  process = schedules.vp_linear()
  ts = grids.uniform(process, 3)
  for order in (0, 4, 2.5):
    with pytest.raises(ValueError, match='order: got .*; allowed: 1, 2 or 3'):
      solvers.dpm_solver(process, ts, order=order)
  for order in (0, 5, 1.5):
    with pytest.raises(ValueError, match='order: got .*; allowed: 1, 2, 3 or 4'):
      solvers.ipndm(process, ts, order=order)
  with pytest.raises(ValueError, match='order: got 4; allowed: a whole number from 1 to the 3 steps'):
    solvers.ipndm(process, ts, order=4)
  with pytest.raises(ValueError, match="coordinates: got 'edm'; allowed: vp, own"):
    solvers.ddpm_large(process, ts, coordinates='edm')
  with pytest.raises(ValueError, match="tableau: got 'euler'; allowed: midpoint, heun, kutta3, rk4"):
    solvers.deis_rhork(process, ts, tableau='euler')
  with pytest.raises(ValueError, match='row 0 at t = 1 .*not finite'):
    solvers.sde_dpm(schedules.flow(), grids.uniform(schedules.flow(), 3))


def test_taylor_variants_are_the_published_formulas():
  """arXiv:2206.00927 and arXiv:2211.01095: one step's rows from t over u and v to s, with their symbols; and 2M."""
  process = schedules.vp_linear()
  lam = np.array([-1.0, -0.6, -0.1, 0.8])
  ts = noise_levels.times_of(process, lam)
  a, s, lam = noise_levels.at(process, ts)
  r = np.random.default_rng(0)
  x, m, eps = r.standard_normal((3, 4))  # x, and the predictions at the nodes

  def end(table):
    """The sample, given these predictions, whatever the points."""
    state = np.zeros(len(table.registers))
    state[0] = x[0]
    for i, weights in enumerate(table.rows.weights):
      state = weights[:, : len(state)] @ state + weights[:, -4] * m[i] + weights[:, -3] * eps[i]
    return state[0]

  for name, order, taylor in (('dpmpp_2s', 2, True), ('dpmpp_2s', 2, False), ('dpmpp_3s', 3, True)):
    options = {'lower_final': False} if order == 3 else {}
    table = build(name, process, ts[: order + 1], taylor=taylor, **options)
    h = lam[order] - lam[0]
    p1 = np.expm1(-h)
    p2, base = p1 / h + 1, s[order] / s[0] * x[0] - a[order] * p1 * m[0]
    r1, r2 = (lam[1] - lam[0]) / h, (lam[2] - lam[0]) / h
    if order == 2:
      want = base + (a[2] * p2 if taylor else -a[2] * p1 / 2) / r1 * (m[1] - m[0])
    else:
      d10, d11 = (m[1] - m[0]) / r1, (m[2] - m[0]) / r2
      d1, d2 = (r2 * d10 - r1 * d11) / (r2 - r1), 2 * (d11 - d10) / (r2 - r1)
      want = base + a[3] * p2 * d1 - a[3] * (p2 / h - 0.5) * d2
    assert end(table) == pytest.approx(want, rel=1e-12)
  far = noise_levels.times_of(
    process, np.array([0.5, 0.9, 1.4, 2.3])
  )  # alpha > sigma: the table stays as it is written
  a, s, lam = noise_levels.at(process, far)
  for order in (2, 3):
    table = solvers.dpm_solver(process, far[: order + 1], order=order, taylor=True, lower_final=False)
    h = lam[order] - lam[0]
    p1 = np.expm1(h)
    p2, base = p1 / h - 1, a[order] / a[0] * x[0] - s[order] * p1 * eps[0]
    r1, r2 = (lam[1] - lam[0]) / h, (lam[2] - lam[0]) / h
    d10, d11 = (eps[1] - eps[0]) / r1, (eps[2] - eps[0]) / r2
    d1, d2 = (r2 * d10 - r1 * d11) / (r2 - r1), 2 * (d11 - d10) / (r2 - r1)
    want = base - s[order] * p2 * d10 if order == 2 else base - s[3] * p2 * d1 - s[3] * (p2 / h - 0.5) * d2
    assert end(table) == pytest.approx(want, rel=1e-12)
  rows = solvers.exponential_adams(process, far, order=2).rows.weights  # DPM-Solver++(2M), its 'taylor' or 'heun' type
  h, before = lam[2] - lam[1], lam[1] - lam[0]
  second = a[2] * (np.expm1(-h) / h + 1) * h / before
  np.testing.assert_allclose(rows[1, 0], [s[2] / s[1], -second, second - a[2] * np.expm1(-h), 0, 0, 0], atol=1e-12)


def test_general_second_order_step_of_edm():
  """Alg. 3: d at t, d' at t + a h, weights 1 - 1 / (2 a) and 1 / (2 a), in EDM's own variables; and its refusal."""
  process, x = schedules.edm(), prior_points(schedules.edm(), 4)
  ts = np.array([80.0, 20.0, 3.0, 0.0])
  for part in (0.5, 2 / 3, 1.0):
    point = x
    for t, after in zip(ts, ts[1:], strict=False):
      d = predict(point, 1.0, t)[1]
      if after == 0:
        point = predict(point, 1.0, t)[0]
        continue
      u = t + part * (after - t)
      d2 = predict(point + (u - t) * d, 1.0, u)[1]
      point = point + (after - t) * ((1 - 0.5 / part) * d + 0.5 / part * d2)
    table = solvers.heun(process, ts, midpoint=part)
    assert table.nfe == 5
    np.testing.assert_allclose(run_table(table, process, x), point, rtol=1e-9)
  for part in (0, 1.1, float('nan')):
    with pytest.raises(ValueError, match='midpoint: got .*; allowed: a number above 0, up to 1'):
      solvers.heun(process, ts, midpoint=part)


# Slopes between 160 and 320 steps of equal length in lam: the published orders, and how far a slope may lie from them.
SLOPES = [
  ('ddim', {}, 0.95, 1.05),
  ('dpm_solver', {}, 1.9, 2.1),
  ('dpm_solver', {'order': 3}, 2.85, 3.15),
  ('dpmpp_2s', {}, 1.87, 2.1),
  ('dpmpp_3s', {}, 2.85, 3.1),
  ('dpmpp_2m', {}, 1.89, 2.1),
  *(('deis_tab', {'order': p + 1}, least, p + 1.2) for p, least in ((1, 1.86), (2, 2.81), (3, 3.77))),
  *(('deis_rhoab', {'order': p + 1}, least, p + 1.2) for p, least in ((2, 2.8), (3, 3.73))),
  *(
    ('deis_rhork', {'tableau': name}, least, least + 0.25)
    for name, least in (('heun', 1.91), ('kutta3', 2.9), ('rk4', 3.9))
  ),
  ('s_pndm', {}, 1.9, 2.1),
  *(('unipc', {'order': p}, least, p + 1.2) for p, least in ((2, 2.85), (3, 3.3))),
  *(('ghvb', {'order': p}, 1.85, 2.5) for p in (1.5, 1.8, 2.5)),
  ('f_pndm', {}, 1.9, 2.1),
]


@pytest.mark.parametrize('name, options, least, most', SLOPES)
def test_accepted_orders(name, options, least, most):
  process, errors = schedules.vp_linear(), []
  for n in (160, 320):
    ts = grids.uniform_lam(process, n, to_zero=False)
    errors.append(distance_to_solution(build(name, process, ts, **options), 'vp_linear', ts[-1], 32))
  assert least <= np.log2(errors[0] / errors[1]) <= most, errors


def test_published_error_of_f_pndm():
  """11 steps, 20 evaluations, on GM-A: at most .038."""
  process = schedules.vp_linear()
  ts = grids.uniform_lam(process, 11, to_zero=False)
  table = solvers.f_pndm(process, ts)
  assert table.nfe == 20 and distance_to_solution(table, 'vp_linear', ts[-1]) <= 0.038


@pytest.mark.parametrize('kind', ['vp_linear', 'cosine', 'edm'])
def test_f_pndm_as_published(kind):
  """Its rows stand at t, (t + s) / 2 twice and s; three steps of (e1 + 2 e2 + 2 e3 + e4) / 6, then of Adams."""
  process = PROCESSES[kind]()
  ts = np.linspace(0.7, 0.1, 6) * float(process.t_max)
  table, x, past = solvers.f_pndm(process, ts), prior_points(process, 6), []
  want = [u for t, s in zip(ts[:3], ts[1:4], strict=True) for u in (t, (t + s) / 2, (t + s) / 2, s)]
  np.testing.assert_allclose(table.rows.t, [*want, *ts[3:5]], rtol=1e-12)

  def level(t):
    return [part[0] for part in noise_levels.at(process, [t])[:2]]

  def eps(x, t):
    return predict(x, *level(t))[1]

  def transfer(x, e, t, s):
    (alpha, sigma), (alpha_s, sigma_s) = level(t), level(s)
    return alpha_s / alpha * x + (sigma_s - sigma * alpha_s / alpha) * e

  points = []
  for i, (t, s) in enumerate(zip(ts, ts[1:], strict=False)):
    u, e1 = (t + s) / 2, eps(x, t)
    past.insert(0, e1)
    if i < 3:
      e2 = eps(transfer(x, e1, t, u), u)
      e3 = eps(transfer(x, e2, t, u), u)
      e4 = eps(transfer(x, e3, t, s), s)
      e = (e1 + 2 * e2 + 2 * e3 + e4) / 6
    else:
      e = (55 * past[0] - 59 * past[1] + 37 * past[2] - 9 * past[3]) / 24
    x = transfer(x, e, t, s)
    points.append(x)
  for rows, point in ((4, points[0]), (12, points[2]), (14, points[4])):
    part = table.replace(rows=type(table.rows)(*(leaf[:rows] for leaf in table.rows)))
    np.testing.assert_allclose(run_table(part, process, prior_points(process, 6)), point, rtol=1e-8, atol=1e-10)


@pytest.mark.parametrize('grid, gain', [('quadratic', 2), ('uniform', 5)])
def test_a_falling_order_is_nearer(grid, gain):
  """DPM-Solver++(3S) of 15 evaluations in steps of 3, 3, 3, 3, 2, 1 and of 3, 3, 3, 3, 3, on GM-A down to t_min."""
  process = schedules.vp_linear()
  ts = getattr(grids, grid)(process, 15, to_zero=False)
  falling, equal = (
    distance_to_solution(solvers.dpmpp_3s(process, ts, lower_final=low), 'vp_linear', ts[-1], 64) for low in (1, 0)
  )
  assert gain * falling < equal


@pytest.mark.parametrize('kind', PROCESSES)
def test_single_steps_that_leave_the_data_are_warned_of(kind):
  """Wherever GM-A, whose mean square is 1.8, comes out of a mean square of 25 or more, on every grid; once a table."""
  process, x = PROCESSES[kind](), prior_points(PROCESSES[kind](), 64)
  for grid in (name for name in grids.__all__ if name != 'array'):
    for n in (5, 10, 20):
      ts = getattr(grids, grid)(process, n)
      for name in ('dpm_fast', 'dpm_solver'):
        with warnings.catch_warnings(record=True) as found:
          warnings.simplefilter('always')
          table = build(name, process, ts)
        assert len(found) <= 1 and all('times in noise form what x0 changes' in str(w.message) for w in found)
        assert found or np.mean(np.sum(run_table(table, process, x) ** 2, -1)) < 25, (grid, n, name)


def test_single_steps_as_published_are_not_warned_of():
  """On the grids that the paper has and 10 evaluations or more; the data form never."""
  process = schedules.vp_linear()
  with warnings.catch_warnings():
    warnings.simplefilter('error')
    for n in (10, 15, 20):
      for grid in ('uniform', 'uniform_lam', 'quadratic'):
        for name in ('dpm_fast', 'dpm_solver'):
          build(name, process, getattr(grids, grid)(process, n))
      for name in ('dpmpp_2s', 'dpmpp_3s'):
        build(name, process, grids.noise_share(process, n))
