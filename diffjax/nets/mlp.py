"""A multi-layer perceptron for points."""

import math
from typing import Any

import jax.numpy as jnp
import numpy as np
from flax import linen as nn

from .apply import Apply
from .arguments import activation_dtype, check, check_classes, check_out_channels, check_times, is_count
from .embedding import Label, moments, waves
from .inputs import told
from .layers import Dense, zeros
from .taps import tap

__all__ = ['MLP', 'mlp']

# The coordinate is 1000 t or -lam / 4, so the slow waves must span 1000 and the fast ones 4: a geometric ladder.
FREQUENCIES = np.geomspace(1e-3, 2.0, 16)


def mlp(
  width: int = 128,
  depth: int = 3,
  out_channels: int | None = None,
  classes: int = 0,
  dtype: Any = 'float32',
  times: int = 1,
) -> Apply:
  """Makes an `MLP` behind the interface of networks; bad arguments are refused by name."""
  check('width', width, is_count(width), 'a positive integer')
  check('depth', depth, is_count(depth), 'a positive integer')
  check_out_channels(out_channels)
  check_classes(classes)
  check_times(times)
  return Apply(MLP(width, depth, out_channels, classes, activation_dtype(dtype), times))


class MLP(nn.Module):
  """A multilayer perceptron of x, whatever its shape, told its time and label.

  h <- silu(W h + V e), `depth` times, e = (waves(t), label row); then a linear layer that starts at exactly zero.

  x (B, ...) is read as a vector; the result is float32 in the shape of x, or (B, out_channels). t (B,), the embedding
  coordinate, becomes 32 Fourier features computed in float32, and so does each of t (B, 2), from where and to where a
  jump leads, with times=2 (t (B,) is then both); cond labels (B,) in 0 .. classes or None, or {'label': such labels,
  'source': (B, ...), which is read beside x}; key is not used. Weights are float32, activations `dtype`. Taps:
  'hidden{i}'.
  """

  width: int = 128
  depth: int = 3
  out_channels: int | None = None
  classes: int = 0
  dtype: Any = jnp.float32
  times: int = 1
  reads_source = True

  @nn.compact
  def __call__(self, x, t, cond=None, key=None):
    cond, _, source = told(cond)[:3]
    check('cond', 'labels', self.classes or cond is None, 'None, as the network has classes=0')
    batch, size = x.shape[0], math.prod(x.shape[1:])
    lecun = nn.initializers.lecun_normal()
    when = [waves(u, FREQUENCIES) for u in moments(t, batch, self.times)]
    e = (when[0] if self.times == 1 else jnp.concatenate(when, -1)).astype(self.dtype)
    if self.classes:
      e = jnp.concatenate([e, Label(self.classes, e.shape[-1], self.dtype, name='label')(cond, batch)], -1)
    h = x.reshape(batch, size)
    if source is not None:
      h = jnp.concatenate([h, source.reshape(batch, -1).astype(h.dtype)], -1)
    for i in range(self.depth):
      shift = Dense(self.width, ('embed', 'out'), lecun, self.dtype, name=f'embed_{i}')(e)
      h = nn.silu(Dense(self.width, ('in', 'out'), lecun, self.dtype, name=f'hidden_{i}')(h) + shift)
      tap(self, f'hidden{i}', h)
    out = Dense(self.out_channels or size, ('in', 'out'), zeros, self.dtype, name='out')(h).astype(jnp.float32)
    return out if self.out_channels else out.reshape(x.shape)
