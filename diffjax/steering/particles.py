"""Weighted particles: a wrapper of any solver that runs K copies of every sample, weighs and resamples them.

Particles of a sample are neighbours: its rows are K k to K k + K - 1 of a batch of B K, so a batch that is sharded over
devices stays where it is. Log-weights are carried from row to row and set to 0 only where a sample is resampled, when
its effective number of particles falls below a share of K; each sample does so by itself, under one program.

What a weight is made of: `Pred.aux['weight_rate']` (B K,), per unit of reverse time, integrated over the rows by the
trapezoid rule; and what a method adds (`feynman_kac`, `twisted`). With a denoiser that states a rate the particles
follow the law that it was derived for; without this wrapper it is ignored, and the law biased.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import struct
from jax import Array

from diffjax import keys
from diffjax.contracts import Cond, Data, KeyBatch, Time
from diffjax.errors import InputError
from diffjax.prediction import Pred
from diffjax.process import expand
from diffjax.pytree import PyTree
from diffjax.solvers import Solver
from diffjax.solvers.noise import Noise, independent
from diffjax.solvers.resampling import ess, normalised, pick, systematic

__all__ = ['Ensemble', 'particle_keys', 'particles', 'spread']

OWN = 2**31 - 7  # the streams of particles and of resampling; those of a solver's rows count from 0


def particles(solver: Solver, count: int, *, threshold: float = 0.5, whole: bool = False, end: float = 0.0) -> Any:
  """K weighted particles a sample under this solver, resampled where fewer than `threshold` K are effective.

      logW += integral of aux['weight_rate'] dtau,   resampled systematically where 1 / sum w^2 < threshold K

  Its x, keys and condition have B K rows: `spread` and `particle_keys` make them. The result is one particle a sample
  drawn by weight, (B, ...), or all of them with their weights, an `Ensemble`. Without rates it is the solver, bit for
  bit.   arXiv:2503.02819

  Args:
    solver: the method on its grid; a stochastic one, since copies have to part.
    count: K, particles a sample.
    threshold: the share of K; 0 never resamples, above 1 resamples at every row.
    whole: whether all particles are returned.
    end: the time to which the last row steps, for the integral of rates.

  Raises:
    InputError: count or threshold is out of range, or copies of a deterministic solver would stay alike.
  """
  return Particles(*wrapped(solver, count, threshold, end), count=count, whole=whole, skips=solver.skips)


def spread(tree: Any, count: int) -> Any:
  """Every row `count` times, neighbours: (B, ...) -> (B K, ...)."""
  return jax.tree.map(lambda leaf: jnp.repeat(jnp.asarray(leaf), count, axis=0), tree)


def particle_keys(key_batch: KeyBatch, count: int) -> KeyBatch:
  """The keys of the particles, (B,) -> (B K,); the first particle has that of the sample itself."""
  more = jax.vmap(lambda key: jax.vmap(lambda k: jax.random.fold_in(key, k))(jnp.arange(1, count)))
  return jnp.concatenate([key_batch[:, None], more(keys.fold(key_batch, OWN))], 1).reshape(-1)


class Ensemble(NamedTuple):
  """All particles of a run.

  Attributes:
    x: (B, K, ...).
    log_weights: (B, K), not normalised; -inf of a particle that was dropped.
    lost: (B,) how often a particle was dropped because its reward was not finite.
  """

  x: Data
  log_weights: Array
  lost: Array

  @property
  def weights(self) -> Array:
    """(B, K), of sum 1."""
    return normalised(self.log_weights)


class Rows(NamedTuple):
  """The rows of a wrapped solver, each with the time since the last evaluation and whether the method weighs there."""

  t: Time
  evaluated: Any
  stream: Any
  before: Any
  weighed: Any
  inner: Any


class State(NamedTuple):
  """What particles carry; every leaf has B K rows.

  Attributes:
    inner: the solver's own state.
    log_weights: since the particle's sample was last resampled.
    rate: of weight, at the last evaluation.
    told: what the method remembers of each particle.
    ancestors: the rows that the last resampling copied.
    u: a uniform draw, by which the sample is chosen in the end.
    lost: how often the particle in this place was dropped.
  """

  inner: Any
  log_weights: Array
  rate: Array
  told: Any
  ancestors: Array
  u: Array
  lost: Array


class Particles(PyTree):
  """Made by `particles`; methods derive from it and say what else a weight is made of.

  Attributes:
    solver: the wrapped one.
    threshold: share of the particles below which a sample is resampled.
    last: from the last evaluation to the end of the grid, in time.
    cond: the condition of each row (B K,), for methods whose reward reads it.
  """

  solver: Any
  rows: Rows
  threshold: Array
  last: Array
  cond: Cond = None
  count: int = struct.field(pytree_node=False, kw_only=True)
  whole: bool = struct.field(pytree_node=False, kw_only=True)
  skips: bool = struct.field(pytree_node=False, kw_only=True)
  stochastic: bool = struct.field(pytree_node=False, default=True, kw_only=True)

  @property
  def nfe(self) -> int:
    """Evaluations of the denoiser for a sample: those of all its particles."""
    return self.count * self.solver.nfe

  def begin(self, x: Data) -> Any:
    """What the method remembers of each particle before the first row."""
    return ()

  def factor(self, told: Any, pred: Pred, row: Rows, key_batch: KeyBatch) -> tuple[Array, Any]:
    """The log-weight (B K,) that the method adds at an evaluation, and what it remembers; NaN drops a particle."""
    return jnp.zeros(jax.tree.leaves(pred.x0)[0].shape[0], jnp.float32), told

  def move(
    self, state: Any, told: Any, pred: Pred, row: Rows, key_batch: KeyBatch, noise: Noise
  ) -> tuple[Any, Array | float]:
    """The solver's step, and log p / q where the method draws from another law than the solver's."""
    return self.solver.update(state, pred, row.inner, key_batch, noise), 0.0

  def closing(self, told: Any, x: Data) -> Array | float:
    """The log-weight that the method adds at the sample itself."""
    return 0.0

  def init(self, x: Data, key: Array | None) -> State:
    """The particles at the start, all of weight 1."""
    if key is None:
      raise InputError('key: got None; allowed: a typed key, jax.random.key(seed), since particles are resampled')
    size = jax.tree.leaves(x)[0].shape[0]
    if size % self.count:
      raise InputError(f'x: got {size} rows for {self.count} particles a sample; allowed: a multiple, see `spread`')
    zero = jnp.zeros(size, jnp.float32)
    u = self._uniform(key, OWN)
    return State(self.solver.init(x, key), zero, zero, self.begin(x), jnp.arange(size), jnp.repeat(u, self.count), zero)

  def point(self, state: State) -> Any:
    """Where the denoiser is evaluated."""
    return self.solver.point(state.inner)

  def transition(self, state: State, pred: Pred, row: Rows) -> tuple[Any, Any]:
    """The law of the solver's next state, before any resampling."""
    return self.solver.transition(state.inner, pred, row.inner)

  def update(
    self, state: State, pred: Pred, row: Rows, key_batch: KeyBatch | None, noise: Noise = independent
  ) -> State:
    """Weighs the particles by what was predicted of them, resamples, and moves them on."""
    own: Any = key_batch
    rate = pred.aux.get('weight_rate', 0.0) if isinstance(pred.aux, dict) else 0.0
    rate = jnp.broadcast_to(jnp.asarray(rate, jnp.float32), state.rate.shape)
    rate = jnp.where(row.evaluated, rate, state.rate)  # a row without evaluation says nothing
    added = jnp.where(row.evaluated, (state.rate + rate) / 2 * row.before, 0.0)
    factor, told = jax.lax.cond(
      row.weighed, lambda: self.factor(state.told, pred, row, own), lambda: (jnp.zeros_like(added), state.told)
    )
    added = added + factor
    log_weights, lost = self._added(state, added)
    state = state._replace(log_weights=log_weights, rate=rate, told=told, lost=lost)
    state, pred = self._resampled(state, pred, self._uniform(key_batch, row.stream))
    inner, extra = self.move(state.inner, state.told, pred, row, own, noise)
    log_weights, lost = self._added(state, extra)
    return state._replace(inner=inner, log_weights=log_weights, lost=lost)

  def remembered(self, state: State, memory: Any) -> Any:
    """What the denoiser remembers follows the particles."""
    return jax.tree.map(lambda leaf: leaf[state.ancestors], memory)

  def output(self, state: State) -> Any:
    """One particle a sample (B, ...), or all of them; NaN where every particle of a sample was dropped."""
    x = self.solver.output(state.inner)
    log_weights, lost = self._added(state, state.rate * self.last + self.closing(state.told, x))
    log_weights = self._apart(log_weights)
    if self.whole:
      return Ensemble(jax.tree.map(self._apart, x), log_weights, self._apart(lost).sum(1).astype(jnp.int32))
    chosen = pick(self._apart(state.u)[:, 0], log_weights)
    rows = chosen + self.count * jnp.arange(len(chosen))
    alive = jnp.isfinite(log_weights.max(1))
    return jax.tree.map(lambda leaf: jnp.where(expand(alive, leaf[rows]), leaf[rows], jnp.nan), x)

  def _added(self, state: State, added: Array | float) -> tuple[Array, Array]:
    """Log-weights with what is added, and who is lost: a particle whose weight is no number, or infinite."""
    added = jnp.broadcast_to(jnp.asarray(added, jnp.float32), state.log_weights.shape)
    bad = jnp.isnan(added) | (added == jnp.inf)
    alive = state.log_weights > -jnp.inf
    return jnp.where(alive, jnp.where(bad, -jnp.inf, added) + state.log_weights, -jnp.inf), state.lost + (bad & alive)

  def _apart(self, leaf: Array) -> Array:
    return leaf.reshape(leaf.shape[0] // self.count, self.count, *leaf.shape[1:])

  def _uniform(self, key_batch: KeyBatch | None, stream: Any) -> Array:
    if key_batch is None:
      raise InputError('key_batch: got None; allowed: a key batch (B,), since particles are resampled')
    return keys.uniform(keys.fold(keys.fold(key_batch[:: self.count], OWN), stream))

  def _resampled(self, state: State, pred: Pred, u: Array) -> tuple[State, Pred]:
    log_weights = self._apart(state.log_weights)
    samples = jnp.arange(len(u))[:, None] * self.count
    due = (ess(log_weights) < self.threshold * self.count) & jnp.isfinite(log_weights.max(1))
    stay = jnp.arange(self.count)[None]
    ancestors = (samples + jnp.where(due[:, None], systematic(u, log_weights), stay)).reshape(-1)
    moved = jax.tree.map(lambda leaf: leaf[ancestors], (state.inner, state.rate, state.told, pred))
    inner, rate, told, pred = moved
    kept = jnp.where(jnp.repeat(due, self.count), 0.0, state.log_weights)
    return state._replace(inner=inner, rate=rate, told=told, log_weights=kept, ancestors=ancestors), pred

  def __str__(self) -> str:
    return f'{self.count} particles a sample, resampled below {float(self.threshold):g} of them\n{self.solver}'

  __repr__ = __str__


def wrapped(solver: Solver, count: int, threshold: float, end: float = 0.0, every: int = 1) -> tuple:
  """What every wrapper begins with: the solver, its rows with their spans of time, the threshold and the last span."""
  if not (isinstance(count, int | np.integer) and count >= 1):
    raise InputError(f'particles: got {count!r}; allowed: a whole number of at least 1')
  if not threshold >= 0:
    raise InputError(f'threshold: got {threshold}; allowed: a share of the particles, 0 and above')
  if count > 1 and not solver.stochastic:
    raise InputError('solver: got one that draws no noise, so that copies of a particle stay alike; allowed: a '
                     'stochastic one, such as ancestral, ddim with eta or sde_dpmpp_2m')  # fmt: skip
  t, evaluated = np.asarray(solver.rows.t, np.float64), np.asarray(solver.rows.evaluated)
  where = np.flatnonzero(evaluated)
  spans = np.maximum(-np.diff(np.append(t[where], end)), 0)
  before = np.zeros(len(t), np.float32)
  before[where[1:]] = spans[:-1]
  weighed = np.zeros(len(t), bool)
  weighed[where[every - 1 :: every]] = True
  rows = Rows(t, evaluated, np.asarray(solver.rows.stream), before, weighed, solver.rows)
  return solver, rows, jnp.asarray(threshold, float), jnp.asarray(spans[-1], float)
