"""Jumps: one network call that takes x_t to an estimate of x_s on the probability-flow ODE, x itself where s = t.

    x_s = a(t, s) x_t + b(t, s) out,     a(t, t) = 1, b(t, t) = 0 exactly

One form serves most of the family, since the kind of the network's output chooses among them (`through`): of kind `edm`
it is the trigonometric form of sCM and IMM, of `velocity` on rectified flow x - (t - s) u, of `v`, `eps`, `x0` DDIM.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import struct
from jax import Array
from jax.tree_util import Partial

from diffjax.contracts import Cond, Params
from diffjax.errors import InputError
from diffjax.kinds import Kind
from diffjax.methods.parts import Parts
from diffjax.process import Process, expand
from diffjax.pytree import PyTree

__all__ = ['Jump', 'boundary', 'coordinate', 'jump_from', 'latent_form', 'through', 'transfer_of']


def transfer_of(process: Process, t: Array, s: Array) -> tuple[Array, Array]:
  """The coefficients of x_t and x0 in the DDIM step from t to s.

  x_s = (sigma_s / sigma_t) x_t + (alpha_s - alpha_t sigma_s / sigma_t) x0.   arXiv:2010.02502 eq. 12
  """
  alpha, sigma = process.schedule(t)
  alpha_s, sigma_s = process.schedule(s)
  keep = sigma_s / jnp.where(sigma == 0, 1.0, sigma)  # at the data itself nothing is left to keep
  return keep, alpha_s - alpha * keep


def through(process: Process, kind: Kind, t: Array, s: Array) -> tuple[Array, Array]:
  """The DDIM step through the x0 that the network's output stands for: a = keep + gain p, b = gain q, x0 = p x + q out.

  G(x, t, s) = (s/t) x + (1 - s/t) g on EDM's process.   arXiv:2310.02279 eq. 9; of kind `edm` arXiv:2410.11081 sec. 3
  """
  keep, gain = transfer_of(process, t, s)
  p, q = kind(process, t).x0
  return settled(t, s, keep + gain * p, gain * q)


def settled(t: Array, s: Array, a: Array, b: Array) -> tuple[Array, Array]:
  """The coefficients with 1 and 0 to the last bit where s = t, however a program rounds them; slopes stay."""
  rest = jax.lax.stop_gradient((jnp.where(s == t, 1 - a, 0), jnp.where(s == t, -b, 0)))
  return a + rest[0], b + rest[1]


def boundary(data_std: float = 0.5) -> Partial:
  """The form of the first consistency models, of kind `edm`: EDM's with the noise counted from where the jump ends.

  With rho = sigma_t - alpha_t sigma_s / alpha_s and sd = data_std, on any process
      x_s = alpha_s [ sd^2 alpha_t / (rho^2 + sd^2 alpha_t^2) x_t + rho sd / sqrt(sigma_t^2 + sd^2 alpha_t^2) out ];
  on EDM's c_skip = sd^2 / ((t - s)^2 + sd^2), c_out = (t - s) sd / sqrt(t^2 + sd^2).   arXiv:2303.01469 app. C
  """
  return Partial(_boundary, jnp.asarray(data_std, float))


def _boundary(sd: Array, process: Process, kind: Kind, t: Array, s: Array) -> tuple[Array, Array]:
  alpha, sigma = process.schedule(t)
  alpha_s, sigma_s = process.schedule(s)
  rho = sigma - alpha * sigma_s / alpha_s
  skip = alpha_s * alpha * sd**2 / (rho**2 + (sd * alpha) ** 2)
  return settled(t, s, skip, alpha_s * rho * sd / jnp.hypot(sigma, sd * alpha))


def latent_form(process: Process, fine: int, scaling: float = 10.0, data_std: float = 0.5) -> Partial:
  """The form of `latent_consistency`, for jumps to the first of so many steps of t_max.

  arXiv:2310.04378 sec. 4.1, the boundary form of its code
  """
  return Partial(_latent, jnp.asarray(scaling * fine / float(process.t_max), float), jnp.asarray(data_std, float))


def _latent(scaling: Array, sd: Array, process: Process, kind: Kind, t: Array, s: Array) -> tuple[Array, Array]:
  tau = scaling * (t - s)
  p, q = kind(process, t).x0
  skip, out = sd**2 / (tau**2 + sd**2), tau / jnp.hypot(tau, sd)
  return jnp.where(s == t, 1.0, skip + out * p), out * q


class Slowed(NamedTuple):
  """A network that is told its time divided by `factor`: smooth in time, as derivatives in time need it."""

  net: Any
  factor: float

  @property
  def module(self) -> Any:
    """That of the network."""
    return self.net.module

  def __call__(self, params: Params, x: Array, t: Array, cond: Cond = None, key: Any = None) -> Any:
    return self.net(params, x, t / self.factor, cond, key)


class Landing(NamedTuple):
  """A network that is told where a jump ends and not where it begins: all its jumps begin at one time."""

  net: Any

  @property
  def module(self) -> Any:
    """That of the network."""
    return self.net.module

  def __call__(self, params: Params, x: Array, t: Array, cond: Cond = None, key: Any = None) -> Any:
    return self.net(params, x, t[:, 1], cond, key)


class Jump(PyTree):
  """A network as a jump: (params, x_t, t, s) -> x_s.

  Attributes:
    process, kind: of the network's output.
    form: (process, kind, t, s) -> the coefficients (a, b) of x and the output.
    end: the time at which jumps all the way end.
    net: the network; told t alone, or (t, s) where `paired`.
  """

  process: Process
  kind: Kind
  form: Callable
  end: Array
  net: Any = struct.field(pytree_node=False, kw_only=True)
  paired: bool = struct.field(pytree_node=False, kw_only=True)

  def out(self, params: Params, x: Array, t: Array, s: Array, cond: Cond = None, key: Any = None) -> Array:
    """What the network returns for x (B, ...) and t, s (B,), float32."""
    c_in, told = coordinate(self.process, self.kind, t)
    if self.paired:
      told = jnp.stack([told, coordinate(self.process, self.kind, s)[1]], -1)
    return self.net(params, expand(c_in, x) * x, told, cond, key).astype(x.dtype)

  def land(self, x: Array, out: Array, t: Array, s: Array) -> Array:
    """Where this output takes x_t at s."""
    a, b = self.form(self.process, self.kind, t, s)
    return (expand(a, x) * x + expand(b, x) * out).astype(x.dtype)

  def __call__(self, params: Params, x: Array, t: Any, s: Any, cond: Cond = None, key: Any = None) -> Array:
    """The estimate of x_s; t, s () or (B,), s <= t."""
    t, s = (jnp.broadcast_to(jnp.asarray(u, x.dtype), (len(x),)) for u in (t, s))
    return self.land(x, self.out(params, x, t, s, cond, key), t, s)


def coordinate(process: Process, kind: Kind, t: Array) -> tuple[Array, Array]:
  """What a network's input is multiplied by at t, and the time that it is told, that of t_min nearer the data."""
  told = jnp.maximum(t, jax.lax.stop_gradient(process.t_min).astype(t.dtype))  # lam is infinite at the data
  return kind(process, t).c_in, kind(process, told).network_time


def jump_from(
  parts: Parts, *, paired: bool = False, form: Callable | None = None, end: float | None = None, slow: float = 1.0
) -> Jump:
  """The student's network as a jump.

  Args:
    parts: what the recipe was handed.
    paired: whether the network is told where the jump ends.
    form: see `Jump`; `through` unless given.
    end: where jumps all the way end; t_min unless given.
    slow: what the network's time coordinate is divided by.

  Raises:
    InputError: several modalities or tokens; a network of one time where two are needed; a kind from which x0 cannot be
      told at t_max; a slowness that is not positive.
  """
  if isinstance(parts.shape, dict) or parts.vocabulary:
    raise InputError(f'data: got those of shape {parts.shape}; allowed for jumps: numbers of one modality')
  times = getattr(getattr(parts.net, 'module', None), 'times', 1)
  if paired and times != 2:
    raise InputError('net.times: got 1, a network that is not told where a jump ends; allowed: 2, of mlp and unet')
  if parts.kind.needs_signal and not np.isfinite(float(parts.process.lam(parts.process.t_max))):
    raise InputError('loss.kind: got one that needs a signal where alpha(t_max) is 0; allowed: x0, v, velocity, edm')
  if not slow > 0:
    raise InputError(f'slow: got {slow}; allowed: a positive number')
  net = parts.net if slow == 1 else Slowed(parts.net, float(slow))
  last = parts.process.t_min if end is None else jnp.asarray(end, float)
  return Jump(parts.process, parts.kind, form or Partial(through), last, net=net, paired=paired)
