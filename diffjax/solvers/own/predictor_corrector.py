"""Predictor-corrector sampling: Langevin steps at one noise level between steps to the next."""

import math
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import struct
from jax import Array

from diffjax import keys
from diffjax.contracts import Data, KeyBatch, Time
from diffjax.errors import InputError
from diffjax.prediction import Pred
from diffjax.process import Process, expand
from diffjax.pytree import PyTree
from diffjax.solvers.noise import Noise, independent
from diffjax.solvers.tables.predictors import ancestral, levels, reverse_diffusion

__all__ = ['predictor_corrector']

PREDICTORS = {'reverse_diffusion': reverse_diffusion, 'ancestral': ancestral, 'none': None}
CORRECTORS = ('langevin', 'ald', 'none')


def predictor_corrector(
  process: Process,
  ts: Any,
  *,
  predictor: str = 'reverse_diffusion',
  corrector: str = 'langevin',
  steps: int = 1,
  snr: float = 0.16,
  batch_coupled: bool = False,
  to_data: bool = False,
) -> 'PredictorCorrector':
  """At each time `steps` Langevin steps, then one of the predictor.

      x <- x + h score + sqrt(2 h) z,   score = -eps / sigma
      langevin: h = 2 a (snr E|z| / |score|)^2,   ald: h = 2 a (snr sigma)^2,   a = (alpha_t / alpha_s)^2

  with s the next time of the grid: a = 1 - beta for a variance preserving process, 1 for an exploding one. Of n steps
  n (steps + 1) evaluations. |score| is the sample's own norm and E|z| the exact mean sqrt2 G((d+1)/2) / G(d/2) of that
  of the noise (the paper has its batch mean), so the law of a step is Gaussian. In few dimensions |score| comes near 0
  and the step has no bound: take `ald` or `batch_coupled` there.

  arXiv:2011.13456 app. G, Alg. 2-5

  Args:
    process: the forward process.
    ts: the time grid, n + 1 strictly decreasing times.
    predictor: 'reverse_diffusion', 'ancestral' or 'none'.
    corrector: 'langevin', 'ald' or 'none'.
    steps: corrector steps a time.
    snr: signal-to-noise ratio r of a corrector's step; published .16 for exploding, .01 to .16 for preserving variance.
    batch_coupled: |score| is its mean over the batch, as published: a sample then depends on its company.
    to_data: one more round, at the last time, to (alpha, sigma) = (1, 0), as published for exploding variance.

  Raises:
    InputError: a name that is not there, both 'none', steps or snr not positive; or what the predictor refuses.
  """
  _refuse(predictor, corrector, steps, snr)
  times, alpha, sigma = levels(process, ts, to_data)
  build = PREDICTORS[predictor]
  table = build(process, ts, to_data=to_data) if build else None
  weights, stage = [], []
  for i in range(len(times)):
    if corrector != 'none':
      a = (alpha[i] / alpha[i + 1]) ** 2
      h = 2 * a * snr**2  # in units of sigma^2 (E|z| / |eps|)^2, or of sigma^2 itself
      weights += [[1, 0, -h * sigma[i], 0, np.sqrt(2 * h) * sigma[i]]] * steps
      stage += range(1, steps + 1)
    if table is not None:
      weights.append(table.rows.weights[i, 0])
      stage.append(0)
  each = len(weights) // len(times)
  count = np.arange(len(weights), dtype=np.int32)
  rows = Rows(np.repeat(times, each), np.ones(len(weights), bool), count, np.array(weights), np.array(stage, np.int32))
  return PredictorCorrector(
    rows, stochastic=bool(rows.of_z.any()), langevin=corrector == 'langevin', batch_coupled=batch_coupled
  )


class Rows(NamedTuple):
  """n rows: weights (n, 5) of x, x0, eps, 1 and z; stage (n,) is 0 for the predictor, k for the k-th corrector."""

  t: Time
  evaluated: Any
  stream: Any
  weights: Any
  stage: Any

  @property
  def of_z(self) -> Any:
    """The standard deviation of the noise, (n,) or of one row."""
    return self.weights[..., 4]


class PredictorCorrector(PyTree):
  """Made by `predictor_corrector`. The state is x."""

  rows: Rows
  stochastic: bool = struct.field(pytree_node=False)
  langevin: bool = struct.field(pytree_node=False)
  batch_coupled: bool = struct.field(pytree_node=False)
  skips: bool = struct.field(pytree_node=False, default=False)

  @property
  def nfe(self) -> int:
    """Evaluations of the denoiser: every row."""
    return len(self.rows.t)

  def init(self, x: Data, key: Array | None = None) -> Any:
    return x

  def point(self, state: Any) -> Any:
    return state

  def transition(self, state: Any, pred: Pred, row: Rows) -> tuple[Any, Any]:
    """The Gaussian law of x after the row: a mean like x, and a standard deviation that broadcasts against it."""
    ratio = self._ratio(pred, row)

    def mean(x: Array, x0: Array, eps: Array) -> Array:
      of_x, of_x0, of_eps, constant, _ = row.weights.astype(x.dtype)
      return of_x * x + of_x0 * x0 + of_eps * expand(ratio, x).astype(x.dtype) ** 2 * eps + constant

    stds = jax.tree.map(lambda x: row.of_z.astype(x.dtype) * expand(ratio, x).astype(x.dtype), state)
    return jax.tree.map(mean, state, pred.x0, pred.eps), stds

  def _ratio(self, pred: Pred, row: Rows) -> Array:
    """E|z| / |eps| in a row of Langevin's corrector, 1 elsewhere."""
    if not self.langevin:
      return jnp.ones(())
    leaves = [eps.reshape(eps.shape[0], -1).astype(jnp.promote_types(eps.dtype, jnp.float32))
              for eps in jax.tree.leaves(pred.eps)]  # fmt: skip
    d = sum(leaf.shape[1] for leaf in leaves)
    size = jnp.sqrt(sum(jnp.sum(leaf**2, 1) for leaf in leaves))
    size = jnp.mean(size) if self.batch_coupled else size
    noise = math.sqrt(2) * math.exp(math.lgamma((d + 1) / 2) - math.lgamma(d / 2))
    return jnp.where(row.stage > 0, noise / jnp.where(row.stage > 0, size, 1.0), 1.0)

  def update(self, state: Any, pred: Pred, row: Rows, key_batch: KeyBatch | None, noise: Noise = independent) -> Any:
    """One row: mean + std z with z = noise(key_batch, row, x); InputError if it needs a key batch and has none."""
    mean, std = self.transition(state, pred, row)
    if not self.stochastic:
      return mean
    if key_batch is None:
      raise InputError('key_batch: got None; allowed: a key batch (B,), since this solver draws noise')
    # rows of one time would draw the same stretch of one Brownian path: each kind of row has a path of its own
    z = noise(keys.fold(key_batch, row.stage), row, state)
    return jax.tree.map(lambda m, s, z: m + s * z, mean, std, z)

  def output(self, state: Any) -> Any:
    return state

  def __str__(self) -> str:
    """Every row with its coefficients; q is E|z| / |eps| of the sample or batch."""
    t, _, _, weights, stage = (np.asarray(part) for part in self.rows)
    lines = [f'{len(t)} rows, {self.nfe} evaluations, state x']
    for i in range(len(t)):
      q = ('q^2 ', 'q ') if self.langevin and stage[i] else ('', '')
      names = ('x', 'x0', f'{q[0]}eps', '', f'{q[1]}z')
      terms = ' '.join(f'{w:+.4g} {name}'.strip() for w, name in zip(weights[i], names, strict=True) if w)
      kind = 'corrector' if stage[i] else 'predictor'
      lines.append(f"{i:3d}  t = {t[i]:<9.4g} {kind}  x' = {terms.removeprefix('+')}")
    return '\n'.join(lines)

  __repr__ = __str__


def _refuse(predictor: str, corrector: str, steps: int, snr: float) -> None:
  for field, value, allowed in (('predictor', predictor, PREDICTORS), ('corrector', corrector, CORRECTORS)):
    if value not in allowed:
      raise InputError(f'{field}: got {value!r}; allowed: {", ".join(allowed)}')
  if predictor == corrector == 'none':
    raise InputError('predictor, corrector: got none and none; allowed: one of them')
  if not (isinstance(steps, int | np.integer) and steps >= 1):
    raise InputError(f'steps: got {steps!r}; allowed: a whole number of at least 1')
  if not snr > 0:
    raise InputError(f'snr: got {snr}; allowed: a positive number')
