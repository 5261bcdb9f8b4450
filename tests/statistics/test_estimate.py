"""Estimates against closed forms, against NumPy, and against themselves on other processes and batches."""

import jax
import numpy as np
import pytest

from diffjax import exact, guidance, keys, noise_levels, schedules, solvers, statistics

MEANS, STDS, SHARE = np.array([[1, 0.5], [-0.8, -1]]), np.array([0.4, 0.3]), np.array([0.6, 0.4])


def target():
  return exact.mixture(SHARE, MEANS, STDS**2)


def examples(n, dtype=np.float32):
  r = np.random.default_rng(0)
  part = r.choice(2, n, p=SHARE)
  return (MEANS[part] + STDS[part, None] * r.standard_normal((n, 2))).astype(dtype)


def predict(x, sigma):
  """(x0, eps) of the mixture at x = x0 + sigma eps, by Bayes' rule in NumPy."""
  total = STDS**2 + sigma**2
  gap = x[:, None] - MEANS
  log = np.log(SHARE / total) - np.sum(gap**2, -1) / 2 / total
  share = np.exp(log - log.max(1, keepdims=True))
  share = (share / share.sum(1, keepdims=True))[..., None]
  eps = sigma * np.sum(share * gap / total[:, None], 1)
  return x - sigma * eps, eps


@pytest.mark.parametrize('make', [schedules.vp_linear, schedules.flow])
def test_energies_of_a_gaussian(make):
  """Both Gamma and 1 - Gamma to the error that is left after the controls, which is Gamma (1 - Gamma) sqrt(2 / dn).

  What is left is the noise of |x0|^2 alone; 1 - Gamma falls to 1e-5 at the noisy end.
  """
  process, d, n, var = make(), 4, 2048, 0.25
  denoise = exact.gaussian(np.zeros(d), var).denoiser(process)
  x0 = np.random.default_rng(0).normal(0, np.sqrt(var), (n, d)).astype(np.float32)
  found = statistics.energies(denoise, x0, jax.random.key(1), knots=30)
  truth = 1 / (1 + var * np.exp(2 * found.lam))
  bound = 5 * np.sqrt(2 / d / n) + 2e-7 / truth / (1 - truth)  # five deviations, and the rounding of Gamma
  assert (np.abs(found.value - truth) / truth / (1 - truth) < bound).all()
  np.testing.assert_allclose(statistics.isotropic(process, var).energy(found.lam), truth, rtol=1e-9)


def test_linear_terms_of_a_gaussian_are_exact_and_solve_its_flow():
  """l = sigma^2 / (alpha^2 v + sigma^2); f = -l m does not vary, so s = 0; then two steps go from noise to data.

  Left is that l and b are linear between the knots, d apart: d^2 / 8 of l's second derivative, < .05 d^2, over two
  units of lam and for |x| < 4; and d^2 / 6 of its third from the central difference, < .2 d^2 in b, over two units;
  both grow by e^{int l} < 2.
  """
  mean, var = np.array([1.0, -0.5, 0.2]), np.array([1.0, 0.25, 0.01])
  with jax.enable_x64(True):
    process = schedules.vp_linear()
    law = exact.gaussian(mean, var)
    r = np.random.default_rng(0)
    x0, x = mean + np.sqrt(var) * r.standard_normal((64, 3)), r.standard_normal((16, 3))
    found = statistics.linear_terms(law.denoiser(process), x0, jax.random.key(1), knots=201)
    wanted, gap = 1 / (1 + var * np.exp(2 * found.lam[:, None])), found.lam[1] - found.lam[0]
    np.testing.assert_allclose(found.l, wanted, rtol=1e-9)
    np.testing.assert_allclose(found.s, 0, atol=1e-12)
    assert np.abs(found.b - 2 * wanted * (1 - wanted) * mean)[1:-1].max() < 0.2 * gap**2
    ts = np.array([1.0, 0.4, 1e-3])
    end = solvers.sample(law.denoiser(process), solvers.dpm_v3(process, ts, found, order=1), x)
    truth = exact.gaussian_flow(law, process, x, ts[0], ts[-1])
    assert np.abs(end - truth).max() < (2 * 0.05 * 4 + 2 * 0.2) * 2 * gap**2


def test_probes_estimate_the_diagonal():
  """Above eight elements, to the error of Rademacher probes: sqrt(sum of squares off the diagonal / n)."""
  d, n = 12, 512
  r = np.random.default_rng(0)
  root = r.standard_normal((d, d)) / np.sqrt(d)
  cov = root @ root.T
  process = schedules.edm(0.05, 20.0)
  denoise = exact.gaussian(np.zeros(d), cov).denoiser(process)
  found = statistics.linear_terms(denoise, r.standard_normal((n, d), np.float32), jax.random.key(1), knots=5)
  for lam, l in zip(found.lam, found.l, strict=True):  # noqa: E741
    matrix = np.linalg.inv(np.exp(2 * lam) * cov + np.eye(d))
    off = np.sqrt(np.sum(matrix**2, 1) - np.diag(matrix) ** 2)
    assert (np.abs(l - np.diag(matrix)) < 5 * off / np.sqrt(n) + 1e-5).all()


def test_linear_terms_are_those_of_numpy():
  """s and b from differences of f along the flow, each example followed on its own; alpha = 1, so dx/dlam = -x0'."""
  with jax.enable_x64(True):
    process, n, key = schedules.edm(0.05, 20.0), 256, jax.random.key(3)
    x0 = examples(n, float)
    found = statistics.linear_terms(target().denoiser(process), x0, key, knots=9, batch=128)
    z = np.asarray(keys.normal(keys.fold(keys.per_sample(key, n), 0), x0))
  rise, h = np.gradient(found.l, found.lam, axis=0), 1e-4
  for k, lam in enumerate(found.lam):
    f = []
    for sign in (-1, 0, 1):
      x = x0 + np.exp(-lam) * z
      first = -np.exp(-lam) * predict(x, np.exp(-lam))[1]
      middle = lam + sign * h / 2
      x = x - sign * h * np.exp(-middle) * predict(x + sign * h / 2 * first, np.exp(-middle))[1]
      sigma = np.exp(-lam - sign * h)
      f.append(sigma * predict(x, sigma)[1] - (found.l[k] + sign * h * rise[k]) * x)
    rate, f = (f[2] - f[0]) / (2 * h), f[1]
    s = np.clip(np.mean((f - f.mean(0)) * rate, 0) / f.var(0), -3, 3)
    np.testing.assert_allclose(found.s[k], s, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(found.b[k], rate.mean(0) - s * f.mean(0), rtol=1e-5, atol=1e-6)


def test_processes_that_differ_by_a_scale_have_one_set_of_statistics():
  """f is a function of x / alpha and lam alone, so l, s, b and Gamma are too: the chain rule in t cancels."""
  with jax.enable_x64(True):
    first = schedules.vp_linear()
    x0, found = examples(256, float), []
    for process in (first, schedules.edm(*np.exp(-noise_levels.at(first, [1e-3, 1.0])[2]))):
      denoise = target().denoiser(process)
      found.append((
        statistics.linear_terms(denoise, x0, jax.random.key(1), knots=9, batch=128),
        statistics.energies(denoise, x0, jax.random.key(1), knots=9, batch=128),
      ))  # fmt: skip
  for name in ('lam', 'l', 's', 'b'):
    np.testing.assert_allclose(*(getattr(linear, name) for linear, _ in found), rtol=1e-7, atol=1e-8)
  np.testing.assert_allclose(*(energies.value for _, energies in found), rtol=1e-9)


@pytest.mark.slow
def test_batches_and_precision_do_not_matter():
  """Parts of any size; float32 sums over them stay within 1e-3 of the whole in s, which divides by a variance."""
  process = schedules.cosine()
  denoise, x0 = target().denoiser(process), examples(960)
  whole = statistics.linear_terms(denoise, x0, jax.random.key(1), knots=12, batch=960)
  parts = statistics.linear_terms(denoise, x0, keys.per_sample(jax.random.key(1), 960), knots=12, batch=320)
  for name in ('l', 's', 'b'):
    np.testing.assert_allclose(getattr(parts, name), getattr(whole, name), rtol=1e-3, atol=1e-5)
    assert getattr(whole, name).dtype == np.float64


@pytest.mark.slow
def test_progress_is_told_of_every_batch_in_every_pass():
  passes = []

  def watched(batches):
    passes.append(0)
    for part in batches:
      yield part
      passes[-1] += 1

  denoise = target().denoiser(schedules.vp_linear())
  for estimate, wanted in ((statistics.energies, [3]), (statistics.linear_terms, [3, 3])):
    passes.clear()
    estimate(denoise, examples(24), jax.random.key(0), knots=4, batch=8, progress=watched)
    assert passes == wanted


def test_guided_denoisers_have_statistics_of_their_own():
  process = schedules.cosine()
  law = exact.mixture(SHARE, MEANS, STDS**2, labels=[0, 1])
  denoise, x0 = law.denoiser(process), examples(200)
  cond = np.argmin(np.linalg.norm(x0[:, None] - MEANS, axis=-1), 1).astype(np.int32)
  plain, same, other = (
    statistics.linear_terms(d, x0, jax.random.key(1), cond, knots=4)
    for d in (denoise, guidance.cfg(denoise, 1.0), guidance.cfg(denoise, 3.0))
  )
  for name in ('l', 's', 'b'):
    np.testing.assert_allclose(getattr(same, name), getattr(plain, name), rtol=1e-3, atol=1e-5)
    assert np.abs(getattr(other, name) - getattr(plain, name)).max() > 0.01


def test_refusals():
  denoise, x0 = target().denoiser(schedules.cosine()), examples(4)
  for options, field in (({'knots': 1}, 'knots: got 1'), ({'batch': 0}, 'batch: got 0')):
    for estimate in (statistics.energies, statistics.linear_terms):
      with pytest.raises(ValueError, match=field):
        estimate(denoise, x0, jax.random.key(0), **options)
  with pytest.raises(ValueError, match='x0: got no examples'):
    statistics.energies(denoise, x0[:0], jax.random.key(0))
