"""Parallel sampling: a window of steps is guessed, evaluated at once and corrected, until it agrees with itself."""

from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from diffjax import keys, labels
from diffjax.contracts import Cond, Data, KeyBatch
from diffjax.errors import InputError
from diffjax.prediction import Denoise, Pred
from diffjax.process import expand
from diffjax.solvers import precision
from diffjax.solvers.noise import Noise, independent
from diffjax.solvers.sample import Solver

__all__ = ['Parallel', 'picard']

FLOOR = 0.01  # of the data's units: what an error is measured against where sigma is below


class Parallel(NamedTuple):
  """What `picard` returns.

  Attributes:
    x: the samples (B, ...).
    sweeps: passes over the window that each sample needed (B,), one batched call of the network each; the largest is
      what the whole batch waits for, against one call a row of the solver.
    nfe: the evaluations of each sample in them (B,), more than those of the solver.
  """

  x: Any
  sweeps: Array
  nfe: Array


def picard(
  denoise: Denoise,
  solver: Solver,
  x: Data,
  key: Array | None = None,
  cond: Cond = None,
  *,
  window: int = 20,
  tol: float = 0.01,
  data_std: float = 1.0,
  noise_source: Noise = independent,
) -> Parallel:
  """The sample of `solver` by Picard's iteration over a sliding window of rows, with fewer calls one after another.

  A sweep asks for the predictions at all points of the window in one batched call, then runs the solver's rows with
  them from the window's first state, which is exact; the noise of rows is drawn beforehand. Where a row now finds x
  moved by d from where it was predicted, the pair is moved as that of Gaussian data of the deviation c = data_std is,

      x0 += alpha d / (alpha^2 + sigma^2 / c^2),    eps += (sigma / c^2) d / (alpha^2 + sigma^2 / c^2),

  so all tables of one method converge alike, and on such data in one sweep. c = inf is the paper's sum of increments,
  X_{j+1} = X_b + sum_{b <= i <= j} (d_i + n_i). The window moves on past the leading points that changed by at most
  tol max(sigma, .01), root mean square, and by one at least; new points start as the last one is. After k sweeps the
  first k points are those of `sample`: tol = 0 gives its sample, to rounding, in at most as many sweeps as there are
  rows. The noise of a stochastic solver is kept, rows times x.

  arXiv:2305.16317 Alg. 1; each sample moves its own window, whatever its batch

  Args:
    denoise: what is asked for predictions, without memory between evaluations.
    solver: the method on its grid.
    x: the start (B, ...), noise at the first time of the grid.
    key: one typed key, or one a sample (B,); only stochastic solvers need it.
    cond: the condition of each sample, a pytree with the batch first.
    window: rows that are evaluated at once; window times B points a call, which shard as a batch does.
    tol: the change at which a point stands.
    data_std: the deviation c of the data, infinite as published.
    noise_source: see `sample`.

  Raises:
    InputError: the window is not a positive number, tol negative, no key for one that draws, a denoiser that remembers.
  """
  if not (isinstance(window, int | np.integer) and window >= 1):
    raise InputError(f'window: got {window!r}; allowed: a whole number of at least 1')
  if not (tol >= 0 and data_std > 0):
    raise InputError(f'tol, data_std: got {tol}, {data_std}; allowed: a number of at least 0, a positive one')
  if solver.stochastic and key is None:
    raise InputError('key: got None; allowed: a typed key, jax.random.key(seed), since this solver draws noise')
  labels.check_for(denoise, cond)
  key_batch = None if key is None else keys.per_sample(key, jax.tree.leaves(x)[0].shape[0])
  source = jax.tree_util.Partial(noise_source) if jax.tree_util.all_leaves([noise_source]) else noise_source
  numbers = jnp.asarray([tol, data_std], float)
  return _picard(denoise, solver, x, key_batch, cond, source, numbers, min(int(window), solver.rows.t.shape[0]))


class Window(NamedTuple):
  """Where each sample is: its first row (B,), the exact state there, the guessed points (B, P + 1, ...), and counts."""

  first: Array
  state: Any
  points: Any
  sweeps: Array
  nfe: Array


@partial(jax.jit, static_argnames='window')
def _picard(denoise, solver, x, key_batch, cond, source, numbers, window) -> Parallel:
  tol, data_std = numbers
  process = denoise.process
  denoise, given, x = precision.with_networks_in(denoise, x), x, precision.widened(x)
  size, dtype = jax.tree.leaves(x)[0].shape[0], jnp.promote_types(jax.tree.leaves(x)[0].dtype, jnp.float32)
  rows = jax.tree.map(jnp.asarray, solver.rows)
  n = rows.t.shape[0]
  z = _draws(solver, source, key_batch, rows, x)
  unit = jnp.append(jnp.maximum(process.schedule(rows.t.astype(dtype))[1], FLOOR), FLOOR)[1:]
  many = jax.tree.map(lambda leaf: jnp.repeat(leaf, window, axis=0), cond)

  def predictions(points: Any, places: Array) -> Pred:
    flat = jax.tree.map(lambda p: p[:, :window].reshape(-1, *p.shape[2:]), points)
    pred = denoise(flat, rows.t.astype(dtype)[places.ravel()], many, None)
    if isinstance(pred.aux, dict) and 'memory' in pred.aux:
      raise InputError('denoise: got one that remembers between evaluations; allowed: one whose predictions depend on '
                       'x, t and cond alone')  # fmt: skip
    pred = precision.paired(pred, flat)
    return jax.tree.map(lambda leaf: leaf.reshape(size, window, *leaf.shape[1:]), pred)

  def ahead(state: Any, key: KeyBatch | None, first: Array, points: Any, preds: Pred, z: Any) -> tuple[Any, Any]:
    """One sample's states (P, ...), and points, after each row of its window, from a state with a batch of one."""

    def step(state: Any, j: Array) -> tuple[Any, Any]:
      place = jnp.minimum(first + j, n - 1)
      row = jax.tree.map(lambda leaf: leaf[place], rows)
      guess, drawn = _one(points, j), _one(z, place)
      pred = _moved(_one(preds, j), solver.point(state), guess, process.schedule(row.t.astype(dtype)), data_std)
      if solver.skips:  # `sample` hands zeros to such rows
        pred = jax.tree.map(lambda leaf: jnp.where(row.evaluated, leaf, 0), pred)
      new = solver.update(state, pred, row, key, lambda *_: drawn)
      new = jax.tree.map(lambda a, b: jnp.where(first + j < n, a, b), new, state)
      return new, (new, solver.point(new))

    return jax.lax.scan(step, state, jnp.arange(window))[1]

  def lone(tree: Any) -> Any:
    """Every sample as a batch of one, under vmap."""
    return jax.tree.map(lambda leaf: leaf[:, None], tree)

  def body(at: Window) -> Window:
    places = jnp.minimum(at.first[:, None] + jnp.arange(window), n - 1)
    preds = predictions(at.points, places)
    states, points = jax.vmap(ahead)(lone(at.state), lone(key_batch), at.first, at.points, preds, z)
    states, points = jax.tree.map(lambda leaf: leaf[:, :, 0], (states, points))
    change = jax.vmap(jax.vmap(_rms))(points, jax.tree.map(lambda p: p[:, 1:], at.points))
    still = (change <= tol * unit[places]) | (at.first[:, None] + jnp.arange(window) >= n)
    stands = jnp.sum(jnp.cumprod(still, axis=1), axis=1)
    on = at.first < n
    move = jnp.minimum(jnp.maximum(stands, 1), n - at.first)
    state = jax.tree.map(lambda s, old: jnp.where(expand(on, old), _pick(s, move - 1), old), states, at.state)
    later = jnp.minimum(jnp.arange(window + 1) + move[:, None] - 1, window - 1)
    moved = jax.tree.map(lambda p: jax.vmap(lambda p, i: p[i])(p, jnp.maximum(later, 0)), points)
    asked = rows.evaluated[places] & (at.first[:, None] + jnp.arange(window) < n)
    return Window(at.first + jnp.where(on, move, 0), state, moved, at.sweeps + on, at.nfe + jnp.sum(asked, axis=1))

  state = solver.init(x, key_batch)
  points = jax.tree.map(lambda p: jnp.repeat(p[:, None], window + 1, axis=1), solver.point(state))
  none = jnp.zeros(size, jnp.int32)
  end = jax.lax.while_loop(lambda at: jnp.any(at.first < n), body, Window(none, state, points, none, none))
  return Parallel(precision.rounded(solver.output(end.state), given), end.sweeps, end.nfe)


def _draws(solver: Solver, source: Noise, key_batch: KeyBatch | None, rows: Any, x: Data) -> Any:
  """The noise of every row, (B, n, ...) like x, or None."""
  if not solver.stochastic or key_batch is None:
    return None
  drawn = jax.lax.map(lambda row: source(key_batch, row, x), rows)
  return jax.tree.map(lambda leaf: jnp.moveaxis(leaf, 0, 1), drawn)


def _one(tree: Any, place: Array) -> Any:
  """The entry at a place, as a batch of one."""
  return jax.tree.map(lambda leaf: leaf[place][None], tree)


def _moved(pred: Pred, x: Any, guess: Any, levels: tuple[Array, Array], data_std: Array) -> Pred:
  """The prediction at `guess` moved to x as that of Gaussian data is: alpha x0 + sigma eps moves as x does."""
  alpha, sigma = levels
  share = 1 / (alpha**2 + (sigma / data_std) ** 2)
  add = lambda part, gain: jax.tree.map(lambda a, x, g: a + (gain * share) * (x - g), part, x, guess)  # noqa: E731
  return pred._replace(x0=add(pred.x0, alpha), eps=add(pred.eps, sigma / data_std**2))


def _pick(states: Array, place: Array) -> Array:
  """Of states (B, P, ...) at place (B,)."""
  return jax.vmap(lambda s, i: s[i])(states, jnp.maximum(place, 0))


def _rms(a: Any, b: Any) -> Array:
  """The root mean square of the difference of two points, over all elements."""
  squares = [jnp.sum((p - q) ** 2) for p, q in zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True)]
  return jnp.sqrt(sum(squares) / sum(leaf.size for leaf in jax.tree.leaves(a)))
