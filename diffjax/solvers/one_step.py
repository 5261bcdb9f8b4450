"""One-step maps between times that may differ from sample to sample: pure functions without a grid, used by losses."""

from collections.abc import Callable

import jax.numpy as jnp
from jax import Array

from diffjax import keys
from diffjax.contracts import Cond, KeyBatch
from diffjax.prediction import Denoise, complete
from diffjax.process import Process, expand

__all__ = ['transfer', 'renoise', 'churned_transfer', 'heun_transfer']

Time = Array | float


def transfer(process: Process, x: Array, x0: Array, t: Time, s: Time) -> Array:
  """The DDIM step from t to s, with the eps that x and x0 give.

  x_s = alpha_s x0 + sigma_s eps with eps = (x_t - alpha_t x0) / sigma_t.

  x, x0 (B, ...); t, s () or (B,), either order; exact when x0 is constant along the path.

  arXiv:2010.02502 eq. 12
  """
  return process.perturb(x0, complete(process, x, t, x0).eps, s)


def renoise(process: Process, x: Array, s: Time, t: Time, eps: Array) -> Array:
  """Adds noise from s to t > s: a draw of x_t given x_s.

  x_t = (alpha_t / alpha_s) x_s + sqrt(sigma_t^2 - (alpha_t sigma_s / alpha_s)^2) eps.

  With h = lam_s - lam_t the deviation is sigma_t sqrt(1 - e^{-2h}).
  """
  ratio = process.schedule(jnp.asarray(t))[0] / process.schedule(jnp.asarray(s))[0]
  spread = process.schedule(jnp.asarray(t))[1] * jnp.sqrt(-jnp.expm1(2 * (process.lam(t) - process.lam(s))))
  return expand(ratio, x) * x + expand(spread, x) * eps


def churned_transfer(
  denoise: Denoise, x: Array, t: Time, up: Time, s: Time, key_batch: KeyBatch, *, cond: Cond = None
) -> Array:
  """EDM's churn without Heun: noise from t up to `up` >= t, then one DDIM step down to s.

  arXiv:2206.00364
  """
  x = renoise(denoise.process, x, t, up, keys.normal(key_batch, x))
  return transfer(denoise.process, x, denoise(x, up, cond).x0, up, s)


def heun_transfer(denoise: Denoise, x: Array, t: Time, s: Time, cond: Cond = None) -> Array:
  """Heun's second-order step in sigma / alpha from t to s, two evaluations.

  x_s = (alpha_s / alpha_t) x_t + (sigma_s - alpha_s sigma_t / alpha_t) (eps_t + eps_s) / 2; s > 0.

  arXiv:2206.00364 Alg. 1
  """
  process: Process = denoise.process
  first = denoise(x, t, cond)
  step: Callable[[Array], Array] = lambda eps: _noise_form(process, x, eps, t, s)  # noqa: E731
  second = denoise(step(first.eps), s, cond)
  return step((first.eps + second.eps) / 2)


def _noise_form(process: Process, x: Array, eps: Array, t: Time, s: Time) -> Array:
  alpha, sigma = process.schedule(jnp.asarray(t))
  alpha_s, sigma_s = process.schedule(jnp.asarray(s))
  return expand(alpha_s / alpha, x) * x + expand(sigma_s - alpha_s * sigma / alpha, x) * eps
