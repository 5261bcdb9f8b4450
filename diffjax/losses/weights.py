"""Weights of the denoising loss: (process, kind, t, density) -> (B,), multiplying the kind's own squared error.

At a given (x_t, t) the errors of all kinds are multiples of each other: with the last coefficients q and s of
x0 = p x + q out and eps = r x + s out,

    x0_hat - x0 = q (out - target),     eps_hat - eps = s (out - target),     s = -(alpha / sigma) q,

so a weight W on the squared error of x0 is the weight W q^2 on that of the network's output, whatever its kind.
`density` is the law of t: weights that are meant as integrals over t (`sigmoid`, `elbo`) divide by it, and their
expected loss does not depend on the law. Each weight is a pytree; `__all__` lists what a config may name.
"""

import jax
import jax.numpy as jnp
from jax import Array
from jax.tree_util import Partial

from diffjax.errors import InputError
from diffjax.kinds import Kind
from diffjax.process import Process

__all__ = ['unit', 'min_snr', 'edm', 'sigmoid', 'elbo']

Number = float | Array


def unit() -> Partial:
  """Weighs nothing: the kind's own squared error."""
  return Partial(_unit)


def _unit(process: Process, kind: Kind, t: Array, density: Array) -> Array:
  return jnp.ones_like(t)


def min_snr(gamma: Number = 5.0) -> Partial:
  """Min-SNR weighting: the signal-to-noise ratio, capped.

  W = min(alpha^2 / sigma^2, gamma).   arXiv:2303.09556

  Raises:
    InputError: gamma is not positive.
  """
  return Partial(_min_snr, _positive('gamma', gamma))


def _min_snr(gamma: Array, process: Process, kind: Kind, t: Array, density: Array) -> Array:
  # snr q^2 = s^2, so neither branch multiplies an infinity by zero at the ends
  alpha, sigma = process.schedule(t)
  form = kind(process, t)
  return jnp.where(alpha**2 < gamma * sigma**2, form.eps[1] ** 2, gamma * form.x0[1] ** 2)


def edm(data_std: Number = 0.5) -> Partial:
  """EDM's weighting, a unit weight for the kind `edm`.

  W = 1 / c_out^2 = (alpha^2 sd^2 + sigma^2) / (sigma sd)^2: unit weight for the kind `edm`.   arXiv:2206.00364

  Raises:
    InputError: data_std is not positive.
  """
  return Partial(_edm, _positive('data_std', data_std))


def _edm(sd: Array, process: Process, kind: Kind, t: Array, density: Array) -> Array:
  alpha, sigma = process.schedule(t)
  return (alpha**2 * sd**2 + sigma**2) * (kind(process, t).x0[1] / (sigma * sd)) ** 2


def elbo() -> Partial:
  """The weighting of the variational bound, so that the mean loss is the diffusion term of the negative ELBO.

  W = -lam' alpha^2 / sigma^2 / p(t): the mean loss is the diffusion term of the negative ELBO.   arXiv:2107.00630

  -int lam'(t) E mean |eps_hat - eps|^2 dt over [t_min, t_max], in nats a data dimension (errors are means over these).
  """
  return Partial(_elbo)


def _elbo(process: Process, kind: Kind, t: Array, density: Array) -> Array:
  # -lam' s^2 with s = -(alpha/sigma) q is -(alpha sigma' - alpha' sigma) s q / sigma^2, finite at alpha = 0
  # for every kind that is
  alpha, sigma = process.schedule(t)
  da, ds = process.rates(t)
  form = kind(process, t)
  return -(alpha * ds - sigma * da) * form.eps[1] * form.x0[1] / sigma**2 / density


def sigmoid(bias: Number = 2.0) -> Partial:
  """Sigmoid weighting: the bound with less attention to fine detail.

  sigmoid(bias - 2 lam) times the weight of `elbo`: less attention to fine detail.   arXiv:2303.00848 sec. 4
  """
  return Partial(_sigmoid, jnp.asarray(bias, float))


def _sigmoid(bias: Array, process: Process, kind: Kind, t: Array, density: Array) -> Array:
  return jax.nn.sigmoid(bias - 2 * process.lam(t)) * _elbo(process, kind, t, density)


def _positive(name: str, value: Number) -> Array:
  if not jnp.all(jnp.asarray(value) > 0):
    raise InputError(f'{name}: got {value}; allowed: a positive number')
  return jnp.asarray(value, float)
