"""Operators of images: blur, block means, brightness and some frequencies, all with closed forms."""

from collections.abc import Callable
from typing import Any

import jax.numpy as jnp
import numpy as np
from flax import struct
from jax import Array

from diffjax.errors import InputError
from diffjax.inverse.operators import Mask, Shape, Spectral

__all__ = ['blur', 'downsample', 'fourier', 'grey']


def blur(shape: Shape, width: float = 1.0) -> 'Blur':
  """A Gaussian blur of deviation `width` pixels along the first two axes of an image, which goes on beyond its edges.

  Raises:
    InputError: width is not positive, or x are no images.
  """
  shape = _image(shape)
  if not width > 0:
    raise InputError(f'width: got {width}; allowed: a positive number of pixels')
  along = []
  for n in shape[:2]:
    far = np.minimum(np.arange(n), n - np.arange(n))
    bump = np.exp(-(far**2) / (2 * width**2))
    along.append(np.fft.fft(bump / bump.sum()).real)
  return Blur(jnp.asarray(np.multiply.outer(*along)[..., None], float), shape=shape, out=shape)


class Blur(Spectral):
  """Made by `blur`: a factor at every frequency, real since the kernel is even, so that A is its own adjoint."""

  factor: Array

  def forward(self, x: Array) -> Array:
    return self._through(x, self.factor)

  def backward(self, y: Array) -> Array:
    return self.forward(y)

  def gram(self, y: Array, f: Callable[[Array], Array]) -> Array:
    return self._through(y, f(self.factor**2))

  def _through(self, x: Array, factor: Array) -> Array:
    wide = x.astype(jnp.promote_types(x.dtype, jnp.float32))
    return jnp.fft.ifft2(jnp.fft.fft2(wide, axes=(1, 2)) * factor, axes=(1, 2)).real.astype(x.dtype)


def downsample(shape: Shape, factor: int = 2) -> 'Downsample':
  """The means of blocks of factor x factor pixels of an image.

  Raises:
    InputError: x are no images, or the factor does not divide their sides.
  """
  high, wide, channels = shape = _image(shape)
  if factor < 1 or high % factor or wide % factor:
    raise InputError(f'factor: got {factor}; allowed: a whole number that divides {high} and {wide}')
  return Downsample(factor=factor, shape=shape, out=(high // factor, wide // factor, channels))


class Downsample(Spectral):
  """Made by `downsample`."""

  factor: int = struct.field(pytree_node=False, kw_only=True)

  def forward(self, x: Array) -> Array:
    high, wide, channels = self.out
    return x.reshape(-1, high, self.factor, wide, self.factor, channels).mean((2, 4))

  def backward(self, y: Array) -> Array:
    return jnp.repeat(jnp.repeat(y, self.factor, 1), self.factor, 2) / self.factor**2

  def gram(self, y: Array, f: Callable[[Array], Array]) -> Array:
    return y * f(jnp.full((1, 1, 1), self.factor**-2.0))


def grey(shape: Shape, weights: Any = None) -> 'Grey':
  """The brightness of an image, (H, W, 1): its channels weighed, by .299, .587, .114 of three, equally of others.

  Raises:
    InputError: x are no images, or not one weight a channel.
  """
  shape = _image(shape)
  default = (0.299, 0.587, 0.114) if shape[2] == 3 else np.full(shape[2], 1 / shape[2])
  w = np.asarray(default if weights is None else weights, float)
  if w.shape != shape[2:] or not w.any():
    raise InputError(f'weights: got {weights}; allowed: {shape[2]} numbers, not all 0')
  return Grey(jnp.asarray(w, float), shape=shape, out=(*shape[:2], 1))


class Grey(Spectral):
  """Made by `grey`."""

  weights: Array

  def forward(self, x: Array) -> Array:
    return jnp.sum(x * self.weights.astype(x.dtype), -1, keepdims=True)

  def backward(self, y: Array) -> Array:
    return y * self.weights.astype(y.dtype)

  def gram(self, y: Array, f: Callable[[Array], Array]) -> Array:
    return y * f(jnp.sum(self.weights**2).reshape(1, 1, 1))


def fourier(shape: Shape, share: float = 0.5, *, seed: int = 0) -> 'Fourier':
  """Some frequencies of an image, without phases: the real numbers of its Hartley transform; y is like x, 0 elsewhere.

  H x = Re F x - Im F x of the unitary Fourier transform F: orthonormal, and its own inverse. The frequencies of the
  least numbers of waves, a share / 4 of all, are always seen, the others of `share` at random.

  Raises:
    InputError: x are no images, or a share outside (0, 1].
  """
  shape = _image(shape)
  if not 0 < share <= 1:
    raise InputError(f'share: got {share}; allowed: above 0, at most 1')
  waves = np.add.outer(*(np.abs(np.fft.fftfreq(n)) for n in shape[:2])).ravel()
  total = max(round(share * waves.size), 1)
  low = np.argsort(waves, kind='stable')[: -(-total // 4)]
  rest = np.setdiff1d(np.random.default_rng(seed).permutation(waves.size), low, assume_unique=True)
  seen = np.zeros(waves.size)
  seen[low] = 1
  seen[np.random.default_rng(seed).permutation(rest)[: total - len(low)]] = 1
  return Fourier(jnp.asarray(seen.reshape(*shape[:2], 1), float), shape=shape, out=shape)


class Fourier(Mask):
  """Made by `fourier`: the mask behind the Hartley transform; A A^T is the mask itself."""

  def forward(self, x: Array) -> Array:
    return hartley(x) * self.keep.astype(x.dtype)

  def backward(self, y: Array) -> Array:
    return hartley(y * self.keep.astype(y.dtype))


def hartley(x: Array) -> Array:
  """The orthonormal Hartley transform along the first two axes of images (B, H, W, C), which undoes itself."""
  f = jnp.fft.fft2(x.astype(jnp.promote_types(x.dtype, jnp.float32)), axes=(1, 2), norm='ortho')
  return (f.real - f.imag).astype(x.dtype)


def _image(shape: Shape) -> tuple[int, int, int]:
  if len(shape) != 3:
    raise InputError(f'shape: got examples of shape {tuple(shape)}; allowed: images (height, width, channels)')
  high, wide, channels = shape
  return high, wide, channels
