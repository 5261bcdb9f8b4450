"""The forward process x_t = alpha(t) x0 + sigma(t) eps and all that follows from its schedule.

lam(t)       = log alpha - log sigma                    half the log signal-to-noise ratio, falling in t
drift(t)     = alpha' / alpha                           f of  dx = f x dt + g dw
g2(t)        = 2 sigma (sigma' - sigma alpha'/alpha)    g^2, which is -2 sigma^2 lam'
velocity     = alpha' x0 + sigma' eps                   of the probability-flow ODE
"""

from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from flax import struct
from jax import Array

from diffjax import keys
from diffjax.contracts import Data, KeyBatch, Time
from diffjax.pytree import PyTree

__all__ = ['Process', 'expand', 'over_time']


def expand(t: Array | float, x: Array) -> Array:
  """A time, () or (B,), or a coefficient at such times, shaped to broadcast against x (B, ...)."""
  t = jnp.asarray(t)
  return t.reshape(t.shape + (1,) * (x.ndim - t.ndim)) if t.ndim else t


def over_time(f: Callable, t: Time, *trees: Any) -> Any:
  """Maps f(t, *leaves) over the modalities of `trees`; t is one time, or a pytree of times, one a modality."""
  return jax.tree.map(lambda t, *subtrees: jax.tree.map(partial(f, t), *subtrees), t, *trees)


class Process(PyTree):
  """A Gaussian forward process, known by its schedule t -> (alpha, sigma).

  `schedule` is a pytree that can be called: `jax.tree_util.Partial(fn, *numbers)`, or a struct whose parameters are
  leaves. Its numbers may change, be learned or be mapped over without another compilation.

  arXiv:2011.13456, arXiv:2107.00630

  Attributes:
    schedule: t -> (alpha, sigma), elementwise, alpha falling and sigma rising in t (up to a common factor).
    t_min: the least time at which networks are trained and lam-spaced grids end; the domain itself is [0, t_max].
    t_max: the time of pure noise.
    inverse: lam -> t in closed form; None lets `lam_inverse` bisect.
    by_noise: whether networks are told -lam/4 instead of 1000 t (processes whose time is a noise level).
  """

  schedule: Callable[[Array], tuple[Array, Array]]
  t_min: Array
  t_max: Array
  inverse: Callable[[Array], Array] | None = None
  by_noise: bool = struct.field(pytree_node=False, default=False)

  def lam(self, t: Array | float) -> Array:
    """Half the log signal-to-noise ratio, log alpha - log sigma; +inf where sigma = 0, -inf where alpha = 0."""
    alpha, sigma = self.schedule(jnp.asarray(t))
    return jnp.log(alpha) - jnp.log(sigma)

  def lam_inverse(self, lam: Array | float) -> Array:
    """The time at which `lam` is reached, clipped to [0, t_max]; differentiable, also in the schedule's numbers."""
    lam = jnp.asarray(lam)
    return bisect(self, lam) if self.inverse is None else jnp.clip(self.inverse(lam), 0, self.t_max)

  def rates(self, t: Array | float) -> tuple[Array, Array]:
    """The slopes (alpha', sigma') of the schedule, by one jvp."""
    t = jnp.asarray(t)
    return jax.jvp(self.schedule, (t,), (jnp.ones_like(t),))[1]

  def drift(self, t: Array | float) -> Array:
    """The drift coefficient f(t) = alpha' / alpha of dx = f x dt + g dw."""
    return self.rates(t)[0] / self.schedule(jnp.asarray(t))[0]

  def g2(self, t: Array | float) -> Array:
    """The squared diffusion coefficient g(t)^2 = 2 sigma (sigma' - f sigma) of dx = f x dt + g dw."""
    sigma = self.schedule(jnp.asarray(t))[1]
    return 2 * sigma * (self.rates(t)[1] - self.drift(t) * sigma)

  def network_time(self, t: Array | float) -> Array:
    """The coordinate a network embeds: 1000 t, or -lam/4 = log(sigma/alpha)/4 for processes timed by their noise."""
    return -self.lam(t) / 4 if self.by_noise else 1000 * jnp.asarray(t)

  def perturb(self, x0: Data, eps: Data, t: Time) -> Any:
    """Adds noise to data: x_t = alpha(t) x0 + sigma(t) eps; x0, eps (B, ...), t () or (B,)."""
    return over_time(partial(_mix, self.schedule), t, x0, eps)

  def velocity(self, x0: Data, eps: Data, t: Time) -> Any:
    """The slope alpha'(t) x0 + sigma'(t) eps of the line from x0 to eps, and of the probability-flow ODE."""
    return over_time(partial(_mix, self.rates), t, x0, eps)

  def prior(self, key_batch: KeyBatch, like: Data) -> Any:
    """Draws x at t_max: sigma(t_max) z, one draw a key, with the shape of `like` (B, ...)."""
    return self.start(key_batch, like, self.t_max)

  def start(self, key_batch: KeyBatch, like: Data, t: Array | float, mean: Any = 0.0, std: Any = 0.0) -> Any:
    """Draws x at t of data N(mean, std^2), one draw a key, with the shape of `like` (B, ...).

        x = alpha(t) mean + sqrt(alpha(t)^2 std^2 + sigma(t)^2) z

    Args:
      key_batch: one key a sample.
      like: what x shall be like, arrays or shapes.
      t: the time, 0 the data.
      mean: a number, an array like one example, or pytrees of these like `like`; both 0 leave sigma z.
      std: see `mean`.
    """
    alpha, sigma = self.schedule(jnp.asarray(t))

    def drawn(z: Array, mean: Any, std: Any) -> Array:
      return (alpha * mean + jnp.hypot(alpha * std, sigma) * z).astype(z.dtype)

    return jax.tree.map(drawn, keys.normal(key_batch, like), _each(mean, like), _each(std, like))

  def posterior(self, x: Array, x0: Array, t: Array | float, s: Array | float) -> tuple[Array, Array]:
    """Mean and standard deviation of q(x_s | x_t, x0), s < t: the DDPM kernel.

    With h = lam_s - lam_t:  mean = alpha_s (1 - e^{-2h}) x0 + (sigma_s / sigma_t) e^{-h} x,
    std = sigma_s sqrt(1 - e^{-2h}); finite at alpha_t = 0, and x0 itself at sigma_s = 0.

    arXiv:2006.11239 eq. 6-7
    """
    alpha, sigma = self.schedule(jnp.asarray(s))
    h = self.lam(s) - self.lam(t)
    fade = sigma / self.schedule(jnp.asarray(t))[1] * jnp.exp(-h)
    mean = expand(-alpha * jnp.expm1(-2 * h), x) * x0 + expand(fade, x) * x
    return mean, expand(sigma * jnp.sqrt(-jnp.expm1(-2 * h)), x)


def _each(value: Any, like: Data) -> Any:
  """The value for every leaf of `like`, unless it is a tree of that structure already."""
  same = jax.tree.structure(value) == jax.tree.structure(like)
  return value if same else jax.tree.map(lambda _: value, like)


def _mix(pair: Callable, t: Array, x0: Array, eps: Array) -> Array:
  a, b = pair(jnp.asarray(t))
  return (expand(a, x0) * x0 + expand(b, x0) * eps).astype(x0.dtype)


@jax.custom_jvp
def bisect(process: Process, lam: Array) -> Array:
  """Finds t with process.lam(t) = lam by bisection on [0, t_max], to the last bit of the dtype."""
  low, high = jnp.zeros_like(lam), jnp.full_like(lam, process.t_max)
  steps = jnp.finfo(lam.dtype).nmant + 30  # a relative resolution also where t is small

  def halve(_: int, ends: tuple[Array, Array]) -> tuple[Array, Array]:
    low, high = ends
    middle = (low + high) / 2
    clean = process.lam(middle) > lam
    return jnp.where(clean, middle, low), jnp.where(clean, high, middle)

  return jnp.mean(jnp.stack(jax.lax.fori_loop(0, steps, halve, (low, high))), axis=0)


@bisect.defjvp
def _bisect_jvp(primals: tuple, tangents: tuple) -> tuple[Array, Array]:
  """Implicit function theorem: dt = (dlam - d_process lam) / lam'(t). Bisection alone has a silent zero gradient."""
  process, lam = primals
  t = bisect(process, lam)
  slope = jax.jvp(process.lam, (t,), (jnp.ones_like(t),))[1]
  moved = jax.jvp(lambda process: process.lam(t), (process,), (tangents[0],))[1]
  return t, (tangents[1] - moved) / slope
