import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import PartitionSpec as P

from diffjax.nets import Apply, mlp, unet

SMALL = dict(width=8, channel_mult=[1, 2], blocks_per_level=1, attention=[4], classes=3)
QUICK = {'xla_backend_optimization_level': 0}  # these tests compile more than they compute
X, T = jnp.ones((2, 8, 8, 1)), jnp.array([1.0, 500.0])


def test_equal_modules_are_one_function():
  a, b = unet(**SMALL), unet(**SMALL, dtype=jnp.float32)
  assert a == b and hash(a) == hash(b) and a != unet(**(SMALL | dict(blocks_per_level=2))) and a != mlp()
  assert Apply(a.module, ('in',)) != a


def test_equal_modules_compile_once(initial):
  a, b = mlp(8, 1), mlp(8, 1)
  params, traces = initial(a, X, T), []

  def run(net, params):
    traces.append(net)
    return net(params, X, T)

  run = jax.jit(run, static_argnums=0)
  np.testing.assert_array_equal(run(a, params), run(b, params))
  assert len(traces) == 1


def test_params_are_a_plain_dictionary_of_float32():
  params = jax.eval_shape(unet(**SMALL).init, jax.random.key(0), X, T)
  assert type(params) is dict and type(params['in']) is dict
  assert all(type(a) is jax.ShapeDtypeStruct and a.dtype == jnp.float32 for a in jax.tree.leaves(params))


@pytest.mark.parametrize(
  'net',
  [mlp(8, 1), pytest.param(unet(8, channel_mult=(1,), blocks_per_level=1, attention=()), marks=pytest.mark.slow)],
  ids=['mlp', 'unet'],
)
def test_params_do_not_depend_on_an_open_mesh(net, initial):
  want = initial(net, X, T)
  with jax.set_mesh(jax.make_mesh((1,), ('data',), axis_types=(jax.sharding.AxisType.Auto,))):
    got = initial(net, X, T)
    jax.eval_shape(net, got, X, T)
  jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-6), want, got)


@pytest.mark.parametrize('net, x', [(unet(**SMALL), X), (mlp(8, 2, classes=3), jnp.ones((2, 2)))])
def test_axes_name_every_weight(net, x):
  params, axes = jax.eval_shape(net.init, jax.random.key(0), x, T), net.axes(x, T)
  leaves, tree = jax.tree.flatten(axes, is_leaf=lambda a: isinstance(a, P))
  assert tree == jax.tree.structure(params)
  for spec, weight in zip(leaves, jax.tree.leaves(params), strict=True):
    assert len(spec) == weight.ndim
    assert set(spec) <= {'in', 'out', 'heads', 'embed', 'label', None} and any(spec)
    assert len([n for n in spec if n]) == len({n for n in spec if n}), 'a name twice could not be sharded'


def test_axes_of_attention_and_conv():
  axes = unet(**SMALL).axes(X, T)
  assert axes['down0_0']['conv_0']['kernel'] == P(None, None, 'in', 'out')
  assert axes['middle_attention']['qkv']['kernel'] == P('in', None, 'heads')
  assert axes['label']['table'] == P('label', 'embed')


def test_taps(filled):
  plain = unet(**SMALL)
  tapped = Apply(plain.module, ('middle', 'in', 'head'))
  params = filled(plain, X, T)
  out, features = jax.jit(tapped, compiler_options=QUICK)(params, X, T)
  np.testing.assert_allclose(out, jax.jit(plain, compiler_options=QUICK)(params, X, T), atol=1e-5)
  assert {k: v.shape for k, v in features.items()} == {
    'middle': (2, 4, 4, 16),
    'in': (2, 8, 8, 8),
    'head': (2, 8, 8, 8),
  }
  # What is tapped is what the network reads: the head's convolution of 'head' is the output.
  kernel, bias = params['out']['kernel'], params['out']['bias']
  dimension_numbers = ('NHWC', 'HWIO', 'NHWC')
  by_hand = jax.lax.conv_general_dilated(features['head'], kernel, (1, 1), 'SAME', dimension_numbers=dimension_numbers)
  np.testing.assert_allclose(by_hand + bias, out, atol=1e-5)


@pytest.mark.slow
def test_taps_under_remat(filled):
  params, features = filled(unet(**SMALL), X, T), []
  for remat in (False, True):
    net = Apply(unet(**SMALL, remat=remat).module, ('middle',))
    features.append(jax.jit(net, compiler_options=QUICK)(params, X, T)[1]['middle'])
  np.testing.assert_allclose(*features, atol=1e-5)


def test_tap_names():
  net = unet(**SMALL)
  names = net.tap_names(X, T)
  blocks = 'in down0_0 down0_half down1_0 middle up1_0 up1_1 up1_double up0_0 up0_1 head'.split()
  assert set(names) == {*blocks, *(f'{name}_attention/out' for name in ('down1_0', 'middle', 'up1_1'))}
  with pytest.raises(ValueError, match="^taps: 'midle'.*allowed: .*middle"):
    params = jax.eval_shape(net.init, jax.random.key(0), X, T)
    jax.eval_shape(Apply(net.module, ('midle',)), params, X, T)
