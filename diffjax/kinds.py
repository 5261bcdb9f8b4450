"""What a network is asked to predict: one linear form of (x0, eps) a kind.

A kind is a pytree (process, t) -> Form with
    target  = a x0 + b eps                       what the network should return
    x0    = p x + q out,   eps = r x + s out   its inverse, given x = alpha x0 + sigma eps
    c_in, network_time                            what the network is handed: c_in * x and its time coordinate
"""

import difflib
from typing import NamedTuple

import jax.numpy as jnp
from flax import struct
from jax import Array
from jax.tree_util import Partial

from diffjax.errors import InputError
from diffjax.process import Process
from diffjax.pytree import PyTree

__all__ = ['x0', 'eps', 'v', 'velocity', 'score', 'edm']


class Form(NamedTuple):
  """A kind at one time, see the top of the page: each pair its two coefficients, each () or (B,)."""

  target: tuple[Array, Array]
  x0: tuple[Array, Array]
  eps: tuple[Array, Array]
  c_in: Array
  network_time: Array


class Kind(PyTree):
  """A kind of network output. `needs_signal` says that x0 cannot be recovered where alpha = 0."""

  form: Partial
  timed: bool = struct.field(pytree_node=False, default=True)
  needs_signal: bool = struct.field(pytree_node=False, default=False)
  by_noise: bool = struct.field(pytree_node=False, default=False)

  def __call__(self, process: Process, t: Array) -> Form:
    (target, x0, eps), c_in = self.form(process, t)
    if not self.timed:
      return Form(target, x0, eps, c_in, t)
    return Form(
      target,
      x0,
      eps,
      c_in,
      process.replace(by_noise=True).network_time(t) if self.by_noise else process.network_time(t),
    )

  def plain(self) -> 'Kind':
    """The same kind for a function that takes the process's own time."""
    return self.replace(timed=False)


def as_kind(kind: 'str | Kind') -> Kind:
  """The kind of this name; a Kind is returned as it is.

  Raises:
    InputError: no kind has this name.
  """
  if not isinstance(kind, str):
    return kind
  if kind not in __all__:
    near = difflib.get_close_matches(kind, __all__, 1)
    raise InputError(f'kind: got {kind!r}{f", nearest {near[0]!r}" if near else ""}; allowed: {", ".join(__all__)}')
  return globals()[kind]()


def x0() -> Kind:
  """The clean signal."""
  return Kind(Partial(_x0))


def _x0(process: Process, t: Array) -> tuple:
  alpha, sigma = process.schedule(t)
  one, zero = jnp.ones_like(alpha), jnp.zeros_like(alpha)
  return ((one, zero), (zero, one), (1 / sigma, -alpha / sigma)), one


def eps() -> Kind:
  """The noise.

  arXiv:2006.11239
  """
  return Kind(Partial(_eps), needs_signal=True)


def _eps(process: Process, t: Array) -> tuple:
  alpha, sigma = process.schedule(t)
  one, zero = jnp.ones_like(alpha), jnp.zeros_like(alpha)
  return ((zero, one), (1 / alpha, -sigma / alpha), (zero, one)), one


def score() -> Kind:
  """The score of the noised data, the gradient of its log-density.

  grad log p_t(x) = -eps / sigma.

  arXiv:2011.13456
  """
  return Kind(Partial(_score), needs_signal=True)


def _score(process: Process, t: Array) -> tuple:
  alpha, sigma = process.schedule(t)
  zero = jnp.zeros_like(alpha)
  return ((zero, -1 / sigma), (1 / alpha, sigma**2 / alpha), (zero, -sigma)), jnp.ones_like(alpha)


def v() -> Kind:
  """The v-prediction, which turns from noise to data with the noise level.

  v = alpha eps - sigma x0.

  arXiv:2202.00512
  """
  return Kind(Partial(_v))


def _v(process: Process, t: Array) -> tuple:
  alpha, sigma = process.schedule(t)
  total = alpha**2 + sigma**2  # 1 for variance-preserving processes
  return ((-sigma, alpha), (alpha / total, -sigma / total), (sigma / total, alpha / total)), jnp.ones_like(alpha)


def velocity() -> Kind:
  """The velocity of the probability-flow ODE.

  dx/dt = alpha' x0 + sigma' eps.

  arXiv:2210.02747
  """
  return Kind(Partial(_velocity))


def _velocity(process: Process, t: Array) -> tuple:
  alpha, sigma = process.schedule(t)
  da, ds = process.rates(t)
  det = alpha * ds - sigma * da
  return ((da, ds), (ds / det, -sigma / det), (-da / det, alpha / det)), jnp.ones_like(alpha)


def edm(data_std: float | Array = 0.5) -> Kind:
  """Preconditioned: unit-variance input and target for data of this standard deviation.

  For any alpha: c_in = (alpha^2 sd^2 + sigma^2)^{-1/2}, c_skip = alpha sd^2 c_in^2, c_out = sd sigma c_in, so
  target = (x0 - c_skip x) / c_out = c_in (sigma x0 / sd - alpha sd eps); the network is told -lam/4.

  arXiv:2206.00364 sec. 5
  """
  return Kind(Partial(_edm, jnp.asarray(data_std, float)), by_noise=True)


def _edm(sd: Array, process: Process, t: Array) -> tuple:
  alpha, sigma = process.schedule(t)
  c = 1 / jnp.sqrt(alpha**2 * sd**2 + sigma**2)
  target = (c * sigma / sd, -c * alpha * sd)
  return (target, (alpha * sd**2 * c**2, sd * sigma * c), (sigma * c**2, -alpha * sd * c)), c
