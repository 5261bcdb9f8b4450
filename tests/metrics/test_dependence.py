"""Distance covariance against its definition, a case in closed form, and independence."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from diffjax.metrics.dependence import distance_correlation, distance_covariance

RNG = np.random.default_rng(0)


def by_loops(z, s):
  """V-statistics: the mean of products minus twice the mean of row means plus the product of means."""
  a, b = (np.linalg.norm(x[:, None] - x[None], axis=-1) for x in (z, s))
  return (a * b).mean() - 2 * (a.mean(1) * b.mean(1)).mean() + a.mean() * b.mean()


def test_is_its_definition_and_has_a_slope_where_points_meet():
  z, s = RNG.normal(size=(30, 3)), RNG.integers(0, 2, (30, 1)).astype(float)
  np.testing.assert_allclose(distance_covariance(jnp.asarray(z), jnp.asarray(s)), by_loops(z, s), rtol=1e-4)
  slope = jax.grad(lambda z: distance_covariance(z, jnp.asarray(s)))(jnp.zeros((30, 3)))
  assert bool(jnp.isfinite(slope).all())


@pytest.mark.slow
def test_a_copy_is_one_and_the_unbiased_form_does_not_drift():
  """Of independent coins and normals, 200 draws of 64: the mean within 3 errors of 0, where the plain one is not."""
  s = RNG.choice([-1.0, 1.0], (64, 1))
  np.testing.assert_allclose(distance_correlation(2 * s, s), 1, rtol=1e-5)
  z, s = jnp.asarray(RNG.normal(size=(200, 64, 2))), jnp.asarray(RNG.choice([-1.0, 1.0], (200, 64, 1)))
  fair, plain = (
    np.asarray(jax.vmap(lambda z, s, u=unbiased: distance_covariance(z, s, unbiased=u))(z, s))
    for unbiased in (True, False)
  )
  assert abs(fair.mean()) < 3 * fair.std() / 200**0.5 < plain.mean()
