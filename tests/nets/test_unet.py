import functools
import math
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from diffjax import schedules
from diffjax.kinds import as_kind
from diffjax.nets import unet
from diffjax.prediction import Denoiser

SMALL = dict(width=8, channel_mult=(1, 2), blocks_per_level=1, attention=(4,), classes=3, dropout=0.25)
NCSNPP = dict(resample='fir', embedding='fourier', progressive=True)
QUICK = {'xla_backend_optimization_level': 0}  # these tests compile more than they compute
RUN = jax.jit(unet(**SMALL), compiler_options=QUICK)  # one for the file: a signature is compiled once
ONE = SMALL | dict(channel_mult=(1,), attention=(8,))  # where the number of levels is not the matter
RUN_ONE = jax.jit(unet(**ONE), compiler_options=QUICK)


def inputs(batch=4, seed=0):
  x = jax.random.normal(jax.random.key(seed), (batch, 8, 8, 2))
  return x, jnp.linspace(5.0, 900.0, batch), jnp.arange(batch) % 3


@functools.cache
def count(net, size, channels):
  shapes = jax.eval_shape(net.init, jax.random.key(0), jnp.zeros((1, size, size, channels)), jnp.zeros(1))
  return sum(math.prod(a.shape) for a in jax.tree.leaves(shapes))


def by_hand(width, channel_mult, blocks_per_level, attention, size, channels, classes=0, augment=0):
  """The number of weights by counting the paper's boxes."""
  e = 4 * width

  def conv(a, b, k=3):
    return k * k * a * b + b

  def block(a, b, change=False):
    return 2 * a + conv(a, b) + e * b + b + 2 * b + conv(b, b) + (conv(a, b, 1) if change or a != b else 0)

  def attend(c):
    return 2 * c + 4 * (c * c + c)

  total = augment * width + width * e + e + e * e + e + (classes + 1) * e * (classes > 0) + conv(channels, width)
  skips, c = [width], width
  for i, m in enumerate(channel_mult):
    for _ in range(blocks_per_level):
      total += block(c, m * width) + attend(m * width) * (size >> i in attention)
      c = m * width
      skips.append(c)
    if i + 1 < len(channel_mult):
      total += block(c, c, True)
      skips.append(c)
  total += 2 * block(c, c) + attend(c)
  for i, m in reversed(list(enumerate(channel_mult))):
    for _ in range(blocks_per_level + 1):
      total += block(c + skips.pop(), m * width)
      c = m * width
    total += attend(c) * (size >> i in attention) + (block(c, c, True) if i else 0)
  return total + 2 * c + conv(c, channels)


@pytest.mark.parametrize(
  'sizes, size, channels',
  [
    (dict(width=128, channel_mult=(1, 2, 2, 2), blocks_per_level=4, attention=(16,)), 32, 3),
    pytest.param(
      dict(width=128, channel_mult=(1, 2, 2, 2), blocks_per_level=8, attention=(16,)), 32, 3, marks=pytest.mark.slow
    ),
    (dict(width=32, channel_mult=(1, 2), blocks_per_level=1, attention=(4,), classes=10), 8, 1),
    (dict(width=24, channel_mult=(1, 2), blocks_per_level=1, attention=(4,), classes=10, augment=9), 8, 1),
  ],
)
def test_count(sizes, size, channels):
  assert count(unet(**sizes), size, channels) == by_hand(**sizes, size=size, channels=channels)


def test_count_of_the_paper():
  """CIFAR-10 DDPM++ with 4 blocks: 61.8 million as published with score-SDE."""
  assert round(count(unet(128), 32, 3) / 1e5) == 618


@pytest.mark.slow
def test_count_of_ncsnpp():
  """NCSN++ is DDPM++ of the same sizes and what it adds: 61.80 + .95 = 62.76 million on CIFAR-10.

  The first layer of the embedding reads 2w sines and cosines in place of w: w * 4w weights. Each halving adds a 3 x 3
  map of the image, then of what the one before gave: 3 -> 128 -> 256 -> 256 channels.
  """
  ncsnpp = unet(128, **NCSNPP)
  added = 128 * 4 * 128 + sum(9 * a * b + b for a, b in [(3, 128), (128, 256), (256, 256)])
  assert count(ncsnpp, 32, 3) == count(unet(128), 32, 3) + added
  assert added == 954_368 and round(count(ncsnpp, 32, 3) / 1e4) == 6276


@pytest.mark.slow
def test_kind_eps_is_the_published_scaling_by_sigma(filled):
  """NCSN++'s score is its output over sigma: kind eps says that of the output with its sign turned.

  Handed the clock log(sigma) / 4, from which the other side takes its sigma, at levels .03 to 100 of a VE process.
  """
  net, (x, _, y) = unet(**ONE, **NCSNPP), inputs()
  process, t = schedules.ve(0.02, 100.0), jnp.array([0.05, 0.4, 0.7, 1.0])
  params, run = filled(net, x, t), jax.jit(net, compiler_options=QUICK)

  def published(params, x, t, cond, key):
    return -run(params, x, t, cond) / jnp.exp(4 * t)[:, None, None, None]

  x *= process.schedule(t)[1][:, None, None, None]
  ours, theirs = (
    Denoiser(params, process, as_kind(kind), net=f)(x, t, y) for kind, f in [('eps', run), ('score', published)]
  )
  np.testing.assert_allclose(ours.eps, theirs.eps, rtol=1e-4, atol=1e-5)
  np.testing.assert_allclose(ours.x0, theirs.x0, rtol=1e-4, atol=1e-3)  # of numbers up to 300
  assert jnp.abs(ours.eps).max() > 0.1


def test_count_of_edm():
  """CIFAR-10 of EDM, unconditional, with its 9 augmentation numbers: 55,733,891 as released."""
  assert count(unet(128, channel_mult=(2, 2, 2), augment=9), 32, 3) == 55_733_891


@pytest.mark.slow
def test_no_augmentation_is_zeros(filled):
  """Labels alone, zeros told, and the same network without the weights for it: one function; not so another label."""
  net, (x, t, y) = unet(**ONE, augment=2), inputs()
  params = filled(net, x, t)

  @partial(jax.jit, compiler_options=QUICK)
  def both(params, told):
    return net(params, x, t, y), net(params, x, t, {'label': y, 'augment': told})

  plain, zeros = both(params, jnp.zeros((4, 2)))
  np.testing.assert_array_equal(zeros, plain)
  without = {name: leaf for name, leaf in params.items() if name != 'augment'}
  np.testing.assert_allclose(RUN_ONE(without, x, t, y), plain, atol=1e-5)
  changed = jnp.abs(both(params, jnp.array([[0, 0], [1, 0], [0, 1], [0, 0.0]]))[1] - plain).max((1, 2, 3))
  assert (changed[1:3] > 1e-3).all() and (changed[::3] == 0).all()


def test_zero_at_init(initial):
  net, (x, t, y) = unet(**ONE), inputs()
  params = initial(net, x, t)
  np.testing.assert_array_equal(RUN_ONE(params, x, t, y), np.zeros(x.shape, np.float32))


@pytest.mark.slow
def test_null_label_is_no_label(filled):
  net, (x, t, _) = unet(**SMALL), inputs()
  params = filled(net, x, t)
  null = RUN(params, x, t, jnp.full(4, 3))
  np.testing.assert_allclose(RUN(params, x, t), null, atol=1e-6)
  assert jnp.abs(RUN(params, x, t, jnp.zeros(4, int)) - null).max() > 1e-3


@pytest.mark.slow
def test_jit_and_vmap(filled):
  net, (x, t, y) = unet(**SMALL), inputs()
  params = filled(net, x, t)
  with jax.disable_jit():
    plain = net(params, x, t, y)
  np.testing.assert_allclose(RUN(params, x, t, y), plain, atol=1e-5)
  rows = jax.jit(jax.vmap(lambda x, t, y: net(params, x[None], t[None], y[None])[0]), compiler_options=QUICK)(x, t, y)
  np.testing.assert_allclose(rows, plain, atol=1e-5)


@pytest.mark.slow
def test_forward_and_reverse_mode(filled):
  """<c, J v> = <J^T c, v> over the image and every weight; J v is the slope; no weight is without a gradient."""
  net, (x, t, y) = unet(**SMALL), inputs()
  at = filled(net, x, t), x
  v, c = (filled(net, x, t, seed=5), inputs(seed=2)[0]), inputs(seed=3)[0]

  @partial(jax.jit, compiler_options=QUICK)
  def both(at, v):
    out, tangent = jax.jvp(lambda p, x: net(p, x, t, y), at, v)
    return tangent, jax.vjp(lambda p, x: net(p, x, t, y), *at)[1](c)

  tangent, grads = both(at, v)
  inner = sum(jnp.vdot(a, b) for a, b in zip(jax.tree.leaves(grads), jax.tree.leaves(v), strict=True))
  np.testing.assert_allclose(
    jnp.vdot(c, tangent), inner, atol=1e-4 * float(jnp.linalg.norm(tangent) * jnp.linalg.norm(c))
  )
  step = 1e-2
  ahead, behind = (jax.tree.map(lambda a, b, s=s: a + s * b, at, v) for s in (step, -step))
  slope = (RUN(*ahead, t, y) - RUN(*behind, t, y)) / (2 * step)
  assert jnp.linalg.norm(tangent - slope) < 0.02 * jnp.linalg.norm(slope)
  for path, g in jax.tree.leaves_with_path(grads):
    assert jnp.isfinite(g).all() and g.any(), path


def test_bfloat16_keeps_float32_state(filled):
  """bfloat16 has 8 bits: one rounding is 2^-9, some 40 independent ones along the depth add to about 1%; 5% allowed."""
  net, half = unet(**ONE), unet(**ONE, dtype='bfloat16')
  x, t, y = inputs()
  params = filled(net, x, t)
  assert all(a.dtype == jnp.float32 for a in jax.tree.leaves(jax.eval_shape(half.init, jax.random.key(0), x, t)))
  out, want = jax.jit(half, compiler_options=QUICK)(params, x, t, y), RUN_ONE(params, x, t, y)
  assert out.dtype == jnp.float32
  error = jnp.linalg.norm(out - want) / jnp.linalg.norm(want)
  assert 1e-4 < error < 0.05


@pytest.mark.slow
def test_remat_changes_nothing(filled):
  plain, remat = unet(**SMALL), unet(**SMALL, remat=True)
  x, t, y = inputs()
  params, key = filled(plain, x, t), jax.random.split(jax.random.key(4), 4)
  assert jax.tree.structure(jax.eval_shape(remat.init, jax.random.key(0), x, t)) == jax.tree.structure(params)

  def gradient(net):
    def loss(p):
      return jnp.square(net(p, x, t, y, key)).mean()

    return jax.jit(jax.value_and_grad(loss), compiler_options=QUICK)(params)

  for a, b in zip(jax.tree.leaves(gradient(plain)), jax.tree.leaves(gradient(remat)), strict=True):
    np.testing.assert_allclose(a, b, atol=1e-5 * float(jnp.abs(a).max()) + 1e-9)
  jaxpr = str(jax.make_jaxpr(lambda p: remat(p, x, t, y))(params))
  assert 'remat' in jaxpr or 'checkpoint' in jaxpr


@pytest.mark.slow
def test_dropout_needs_a_key_and_is_each_samples_own(filled):
  net, (x, t, y) = unet(**ONE), inputs()
  params, key = filled(net, x, t), jax.random.split(jax.random.key(4), 4)
  off, on = RUN_ONE(params, x, t, y), RUN_ONE(params, x, t, y, key)
  np.testing.assert_allclose(RUN_ONE(params, x, t, y, None), off)
  assert (jnp.abs(on - off).max((1, 2, 3)) > 1e-3).all()
  np.testing.assert_allclose(RUN_ONE(params, x[2:], t[2:], y[2:], key[2:]), on[2:], atol=1e-5)
  other = RUN_ONE(params, x, t, y, key[::-1])
  assert jnp.abs(other - on).max() > 1e-3


@pytest.mark.parametrize(
  'field, change',
  [
    ('resample', dict(resample='bilinear')),
    ('embedding', dict(embedding='sin')),
    ('progressive', dict(progressive=True)),
    ('channel_mult', dict(channel_mult=())),
    ('channel_mult', dict(channel_mult=(1, 0))),
    ('channel_mult', dict(channel_mult=(1, 1.5))),
    ('width', dict(width=7)),
    ('blocks_per_level', dict(blocks_per_level=0)),
    ('dropout', dict(dropout=1.0)),
    ('dtype', dict(dtype='int8')),
    ('classes', dict(classes=-1)),
    ('out_channels', dict(out_channels=0)),
    ('attention', dict(attention=(0,))),
    ('augment', dict(augment=-1)),
  ],
)
def test_refuses_arguments(field, change):
  with pytest.raises(ValueError, match=f'^{field}: .*allowed'):
    unet(**(SMALL | change))


def test_refuses_shapes_and_labels():
  x, t, y = inputs()
  with pytest.raises(ValueError, match=r'^attention: .*16.*\[8, 4\]'):
    unet(**(SMALL | dict(attention=(16,)))).init(jax.random.key(0), x, t)
  with pytest.raises(ValueError, match='^x: .*divisible by 2'):
    unet(**SMALL).init(jax.random.key(0), x[:, :7], t)
  with pytest.raises(ValueError, match='^cond: .*classes=0'):
    unet(**(SMALL | dict(classes=0))).init(jax.random.key(0), x, t, y)
  with pytest.raises(ValueError, match='^cond: .*9 augmentation numbers.* allowed: 2, or none'):
    unet(**SMALL, augment=2).init(jax.random.key(0), x, t, {'label': y, 'augment': jnp.zeros((4, 9))})


def test_more_channels_out():
  net, (x, t, y) = unet(**SMALL, out_channels=5), inputs()
  params = jax.eval_shape(net.init, jax.random.key(0), x, t)
  assert jax.eval_shape(net, params, x, t, y).shape == (4, 8, 8, 5)
