"""The state-space network: its convolution is the recurrence, and the whole of it a program step by step."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from diffjax.nets import s4
from diffjax.nets.s4 import convolved, kernel

RNG = np.random.default_rng(0)
L, H, N = 9, 3, 8


def space(width=H):
  """The numbers of a layer, as it begins but for its clock."""
  clock = np.log(RNG.uniform(0.01, 0.3, width))
  decay, turn = np.full((width, N // 2), np.log(0.5)), np.pi * np.arange(N // 2) * np.ones((width, 1))
  return dict(clock=clock, decay=decay, turn=turn, read=RNG.standard_normal((2, 2, width, N // 2)))


def recurrence(u, p, read):
  """y_l of s_l = A_bar s_l-1 + B_bar u_l, u (B, L, H), in complex128."""
  rate = -np.exp(p['decay']) + 1j * p['turn']
  a = np.exp(rate * np.exp(p['clock'])[:, None])
  b, c = (a - 1) / rate, read[0] + 1j * read[1]
  s, out = np.zeros((len(u), *rate.shape), complex), []
  for step in range(u.shape[1]):
    s = a * s + b * u[:, step, :, None]
    out.append(2 * (c * s).sum(-1).real)
  return np.stack(out, 1)


def both_ways(u, p):
  """The second direction: a causal one on the reversed series, shifted by one."""
  later = np.concatenate([u[:, 1:], np.zeros_like(u[:, :1])], 1)
  return recurrence(u, p, p['read'][0]) + recurrence(later[:, ::-1], p, p['read'][1])[:, ::-1]


def test_convolution_is_the_recurrence(x64):
  """To 1e-12, in both directions; the answer to an impulse too."""
  p, u = space(), RNG.standard_normal((2, L, H))

  @jax.jit
  def run(p, u):
    forward, backward = (kernel(p['clock'], p['decay'], p['turn'], p['read'][i], L) for i in range(2))
    return forward, convolved(u, forward, backward)

  answer, got = run(p, u)
  np.testing.assert_allclose(got, both_ways(u, p), atol=1e-12)
  impulse = np.zeros((1, L, H))
  impulse[:, 0] = 1
  np.testing.assert_allclose(answer, recurrence(impulse, p, p['read'][0])[0], atol=1e-12)


NET = s4(4, 2, N, classes=3)
T = jnp.array([3.0, 400.0])
X = np.float32(RNG.standard_normal((2, L, 2)))
TOLD = {'label': jnp.array([1, 3]), 'source': np.float32(RNG.standard_normal((2, L, 1)))}


@pytest.fixture(scope='module')
def params():
  shapes, rng = jax.eval_shape(NET.init, jax.random.key(0), X, T, TOLD), np.random.default_rng(1)
  drawn = jax.tree.map(lambda leaf: 0.4 * rng.standard_normal(leaf.shape), shapes)
  for i in range(2):
    drawn[f'block{i}']['ssm'] |= space(4)
  return jax.tree.map(np.float32, drawn)


def gelu(a):
  return 0.5 * a * (1 + np.tanh(np.sqrt(2 / np.pi) * (a + 0.044715 * a**3)))


def test_forward_by_hand(params):
  p = jax.tree.map(np.float64, params)
  dense = lambda tree, value: value @ tree['kernel'] + tree['bias']  # noqa: E731
  sigmoid = lambda a: 1 / (1 + np.exp(-a))  # noqa: E731
  angle = np.float64(T)[:, None] * np.geomspace(1e-3, 2, 16)
  e = np.concatenate([np.sin(angle), np.cos(angle), p['label']['table'][[1, 3]]], 1)
  e = dense(p['embed'], e)
  e, skips = e * sigmoid(e), 0
  h = dense(p['in'], np.concatenate([X, TOLD['source']], -1).astype(float))
  for i in range(2):
    b, x = p[f'block{i}'], h
    h = x + dense(b['time'], e)[:, None]
    normal = (h - h.mean(-1, keepdims=True)) / np.sqrt(h.var(-1, keepdims=True) + 1e-6)
    normal = normal * b['norm']['scale'] + b['norm']['bias']
    h = h + dense(b['mix'], gelu(both_ways(normal, b['ssm']) + b['ssm']['direct'] * normal))
    g = np.tanh(h) * sigmoid(h)
    h, skips = x + dense(b['residual'], g), skips + dense(b['skip'], g)
  want = dense(p['out_1'], gelu(dense(p['out_0'], skips)))
  got = jax.jit(NET)(params, X, T, TOLD)
  assert got.dtype == jnp.float32
  np.testing.assert_allclose(got, want, atol=2e-3)


def test_half_precision_and_other_outputs(params):
  want, half = (jax.jit(s4(4, 2, N, classes=3, dtype=d))(params, X, T, TOLD) for d in ('float32', 'bfloat16'))
  assert half.dtype == jnp.float32 and 0 < jnp.linalg.norm(half - want) < 0.05 * jnp.linalg.norm(want)
  net = s4(4, 1, 2, out_channels=5)
  shapes = jax.eval_shape(net.init, jax.random.key(0), X, T)
  assert jax.eval_shape(net, shapes, X, T).shape == (2, L, 5)


def test_it_starts_at_zero_with_the_published_state_space(initial):
  net = s4(2, 1, 4)
  params = initial(net, X, T)
  assert (params['out_1']['kernel'] == 0).all() and (params['out_1']['bias'] == 0).all()
  ssm = params['block0']['ssm']
  np.testing.assert_allclose(np.exp(ssm['decay']), 0.5, rtol=1e-6)
  np.testing.assert_allclose(ssm['turn'], np.pi * np.array([[0, 1]] * 2), rtol=1e-6)
  assert (np.log(1e-3) <= ssm['clock']).all() and (ssm['clock'] <= np.log(0.1)).all()


@pytest.mark.parametrize('field, value', [('width', 0), ('depth', 1.5), ('states', 3), ('classes', True)])
def test_refuses(field, value):
  with pytest.raises(ValueError, match=f'^{field}: .*allowed'):
    s4(**{field: value})
  with pytest.raises(ValueError, match=r'source: got \(2, 4, 1\); allowed: as long as x'):
    jax.eval_shape(s4(2, 1, 2).init, jax.random.key(0), X, T, {'source': jnp.zeros((2, 4, 1))})
