"""The U-Net against a float64 NumPy evaluation written from the paper's description, loop by loop."""

import jax
import numpy as np
import pytest

from diffjax.nets import unet


def silu(x):
  return x / (1 + np.exp(-x))


def conv(p, x):
  kernel = p['kernel']
  r = kernel.shape[0] // 2
  padded = np.pad(x, ((0, 0), (r, r), (r, r), (0, 0)))
  out = np.zeros((*x.shape[:3], kernel.shape[-1]))
  for i in range(x.shape[1]):
    for j in range(x.shape[2]):
      out[:, i, j] = np.tensordot(padded[:, i : i + 2 * r + 1, j : j + 2 * r + 1], kernel, 3)
  return out + p['bias']


def dense(p, x):
  return x @ p['kernel'] + p['bias']


def norm(p, x):
  b, h, w, c = x.shape
  groups = min(c // 4, 32)
  assert c % groups == 0
  y = x.reshape(b, h * w, groups, c // groups)
  y = (y - y.mean((1, 3), keepdims=True)) / np.sqrt(y.var((1, 3), keepdims=True) + 1e-6)
  return y.reshape(x.shape) * p['scale'] + p['bias']


def attention(p, x):
  b, h, w, c = x.shape
  y = norm(p['norm'], x).reshape(b, h * w, c)
  q, k, v = (y @ p['qkv']['kernel'][:, i] + p['qkv']['bias'][i] for i in range(3))
  out = np.empty_like(y)
  for n in range(b):
    weights = np.exp(q[n] @ k[n].T / np.sqrt(c))
    out[n] = weights / weights.sum(1, keepdims=True) @ v[n]
  return (x + dense(p['out'], out).reshape(x.shape)) / np.sqrt(2)


def upfirdn(x, up, down, pad, gain):
  """Zeros between pixels, pad, correlate with the outer product of [1, 3, 3, 1] (sum `gain`), keep every down-th."""
  b, h, w, c = x.shape
  z = np.zeros((b, up * h, up * w, c))
  z[:, ::up, ::up] = x
  z = np.pad(z, ((0, 0), pad, pad, (0, 0)))
  kernel = np.outer([1, 3, 3, 1], [1, 3, 3, 1]) / 64 * gain
  size = z.shape[1] - 3
  out = sum(kernel[i, j] * z[:, i : i + size, j : j + size] for i in range(4) for j in range(4))
  return out[:, ::down, ::down]


RESAMPLE = {
  'nearest': (
    lambda x: (x[:, ::2, ::2] + x[:, 1::2, ::2] + x[:, ::2, 1::2] + x[:, 1::2, 1::2]) / 4,
    lambda x: x.repeat(2, 1).repeat(2, 2),
  ),
  'fir': (lambda x: upfirdn(x, 1, 2, (1, 1), 1), lambda x: upfirdn(x, 2, 1, (2, 1), 4)),
}


def residual(p, x, temb, change=lambda h: h):
  h = conv(p['conv_0'], change(silu(norm(p['norm_0'], x)))) + dense(p['time'], silu(temb))[:, None, None]
  h = conv(p['conv_1'], silu(norm(p['norm_1'], h)))
  x = conv(p['skip'], change(x)) if 'skip' in p else change(x)
  return (x + h) / np.sqrt(2)


def stride(p, x):
  """NCSN++'s convolution downwards: blurred at full size with two zeros outside, then every second place of 3 x 3."""
  blurred = upfirdn(x, 1, 1, (2, 2), 1)
  n = x.shape[1] // 2
  out = np.zeros((x.shape[0], n, n, p['bias'].size))
  for i in range(n):
    for j in range(n):
      out[:, i, j] = np.tensordot(blurred[:, 2 * i : 2 * i + 3, 2 * j : 2 * j + 3], p['kernel'], 3)
  return out + p['bias']


def angles(embedding, t, width):
  if embedding == 'sincos':
    return t[:, None] * 10000 ** (-np.arange(width // 2) / (width // 2 - 1))
  log_sigma = 4 * t[:, None]
  return 2 * np.pi * 16 * np.random.default_rng(0).standard_normal(width) * log_sigma


def forward(
  p,
  x,
  t,
  labels,
  augment,
  width,
  channel_mult,
  blocks_per_level,
  at,
  resample='nearest',
  embedding='sincos',
  progressive=False,
):
  halve, double = RESAMPLE[resample]
  angle = angles(embedding, t, width)
  temb = np.concatenate([np.sin(angle), np.cos(angle)], 1) + augment @ p['augment']['kernel']
  temb = dense(p['time_1'], silu(dense(p['time_0'], temb))) + p['label']['table'][labels]
  h, pyramid = conv(p['in'], x), x
  skips = [h]
  for i in range(len(channel_mult)):
    for j in range(blocks_per_level):
      h = residual(p[f'down{i}_{j}'], h, temb)
      if h.shape[1] in at:
        h = attention(p[f'down{i}_{j}_attention'], h)
      skips.append(h)
    if i + 1 < len(channel_mult):
      h = residual(p[f'down{i}_half'], h, temb, halve)
      if progressive:
        h = pyramid = (stride(p[f'down{i}_input'], pyramid) + h) / np.sqrt(2)
      skips.append(h)
  h = residual(p['middle_1'], attention(p['middle_attention'], residual(p['middle_0'], h, temb)), temb)
  for i in reversed(range(len(channel_mult))):
    for j in range(blocks_per_level + 1):
      h = residual(p[f'up{i}_{j}'], np.concatenate([h, skips.pop()], 3), temb)
    if h.shape[1] in at:
      h = attention(p[f'up{i}_{blocks_per_level}_attention'], h)
    if i:
      h = residual(p[f'up{i}_double'], h, temb, double)
  assert not skips
  return conv(p['out'], silu(norm(p['norm'], h)))


NCSNPP = dict(resample='fir', embedding='fourier', progressive=True, channel_mult=(1, 2, 2))


@pytest.mark.quick('DDPM++')
@pytest.mark.parametrize(
  'options',
  [{}, dict(resample='fir'), NCSNPP],  # which has the second's steps too
  ids=['DDPM++', 'fir', 'NCSN++'],
)
def test_forward_is_the_papers(options):
  """float32 against float64: eps 6e-8 times the depth (about 40 maps) times their condition: 1e-4 of the largest.

  Of NCSN++ twice that: its angles, up to 300, are rounded to 3e-5.
  """
  rng = np.random.default_rng(0)
  sizes = dict(width=8, channel_mult=(1, 2), blocks_per_level=2) | options
  net = unet(**sizes, attention=(4,), classes=3, augment=2)
  x, labels = rng.standard_normal((3, 8, 8, 2)), np.array([0, 2, 3])
  t = np.array([-0.25, 0.1, 0.3]) if 'embedding' in options else np.array([0.5, 130.0, 999.0])
  augment = np.array([[0, 0], [1, -0.5], [0, 2]])
  shapes = jax.eval_shape(net.init, jax.random.key(0), x.astype('f4'), t.astype('f4'))
  params = jax.tree.map(lambda s: rng.standard_normal(s.shape) / np.sqrt(np.prod(s.shape[:-1])), shapes)
  cond = {'label': labels, 'augment': augment.astype('f4')}
  got = jax.jit(net)(jax.tree.map(np.float32, params), x.astype('f4'), t.astype('f4'), cond)
  want = forward(params, x, t, labels, augment, **sizes, at=(4,))
  assert np.abs(want).max() > 0.01
  bound = 2e-4 if options is NCSNPP else 1e-4
  np.testing.assert_allclose(got, want, atol=bound * np.abs(want).max())
