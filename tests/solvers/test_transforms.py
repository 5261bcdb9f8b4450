"""Tables made of tables: what each changes, what it leaves, and the degenerate cases that tie it to the base."""

import jax
import numpy as np
import pytest
from oracle import PROCESSES, gaussian_law, gm_a, line, predict, prior_points, run_table

from diffjax import noise_levels, schedules, solvers
from diffjax.solvers import churn, denoise_to_zero, dualfast, grids, pair_form, sample

X = np.random.default_rng(0).standard_normal((5, 2)).astype(np.float32)


@pytest.mark.parametrize('name', ['heun', 'ddpm'])
def test_denoising_to_zero_returns_the_prediction_at_the_end(name):
  """One evaluation more; x0 of the base's sample at the last time, noise and streams untouched."""
  process, denoise = schedules.vp_linear(), gm_a().denoiser(schedules.vp_linear())
  ts = grids.uniform_lam(process, 6, to_zero=False)
  base = getattr(solvers, name)(process, ts)
  table = denoise_to_zero(base, process, ts[-1])
  assert table.nfe == base.nfe + 1 and table.registers == base.registers
  end = sample(denoise, base, X, jax.random.key(0))
  np.testing.assert_allclose(
    sample(denoise, table, X, jax.random.key(0)), denoise(end, np.float32(ts[-1])).x0, rtol=1e-5, atol=1e-5
  )
  np.testing.assert_allclose(denoise_to_zero(base, process).rows.t[-1], 1e-3, rtol=1e-6)  # t_min, where the grid ends


def test_denoising_to_zero_refuses_other_times():
  process = schedules.vp_linear()
  table = solvers.ddim(process, [1.0, 0.5, 0.1])
  for t in (0.6, 0.7, 0.0):
    with pytest.raises(ValueError, match='t: got .*; allowed: the last time of the grid, where sigma > 0'):
      denoise_to_zero(table, process, t)


def test_churn_of_heun_is_heun_s_own():
  """Row by row, but for the registers that a churned step does not read."""
  process = schedules.edm()
  ts = grids.karras(process, 8)
  for options in ({}, {'s_min': 0.05, 's_max': 50.0, 's_noise': 1.003}):
    want = solvers.heun(process, ts, s_churn=2.0, **options)
    got = churn(solvers.heun, process, ts, s_churn=2.0, **options)
    np.testing.assert_allclose(got.rows.t, want.rows.t)
    np.testing.assert_array_equal(got.rows.evaluated, want.rows.evaluated)
    np.testing.assert_allclose(got.rows.weights[:, 0], want.rows.weights[:, 0], rtol=1e-9, atol=1e-12)
    assert (got.nfe, got.stochastic, got.skips, got.registers) == (want.nfe, True, True, want.registers)
    np.testing.assert_array_equal(got.rows.stream, np.arange(len(got.rows.t)))


@pytest.mark.parametrize('name', ['ddim', 'heun', 'dpmpp_2m', 'midpoint', 'unipc'])
def test_churn_of_nothing_is_the_table(name):
  process = schedules.vp_linear()
  ts = grids.karras(process, 6)
  base, options = getattr(solvers, name), {'order': 1} if name == 'unipc' else {}
  for amount, bounds in ((0.0, {}), (40.0, {'s_min': 1e9})):
    same = churn(base, process, ts, s_churn=amount, **bounds, **options)
    assert not same.stochastic and not same.skips
    np.testing.assert_array_equal(same.rows.weights, base(process, ts, **options).rows.weights)
  some = churn(base, process, ts, s_churn=2.0, s_min=0.1, s_max=10.0, **options)
  assert some.stochastic and some.nfe == base(process, ts, **options).nfe


@pytest.mark.parametrize('name, kind', [('ddim', 'vp_linear'), ('heun', 'flow'), ('dpmpp_2m', 'edm')])
def test_churn_keeps_the_line_and_the_law(name, kind):
  """Noise and step carry a constant pair along alpha x0 + sigma eps; a Gaussian's variance stays what it is.

  The gap in variance is that of steps which restart from the raised level, of first order or better: on halving them
  at most .6 of it is left.
  """
  process, gaps = PROCESSES[kind](), []
  for n in (100, 200):
    ts = grids.karras(process, n)
    table = churn(getattr(solvers, name), process, ts, s_churn=20.0, s_min=0.01)
    gain, noise = gaussian_law(table, process, 0.25)
    sigma = float(process.schedule(process.t_max)[1])
    alpha = float(process.schedule(process.t_max)[0])
    gaps.append(abs(gain**2 * (alpha**2 * 0.25 + sigma**2) + noise - 0.25) / 0.25)
  assert gaps[0] < 0.2 and gaps[1] < 0.6 * gaps[0], gaps
  ts = grids.karras(process, 5)
  table = churn(solvers.ddim, process, ts, s_churn=2.0)
  true = np.stack(noise_levels.at(process, np.append(table.rows.t, ts[-1]))[:2], 1)
  np.testing.assert_allclose(line(table, process, ts) / true.max(), true / true.max(), atol=1e-7)


def test_methods_that_look_back_start_over_after_churn():
  process = schedules.vp_linear()
  table = churn(
    solvers.dpmpp_2m, process, grids.uniform_lam(process, 8, to_zero=False), s_churn=2.0, s_min=0.2, s_max=2.0
  )
  idle = np.flatnonzero(~table.rows.evaluated)
  weights = table.rows.weights
  assert len(idle) > 1 and not weights[idle, 1].any() and not weights[idle + 1, 0, 1].any()
  assert weights[1, 0, 1] and not table.rows.evaluated.all()  # not churned at the start: the second row looks back
  with pytest.raises(ValueError, match='s_churn: got -1; allowed'):
    churn(solvers.ddim, process, [1.0, 0.5], s_churn=-1)


BASES = ['ddim', 'dpmpp_2m', 'unipc', 'heun', 'deis_tab']


@pytest.mark.parametrize('name', BASES)
def test_dualfast_of_nothing_is_the_table(name):
  """No amount: weights bit for bit. Any: no evaluation more, and constant predictions keep the line."""
  process = schedules.vp_linear()
  ts = grids.uniform(process, 6)
  base = getattr(solvers, name)(process, ts)
  q = len(base.registers)
  for tau in ('first', 'previous'):
    same = dualfast(base, process, 0.0, tau=tau)
    np.testing.assert_array_equal(np.delete(same.rows.weights[:, :q], q, 2), base.rows.weights)
    assert not same.rows.weights[:, :q, q].any() and same.registers == (*base.registers, 'pinned')
    for decay in ('linear', 'constant'):
      table = dualfast(base, process, 0.3, decay, tau)
      assert table.nfe == base.nfe
      np.testing.assert_allclose(line(table, process, ts), line(base, process, ts), atol=1e-10)


@pytest.mark.parametrize('tau', ['first', 'previous'])
@pytest.mark.parametrize('decay', ['linear', 'constant'])
@pytest.mark.parametrize('name', ['ddim', 'dpmpp_2m'])
def test_dualfast_written_out(name, decay, tau):
  """The base run on eps' = (1 + c) eps - c eps_tau and x0' = (x - sigma eps') / alpha."""
  process, n, amount = schedules.vp_linear(), 5, 0.3
  ts = grids.uniform(process, n, to_zero=False)
  base, x = getattr(solvers, name)(process, ts), prior_points(process, 6)
  seen = []

  def leaning(x, alpha, sigma):
    eps = predict(x, alpha, sigma)[1]
    seen.append(eps)
    i = len(seen) - 1
    c = amount * (1 - i / (n - 1) if decay == 'linear' else 1)
    eps = (1 + c) * eps - c * (seen[0] if tau == 'first' else seen[max(i - 1, 0)])
    return (x - sigma * eps) / alpha, eps

  want = run_table(base, process, x, leaning)
  np.testing.assert_allclose(
    run_table(dualfast(base, process, amount, decay, tau), process, x), want, rtol=1e-9, atol=1e-9
  )


def test_dualfast_calibrated_on_a_wrong_network():
  """eps + .1 tanh(W x) (1 - t) on GM-A: the best of a signed grid of c is at most 1.02 of c = 0 on other starts."""
  process = schedules.vp_linear()
  matrix = np.random.default_rng(1).standard_normal((2, 2))
  x = prior_points(process, 1024)
  for n in (5, 10):
    ts = grids.uniform(process, n, to_zero=False)
    t_of = {float(a): t for a, t in zip(noise_levels.at(process, ts)[0], ts, strict=True)}

    def wrong(x, alpha, sigma, t_of=t_of):
      eps = predict(x, alpha, sigma)[1] + 0.1 * np.tanh(x @ matrix) * (1 - t_of[float(alpha)])
      return (x - sigma * eps) / alpha, eps

    fine = grids.uniform_lam(process, 200, to_zero=False)
    true = run_table(solvers.heun(process, fine), process, x)
    base = solvers.ddim(process, ts)

    def error(c, part, base=base, wrong=wrong, true=true):
      gap = run_table(dualfast(base, process, c), process, x[part], wrong) - true[part]
      return np.sqrt(np.mean(np.sum(gap**2, -1)))

    tuning, held = slice(0, 512), slice(512, None)
    best = min(np.linspace(-0.5, 0.5, 11), key=lambda c: error(c, tuning))
    assert error(best, tuning) <= error(0.0, tuning) and error(best, held) <= 1.02 * error(0.0, held)


def test_dualfast_refusals():
  process = schedules.vp_linear()
  base = solvers.ddim(process, [1.0, 0.5])
  with pytest.raises(ValueError, match="decay: got 'cosine'; allowed: linear, constant"):
    dualfast(base, process, 0.1, decay='cosine')
  with pytest.raises(ValueError, match="tau: got 'last'; allowed: first, previous"):
    dualfast(base, process, 0.1, tau='last')
  flow = schedules.flow()  # alpha = 0 at the first evaluation, where eps is eps_tau
  assert np.isfinite(dualfast(solvers.ddim(flow, grids.uniform(flow, 4)), flow, 0.1).rows.weights).all()


@pytest.mark.parametrize('name', [*BASES, 'euler', 'exponential_adams'])
def test_the_pair_form_is_the_same_on_consistent_predictions(name):
  for kind in ('vp_linear', 'edm'):
    process = PROCESSES[kind]()
    base = getattr(solvers, name)(process, grids.karras(process, 6))
    table = pair_form(base, process)
    assert not table.rows.weights[:, :, 0].any() and table.nfe == base.nfe
    x = prior_points(process, 16)
    np.testing.assert_allclose(run_table(table, process, x), run_table(base, process, x), rtol=1e-9, atol=1e-9)


def test_first_order_steps_in_the_pair_form_are_ddim():
  process = schedules.cosine()
  ts = grids.karras(process, 6)
  want = solvers.ddim(process, ts).rows.weights
  np.testing.assert_array_equal(pair_form(solvers.ddim(process, ts), process).rows.weights, want)
  for form in ('x0', 'eps'):
    table = pair_form(solvers.exponential_adams(process, ts, order=1, form=form), process)
    np.testing.assert_allclose(table.rows.weights, want, atol=1e-12)


def test_rows_that_are_not_evaluated_keep_x():
  process = schedules.edm()
  table = churn(solvers.ddim, process, grids.karras(process, 5), s_churn=2.0)
  idle = ~table.rows.evaluated
  np.testing.assert_array_equal(pair_form(table, process).rows.weights[idle], table.rows.weights[idle])


def test_splicing_grids():
  ts = np.array([1.0, 0.8, 0.6, 0.4, 0.2, 0.0])
  np.testing.assert_array_equal(grids.spliced(ts, [0.8, 0.7, 0.65, 0.4]), [1.0, 0.8, 0.7, 0.65, 0.4, 0.2, 0.0])
  np.testing.assert_array_equal(grids.spliced(ts, [0.7, 0.5]), [1.0, 0.8, 0.7, 0.5, 0.4, 0.2, 0.0])
  np.testing.assert_array_equal(grids.spliced(ts, ts[1:4]), ts)
  np.testing.assert_array_equal(grids.spliced(ts, [1.0, 0.5, 0.0]), [1.0, 0.5, 0.0])
  for part, message in (
    ([0.8], 'part: got .*at least two'),
    ([0.4, 0.6], 'part: got .*strictly decreasing'),
    ([1.1, 0.5], 'part: got 1.1 to 0.5; allowed: within 1 to 0'),
  ):
    with pytest.raises(ValueError, match=message):
      grids.spliced(ts, part)


def test_recurrent_goes_back_by_noise_and_steps_again():
  """Each step twice, written out by one-step maps; once it is the solver's steps one by one."""
  process, ts = schedules.vp_linear(), [1.0, 0.6, 0.2, 0.0]
  denoise = gm_a().denoiser(process)
  table = solvers.recurrent(solvers.ddim, process, ts)
  assert table.nfe == 6 and table.stochastic and len(table.rows.t) == 9
  own = solvers.noise.fixed(np.random.default_rng(1).standard_normal((9, 5, 2)).astype(np.float32))
  x = want = np.float32(X)
  for i, (t, s) in enumerate(zip(ts[:-1], ts[1:], strict=True)):
    for again in (True, False):
      want = solvers.transfer(process, want, denoise(want, np.float32(t)).x0, t, s)
      if again:
        want = solvers.renoise(process, want, s, t, own.z[3 * i + 1])
  np.testing.assert_allclose(sample(denoise, table, x, jax.random.key(0), noise_source=own), want, rtol=2e-4, atol=2e-4)
  once = solvers.recurrent(solvers.ddim, process, ts, repeats=1)
  np.testing.assert_array_equal(once.rows.weights, solvers.ddim(process, ts).rows.weights)
  with pytest.raises(ValueError, match='repeats: got 0; allowed'):
    solvers.recurrent(solvers.ddim, process, ts, repeats=0)
