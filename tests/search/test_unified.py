"""Choices of the unified framework against the published tables, run by plain NumPy in float64."""

import numpy as np
import oracle
import pytest

from diffjax import noise_levels, solvers
from diffjax.search.unified import BASELINES, Choice, usf
from diffjax.solvers import grids

X = np.random.default_rng(0).standard_normal((16, 2))


def stages(orders, final, **options):
  """Singlestep methods: the stages of each step, the last one as `final` says."""
  return [
    Choice(*((1,) if stage == 0 else (2,)), back=stage, **(final if stage == p - 1 and p > 1 else {}), **options)
    for p in orders
    for stage in range(p)
  ]


KNOWN = {
  'ddim': ('ddim', {}, BASELINES['ddim']),
  'dpmpp_2m': ('dpmpp_2m', {}, BASELINES['dpmpp_2m']),
  'dpmpp_3m': ('exponential_adams', {'order': 3}, BASELINES['dpmpp_3m']),
  'unipc': ('unipc', {}, BASELINES['unipc']),
  'unipc3': ('unipc', {'order': 3}, BASELINES['unipc_3']),
  'unipc_b1': ('unipc', {'b1': True},
               lambda n: [Choice(min(2, n - i), corrector=True, scaling='b1') for i in range(n)]),
  'adams4': ('exponential_adams', {'order': 4, 'corrector': True, 'lower_final': False},
             lambda n: [Choice(4, corrector=True)] * n),
  'adams_noise': ('exponential_adams', {'order': 3, 'form': 'eps', 'lower_final': False}, BASELINES['adams_noise']),
  '2s': ('dpmpp_2s', {}, lambda n: stages([2] * (n // 2), {'scaling': 'b2'})),
  '2s_taylor': ('dpmpp_2s', {'taylor': True}, lambda n: stages([2] * (n // 2), {})),
  '3s': ('dpmpp_3s', {'lower_final': False}, lambda n: stages([3] * (n // 3), {})),
  'dpm2': ('dpm_solver', {}, lambda n: stages([2] * (n // 2), {'scaling': 'b2'}, form='eps')),
}  # fmt: skip


@pytest.mark.parametrize('kind', ['vp_linear', 'edm', 'flow'])
@pytest.mark.parametrize('name', KNOWN)
def test_choices_are_the_published_method(name, kind):
  """To 1e-12 of the size of the start, at 6 evaluations on a grid even in lam that ends at t_min."""
  process = oracle.PROCESSES[kind]()
  ts = grids.uniform_lam(process, 6, to_zero=False)
  if kind == 'flow':  # singlestep tables split their first step at alpha = 0
    ts[0] = 0.999
  wanted, options, choices = KNOWN[name]
  x = X * float(process.schedule(ts[0])[1])
  a = oracle.run_table(getattr(solvers, wanted)(process, ts, **options), process, x)
  b = oracle.run_table(usf(process, ts, choices(6)), process, x)
  np.testing.assert_allclose(a, b, rtol=0, atol=1e-12 * np.abs(x).max())


@pytest.mark.parametrize('kind', ['vp_linear', 'flow'])
@pytest.mark.parametrize('name', ['ddim', 'dpmpp_2m', 'unipc', 'unipc3'])
def test_ends_of_infinite_lam_are_first_order(name, kind):
  """To sigma = 0, from alpha = 0 on the flow."""
  process = oracle.PROCESSES[kind]()
  ts = grids.uniform(process, 6)
  wanted, options, choices = KNOWN[name]
  a = oracle.run_table(getattr(solvers, wanted)(process, ts, **options), process, X)
  np.testing.assert_allclose(a, oracle.run_table(usf(process, ts, choices(6)), process, X), rtol=0, atol=1e-12)


def test_any_choices_stay_on_the_line():
  """Constant (x0, eps) is carried along alpha x0 + sigma eps by 40 random tables on each process."""
  rng = np.random.default_rng(0)
  for kind in ('vp_linear', 'edm', 'flow', 'sub_vp'):
    process = oracle.PROCESSES[kind]()
    ts = grids.uniform_lam(process, 6)
    levels = np.stack(noise_levels.at(process, ts)[:2], 1)
    for _ in range(10):
      choices = [
        Choice(
          order=int(rng.integers(1, 5)),
          form=('x0', 'eps')[rng.integers(2)],
          corrector=bool(rng.integers(2)),
          scaling=('exact', 'b1', 'b2')[rng.integers(3)],
          low=bool(rng.integers(2)),
          back=int(rng.integers(3)),
        )
        for _ in range(6)
      ]
      points = oracle.line(usf(process, ts, choices), process, ts)
      np.testing.assert_allclose(points, levels, rtol=1e-8, atol=1e-9 * levels.max())


def test_low_differences_are_divided_differences():
  """On a quadratic in lam, x0 = lam^2, the second derivative is exact and only the first is off, at order three."""
  process = oracle.PROCESSES['edm']()
  ts = grids.uniform_lam(process, 3, to_zero=False)
  lam = noise_levels.at(process, ts)[2]
  h = lam[3] - lam[2]
  full, low = (usf(process, ts, [Choice(), Choice(), Choice(3, low=low)]) for low in (False, True))

  def last(table):
    state = np.zeros((len(table.registers), 1))
    for weights, value in zip(np.asarray(table.rows.weights), lam[:3] ** 2, strict=True):
      state = oracle.apply_row(weights, state, [value], [0.0])[0]
    return state[0, 0]

  phi_2 = (1 - np.exp(-h)) / h  # phi_1(-h)
  phi_2 = (1 - phi_2) / h
  # first difference (m_2 - m_1) / h = 2 lam_2 - h instead of the derivative 2 lam_2; alpha = 1
  assert last(full) - last(low) == pytest.approx(h * phi_2 * h * h, rel=1e-9)


def test_bad_choices_are_named():
  process = oracle.PROCESSES['edm']()
  ts = grids.uniform_lam(process, 3)
  with pytest.raises(ValueError, match='choices: got 2 for 3 steps'):
    usf(process, ts, [Choice()] * 2)
  with pytest.raises(ValueError, match=r'choices\[1\].order: got 5; allowed: 1, 2, 3, 4'):
    usf(process, ts, [Choice(), Choice(5), Choice()])
  with pytest.raises(ValueError, match=r"scaling: got 'b3'; allowed: exact, b1, b2"):
    usf(process, ts, [Choice(scaling='b3')] * 3)
