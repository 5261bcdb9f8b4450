"""Tilting is exact where the mean weight is known, and on a Gaussian its three forms are one formula each."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.tree_util import Partial

from diffjax import exact, guidance, schedules
from diffjax.errors import InputError
from diffjax.prediction import Pred

WEIGHTS, MEANS, COVARIANCES = [0.5, 0.3, 0.2], [[-2, 0], [2, 0], [0, 2.5]], [[0.25, 0.1], [0.1, 0.3]]
A = np.asarray([0.4, 1.2])


@pytest.fixture
def x64():
  with jax.enable_x64(True):
    yield


def likelier(tilted, target, process, x, t, cond):
  """log E[e^{a.x0} | x_t] up to a constant: the ratio of the noisy densities."""
  level = process.schedule(t)
  return tilted.log_density(x, *level) - target.log_density(x, *level)


def test_with_the_mean_weight_it_is_the_tilted_law(x64):
  process, target = schedules.cosine(), exact.mixture(WEIGHTS, MEANS, [COVARIANCES] * 3)
  t = jnp.linspace(0.05, 0.95, 40) * process.t_max
  x = 3 * jnp.asarray(np.random.default_rng(0).normal(size=(40, 2)))

  @jax.jit
  def both(x, t):
    tilted, _ = target.tilt(A)
    made = guidance.tilt(target.denoiser(process), Partial(likelier, tilted, target, process))
    return made(x, t), tilted.denoiser(process)(x, t)

  got, want = both(x, t)
  np.testing.assert_allclose(got.x0, want.x0, rtol=1e-8, atol=1e-8)
  np.testing.assert_allclose(got.eps, want.eps, rtol=1e-8, atol=1e-8)


def near(y, r2, x, t, cond):
  return -jnp.sum((x - y) ** 2, axis=-1) / (2 * r2)


def test_the_three_places_on_a_gaussian(x64):
  """N(0, v): x0_hat = k x with k = alpha v / (alpha^2 v + sigma^2), and r = -|z - y|^2 / 2 r2."""
  process, v, r2, scale = schedules.cosine(), 0.7, 0.3, 1.7
  denoise = exact.gaussian(np.zeros(2), v).denoiser(process)
  y, t = np.asarray([0.5, -1.0]), np.linspace(0.1, 0.9, 6)
  x = np.random.default_rng(1).normal(size=(6, 2))
  near_y = Partial(near, y, r2)
  places = dict(x=('x', False), through=('x0', True), beside=('x0', False))
  made = {k: guidance.tilt(denoise, near_y, scale, at=at, through=through) for k, (at, through) in places.items()}

  @jax.jit
  def run(made, x, t):
    preds = {k: tilted(x, t) for k, tilted in made.items()}
    return preds, guidance.slope_of(denoise, near_y, x, t, at='x0'), process.schedule(t)

  preds, (plain, weights, slope), (alpha, sigma) = jax.tree.map(np.asarray, run(made, x, t))
  alpha, sigma = alpha[:, None], sigma[:, None]
  k = alpha * v / (alpha**2 * v + sigma**2)
  slopes = dict(x=(y - x) / r2, through=k * (y - k * x) / r2, beside=(y - k * x) / r2)
  for name, pred in preds.items():
    np.testing.assert_allclose(pred.x0, k * x + scale * sigma**2 / alpha * slopes[name], rtol=1e-11)
    np.testing.assert_allclose(alpha * pred.x0 + sigma * pred.eps, x, rtol=1e-11)
    assert guidance.cost(made[name], 0.5) == (2 if name == 'through' else 1)
  np.testing.assert_allclose(plain.x0, k * x, rtol=1e-11)
  np.testing.assert_allclose(weights, -np.sum((k * x - y) ** 2, 1) / (2 * r2), rtol=1e-11)
  np.testing.assert_allclose(slope, slopes['through'], rtol=1e-11)


class Halves:
  """Two modalities, each its half at its own time."""

  process = schedules.flow()

  def __call__(self, x, t, cond=None, memory=None):
    return Pred({name: leaf / 2 for name, leaf in x.items()}, x)


def test_modalities_at_their_own_times():
  """A weight of both pushes each by the rule of its own time; it is told the times as (B,)."""

  def both(x, t, cond):
    assert t['a'].shape == t['b'].shape == (3,)
    return jnp.sum(x['a'] * x['b'], axis=1) * t['b']

  x = {'a': jnp.ones((3, 2)), 'b': jnp.full((3, 2), 3.0)}
  pred = guidance.tilt(Halves(), both, 2.0, at='x0')(x, {'a': 0.5, 'b': jnp.asarray([0.2, 0.2, 0.2])})
  np.testing.assert_allclose(pred.x0['a'], 0.5 + 2 * 0.5 * (1.5 / 2 * 0.2), rtol=1e-6)
  np.testing.assert_allclose(pred.x0['b'], 1.5 + 2 * (0.04 / 0.8) * (0.5 / 2 * 0.2), rtol=1e-5)


def test_another_place_is_refused():
  with pytest.raises(InputError, match="at: got 'eps'; allowed: x, x0"):
    guidance.tilt(Halves(), near, at='eps')
