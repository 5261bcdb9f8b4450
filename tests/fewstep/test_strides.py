"""Strides: with the exact generator the made pair has the law of the real one, and the chain draws the data."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from closed import MEAN, VAR, target

from diffjax import keys, kinds, nets, schedules
from diffjax.errors import InputError
from diffjax.fewstep import pairs
from diffjax.fewstep.makers import Latent, Maker, latent_net, maker_of
from diffjax.fewstep.strides import in_strides, made_stride, real_stride, reconstruction
from diffjax.methods import Sampling
from diffjax.prediction import Denoiser
from diffjax.process import Process, expand
from diffjax.solvers import grids
from experiments.ring import edm, parts, ring

COSINE, N = schedules.cosine(), 20000


class Posterior(NamedTuple):
  """A draw of x0 given x_t of the Gaussian, z its noise; its mean without a latent."""

  process: Process

  def __call__(self, params: Any, x: Any, t: Any, cond: Any = None, key: Any = None):
    x, z = x[:, :1], x[:, 1:]
    alpha, sigma = (expand(c, x) for c in self.process.schedule(t))
    total = alpha**2 * VAR + sigma**2
    spread = jnp.sqrt(VAR / total) * sigma * z if z.shape[1] else 0
    return MEAN + alpha * VAR / total * (x - alpha * MEAN) + spread

  def __hash__(self):
    return 0

  def __eq__(self, other):
    return self is other


def exact(latent=1):
  return Maker(COSINE, kinds.x0().plain(), net=Latent(Posterior(COSINE), latent))


def batch(n=N):
  return {'x': target().sample(keys.per_sample(jax.random.key(1), n))}


def law_at(t, s):
  return lambda process, progress, key_batch: pairs.Times(*(jnp.full(len(key_batch), u) for u in (t, s, s)))


def moments(draw):
  """Covariances of (x_s, x_t), and the mean of x_s."""
  shown = jax.jit(lambda: draw({'student': {}}, batch(), keys.per_sample(jax.random.key(2), N)))()
  return np.cov(shown.x[:, 0], shown.beside[:, 0]), float(shown.x.mean())


def test_the_exact_generator_makes_the_real_pairs(t=0.7, s=0.35):
  """Covariances to .03 of the closed form, three deviations of 20000 draws.

  Landed by the forward process x_s has its law, but not beside x_t; by the mean in place of a draw it is too narrow.
  """
  law, maker = law_at(t, s), exact()
  (a, b), (c, d) = (tuple(map(float, COSINE.schedule(u))) for u in (t, s))
  at_s, at_t = c**2 * VAR + d**2, a**2 * VAR + b**2
  want = np.array([[at_s, a / c * at_s], [a / c * at_s, at_t]])
  for draw in (real_stride(maker, law, beside=True), made_stride(maker, law, posterior=True, beside=True)):
    cov, mean = moments(draw)
    np.testing.assert_allclose(cov, want, atol=0.03)
    assert abs(mean - c * MEAN) < 0.02
  cov, _ = moments(made_stride(maker, law, posterior=False, beside=True))
  np.testing.assert_allclose(cov, [[at_s, a * c * VAR], [a * c * VAR, at_t]], atol=0.03)
  assert abs(a * c * VAR - want[0, 1]) > 0.1
  blurred, _ = moments(made_stride(exact(0), law, posterior=True, beside=True))
  assert blurred[0, 0] < at_s - 0.05


@pytest.mark.parametrize('posterior', [True, False])
def test_the_chain_of_exact_strides_draws_the_data(posterior):
  """In three strides the mean to .02 and the variance to .015; and one sample is the same in another batch."""
  sampling = Sampling(3, lambda: grids.uniform(COSINE, 3), lambda: None, lambda denoise: denoise)
  made = parts(target(), COSINE, 'x0', net=nets.mlp(width=4, depth=1))
  draw = in_strides(made, exact(), {}, sampling, posterior=posterior)
  assert draw.nfe == draw.cost == 3 and draw.times[0] == pytest.approx(0.9946)
  rows = keys.per_sample(jax.random.key(3), N)
  x = jax.jit(lambda draw, rows: draw(rows))(draw, rows)
  assert abs(float(x.mean()) - MEAN) < 0.02 and abs(float(x.var()) - VAR) < 0.015
  few, (before, _) = draw.path(rows[5:8])
  np.testing.assert_allclose(few, x[5:8], atol=1e-5)
  assert before.shape == (3, 3, 1)


def test_a_latent_is_further_channels():
  """Of an MLP on images as of a U-Net; without one the student is the plain denoiser."""
  for net, shape in ((nets.mlp(width=8, depth=1), (4, 4, 2)), (nets.mlp(width=8, depth=1), (2,))):
    made = parts(ring(), edm(), 'x0', net=net, shape=shape)
    x, t, _ = made.inputs(3)
    for size in (0, 5):
      maker = maker_of(made, size)
      params = jax.eval_shape(maker.net.init, jax.random.key(0), x, t)
      z = maker.latent(keys.per_sample(jax.random.key(0), 3), x)
      assert z.shape == (*x.shape[:-1], size)
      out = jax.eval_shape(maker, params, x, t + 1, z)
      assert out.shape == x.shape
  unet = nets.unet(width=8, channel_mult=(1,), blocks_per_level=1, attention=())
  assert latent_net(unet, (4, 4, 2), 3).net.module.out_channels == 2
  made = parts(ring(), edm(), kinds.edm(0.7), net=nets.mlp(width=8, depth=1))
  params = jax.tree.map(lambda p: p + 0.1, made.init(jax.random.key(0)))
  x, t = jnp.asarray(ring().means, jnp.float32), jnp.linspace(0.1, 9, 8)
  want = Denoiser(params, edm(), kinds.edm(0.7), net=made.net)(x, t).x0
  np.testing.assert_allclose(maker_of(made, 0)(params, x, t, jnp.zeros((8, 0))), want, rtol=1e-6)


@pytest.mark.slow
def test_the_reconstruction_is_half_the_error_of_eps_where_strides_end_at_the_data():
  """And by its formula elsewhere: alpha_t^2 / (2 (sigma_t^2 - (alpha_t sigma_s / alpha_s)^2))."""
  key, few = jax.random.key(5), {'x': batch(6)['x']}
  for t, s in ((0.4, 0.0), (0.7, 0.35)):
    (a, b), (c, d) = (tuple(map(float, COSINE.schedule(u))) for u in (t, s))
    values, aux = reconstruction(exact(0), law_at(t, s))({'student': {}}, few, key)
    np.testing.assert_allclose(values, a**2 / (2 * (b**2 - (a * d / c) ** 2)) * aux['error'], rtol=1e-4)
    assert aux['error'].min() > 1e-6


def test_refusals():
  made = parts(target(), COSINE, 'x0', net=nets.mlp(width=4, depth=1))
  short = Sampling(2, lambda: grids.uniform(COSINE, 2), lambda: None, lambda denoise: denoise)
  with pytest.raises(InputError, match='steps, grid: got 2 from 0.9946 to 0; allowed: the grid uniform of 3 steps'):
    in_strides(made, exact(), {}, short, only=grids.uniform(COSINE, 3))
  with pytest.raises(InputError, match='guidance: got some; allowed: none'):
    in_strides(made, exact(), {}, Sampling(2, short.grid, lambda: None, lambda denoise: None))
  with pytest.raises(InputError, match='latent: got -1; allowed: a whole number'):
    maker_of(made, -1)
  with pytest.raises(InputError, match='latent: got 2 for a network whose outputs'):
    maker_of(parts(target(), COSINE, 'x0', net=lambda *_: None), 2)
  with pytest.raises(InputError, match='loss.kind: got one that needs a signal'):
    maker_of(parts(target(), schedules.flow(), 'eps', net=nets.mlp(width=4, depth=1)), 2)
