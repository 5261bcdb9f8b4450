"""Plug & Play: Langevin at one noise level has the class's smoothed law; the published ascent has none."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.tree_util import Partial

from diffjax import exact, guidance, schedules
from diffjax.errors import InputError

MEANS = np.asarray([[-2.0, 0.0], [2.0, 0.0], [0.0, 2.5]])
TARGET = exact.mixture([0.5, 0.3, 0.2], MEANS, np.full(3, 0.25))


def of_class(target, level, x, t, cond):
  """log p(class | x) of the noisy data, the exact classifier."""
  own = target.log_density(x, 1.0, level, cond)
  return own - target.log_density(x, 1.0, level)


def test_the_law_is_that_of_the_class_under_noise():
  """sigma = .3: mean within .05 and variance within 10% of .25 + .09, whatever the alpha of the process."""
  process, cond = schedules.cosine(), jnp.full((2000,), 2)
  t = float(process.lam_inverse(-np.log(0.3)))
  x = jnp.asarray(np.random.default_rng(0).normal(size=(2000, 2)), jnp.float32)
  out = guidance.plug_and_play(
    Unconditional(TARGET, process), Partial(of_class, TARGET, 0.3), x, jax.random.key(0), t, rate=0.2, cond=cond
  )
  np.testing.assert_allclose(out.mean(0), MEANS[2], atol=0.05)
  np.testing.assert_allclose(out.var(0), 0.34, rtol=0.1)


class Unconditional(exact.ExactDenoiser):
  """Told no class, though the classifier is."""

  def __call__(self, x, t, cond=None, memory=None):
    return super().__call__(x, t)


def test_normalised_ascent_moves_by_the_same_size():
  """Every step moves each sample by `ascent` on average over its elements; towards the class."""
  process = schedules.edm()
  x = jnp.asarray([[-2.0, 0.5], [2.0, 1.0]])
  run = lambda steps: guidance.plug_and_play(  # noqa: E731
    Unconditional(TARGET, process), Partial(of_class, TARGET, 0.3), x, jax.random.key(0), 0.3, steps=steps,
    noise=0.0, ascent=0.05, cond=jnp.asarray([2, 2]),
  )  # fmt: skip
  np.testing.assert_allclose(jnp.mean(jnp.abs(run(1) - x), 1), 0.05, rtol=1e-4)
  assert np.linalg.norm(run(100) - MEANS[2], axis=1).max() < 0.3


def test_bad_input_is_refused():
  for options, told in ((dict(rate=1.5), 'rate, steps: got 1.5'), (dict(t=1.0), 't: got 1, where alpha = 0')):
    with pytest.raises(InputError, match=told):
      guidance.plug_and_play(
        TARGET.denoiser(schedules.flow()), of_class, jnp.ones((2, 2)), jax.random.key(0), **(dict(t=0.5) | options)
      )
