import jax
import jax.numpy as jnp
import numpy as np
import pytest

from diffjax.nets import mlp

T = jnp.array([3.0, 400.0, 990.0])
X = jax.random.normal(jax.random.key(0), (3, 2))
NET = mlp(8, 2, classes=4)


def test_forward_by_hand(filled):
  params = filled(NET, X, T)
  p = jax.tree.map(np.float64, params)
  angle = np.float64(T)[:, None] * np.geomspace(1e-3, 2, 16)
  e = np.concatenate([np.sin(angle), np.cos(angle), p['label']['table'][[1, 0, 4]]], 1)
  h = np.float64(X)
  for i in range(2):
    a = (
      h @ p[f'hidden_{i}']['kernel']
      + p[f'hidden_{i}']['bias']
      + e @ p[f'embed_{i}']['kernel']
      + p[f'embed_{i}']['bias']
    )
    h = a / (1 + np.exp(-a))
  want = h @ p['out']['kernel'] + p['out']['bias']
  # sin(2 * 990) loses 11 bits of the argument: 1e-4 an entry.
  np.testing.assert_allclose(NET(params, X, T, jnp.array([1, 0, 4])), want, atol=1e-3)


def test_zero_at_init_and_null_label(filled, initial):
  np.testing.assert_array_equal(NET(initial(NET, X, T), X, T), np.zeros((3, 2)))
  params = filled(NET, X, T)
  np.testing.assert_array_equal(NET(params, X, T), NET(params, X, T, jnp.full(3, 4)))


def test_count_of_the_bench():
  """4096 x 2 on points: x, 32 waves, a hidden square, the output."""
  shapes = jax.eval_shape(mlp(4096, 2).init, jax.random.key(0), X, T)
  w = 4096
  assert sum(a.size for a in jax.tree.leaves(shapes)) == (2 * w + w) + (w * w + w) + 2 * (32 * w + w) + (2 * w + 2)


def test_jit_vmap_jvp_bfloat16(filled):
  params, y = filled(NET, X, T), jnp.array([1, 0, 4])
  plain = NET(params, X, T, y)
  np.testing.assert_allclose(jax.jit(NET)(params, X, T, y), plain, atol=1e-5)
  rows = jax.vmap(lambda x, t, y: NET(params, x[None], t[None], y[None])[0])(X, T, y)
  np.testing.assert_allclose(rows, plain, atol=1e-5)
  v, c = jnp.ones((3, 2)), jnp.arange(6.0).reshape(3, 2)
  _, tangent = jax.jvp(lambda x: NET(params, x, T, y), (X,), (v,))
  _, pullback = jax.vjp(lambda x: NET(params, x, T, y), X)
  np.testing.assert_allclose(jnp.vdot(c, tangent), jnp.vdot(pullback(c)[0], v), rtol=1e-4)
  half = mlp(8, 2, classes=4, dtype='bfloat16')(params, X, T, y)
  assert half.dtype == jnp.float32 and 0 < jnp.linalg.norm(half - plain) < 0.03 * jnp.linalg.norm(plain)


@pytest.mark.parametrize('scale', [1000.0, 2.0])
def test_both_coordinates_tell_times_apart(scale):
  """Over 1000 t as over -lam / 4 in (-1, 1): embeddings of nearby times are near, those of distant times are not."""
  from diffjax.nets.embedding import waves
  from diffjax.nets.mlp import FREQUENCIES

  t = jnp.linspace(0, 1, 257) * scale
  e = waves(t, FREQUENCIES)
  distance = jnp.linalg.norm(e[:, None] - e[None], axis=-1)
  apart = jnp.abs(t[:, None] - t[None]) >= 0.1 * scale
  assert jnp.where(apart, distance, jnp.inf).min() > 0.15
  slow = waves(t[:2] * 0 + jnp.array([0, scale / 256]), FREQUENCIES[:4])
  assert jnp.linalg.norm(slow[1] - slow[0]) < 0.05


def test_other_shapes():
  x = jnp.ones((3, 4, 4, 1))
  for net, shape in ((mlp(8, 1, out_channels=5), (3, 5)), (mlp(8, 1), x.shape)):
    params = jax.eval_shape(net.init, jax.random.key(0), x, T)
    assert jax.eval_shape(net, params, x, T).shape == shape


@pytest.mark.parametrize(
  'field, value', [('width', 0), ('depth', 1.5), ('out_channels', -1), ('classes', True), ('dtype', 'int32')]
)
def test_refuses(field, value):
  with pytest.raises(ValueError, match=f'^{field}: .*allowed'):
    mlp(**{field: value})
