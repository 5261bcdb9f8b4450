"""Interpolant conversion: a network of one process asked on the path of another."""

import jax
import jax.numpy as jnp
from jax import Array

from diffjax.contracts import Cond, Data, Memory, Time
from diffjax.guidance.transform import Transform
from diffjax.prediction import Denoise, Pred
from diffjax.process import Process, expand, over_time

__all__ = ['converted']


def converted(denoise: Denoise, process: Process) -> 'Converted':
  """The same denoiser on another process: a flow sampled on the variance-preserving path, for example.

  Where the new process has (alpha, sigma) at r, the old one has that ratio at t, and c times as large an x_t:

      lam_old(t) = lam_new(r),   c = sigma_new(r) / sigma_old(t),   (x0, eps)_new(x, r) = (x0, eps)_old(x / c, t)

  Both paths see the same noise, so nothing is approximated; velocity and score follow from the pair, d/dr of c and t
  included. No evaluation more.   arXiv:2503.19385 sec. 4

  Where the new process is noisier than the old one ever is, or cleaner, the nearest end is asked.
  """
  return Converted(denoise, process)


class Converted(Transform):
  """Made by `converted`; `process` is the new one."""

  to: Process

  @property
  def process(self) -> Process:
    return self.to

  def __call__(self, x: Data, t: Time, cond: Cond = None, memory: Memory = None) -> Pred:
    old = self.denoise.process

    def time(r: Array) -> Array:
      r = jnp.asarray(r)
      alpha, sigma = self.to.schedule(r)
      inside = (alpha > 0) & (sigma > 0)
      met = old.lam_inverse(self.to.lam(jnp.where(inside, r, (self.to.t_min + self.to.t_max) / 2)))
      return jnp.where(inside, met, jnp.where(sigma > 0, old.t_max, 0.0)).astype(met.dtype)

    def size(r: Array, t: Array) -> Array:
      return jnp.hypot(*self.to.schedule(jnp.asarray(r))) / jnp.hypot(*old.schedule(t))

    times = jax.tree.map(time, t)
    scaled = over_time(lambda c, x: (x / expand(c, x)).astype(x.dtype), jax.tree.map(size, t, times), x)
    return self.denoise(scaled, times, cond, memory)
