"""EGSDE: a target domain's model guided by what shall be lost and what shall be kept of a source image."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array

from diffjax.contracts import Cond, Data, Time
from diffjax.guidance.tilt import Tilted, tilt
from diffjax.guidance.transform import as_scale
from diffjax.prediction import Denoise
from diffjax.process import Process
from diffjax.pytree import PyTree

__all__ = ['egsde', 'low_pass']


def egsde(
  denoise: Denoise,
  features: Callable,
  source: Data,
  noise: Data,
  *,
  lose: float = 500.0,
  keep: float = 2.0,
  blurred: Callable | None = None,
) -> Tilted:
  """EGSDE: translates a source image by the model of the target domain, with two energies at the noisy image.

      G = -grad_x [ lose S(x, y_t) + keep |L(x) - L(y_t)|^2 ],     y_t = alpha source + sigma noise

  S is the mean over positions of the cosine between the features of x and y_t, by a classifier of the two noisy
  domains: what tells the domains is made unlike the source. L is a low-pass filter: what it leaves is kept. The noise
  is that from which sampling begins (`process.perturb(source, noise, t)`), the same at every step.   arXiv:2207.06635

  Args:
    denoise: of the target domain.
    features: (x, t) -> (B, ..., C) of noisy images; as a pytree its numbers may change.
    source: y (B, ...), the batch first, or 1 for all.
    noise: in the same shape.
    lose: published 500.
    keep: published 2.
    blurred: L; means over blocks of an eighth of the sides, repeated, unless given (published: 32 of 256 pixels).
  """
  kept = low_pass if blurred is None else blurred
  weights = jnp.asarray([lose, keep], float)
  source, noise = (jax.tree.map(jnp.asarray, a) for a in (source, noise))
  energy = Energies(as_scale(features), as_scale(kept), source, noise, weights, denoise.process)
  return tilt(denoise, energy, price=1)


class Energies(PyTree):
  """Minus the two energies of EGSDE, (x, t, cond) -> (B,)."""

  features: Any
  blurred: Any
  source: Data
  noise: Data
  weights: Array
  process: Process

  def __call__(self, x: Data, t: Time, cond: Cond = None) -> Array:
    y = self.process.perturb(self.source, self.noise, t)
    like = _cosine(self.features(x, t), self.features(y, t))
    apart = jnp.sum((self.blurred(x) - self.blurred(y)).reshape(len(x), -1) ** 2, -1)
    return -(self.weights[0] * like + self.weights[1] * apart)


def low_pass(x: Array) -> Array:
  """Images (B, H, W, C) as means over blocks of an eighth of each side, repeated; sides of 8 are left as they are."""
  batch, height, width, channels = x.shape
  rows, columns = max(height // 8, 1), max(width // 8, 1)
  blocks = x.reshape(batch, height // rows, rows, width // columns, columns, channels).mean((2, 4), keepdims=True)
  return jnp.broadcast_to(blocks, (batch, height // rows, rows, width // columns, columns, channels)).reshape(x.shape)


def _cosine(a: Array, b: Array) -> Array:
  """The cosine between the last axes, its mean over the positions before it, (B,)."""

  def unit(f: Array) -> Array:
    return f * jax.lax.rsqrt(jnp.sum(f**2, -1, keepdims=True) + 1e-8)

  return jnp.mean(jnp.sum(unit(a) * unit(b), -1).reshape(len(a), -1), -1)
