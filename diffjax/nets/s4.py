"""A network of state-space layers for series."""

import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn
from jax import Array

from .apply import Apply
from .arguments import activation_dtype, check, check_classes, check_out_channels, check_times, is_count
from .embedding import Label, moments, waves
from .inputs import told
from .layers import Dense, LayerNorm, named, ones, zeros
from .mlp import FREQUENCIES
from .taps import tap

__all__ = ['S4', 's4', 'convolved', 'kernel']

STEP = (1e-3, 0.1)  # of the states' clock, its law at the beginning


def s4(
  width: int = 64,
  depth: int = 3,
  states: int = 64,
  out_channels: int | None = None,
  classes: int = 0,
  dtype: Any = 'float32',
  times: int = 1,
) -> Apply:
  """Makes an `S4` behind the interface of networks; bad arguments are refused by name."""
  for field, value in (('width', width), ('depth', depth)):
    check(field, value, is_count(value), 'a positive integer')
  check('states', states, is_count(states) and states % 2 == 0, 'an even integer, at least 2')
  check_out_channels(out_channels)
  check_classes(classes)
  check_times(times)
  return Apply(S4(width, depth, states, out_channels, classes, activation_dtype(dtype), times))


class S4(nn.Module):
  """A residual network of state-space layers over series x (B, L, C), read in both directions.

      h = x' + linear e;   h += linear gelu SSM(LN h);   g = tanh(h) sigmoid(h)
      x' += linear g,   skips += linear g                            `depth` times, x' first a linear layer of x
      out = linear gelu linear skips                                 which starts at exactly zero

  e is of the waves of t and the label; SSM is `SSM` of each channel. The release adds x to what it returns, which is
  noise; kinds of output do that here, where they do. t (B,) or (B, 2) as of `MLP`; cond labels (B,) in 0 .. classes or
  None, or a dict of 'label' and of 'source' (B, L, any), which is read beside x. key is not used. The state space is
  float32, other activations `dtype`; result (B, L, out_channels or C) float32. Taps: 'block{i}'.
  arXiv:2307.11494 appendix, arXiv:2206.11893
  """

  width: int = 64
  depth: int = 3
  states: int = 64
  out_channels: int | None = None
  classes: int = 0
  dtype: Any = jnp.float32
  times: int = 1
  reads_source = True

  @nn.compact
  def __call__(self, x, t, cond=None, key=None):
    label, _, source, _ = told(cond)
    check('cond', 'labels', self.classes or label is None, 'None, as the network has classes=0')
    check('x', x.shape, x.ndim == 3, 'series (B, L, C)')
    batch, channels = x.shape[0], self.out_channels or x.shape[-1]
    parts = [waves(u, FREQUENCIES) for u in moments(t, batch, self.times)]
    if self.classes:
      parts.append(Label(self.classes, 2 * len(FREQUENCIES), self.dtype, name='label')(label, batch))
    e = jnp.concatenate([part.astype(self.dtype) for part in parts], -1)
    e = nn.silu(Dense(self.width, ('embed', 'out'), dtype=self.dtype, name='embed')(e))
    if source is not None:
      check('source', source.shape, source.shape[:2] == x.shape[:2], f'as long as x, (B, {x.shape[1]}, any)')
      x = jnp.concatenate([x, source.astype(x.dtype)], -1)
    h, skips = Dense(self.width, dtype=self.dtype, name='in')(x), 0
    for i in range(self.depth):
      h, skip = Block(self.width, self.states, self.dtype, name=f'block{i}')(h, e)
      skips += skip
      tap(self, f'block{i}', h)
    h = nn.gelu(Dense(self.width, dtype=self.dtype, name='out_0')(skips))
    return Dense(channels, initial=zeros, dtype=self.dtype, name='out_1')(h).astype(jnp.float32)


class Block(nn.Module):
  """One block of `S4`: x (B, L, width), e (B, width) to its residual sum and its skip."""

  width: int
  states: int
  dtype: Any = jnp.float32

  @nn.compact
  def __call__(self, x, e):
    h = x + Dense(self.width, ('embed', 'out'), dtype=self.dtype, name='time')(e)[:, None]
    y = SSM(self.states, name='ssm')(LayerNorm(dtype=jnp.float32, name='norm')(h)).astype(self.dtype)
    h = h + Dense(self.width, dtype=self.dtype, name='mix')(nn.gelu(y))
    h = jnp.tanh(h) * nn.sigmoid(h)
    out = Dense(self.width, dtype=self.dtype, name='residual')(h), Dense(self.width, dtype=self.dtype, name='skip')(h)
    return x + out[0], out[1]


class SSM(nn.Module):
  """A diagonal state space of each channel, run forwards and backwards over u (B, L, H).

      s' = A s + u,  A_n = -exp(a_n) + i w_n,  held over steps of length dt:  s_l = A_bar s_l-1 + B_bar u_l
      y_l = sum_n 2 Re C_n s_n + D u,   A_bar = exp(A dt),  B_bar = (A_bar - 1) / A

  A_n begins as -1/2 + i pi n, n < states / 2, dt log-even on [.001, .1]. The second direction has a C of its own and
  reads what comes after a step, not the step itself.
  """

  states: int = 64

  @nn.compact
  def __call__(self, u):
    width, half = u.shape[-1], self.states // 2
    each = (width, half)
    clock = self.param('clock', named(_clock, 'out'), (width,))
    decay = self.param('decay', named(nn.initializers.constant(math.log(0.5)), 'out', None), each)
    turn = self.param('turn', named(_turns, 'out', None), each)
    read = self.param('read', named(nn.initializers.normal(0.5**0.5), None, None, 'out', None), (2, 2, *each))
    direct = self.param('direct', named(ones, 'out'), (width,))
    forward, backward = (kernel(clock, decay, turn, read[i], u.shape[1]) for i in range(2))
    return convolved(u.astype(jnp.float32), forward, backward) + direct * u


def kernel(clock: Array, decay: Array, turn: Array, read: Array, length: int) -> Array:
  """The answer of the state space to an impulse, k_l = 2 Re sum_n C_n B_bar_n A_bar_n^l, (length, H).

  Args:
    clock: log dt, (H,).
    decay: a, (H, N/2).
    turn: w, (H, N/2).
    read: the real and the imaginary parts of C, (2, H, N/2).
    length: of the answer.
  """
  rate = -jnp.exp(decay) + 1j * turn
  turned = rate * jnp.exp(clock)[:, None]
  weights = (read[0] + 1j * read[1]) * jnp.expm1(turned) / rate
  return 2 * jnp.einsum('hn,lhn->lh', weights, jnp.exp(turned * jnp.arange(length)[:, None, None])).real


def convolved(u: Array, forward: Array, backward: Array) -> Array:
  """y_l = sum_{m<=l} forward_{l-m} u_m + sum_{m>l} backward_{m-l-1} u_m, along axis 1 of u (B, L, H)."""
  length = u.shape[1]
  both = jnp.concatenate([forward, backward[::-1]])  # lags 0 .. L-1, then -L .. -1
  spectrum = jnp.fft.rfft(u, 2 * length, axis=1) * jnp.fft.rfft(both, axis=0)
  return jnp.fft.irfft(spectrum, 2 * length, axis=1)[:, :length]


def _clock(key, shape, dtype=jnp.float32):
  low, high = map(math.log, STEP)
  return jax.random.uniform(key, shape, dtype, low, high)


def _turns(key, shape, dtype=jnp.float32):
  return jnp.broadcast_to(np.pi * jnp.arange(shape[-1], dtype=dtype), shape)
