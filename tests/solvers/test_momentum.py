"""Heavy ball, Nesterov and GHVB: what they do at no momentum, their stability intervals, orders, and refusals."""

import numpy as np
import pytest
from oracle import PROCESSES, distance_to_solution, line, predict, prior_points, run_table

from diffjax import noise_levels, schedules, solvers
from diffjax.solvers import grids, heavy_ball, nesterov
from diffjax.solvers.tables.momentum import _ghvb_weights


def radius(table, z):
  """Spectral radius of a late row for dy / drho = k y, k drho = z, on an EDM grid of equal steps."""
  weights, step = table.rows.weights[-2], np.diff(table.rows.t)[-1]
  q = len(table.registers)
  map = weights[:, :q].copy()
  map[:, 0] += weights[:, q + 1] * z / step  # eps = k x; these tables have no weight on x0
  return np.abs(np.linalg.eigvals(map)).max()


def endpoint(table):
  """The least z of the interval (z, 0) where the method does not grow."""
  line = -np.arange(1, 3200) / 1000
  grows = np.array([radius(table, z) > 1 + 1e-9 for z in line])
  return line[np.argmax(grows)]


@pytest.mark.parametrize(
  'name, order, beta, published',
  [
    ('ipndm', 1, 1, -2),
    ('ipndm', 2, 1, -1),
    ('ipndm', 3, 1, -0.545),
    ('ipndm', 4, 1, -0.3),
    ('ghvb', 1.5, 1, -1.5),
    ('ghvb', 1.8, 1, -1.2),
    ('ghvb', 2.5, 1, -0.782),
    ('ghvb', 3.5, 1, -0.428),
    ('ipndm', 2, 0.5, -3),
    ('ipndm', 3, 0.5, -1.636),
    ('ipndm', 4, 0.5, -0.9),
  ],
)
def test_published_stability_intervals(name, order, beta, published):
  process = schedules.edm()
  table = getattr(solvers, name)(process, np.linspace(80, 40, 13), order=order)
  table = heavy_ball(table, beta) if beta < 1 else table
  assert endpoint(table) == pytest.approx(published, abs=0.01)


BASES = [('dpmpp_2m', {}), ('dpmpp_3m', {}), ('ipndm', {}), ('deis_rhoab', {}), ('exponential_adams', {'form': 'eps'})]
every = pytest.mark.parametrize('name, options', BASES, ids=[name for name, _ in BASES])


@every
def test_no_momentum_is_the_table_itself(name, options):
  for kind in ('vp_linear', 'flow'):
    process = PROCESSES[kind]()
    table = getattr(solvers, name)(process, grids.uniform(process, 7), **options)
    q = len(table.registers)
    for make in (heavy_ball, nesterov):
      same = make(table, 1.0)
      assert same.registers == (*table.registers, 'v') and same.nfe == table.nfe
      np.testing.assert_allclose(np.delete(same.rows.weights[:, :q], q, 2), table.rows.weights, atol=1e-12)
      assert not same.rows.weights[:, :q, q].any()


@every
def test_momentum_keeps_the_line_and_is_of_first_order(name, options):
  process = schedules.vp_linear()
  for make, within in ((heavy_ball, 0.05), (nesterov, 0.15)):
    errors = []
    for n in (160, 320):
      ts = grids.uniform_lam(process, n, to_zero=False)
      table = make(getattr(solvers, name)(process, ts, **options), 0.8)
      errors.append(distance_to_solution(table, 'vp_linear', ts[-1], 32))
    true = np.stack(noise_levels.at(process, ts)[:2], 1)
    np.testing.assert_allclose(line(table, process, ts), true, atol=1e-11)
    assert np.log2(errors[0] / errors[1]) == pytest.approx(1, abs=within)


@pytest.mark.parametrize('make, look', [(heavy_ball, 0.0), (nesterov, 1.0)])
def test_written_out_for_adams_bashforth(make, look):
  """y = x / alpha, v = (1 - b) v + b p, y += (rho_s - rho_t) v; Nesterov's moves by (1 - b) v + b p once more."""
  process, b = schedules.vp_linear(), 0.7
  ts = grids.uniform(process, 6, to_zero=False)
  alpha, sigma, _ = noise_levels.at(process, ts)
  rho, x = sigma / alpha, prior_points(process, 5)
  y, before, v = x / alpha[0], None, None
  for i in range(6):
    eps = predict(alpha[i] * y, alpha[i], sigma[i])[1]
    p = eps if before is None else (3 * eps - before) / 2
    v = p if v is None else (1 - b) * v + b * p
    y = y + (rho[i + 1] - rho[i]) * (look * ((1 - b) * v + b * p) + (1 - look) * v)
    before = eps
  got = run_table(make(solvers.ipndm(process, ts, order=2), b), process, x)
  np.testing.assert_allclose(got, alpha[-1] * y, rtol=1e-9)


def test_ghvb_of_whole_order_is_adams_bashforth():
  process = schedules.vp_linear()
  ts = grids.uniform_lam(process, 8)
  for k in (1, 2, 3, 4):
    table, plain = solvers.ghvb(process, ts, order=k), solvers.ipndm(process, ts, order=k)
    np.testing.assert_allclose(table.rows.weights[:, 0].sum(1), plain.rows.weights[:, 0].sum(1), rtol=1e-12)
    if k > 1:
      np.testing.assert_allclose(table.rows.weights, plain.rows.weights, atol=1e-12)


def test_refusals():
  process = schedules.vp_linear()
  ts = grids.uniform(process, 4)
  for beta in (0, -0.1, 1.1, float('nan')):
    with pytest.raises(ValueError, match='beta: got .*; allowed: a number above 0, up to 1'):
      heavy_ball(solvers.dpmpp_2m(process, ts), beta)
  for name in ('ddim', 'ddpm', 'heun', 'unipc', 'dpmpp_2s', 'sde_dpmpp_2m', 'rk4', 'deis_tab', 'f_pndm'):
    with pytest.raises(ValueError, match='table: got registers .*; allowed: a deterministic multistep method'):
      heavy_ball(getattr(solvers, name)(process, ts))
  for order in (0, -1, 5.5):
    with pytest.raises(ValueError, match='order: got .*; allowed: a number above 0, up to 5'):
      solvers.ghvb(process, ts, order=order)
  with pytest.raises(ValueError, match='order: got 4.5; allowed: at most the 4 steps'):
    solvers.ghvb(process, ts, order=4.5)


@pytest.mark.parametrize('k', [1, 2, 3, 4, 5])
def test_ghvb_weights(k):
  """Of Adams-Bashforth at b = 1, from int_0^1 of Lagrange's polynomials; for any b they sum to b, and on the average
  v = (1 - b) v + b f of a polynomial f of degree below k they integrate f: k conditions, which leave no other numbers.
  """
  back = -np.arange(k)
  adams = np.linalg.solve(np.vander(back, increasing=True).T, 1 / np.arange(1, k + 1))
  np.testing.assert_allclose(_ghvb_weights(k, 1.0), adams, rtol=1e-12)
  for b in (0.3, 0.5, 0.8, 1.0):
    c = _ghvb_weights(k, b)
    assert len(c) == k and c.sum() == pytest.approx(b, rel=1e-12)
    lags = np.arange(2000)
    for p in range(k):
      v = np.array([np.sum(b * (1 - b) ** lags * (at - lags) ** p) for at in 1.0 * back])
      assert c / b @ v == pytest.approx(1 / (p + 1), rel=1e-7)
