"""Every dropout layer of a network draws a mask of its own, and another for every sample."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn

from diffjax.nets import Apply, edm2, unet
from diffjax.nets.layers import Dropout

QUICK = {'xla_backend_optimization_level': 0}
X, T = jax.random.normal(jax.random.key(0), (2, 8, 8, 3)), jnp.array([0.2, 0.7])
KEYS = jax.random.split(jax.random.key(1), 2)


class Two(nn.Module):
  """Two layers of one size beside each other, and two inside equal parts."""

  @nn.compact
  def __call__(self, x, t, cond=None, key=None):
    for i in range(2):
      x = Dropout(0.5, name=f'drop_{i}')(x, key)
    return Part(name='second')(Part(name='first')(x, key), key)


class Part(nn.Module):
  @nn.compact
  def __call__(self, x, key):
    return Dropout(0.5, name='drop_cond')(x, key)


NETS = dict(
  two=Apply(Two()),
  unet=unet(width=8, channel_mult=(1, 2), blocks_per_level=2, attention=(), dropout=0.5),
  edm2=edm2(width=8, channel_mult=(1, 2), blocks_per_level=2, attention=(), head_dim=8, dropout=0.5),
)


@pytest.mark.quick('unet')
@pytest.mark.parametrize('name', NETS)
def test_masks_of_one_size_are_independent(name, filled):
  """Two masks agree in half of their places, within 5 deviations: of two layers, and of two samples."""
  net, masks = NETS[name], []

  def listen(call, arguments, options, context):
    if isinstance(context.module, Dropout):
      masks.append(call(jnp.ones_like(arguments[0]), arguments[1]) != 0)
    return call(*arguments, **options)

  params = {} if name == 'two' else filled(net, X, T)

  def run(params):
    masks.clear()
    with nn.intercept_methods(listen):
      net(params, X, T, None, KEYS)
    return list(masks)

  found = jax.jit(run, compiler_options=QUICK)(params)
  assert len(found) >= 4
  rows = [np.ravel(row) for mask in found for row in np.asarray(mask)]
  pairs = [(a, b) for a, b in itertools.combinations(rows, 2) if a.size == b.size]
  assert len(pairs) >= 6
  for a, b in pairs:
    assert abs(np.mean(a == b) - 0.5) < 5 * 0.5 / np.sqrt(a.size)
