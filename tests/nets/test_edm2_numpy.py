"""EDM2's U-Net against a float64 NumPy evaluation written from the paper's description, loop by loop."""

import jax
import numpy as np
import pytest

from diffjax.nets import edm2


def normalise(x, axes):
  count = np.prod([x.shape[a] for a in axes])
  return x / (1e-4 + np.sqrt((x**2).sum(axes, keepdims=True) / count))


def silu(x):
  return x / (1 + np.exp(-x)) / 0.596


def add(a, b, t):
  return ((1 - t) * a + t * b) / np.sqrt((1 - t) ** 2 + t**2)


def join(a, b):
  n = a.shape[-1] + b.shape[-1]
  return np.concatenate([a * np.sqrt(n / 2 / a.shape[-1]), b * np.sqrt(n / 2 / b.shape[-1])], -1)


def weight(p):
  w = p['mp_kernel']
  fan = np.prod(w.shape[:-1])
  return normalise(w, tuple(range(w.ndim - 1))) / np.sqrt(fan)


def dense(p, x):
  return x @ weight(p)


def conv(p, x):
  kernel = weight(p)
  r = kernel.shape[0] // 2
  padded = np.pad(x, ((0, 0), (r, r), (r, r), (0, 0)))
  out = np.zeros((*x.shape[:3], kernel.shape[-1]))
  for i in range(x.shape[1]):
    for j in range(x.shape[2]):
      out[:, i, j] = np.tensordot(padded[:, i : i + 2 * r + 1, j : j + 2 * r + 1], kernel, 3)
  return out


def attention(p, x, heads):
  b, h, w, c = x.shape
  qkv = dense(p['qkv'], x.reshape(b, h * w, c)).reshape(b, h * w, heads, c // heads, 3)
  out = np.empty((b, h * w, heads, c // heads))
  for n in range(b):
    for m in range(heads):
      q, k, v = (normalise(qkv[n, :, m, :, i], (1,)) for i in range(3))
      weights = np.exp(q @ k.T / np.sqrt(c // heads))
      out[n, :, m] = weights / weights.sum(1, keepdims=True) @ v
  return dense(p['out'], out.reshape(b, h * w, c)).reshape(x.shape)


def halve(x):
  return (x[:, ::2, ::2] + x[:, 1::2, ::2] + x[:, ::2, 1::2] + x[:, 1::2, 1::2]) / 4


def double(x):
  return x.repeat(2, 1).repeat(2, 2)


def block(p, x, e, encoder, head, change=lambda x: x):
  x = change(x)
  if encoder:
    x = normalise(conv(p['skip'], x) if 'skip' in p else x, (3,))
  y = conv(p['conv_0'], silu(x))
  y = conv(p['conv_1'], silu(y * (1 + p['gain'] * dense(p['time'], e))[:, None, None]))
  if not encoder and 'skip' in p:
    x = conv(p['skip'], x)
  x = add(x, y, 0.3)
  if 'attention' in p:
    x = add(x, attention(p['attention'], x, x.shape[-1] // head), 0.3)
  return np.clip(x, -256, 256)


def forward(p, x, t, labels, channel_mult, blocks_per_level, head_dim, classes):
  angle = 2 * np.pi * (t[:, None] * p['fourier']['frequencies'] + p['fourier']['phases'])
  e = dense(p['time'], np.sqrt(2) * np.cos(angle))
  if classes:
    hot = np.eye(classes + 1)[labels][:, :classes]
    e = add(e, dense(p['label'], hot * np.sqrt(classes)), 0.5)
  e = silu(e)
  h = conv(p['in'], np.concatenate([x, np.ones_like(x[..., :1])], -1))
  skips = [h]
  for i in range(channel_mult):
    for j in range(blocks_per_level):
      h = block(p[f'down{i}_{j}'], h, e, True, head_dim)
      skips.append(h)
    if i + 1 < channel_mult:
      h = block(p[f'down{i}_half'], h, e, True, head_dim, halve)
      skips.append(h)
  h = block(p['middle_1'], block(p['middle_0'], h, e, False, head_dim), e, False, head_dim)
  for i in reversed(range(channel_mult)):
    for j in range(blocks_per_level + 1):
      h = block(p[f'up{i}_{j}'], join(h, skips.pop()), e, False, head_dim)
    if i:
      h = block(p[f'up{i}_double'], h, e, False, head_dim, double)
  assert not skips
  return conv(p['out'], h) * p['gain']


@pytest.mark.quick('0')
@pytest.mark.parametrize('classes', [3, 0])
def test_forward_is_the_papers(classes):
  """float32 against float64: eps 6e-8 times the depth (about 40 maps) times their condition: 1e-4 of the largest."""
  rng = np.random.default_rng(0)
  sizes = dict(channel_mult=(1, 2), blocks_per_level=2 if classes else 1, head_dim=4, classes=classes)
  net = edm2(width=8, attention=(4,), **sizes)
  x, t = rng.standard_normal((3, 8, 8, 2)), np.array([-1.5, 0.2, 1.0])
  labels = np.array([0, 2, 3]) if classes else None
  shapes = jax.eval_shape(net.init, jax.random.key(0), x.astype('f4'), t.astype('f4'))
  params = jax.tree.map(lambda s: np.asarray(rng.standard_normal(s.shape)), shapes)
  run = jax.jit(net, compiler_options={'xla_backend_optimization_level': 0})
  got = run(jax.tree.map(np.float32, params), x.astype('f4'), t.astype('f4'), labels)
  want = forward(params, x, t, labels, **(sizes | dict(channel_mult=2)))
  assert 'attention' in params['down1_0'] and 'attention' not in params['down0_0']
  assert np.abs(want).max() > 0.01
  np.testing.assert_allclose(got, want, atol=1e-4 * np.abs(want).max())
