"""A control branch: without effect at first, what moves in which step, and controls that add."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from diffjax import nets
from diffjax.methods.starts import grafted

UNET = nets.unet(4, channel_mult=(1,), blocks_per_level=1, attention=(), classes=3)
NET = nets.controlled(UNET)
RNG = np.random.default_rng(0)
X, SOURCE = (jnp.asarray(RNG.standard_normal((2, 4, 4, c)), jnp.float32) for c in (1, 2))
T, LABEL = jnp.array([10.0, 500.0]), jnp.array([0, 3])
COND = {'label': LABEL, 'source': SOURCE}
run = jax.jit(NET)


@pytest.fixture(scope='module')
def params():
  """A U-Net with no path shut, and its branch as it begins."""
  shapes = jax.eval_shape(UNET.init, jax.random.key(0), X, T, LABEL)
  base = jax.tree.map(lambda s: jnp.asarray(0.4 * RNG.standard_normal(s.shape), jnp.float32), shapes)
  branch = jax.eval_shape(NET.branch.init, jax.random.key(0), X, T, COND)
  return {'base': base, 'control': grafted(branch, {'unet': base}), 'strength': jnp.asarray(1.0)}


def test_the_branch_is_the_encoder_and_begins_without_effect(params):
  """No weight of the way up; the base's own output to the last bit, whatever the image."""
  copied = params['control']['unet']
  assert not [name for name in copied if name.startswith('up') or name in ('norm', 'out')]
  assert {'in', 'down0_0', 'middle_0', 'middle_1', 'label'} <= set(copied)
  np.testing.assert_array_equal(run(params, X, T, COND), jax.jit(UNET)(params['base'], X, T, LABEL))


@pytest.mark.slow
def test_it_begins_without_effect_as_users_compile_it(optimised):
  """Of two levels: what halves is kept and added to as well."""
  unet = nets.unet(4, channel_mult=(1, 2), blocks_per_level=1, attention=(), classes=3)
  net = nets.controlled(unet)
  shapes = jax.eval_shape(unet.init, jax.random.key(0), X, T, LABEL)
  base = jax.tree.map(lambda s: jnp.asarray(0.4 * RNG.standard_normal(s.shape), jnp.float32), shapes)
  branch = jax.eval_shape(net.branch.init, jax.random.key(0), X, T, COND)
  whole = {'base': base, 'control': grafted(branch, {'unet': base}), 'strength': jnp.asarray(1.0)}
  assert {'down0_half', 'down1_0'} <= set(whole['control']['unet']) and 'zero_4' in whole['control']
  np.testing.assert_array_equal(jax.jit(net)(whole, X, T, COND), jax.jit(unet)(base, X, T, LABEL))


@pytest.mark.slow
def test_what_moves_first(params):
  """Step 1 moves the last zero convolutions alone; step 2 all of the branch, which then sees the image."""

  def loss(control, cond):
    return jnp.sum((NET({**params, 'control': control}, X, T, cond) - X) ** 2)

  slope = jax.jit(jax.grad(loss))
  control = params['control']
  first = slope(control, COND)
  size = {name: max(float(jnp.abs(leaf).max()) for leaf in jax.tree.leaves(tree)) for name, tree in first.items()}
  assert size['unet'] == size['zero_in'] == 0
  assert all(value > 0 for name, value in size.items() if name not in ('unet', 'zero_in')) and len(size) == 5
  moved = jax.tree.map(lambda p, g: p - 1e-3 * g, control, first)
  second = slope(moved, COND)
  shut = [jax.tree_util.keystr(path) for path, leaf in jax.tree_util.tree_leaves_with_path(second) if not leaf.any()]
  assert shut == []
  again = jax.tree.map(lambda p, g: p - 1e-3 * g, moved, second)
  other = {**COND, 'source': SOURCE + 1}
  assert (
    np.abs(run({**params, 'control': again}, X, T, COND) - run({**params, 'control': again}, X, T, other)).max() > 0
  )


def test_controls_add(params):
  """Twice the same control at half its strength is that control; at strength 0 it is none."""
  control = jax.tree.map(lambda p: p + 0.1, params['control'])
  one = run({**params, 'control': control}, X, T, COND)
  two = {**params, 'control': (control, control), 'strength': (jnp.asarray(0.25), jnp.asarray(0.75))}
  both = jax.jit(NET)(two, X, T, {'label': LABEL, 'source': (SOURCE, SOURCE)})
  np.testing.assert_allclose(both, one, rtol=1e-4, atol=1e-4)
  off = run({**params, 'control': control, 'strength': jnp.asarray(0.0)}, X, T, COND)
  np.testing.assert_array_equal(off, run(params, X, T, COND))
  assert np.abs(one - off).max() > 1e-3


def test_refuses():
  with pytest.raises(ValueError, match="net: got 'MLP'; allowed: a unet"):
    nets.controlled(nets.mlp(8, 1))
  with pytest.raises(ValueError, match="cond: got 'no source'; allowed: a dict with 'source'"):
    jax.eval_shape(NET.branch.init, jax.random.key(0), X, T, LABEL)
