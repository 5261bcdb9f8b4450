"""A solver as a table of numbers: Butcher's general linear method in full.

With q registers R, each like x, and per row one evaluation Pred(x0, eps) at R[0], time t:

    R' = M [R, x0, eps, 1, z]          M (n, q, q + 4[, *element-wise]), z ~ N(0, I)

R[0] is the point evaluated next and, after the last row, the sample. Rows with `evaluated` False skip the evaluation.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import struct
from jax import Array

from diffjax.contracts import Data, KeyBatch, Time
from diffjax.errors import InputError
from diffjax.prediction import Pred
from diffjax.pytree import PyTree
from diffjax.solvers.noise import Noise, independent

__all__ = ['Rows', 'Table', 'pad']


class Rows(NamedTuple):
  """n rows, or one of them, then without the n in front.

  Attributes:
    t: times (n,).
    weights: (n, q, q + 4[, ...]): of each new register, in the old ones, then x0, eps, 1 and z, which are also there
      by name, (n, q[, ...]).
    evaluated: (n,), whether the row evaluates the denoiser.
    stream: (n,), the number of its noise.
  """

  t: Time
  weights: Any
  evaluated: Any
  stream: Any

  @property
  def of_x0(self) -> Any:
    """What each register takes of the prediction's x0."""
    return self._column(-4)

  @property
  def of_eps(self) -> Any:
    """What each register takes of the prediction's eps."""
    return self._column(-3)

  @property
  def constant(self) -> Any:
    """What is added to each register."""
    return self._column(-2)

  @property
  def of_z(self) -> Any:
    """The standard deviation of the noise in each register."""
    return self._column(-1)

  def _column(self, place: int) -> Any:
    before = np.ndim(self.t) + 1  # the axes of rows and of new registers; those of elements come after
    return self.weights[(*[slice(None)] * before, self.weights.shape[before] + place)]


class Table(PyTree):
  """A solver whose state is q registers and whose step is a linear map; numbers are leaves, flags are static.

  Attributes:
    rows: the table, NumPy float64 when built by a `TableBuilder`, cast to the dtype of x when used.
    registers: their names, for printing.
    stochastic: whether any row draws noise.
    skips: whether any row skips the evaluation.
  """

  rows: Rows
  registers: tuple[str, ...] = struct.field(pytree_node=False)
  stochastic: bool = struct.field(pytree_node=False, default=False)
  skips: bool = struct.field(pytree_node=False, default=False)

  @property
  def nfe(self) -> int:
    """Evaluations of the denoiser: evaluated rows."""
    return int(np.sum(np.asarray(self.rows.evaluated)))

  def init(self, x: Data, key: Array | None = None) -> tuple:
    """The registers at the start: x, and zeros."""
    return (x, *(jax.tree.map(jnp.zeros_like, x) for _ in self.registers[1:]))

  def point(self, state: tuple) -> Any:
    """The point where the denoiser is evaluated."""
    return state[0]

  def transition(self, state: tuple, pred: Pred, row: Rows) -> tuple[tuple, tuple]:
    """The Gaussian law of the next registers: means, and standard deviations that share one z."""
    sources = (*state, pred.x0, pred.eps)
    means, stds = [], []
    for weights, constant, std in zip(row.weights, row.constant, row.of_z, strict=True):

      def combine(*leaves: Array, weights: Array = weights, constant: Array = constant) -> Array:
        w = weights.astype(leaves[0].dtype)
        total = sum(w[j] * leaf for j, leaf in enumerate(leaves))  # multiply-adds: a dot would round to TF32 or bf16
        return total + constant.astype(leaves[0].dtype)

      means.append(jax.tree.map(combine, *sources))
      stds.append(jax.tree.map(lambda x, std=std: std.astype(x.dtype), state[0]))
    return tuple(means), tuple(stds)

  def update(
    self, state: tuple, pred: Pred, row: Rows, key_batch: KeyBatch | None, noise: Noise = independent
  ) -> tuple:
    """One row: mean + std z with z = noise(key_batch, row, x); InputError if it needs a key batch and has none."""
    means, stds = self.transition(state, pred, row)
    if not self.stochastic:
      return means
    if key_batch is None:
      raise InputError('key_batch: got None; allowed: a key batch (B,), since this solver draws noise')
    z = noise(key_batch, row, state[0])
    return tuple(jax.tree.map(lambda m, s, z: m + s * z, m, s, z) for m, s in zip(means, stds, strict=True))

  def output(self, state: tuple) -> Any:
    """The sample."""
    return state[0]

  def __str__(self) -> str:
    t, weights, evaluated, _ = (np.asarray(part) for part in self.rows)
    names = (*self.registers, 'x0', 'eps', '1', 'z')
    lines = [f'{len(t)} rows, {self.nfe} evaluations, registers {", ".join(self.registers)}']
    for i in range(len(t)):
      after = '   '.join(
        f"{name}' = {_sum(weights[i, j], names)}"
        for j, name in enumerate(self.registers)
        if not _kept(weights[i, j], j)
      )
      lines.append(f'{i:3d}  t = {t[i]:<9.4g}' + (' ' if evaluated[i] else '-') + f' {after}')
    return '\n'.join(lines)

  __repr__ = __str__


def _kept(row: np.ndarray, j: int) -> bool:
  return bool(np.all(row == np.eye(len(row))[j].reshape((-1,) + (1,) * (row.ndim - 1))))


def _sum(row: np.ndarray, names: Sequence[str]) -> str:
  terms = []
  for w, name in zip(row, names, strict=True):
    if not np.any(w):
      continue
    size = f'{float(w):+.4g}' if w.ndim == 0 else f'+[{w.min():.3g}..{w.max():.3g}]'
    terms.append(size if name == '1' else f'{size} {name}')
  return ' '.join(terms).removeprefix('+') or '0'


def pad(solver: Table, rows: int, registers: int) -> Table:
  """The same method with idle rows and registers added, so that solvers of one size share one compiled program.

  The result `skips`, its registers bear neutral names, and it stays stochastic or not.

  Raises:
    InputError: the solver has more rows or registers than asked for.
  """
  n, q = solver.rows.weights.shape[:2]
  for field, have, want in (('rows', n, rows), ('registers', q, registers)):
    if want < have:
      raise InputError(f'{field}: got {want}; allowed: at least the {have} of the solver')
  old = np.asarray(solver.rows.weights)
  elements = old.shape[3:]
  weights = np.zeros((rows, registers, registers + 4, *elements))
  keep = np.concatenate([np.arange(q), registers + np.arange(4)])
  weights[:n, :q, keep] = old
  for i in range(rows):
    for j in range(registers):
      if i >= n or j >= q:
        weights[i, j, j] = 1.0
  t, evaluated = np.asarray(solver.rows.t, np.float64), np.asarray(solver.rows.evaluated)
  padded = Rows(
    np.concatenate([t, np.full(rows - n, t[-1])]),
    weights,
    np.concatenate([evaluated, np.zeros(rows - n, bool)]),
    np.concatenate([np.asarray(solver.rows.stream), np.arange(n, rows, dtype=np.int32)]),
  )
  names = ('x', *(f'r{j}' for j in range(1, registers)))
  return solver.replace(rows=padded, registers=names, skips=True)
