"""AFDPS: particles of a posterior along the whole diffusion, exact in the limit of many, without approximations."""

import jax.numpy as jnp
from jax import Array

from diffjax import keys
from diffjax.contracts import Cond, Data, Memory, Time
from diffjax.errors import InputError
from diffjax.guidance.tilt import pushed
from diffjax.guidance.transform import Transform, as_scale
from diffjax.inverse.observation import Observation
from diffjax.prediction import Denoise, Pred
from diffjax.process import Process, expand

__all__ = ['afdps', 'afdps_start']


def afdps(denoise: Denoise, observation: Observation, *, noise: float = 1.0) -> 'Tempered':
  """AFDPS: the reverse SDE of p_t(x) exp(-mu_t(x)), with the rate at which its particles gain weight.

      mu_t = sum (A x - alpha y)^2 / 2 (alpha^2 R + sigma^2)
      G    = -2 V^2 / (g^2 + V^2) grad mu             V = noise g, the noise of the solver
      dlogW / dtau = -b . grad mu + V^2 |grad mu|^2 / 2 + dmu / dt,   b = -f x + (g^2 + V^2) score / 2

  up to what all particles of a sample share. arXiv:2506.03979; the potential tempered by the level (theirs is
  alpha = 1, sigma = 0 in mu, and unstable at high noise where R is small).

  The rate is in aux['weight_rate']: under `steering.particles`, begun by `afdps_start`, the weighted law is p(x0 | y) for
  the exact score, and for any score the posterior of what the same SDE generates without y; without it, it is ignored.
  One evaluation, and no gradient through the network.

  Args:
    denoise: what is asked for predictions.
    observation: what was seen.
    noise: V / g of the solver; 1 for euler_maruyama, ancestral and the like.

  Raises:
    InputError: noise is not positive.
  """
  if not noise > 0:
    raise InputError(f'noise: got {noise}; allowed: a positive number, the noise of the solver over that of the SDE')
  return Tempered(denoise, observation, as_scale(noise))


class Tempered(Transform):
  """Made by `afdps`."""

  observation: Observation
  noise: Array

  def __call__(self, x: Data, t: Time, cond: Cond = None, memory: Memory = None) -> Pred:
    seen, told = self.observation.of(cond)
    pred = self.denoise(x, t, told, memory)
    t = jnp.broadcast_to(jnp.asarray(t), x.shape[:1])
    slope, change = _potential(self.process, seen, x, t)
    sigma = self.process.schedule(t)[1]
    g2 = self.process.g2(t)
    v2 = self.noise**2 * g2
    score = -pred.eps / expand(jnp.where(sigma > 0, sigma, 1), x)
    drift = expand(-self.process.drift(t), x) * x + expand((g2 + v2) / 2, x) * score
    rate = change + v2 / 2 * total(slope**2) - total(drift * slope)
    aux = {**(pred.aux if isinstance(pred.aux, dict) else {}), 'weight_rate': rate.astype(jnp.float32)}
    return pushed(self.process, t, pred, -slope, 2 * v2 / (g2 + v2))._replace(aux=aux)


def _potential(process: Process, seen: Observation, x: Array, t: Array) -> tuple[Array, Array]:
  """The gradient of mu_t, like x, and its change in t at a fixed x, (B,)."""
  (alpha, sigma), (d_alpha, d_sigma) = process.schedule(t), process.rates(t)
  y = seen.y.astype(x.dtype)
  wide = expand(alpha, y) ** 2 * seen.variance + expand(sigma, y) ** 2
  grown = 2 * (expand(alpha * d_alpha, y) * seen.variance + expand(sigma * d_sigma, y))
  miss = seen.operator(x) - expand(alpha, y) * y
  change = total(-miss * expand(d_alpha, y) * y / wide - (miss / wide) ** 2 * grown / 2)
  return seen.operator.adjoint((miss / wide).astype(x.dtype)), change


def total(values: Array) -> Array:
  """The sum of each sample, (B,)."""
  return jnp.sum(values.reshape(len(values), -1), axis=1)


def afdps_start(
  process: Process, observation: Observation, key: Array, like: Data, t: Time | None = None, data_std: float = 0.0
) -> Array:
  """Exact draws of N(0, alpha^2 c^2 + sigma^2) exp(-mu_t), where the particles begin; x (B, ...) as `like`.

  Args:
    process: the forward process.
    observation: what was seen, one y a row of `like` or one of all.
    key: one typed key, or one a row.
    like: what x shall be like.
    t: the first time of the grid; t_max by default.
    data_std: c, the deviation of the data, 0 where they do not matter at that level.
  """
  t = process.t_max if t is None else t
  alpha, sigma = process.schedule(jnp.asarray(t))
  x = jnp.zeros(like.shape, like.dtype)
  at_level = observation.replace(y=alpha * observation.y).keeping(alpha**2 * observation.variance + sigma**2)
  return at_level.drawn(keys.per_sample(key, len(x)), x, alpha**2 * data_std**2 + sigma**2)
