"""Half and double the size of (B, H, W, C) images."""

import jax.numpy as jnp
from jax import lax

__all__ = ['nearest', 'fir']


def halve_mean(x):
  """The mean of each 2x2 block."""
  b, h, w, c = x.shape
  return x.reshape(b, h // 2, 2, w // 2, 2, c).mean((2, 4))


def double_nearest(x):
  """Each pixel four times."""
  b, h, w, c = x.shape
  return jnp.broadcast_to(x[:, :, None, :, None], (b, h, 2, w, 2, c)).reshape(b, 2 * h, 2 * w, c)


def halve_fir(x):
  """Correlate both axes with [1, 3, 3, 1] / 8, zeros outside, and keep every second pixel.

  arXiv:1904.11486
  """
  for axis in (1, 2):
    even, odd = _phases(x, axis)
    x = (_shift(odd, axis, 1) + 3 * even + 3 * odd + _shift(even, axis, -1)) / 8
  return x


def blurred_fir(x):
  """Correlate both axes with [1, 3, 3, 1] / 8, two zeros outside: one pixel more, every second one `halve_fir`'s."""
  for axis in (1, 2):
    pad = [(0, 0)] * x.ndim
    pad[axis] = (2, 2)
    wide, n = jnp.pad(x, pad), x.shape[axis] + 1
    a, b, c, d = (lax.slice_in_dim(wide, i, i + n, axis=axis) for i in range(4))
    x = (a + 3 * b + 3 * c + d) / 8
  return x


def double_fir(x):
  """Put a zero after every pixel and correlate both axes with [1, 3, 3, 1] / 4, zeros outside: the mean is kept."""
  for axis in (1, 2):
    even = (_shift(x, axis, 1) + 3 * x) / 4
    odd = (3 * x + _shift(x, axis, -1)) / 4
    x = jnp.stack([even, odd], axis + 1).reshape(*x.shape[:axis], 2 * x.shape[axis], *x.shape[axis + 1 :])
  return x


def _phases(x, axis):
  pairs = x.reshape(*x.shape[:axis], x.shape[axis] // 2, 2, *x.shape[axis + 1 :])
  return lax.index_in_dim(pairs, 0, axis + 1, False), lax.index_in_dim(pairs, 1, axis + 1, False)


def _shift(x, axis, by):
  """Move by one pixel along `axis`, a zero coming in."""
  pad = [(0, 0)] * x.ndim
  pad[axis] = (1, 0) if by == 1 else (0, 1)
  size = x.shape[axis]
  return lax.slice_in_dim(jnp.pad(x, pad), 0 if by == 1 else 1, size if by == 1 else size + 1, axis=axis)


nearest = (halve_mean, double_nearest)
fir = (halve_fir, double_fir)
