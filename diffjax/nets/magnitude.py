"""Layers that keep magnitudes: what comes in with a mean square of 1 goes out with one, in expectation.

Weights count by their direction alone. They are leaves named MP_KERNEL, with the outputs on the last axis, which
`diffjax.train.forced` keeps at unit mean square an output.   arXiv:2312.02696 appendix B
"""

import math
from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn
from jax import Array, lax

from diffjax.dtypes import widened

from .layers import ShardedLayer, named

__all__ = ['unit', 'mp_silu', 'mp_sum', 'mp_cat', 'mp_fourier']

MP_KERNEL = 'mp_kernel'
SILU_RMS = 0.596  # of silu(z), z ~ N(0, 1), as published; exactly .5973


def unit(x: Array, axes: int | tuple[int, ...] = -1, eps: float = 1e-4) -> Array:
  """Normalises x to unit root mean square over `axes`.

  x / (eps + rms of x over `axes`), the rms in float32, the result in x's dtype.   eq. 47, 66
  """
  return x / (eps + rms(x, axes)).astype(x.dtype)


def rms(x: Array, axes: int | tuple[int, ...]) -> Array:
  """The root mean square over `axes`, with gradient 0 where x = 0.

  sqrt(mean x^2) over `axes`, which stay with length 1; float32 or wider, with gradient 0 where x = 0.
  """
  wide = widened(x)
  return jnp.sqrt(jnp.maximum(jnp.mean(jnp.square(wide), axes, keepdims=True), jnp.finfo(wide.dtype).tiny))


def mp_silu(x: Array) -> Array:
  """SiLU, scaled so that it keeps the magnitude of a normal input.

  silu(x) / .596: its mean square is 1 (within 0.5%) for x ~ N(0, 1).   eq. 81
  """
  return nn.silu(x) / SILU_RMS


def mp_sum(a: Array, b: Array, t: float = 0.5) -> Array:
  """A weighted sum that keeps magnitudes, of uncorrelated a and b.

  ((1 - t) a + t b) / sqrt((1 - t)^2 + t^2): unit for uncorrelated a and b.   eq. 88
  """
  size = math.hypot(1 - t, t)
  return a * ((1 - t) / size) + b * (t / size)


def mp_cat(a: Array, b: Array, t: float = 0.5) -> Array:
  """A concatenation on the last axis that keeps magnitudes, with the shares of both set by t.

  [wa a, wb b] on the last axis: unit, and a and b add (1 - t)^2 : t^2 to what reads both.   eq. 103

  wa = c (1 - t) / sqrt(Na), wb = c t / sqrt(Nb), c^2 = (Na + Nb) / ((1 - t)^2 + t^2), for Na and Nb features.
  """
  na, nb = a.shape[-1], b.shape[-1]
  c = math.sqrt(na + nb) / math.hypot(1 - t, t)
  return jnp.concatenate([a * (c * (1 - t) / math.sqrt(na)), b * (c * t / math.sqrt(nb))], -1)


def mp_fourier(u: Array, frequencies: Array, phases: Array) -> Array:
  """Fourier features of unit magnitude.

  sqrt 2 cos(2 pi (f_i u + phi_i)), u (B,) -> (B, n) float32: unit over phases uniform on [0, 1].   eq. 75
  """
  u = jnp.asarray(u, jnp.float32)[..., None]
  return math.sqrt(2) * jnp.cos(2 * math.pi * (u * frequencies + phases))


class MPFourier(nn.Module):
  """Fourier features of unit magnitude with random frequencies and phases, which are not trained.

  `mp_fourier` with f ~ N(0, 1), phi ~ U(0, 1): kept with the weights, but no gradient reaches them.
  """

  features: int

  @nn.compact
  def __call__(self, u):
    frequencies = self.param('frequencies', named(nn.initializers.normal(1.0), None), (self.features,))
    phases = self.param('phases', named(nn.initializers.uniform(1.0), None), (self.features,))
    return mp_fourier(u, *lax.stop_gradient((frequencies, phases)))


class MPDense(ShardedLayer):
  """A linear map over the last axis that keeps magnitudes.

  gain x @ (unit columns / sqrt(fan in)) over the last axis; `logical_axes` are those of the kernel. No bias.
  """

  features: int
  logical_axes: tuple[str | None, str | None] = ('in', 'out')
  dtype: Any = jnp.float32

  @nn.compact
  def __call__(self, x, gain: Array | float = 1.0):
    kernel = self.param(MP_KERNEL, named(unit_normal, *self.logical_axes), (x.shape[-1], self.features))
    return x.astype(self.dtype) @ scaled(kernel, gain).astype(self.dtype)


class MPConv(ShardedLayer):
  """A same-size convolution of (B, H, W, C) images that keeps magnitudes.

  `MPDense` over patches: a same-size convolution of (B, H, W, C) images, zeros outside. No bias.
  """

  logical_axes = ('in', 'out')
  features: int
  size: int = 3
  dtype: Any = jnp.float32

  @nn.compact
  def __call__(self, x, gain: Array | float = 1.0):
    shape = (self.size, self.size, x.shape[-1], self.features)
    kernel = self.param(MP_KERNEL, named(unit_normal, None, None, *self.logical_axes), shape)
    kernel, x = scaled(kernel, gain).astype(self.dtype), x.astype(self.dtype)
    if self.size == 1:
      return x @ kernel[0, 0]
    return lax.conv_general_dilated(x, kernel, (1, 1), 'SAME', dimension_numbers=('NHWC', 'HWIO', 'NHWC'))


class MPLabel(ShardedLayer):
  """The embedding of a label, a linear map of unit magnitude of its one-hot vector.

  `MPDense` of sqrt(classes) times the one-hot label: (B,) in 0 .. classes -> (B, features) float32.

  The null label, `classes`, or None in place of all, is a vector of zeros, as in the released networks.
  """

  logical_axes = ('label', 'embed')
  classes: int
  features: int

  @nn.compact
  def __call__(self, cond, batch: int):
    kernel = self.param(MP_KERNEL, named(unit_normal, *self.logical_axes), (self.classes, self.features))
    if cond is None:
      return jnp.zeros((batch, self.features))
    return jnp.take(unit(kernel, 0), jnp.asarray(cond), axis=0, mode='fill', fill_value=0)


def unit_normal(key, shape, dtype=jnp.float32):
  """Independent normal numbers, each output's brought to unit mean square."""
  return unit_columns(jax.random.normal(key, shape, dtype))


def unit_columns(kernel: Array) -> Array:
  """A weight with unit mean square an output, the outputs being the last axis."""
  return unit(kernel, tuple(range(kernel.ndim - 1)))


def scaled(kernel, gain):
  """The weight as a layer uses it.

  gain / sqrt(fan in) times `unit_columns(kernel)`, by one multiplication an element.
  """
  axes = tuple(range(kernel.ndim - 1))
  fan_in = math.prod(kernel.shape[:-1])
  return kernel * (gain / (math.sqrt(fan_in) * (1e-4 + rms(kernel, axes))))
