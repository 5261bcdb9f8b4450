"""The transformers against float64 NumPy evaluations written from the papers' descriptions, sample by sample.

float32 against float64: eps 6e-8 times the depth (about 30 maps) times their condition: 1e-4 of the largest output.
"""

import math

import jax
import numpy as np
import pytest

from diffjax.nets import dit, unidiffuser, uvit

D, HEADS, DEPTH = 16, 2, 4
SIZES = dict(depth=DEPTH, width=D, heads=HEADS)
erf = np.vectorize(math.erf)


def dense(p, x):
  return x @ p['kernel'] + p.get('bias', 0)


def silu(x):
  return x / (1 + np.exp(-x))


def layer_norm(x, eps, p=None):
  x = (x - x.mean(-1, keepdims=True)) / np.sqrt(x.var(-1, keepdims=True) + eps)
  return x if p is None else x * p['scale'] + p['bias']


def wave(t, size):
  angle = t / 10000 ** (np.arange(size // 2) / (size // 2))
  return np.concatenate([np.cos(angle), np.sin(angle)])


def attention(p, x):
  """Head by head, query by query."""
  q, k, v = (x @ p['qkv']['kernel'][:, i] + (p['qkv']['bias'][i] if 'bias' in p['qkv'] else 0) for i in range(3))
  out, d = np.zeros_like(x), D // HEADS
  for h in range(HEADS):
    at = slice(h * d, (h + 1) * d)
    for n in range(len(x)):
      weights = np.exp(k[:, at] @ q[n, at] / np.sqrt(d))
      out[n, at] = weights @ v[:, at] / weights.sum()
  return dense(p['out'], out)


def tanh_gelu(x):
  return x / 2 * (1 + np.tanh(np.sqrt(2 / np.pi) * (x + 0.044715 * x**3)))


def erf_gelu(x):
  return x / 2 * (1 + erf(x / np.sqrt(2)))


def feed(p, x, gelu):
  return dense(p['out'], gelu(dense(p['in'], x)))


def patches(x, p=2):
  h, w, _ = x.shape
  return np.stack([x[i : i + p, j : j + p].ravel() for i in range(0, h, p) for j in range(0, w, p)])


def image(tokens, h, w, p=2):
  out = np.zeros((h, w, tokens.shape[1] // p**2))
  for n, token in enumerate(tokens):
    i, j = divmod(n, w // p)
    out[p * i : p * i + p, p * j : p * j + p] = token.reshape(p, p, -1)
  return out


def conv(p, x):
  padded = np.pad(x, ((1, 1), (1, 1), (0, 0)))
  out = np.empty_like(x)
  for i in range(x.shape[0]):
    for j in range(x.shape[1]):
      out[i, j] = np.tensordot(padded[i : i + 3, j : j + 3], p['kernel'], 3) + p['bias']
  return out


def dit_forward(p, x, t, label):
  h, w, _ = x.shape
  place, omega = [], 10000.0 ** (-np.arange(D // 4) / (D // 4))
  for i in range(h // 2):
    for j in range(w // 2):
      place.append(np.concatenate([np.sin(j * omega), np.cos(j * omega), np.sin(i * omega), np.cos(i * omega)]))
  y = dense(p['patch'], patches(x)) + np.array(place)
  c = dense(p['time_1'], silu(dense(p['time_0'], wave(t, 256)))) + p['label']['table'][label]
  for i in range(DEPTH):
    b = p[f'block_{i}']
    shift1, scale1, gate1, shift2, scale2, gate2 = np.split(dense(b['ada'], silu(c)), 6)
    y = y + gate1 * attention(b['attention'], layer_norm(y, 1e-6) * (1 + scale1) + shift1)
    y = y + gate2 * feed(b['feed'], layer_norm(y, 1e-6) * (1 + scale2) + shift2, tanh_gelu)
  shift, scale = np.split(dense(p['ada'], silu(c)), 2)
  return image(dense(p['out'], layer_norm(y, 1e-6) * (1 + scale) + shift), h, w)


def trunk(p, h, post):
  """The blocks of U-ViT; with `post` those of UniDiffuser."""

  def block(b, h, skip=None):
    if skip is not None:
      h = dense(b['skip'], np.concatenate([h, skip], 1))
      h = layer_norm(h, 1e-5, b['norm_skip']) if post else h
    layers = {'norm_0': lambda x: attention(b['attention'], x), 'norm_1': lambda x: feed(b['feed'], x, erf_gelu)}
    for part, run in layers.items():
      h = layer_norm(h + run(h), 1e-5, b[part]) if post else h + run(layer_norm(h, 1e-5, b[part]))
    return h

  h, skips = h + p['positions'], []
  for i in range(DEPTH // 2):
    h = block(p[f'in_block_{i}'], h)
    skips.append(h)
  h = block(p['middle'], h)
  for i in range(DEPTH // 2):
    h = block(p[f'out_block_{i}'], h, skips.pop())
  return layer_norm(h, 1e-5, p['norm'])


def uvit_forward(p, x, t, label):
  h = np.concatenate([p['label']['table'][label][None], wave(t, D)[None], dense(p['patch'], patches(x))])
  return conv(p['conv'], image(dense(p['out'], trunk(p, h, post=False)[2:]), *x.shape[:2]))


def unidiffuser_forward(p, x, t, label):
  """Names in order: the image's clip and latent, then the text."""
  parts = {'image_clip': x['image']['clip'][None], 'image_latent': patches(x['image']['latent']), 'text': x['text']}
  h = [p['label']['table'][label][None], wave(t['image'], D)[None], wave(t['text'], D)[None]]
  h = trunk(p, np.concatenate(h + [dense(p['in_' + name], part) for name, part in parts.items()]), post=True)[3:]
  clip, latent, text = (dense(p['out_' + name], part) for name, part in zip(parts, (h[:1], h[1:7], h[7:]), strict=True))
  return {'image': {'clip': clip[0], 'latent': image(latent, 4, 6)}, 'text': text}


R = np.random.default_rng(0)
IMAGE, T = R.standard_normal((3, 4, 6, 2)), np.array([0.5, 130.0, 999.0])
MANY = {'image': {'latent': IMAGE, 'clip': R.standard_normal((3, 5))}, 'text': R.standard_normal((3, 2, 3))}


@pytest.mark.parametrize(
  'make, forward, x, t',
  [
    (dit, dit_forward, IMAGE, T),
    (uvit, uvit_forward, IMAGE, T),
    (unidiffuser, unidiffuser_forward, MANY, {'image': T, 'text': T[::-1].copy()}),
  ],
  ids=['dit', 'uvit', 'unidiffuser'],
)
def test_forward_is_the_papers(make, forward, x, t):
  net, labels = make(**SIZES, classes=3), np.array([0, 2, 3])
  rng = np.random.default_rng(1)
  small = jax.tree.map(np.float32, (x, t))
  shapes = jax.eval_shape(net.init, jax.random.key(0), *small)
  params = jax.tree.map(lambda s: rng.standard_normal(s.shape) / np.sqrt(np.prod(s.shape[:-1])), shapes)
  quick = {'xla_backend_optimization_level': 0}
  got = jax.jit(net, compiler_options=quick)(jax.tree.map(np.float32, params), *small, labels)
  want = [forward(params, *jax.tree.map(lambda a, i=i: a[i], (x, t)), labels[i]) for i in range(3)]
  for a, b in zip(jax.tree.leaves(got), jax.tree.leaves(jax.tree.map(lambda *s: np.stack(s), *want)), strict=True):
    assert np.abs(b).max() > 0.01
    np.testing.assert_allclose(a, b, atol=1e-4 * np.abs(b).max())
