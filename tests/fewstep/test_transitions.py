"""Transitions of the multistep sampler: ways are those of the generator, probabilities those of a Gaussian."""

import dataclasses

import bases
import closed
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.stats import norm

from diffjax import keys, schedules
from diffjax.errors import InputError
from diffjax.fewstep.transitions import log_probs, policy, rollout


@pytest.mark.parametrize('make', [lambda: schedules.edm(0.01, 10.0), schedules.cosine])
def test_a_way_is_the_generators_and_its_probability_that_of_its_noise(make):
  """The sample to the bit; log p is -(z^2 + log 2 pi) / 2 - log std of the noise z that leads to each point."""
  process = make()
  end, count = float(process.t_min), 6
  draw = policy(bases.exact(process, end), 3, (10.0, 2.0, 0.5) if process.by_noise else 'uniform')(closed.right())
  key = keys.per_sample(jax.random.key(0), count)
  way = jax.jit(rollout)(draw, key)
  np.testing.assert_array_equal(way.end, jax.jit(lambda draw, key: draw(key))(draw, key))
  np.testing.assert_array_equal(way.points, jax.jit(lambda draw, key: draw.path(key))(draw, key)[1][0])
  t, _, up = draw.rows
  (a, b), (c, d) = process.schedule(jnp.asarray(end)), process.schedule(up[:-1])
  std = np.sqrt(d**2 - (c / a * b) ** 2)
  told = np.asarray(log_probs(draw, way))
  assert told.shape == (2, count)
  for i in range(2):
    mean = c[i] / a * closed.flow(process, way.points[i], jnp.full(count, t[i]), jnp.full(count, end))
    want = norm.logpdf(way.points[i + 1], mean, std[i]).mean(-1)
    np.testing.assert_allclose(told[i], want, rtol=2e-4, atol=2e-4)


def test_refusals():
  process = schedules.edm(0.01, 10.0)
  for source, options, message in (
    (bases.exact(process, 0.01, 0.0), dict(steps=3), 'base: got exact, which draws without noise'),
    (bases.exact(process, 0.01), dict(steps=1), 'steps: got 1; allowed'),
    (bases.exact(process, 0.01), dict(steps=3, grid='even'), "grid: got 'even'; allowed: uniform"),
    (dataclasses.replace(bases.exact(process, 0.01), drawn=None),
     dict(steps=3), 'base: got exact, which does not draw by jumps'),
  ):  # fmt: skip
    with pytest.raises(InputError, match=message):
      policy(source, **options)
