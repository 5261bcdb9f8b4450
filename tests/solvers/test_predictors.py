"""The score-based SDEs' predictors against the published formulas, each other, and what they sample."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.tree_util import Partial
from oracle import PROCESSES, distance_to_solution, gaussian_law, is_defined_on, m1

from diffjax import keys, noise_levels, schedules
from diffjax.process import Process
from diffjax.solvers import ancestral, ddpm, ddpm_large, grids, reverse_diffusion, sample

N, B0, B1 = 40, 0.1, 20.0
BETA = np.linspace(B0 / N, B1 / N, N)


def discrete():
  """The published levels: alpha_i^2 = prod_{j <= i} (1 - beta_j) at t = (i + 1) / N."""
  log_alpha = np.append(0.0, 0.5 * np.cumsum(np.log1p(-BETA)))
  return Process(Partial(lookup, np.arange(N + 1) / N, log_alpha), np.float64(1e-3), np.float64(1.0))


def lookup(knots, log_alpha, t):
  log = jnp.interp(t, knots, log_alpha)
  return jnp.exp(log), jnp.sqrt(-jnp.expm1(2 * log))


def through_score(table, process):
  """Each row's (coefficient of x, of score, of z), x0 = (x + sigma^2 score) / alpha and eps = -sigma score."""
  alpha, sigma, _ = noise_levels.at(process, table.rows.t)
  w = table.rows.weights[:, 0]
  return w[:, 0] + w[:, 1] / alpha, w[:, 1] * sigma**2 / alpha - w[:, 2] * sigma, w[:, 4]


def test_published_formulas_of_preserved_variance():
  """f = (sqrt(1 - beta) - 1) x, G^2 = beta; ancestral (x + beta score) / sqrt(1 - beta) and sqrt(beta)."""
  process, ts, beta = discrete(), np.arange(N, -1, -1) / N, BETA[::-1]
  noise = np.append(np.sqrt(beta)[:-1], 0)
  x, score, z = through_score(reverse_diffusion(process, ts), process)
  for got, want in ((x, 2 - np.sqrt(1 - beta)), (score, beta), (z, noise)):
    np.testing.assert_allclose(got, want, rtol=1e-9)
  x, score, z = through_score(ancestral(process, ts), process)
  for got, want in ((x, (1 - beta) ** -0.5), (score, beta * (1 - beta) ** -0.5), (z, noise)):
    np.testing.assert_allclose(got, want, rtol=1e-9)
  x, score, z = through_score(reverse_diffusion(process, ts, ode=True), process)
  for got, want in ((x, 2 - np.sqrt(1 - beta)), (score, beta / 2), (z, 0 * beta)):
    np.testing.assert_allclose(got, want, rtol=1e-9)


def test_published_formulas_of_exploding_variance():
  """sigma geometric over N levels and 0 after them: N evaluations."""
  process = schedules.ve()
  level = np.geomspace(50, 0.01, N)
  before = np.append(level[1:], 0)
  gap = level**2 - before**2
  ts = grids.uniform(process, N - 1)
  for make, std in ((reverse_diffusion, np.sqrt(gap)), (ancestral, np.sqrt(before**2 * gap / level**2))):
    table = make(process, ts, to_data=True)
    assert table.nfe == N
    x, score, z = through_score(table, process)
    np.testing.assert_allclose(x, 1, rtol=1e-12)
    np.testing.assert_allclose(score, gap, rtol=1e-5)  # the ends are float32 leaves
    np.testing.assert_allclose(z, np.append(std[:-1], 0), rtol=1e-5)


def test_ancestral_is_one_of_ddpm_s_two_kernels():
  for kind, other in (('vp_linear', ddpm_large), ('cosine', ddpm_large), ('ve', ddpm), ('edm', ddpm)):
    process = PROCESSES[kind]()
    ts = grids.uniform(process, 9, to_zero=False)
    got, want = ancestral(process, ts).rows.weights, other(process, ts).rows.weights
    np.testing.assert_allclose(got[:-1], want[:-1], rtol=1e-9, atol=1e-12)
    np.testing.assert_allclose(got[-1, 0, :-1], want[-1, 0, :-1], rtol=1e-9, atol=1e-12)
    assert got[-1, 0, -1] == 0


def test_a_process_of_neither_kind_is_refused():
  for kind in ('sub_vp', 'flow'):
    assert not is_defined_on('ancestral', kind)
    process = PROCESSES[kind]()
    with pytest.raises(ValueError, match=f'process: got {kind}, with alpha = .*; allowed: variance preserving'):
      ancestral(process, grids.uniform(process, 5))
  with pytest.raises(ValueError, match='to_data: got True; allowed: False'):
    reverse_diffusion(discrete(), [1.0, 0.0], to_data=True)


def test_the_deterministic_form_is_of_first_order():
  process, errors = schedules.vp_linear(), []
  for n in (160, 320):
    ts = grids.uniform_lam(process, n, to_zero=False)
    table = reverse_diffusion(process, ts, ode=True)
    assert not table.stochastic
    errors.append(distance_to_solution(table, 'vp_linear', ts[-1], 32))
  assert np.log2(errors[0] / errors[1]) == pytest.approx(1, abs=0.15)


@pytest.mark.parametrize('kind', ['vp_linear', 'sub_vp', 'flow', 'edm'])
@pytest.mark.parametrize('make', [reverse_diffusion, ancestral])
def test_marginals_become_exact_at_first_order(make, kind):
  """The error in variance on N(0, .25), on halving the step."""
  if not is_defined_on(make.__name__, kind):
    return
  process, gaps = PROCESSES[kind](), []
  for n in (800, 1600):
    high, low = (
      noise_levels.at(process, np.array([0.95, 0.02]) * float(process.t_max))[2] if kind == 'edm' else (0.95, 0.02)
    )
    ts = np.linspace(high, low, n + 1)
    table = make(process, noise_levels.times_of(process, ts) if kind == 'edm' else ts)
    last = np.asarray(table.rows.t)[-1]
    table = table.replace(rows=jax.tree.map(lambda leaf: leaf[:-1], table.rows))  # the last step has no noise
    gain, noise = gaussian_law(table, process, 0.25)
    alpha, sigma, _ = noise_levels.at(process, [table.rows.t[0], last])
    start, end = alpha**2 * 0.25 + sigma**2
    gaps.append((gain**2 * start + noise) / end - 1)
  assert abs(gaps[1]) < 0.02 and gaps[0] / gaps[1] == pytest.approx(2, rel=0.15)


def distance(process, solver, n, seed):
  """Wasserstein-1 to M1's quantiles; its floor is .0008 at 200,000 samples and grows as 1 / sqrt(n)."""
  line = np.linspace(-1.2, 1.2, 24001)
  density = np.exp(np.asarray(m1().log_density(jnp.asarray(line[:, None], jnp.float32))), dtype=np.float64)
  quantiles = np.interp((np.arange(n) + 0.5) / n, np.cumsum(density) / density.sum(), line)
  x = process.prior(keys.per_sample(jax.random.key(seed), n), jnp.zeros((n, 1)))
  got = sample(m1().denoiser(process), solver, x, jax.random.key(seed + 100))
  return float(np.abs(np.sort(np.asarray(got)[:, 0]) - quantiles).mean())


@pytest.mark.quick('ancestral')
@pytest.mark.parametrize('make', [reverse_diffusion, ancestral])
def test_on_the_bimodal_target(make):
  """VP: at most .012 at 100 steps and .008 at 200, here with 20,000 samples of floor .0025."""
  process = schedules.vp_linear()
  for steps, bound in ((100, 0.012), (200, 0.008)):
    assert distance(process, make(process, grids.uniform(process, steps)), 20000, 1) <= bound
