"""Running a solver: one scan over its rows, one evaluation of the denoiser a row."""

from typing import Any, Protocol

import jax
import jax.numpy as jnp
from jax import Array
from jax.tree_util import Partial

from diffjax import keys, labels
from diffjax.contracts import Cond, Data, KeyBatch
from diffjax.errors import InputError
from diffjax.prediction import Denoise, Pred
from diffjax.solvers import precision
from diffjax.solvers.noise import Noise, independent

__all__ = ['Solver', 'sample', 'trajectory']


class Solver(Protocol):
  """A method laid out on a grid; it never sees the network. Every leaf of a state has the batch first.

  `rows` is a pytree of arrays with one entry a row, at least `t`, `evaluated` and `stream`; `update` draws from
  `transition`, the law of the next state, and wrappers may use either.
  """

  rows: Any
  stochastic: bool
  skips: bool

  def init(self, x: Data, key: Array | None) -> Any:
    """The state before the first row, from the noise x."""
    ...

  def point(self, state: Any) -> Any:
    """Where the denoiser is evaluated next."""
    ...

  def transition(self, state: Any, pred: Pred, row: Any) -> tuple[Any, Any]:
    """The mean and standard deviation of the next state."""
    ...

  def update(self, state: Any, pred: Pred, row: Any, key_batch: KeyBatch | None, noise: Noise) -> Any:
    """The state after a row."""
    ...

  def output(self, state: Any) -> Any:
    """The sample in a state."""
    ...


def sample(
  denoise: Denoise,
  solver: Solver,
  x: Data,
  key: Array | None = None,
  cond: Cond = None,
  noise_source: Noise = independent,
) -> Any:
  """The sample that `solver` reaches from the noise x (B, ...) at the first time of its grid.

  Compiled once a structure: other parameters, guidance scales, seeds or tables of the same size run the same program.

  The sample has the dtype of x. Where that is bfloat16 or float16, networks are handed x in it and all else is float32:
  registers, weights, noise and the prediction's pair; the sample is rounded once, however many steps there were.

  Args:
    denoise: what is asked for predictions.
    solver: the method on its grid.
    x: the start (B, ...), noise at the first time of the grid.
    key: one typed key, or one a sample (B,); only stochastic solvers need it.
    cond: the condition of each sample, a pytree with the batch first.
    noise_source: where a stochastic solver takes its z from (`diffjax.solvers.noise`): independent draws, one Brownian
      path a sample, or given ones.

  Raises:
    InputError: a stochastic solver has no key, the key is not a typed one, or a label is none of the network's.
  """
  labels.check_for(denoise, cond)
  return _sample(denoise, solver, x, _batch(solver, x, key), cond, _source(noise_source))


def trajectory(
  denoise: Denoise,
  solver: Solver,
  x: Data,
  key: Array | None = None,
  cond: Cond = None,
  noise_source: Noise = independent,
) -> tuple[Any, Any]:
  """The sample, and the points before each row and the prediction of x0 there: ((B, ...), (n, B, ...) pairs)."""
  labels.check_for(denoise, cond)
  return _trajectory(denoise, solver, x, _batch(solver, x, key), cond, _source(noise_source))


def _source(noise: Noise) -> Any:
  """A pytree: a plain function becomes a static one."""
  return Partial(noise) if jax.tree_util.all_leaves([noise]) else noise


def _batch(solver: Solver, x: Data, key: Array | None) -> Array | None:
  if key is None:
    if solver.stochastic:
      raise InputError('key: got None; allowed: a typed key, jax.random.key(seed), since this solver draws noise')
    return None
  return keys.per_sample(key, jax.tree.leaves(x)[0].shape[0])


@jax.jit
def _sample(denoise: Denoise, solver: Solver, x: Data, key_batch: KeyBatch | None, cond: Cond, noise: Noise) -> Any:
  return _run(denoise, solver, x, key_batch, cond, noise, keep=False)[0]


@jax.jit
def _trajectory(
  denoise: Denoise, solver: Solver, x: Data, key_batch: KeyBatch | None, cond: Cond, noise: Noise
) -> tuple[Any, Any]:
  return _run(denoise, solver, x, key_batch, cond, noise, keep=True)


def _run(
  denoise: Denoise, solver: Solver, x: Data, key_batch: KeyBatch | None, cond: Cond, noise: Noise, keep: bool
) -> tuple[Any, Any]:
  dtype = jnp.promote_types(jax.tree.leaves(x)[0].dtype, jnp.float32)  # of times: bfloat16 would move them
  denoise, given, x = precision.with_networks_in(denoise, x), x, precision.widened(x)
  state = solver.init(x, key_batch)
  first = jax.tree.map(lambda leaf: jnp.asarray(leaf)[0], solver.rows)
  shapes = jax.eval_shape(lambda: denoise(solver.point(state), first.t.astype(dtype), cond, None))
  blank = jax.tree.map(lambda s: jnp.zeros(s.shape, s.dtype), shapes)

  def step(carry: tuple, row: Any) -> tuple[tuple, Any]:
    state, memory = carry
    point, t = solver.point(state), row.t.astype(dtype)

    def evaluate() -> Pred:
      return denoise(point, t, cond, memory)

    pred = jax.lax.cond(row.evaluated, evaluate, lambda: blank) if solver.skips else evaluate()
    pred = precision.paired(pred, point)
    after = _memory(pred, memory)
    if solver.skips:  # a row that is not evaluated keeps what was remembered
      after = jax.tree.map(lambda new, old: jnp.where(row.evaluated, new, old), after, memory)
    shown = (precision.rounded(point, given), precision.rounded(pred.x0, given)) if keep else None
    state = solver.update(state, pred, row, key_batch, noise)
    follow = getattr(solver, 'remembered', None)
    if follow is not None:  # what it moved from row to row of the batch, memory follows
      after = follow(state, after)
    return (state, after), shown

  (state, _), kept = jax.lax.scan(step, (state, _memory(blank, None)), jax.tree.map(jnp.asarray, solver.rows))
  return precision.rounded(solver.output(state), given), kept


def _memory(pred: Pred, default: Any) -> Any:
  """What the denoiser wants to see at its next evaluation: aux['memory'], zeros before the first."""
  return pred.aux.get('memory', default) if isinstance(pred.aux, dict) else default
