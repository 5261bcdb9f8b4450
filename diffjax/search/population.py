"""Many tables as one: padded to one size, stacked, and run by one compiled program."""

from collections.abc import Callable, Sequence
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.tree_util import Partial

from diffjax import labels
from diffjax.contracts import Cond
from diffjax.errors import InputError
from diffjax.prediction import Denoise
from diffjax.solvers import Table, exponential_adams, grids, pad, sample

__all__ = ['errors', 'member', 'population', 'reference', 'rms']


def population(tables: Sequence[Table], rows: int | None = None, registers: int | None = None) -> Table:
  """The tables padded to `rows` and `registers`, by default the most that one of them has, each leaf stacked in front.

  The result is for `errors` and `jax.vmap`; populations of one size share one compiled program.

  Raises:
    InputError: there is none, one draws noise, or one is larger than asked for.
  """
  if not tables:
    raise InputError('tables: got none; allowed: at least one')
  for i, table in enumerate(tables):
    if table.stochastic:
      raise InputError(f'tables: got one that draws noise at place {i}; allowed: deterministic ones, since errors are '
                       'distances to the solution of the probability-flow ODE')  # fmt: skip
  sizes = np.array([table.rows.weights.shape[:2] for table in tables])
  rows, registers = rows or int(sizes[:, 0].max()), registers or int(sizes[:, 1].max())
  padded = [pad(table, rows, registers) for table in tables]
  return jax.tree.map(lambda *leaves: np.stack(leaves), *padded)


def member(tables: Table, i: int) -> Table:
  """The table at place i of a population."""
  return jax.tree.map(lambda leaf: leaf[i], tables)


def rms(found: Array, wanted: Array) -> Array:
  """The root mean square distance between samples and where they should end.

  sqrt(mean_n |found_n - wanted_n|^2), the square summed over a sample's entries.
  """
  gap = jnp.reshape(found - wanted, (len(found), -1))
  return jnp.sqrt(jnp.mean(jnp.sum(gap**2, -1)))


def errors(
  denoise: Denoise,
  tables: Table,
  x: Array,
  reference: Array,
  cond: Cond = None,
  *,
  distance: Callable[[Array, Array], Array] = rms,
  chunk: int | None = None,
) -> Array:
  """The error of each table of a population, (P,), by one program for all populations of its size.

  That is distance(sample from x, reference).

  Args:
    denoise: what is asked for predictions.
    tables: the population.
    x: the starts (B, ...) and where they should end, see `reference`.
    reference: see `x`.
    cond: the condition of each sample, with the batch first.
    distance: (samples, reference) -> number, smaller is better; a module-level function, or a pytree that is called.
    chunk: tables that run side by side; by default as many as make some 4096 samples, at most 64: a larger program
      leaves the cache.
  """
  labels.check_for(denoise, cond)
  plain = jax.tree_util.all_leaves([distance])
  chunk = chunk or min(64, max(1, 4096 // len(jax.tree.leaves(x)[0])))
  return _errors(denoise, tables, x, reference, cond, Partial(distance) if plain else distance, chunk=chunk)


@partial(jax.jit, static_argnames='chunk')
def _errors(
  denoise: Denoise, tables: Table, x: Array, reference: Array, cond: Cond, distance: Callable, chunk: int
) -> Array:
  one = lambda table: distance(sample(denoise, table, x, None, cond), reference)  # noqa: E731
  return jax.lax.map(one, jax.tree.map(jnp.asarray, tables), batch_size=chunk)


def reference(denoise: Denoise, x: Array, cond: Cond = None, steps: int = 200, to_zero: bool = True) -> Array:
  """Where the probability-flow ODE takes x from t_max to 0 (or, without `to_zero`, to t_min), to many digits.

  Exponential Adams of order three on `steps` evaluations evenly spaced in lam.
  """
  process = denoise.process
  return sample(denoise, exponential_adams(process, grids.uniform_lam(process, steps, to_zero), 3), x, None, cond)
