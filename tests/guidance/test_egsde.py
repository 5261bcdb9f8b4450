"""EGSDE and PromptFix's guidance: toys in closed form."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.tree_util import Partial

from diffjax import exact, guidance, keys, schedules, solvers
from diffjax.errors import InputError
from diffjax.guidance.transform import Transform
from diffjax.solvers import grids

HEIGHTS = np.asarray([-2.0, 0.0, 2.0])


def domain(side):
  return exact.mixture([1, 1, 1], np.stack([np.full(3, side), HEIGHTS], 1), np.full(3, 0.09))


def told_apart(domains, process, x, t):
  """The exact noisy classifier of the two domains: its two probabilities are the features."""
  level = process.schedule(t)
  return jax.nn.softmax(jnp.stack([d.log_density(x, *level) for d in domains], -1))


def height(x):
  return x[:, 1:]


def test_the_height_that_two_domains_share_is_kept():
  """Begun from the source at half noise: an error in height at most half of SDEdit's, and samples as likely to .1
  of a nat in the new domain; losing what tells the domains apart makes them likelier."""
  process, old, new = schedules.cosine(), domain(-2.0), domain(2.0)
  own = keys.per_sample(jax.random.key(0), 400)
  source, noise = old.sample(own), keys.normal(keys.fold(own, 1), jnp.zeros((400, 2)))
  plain = new.denoiser(process)
  features = Partial(told_apart, (old, new), process)
  made = {
    name: guidance.egsde(plain, features, source, noise, lose=lose, keep=2.0, blurred=height)
    for name, lose in dict(guided=3.0, kept=0.0).items()
  }
  ts = grids.begun(process, grids.uniform(process, 100), 0.6)
  solver = solvers.ddpm(process, ts)
  x = process.perturb(source, noise, ts[0])
  wrong, likely = {}, {}
  for name, denoise in dict(plain=plain, **made).items():
    out = solvers.sample(denoise, solver, x, jax.random.key(1))
    wrong[name] = np.mean(np.abs(out - source)[:, 1])
    likely[name] = np.mean(new.log_density(out))
    assert np.mean(out[:, 0] > 0) > 0.99
  assert wrong['guided'] <= 0.5 * wrong['plain'] and likely['guided'] >= likely['plain'] - 0.1
  assert likely['guided'] > likely['kept']
  assert guidance.cost(made['guided'], 0.5) == 2


def test_low_pass_keeps_the_means_of_blocks():
  x = jnp.asarray(np.random.default_rng(0).normal(size=(2, 16, 32, 3)), jnp.float32)
  low = guidance.low_pass(x)
  want = np.broadcast_to(x[:, :2, 4:8].mean((1, 2), keepdims=True), (2, 2, 4, 3))
  np.testing.assert_allclose(low[:, :2, 4:8], want, rtol=1e-4, atol=1e-6)
  np.testing.assert_allclose(guidance.low_pass(low), low, atol=1e-6)


class Reshaped(Transform):
  """A denoiser of vectors as one of images."""

  def __call__(self, x, t, cond=None, memory=None):
    return jax.tree.map(lambda a: a.reshape(x.shape), self.denoise(x.reshape(len(x), -1), t))


def test_fine_detail_is_that_of_the_image():
  """On white images begun as noise the error of both maps falls to half of what it is without."""
  process = schedules.cosine()
  image = jnp.asarray(np.random.default_rng(0).uniform(-1, 1, (1, 8, 8, 1)), jnp.float32)
  plain = Reshaped(exact.gaussian(np.zeros(64), 0.25).denoiser(process))
  guided = guidance.high_frequency(plain, image, rate=100.0, radius=2.0)
  solver = solvers.pair_form(solvers.ddim(process, grids.uniform(process, 12)), process)
  x = jnp.asarray(np.random.default_rng(1).normal(size=(8, 8, 8, 1)), jnp.float32)
  errors = []
  for denoise in (plain, guided):
    maps = guidance.detail(solvers.sample(denoise, solver, x), 2.0)
    errors.append([float(jnp.mean((a - b) ** 2)) for a, b in zip(maps, guidance.detail(image, 2.0), strict=True)])
  assert np.all(np.asarray(errors[1]) <= 0.5 * np.asarray(errors[0])), errors
  assert guidance.cost(guided, 0.5) == 11


def test_detail_of_what_has_none():
  """A constant has none; a wave of few cycles passes no filter beyond them, and one of more is left as it is."""
  columns = np.arange(16) / 16
  waves = np.stack([np.cos(2 * np.pi * k * columns) * 0.5 for k in (0, 2, 5)])
  images = jnp.asarray(np.broadcast_to(waves[:, None, :, None], (3, 16, 16, 1)), jnp.float32)
  high, sobel = guidance.detail(images, 3.0)
  assert float(jnp.max(high[:2])) < 0.2 and float(jnp.max(sobel[0])) <= 1.0
  np.testing.assert_allclose(high[2, 0], np.abs(waves[2]) / 0.5, atol=1e-3)


def test_bad_input_is_refused():
  plain = exact.gaussian(np.zeros(64), 1.0).denoiser(schedules.edm())
  with pytest.raises(InputError, match='steps: got 0; allowed'):
    guidance.high_frequency(plain, np.zeros((1, 8, 8, 1)), steps=0, radius=1.0)
  with pytest.raises(InputError, match='radius: got 30 for images of shape'):
    guidance.high_frequency(plain, np.zeros((1, 8, 8, 1)))
