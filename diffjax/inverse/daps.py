"""Decoupled annealing: at every level a whole draw of the data given y, then noise anew for the next."""

from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np
from flax import struct
from jax import Array

from diffjax import keys
from diffjax.contracts import Data, KeyBatch, Time
from diffjax.errors import InputError
from diffjax.inverse.observation import Observation
from diffjax.inverse.pigdm import positive, spread_of
from diffjax.noise_levels import at, on_grid, times_of
from diffjax.prediction import Pred
from diffjax.process import Process
from diffjax.pytree import PyTree
from diffjax.solvers.noise import Noise, independent

__all__ = ['daps']


def daps(process: Process, ts: Any, observation: Observation, *, data_std: float = 1.0, inner: int = 1) -> 'Decoupled':
  """DAPS: at every level x0 ~ N(m(x_t), C_t I) given y, then x_s = alpha_s x0 + sigma_s z.

  m is the prediction D where inner = 1, else where `inner` steps of DDIM lead from x_t; C_t = 1 / (1 / c^2 + alpha^2 /
  sigma^2), with c = inf the published sigma^2 / alpha^2. The draw is exact, by one linear solve: theirs is Langevin's.

  arXiv:2407.01521 Alg. 1

  With D and the data's c it is exact on N(m, c^2 I) at any number of levels; with D and c = inf as the levels grow. As
  published, with the end of the ODE, it draws the posterior of a prior of twice the variance: the end of the ODE carries
  half of the score. Steps do not follow each other, so an early error can be undone.

  Args:
    process: the forward process.
    ts: the levels, n + 1 strictly decreasing times.
    observation: what was seen, with its y.
    data_std: c.
    inner: evaluations a level; published 5, even in log sigma / alpha down to a hundredth of the level.

  Raises:
    InputError: the observation holds no y, inner is less than 1, or data_std not positive.
  """
  if observation.y is None:
    raise InputError('observation: got one without y; allowed: inverse.observation(operator, y)')
  if not (isinstance(inner, int | np.integer) and inner >= 1):
    raise InputError(f'inner: got {inner!r}; allowed: a whole number of at least 1')
  ts, _, _, lam = on_grid(process, ts)
  lines = []
  for i in range(len(ts) - 1):
    down = [lam[i] + np.log(100) * j / inner for j in range(inner)]
    us = np.concatenate([ts[i : i + 1], times_of(process, np.array(down[1:]))]) if inner > 1 else ts[i : i + 1]
    alpha, sigma, _ = at(process, us)
    for j in range(inner - 1):
      ratio = sigma[j + 1] / sigma[j]
      lines.append((us[j], ts[i], ts[i + 1], ratio, alpha[j + 1] - alpha[j] * ratio, False))
    lines.append((us[-1], ts[i], ts[i + 1], 0.0, 0.0, True))
  t, level, after, keep, gain, last = (np.array(column) for column in zip(*lines, strict=True))
  count = np.arange(len(t), dtype=np.int32)
  rows = Rows(t, np.ones(len(t), bool), count, level, after, keep, gain, last)
  return Decoupled(rows, process, observation, positive(data_std))


class Rows(NamedTuple):
  """Evaluations at t; a row that is not `last` steps to keep x + gain x0, the last of its level draws and goes on."""

  t: Time
  evaluated: Any
  stream: Any
  level: Any
  after: Any
  keep: Any
  gain: Any
  last: Any


class Decoupled(PyTree):
  """Made by `daps`. The state is x."""

  rows: Rows
  process: Process
  observation: Observation
  data_std: Array
  stochastic: bool = struct.field(pytree_node=False, default=True, kw_only=True)
  skips: bool = struct.field(pytree_node=False, default=False, kw_only=True)

  @property
  def nfe(self) -> int:
    """Evaluations of the denoiser: every row."""
    return len(self.rows.t)

  def init(self, x: Data, key: Array | None = None) -> Any:
    return x

  def point(self, state: Any) -> Any:
    return state

  def transition(self, state: Any, pred: Pred, row: Rows) -> tuple[Any, Any]:
    """The mean of the next state, and the deviation of the noise it is given beside the draw of x0."""
    alpha, sigma = self.process.schedule(row.after.astype(state.dtype))
    drawn = alpha * self.observation.pulled(pred.x0, self._spread(row, state.dtype))
    return self._either(row, drawn, state, pred), jnp.where(row.last, sigma, 0).astype(state.dtype)

  def update(self, state: Any, pred: Pred, row: Rows, key_batch: KeyBatch | None, noise: Noise = independent) -> Any:
    """One row; InputError if there is no key batch."""
    if key_batch is None:
      raise InputError('key_batch: got None; allowed: a key batch (B,), since this solver draws noise')
    alpha, sigma = self.process.schedule(row.after.astype(state.dtype))
    own = keys.fold(keys.fold(key_batch, row.stream), 1)
    x0 = self.observation.drawn(own, pred.x0, self._spread(row, state.dtype))
    return self._either(row, alpha * x0 + sigma * noise(key_batch, row, state), state, pred)

  def output(self, state: Any) -> Any:
    return state

  def _spread(self, row: Rows, dtype: Any) -> Array:
    return spread_of(self.process, row.level.astype(dtype), self.data_std)

  def _either(self, row: Rows, drawn: Array, x: Array, pred: Pred) -> Array:
    inner = row.keep.astype(x.dtype) * x + row.gain.astype(x.dtype) * pred.x0
    return jnp.where(row.last, drawn, inner).astype(x.dtype)

  def __str__(self) -> str:
    return f'{int(np.sum(self.rows.last))} levels, {self.nfe} evaluations, each level a draw of x0 given what was seen'

  __repr__ = __str__
