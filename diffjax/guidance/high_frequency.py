"""PromptFix's high-frequency guidance: before each evaluation x is moved so that fine detail stays that of an image."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from flax import struct
from jax import Array

from diffjax.contracts import Cond, Data, Memory, Time
from diffjax.errors import InputError
from diffjax.guidance.transform import Transform, as_scale, cost
from diffjax.prediction import Denoise, Pred
from diffjax.process import expand

__all__ = ['detail', 'high_frequency']

LUMA = (0.299, 0.587, 0.114)


def high_frequency(
  denoise: Denoise,
  image: Data,
  *,
  decode: Callable | None = None,
  steps: int = 5,
  rate: float = 1.0,
  radius: float = 30.0,
  fade: float = 1.0,
) -> 'Detailed':
  """High-frequency guidance: moves x before each evaluation until the predicted picture has the image's fine detail.

      x <- x - rate grad_x E(x), `steps` times,    E = e^{-fade t / t_max} / 2 sum_m mean (m(x0_hat) - m(image))^2

  The maps m are those of `detail`, of the decoded x0_hat cut to [-1, 1]; the gradient goes through the decoder and the
  denoiser.   arXiv:2405.16785

  The pair returned is that of the moved point, not of x: run it with `solvers.pair_form(table, process)`, or with DDIM.
  The published code maps by the greatest value of the whole batch; here it is each sample's own, and it is off there by
  default. Costs 2 evaluations of `denoise` a step more.

  Args:
    denoise: what is asked for predictions.
    image: (B, H, W, C) in [-1, 1], or 1 for all, with the sides that x0_hat has once decoded.
    decode: x0_hat -> pictures; none unless given. As a pytree its numbers may change.
    steps: published 5.
    rate: published 1, in latents of 64 x 64.
    radius: of the frequencies left out, in cycles a picture; published 30 of 256.
    fade: published 1.

  Raises:
    InputError: a number of steps that is none, or a radius that leaves no frequency.
  """
  image = jnp.asarray(image)
  if not (isinstance(steps, int) and steps >= 1):
    raise InputError(f'steps: got {steps}; allowed: a whole number of at least 1')
  if image.ndim != 4 or not 0 <= radius < min(image.shape[1:3]) / 2:
    raise InputError(f'radius: got {radius:g} for images of shape {image.shape[1:]}; allowed: at least 0 and below '
                     'half of the shorter side of (height, width, channels)')  # fmt: skip
  numbers = jnp.asarray([rate, radius, fade], float)
  return Detailed(denoise, image, None if decode is None else as_scale(decode), numbers, steps)


class Detailed(Transform):
  """Made by `high_frequency`."""

  image: Array
  decode: Any
  numbers: Array
  steps: int = struct.field(pytree_node=False)

  def __call__(self, x: Data, t: Time, cond: Cond = None, memory: Memory = None) -> Pred:
    rate, radius, fade = self.numbers
    wanted = detail(self.image, radius)
    strength = jnp.exp(-fade * jnp.asarray(t) / self.process.t_max) / 2

    def energy(x: Array) -> Array:
      x0 = self.denoise(x, t, cond, memory).x0
      shown = detail(x0 if self.decode is None else self.decode(x0), radius)
      return jnp.sum(strength * sum(jnp.mean((a - b) ** 2, (1, 2)) for a, b in zip(shown, wanted, strict=True)))

    def move(_: Array, x: Array) -> Array:
      return (x - expand(rate, x) * jax.grad(energy)(x)).astype(x.dtype)

    return self.denoise(jax.lax.fori_loop(0, self.steps, move, x), t, cond, memory)

  def cost(self, t: float) -> int:
    """One evaluation, and a forward and its VJP a step."""
    return cost(self.denoise, t) * (1 + 2 * self.steps)


def detail(image: Array, radius: Any) -> tuple[Array, Array]:
  """What is fine in pictures (B, H, W, C) cut to [-1, 1] and made grey: two maps (B, H, W), each at most 1.

  The size of what is left of the Fourier transform beyond `radius` cycles a picture, and of the Sobel gradient.
  """
  grey = jnp.clip(image, -1, 1).astype(jnp.promote_types(image.dtype, jnp.float32))
  grey = grey @ jnp.asarray(LUMA, grey.dtype) if image.shape[-1] == 3 else jnp.mean(grey, -1)
  height, width = grey.shape[1:]
  cycles = jnp.hypot(jnp.fft.fftfreq(height)[:, None] * height, jnp.fft.rfftfreq(width) * width)
  high = jnp.fft.irfft2(jnp.where(cycles > radius, jnp.fft.rfft2(grey), 0), (height, width))
  padded = jnp.pad(grey, ((0, 0), (1, 1), (1, 1)), mode='edge')
  smooth = padded[:, :, :-2] + 2 * padded[:, :, 1:-1] + padded[:, :, 2:]
  down = smooth[:, 2:] - smooth[:, :-2]
  smooth = padded[:, :-2] + 2 * padded[:, 1:-1] + padded[:, 2:]
  across = smooth[:, :, 2:] - smooth[:, :, :-2]
  return _to_one(jnp.abs(high)), _to_one(jnp.sqrt(down**2 + across**2 + 1e-12))


def _to_one(m: Array) -> Array:
  return m / jnp.maximum(jnp.max(m, (1, 2), keepdims=True), 1e-6)
