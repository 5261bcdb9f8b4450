"""Replacement: what was seen is put, with the noise of the level, in the place of what the sampler has there."""

from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np
from flax import struct
from jax import Array

from diffjax import keys
from diffjax.contracts import Data, KeyBatch, Time
from diffjax.errors import InputError
from diffjax.inverse.observation import Observation
from diffjax.prediction import Pred
from diffjax.process import Process, expand
from diffjax.pytree import PyTree
from diffjax.solvers import Solver
from diffjax.solvers.noise import Noise, independent

__all__ = ['replacement']

OWN = 2**31 - 11  # the stream of the observation's noise; those of a solver's rows count from 0


def replacement(solver: Solver, process: Process, observation: Observation, *, fixed: bool = False) -> 'Replaced':
  """Score-SDE's inpainting, colourisation and any linear observation, under any solver.

  Before every evaluation x becomes x + A^+ (y_t - A x) with y_t = alpha y + s A z, s^2 = sigma^2 - alpha^2 r^2 at least
  0; the sample at the end has A x = y.   arXiv:2011.13456 app. I

  A wrapper of a solver and no transform, since it draws noise of its own, acts on x and ends with y. It changes where
  the denoiser is asked alone: every solver is linear in x, x0 and eps, so what it does in the null space of A is what
  it would do had x itself been overwritten. Biased: the rest of x has not seen y when it was drawn, the less so the
  more steps follow a level.

  Args:
    solver: the method on its grid.
    process: the forward process.
    observation: what was seen, with its y; for rows of A that are orthonormal up to a number.
    fixed: one draw z a sample for all levels, which a deterministic solver of high order needs.

  Raises:
    InputError: the observation holds no y.
  """
  if observation.y is None:
    raise InputError('observation: got one without y; allowed: inverse.observation(operator, y)')
  t = np.asarray(solver.rows.t, np.float64)
  after = np.append(t[1:], t[-1])
  rows = Rows(t, np.asarray(solver.rows.evaluated), np.asarray(solver.rows.stream), after, solver.rows)
  return Replaced(solver, rows, process, observation, fixed=fixed, skips=solver.skips)


class Rows(NamedTuple):
  """The rows of the solver, each with the time of the row after it."""

  t: Time
  evaluated: Any
  stream: Any
  after: Any
  inner: Any


class State(NamedTuple):
  """The solver's own state, and A^+ y_t at the level of the next row."""

  inner: Any
  seen: Array


class Replaced(PyTree):
  """Made by `replacement`."""

  solver: Any
  rows: Rows
  process: Process
  observation: Observation
  fixed: bool = struct.field(pytree_node=False, kw_only=True)
  skips: bool = struct.field(pytree_node=False, kw_only=True)
  stochastic: bool = struct.field(pytree_node=False, default=True, kw_only=True)

  @property
  def nfe(self) -> int:
    """Evaluations of the solver."""
    return self.solver.nfe

  def init(self, x: Data, key: Array | None = None) -> State:
    """The solver's start, and what was seen at its first level."""
    if key is None:
      raise InputError('key: got None; allowed: a typed key, since what was seen is given noise')
    return State(self.solver.init(x, key), self._noised(x, self.rows.t[0], key, -1))

  def point(self, state: State) -> Any:
    """The solver's point with the part that was seen replaced."""
    return self._replaced(self.solver.point(state.inner), state.seen)

  def transition(self, state: State, pred: Pred, row: Rows) -> tuple[Any, Any]:
    """The law of the solver's next state."""
    return self.solver.transition(state.inner, pred, row.inner)

  def update(
    self, state: State, pred: Pred, row: Rows, key_batch: KeyBatch | None, noise: Noise = independent
  ) -> State:
    """The solver's step, and what was seen at the level where it leads."""
    if key_batch is None:
      raise InputError('key_batch: got None; allowed: a key batch (B,), since what was seen is given noise')
    inner = self.solver.update(state.inner, pred, row.inner, key_batch, noise)
    return State(inner, self._noised(state.seen, row.after, key_batch, row.stream))

  def output(self, state: State) -> Any:
    """The sample, with A x = y."""
    x = self.solver.output(state.inner)
    return self._replaced(x, self.observation.operator.pinv(self._y(x)))

  def _y(self, x: Array) -> Array:
    y = self.observation.y
    return jnp.broadcast_to(y, (len(x), *y.shape[1:])).astype(x.dtype)

  def _replaced(self, x: Array, seen: Array) -> Array:
    operator = self.observation.operator
    return x + seen - operator.pinv(operator(x))

  def _noised(self, like: Array, t: Array, key_batch: KeyBatch, stream: Any) -> Array:
    """A^+ y_t."""
    operator, y = self.observation.operator, self._y(like)
    alpha, sigma = self.process.schedule(jnp.asarray(t, y.dtype))
    std = jnp.sqrt(jnp.maximum(sigma**2 - alpha**2 * self.observation.noise.variance(y), 0))
    own = keys.fold(key_batch, OWN)
    z = keys.normal(own if self.fixed else keys.fold(own, stream + 1), like)
    return operator.pinv(expand(alpha, y) * y + std.astype(y.dtype) * operator(z))

  def __str__(self) -> str:
    return f'what was seen replaced before every evaluation\n{self.solver}'

  __repr__ = __str__
