"""Stochastic interpolants: a path from data to a base and noise in between, and the fields that carry its law.

    x_t = I(t, x0, x1) + gamma(t) z,       x0 data at t = 0, x1 of the base at t = 1
    b = E[dI/dt + gamma' z | x_t] = v + gamma' eta,   v = E[dI/dt | x_t],   eta = E[z | x_t],   score = -eta / gamma

arXiv:2303.08797, whose time runs from base to data
"""

from typing import Any

import jax
import jax.numpy as jnp
from jax import Array
from jax.tree_util import Partial

from diffjax import keys
from diffjax.dtypes import widened
from diffjax.errors import InputError
from diffjax.losses.couplings import Coupling, independent
from diffjax.losses.denoising import Loss, mean_square
from diffjax.prediction import Net
from diffjax.process import expand
from diffjax.pytree import PyTree

__all__ = ['FIELDS', 'Interpolant', 'encoding_decoding', 'linear', 'regression', 'trigonometric']

FIELDS = ('drift', 'velocity', 'denoiser', 'score')
EDGE = 1e-3  # of [0, 1]: nearer to its ends gamma, by which some fields are divided, is too small


class Interpolant(PyTree):
  """A path I and the variance of the noise about it; any differentiable pair.

  Attributes:
    path: (t, x0, x1) -> I, x0 at t = 0 and x1 at t = 1; t shaped to broadcast.
    gamma2: t -> gamma^2, zero at both ends.
  """

  path: Partial
  gamma2: Partial

  def gamma(self, t: Array) -> Array:
    """The deviation of the noise."""
    return jnp.sqrt(self.gamma2(t))

  def grow(self, t: Array) -> Array:
    """Half the slope of gamma^2, gamma gamma', finite where gamma' is not."""
    return jax.jvp(self.gamma2, (t,), (jnp.ones_like(t),))[1] / 2

  def at(self, t: Array, x0: Array, x1: Array, z: Array) -> Array:
    """The point x_t (B, ...) at times (B,)."""
    return self.path(expand(t, x0), x0, x1) + expand(self.gamma(t), x0) * z

  def slope(self, t: Array, x0: Array, x1: Array) -> Array:
    """dI/dt (B, ...) at times (B,)."""
    t = jnp.broadcast_to(expand(t, x0), x0.shape)
    return jax.jvp(lambda t: self.path(t, x0, x1), (t,), (jnp.ones_like(t),))[1]

  def target(self, field: str, t: Array, x0: Array, x1: Array, z: Array) -> Array:
    """What a network of this field should return on average at x_t."""
    if field == 'velocity':
      return self.slope(t, x0, x1)
    if field == 'drift':
      return self.slope(t, x0, x1) + expand(self.grow(t) / self.gamma(t), z) * z
    return z if field == 'denoiser' else -z / expand(self.gamma(t), z)


def _root(scale: Array, t: Array) -> Array:
  return scale * t * (1 - t)


def _product(scale: Array, t: Array) -> Array:
  return scale * (t * (1 - t)) ** 2


def _sine(scale: Array, t: Array) -> Array:
  return scale * jnp.sin(jnp.pi * t) ** 4


NOISES = {'root': _root, 'product': _product, 'sine': _sine}


def _noise(noise: str, scale: float) -> Partial:
  if noise not in NOISES:
    raise InputError(f'noise: got {noise!r}; allowed: {", ".join(NOISES)}')
  if not scale > 0:
    raise InputError(f'scale: got {scale}; allowed: a positive number')
  return Partial(NOISES[noise], jnp.asarray(scale, float))


def linear(noise: str = 'root', scale: float = 2.0) -> Interpolant:
  """The straight path (1 - t) x0 + t x1 with noise about it.

  gamma^2 is scale t (1 - t) ('root'), scale t^2 (1 - t)^2 ('product') or scale sin^4 (pi t) ('sine').

  Between Gaussians N(m0, s0^2) and N(m1, s1^2) it is the Schroedinger bridge of noise level e at 'root' and scale
  2 sqrt(s0^2 s1^2 + e^2).   arXiv:2303.08797 sec. 4

  Raises:
    InputError: another noise, or a scale that is not positive.
  """
  return Interpolant(Partial(_line), _noise(noise, scale))


def _line(t: Array, x0: Array, x1: Array) -> Array:
  return (1 - t) * x0 + t * x1


def trigonometric(noise: str = 'root', scale: float = 2.0) -> Interpolant:
  """The path cos(pi t / 2) x0 + sin(pi t / 2) x1, which keeps the variance of two white laws; noise as of `linear`.

  arXiv:2303.08797 sec. 4
  """
  return Interpolant(Partial(_turn), _noise(noise, scale))


def _turn(t: Array, x0: Array, x1: Array) -> Array:
  return jnp.cos(jnp.pi / 2 * t) * x0 + jnp.sin(jnp.pi / 2 * t) * x1


def encoding_decoding(scale: float = 1.0) -> Interpolant:
  """The path cos^2(pi t) x0 up to t = 1/2, cos^2(pi t) x1 from there; noise sqrt(scale) sin^2(pi t).

  At t = 1/2 only noise is left: x0 is encoded in it, x1 decoded from it.   arXiv:2303.08797 sec. 4
  """
  return Interpolant(Partial(_encode), _noise('sine', scale))


def _encode(t: Array, x0: Array, x1: Array) -> Array:
  return jnp.cos(jnp.pi * t) ** 2 * jnp.where(t < 0.5, x0, x1)


def regression(
  interpolant: Interpolant,
  net: Net,
  field: str = 'drift',
  *,
  antithetic: bool = True,
  coupling: Coupling | None = None,
  role: str = 'student',
) -> Loss:
  """The squared error of a network against a field of an interpolant at a random time.

  E mean |net(x_t, 1000 t) - target|^2, t uniform on [.001, .999], whose minimiser is the field itself: 'drift' b,
  'velocity' v, 'denoiser' eta or 'score' (times gamma, since its target grows as 1 / gamma).

  The base is batch['source'] where there is one, else N(0, I). With `antithetic` each example is met at z and -z, at
  twice the cost: gamma' z grows without bound at the ends, and most of it cancels.

  arXiv:2303.08797 sec. 2 and 5

  Args:
    interpolant: the path and its noise.
    net: (params, x, t, cond, key) -> out.
    field: what it learns.
    antithetic: whether z comes in pairs.
    coupling: which Gaussian base an example has, `diffjax.losses.couplings`; None is independent.
    role: whose parameters the network has.

  Raises:
    InputError: another field.
  """
  if field not in FIELDS:
    raise InputError(f'field: got {field!r}; allowed: {", ".join(FIELDS)}')
  coupling = coupling or independent()

  def loss(roles: dict[str, Any], batch: dict[str, Any], key: Array) -> tuple[Array, dict[str, Array]]:
    x0, cond = widened(batch['x']), batch.get('cond')
    k_t, k_base, k_z, k_net = keys.split(keys.per_sample(key, len(x0)), 4)
    t = EDGE + (1 - 2 * EDGE) * keys.uniform(k_t)
    x1 = widened(batch['source']) if 'source' in batch else coupling(x0, keys.normal(k_base, x0), cond)
    z = keys.normal(k_z, x0)

    def error(z: Array) -> Array:
      out = net(roles[role], interpolant.at(t, x0, x1, z), 1000 * t, cond, k_net)
      size = expand(interpolant.gamma(t), x0) if field == 'score' else 1.0
      return mean_square(size * out, size * interpolant.target(field, t, x0, x1, z))

    values = (error(z) + error(-z)) / 2 if antithetic else error(z)
    return values, {'t': t, 'error': values}

  return loss
