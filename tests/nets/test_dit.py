import math
import sys
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from diffjax.nets import Apply, dit, transformer
from diffjax.nets.embedding import cossin

QUICK = {'xla_backend_optimization_level': 0}
X = jax.random.normal(jax.random.key(0), (2, 4, 4, 2))
T, Y = jnp.array([5.0, 700.0]), jnp.array([0, 2])


def count(net, x):
  return sum(math.prod(a.shape) for a in jax.tree.leaves(jax.eval_shape(net.init, jax.random.key(0), x, jnp.zeros(1))))


@pytest.mark.parametrize(
  'size, patch, millions',
  [
    *(('S', p, 33) for p in (2, 4, 8)),
    ('B', 8, 131), ('B', 4, 130), ('B', 2, 130),
    ('L', 8, 459), ('L', 4, 458), ('L', 2, 458),
    ('XL', 8, 676), ('XL', 4, 675), ('XL', 2, 675),
  ],
)  # fmt: skip
def test_count_of_the_paper(size, patch, millions):
  """Table 4, latents 32 x 32 x 4 with learned variances; nothing is allocated."""
  x = jnp.zeros((1, 32, 32, 4))
  assert round(count(dit(size, patch=patch, classes=1000, out_channels=8, scan=True), x) / 1e6) == millions


def test_count_of_the_release():
  """DiT-XL/2 has 675,129,632 parameters, among them the 256 x 1152 fixed positions, which are none here."""
  net = dit('XL', patch=2, classes=1000, out_channels=8)
  assert count(net, jnp.zeros((1, 32, 32, 4))) == 675_129_632 - 256 * 1152


@pytest.mark.slow
def test_zero_at_init_and_what_learns_when(initial):
  """At init the output is 0, blocks are the identity and only the last map has a gradient; after one step also what it
  reads and the gates; after two everything."""
  net = Apply(dit(depth=2, width=16, heads=2, classes=3).module, ('in', 'block_1/out'))
  params = initial(net, X, T)

  @partial(jax.jit, compiler_options=QUICK)
  def gradient(params):
    out, pullback, features = jax.vjp(lambda p: net(p, X, T, Y), params, has_aux=True)
    return out, pullback(out - X)[0], features

  out, _, features = gradient(params)
  np.testing.assert_array_equal(out, np.zeros(X.shape))
  np.testing.assert_array_equal(features['in'], features['block_1/out'])
  moving = []
  for _ in range(3):
    _, grads, _ = gradient(params)
    paths = [
      (jax.tree_util.keystr(path, simple=True, separator='/'), g) for path, g in jax.tree.leaves_with_path(grads)
    ]
    moving.append({path for path, g in paths if g.any()})
    params = jax.tree.map(lambda p, g: p - 1e-2 * g, params, grads)
  assert moving[0] == {'out/kernel', 'out/bias'}
  assert {'ada/kernel', 'block_0/ada/kernel', 'block_1/ada/kernel', 'patch/kernel'} <= moving[1]
  assert len(moving[2]) == len(jax.tree.leaves(params))


def test_without_positions_patches_have_no_order(filled, monkeypatch):
  """Permuting patches permutes the output without positions, and does not with them."""
  net, order = dit(depth=2, width=16, heads=2), np.array([2, 0, 3, 1])
  params = filled(net, X, T)

  def shuffle(x):
    return transformer.unpatchify(transformer.patchify(x, 2)[:, order], (4, 4), 2)

  def off():
    run = jax.jit(lambda x: net(params, x, T), compiler_options=QUICK)
    return jnp.abs(run(shuffle(X)) - shuffle(run(X))).max()

  assert off() > 1e-2
  monkeypatch.setattr(
    sys.modules['diffjax.nets.dit'], 'positions', lambda rows, columns, size: np.zeros((rows * columns, size))
  )
  assert off() < 2e-5


def test_more_channels_out():
  net = dit(depth=1, width=16, heads=2, out_channels=4)
  params = jax.eval_shape(net.init, jax.random.key(0), X, T)
  assert jax.eval_shape(net, params, X, T).shape == (2, 4, 4, 4)
  with pytest.raises(ValueError, match='^out_channels: got 0'):
    dit(out_channels=0)


def test_cossin_order_and_frequencies():
  """cos first, w_i = 10000^(-i / (size/2)): not DDPM's order, whose slowest wave is 10000^-1 exactly."""
  t = jnp.array([0.0, 3.5, 1000.0])
  angle = np.outer(t, 10000.0 ** -np.array([0, 0.25, 0.5, 0.75]))
  np.testing.assert_allclose(cossin(t, 8), np.concatenate([np.cos(angle), np.sin(angle)], 1), atol=2e-4)
  with pytest.raises(ValueError, match='^size: got 7'):
    cossin(t, 7)


def test_cudnn_says_what_it_needs():
  net = dit(depth=1, width=16, heads=2, attention_impl='cudnn')
  with pytest.raises(ValueError, match="^attention_impl: got 'cudnn'.*bfloat16.*float32"):
    jax.eval_shape(net.init, jax.random.key(0), X, T)


@pytest.mark.slow
def test_attention_of_ones_own(filled):
  """Any function (q, k, v, mask) serves; one that computes the same gives the same."""
  params = filled(dit(depth=1, width=16, heads=2), X, T)
  want = dit(depth=1, width=16, heads=2)(params, X, T)
  np.testing.assert_allclose(dit(depth=1, width=16, heads=2, attention_impl=by_hand)(params, X, T), want, atol=1e-5)
  assert dit(attention_impl=by_hand) == dit(attention_impl=by_hand) != dit()


def by_hand(q, k, v, mask=None):
  weights = jnp.exp(jnp.einsum('bnhd,bmhd->bhnm', q, k) / q.shape[-1] ** 0.5)
  return jnp.einsum('bhnm,bmhd->bnhd', weights / weights.sum(-1, keepdims=True), v)
