"""Ancestral steps whose noise has the full covariance that x0 has given x_t."""

from typing import Any

import jax
import jax.numpy as jnp
from jax import Array

from diffjax.contracts import KeyBatch
from diffjax.errors import InputError
from diffjax.prediction import Pred
from diffjax.process import Process
from diffjax.solvers.noise import Noise, independent
from diffjax.solvers.own.sn_dpm import Stepped, Steps, given_keys, laid_out, root

__all__ = ['full_dpm']


def full_dpm(
  process: Process,
  ts: Any,
  *,
  eta: float = 1.0,
  clip: tuple[float, float] | None = None,
  last_std: float | None = None,
  data_var: Any = 0.0,
) -> 'Full':
  """The ancestral sampler with the optimal covariance, not its diagonal alone (`sn_dpm`).

  Cov x_s = std^2 I + pull^2 Cov(x0 | x_t),    Cov(x0 | x_t) = (sigma_t^2 / alpha_t) d x0_hat / d x_t

  For a Gaussian every step is exact, whatever its length and correlations. Needs aux['covariance'], made by
  `guidance.with_covariance`, whose Jacobian-vector products are its cost beside one evaluation a step. Takes the
  arguments of `sn_dpm`, data_var a number; a range (`clip`) bounds eigenvalues as it bounds variances there.

  arXiv:2206.07309

  Raises:
    InputError: as `sn_dpm`; when run, a denoiser without 'covariance'.
  """
  return Full(*laid_out(process, ts, eta, clip, last_std, data_var))


class Full(Stepped):
  """Made by `full_dpm`."""

  def transition(self, state: Any, pred: Pred, row: Steps) -> tuple[Any, Any]:
    """Its noise is correlated: InputError. `mean` and `colour` give the law."""
    raise InputError('transition: got full_dpm, whose noise is correlated; allowed: its `mean` and `colour`')

  def mean(self, state: Array, pred: Pred, row: Steps) -> Array:
    """The mean of x_s, like x."""
    r = self._levels(row, state)[0]
    return (r.keep * state + r.pull * self._clipped(pred.x0)).astype(state.dtype)

  def colour(self, state: Array, pred: Pred, row: Steps, z: Array) -> Array:
    """The symmetric square root of the covariance of x_s applied to z, like x."""
    r, data_var = self._levels(row, state)
    known = self._told(pred, 'covariance')[1]
    most = jnp.inf if self.clip is None else ((self.clip[1] - self.clip[0]) / 2) ** 2

    def std(values: Array) -> Array:
      spread = jnp.where(r.blind > 0, data_var, jnp.minimum(values, most))
      return jnp.minimum(root(r.std**2 + r.pull**2 * spread), r.most).astype(values.dtype)

    return known.apply(std, z).astype(state.dtype)

  def update(self, state: Any, pred: Pred, row: Steps, key_batch: KeyBatch | None, noise: Noise = independent) -> Any:
    """One row: mean + root z with z = noise(key_batch, row, x); InputError without keys."""
    z = noise(given_keys(key_batch), row, state)
    return jax.tree.map(jnp.add, self.mean(state, pred, row), self.colour(state, pred, row, z))

  def _title(self) -> str:
    return 'covariance std^2 + (pull sigma)^2 / alpha d x0_hat / d x'
