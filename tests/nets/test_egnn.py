"""The equivariant network: as its formulas edge by edge, and as what it commutes with."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from diffjax.nets import egnn
from diffjax.nets.egnn import centred

N, F = 4, 2
NET = egnn(8, 2, classes=3)
T = jnp.array([3.0, 400.0, 990.0])
RNG = np.random.default_rng(0)
X = np.float32(RNG.standard_normal((3, N, 3 + F)))
Y = jnp.array([1, 0, 3])
MASK = np.array([[1, 1, 1, 1], [1, 0, 1, 1], [1, 1, 0, 0]])
TOLD = {'label': Y, 'source': np.float32(RNG.standard_normal((3, 1))), 'mask': MASK}
run = jax.jit(NET)


@pytest.fixture(scope='module')
def params():
  like = jax.eval_shape(NET.init, jax.random.key(0), X, T, TOLD)
  rng = np.random.default_rng(1)
  return jax.tree.map(lambda leaf: np.float32(0.4 * rng.standard_normal(leaf.shape)), like)


def silu(a):
  return a / (1 + np.exp(-a))


def by_hand(params, x, t, label, source, mask):
  """One cloud, its points one by one and the padded ones left out; float64."""
  p = jax.tree.map(np.float64, params)

  def dense(tree, *names_and_values):
    return sum(value @ tree[name]['kernel'] + tree[name].get('bias', 0) for name, value in names_and_values)

  angle = float(t) * np.geomspace(1e-3, 2, 16)
  e = np.concatenate([np.sin(angle), np.cos(angle), p['label']['table'][label], source])
  there = np.flatnonzero(mask)
  rest = x[there, 3:]
  start = place = x[there, :3] - x[there, :3].mean(0)
  h = dense(p, ('embed', e), ('in', rest))
  n, others = len(there), max(len(there) - 1, 1)
  for i in range(2):
    b = p[f'block{i}']

    def edge(name, k, m, b=b, h=h, place=place):
      far = np.array([((place[k] - place[m]) ** 2).sum(), ((start[k] - start[m]) ** 2).sum()])
      first = silu(dense(b, (f'{name}_to', h[k]), (f'{name}_from', h[m]), (f'{name}_far', far)))
      return silu(dense(b, (f'{name}_1', first)))

    heard, moved = np.zeros_like(h), np.zeros_like(place)
    for k in range(n):
      for m in range(n):
        if k != m:
          message, away = edge('message', k, m), place[k] - place[m]
          gate = 1 / (1 + np.exp(-dense(b, ('gate', message))))
          heard[k] += gate * message / others
    new = h + dense(b, ('update_1', silu(dense(b, ('update_0', np.concatenate([h, heard], 1))))))
    for k in range(n):
      for m in range(n):
        if k != m:
          away = place[k] - place[m]
          pull = 15 * np.tanh(dense(b, ('pull', edge('move', k, m, h=new))))
          moved[k] += pull * away / (np.sqrt((away**2).sum()) + 1) / others
    h, place = new, place + moved
  out = np.zeros((N, 3 + F))
  gone = place - start
  out[there] = np.concatenate([gone - gone.mean(0), dense(p, ('out', h))], 1)
  return out


def test_forward_by_hand(params):
  got = run(params, X, T, TOLD)
  for i in range(3):
    want = by_hand(params, np.float64(X[i]), T[i], int(Y[i]), np.float64(TOLD['source'][i]), TOLD['mask'][i])
    np.testing.assert_allclose(got[i], want, atol=2e-3, rtol=1e-3)  # sin(2 * 990) loses 11 bits of its argument


def test_it_turns_reflects_moves_and_permutes_with_its_input(params):
  """To 1e-4: places with any orthogonal map, features and read-outs not; a shift of the input changes nothing."""
  told = {**TOLD, 'mask': np.ones((3, N))}
  plain = run(params, X, T, told)
  assert np.abs(plain).max() > 1 and np.abs(plain[..., :3].mean(1)).max() < 1e-5
  order = np.array([2, 0, 3, 1])
  for sign in (1, -1):
    turn = np.float32(np.linalg.qr(RNG.standard_normal((3, 3)))[0])
    turn *= sign * np.sign(np.linalg.det(turn))
    moved = np.concatenate([X[..., :3] @ turn + np.float32([3, -2, 5]), X[..., 3:]], -1)[:, order]
    want = np.concatenate([plain[..., :3] @ turn, plain[..., 3:]], -1)[:, order]
    np.testing.assert_allclose(run(params, moved, T, told), want, atol=1e-4, rtol=1e-4)
  read = jax.jit(egnn(8, 1, out_channels=2, classes=3))
  shapes = jax.eval_shape(egnn(8, 1, out_channels=2, classes=3).init, jax.random.key(0), X, T, told)
  weights = jax.tree.map(lambda s: np.full(s.shape, 0.3, np.float32), shapes)
  np.testing.assert_allclose(read(weights, moved, T, told), read(weights, X, T, told), rtol=1e-4)
  assert read(weights, X, T, told).shape == (3, 2)


def test_rows_that_are_no_points_change_nothing(params):
  """Whatever stands in them; and the answer there is 0."""
  padded = np.concatenate([X, 7 + X[:, :2]], 1)
  mask = np.concatenate([TOLD['mask'], np.zeros((3, 2))], 1)
  got = jax.jit(NET)(params, padded, T, {**TOLD, 'mask': mask})
  np.testing.assert_allclose(got[:, :N], run(params, X, T, TOLD), atol=1e-5)
  assert (np.asarray(got)[mask == 0] == 0).all()


def test_zero_at_init_and_half_precision(params, initial):
  tiny = egnn(2, 1)
  told = {'mask': MASK}
  np.testing.assert_array_equal(jax.jit(tiny)(initial(tiny, X, T, told), X, T, told), np.zeros_like(X))
  half = jax.jit(egnn(8, 2, classes=3, dtype='bfloat16'))(params, X, T, TOLD)
  want = run(params, X, T, TOLD)
  assert half.dtype == jnp.float32 and 0 < jnp.linalg.norm(half - want) < 0.05 * jnp.linalg.norm(want)


def test_the_mean_of_a_cloud(x64):
  x = RNG.standard_normal((2, N, 5))
  plain = jax.jit(centred)(x)
  np.testing.assert_allclose(plain[..., :3].mean(1), 0, atol=1e-15)
  np.testing.assert_array_equal(plain[..., 3:], x[..., 3:])
  mask = np.array([[1, 1, 0, 1], [0, 0, 1, 1]])
  got = np.asarray(jax.jit(centred)(x, mask))
  for i in range(2):
    part = x[i][mask[i] > 0]
    np.testing.assert_allclose(got[i][mask[i] > 0], part - np.append(part[:, :3].mean(0), [0, 0]), atol=1e-15)
    assert (got[i][mask[i] == 0] == 0).all()


@pytest.mark.parametrize('field, value', [('width', 0), ('depth', 1.5), ('out_channels', -1), ('classes', True)])
def test_refuses(field, value):
  with pytest.raises(ValueError, match=f'^{field}: .*allowed'):
    egnn(**{field: value})
  with pytest.raises(ValueError, match=r'x: got \(3, 2\); allowed: point clouds'):
    jax.eval_shape(egnn(8, 1).init, jax.random.key(0), jnp.zeros((3, 2)), T)
