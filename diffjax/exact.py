"""Targets whose every noise level is known in closed form: the truth that methods are accepted on.

A mixture of Gaussians with full covariances stays one under the forward process, under a linear-Gaussian observation
and under an exponential-quadratic reward. One Gaussian is a mixture of one.
"""

from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import struct
from jax import Array

from diffjax import keys
from diffjax import labels as classes
from diffjax.contracts import Cond, Data, KeyBatch, Memory, Time
from diffjax.errors import InputError
from diffjax.prediction import Pred
from diffjax.process import Process
from diffjax.pytree import PyTree

__all__ = ['Mixture', 'ExactDenoiser', 'mixture', 'gaussian', 'ring8', 'gaussian_flow']

# Accelerators multiply float32 matrices in tf32 or bfloat16 unless told otherwise.
einsum, matmul = (partial(f, precision='highest') for f in (jnp.einsum, jnp.matmul))


class Mixture(PyTree):
  """A mixture of Gaussians, the target whose every figure is known in closed form.

  sum_k w_k N(mean_k, U_k diag(var_k) U_k^T) in d dimensions.

  Covariances are kept by their eigenvectors, so a noise level only moves `var`: alpha^2 var + sigma^2.

  Attributes:
    log_weights: (K,), normalised.
    means: (K, d).
    basis: (K, d, d), the columns of basis[k] are the eigenvectors of covariance k.
    var: (K, d), their eigenvalues.
    labels: (K,) int32, the class of each component, for conditional targets.
  """

  log_weights: Array
  means: Array
  basis: Array
  var: Array
  labels: Array

  @property
  def covariances(self) -> Array:
    """The covariance of each component, (K, d, d)."""
    return einsum('kij,kj,klj->kil', self.basis, self.var, self.basis)

  def mean(self) -> Array:
    """The mean of the mixture, (d,)."""
    return matmul(jnp.exp(self.log_weights), self.means)

  def covariance(self) -> Array:
    """The covariance of the mixture, (d, d): within plus between components."""
    w, shift = jnp.exp(self.log_weights), self.means - self.mean()
    return einsum('k,kij->ij', w, self.covariances) + einsum('k,ki,kj->ij', w, shift, shift)

  def sample(self, key_batch: KeyBatch, cond: Array | None = None) -> Array:
    """Exact draws (B, d), one a key; of the classes `cond` (B,) when given."""
    k_part, k_noise = keys.split(key_batch, 2)
    logits = jnp.broadcast_to(self._prior(cond), (key_batch.shape[0], self.log_weights.shape[0]))
    part = jax.vmap(jax.random.categorical)(k_part, logits)
    z = keys.normal(k_noise, self.means[part])
    return self.means[part] + einsum('bij,bj->bi', self.basis[part], jnp.sqrt(self.var[part]) * z)

  def log_density(self, x: Array, alpha: Any = 1.0, sigma: Any = 0.0, cond: Array | None = None) -> Array:
    """The log-density of x_t in nats, (B,), at the level (alpha, sigma), each () or (B,); by default of the data."""
    return jax.nn.logsumexp(self._joint(x, alpha, sigma, cond)[0], axis=-1)

  def predict(self, x: Array, alpha: Any, sigma: Any, cond: Array | None = None) -> Pred:
    """The exact prediction, E[x0 | x_t] and E[eps | x_t], a consistent pair at every level, its two ends included."""
    joint, y, noisy = self._joint(x, alpha, sigma, cond)
    r = jax.nn.softmax(joint, axis=-1)
    alpha, sigma = _column(alpha), _column(sigma)
    whitened = einsum('kij,bkj->bki', self.basis, y / noisy)
    clean = self.means + alpha[..., None] * einsum('kij,bkj->bki', self.basis, self.var * y / noisy)
    return Pred(einsum('bk,bki->bi', r, clean), sigma * einsum('bk,bki->bi', r, whitened))

  def moments(self, x: Array, alpha: Any, sigma: Any, cond: Array | None = None) -> dict[str, Array]:
    """The moments of the noise given x_t, exact at every level.

    E[eps^2 | x_t], E[eps^3 | x_t] and Var[eps | x_t] a dimension, each (B, d).

    Within component k, eps ~ N(sigma U (y / noisy), U diag(alpha^2 var / noisy) U^T): as 'eps2', 'eps3', 'residual2'.
    """
    joint, y, noisy = self._joint(x, alpha, sigma, cond)
    r = jax.nn.softmax(joint, axis=-1)[..., None]
    mean = _column(sigma)[..., None] * einsum('kij,bkj->bki', self.basis, y / noisy)
    var = einsum('kij,bkj->bki', self.basis**2, _column(alpha)[..., None] ** 2 * self.var / noisy)
    off = mean - jnp.sum(r * mean, axis=1, keepdims=True)
    laws = {'eps2': mean**2 + var, 'eps3': mean**3 + 3 * mean * var, 'residual2': off**2 + var}
    return {name: jnp.sum(r * law, axis=1) for name, law in laws.items()}

  def posterior_parts(self, x: Array, alpha: Array, sigma: Array) -> tuple[Array, Array, Array]:
    """The posterior of x0 at x: log responsibilities (B, K), means (B, K, d), variances (K, d) along the basis.

    For sampling and posterior moments at one level: alpha and sigma are scalars.
    """
    joint, y, noisy = self._joint(x, alpha, sigma, None)
    means = self.means + alpha * einsum('kij,bkj->bki', self.basis, self.var * y / noisy)
    return jax.nn.log_softmax(joint, axis=-1), means, self.var * sigma**2 / noisy[0]

  def observe(self, matrix: Any, y: Data, noise_cov: Any) -> 'Mixture':
    """The posterior given a noisy linear observation y = H x0 + n, n ~ N(0, R); H (m, d), y (m,), R (m, m)."""
    matrix, y = jnp.asarray(matrix), jnp.asarray(y)
    weighted = jnp.linalg.solve(jnp.asarray(noise_cov), matrix)
    return self.tilt(matmul(weighted.T, y), matmul(matrix.T, weighted))[0]

  def tilt(self, linear: Any, quadratic: Any = None) -> tuple['Mixture', Array]:
    """The law p(x) exp(a.x - x.Q x / 2) / Z and log Z; a (d,), Q (d, d) positive semi-definite or None for 0.

    Component by component C' = (I + C Q)^{-1} C and m' = (I + C Q)^{-1} (m + C a), also for singular C.
    """
    a = jnp.asarray(linear)
    d = self.means.shape[1]
    q = jnp.zeros((d, d), self.means.dtype) if quadratic is None else jnp.asarray(quadratic)
    cov = self.covariances
    grow = jnp.eye(d) + matmul(cov, q)
    new_cov = jnp.linalg.solve(grow, cov)
    new_mean = jnp.linalg.solve(grow, (self.means + matmul(cov, a))[..., None])[..., 0]
    # log of E_k exp(a.x - x.Qx/2), completed about m: b = a - Q m is what is left of the slope there
    slope = a - matmul(self.means, q)
    log_z = (
      matmul(self.means, a)
      - einsum('ki,ij,kj->k', self.means, q, self.means) / 2
      + einsum('ki,kij,kj->k', slope, new_cov, slope) / 2
      - jnp.linalg.slogdet(grow)[1] / 2
    )
    joint = self.log_weights + log_z
    total = jax.nn.logsumexp(joint)
    var, basis = jnp.linalg.eigh((new_cov + jnp.swapaxes(new_cov, -1, -2)) / 2)
    return Mixture(joint - total, new_mean, basis, jnp.maximum(var, 0), self.labels), total

  def denoiser(self, process: Process) -> 'ExactDenoiser':
    """The perfect network for this target; a condition (B,) chooses the components of that class, -1 all of them."""
    return ExactDenoiser(self, process)

  def moments_denoiser(self, process: Process) -> 'ExactMoments':
    """The perfect network that also tells the moments of the noise, in `Pred.aux` (see `guidance.moment_heads`)."""
    return ExactMoments(self, process)

  def reverse(self, key_batch: KeyBatch, process: Process, x: Array, t: Time, s: Time) -> Array:
    """An exact draw of x_s given x_t, s < t: a reverse step of any length without discretisation error."""
    k_part, k_clean, k_step = keys.split(key_batch, 3)
    alpha, sigma = process.schedule(jnp.asarray(t))
    log_r, means, var = self.posterior_parts(x, alpha, sigma)
    part = jax.vmap(jax.random.categorical)(k_part, log_r)
    z = keys.normal(k_clean, x)
    mean = jnp.take_along_axis(means, part[:, None, None], 1)[:, 0]
    x0 = mean + einsum('bij,bj->bi', self.basis[part], jnp.sqrt(var[part]) * z)
    mean, std = process.posterior(x, x0, t, s)
    return mean + std * keys.normal(k_step, x)

  def check_cond(self, cond: Cond, field: str = 'cond') -> None:
    """Raises InputError for a label, where it can be read, that no component has and that is not -1."""
    values, there = classes.known(cond), classes.known(self.labels)
    if values is None or there is None:
      return
    wrong = values[~np.isin(values, [-1, *there])]
    if wrong.size:
      allowed = ', '.join(map(str, np.unique(there)))
      raise InputError(f'{field}: got label {wrong.flat[0]}; allowed: {allowed}, or -1, which means any')

  def _prior(self, cond: Array | None) -> Array:
    if cond is None:
      return self.log_weights
    self.check_cond(cond)
    chosen = (self.labels == jnp.asarray(cond)[:, None]) | (jnp.asarray(cond)[:, None] < 0)
    return jax.nn.log_softmax(jnp.where(chosen, self.log_weights, -jnp.inf), axis=-1)

  def _joint(self, x: Array, alpha: Any, sigma: Any, cond: Array | None) -> tuple[Array, Array, Array]:
    """The joint log-densities log w_k N_k(x) (B, K), x - alpha m_k in the eigenbasis (B, K, d), noisy variances."""
    alpha, sigma = _column(alpha)[..., None], _column(sigma)[..., None]
    noisy = alpha**2 * self.var + sigma**2
    y = einsum('kij,bki->bkj', self.basis, x[:, None] - alpha * self.means)
    log_n = -0.5 * jnp.sum(y**2 / noisy + jnp.log(2 * jnp.pi * noisy), axis=-1)
    return self._prior(cond) + log_n, y, noisy


def _column(level: Any) -> Array:
  return jnp.reshape(jnp.asarray(level), (-1, 1))


class ExactDenoiser(PyTree):
  """The exact denoiser of a mixture under a process."""

  target: Mixture
  process: Process
  null: int = struct.field(pytree_node=False, default=-1)

  def __call__(self, x: Array, t: Time, cond: Array | None = None, memory: Memory = None) -> Pred:
    """The exact pair at x_t."""
    return self.target.predict(x, *self.process.schedule(jnp.asarray(t)), cond)

  def check_cond(self, cond: Cond, field: str = 'cond') -> None:
    """See `Mixture.check_cond`."""
    self.target.check_cond(cond, field)


class ExactMoments(ExactDenoiser):
  """The exact denoiser with aux = eps and its second and third moments."""

  def __call__(self, x: Array, t: Time, cond: Array | None = None, memory: Memory = None) -> Pred:
    pred = super().__call__(x, t, cond)
    moments = self.target.moments(x, *self.process.schedule(jnp.asarray(t)), cond)
    return pred._replace(aux={'eps': pred.eps, **moments})


def mixture(weights: Any, means: Any, covariances: Any, labels: Any = None) -> Mixture:
  """A mixture from weights (K,), means (K, d) and covariances: (K, d, d) full, (K, d) diagonal, or (K,) isotropic.

  Raises:
    InputError: shapes disagree, a weight is negative, a mean not finite, or a covariance not positive semi-definite.
  """
  w, m, c = (np.asarray(v, float) for v in (weights, means, covariances))
  if m.ndim != 2 or w.shape != m.shape[:1] or c.shape[:1] != w.shape:
    raise InputError(f'mixture: got shapes {w.shape}, {m.shape}, {c.shape}; allowed: (K,), (K, d), (K[, d[, d]])')
  if (w < 0).any() or w.sum() == 0:
    raise InputError(f'weights: got {weights}; allowed: non-negative numbers, not all 0')
  names = np.arange(len(w)) if labels is None else np.asarray(labels)
  if names.shape != w.shape:
    raise InputError(f'labels: got shape {names.shape}; allowed: one a component, {w.shape}')
  if not np.isfinite(m).all():
    raise InputError(f'means: got {means}; allowed: finite numbers')
  d = m.shape[1]
  if c.ndim < 3:
    var = np.broadcast_to(c.reshape(c.shape + (1,) * (2 - c.ndim)), m.shape)
    basis = np.broadcast_to(np.eye(d), (len(w), d, d))
  else:
    if not np.allclose(c, np.swapaxes(c, 1, 2)):
      raise InputError('covariances: got a matrix that is not symmetric or finite; allowed: symmetric matrices')
    var, basis = np.linalg.eigh(c)
  if not (var >= -1e-12).all():
    raise InputError(f'covariances: got an eigenvalue {var.min():.3g}; allowed: positive semi-definite matrices')
  with np.errstate(divide='ignore'):
    log_w = np.log(w / w.sum())
  arrays = (jnp.asarray(v, float) for v in (log_w, m, basis, np.maximum(var, 0)))
  return Mixture(*arrays, labels=jnp.asarray(names, jnp.int32))


def gaussian(mean: Any, covariance: Any) -> Mixture:
  """A single Gaussian as a mixture of one; mean (d,), covariance (d, d), (d,) or a number."""
  return mixture([1.0], np.asarray(mean, float)[None], np.asarray(covariance, float)[None])


def ring8(radius: float = 2.0, std: float = 0.15) -> Mixture:
  """Eight equal Gaussians on a circle, one class each."""
  angle = 2 * np.pi * np.arange(8) / 8
  return mixture(np.full(8, 1 / 8), radius * np.stack([np.cos(angle), np.sin(angle)], 1), np.full(8, std**2))


def gaussian_flow(target: Mixture, process: Process, x: Array, t: Time, s: Time) -> Array:
  """The probability-flow ODE of one Gaussian solved exactly from x_t (B, d) to x_s; s = 0 allowed.

  Raises:
    InputError: the target has several components.
  """
  if target.means.shape[0] != 1:
    raise InputError(f'target: got {target.means.shape[0]} components; allowed: one, as a mixture has no closed flow')
  return flow_along(process, Axes(target.means[0], target.basis[0], target.var[0]), jnp.asarray(x), t, s)


class Axes(NamedTuple):
  """A Gaussian by its mean, orthonormal columns (d, r), and the variance (r,) along each; none across them."""

  mean: Array
  basis: Array
  var: Array


def flow_along(process: Process, axes: Any, x: Array, t: Time, s: Time) -> Array:
  """The probability-flow ODE of a Gaussian of few axes solved exactly, from x_t (B, ...) to x_s; s = 0 allowed.

  x_s = alpha_s m + (sigma_s / sigma_t) y + U diag(q - sigma_s / sigma_t) U^T y with y = x_t - alpha_t m and
  q = sqrt[(alpha_s^2 v + sigma_s^2) / (alpha_t^2 v + sigma_t^2)].

  Args:
    process: the forward process.
    axes: `mean`, the shape of one example, `basis` U and `var` v, as of `Axes` or `statistics.Gaussian`.
    x: (B, ...) at the time t.
    t: where x is.
    s: where it goes, either way.
  """
  alpha, sigma = process.schedule(jnp.asarray(t))
  alpha_s, sigma_s = process.schedule(jnp.asarray(s))
  mean, basis, var = (jnp.asarray(leaf, x.dtype) for leaf in (axes.mean, axes.basis, axes.var))
  rest = sigma_s / sigma
  gain = jnp.sqrt((alpha_s**2 * var + sigma_s**2) / (alpha**2 * var + sigma**2)) - rest
  y = (x - alpha * mean).reshape(len(x), -1)
  return (alpha_s * mean + (rest * y + matmul(matmul(y, basis) * gain, basis.T)).reshape(x.shape)).astype(x.dtype)
