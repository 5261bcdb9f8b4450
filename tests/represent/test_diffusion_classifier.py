"""The diffusion classifier against Bayes' rule on a mixture."""

import jax
import numpy as np
import pytest

from diffjax import schedules
from diffjax.errors import InputError
from diffjax.exact import mixture
from diffjax.represent import diffusion_classifier

MEANS = np.array([[-2, 0], [2, 0], [0, 2.5]])
TARGET = mixture([0.5, 0.3, 0.2], MEANS, [0.25] * 3)


def points(n=200):
  """Off the data: between the components."""
  rng = np.random.default_rng(0)
  x = 0.6 * MEANS[rng.integers(0, 3, n)] + 1.5 * 0.5 * rng.standard_normal((n, 2))
  logp = np.stack([TARGET.log_density(x.astype(np.float32), cond=np.full(n, k)) for k in range(3)], 1)
  return x.astype(np.float32), logp


def test_it_agrees_with_bayes():
  """Of the times' plain mean at 128 draws in .96 of the points (.983 measured before), also given up in stages."""
  x, logp = points()
  bayes, denoise = logp.argmax(1), TARGET.denoiser(schedules.vp_linear())
  out = diffusion_classifier(denoise, x, jax.random.key(0), 3, stages=((128, 1),))
  np.testing.assert_array_equal(out.label, np.asarray(out.errors).argmin(1))
  staged = diffusion_classifier(denoise, x, jax.random.key(0), 3, stages=((32, 2), (128, 1)))
  same, kept = np.mean(out.label == bayes), np.mean(staged.label == bayes)
  assert same > 0.96 and kept > same - 0.02
  assert (out.nfe, staged.nfe) == (384, 96 + 2 * 96) and np.isinf(np.asarray(staged.errors)).sum(1).tolist() == [
    1
  ] * 200


@pytest.mark.parametrize('make', [schedules.vp_linear, schedules.edm])
def test_weighted_by_the_bound_it_is_the_likelihood_ratio(make):
  """The difference of errors is that of log-densities, slope 1 within .07, on every process."""
  x, logp = points()
  out = diffusion_classifier(TARGET.denoiser(make()), x, jax.random.key(0), 3, stages=((512, 1),), weight='elbo')
  e = np.asarray(out.errors)
  got, want = (e[:, 0] - e[:, 1]), (logp[:, 1] - logp[:, 0])
  slope = np.sum(got * want) / np.sum(want**2)
  assert 0.93 < slope < 1.05 and np.corrcoef(got, want)[0, 1] > 0.99


def test_bad_input():
  x, denoise = np.zeros((2, 2), np.float32), TARGET.denoiser(schedules.vp_linear())
  run = lambda classes=3, **kw: diffusion_classifier(denoise, x, jax.random.key(0), classes, **kw)  # noqa: E731
  wrong = [
    ('weight', dict(weight='v')),
    ('stages', dict(stages=((8, 2), (8, 1)))),
    ('stages', dict(stages=((8, 3),))),
    ('classes', dict(classes=1)),
    ('got label', dict(classes=5)),
  ]
  for field, options in wrong:
    with pytest.raises(InputError, match=field):
      run(**options)
