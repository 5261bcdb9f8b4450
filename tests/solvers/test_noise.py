"""Stochastic solvers: their exact variance on a Gaussian, their law on a mixture, and independence of the batch."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from oracle import PROCESSES, build, gaussian_law, legal_grid, m1

from diffjax import keys, noise_levels, schedules, solvers
from diffjax.exact import gaussian
from diffjax.solvers import grids, pad, sample

C2 = 0.25


def test_published_variances_of_the_large_ddpm():
  """ISO: 1.886, 1.387 and 1.070 times the data's variance after 5, 10 and 50 uniform steps."""
  process = schedules.vp_linear()
  for n, published in ((5, 1.886), (10, 1.387), (50, 1.070)):
    gain, noise = gaussian_law(solvers.ddpm_large(process, grids.uniform(process, n, to_zero=False)), process, C2)
    assert (gain**2 + noise) / C2 == pytest.approx(published, abs=2e-3)


def test_the_large_variance_is_that_of_the_forward_step():
  process = schedules.cosine()
  ts = grids.uniform(process, 6)
  alpha, sigma, _ = noise_levels.at(process, ts)
  small, large = (make(process, ts).rows.weights[:, 0] for make in (solvers.ddpm, solvers.ddpm_large))
  np.testing.assert_allclose(small[:, :-1], large[:, :-1], atol=1e-12)  # the same mean
  beta = sigma[:-1] ** 2 - (alpha[:-1] / alpha[1:] * sigma[1:]) ** 2
  np.testing.assert_allclose(large[:-1, -1] ** 2, beta[:-1], rtol=1e-10)
  np.testing.assert_allclose(small[:, -1] ** 2, beta * (sigma[1:] / sigma[:-1]) ** 2, atol=1e-12)
  assert large[-1, -1] == 0


def test_the_sde_solver_of_order_two_is_ddpm_at_its_ends():
  process = schedules.flow()
  ts = grids.uniform(process, 5)
  for exact in (False, True):
    table = solvers.sde_dpmpp_2m(process, ts, exact=exact)
    rows, want = (t.rows.weights[:, 0].copy() for t in (table, solvers.ddpm(process, ts)))
    alpha, sigma, _ = noise_levels.at(process, ts[:-1])
    share = want[1:, -3] / sigma[1:]  # eps = (x - alpha x0) / sigma; the first row starts where x is eps
    want[1:, 0], want[1:, -4], want[1:, -3] = share, want[1:, -4] - share * alpha[1:], 0
    rows[0, -3] += rows[0, 0]
    rows[0, 0] = 0
    np.testing.assert_allclose(np.delete(rows, 1, 1)[[0, 1, -1]], want[[0, 1, -1]], atol=1e-12)
    assert np.abs(rows[2, 1]) > 1e-3  # the previous prediction


def test_churn_keeps_the_law():
  """EDM's noise before a step: none by default, no evaluation more, the variance of the data at its end."""
  process = schedules.edm()
  ts = grids.karras(process, 64)
  plain, churned = solvers.heun(process, ts), solvers.heun(process, ts, s_churn=20.0, s_min=0.05, s_max=50.0)
  assert not plain.stochastic and churned.stochastic and churned.skips and churned.nfe == plain.nfe == 127
  idle = ~churned.rows.evaluated
  rho = churned.rows.t[idle]
  np.testing.assert_array_equal(rho, ts[:-1][(ts[:-1] >= 0.05) & (ts[:-1] <= 50)])
  up = churned.rows.t[np.flatnonzero(idle) + 1]
  np.testing.assert_allclose(up / rho, 1 + 20 / 64, rtol=1e-9)
  np.testing.assert_allclose(churned.rows.of_z[idle, 0] ** 2, up**2 - rho**2, rtol=1e-9)
  gaps = []
  for n in (128, 256):
    gain, noise = gaussian_law(solvers.heun(process, grids.karras(process, n), s_churn=20.0), process, C2)
    gaps.append(gain**2 * (C2 + 80**2) + noise - C2)
    assert gain**2 * 80**2 < 1e-3 * noise  # next to nothing is left of the start
  assert abs(gaps[1]) < 0.01 * C2 and gaps[0] / gaps[1] > 3, gaps
  louder = solvers.heun(process, ts, s_churn=1e9, s_noise=1.003)
  up = louder.rows.t[np.flatnonzero(~louder.rows.evaluated) + 1]
  np.testing.assert_allclose(up[4:] / louder.rows.t[~louder.rows.evaluated][4:], np.sqrt(2), rtol=1e-6)
  assert up.max() <= 80
  with pytest.raises(ValueError, match='churn: got -1'):
    solvers.heun(process, ts, s_churn=-1)


def recursion(ts, eta):
  """The variance after DDIM(eta) from N(0, 1) for data N(0, C2), VP linear, written out from the papers' formulas."""
  alpha = np.exp(-(ts**2) * 19.9 / 4 - ts * 0.1 / 2)
  sigma = np.sqrt(1 - alpha**2)
  var = 1.0
  for a, s, b, r in zip(alpha, sigma, alpha[1:], sigma[1:], strict=False):
    beta = s**2 - (a / b) ** 2 * r**2
    std2 = eta**2 * r**2 * beta / s**2
    total = a**2 * C2 + s**2
    var = (b * a * C2 / total + np.sqrt(r**2 - std2) * s / total) ** 2 * var + std2
  return var


def test_published_variances_of_five_uniform_steps():
  """ISO: the variance reached over the data's, DDIM .291 and DDPM (small) .246."""
  process = schedules.vp_linear()
  ts = grids.uniform(process, 5, to_zero=False)
  for table, eta, published in (
    (solvers.ddim(process, ts), 0, 0.291),
    (solvers.ddpm(process, ts), 1, 0.246),
    (solvers.ddim(process, ts, eta=0.5), 0.5, None),
  ):
    gain, noise = gaussian_law(table, process, C2)
    assert gain**2 + noise == pytest.approx(recursion(ts, eta), rel=1e-6)
    assert published is None or (gain**2 + noise) / C2 == pytest.approx(published, abs=1e-3)


@pytest.mark.parametrize('kind', ['vp_linear', 'edm', 'flow'])
@pytest.mark.parametrize('name', ['ddpm', 'euler_maruyama'])
def test_measured_moments_are_those_of_the_recursion(name, kind):
  """Within 4 standard errors, from the prior."""
  process, n = PROCESSES[kind](), 20000
  ts = legal_grid(name, process, 12, 'quadratic')
  table = build(name, process, ts)
  x = process.prior(keys.per_sample(jax.random.key(1), n), jnp.zeros((n, 1)))
  got = np.asarray(sample(gaussian([0.0], C2).denoiser(process), table, x, jax.random.key(11)), np.float64)
  gain, noise = gaussian_law(table, process, C2)
  var = gain**2 * float(process.schedule(process.t_max)[1]) ** 2 + noise
  assert abs(got.mean()) <= 4 * np.sqrt(var / n)
  assert abs(got.var() / var - 1) <= 4 * np.sqrt(2 / n)


@pytest.mark.parametrize('kind', ['vp_linear', pytest.param('cosine', marks=pytest.mark.slow), 'flow'])
@pytest.mark.parametrize(
  'name, order', [('ddpm', 1), ('ddpm_large', 1), ('euler_maruyama', 1), ('sde_dpm', 1), ('sde_dpmpp_2m', 2)]
)
def test_marginals_become_exact_at_their_order(name, order, kind):
  """The recursion's error in variance, from the exact law at the start to the last noise, on halving the step."""
  process = PROCESSES[kind]()
  gaps = []
  for n in (800, 1600):
    ts = np.linspace(0.95 * float(process.t_max), 0.02, n + 1)
    table = build(name, process, ts)
    table = table.replace(rows=jax.tree.map(lambda leaf: leaf[:-1], table.rows))  # the last step has none
    gain, noise = gaussian_law(table, process, C2)
    alpha, sigma, _ = noise_levels.at(process, ts[[0, -2]])
    start, end = alpha**2 * C2 + sigma**2
    gaps.append(gain**2 * start + noise - end)
  assert abs(gaps[1]) < 0.005 and gaps[0] / gaps[1] == pytest.approx(2**order, rel=0.15)


@pytest.mark.parametrize('kind', ['vp_linear', pytest.param('cosine', marks=pytest.mark.slow), 'flow'])
@pytest.mark.parametrize('form', ['x0', 'eps'])
def test_exponential_adams_of_the_sde_is_of_weak_order_two_at_most(form, kind):
  """Order p in the drift, but past predictions do not know the noise between two nodes: h^2 is left of the variance."""
  process, gaps = PROCESSES[kind](), {}
  for order in (1, 2, 3):
    for n in (800, 1600):
      ts = np.linspace(0.95 * float(process.t_max), 0.02, n + 1)
      table = solvers.sde_adams(process, ts, order=order, form=form)
      table = table.replace(rows=jax.tree.map(lambda leaf: leaf[:-1], table.rows))
      gain, var = gaussian_law(table, process, C2)
      alpha, sigma, _ = noise_levels.at(process, ts[[0, -2]])
      start, end = alpha**2 * C2 + sigma**2
      gaps[order, n] = gain**2 * start + var - end
  assert gaps[1, 800] / gaps[1, 1600] == pytest.approx(2, rel=0.1)
  assert 3 < gaps[2, 800] / gaps[2, 1600] < 5 and 3 < gaps[3, 800] / gaps[3, 1600] < 5.5
  assert abs(gaps[3, 1600]) < abs(gaps[2, 1600]) < 0.05 * abs(gaps[1, 1600])


@pytest.mark.parametrize('kind', ['vp_linear', 'edm', 'flow'])
def test_exponential_adams_of_the_sde_contains_the_others(kind):
  """Coefficient by coefficient: order one is DDPM and SDE-DPM, order two SDE-2M with exact weights."""
  process = PROCESSES[kind]()
  ts = grids.uniform_lam(process, 7)
  two = solvers.sde_adams(process, ts, order=2).rows.weights
  np.testing.assert_allclose(two, solvers.sde_dpmpp_2m(process, ts, exact=True).rows.weights, rtol=1e-12, atol=1e-15)
  one, want = (
    table.rows.weights[:, 0].copy() for table in (solvers.sde_adams(process, ts, order=1), solvers.ddpm(process, ts))
  )
  alpha, sigma, _ = noise_levels.at(process, ts[:-1])
  want[:, 0] += want[:, 2] / sigma  # eps = (x - alpha x0) / sigma
  want[:, 1] -= want[:, 2] * alpha / sigma
  want[:, 2] = 0
  np.testing.assert_allclose(one, want, rtol=1e-9, atol=1e-12)
  ts = np.where(noise_levels.at(process, ts)[0] == 0, 0.999, ts)
  first = solvers.sde_adams(process, ts, order=1, form='eps').rows.weights
  np.testing.assert_allclose(first, solvers.sde_dpm(process, ts).rows.weights, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize('form', ['x0', 'eps'])
def test_weights_of_the_sde_integrate_the_polynomial(form):
  """2 h int e^{-2 (1 - u) h} u^p du (data) and 2 h int e^{(1 - u) h} u^p du (noise), by quadrature."""
  process, lam = schedules.vp_linear(), np.array([0.1, 0.4, 0.5, 1.3])  # alpha > sigma: in the noise form as well
  ts = noise_levels.times_of(process, lam)
  alpha, sigma, _ = noise_levels.at(process, ts)
  at, w = np.polynomial.legendre.leggauss(40)
  at, w, h = (at + 1) / 2, w / 2, lam[3] - lam[2]
  weights = solvers.sde_adams(process, ts, order=3, form=form, lower_final=False).rows.weights[2, 0]
  scale = -sigma[3] if form == 'eps' else alpha[3]
  past = weights[[4 if form == 'eps' else 3, 1, 2]] / scale
  for p in range(3):
    power = np.sum(past * ((lam[2::-1] - lam[2]) / h) ** p)
    kernel = np.exp((1 - at) * h) if form == 'eps' else np.exp(-2 * (1 - at) * h)
    assert power == pytest.approx(2 * h * np.sum(w * kernel * at**p), rel=1e-9)
  std = np.sqrt(np.expm1(2 * h) if form == 'eps' else -np.expm1(-2 * h)) * sigma[3]
  assert weights[-1] == pytest.approx(std, rel=1e-12)


def wasserstein(name, process, ts, n, seed=3, **options):
  """W1 between n samples and M1's quantiles."""
  line = np.linspace(-1.2, 1.2, 24001)
  density = sum(w * np.exp(-((line - m) ** 2) / 2 / s**2) / s for w, m, s in ((0.4, -0.4, 0.12), (0.6, 0.3, 0.05)))
  quantiles = np.interp((np.arange(n) + 0.5) / n, np.cumsum(density) / density.sum(), line)
  x = process.prior(keys.per_sample(jax.random.key(seed), n), jnp.zeros((n, 1)))
  got = sample(m1().denoiser(process), build(name, process, ts, **options), x, jax.random.key(seed + 10))
  return np.abs(np.sort(np.asarray(got)[:, 0]) - quantiles).mean()


@pytest.mark.slow
def test_published_distances_of_the_sde_solver_of_order_two():
  """M1, uniform in lam: at most .011 after 20 steps and .003 after 50; DDPM is within 5% of .0245 after 20."""
  process, n = schedules.vp_linear(), 100000  # the sampling error is .001
  for steps, bound in ((20, 0.011), (50, 0.003)):
    assert wasserstein('sde_dpmpp_2m', process, grids.uniform_lam(process, steps, to_zero=False), n) <= bound
  assert wasserstein('ddpm', process, grids.uniform_lam(process, 20), n) == pytest.approx(
    0.0245, abs=0.05 * 0.0245 + 0.001
  )


@pytest.mark.slow
def test_churn_keeps_the_bimodal_target():
  """EDM Heun of 256 steps, with and without churn: at most .004 from M1."""
  process = schedules.edm()
  ts = grids.karras(process, 256)
  for options in ({}, {'s_churn': 40.0, 's_min': 0.05, 's_max': 50.0, 's_noise': 1.003}):
    assert wasserstein('heun', process, ts, 100000, **options) <= 0.004


@pytest.mark.slow
def test_euler_maruyama_on_the_bimodal_target():
  """Wasserstein-1 to M1's quantiles, VP linear down to t = .001: at most .016 at 100 steps, .008 at 200."""
  process, n = schedules.vp_linear(), 20000
  line = np.linspace(-1.2, 1.2, 24001)
  density = np.exp(np.asarray(m1().log_density(jnp.asarray(line[:, None], jnp.float32))), dtype=np.float64)
  cdf = np.cumsum(density) / density.sum()
  quantiles = np.interp((np.arange(n) + 0.5) / n, cdf, line)
  x = process.prior(keys.per_sample(jax.random.key(1), n), jnp.zeros((n, 1)))
  for steps, bound in ((100, 0.016), (200, 0.008)):
    table = pad(solvers.euler_maruyama(process, grids.uniform(process, steps, to_zero=False)), 200, 1)
    got = np.sort(np.asarray(sample(m1().denoiser(process), table, x, jax.random.key(3)))[:, 0])
    assert np.abs(got - quantiles).mean() <= bound


def test_sample_k_does_not_depend_on_its_company(optimised):
  """Bit for bit: in a batch of 4, of 8, under vmap, under pmap, padded, and drawn with its own key."""
  process = schedules.vp_linear()
  denoise, table = m1().denoiser(process), solvers.ddpm(process, grids.uniform(process, 6))
  key = jax.random.key(7)
  x = process.prior(keys.per_sample(key, 8), jnp.zeros((8, 1)))
  batch = keys.per_sample(jax.random.key(8), 8)

  def run(x, k):
    return sample(denoise, table, x, k)

  full = run(x, jax.random.key(8))
  assert len(np.unique(full)) == 8
  np.testing.assert_array_equal(run(x[:4], jax.random.key(8)), full[:4])
  np.testing.assert_array_equal(run(x[4:], batch[4:]), full[4:])
  np.testing.assert_array_equal(jax.vmap(run)(x.reshape(2, 4, 1), batch.reshape(2, 4)).reshape(8, 1), full)
  np.testing.assert_array_equal(jax.pmap(run)(x[None], batch[None])[0], full)
  np.testing.assert_array_equal(sample(denoise, pad(table, 9, 3), x, batch), full)
  assert not np.array_equal(run(x, jax.random.key(9)), full)


def test_each_row_draws_fresh_noise():
  """Two pure-noise rows into two registers are independent, standard normal and unlike the other samples' draws."""
  table = solvers.TableBuilder('x', 'first')
  table.row(1.0, first=table.z)
  table.row(0.5, x=table.first + 10 * table.z)
  process = schedules.flow()
  got = np.asarray(sample(m1().denoiser(process), table.done(), jnp.zeros((20000, 1)), jax.random.key(0)))[:, 0]
  assert got.var() == pytest.approx(101, rel=4 * np.sqrt(2 / 20000))  # 121 if both rows shared their noise


@pytest.mark.parametrize('kind', PROCESSES)
def test_the_large_ddpm_is_one_sampler_for_all_processes(kind):
  """At the same noise levels x / sqrt(alpha^2 + sigma^2) has the same law on every process: that of `vp_linear`."""
  rows = []
  for process in (PROCESSES[kind](), schedules.vp_linear()):
    ts = noise_levels.times_of(process, np.linspace(-2, 2, 7))
    alpha, sigma, _ = noise_levels.at(process, ts)
    rows.append(solvers.ddpm_large(process, ts).rows.weights[:, 0, 1:] / np.hypot(alpha, sigma)[1:, None])
  np.testing.assert_allclose(*rows, rtol=1e-6, atol=1e-9)


def test_the_large_variance_in_the_coordinates_of_the_process():
  """sigma_t^2 - sigma_s^2 on EDM; the same as by default where the process is variance preserving."""
  edm, vp = schedules.edm(), schedules.vp_linear()
  ts = grids.karras(edm, 6)
  own = solvers.ddpm_large(edm, ts, coordinates='own').rows.of_z[:-1, 0]
  np.testing.assert_allclose(own**2, -np.diff(ts**2)[:-1], rtol=1e-10)
  ts = grids.uniform(vp, 6)
  same = (solvers.ddpm_large(vp, ts, coordinates=name).rows.weights for name in ('vp', 'own'))
  np.testing.assert_allclose(*same, atol=1e-12)
