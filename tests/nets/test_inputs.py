"""What networks read besides x: a source beside it, and clips by frames as channels."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from diffjax import guidance, nets, schedules
from diffjax.kinds import as_kind
from diffjax.losses import denoising
from diffjax.nets.inputs import folded, unfolded
from diffjax.prediction import Denoiser

T = jnp.array([3.0, 400.0])
SMALL = dict(width=4, channel_mult=(1, 2), blocks_per_level=1, attention=())


def filled(net, x, cond=None):
  r = np.random.default_rng(0)
  shapes = jax.eval_shape(net.init, jax.random.key(0), x, T, cond)
  return jax.tree.map(lambda leaf: jnp.asarray(0.3 * r.standard_normal(leaf.shape), jnp.float32), shapes)


@pytest.mark.slow
def test_clips_are_images_with_a_channel_a_frame():
  x, net = jax.random.normal(jax.random.key(0), (2, 3, 4, 4, 2)), nets.unet(**SMALL)
  params = filled(net, x)
  out = net(params, x, T)
  assert out.shape == x.shape
  np.testing.assert_array_equal(folded(x)[..., 2 * 2 + 1], x[:, 2, ..., 1])
  np.testing.assert_array_equal(unfolded(folded(x), 3), x)
  np.testing.assert_allclose(out, unfolded(net(params, folded(x), T), 3), atol=1e-6)


@pytest.mark.parametrize('net', [nets.unet(**SMALL, classes=3), nets.mlp(8, 1, classes=3)], ids=['unet', 'mlp'])
def test_a_source_is_read_beside_x(net):
  """As further channels of x are, but nothing is said of it; and the label is told as ever."""
  x, source = (jax.random.normal(jax.random.key(i), (2, 4, 4, 1 + i)) for i in range(2))
  label = jnp.array([0, 2])
  params = filled(net, x, {'label': label, 'source': source})
  out = net(params, x, T, {'label': label, 'source': source})
  assert out.shape == x.shape
  if isinstance(net.module, nets.UNet):
    plain = nets.unet(**SMALL, classes=3, out_channels=1)(params, jnp.concatenate([x, source], -1), T, label)
    np.testing.assert_allclose(out, plain, atol=1e-6)
  null = net(params, x, T, {'label': None, 'source': source})
  for other in (net(params, x, T, {'label': label, 'source': source + 1}), null):
    assert jnp.abs(out - other).max() > 1e-3


def test_the_loss_tells_what_is_given_and_drops_the_label_alone():
  told = []

  def net(params, x, t, cond, key):
    told.append(cond)
    return x

  loss = denoising(schedules.flow(), net, 'velocity', given=('source',), drop_cond=1.0, null=3)
  batch = {'x': jnp.ones((4, 2)), 'cond': jnp.zeros(4, int), 'source': jnp.arange(8.0).reshape(4, 2)}
  loss({'student': ()}, batch, jax.random.key(0))
  np.testing.assert_array_equal(told[0]['label'], 3)
  np.testing.assert_array_equal(told[0]['source'], batch['source'])


def test_guidance_tells_both_branches_the_source():
  net, x = nets.mlp(8, 1, classes=3), jnp.ones((2, 2))
  cond = {'label': jnp.array([0, 1]), 'source': jnp.ones((2, 3))}
  process = schedules.flow()
  denoise = Denoiser(filled(net, x, cond), process, as_kind('velocity'), jnp.asarray(3), net=net)
  c, u = denoise(x, 0.5, cond).x0, denoise(x, 0.5, cond | {'label': jnp.array([3, 3])}).x0
  np.testing.assert_allclose(guidance.cfg(denoise, 2.0)(x, 0.5, cond).x0, u + 2 * (c - u), atol=1e-5)
