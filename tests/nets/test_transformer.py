"""What holds for every transformer: DiT, U-ViT, UniDiffuser."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import PartitionSpec as P

from diffjax.nets import Apply, dit, unidiffuser, uvit
from diffjax.nets.transformer import patchify, positions, stacked, unpatchify, unstacked

QUICK = {'xla_backend_optimization_level': 0}  # these tests compile more than they compute
SMALL = dict(depth=2, width=16, heads=2, classes=3)
IMAGE = jax.random.normal(jax.random.key(0), (3, 4, 6, 2))
PAIR = {'image': IMAGE, 'text': jax.random.normal(jax.random.key(1), (3, 2, 5))}
T, Y = jnp.array([5.0, 300.0, 900.0]), jnp.array([0, 2, 1])
NETS = {
  'dit': (dit, IMAGE, T),
  'uvit': (uvit, IMAGE, T),
  'unidiffuser': (unidiffuser, PAIR, {'image': T, 'text': T / 3}),
}
every = pytest.mark.parametrize('name', NETS)
# UniDiffuser's blocks are U-ViT's with the norms elsewhere: what compiles for long is run for it with the slow tests.
some = pytest.mark.parametrize('name', ['dit', 'uvit', pytest.param('unidiffuser', marks=pytest.mark.slow)])


def case(name, **options):
  make, x, t = NETS[name]
  return make(**(SMALL | options)), x, t


def close(a, b, atol=1e-5):
  for p, q in zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True):
    np.testing.assert_allclose(p, q, atol=atol * (1 + float(jnp.abs(q).max())))


@partial(jax.jit, static_argnums=0, compiler_options=QUICK)
def run(net, params, x, t, y=Y):
  return net(params, x, t, y)


@partial(jax.jit, static_argnums=0, compiler_options=QUICK)
def gradient(net, params, x, t):
  return jax.grad(lambda p: sum(jnp.square(leaf).mean() for leaf in jax.tree.leaves(net(p, x, t, Y))))(params)


@pytest.mark.quick('dit')
@some
def test_vmap_and_null_label(name, filled):
  net, x, t = case(name)
  params = filled(net, x, t)
  plain = run(net, params, x, t)
  assert jax.tree.map(jnp.shape, plain) == jax.tree.map(jnp.shape, x)
  assert all(leaf.dtype == jnp.float32 for leaf in jax.tree.leaves(plain))

  def row(x, t, y):
    return jax.tree.map(lambda a: a[0], net(params, *jax.tree.map(lambda a: a[None], (x, t, y))))

  close(jax.jit(jax.vmap(row), compiler_options=QUICK)(x, t, Y), plain)
  null = run(net, params, x, t, jnp.full(3, 3))
  close(run(net, params, x, t, None), null, atol=1e-6)
  assert all(jnp.abs(a - b).max() > 1e-3 for a, b in zip(*map(jax.tree.leaves, (plain, null)), strict=True))


@pytest.mark.quick('uvit')
@some
def test_forward_and_reverse_mode(name, filled):
  """<c, J v> = <J^T c, v> over input and weights; J v is the slope; no weight is without a gradient."""
  net, x, t = case(name)
  at, v = (filled(net, x, t), x), (filled(net, x, t, seed=5), jax.tree.map(jnp.cos, x))
  c = jax.tree.map(jnp.sin, x)

  @partial(jax.jit, compiler_options=QUICK)
  def both(at, v):
    tangent = jax.jvp(lambda p, x: net(p, x, t, Y), at, v)[1]
    return tangent, jax.vjp(lambda p, x: net(p, x, t, Y), *at)[1](c)

  def inner(a, b):
    return sum(np.vdot(p, q) for p, q in zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True))

  tangent, grads = both(at, v)
  size = float(np.sqrt(inner(tangent, tangent) * inner(c, c)))
  np.testing.assert_allclose(inner(c, tangent), inner(grads, v), atol=1e-4 * size)
  step = 3e-3
  ahead, behind = (run(net, *jax.tree.map(lambda a, b, s=s: a + s * b, at, v), t) for s in (step, -step))
  slope = jax.tree.map(lambda a, b: (a - b) / (2 * step), ahead, behind)
  off = jax.tree.map(np.subtract, tangent, slope)
  assert inner(off, off) < 0.02**2 * inner(slope, slope)
  for path, g in jax.tree.leaves_with_path(grads):
    assert np.isfinite(g).all() and np.any(g), path


@some
def test_bfloat16_keeps_float32_weights(name, filled):
  """One rounding is 2^-9; some 20 independent ones along the depth add to about 1%; 5% allowed."""
  (net, x, t), (half, _, _) = case(name), case(name, dtype='bfloat16')
  params = filled(net, x, t)
  assert all(a.dtype == jnp.float32 for a in jax.tree.leaves(jax.eval_shape(half.init, jax.random.key(0), x, t)))
  out, want = run(half, params, x, t), run(net, params, x, t)
  for a, b in zip(jax.tree.leaves(out), jax.tree.leaves(want), strict=True):
    assert a.dtype == jnp.float32 and 1e-4 < jnp.linalg.norm(a - b) / jnp.linalg.norm(b) < 0.05


@pytest.mark.slow
@pytest.mark.parametrize('name, policy', [('dit', 'dots'), ('uvit', True)])
def test_remat_changes_nothing(name, policy, filled):
  (net, x, t), (other, _, _) = case(name), case(name, remat=policy)
  params = filled(net, x, t)
  close(gradient(other, params, x, t), gradient(net, params, x, t))
  assert 'remat' in str(jax.make_jaxpr(partial(other, x=x, t=t))(params))


@pytest.mark.slow
def test_policies_store_what_they_say():
  """Matrix products of forward and backward pass: plain is 3 for each of the forward's (one forward, two backward); all
  recomputed 4, but for what lies outside the blocks; with 'dots' none again."""
  products = {}
  for policy in (None, 'dots', 'dots_no_batch', True):
    net, x, t = case('dit', remat=policy)
    params = jax.eval_shape(net.init, jax.random.key(0), x, t)
    text = str(jax.make_jaxpr(jax.grad(lambda p, net=net, x=x, t=t: jnp.sum(net(p, x, t, Y))))(params))
    products[policy] = text.count('dot_general')
  assert products[None] == products['dots'] < products['dots_no_batch'] < products[True]


@pytest.mark.quick('uvit')
@some
def test_scan_is_unrolled(name, filled):
  """Outputs and features of both halves; the weights are the same ones, stacked."""
  (net, x, t), (scan, _, _) = case(name, depth=4), case(name, depth=4, scan=True)
  params = filled(net, x, t)
  both = stacked(params)
  shapes = jax.eval_shape(scan.init, jax.random.key(0), x, t)
  assert jax.tree.map(jnp.shape, both) == jax.tree.map(jnp.shape, shapes)
  jax.tree.map(np.testing.assert_array_equal, unstacked(both), params)
  blocks, block = ('blocks', 'block_3') if name == 'dit' else ('in_blocks', 'in_block_1')
  out, features = run(Apply(scan.module, (f'{blocks}/out', f'{blocks}/attention/out')), both, x, t)
  want, kept = run(Apply(net.module, (f'{block}/out', f'{block}/attention/out')), params, x, t)
  close(out, want)
  close(features[f'{blocks}/out'][-1], kept[f'{block}/out'])
  close(features[f'{blocks}/attention/out'][-1], kept[f'{block}/attention/out'])


@pytest.mark.slow
def test_scan_of_remat_has_the_gradients(filled):
  (net, x, t), (scan, _, _) = case('dit'), case('dit', scan=True, remat='dots')
  params = filled(net, x, t)
  close(gradient(scan, stacked(params), x, t), stacked(gradient(net, params, x, t)))


@every
@pytest.mark.parametrize('scan', [False, True])
def test_axes_name_every_weight(name, scan):
  net, x, t = case(name, scan=scan)
  params, axes = jax.eval_shape(net.init, jax.random.key(0), x, t), net.axes(x, t)
  leaves, tree = jax.tree.flatten(axes, is_leaf=lambda a: isinstance(a, P))
  assert tree == jax.tree.structure(params)
  for spec, weight in zip(leaves, jax.tree.leaves(params), strict=True):
    assert len(spec) == weight.ndim
    assert set(spec) <= {'in', 'out', 'heads', 'mlp', 'embed', 'label', 'layers', None} and any(spec)
    assert len([n for n in spec if n]) == len({n for n in spec if n}), 'a name twice could not be sharded'
    assert ('layers' in spec) <= scan


def test_axes_of_a_block():
  axes = dit(**SMALL, scan=True).axes(IMAGE, T)['blocks']
  assert axes['attention']['qkv']['kernel'] == P('layers', 'in', None, 'heads')
  assert axes['attention']['out']['kernel'] == P('layers', 'heads', 'out')
  assert axes['feed']['in']['kernel'] == P('layers', 'in', 'mlp')
  assert axes['feed']['out']['kernel'] == P('layers', 'mlp', 'out')


def test_patches_in_order():
  x = np.arange(2 * 4 * 6 * 3.0).reshape(2, 4, 6, 3)
  tokens = np.asarray(patchify(x, 2))
  for row in range(2):
    for column in range(3):
      patch = x[:, 2 * row : 2 * row + 2, 2 * column : 2 * column + 2]
      np.testing.assert_array_equal(tokens[:, 3 * row + column], patch.reshape(2, -1))
  np.testing.assert_array_equal(unpatchify(tokens, (4, 6), 2), x)


def test_positions():
  """The dot product of two is sum_i cos(w_i d) over both directions, a function of their distance; the column first."""
  table = positions(3, 5, 16)
  w = 10000.0 ** -(np.arange(4) / 4)
  np.testing.assert_allclose(table[5 * 2 + 3], np.concatenate([f(k * w) for k in (3, 2) for f in (np.sin, np.cos)]))
  np.testing.assert_allclose(table[13] @ table[6], np.cos(2 * w).sum() + np.cos(w).sum())


@every
@pytest.mark.parametrize(
  'field, change',
  [
    ('size', dict(size='XXL')),
    ('depth', dict(depth=0)),
    ('width', dict(width=18)),
    ('heads', dict(heads=3)),
    ('patch', dict(patch=1.5)),
    ('classes', dict(classes=-1)),
    ('attention_impl', dict(attention_impl='flash')),
    ('dtype', dict(dtype='int8')),
    ('remat', dict(remat='everything')),
  ],
)
def test_refuses_arguments(name, field, change):
  with pytest.raises(ValueError, match=f'^{field}: .*allowed'):
    case(name, **change)


@every
def test_refuses_shapes_and_labels(name):
  make, x, t = NETS[name]
  with pytest.raises(ValueError, match='^x.*divisible by 5'):
    jax.eval_shape(make(**SMALL, patch=5).init, jax.random.key(0), x, t)
  with pytest.raises(ValueError, match='^cond: .*classes=0'):
    jax.eval_shape(make(**(SMALL | dict(classes=0))).init, jax.random.key(0), x, t, Y)
