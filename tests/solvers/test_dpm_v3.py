"""DPM-Solver-v3: what it is at two settings of its terms, what it solves exactly, its orders, and its figures."""

from math import factorial

import jax
import numpy as np
import pytest
from oracle import PROCESSES, distance_to_solution, gm_a, line, prior_points, run_table

from diffjax import keys, noise_levels, schedules, solvers, statistics
from diffjax.fingerprint import stamp
from diffjax.solvers import grids
from diffjax.solvers.tables.dpm_v3 import _derivatives

VP = schedules.vp_linear()


def between(process, low, high, n):
  """n + 1 times evenly in lam."""
  return noise_levels.times_of(process, np.linspace(low, high, n + 1))


@pytest.mark.parametrize('kind', ['vp_linear', 'edm', 'flow', 'sub_vp'])
def test_with_fixed_terms_it_is_the_exponential_method(kind):
  """l = 1, s = b = 0 in data form, l = 0, s = -1, b = 0 in noise form, at every order: the published identities."""
  process = PROCESSES[kind]()
  for ts in (between(process, -3.0, 5.0, 7), grids.uniform(process, 7)):
    for data in (True, False):
      if not data and not np.isfinite(noise_levels.at(process, ts[:1])[2]).all():
        continue  # the noise form does not start from alpha = 0
      for order in (1, 2, 3, 4):
        for lower in (True, False):
          known = statistics.linear_form(process, data)
          one = solvers.dpm_v3(process, ts, known, order, corrector=False, lower_final=lower)
          two = solvers.exponential_adams(process, ts, order, form='x0' if data else 'eps', lower_final=lower)
          x = prior_points(process, 20)
          np.testing.assert_allclose(run_table(one, process, x), run_table(two, process, x), rtol=1e-9, atol=1e-9)


def drawn_terms(process, n, shape=(2,), seed=0):
  """Terms that no data have, at knots that are not even."""
  r = np.random.default_rng(seed)
  lam = np.sort(np.concatenate([[-5.5, 5.5], r.uniform(-5, 5, n - 2)]))
  l, s, b = r.uniform(0, 1, (n, *shape)), r.uniform(-1, 1, (n, *shape)), r.uniform(-1, 1, (n, *shape))  # noqa: E741
  return statistics.ModelStatistics(stamp(process), lam, l, s, b)


def at(known, name, lam):
  return np.stack([np.interp(lam, known.lam, column) for column in getattr(known, name).T], -1)


@pytest.mark.parametrize('options', [{}, {'order': 1}, {'order': 2, 'pseudo': True}, {'corrector': False}])
def test_where_f_moves_as_the_terms_say_every_step_is_exact(options):
  """The row condition: y' = -(l y + f), f' = s f + b is followed to rounding for any l, s, b, any order, any grid.

  The truth is that system integrated between the knots by the classical Runge-Kutta method, element by element.
  """
  known = drawn_terms(VP, 9)
  ts = between(VP, -3.5, 4.5, 6) * np.array([1, 1.1, 0.9, 1.05, 1, 0.9, 1])
  alpha, sigma, lam = noise_levels.at(VP, ts)
  edges = np.unique(np.concatenate([lam, known.lam[(known.lam > lam[0]) & (known.lam < lam[-1])]]))
  y, f = np.array([[0.3, -1.0]]) / alpha[0], np.array([[-0.4, 0.7]])
  values = {lam[0]: f}

  def rate(r, y, f):
    return -(at(known, 'l', r) * y + f), at(known, 's', r) * f + at(known, 'b', r)

  for low, high in zip(edges[:-1], edges[1:], strict=True):
    h = (high - low) / 100
    for k in range(100):
      r, state = low + k * h, np.stack([y, f])
      k1 = np.stack(rate(r, *state))
      k2 = np.stack(rate(r + h / 2, *(state + h / 2 * k1)))
      k3 = np.stack(rate(r + h / 2, *(state + h / 2 * k2)))
      k4 = np.stack(rate(r + h, *(state + h * k3)))
      y, f = state + h / 6 * (k1 + 2 * k2 + 2 * k3 + k4)
    values[high] = f

  def predict(x, alpha, sigma):
    here = min(values, key=lambda r: abs(r - np.log(alpha / sigma)))
    eps = (alpha * values[here] + at(known, 'l', here) * x) / sigma
    return (x - sigma * eps) / alpha, eps

  table = solvers.dpm_v3(VP, ts, known, lower_final=False, **options)
  end = run_table(table, VP, np.array([[0.3, -1.0]]), predict)
  np.testing.assert_allclose(end, alpha[-1] * y, rtol=1e-8, atol=1e-8)


def test_which_terms_keep_the_line():
  """Constant (x0, eps) have f' = s f + b for all of them only if l' = -l (1 - l) and s = l - 1, b = 0.

  Its members with constant l, 0 and 1, keep it to rounding; l = 1 / (1 + k e^lam) as the knots resolve it, to second
  order; other terms not at all.
  """
  ts, gaps = between(VP, -3.5, 4.5, 6), []
  for data in (True, False):
    table = solvers.dpm_v3(VP, ts, statistics.linear_form(VP, data))
    np.testing.assert_allclose(line(table, VP, ts), np.stack(noise_levels.at(VP, ts)[:2], 1), atol=1e-12)
  for n in (51, 101, 0):
    lam = np.linspace(-4.5, 5.5, n or 101)
    l = 1 / (1 + 0.7 * np.exp(lam))  # noqa: E741
    known = statistics.ModelStatistics(stamp(VP), lam, l, (l - 1) if n else 0 * l, 0 * l)
    gaps.append(np.abs(line(solvers.dpm_v3(VP, ts, known), VP, ts) - np.stack(noise_levels.at(VP, ts)[:2], 1)).max())
  assert gaps[1] < 1e-3 and gaps[0] / gaps[1] == pytest.approx(4, rel=0.3) and gaps[2] > 10 * gaps[1]


@pytest.mark.quick('options1-2')
@pytest.mark.parametrize('options, order', [({'order': 1}, 1), ({'order': 2}, 2), ({'order': 3}, 3),
                                            ({'order': 3, 'corrector': False}, 3)])  # fmt: skip
def test_orders_for_any_terms(options, order):
  """On a mixture whose statistics these are not, linear over the whole range: the error changes, not its order.

  Two short steps at the start, h^2 long, for the first is of order one and here its error is not small.
  """
  known, errors = drawn_terms(VP, 2), []
  low, high = noise_levels.at(VP, [0.9999, 1e-3])[2]
  for n in (160, 320):
    lam = np.linspace(low, high, n + 1)
    lam = np.insert(lam, 1, low + np.array([1, 2]) * (lam[1] - low) ** 2)
    ts = noise_levels.times_of(VP, lam)
    table = solvers.dpm_v3(VP, ts, known, lower_final=False, **options)
    errors.append(distance_to_solution(table, 'vp_linear', ts[-1], 32))
  assert np.log2(errors[0] / errors[1]) == pytest.approx(order, abs=0.3), errors


# Lowest error first, as an independent NumPy implementation found them on the same mixtures.
RANKINGS = {5: (), 10: ('v3 unipc 2m ddim', 'v3 ipndm 2m'), 20: ('v3 unipc 3m 2m ddim', 'v3 unipc 3m ipndm 2m')}


@pytest.mark.slow
def test_published_errors_and_ranking():
  """GM-A, 241 knots, 4096 examples, in float32, on the grid even in lam: 5, 10 and 20 evaluations."""
  denoise = gm_a().denoiser(VP)
  x0 = denoise.target.sample(keys.per_sample(jax.random.key(1), 4096))
  known = statistics.linear_terms(denoise, x0, jax.random.key(2), knots=241, batch=4096)
  assert (known.l[0] > 0.999).all() and (known.l[-1] < 0.002).all()
  found = {}
  for n, bound in ((5, 0.13), (10, 0.038), (20, 0.0062)):
    ts = grids.uniform_lam(VP, n, to_zero=False)
    for name, table in (
      ('v3', solvers.dpm_v3(VP, ts, known)),
      ('first', solvers.dpm_v3(VP, ts, known, order=1)),
      ('pseudo', solvers.dpm_v3(VP, ts, known, pseudo=True, lower_final=False)),
      ('unipc', solvers.unipc(VP, ts, order=3)),
      ('ddim', solvers.ddim(VP, ts)),
      ('ipndm', solvers.ipndm(VP, ts)),
      ('2m', solvers.dpmpp_2m(VP, ts)),
      ('3m', solvers.dpmpp_3m_compat(VP, ts)),
    ):
      found[name] = distance_to_solution(table, 'vp_linear', ts[-1])
    assert found['v3'] < bound and found['v3'] < found['unipc'] and found['pseudo'] < found['unipc'], (n, found)
    assert found['first'] < found['ddim']
    for ranking in RANKINGS[n]:
      errors = [found[name] for name in ranking.split()]
      assert errors == sorted(errors), (n, found)
    if n == 10:
      assert found['first'] == pytest.approx(0.149, rel=0.25)
  table = solvers.dpm_v3(VP, ts, known)
  x = prior_points(VP, 64).astype(np.float32)
  np.testing.assert_allclose(solvers.sample(denoise, table, x), run_table(table, VP, x), atol=3e-4)


def test_tables_are_finite_on_every_process_and_shaped_like_an_example():
  for make in PROCESSES.values():
    process = make()
    known = drawn_terms(process, 5, (2, 3, 1))
    for grid in (grids.uniform, grids.karras):
      for n in (3, 8):
        table = solvers.dpm_v3(process, grid(process, n), known)
        assert np.isfinite(table.rows.weights).all() and table.rows.weights.shape[3:] == (2, 3, 1)
        assert table.nfe == n


def test_refusals():
  ts, known = grids.uniform(VP, 4), statistics.linear_form(VP)
  for wrong in (None, statistics.isotropic(VP)):
    with pytest.raises(ValueError, match='statistics: got .*; allowed: ModelStatistics, made by diffjax statistics'):
      solvers.dpm_v3(VP, ts, wrong)
  with pytest.raises(ValueError, match='statistics: made for another process'):
    solvers.dpm_v3(VP, ts, statistics.linear_form(schedules.vp_linear(0.2, 20.0)))
  for order in (0, 5, 2.5):
    with pytest.raises(ValueError, match='order: got .*; allowed: a whole number from 1 to the 4 steps'):
      solvers.dpm_v3(VP, ts, known, order=order)


@pytest.mark.parametrize('pseudo', [False, True])
def test_derivatives_at_the_node(pseudo):
  """Of u^p the p-th is p! at any nodes, of a lower power 0; the polynomial's own are so for every pair of powers."""
  for offsets in ([0.0], [0.0, -0.7], [0.0, -0.3, -1.1], [0.0, 0.4, -0.2, -0.9], [0.0, -1.0, -2.5, -3.0, -4.5]):
    u = np.array(offsets)
    k = len(u)
    found = _derivatives(u, pseudo) @ np.vander(u, increasing=True)  # [p, q]: the p-th of u^q
    want = np.diag([float(factorial(p)) for p in range(k)])
    known = np.tril(np.ones((k, k))) > 0 if pseudo else np.ones((k, k), bool)
    np.testing.assert_allclose(found[known], want[known], atol=1e-9)
