"""Stochastic solvers: their exact variance on a Gaussian, their law on a mixture, and independence of the batch."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from oracle import PROCESSES, build, gaussian_law, m1, times

from diffjax import keys, schedules, solvers
from diffjax.exact import gaussian
from diffjax.solvers import Table, grids, pad, sample

C2 = 0.25


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
  ts = times(name, process, 12, 'quadratic')
  table = build(name, process, ts)
  x = process.prior(keys.per_sample(jax.random.key(1), n), jnp.zeros((n, 1)))
  got = np.asarray(sample(gaussian([0.0], C2).denoiser(process), table, x, jax.random.key(11)), np.float64)
  gain, noise = gaussian_law(table, process, C2)
  var = gain**2 * float(process.schedule(process.t_max)[1]) ** 2 + noise
  assert abs(got.mean()) <= 4 * np.sqrt(var / n)
  assert abs(got.var() / var - 1) <= 4 * np.sqrt(2 / n)


@pytest.mark.parametrize('kind', ['vp_linear', 'cosine', 'flow'])
@pytest.mark.parametrize('name', ['ddpm', 'euler_maruyama'])
def test_marginals_become_exact_at_first_order(name, kind):
  """The variance error of the recursion halves with the step, from the exact law at the start to the last noise."""
  process = PROCESSES[kind]()
  gaps = []
  for n in (800, 1600):
    ts = np.linspace(0.95 * float(process.t_max), 0.02, n + 1)
    rows = build(name, process, ts).rows
    table = Table(jax.tree.map(lambda leaf: leaf[:-1], rows), ('x',))  # the last step has none
    gain, noise = gaussian_law(table, process, C2)
    alpha, sigma, _ = grids.at(process, ts[[0, -2]])
    start, end = alpha**2 * C2 + sigma**2
    gaps.append(gain**2 * start + noise - end)
  assert abs(gaps[1]) < 0.005 and gaps[0] / gaps[1] == pytest.approx(2, abs=0.3)


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


def test_sample_k_does_not_depend_on_its_company():
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
  tape = solvers.Tape('x', 'first')
  tape.row(1.0, first=tape.z)
  tape.row(0.5, x=tape.first + 10 * tape.z)
  process = schedules.flow()
  got = np.asarray(sample(m1().denoiser(process), tape.done(), jnp.zeros((20000, 1)), jax.random.key(0)))[:, 0]
  assert got.var() == pytest.approx(101, rel=4 * np.sqrt(2 / 20000))  # 121 if both rows shared their noise
