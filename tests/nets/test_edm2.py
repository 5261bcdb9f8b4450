import dataclasses
import math
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from diffjax.nets import edm2
from diffjax.nets.attention import attend
from diffjax.nets.magnitude import MP_KERNEL, MPConv, MPDense, MPFourier, MPLabel, mp_cat, mp_silu, mp_sum, unit

SMALL = dict(width=8, channel_mult=(1, 2), blocks_per_level=1, attention=(4,), head_dim=4, classes=3, dropout=0.25)
TINY = dict(width=8, channel_mult=(1,), blocks_per_level=1, attention=(8,), head_dim=4, classes=3)
PLAIN = TINY | dict(attention=())  # attention in the middle alone
QUICK = {'xla_backend_optimization_level': 0}  # these tests compile more than they compute
RUN = jax.jit(edm2(**SMALL), compiler_options=QUICK)  # one for the file: a signature is compiled once


def inputs(batch=4, seed=0):
  x = jax.random.normal(jax.random.key(seed), (batch, 8, 8, 2))
  return x, jnp.linspace(-1.5, 1.0, batch), jnp.arange(batch) % 3


def normal(*shape, seed=0):
  return jnp.asarray(np.random.default_rng(seed).standard_normal(shape), jnp.float32)


def size(x):
  """The root mean square."""
  return float(jnp.sqrt(jnp.mean(jnp.square(x.astype(jnp.float32)))))


def made(module, *args):
  """The module's output with fresh weights."""
  return module.apply(jax.tree.map(jnp.asarray, module.init(jax.random.key(0), *args)), *args)


def test_every_operation_keeps_the_magnitude():
  """Every operation returns rms within 2% of 1 for inputs of rms 1. 4096 x 32 numbers tell it to 0.3%, a Fourier
  feature less: 1024.

  A feature's mean square over u is 1 + exp(-8 pi^2 f^2) cos(4 pi phi); over f and phi that varies by .17, so 0.3% here.
  """
  x, y, image = normal(4096, 32), normal(4096, 96, seed=1), normal(64, 10, 10, 16)

  @partial(jax.jit, compiler_options=QUICK)
  def outputs():
    return dict(
      silu=mp_silu(x),
      sum=mp_sum(x, y[:, :32], 0.3),
      cat=mp_cat(x, y),
      unit=unit(3 * x),
      dense=made(MPDense(48), x),
      fourier=made(MPFourier(1024), normal(4096)),
      conv=made(MPConv(24), image)[:, 1:-1, 1:-1],
      point=made(MPConv(24, size=1), image),
      label=made(MPLabel(10, 64), jnp.arange(10), 10),
      uneven=mp_cat(x, y, 0.3),
    )

  out = outputs()
  for name, value in out.items():
    assert abs(size(value) - 1) < 0.02, name
  assert abs(size(out['label']) - 1) < 1e-3  # columns of unit mean square, all labels once: exact
  first, second = np.split(np.asarray(out['uneven']), [32], -1)
  assert abs((second**2).sum() / (first**2).sum() / (3 / 7) ** 2 - 1) < 0.02


def test_unit():
  """x / (1e-4 + rms); finite with a gradient of zero at zero; the statistic of bfloat16 is float32's."""
  x = normal(5, 7)
  want = np.asarray(x) / (1e-4 + np.sqrt(np.mean(np.asarray(x, np.float64) ** 2, 1, keepdims=True)))
  np.testing.assert_allclose(unit(x), want, rtol=1e-6)
  assert not jax.grad(lambda x: jnp.sum(unit(x) ** 2))(jnp.zeros((2, 3))).any()
  large = jnp.full((1, 4096), 3.0, jnp.bfloat16)
  assert unit(large).dtype == jnp.bfloat16 and abs(size(unit(large)) - 1) < 2**-8


def test_direction_alone_counts():
  """Outputs and their derivatives along a kernel do not see its length (but for the 1e-4), and gradients are normal."""
  x, module = normal(6, 16), MPDense(4)
  kernel = module.init(jax.random.key(0), x)['params'][MP_KERNEL]
  kernel = kernel.unbox() if hasattr(kernel, 'unbox') else kernel
  run = lambda w: module.apply({'params': {MP_KERNEL: w}}, x)  # noqa: E731
  np.testing.assert_allclose(run(5 * kernel), run(kernel), rtol=2e-4)
  grad = jax.grad(lambda w: jnp.sum(jnp.sin(run(w))))(kernel)
  inner = jnp.sum(grad * kernel, 0) / (jnp.linalg.norm(grad, axis=0) * jnp.linalg.norm(kernel, axis=0))
  assert jnp.abs(inner).max() < 1e-3


@pytest.mark.slow
def test_magnitudes_at_init():
  """Every feature between .8 and 1.2, the output 0, at normal weights and gains of 0.

  The paper's calculus gives 1 for uncorrelated branches away from borders. Zeros outside a 16 (8) row image take 8%
  (16%) of a convolution's mean square, attention averages values, and a block's branches are weakly correlated.
  """
  net = edm2(width=32, channel_mult=(1, 2), blocks_per_level=1, head_dim=32, attention=(8,), classes=10)
  x, t, y = normal(8, 16, 16, 3), jnp.linspace(-1.0, 1.0, 8), jnp.arange(8)
  rng = np.random.default_rng(1)
  draw = lambda s: jnp.asarray(rng.standard_normal(s.shape) if s.shape else 0.0, jnp.float32)  # noqa: E731
  params = jax.tree.map(draw, jax.eval_shape(net.init, jax.random.key(0), x, t))
  names = tuple(name for name in net.tap_names(x, t) if not name.endswith('attention/out'))
  out, features = jax.jit(dataclasses.replace(net, taps=names), compiler_options=QUICK)(params, x, t, y)
  assert not out.any() and len(features) == 11
  for name, feature in features.items():
    assert 0.8 < size(feature) < 1.2, name


@pytest.mark.slow
def test_initial_weights(initial):
  """Gains 0, hence the output; kernels of unit mean square an output: r / (r + 1e-4), r > .05 in all but 2% of rows."""
  net, (x, t, _) = edm2(**PLAIN), inputs()
  params = initial(net, x, t)
  for path, leaf in jax.tree.leaves_with_path(params):
    if path[-1].key == MP_KERNEL:
      rows = jnp.sqrt(jnp.mean(leaf**2, tuple(range(leaf.ndim - 1))))
      np.testing.assert_allclose(rows, 1, atol=1e-2)
    assert leaf.any() == (path[-1].key != 'gain')


@pytest.mark.quick('XS-124.7')
@pytest.mark.parametrize(
  'name, published',
  [
    ('XS', 124.7),
    ('S', 280.2),
    ('M', 497.8),
    ('L', 777.5),
    ('XL', 1119.3),
    ('XXL', 1523.2),
  ],
)
def test_count_of_the_paper(name, published):
  """Millions for ImageNet-512 (latents of 64 x 64 x 4, 1000 classes), arXiv:2312.02696."""
  net = edm2(name, classes=1000)
  shapes = jax.eval_shape(net.init, jax.random.key(0), jnp.zeros((1, 64, 64, 4)), jnp.zeros(1))
  assert round(sum(math.prod(a.shape) for a in jax.tree.leaves(shapes)) / 1e5) == round(10 * published)


@pytest.mark.slow
def test_null_label_is_no_label(filled):
  net, (x, t, _) = edm2(**TINY), inputs()
  params, run = filled(net, x, t), jax.jit(net, compiler_options=QUICK)
  null = run(params, x, t, jnp.full(4, 3))
  np.testing.assert_allclose(run(params, x, t), null, atol=1e-6)
  assert jnp.abs(run(params, x, t, jnp.zeros(4, int)) - null).max() > 1e-3


@pytest.mark.slow
def test_forward_and_reverse_mode(filled):
  """<c, J v> = <J^T c, v> over the image and every weight; J v is the slope; only Fourier features have no gradient."""
  net, (x, t, y) = edm2(**TINY), inputs()
  at = filled(net, x, t), x
  v, c = (filled(net, x, t, seed=5), inputs(seed=2)[0]), inputs(seed=3)[0]
  v[0]['fourier'] = jax.tree.map(jnp.zeros_like, v[0]['fourier'])

  @partial(jax.jit, compiler_options=QUICK)
  def both(at, v):
    out, tangent = jax.jvp(lambda p, x: net(p, x, t, y), at, v)
    return tangent, jax.vjp(lambda p, x: net(p, x, t, y), *at)[1](c)

  tangent, grads = both(at, v)
  inner = sum(jnp.vdot(a, b) for a, b in zip(jax.tree.leaves(grads), jax.tree.leaves(v), strict=True))
  np.testing.assert_allclose(
    jnp.vdot(c, tangent), inner, atol=1e-4 * float(jnp.linalg.norm(tangent) * jnp.linalg.norm(c))
  )
  step = 1e-3  # weights of length one: a step of 1e-2 would turn them too far
  ahead, behind = (jax.tree.map(lambda a, b, s=s: a + s * b, at, v) for s in (step, -step))
  run = jax.jit(net, compiler_options=QUICK)
  slope = (run(*ahead, t, y) - run(*behind, t, y)) / (2 * step)
  assert jnp.linalg.norm(tangent - slope) < 0.02 * jnp.linalg.norm(slope)
  for path, g in jax.tree.leaves_with_path(grads):
    assert jnp.isfinite(g).all() and bool(g.any()) == ('fourier' not in jax.tree_util.keystr(path)), path


@pytest.mark.slow
def test_bfloat16_keeps_float32_state(filled):
  """bfloat16 has 8 bits: one rounding is 2^-9, some 40 independent ones along the depth add to about 1%; 5% allowed."""
  half = edm2(**SMALL, dtype='bfloat16')
  x, t, y = inputs()
  params = filled(half, x, t)
  assert all(a.dtype == jnp.float32 for a in jax.tree.leaves(jax.eval_shape(half.init, jax.random.key(0), x, t)))
  out, want = jax.jit(half, compiler_options=QUICK)(params, x, t, y), RUN(params, x, t, y)
  assert out.dtype == jnp.float32
  error = jnp.linalg.norm(out - want) / jnp.linalg.norm(want)
  assert 1e-4 < error < 0.05


@pytest.mark.slow
def test_remat_changes_nothing(filled):
  plain, remat = (edm2(**PLAIN, dropout=0.25, remat=policy) for policy in (None, 'dots'))
  x, t, y = inputs()
  params, key = filled(plain, x, t), jax.random.split(jax.random.key(4), 4)

  def gradient(net):
    return jax.jit(jax.grad(lambda p: jnp.square(net(p, x, t, y, key)).mean()), compiler_options=QUICK)(params)

  for a, b in zip(jax.tree.leaves(gradient(plain)), jax.tree.leaves(gradient(remat)), strict=True):
    np.testing.assert_allclose(a, b, atol=1e-5 * float(jnp.abs(a).max()) + 1e-9)
  jaxpr = str(jax.make_jaxpr(lambda p: remat(p, x, t, y))(params))
  assert 'remat' in jaxpr or 'checkpoint' in jaxpr


@pytest.mark.slow
def test_dropout_needs_a_key_and_is_each_samples_own(filled):
  net, (x, t, y) = edm2(**SMALL), inputs()
  params, key = filled(net, x, t), jax.random.split(jax.random.key(4), 4)
  off, on = RUN(params, x, t, y), RUN(params, x, t, y, key)
  assert (jnp.abs(on - off).max((1, 2, 3)) > 1e-3).all()
  np.testing.assert_allclose(RUN(params, x[::-1], t[::-1], y[::-1], key[::-1]), on[::-1], atol=1e-5)


def by_hand(q, k, v, mask=None):
  """Each head by `attend`."""
  return jax.vmap(attend, 2, 2)(q, k, v)


def blind(attend, q, k, v, given):
  return v * 0


@pytest.mark.slow
def test_attention_by_another_function_and_hooked(filled):
  net, (x, t, y) = edm2(**TINY), inputs()
  params = filled(net, x, t)
  run = lambda net: jax.jit(net, compiler_options=QUICK)(params, x, t, y)  # noqa: E731
  want = run(net)
  np.testing.assert_allclose(run(edm2(**TINY, attention_impl=by_hand)), want, atol=1e-5)
  assert jnp.abs(run(dataclasses.replace(net, hooks=(('up0_*', blind),))) - want).max() > 1e-3
  names = edm2(**SMALL).hook_names(x, t)
  assert names == ('down1_0/attention', 'middle_0/attention', 'up1_0/attention', 'up1_1/attention')


def test_logical_axes():
  """Each kernel names its features: outputs last, where forced normalisation and the model axis look for them."""
  net, (x, t, _) = edm2(**SMALL), inputs()
  kernels = {p: s for p, s in jax.tree.leaves_with_path(net.axes(x, t)) if p[-1].key == MP_KERNEL}
  assert len(kernels) == 4 + 10 * 3 + 5 + 4 * 2  # in, out, time, label; blocks; skips; attentions
  assert {spec[-1] for spec in kernels.values()} == {'out', 'heads', 'embed'}


@pytest.mark.parametrize(
  'field, change',
  [
    ('size', dict(size='XM')),
    ('channel_mult', dict(channel_mult=())),
    ('width', dict(width=0)),
    ('head_dim', dict(head_dim=3)),
    ('blocks_per_level', dict(blocks_per_level=0)),
    ('dropout', dict(dropout=1.0)),
    ('dtype', dict(dtype='int8')),
    ('classes', dict(classes=-1)),
    ('out_channels', dict(out_channels=0)),
    ('attention', dict(attention=(0,))),
    ('attention_impl', dict(attention_impl='flash')),
    ('remat', dict(remat='some')),
  ],
)
def test_refuses_arguments(field, change):
  with pytest.raises(ValueError, match=f'^{field}: .*allowed'):
    edm2(**(SMALL | change))


def test_refuses_shapes_and_labels():
  x, t, y = inputs()
  with pytest.raises(ValueError, match=r'^attention: .*16.*\[8, 4\]'):
    edm2(**(SMALL | dict(attention=(16,)))).init(jax.random.key(0), x, t)
  with pytest.raises(ValueError, match='^x: .*divisible by 2'):
    edm2(**SMALL).init(jax.random.key(0), x[:, :7], t)
  with pytest.raises(ValueError, match='^cond: .*classes=0'):
    edm2(**(SMALL | dict(classes=0))).init(jax.random.key(0), x, t, y)
