"""Ancestral steps whose spread comes from learned moments of the noise: SN-DPM and NPR-DPM; `mixed` has GMS.

Given x_t and x0 the step is Gaussian, x_s = keep x_t + pull x0 + std z. A network knows x0 only up to a law, and what
follows for x_s given x_t is, a dimension at a time,

    E x_s = keep x_t + pull E x0,    Var x_s = std^2 + pull^2 Var x0,    third central moment = pull^3 that of x0,

with x0 = (x_t - sigma_t eps) / alpha_t, hence Var x0 = (sigma_t / alpha_t)^2 Var eps. The moments of eps are found in
`Pred.aux` (`diffjax.guidance.moment_heads`).
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import struct
from jax import Array

from diffjax.contracts import Data, KeyBatch, Time
from diffjax.dtypes import wide
from diffjax.errors import InputError
from diffjax.noise_levels import on_grid
from diffjax.prediction import Pred
from diffjax.process import Process
from diffjax.pytree import PyTree
from diffjax.solvers.noise import Noise, independent

__all__ = ['sn_dpm', 'npr_dpm']

BLIND = 1e3  # sigma / alpha above which float32 moments of eps say nothing about x0


class Steps(NamedTuple):
  """The rows of these solvers, one a step from t to s.

  x_s = keep x_t + pull x0 + std z given x0. ratio is sigma_t / alpha_t, or 0 where blind = 1 (alpha_t = 0, or as good
  as); most is the largest standard deviation, 0 for a step to sigma = 0 and else infinite unless the last one is
  bounded.
  """

  t: Time
  keep: Any
  pull: Any
  std: Any
  ratio: Any
  blind: Any
  most: Any
  evaluated: Any
  stream: Any


def laid_out(
  process: Process, ts: Any, eta: float, clip: tuple[float, float] | None, last_std: float | None, data_var: Any
) -> tuple[Steps, Array, Array | None]:
  """The rows, and the variance and range of the data as arrays.

  keep = sqrt(sigma_s^2 - std^2) / sigma_t and pull = alpha_s - keep alpha_t, finite for alpha_t = 0 and sigma_s = 0.
  """
  if not 0 <= eta <= 1:
    raise InputError(f'eta: got {eta}; allowed: a number from 0 (DDIM) to 1 (DDPM)')
  if last_std is not None and not last_std >= 0:
    raise InputError(f'last_std: got {last_std}; allowed: None or a number of at least 0')
  if clip is not None and not (len(clip) == 2 and clip[0] < clip[1]):
    raise InputError(f'clip: got {clip}; allowed: None, or the range (low, high) of the data, low < high')
  ts, alpha, sigma, lam = on_grid(process, ts)
  h = np.diff(lam)
  gone = -np.expm1(-2 * h)
  left = np.sqrt(1 - eta**2 + eta**2 * np.exp(-2 * h))
  most = np.where(sigma[1:] > 0, np.inf, 0.0)
  if last_std is not None:
    most[np.flatnonzero(sigma[1:] > 0)[-1:]] = last_std
  blind = sigma[:-1] > BLIND * alpha[:-1]
  rows = Steps(
    t=ts[:-1],
    keep=left * sigma[1:] / sigma[:-1],
    pull=alpha[1:] * (1 - left * np.exp(-h)),
    std=eta * sigma[1:] * np.sqrt(gone),
    ratio=np.where(blind, 0.0, sigma[:-1] / np.where(blind, 1.0, alpha[:-1])),
    blind=blind.astype(np.float64),
    most=most,
    evaluated=np.ones(len(h), bool),
    stream=np.arange(len(h), dtype=np.int32),
  )
  return rows, jnp.asarray(data_var, float), None if clip is None else jnp.asarray(clip, float)


def sn_dpm(
  process: Process,
  ts: Any,
  *,
  eta: float = 1.0,
  clip: tuple[float, float] | None = None,
  last_std: float | None = None,
  data_var: Any = 0.0,
) -> 'Diagonal':
  """SN-DPM: ancestral sampling with the optimal variance from a learned second moment of the noise.

  Var x_s = std^2 + pull^2 (sigma_t / alpha_t)^2 (E[eps^2 | x] - eps_hat^2).

  Optimal a dimension where eps_hat is exact. Needs aux['eps2']. The step to sigma = 0 returns x0.   arXiv:2206.07309

  Args:
    process: the forward process.
    ts: the time grid, n + 1 strictly decreasing times.
    eta: 1 is DDPM's kernel, 0 DDIM's, whose std is 0.
    clip: the range of the data, (-1, 1) for images: x0 is clipped to it and Var x0 to the square of its half-width.
      Trained heads need it, since the first steps multiply their errors by sigma_t / alpha_t. None bounds nothing.
    last_std: the most that the last noisy step may add; the authors have 2/255 sqrt(pi/2), or twice that.
    data_var: the variance of the data, a number or like one example. It is Var x0 where alpha_t = 0, as at the start of
      rectified flow, where eps says nothing about x0. 0 takes the kernel of `ddpm` there.

  Raises:
    InputError: eta is outside [0, 1], the range is empty, last_std is negative; when run, a denoiser without 'eps2'.
  """
  return Diagonal(*laid_out(process, ts, eta, clip, last_std, data_var), residual=False)


def npr_dpm(
  process: Process,
  ts: Any,
  *,
  eta: float = 1.0,
  clip: tuple[float, float] | None = None,
  last_std: float | None = None,
  data_var: Any = 0.0,
) -> 'Diagonal':
  """NPR-DPM: ancestral sampling with the optimal variance from a learned residual of the noise.

  Var x_s = std^2 + pull^2 (sigma_t / alpha_t)^2 E[(eps - eps_hat)^2 | x].

  The optimal spread about an eps_hat that is not exact: the bias is part of it. Needs aux['residual2'] and takes the
  arguments of `sn_dpm`.   arXiv:2206.07309
  """
  return Diagonal(*laid_out(process, ts, eta, clip, last_std, data_var), residual=True)


class Stepped(PyTree):
  """What these solvers share: the state is x alone, every row is one evaluation and draws."""

  rows: Steps
  data_var: Array
  clip: Array | None
  stochastic: bool = struct.field(pytree_node=False, default=True, kw_only=True)
  skips: bool = struct.field(pytree_node=False, default=False, kw_only=True)

  @property
  def nfe(self) -> int:
    """Evaluations of the denoiser."""
    return int(np.sum(np.asarray(self.rows.evaluated)))

  def init(self, x: Data, key: Array | None = None) -> Any:
    return x

  def point(self, state: Any) -> Any:
    return state

  def output(self, state: Any) -> Any:
    return state

  def _told(self, pred: Pred, *names: str) -> tuple[Any, ...]:
    """These moments and, first, the eps_hat they belong to."""
    aux = pred.aux if isinstance(pred.aux, dict) else {}
    missing = [name for name in names if name not in aux]
    if missing:
      raise InputError(f'denoise: got a prediction without aux {", ".join(missing)}; allowed: one that gives '
                       f'{", ".join(names)}, made by with_moments(denoise, net, params, names) from a head trained by '
                       'losses.moments, or exact by Mixture.moments_denoiser')  # fmt: skip
    return aux.get('eps', pred.eps), *(aux[name] for name in names)

  def _levels(self, row: Steps, x: Array) -> tuple[Steps, Array]:
    """The row's numbers and the data's variance in the dtype that moments are computed in."""
    dtype = wide(x)
    return jax.tree.map(lambda c: c.astype(dtype), row), self.data_var.astype(dtype)

  def _clipped(self, x0: Array) -> Array:
    return x0 if self.clip is None else jnp.clip(x0, *self.clip.astype(x0.dtype))

  def __str__(self) -> str:
    rows = jax.tree.map(np.asarray, self.rows)
    lines = [f'{len(rows.t)} rows, {self.nfe} evaluations: {self._title()}']
    for i in range(len(rows.t)):
      spread = f'std = {rows.std[i]:.4g}' + (f', at most {rows.most[i]:.4g}' if 0 < rows.most[i] < np.inf else '')
      lines.append(f"{i:3d}  t = {rows.t[i]:<9.4g}  x' = {rows.keep[i]:.4g} x + {rows.pull[i]:.4g} x0   {spread}")
    return '\n'.join(lines)

  __repr__ = __str__

  def _title(self) -> str:
    raise NotImplementedError


class Diagonal(Stepped):
  """Made by `sn_dpm` and `npr_dpm`."""

  residual: bool = struct.field(pytree_node=False, default=False, kw_only=True)

  def transition(self, state: Any, pred: Pred, row: Steps) -> tuple[Any, Any]:
    """Mean and standard deviation of x_s, each like x."""
    eps, second = self._told(pred, 'residual2' if self.residual else 'eps2')

    def law(x: Array, x0: Array, eps: Array, second: Array) -> tuple[Array, Array]:
      r, data_var = self._levels(row, x)
      x, x0, eps, second = (leaf.astype(wide(x)) for leaf in (x, x0, eps, second))
      var = jnp.maximum(second if self.residual else second - eps**2, 0) * r.ratio**2 + r.blind * data_var
      if self.clip is not None:
        var = jnp.minimum(var, ((self.clip[1] - self.clip[0]) / 2).astype(var.dtype) ** 2)
      mean = r.keep * x + r.pull * self._clipped(x0)
      return mean, jnp.minimum(root(r.std**2 + r.pull**2 * var), r.most)

    return unzip(2, law, state, pred.x0, eps, second)

  def update(self, state: Any, pred: Pred, row: Steps, key_batch: KeyBatch | None, noise: Noise = independent) -> Any:
    """One row: mean + std z with z = noise(key_batch, row, x); InputError without keys."""
    mean, std = self.transition(state, pred, row)
    z = noise(given_keys(key_batch), row, state)
    return jax.tree.map(lambda m, s, z: m + s * z, mean, std, z)

  def _title(self) -> str:
    what = 'E[(eps - eps_hat)^2 | x]' if self.residual else 'E[eps^2 | x] - eps_hat^2'
    return f'variance std^2 + (pull sigma / alpha)^2 ({what})'


def root(square: Array) -> Array:
  """The square root, with the slope 0 at 0."""
  some = square > 0
  return jnp.where(some, jnp.sqrt(jnp.where(some, square, 1)), 0)


def unzip(n: int, f: Callable, state: Any, *trees: Any) -> tuple[Any, ...]:
  """The n results of f, each a tree like the state and of its dtypes."""
  results = jax.tree.map(lambda x, *leaves: tuple(part.astype(x.dtype) for part in f(x, *leaves)), state, *trees)
  return jax.tree.transpose(jax.tree.structure(state), jax.tree.structure((0,) * n), results)


def given_keys(key_batch: KeyBatch | None) -> Array:
  if key_batch is None:
    raise InputError('key_batch: got None; allowed: a key batch (B,), since this solver draws noise')
  return key_batch
