"""Pseudo-inverse guidance: the likelihood of y given x_t with the covariance of what the prediction leaves open."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import struct
from jax import Array

from diffjax.contracts import Cond, Data, Memory, Time
from diffjax.errors import InputError
from diffjax.guidance.tilt import pushed
from diffjax.guidance.transform import Transform, as_scale, cost
from diffjax.inverse.observation import Observation
from diffjax.inverse.solving import conjugate_gradients
from diffjax.prediction import Denoise, Pred
from diffjax.process import Process, expand

__all__ = ['pigdm', 'spread_of']

COVARIANCES = ('isotropic', 'exact')


def pigdm(
  denoise: Denoise,
  observation: Observation,
  scale: Any = 1.0,
  *,
  covariance: str = 'isotropic',
  data_std: float = 1.0,
  steps: int = 20,
) -> 'Guided':
  """PiGDM: adds the gradient of the Gaussian likelihood of y given x_t to the score.

      G = J^T A^T (R + A C A^T)^{-1} (y - A D(x, t)),   J = dD/dx

      isotropic: C = c^2 sigma^2 / (alpha^2 c^2 + sigma^2) I         exact: C = (sigma^2 / alpha) J

  Song, Vahdat, Mardani, Kautz, ICLR 2023 (OpenReview 9_gsMA8MRKQ); the exact covariance: arXiv:2310.06721

  The isotropic covariance is that of data N(0, c^2 I); the exact one makes the method exact on every Gaussian, and to
  the second moment elsewhere: J is asked by its vector-Jacobian product, in conjugate gradients, and not differentiated.

  Args:
    denoise: what is asked for predictions.
    observation: what was seen.
    scale: a number, one a sample (B,), or a function of t as a pytree.
    covariance: 'isotropic' or 'exact'.
    data_std: c, of the isotropic covariance.
    steps: of conjugate gradients, a vector-Jacobian product each, with the exact one; at most as many as numbers seen.

  Raises:
    InputError: another covariance, fewer than one step, or data_std is not positive.
  """
  if covariance not in COVARIANCES:
    raise InputError(f'covariance: got {covariance!r}; allowed: {", ".join(COVARIANCES)}')
  if not (isinstance(steps, int | np.integer) and steps >= 1):
    raise InputError(f'steps: got {steps!r}; allowed: a whole number of at least 1')
  std, most = positive(data_std), int(np.prod(observation.operator.out))
  return Guided(
    denoise, observation, as_scale(scale), std, steps=min(steps, most), exact=covariance == 'exact'
  )  # fmt: skip


class Guided(Transform):
  """Made by `pigdm`."""

  observation: Observation
  scale: Any
  data_std: Array
  steps: int = struct.field(pytree_node=False, kw_only=True)
  exact: bool = struct.field(pytree_node=False, kw_only=True)

  def __call__(self, x: Data, t: Time, cond: Cond = None, memory: Memory = None) -> Pred:
    seen, told = self.observation.of(cond)

    def estimated(x: Array) -> tuple[Array, Pred]:
      pred = self.denoise(x, t, told, memory)
      return pred.x0, pred

    x0, back, pred = jax.vjp(estimated, x, has_aux=True)
    miss = seen.residual(x0)
    if self.exact:
      weighed = conjugate_gradients(self._covariance(seen, back, t), miss, self.steps)
    else:
      weighed = seen.weighed(miss, spread_of(self.process, t, self.data_std))
    return pushed(self.process, t, pred, back(seen.operator.adjoint(weighed))[0], self.scale)

  def _covariance(self, seen: Observation, back: Any, t: Time) -> Any:
    """V -> (R + (sigma^2 / alpha) A J A^T) v; where alpha = 0 nothing is pushed."""
    alpha, sigma = self.process.schedule(jnp.asarray(t))
    gain = jnp.where(alpha > 0, sigma**2 / jnp.where(alpha > 0, alpha, 1), 0)

    def apply(v: Array) -> Array:
      image = seen.operator(back(seen.operator.adjoint(v))[0])
      return (seen.variance * v + expand(gain, v) * image).astype(v.dtype)

    return apply

  def cost(self, t: float) -> int:
    """A forward, a vector-Jacobian product, and one more a step of conjugate gradients."""
    return cost(self.denoise, t) * (2 + self.steps * self.exact)


def spread_of(process: Process, t: Time, data_std: Array) -> Array:
  """The variance of x0 given x_t of data N(0, c^2 I): 1 / (1 / c^2 + alpha^2 / sigma^2), also for c = inf; () or (B,)."""
  alpha, sigma = process.schedule(jnp.asarray(t))
  return sigma**2 / (sigma**2 / data_std**2 + alpha**2)


def positive(data_std: Any) -> Array:
  """The deviation of the data as an array; InputError where it is not positive."""
  if not np.all(np.asarray(data_std) > 0):
    raise InputError(f'data_std: got {data_std}; allowed: a positive number')
  return jnp.asarray(data_std, float)
