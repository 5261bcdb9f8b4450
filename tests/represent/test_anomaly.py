"""EPS-AD on a ring of eight Gaussians in eight dimensions, attacked by a random sign vector."""

import jax
import numpy as np
import pytest

from diffjax import keys, schedules
from diffjax.errors import InputError
from diffjax.exact import gaussian, mixture
from diffjax.represent import anomaly, auroc, expected_score, fit_kernel, median_kernel, mmd2

PROCESS, D, ATTACK = schedules.vp_linear(), 8, 0.05
ANGLES = 2 * np.pi * np.arange(8) / 8
MEANS = np.concatenate([2 * np.stack([np.cos(ANGLES), np.sin(ANGLES)], 1), np.zeros((8, D - 2))], 1)
VAR = np.tile([0.15**2] * 2 + [0.05**2] * (D - 2), (8, 1))
RING = mixture(np.ones(8), MEANS, VAR)


@pytest.fixture(scope='module')
def ring():
  """A bank, natural and attacked points with their expected scores: 400, 300 and 300."""
  x = np.asarray(RING.sample(keys.per_sample(jax.random.key(0), 1300)))
  sign = np.sign(np.random.default_rng(0).standard_normal((600, D))).astype(np.float32)
  x = np.concatenate([x[:700], x[700:] + ATTACK * sign])
  eps = np.asarray(expected_score(RING.denoiser(PROCESS), x, jax.random.key(1), times=20))
  return x, eps


def parts(values):
  return values[:400], values[400:700], values[1000:]


def judged(kernel, values):
  bank, natural, strange = parts(values)
  return auroc(anomaly(kernel, bank, natural), anomaly(kernel, bank, strange))


def test_strange_points_are_told_by_expected_scores(ring):
  """AUROC .81 (measured before) by expected scores, .52 by the points themselves, with the same kind of kernel.

  Of this law the exact density tells them as well, not better: the two broad directions drown it too.
  """
  x, eps = ring
  of_eps, of_x = judged(median_kernel(eps[:400]), eps), judged(median_kernel(x[:400]), x)
  _, natural, strange = parts(x)
  density = auroc(-RING.log_density(natural), -RING.log_density(strange))
  assert abs(of_eps - 0.81) < 0.05 and of_x < 0.6 and abs(density - of_eps) < 0.05


def test_one_score_alone_tells_less(ring):
  """At T = 20 alone .61 (measured before) against .81: averaging over T is what helps."""
  x, _ = ring
  t = 0.02
  alpha, sigma = PROCESS.schedule(t)
  z = np.random.default_rng(1).standard_normal(x.shape)
  score = -np.asarray(RING.predict(np.float32(alpha * x + sigma * z), alpha, sigma).eps) / sigma
  assert abs(judged(median_kernel(score[:400]), score) - 0.61) < 0.06


def test_two_sets_are_told_apart(ring):
  """300 natural against 300 natural and 300 attacked: MMD^2 of at most .005 and at least .02."""
  _, eps = ring
  kernel = median_kernel(eps[:300])
  assert mmd2(kernel, eps[:300], eps[400:700]) < 0.005 < 0.02 < mmd2(kernel, eps[:300], eps[1000:])


@pytest.mark.slow
def test_a_trained_kernel_is_no_worse(ring):
  """Trained on the bank and 300 other attacked points, it tells held-out ones at least as well within .02."""
  _, eps = ring
  deep = fit_kernel(eps[:400], eps[700:1000], jax.random.key(2), steps=100)
  assert judged(deep, eps) > judged(median_kernel(eps[:400]), eps) - 0.02


def test_of_a_gaussian_it_is_linear():
  """-M x with M the mean of alpha / (alpha^2 S + sigma^2), up to noise of mean 0."""
  s, n = np.array([1.0, 0.01]), 4000
  x = np.tile(np.array([[0.5, 0.1]], np.float32), (n, 1))
  ts = np.arange(1, 11) / 1000
  alpha, sigma = (np.asarray(a)[:, None] for a in PROCESS.schedule(ts))
  want = -np.mean(alpha / (alpha**2 * s + sigma**2), 0) * x[0]
  got = np.asarray(expected_score(gaussian([0, 0], s).denoiser(PROCESS), x, jax.random.key(0), times=10))
  assert (np.abs(got.mean(0) - want) < 4.5 * got.std(0) / np.sqrt(n)).all()


def test_auroc_by_hand():
  assert auroc([0, 1], [1, 2]) == 0.875 and auroc([0, 1], [2, 3]) == 1 and auroc([1, 1], [1, 1]) == 0.5


def test_bad_input():
  with pytest.raises(InputError, match='times: got 0'):
    expected_score(RING.denoiser(PROCESS), np.zeros((2, D)), jax.random.key(0), times=0)
  with pytest.raises(InputError, match='batch: got 100 of 5 and 5'):
    fit_kernel(np.zeros((5, 2)), np.zeros((5, 2)), jax.random.key(0))
