"""Stochastic interpolants between N(0, 1) and a mixture: exact fields, their losses, and laws that know no noise."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from diffjax import bridges, keys
from diffjax.bridges.between import grid
from diffjax.bridges.interpolants import EDGE, FIELDS
from diffjax.errors import InputError
from diffjax.exact import mixture
from diffjax.pytree import PyTree

W, M, S = np.array([0.4, 0.6]), np.array([-0.4, 0.3]), np.array([0.12, 0.05])
LAW = mixture(W, M[:, None], S**2)


class Exact(PyTree):
  """The drift, or eta, of the linear path with gamma^2 = 2 t (1 - t), base N(0, 1), in closed form."""

  interpolant: bridges.Interpolant
  denoiser: jax.Array

  def __call__(self, x, t, cond=None):
    return jnp.where(self.denoiser, *self.fields(x, t[:, None]))

  def fields(self, x, t):
    g2, grow = self.interpolant.gamma2(t), self.interpolant.grow(t)
    var = (1 - t) ** 2 * S**2 + t**2 + g2
    off = x - (1 - t) * M
    r = jax.nn.softmax(jnp.log(W) - jnp.log(var) / 2 - off**2 / (2 * var), -1)
    half = -(1 - t) * S**2 + t + grow  # half the slope of the variance
    drift = jnp.sum(r * (half / var * off - M), -1, keepdims=True)
    return jnp.sqrt(g2) * jnp.sum(r * off / var, -1, keepdims=True), drift


def exact(denoiser):
  return Exact(bridges.linear(), jnp.asarray(denoiser))


@pytest.mark.parametrize('make', [bridges.linear, bridges.trigonometric, bridges.encoding_decoding])
def test_paths_join_their_ends_and_slopes_are_theirs(make):
  path = make()
  x0, x1, z = (jax.random.normal(k, (3, 2)) for k in jax.random.split(jax.random.key(0), 3))
  for t, want in ((0.0, x0), (1.0, x1)):
    np.testing.assert_allclose(path.at(jnp.full(3, t), x0, x1, z), want, atol=2e-3)
  t, h = jnp.asarray([0.2, 0.4, 0.8]), 1e-2
  by_differences = (path.path((t + h)[:, None], x0, x1) - path.path((t - h)[:, None], x0, x1)) / (2 * h)
  np.testing.assert_allclose(path.slope(t, x0, x1), by_differences, atol=2e-2)
  np.testing.assert_allclose(path.grow(t), (path.gamma2(t + h) - path.gamma2(t - h)) / (4 * h), atol=2e-2)


@pytest.mark.parametrize('field', FIELDS)
def test_losses_are_stationary_at_the_exact_fields(field):
  """In an error of any amplitude and two shapes, within 4 standard errors; not where the field is off."""
  path, n = bridges.linear(), 20000

  def net(params, x, t, cond, key):
    t = t / 1000
    eta, drift = exact(False).fields(x, t[:, None])
    gamma, grow = path.gamma(t)[:, None], path.grow(t)[:, None]
    truth = dict(drift=drift, denoiser=eta, score=-eta / gamma, velocity=drift - grow / gamma * eta)[field]
    return truth + params[0] + params[1] * x

  x = LAW.sample(keys.per_sample(jax.random.key(0), n))
  own = keys.per_sample(jax.random.key(1), n)
  loss = bridges.regression(path, net, field)
  one = lambda p, x, k: loss({'student': p}, {'x': x[None]}, k[None])[0][0]  # noqa: E731
  slopes = jax.jit(jax.vmap(jax.grad(one), (None, 0, 0)))
  for params, still in ((jnp.zeros(2), True), (jnp.asarray([0.3, 0.3]), False)):
    slope = np.asarray(slopes(params, x, own), np.float64)
    off = np.abs(slope.mean(0)) / (slope.std(0) / np.sqrt(n))
    assert (off <= 4).all() if still else (off > 4).all(), (field, off)


def quantiles(n):
  return np.sort(np.asarray(LAW.sample(keys.per_sample(jax.random.key(99), n)))[:, 0])


draw = jax.jit(lambda made, own: made(own))


def distance(noise, steps, n):
  """W1 of n samples to as many of the law."""
  eta = exact(True) if noise else None
  made = bridges.Between(exact(False), eta, bridges.linear(), jnp.asarray(noise), jnp.asarray(grid(steps)), (1,))
  drawn = np.sort(np.asarray(draw(made, keys.per_sample(jax.random.key(3), n)))[:, 0])
  return np.abs(drawn - quantiles(n)).mean()


def test_the_law_of_the_samples_does_not_know_the_noise():
  """W1 <= .03 with 300 steps and 8000 samples, without noise and with (.012 is that of 8000 draws from the law)."""
  assert max(distance(noise, 300, 8000) for noise in (0.0, 0.5, 2.0)) <= 0.03


@pytest.mark.slow
def test_more_steps_bring_it_within_a_hundredth():
  """W1 <= .010 with 1000 steps and 50000 samples at every noise; at 50 steps much noise is the worst."""
  assert max(distance(noise, 1000, 50000) for noise in (0.0, 0.25, 1.0, 4.0)) <= 0.010
  coarse = [distance(noise, 50, 50000) for noise in (0.0, 1.0, 4.0)]
  assert coarse[2] == max(coarse)


@pytest.mark.parametrize('s0, s1, e', [(1, 0.5, 0.5), (1, 0.5, 0.0), (1, 1, 0.5), (1, 2, 1)])
def test_the_scale_that_is_the_schroedinger_bridge(s0, s1, e):
  """Among all scales 2 sqrt(s0^2 s1^2 + e^2) costs the SDE of noise e the least between two Gaussians."""
  t = (np.arange(4000) + 0.5) / 4000
  unit = np.asarray(bridges.linear(scale=1.0).gamma2(jnp.asarray(t)))
  scales = np.arange(0.5, 6, 0.005)[:, None]
  var = (1 - t) ** 2 * s0**2 + t**2 * s1**2 + scales * unit
  half = -(1 - t) * s0**2 + t * s1**2 + scales * (1 - 2 * t) / 2
  cost = np.mean((half - e) ** 2 / var, 1)
  assert abs(scales[cost.argmin(), 0] - 2 * np.sqrt(s0**2 * s1**2 + e**2)) <= 0.006


def test_cost_and_times():
  made = bridges.Between(exact(False), exact(True), bridges.linear(), jnp.ones(()), jnp.asarray(grid(10)), (1,))
  assert made.nfe == 10 and made.cost == 19 and len(made.times) == 10
  assert made.times[0] == pytest.approx(1 - EDGE) and (np.diff(made.times) < 0).all()
  assert made.replace(eta=None).cost == 10


def test_bad_input_is_refused():
  with pytest.raises(InputError, match="field: got 'noise'; allowed: drift, velocity, denoiser, score"):
    bridges.regression(bridges.linear(), None, 'noise')
  with pytest.raises(InputError, match="noise: got 'none'; allowed: root"):
    bridges.linear('none')
  with pytest.raises(InputError, match='scale: got 0.0'):
    bridges.trigonometric(scale=0.0)
  with pytest.raises(InputError, match='steps: got 1'):
    grid(1)
  made = bridges.Between(exact(False), None, bridges.linear(), 0.0, jnp.asarray(grid(4)), (1,), paired=True)
  with pytest.raises(InputError, match="cond: got no 'source'"):
    made.check_cond(None)
