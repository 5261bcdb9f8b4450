"""Laws of t: draws follow the density they state, on every kind of process."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

from diffjax import keys, schedules
from diffjax.losses import times
from diffjax.noise_levels import at

N = 4000
LAWS = {
  'uniform': times.uniform,
  'logit_normal': lambda: times.logit_normal(-0.5, 0.8),
  'lognormal': times.lognormal,
  'stratified': lambda: times.stratified(times.lognormal(0.0, 1.0)),
}
PROCESSES = {'cosine': schedules.cosine, 'flow': schedules.flow, 'edm': schedules.edm}


def draw(law, process, n=N, seed=0):
  return law(process, keys.per_sample(jax.random.key(seed), n))


def distribution(law, process, n=50_001):
  """Nodes and distribution function, by the trapezoidal rule on nodes dense at both ends."""
  u = np.linspace(0, 1, n)
  span = float(process.t_max - process.t_min)
  t = jnp.asarray(float(process.t_min) + span * u**3 * (10 - 15 * u + 6 * u**2), jnp.float32)
  p = np.asarray(law.density(process, t), np.float64)
  steps = np.diff(np.asarray(t, np.float64))
  return np.asarray(t), np.concatenate([[0], np.cumsum((p[1:] + p[:-1]) / 2 * steps)])


def test_every_law_is_here():
  assert set(times.__all__) == set(LAWS)


@pytest.mark.parametrize('process', PROCESSES)
@pytest.mark.parametrize('name', LAWS)
def test_draws_follow_the_density(name, process):
  """Mass 1 within 1e-3; Kolmogorov-Smirnov below 1.95 / sqrt N (level .001), below 2 / N for strata."""
  law, process = LAWS[name](), PROCESSES[process]()
  t = np.sort(np.asarray(draw(law, process)))
  assert t.dtype == np.float32 and t[0] >= process.t_min and t[-1] <= process.t_max
  nodes, mass = distribution(law, process)
  assert np.isfinite(mass).all() and abs(mass[-1] - 1) < 1e-3
  gap = np.abs(np.interp(t, nodes, mass) - (np.arange(N) + 0.5) / N).max()
  assert gap < (2 / N + 1e-3 if law.batch_coupled else 1.95 / np.sqrt(N))


def test_closed_forms():
  flow, edm = schedules.flow(t_min=0.0), schedules.edm()
  t = jnp.linspace(0.05, 0.95, 19)
  np.testing.assert_allclose(times.uniform().density(edm, t), 1 / (80 - 0.002), rtol=1e-5)
  logit = np.log(t / (1 - t))
  want = np.exp(-((logit - 0.3) ** 2) / 2 / 0.49) / (0.7 * np.sqrt(2 * np.pi) * t * (1 - t))
  np.testing.assert_allclose(times.logit_normal(0.3, 0.7).density(flow, t), want, rtol=1e-4)
  # EDM's own law: t is the noise level, and [.002, 80] cuts off less than 2e-5 of it
  np.testing.assert_allclose(
    times.lognormal().density(edm, t), stats.lognorm(1.2, scale=np.exp(-1.2)).pdf(t), rtol=1e-4
  )
  log_sigma = np.log(np.asarray(draw(times.lognormal(), edm, 20_000)))
  assert abs(log_sigma.mean() + 1.2) < 5 * 1.2 / np.sqrt(20_000)
  assert abs(log_sigma.std() / 1.2 - 1) < 5 / np.sqrt(2 * 20_000) + 1e-3


@pytest.mark.parametrize('name', [name for name in LAWS if name != 'stratified'])
def test_sample_k_does_not_see_its_batch(name):
  law, process = LAWS[name](), schedules.cosine()
  batch = keys.per_sample(jax.random.key(1), 16)
  np.testing.assert_array_equal(law(process, batch)[5:9], law(process, batch[5:9]))
  assert not law.batch_coupled


@pytest.mark.slow
def test_strata_hold_one_sample_each():
  law, process = times.stratified(), schedules.flow(t_min=0.0)
  assert law.batch_coupled
  for n in (1, 7, 128):
    t = np.asarray(draw(law, process, n, seed=n))
    assert sorted(np.floor(t * n - t[0] * n % 1 + 1e-3) % n) == list(range(n))
  first = [float(draw(law, process, 8, seed=s)[0]) for s in range(200)]
  assert stats.kstest(first, 'uniform').pvalue > 1e-3


def test_ends_are_never_infinite():
  """The extreme uniforms of float32 give times inside the interval with a finite density, also where lam is not."""
  u = jnp.asarray([0.0, 2.0**-24, 0.5, 1 - 2.0**-24])
  for law in (times.uniform(), times.logit_normal(), times.lognormal(0.0, 3.0)):
    for process in (build() for build in PROCESSES.values()):
      t = law.quantile(process, jnp.clip(u, 2.0**-24, 1 - 2.0**-24))
      assert np.isfinite(t).all() and (np.diff(t) >= 0).all()
      assert np.isfinite(law.density(process, jnp.asarray([process.t_min, process.t_max]))).all()


def test_numbers_are_leaves():
  count = 0

  @jax.jit
  def run(law, process, batch):
    nonlocal count
    count += 1
    return law(process, batch)

  batch = keys.per_sample(jax.random.key(0), 3)
  for law in (times.logit_normal(), times.logit_normal(1, 2), times.logit_normal(np.float32(0.5), 1.0)):
    run(law, schedules.flow(), batch)
  assert count == 1


def test_bad_numbers_are_refused():
  for law in (times.logit_normal, times.lognormal):
    with pytest.raises(ValueError, match='std: got 0; allowed'):
      law(std=0)


@pytest.mark.parametrize('process', PROCESSES)
@pytest.mark.parametrize('end', ['t_min', 't_max'])
def test_lognormal_with_a_tenth_of_its_mass_beyond_an_end(process, end):
  """The rest is the normal law of ln sigma / alpha cut off there, not heaped up at the end: SciPy's truncated one.

  On rectified flow, whose ln sigma / alpha is unbounded at t_max, nothing lies beyond and nothing is cut off.
  """
  process, std = PROCESSES[process](), 0.9
  ends = {name: -float(process.lam(getattr(process, name))) for name in ('t_min', 't_max')}
  far = ends[end] if np.isfinite(ends[end]) else 3.0
  mean = far + std * stats.norm.ppf(0.1) * (1 if end == 't_max' else -1)
  truth = stats.truncnorm(*((np.array([ends['t_min'], ends['t_max']]) - mean) / std), loc=mean, scale=std)
  law = times.lognormal(mean, std)
  t = np.asarray(draw(law, process))
  noise = -np.asarray(process.lam(t), np.float64)
  assert stats.kstest(noise, truth.cdf).statistic < 1.95 / np.sqrt(N)
  inner = jnp.asarray(process.lam_inverse(-truth.ppf(np.linspace(0.02, 0.98, 25))), jnp.float32)
  low, high = (at(process, np.asarray(inner) * (1 + h))[2] for h in (-1e-4, 1e-4))
  slope = (low - high) / (2e-4 * np.asarray(inner))  # -lam'
  want = truth.pdf(-np.asarray(process.lam(inner), np.float64)) * slope
  np.testing.assert_allclose(law.density(process, inner), want, rtol=2e-3)
