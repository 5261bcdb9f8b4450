"""Noise levels of a process (alpha, sigma, lam) in float64 on the host, whatever the precision of the program."""

from collections.abc import Callable
from functools import lru_cache, partial
from typing import Any, NamedTuple

import jax
import numpy as np

from diffjax.errors import InputError
from diffjax.process import Process

__all__ = ['Grid', 'on_host', 'at', 'times_of', 'checked', 'on_grid']


def on_host(f: Callable, process: Process, values: Any) -> Any:
  """Evaluates a function of a process in float64 on the host, also inside a trace that closes over the process.

  `f` is static, a module-level function or a method of Process. A grid is asked about many times while a table is laid
  out: what was found is kept.
  """
  values = np.asarray(values, np.float64)
  leaves, structure = jax.tree.flatten(process)
  numbers = tuple((leaf.shape, leaf.tobytes()) for leaf in (np.asarray(leaf, np.float64) for leaf in leaves))
  return jax.tree.map(lambda v: v.reshape(values.shape).copy(), _found(f, structure, numbers, values.tobytes()))


@lru_cache(maxsize=512)
def _found(f: Callable, structure: Any, numbers: tuple, values: bytes) -> Any:
  """Evaluates f on one row of times. Lengths are rounded up, to 64 times a power of 4, to share compiled programs."""
  process = jax.tree.unflatten(structure, [np.frombuffer(leaf).reshape(shape) for shape, leaf in numbers])
  row = np.frombuffer(values)
  length = 64 * min(row.size, 1)
  while length < row.size:
    length *= 4
  with jax.enable_x64(True), jax.ensure_compile_time_eval():
    out = _apply(f, process, np.pad(row, (0, length - row.size), mode='edge'))
  return jax.tree.map(lambda v: np.asarray(v)[: row.size], out)


@partial(jax.jit, static_argnums=0)
def _apply(f: Callable, process: Process, values: jax.Array) -> Any:
  return f(process, values)


def at(process: Process, ts: Any) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
  """Noise levels (alpha, sigma, lam) at these times, float64 on the host."""
  return on_host(_levels, process, ts)


def _levels(process: Process, t: jax.Array) -> tuple[jax.Array, jax.Array, jax.Array]:
  return *process.schedule(t), process.lam(t)


def times_of(process: Process, lam: Any) -> np.ndarray:
  """The times at which these lam are reached, in float64, on the host."""
  return on_host(Process.lam_inverse, process, lam)


def checked(process: Process, ts: Any) -> np.ndarray:
  """The grid as float64.

  Raises:
    InputError: fewer than two times, not finite, not strictly decreasing, or outside [0, t_max].
  """
  ts = np.asarray(ts, np.float64)
  if ts.ndim != 1 or len(ts) < 2:
    raise InputError(f'ts: got shape {ts.shape}; allowed: at least two times in one row')
  if not np.isfinite(ts).all():
    raise InputError(f'ts: got {ts[~np.isfinite(ts)][0]}; allowed: finite times')
  rising = np.flatnonzero(np.diff(ts) >= 0)
  if len(rising):
    i = int(rising[0])
    raise InputError(
      f'ts: got {ts[i]:.6g} followed by {ts[i + 1]:.6g} at place {i}; allowed: strictly decreasing times'
    )
  last = float(process.t_max)
  if ts[0] > last * (1 + 1e-6) or ts[-1] < 0:
    raise InputError(f'ts: got times from {ts[0]:.6g} to {ts[-1]:.6g}; allowed: inside [0, {last:.6g}] of the process')
  return np.minimum(ts, last)


class Grid(NamedTuple):
  """A checked time grid with its noise levels, each (n + 1,) float64."""

  ts: np.ndarray
  alpha: np.ndarray
  sigma: np.ndarray
  lam: np.ndarray


def on_grid(process: Process, ts: Any) -> Grid:
  """Noise levels (alpha, sigma, lam) along a checked grid; lam is +inf where sigma = 0 and -inf where alpha = 0.

  Raises:
    InputError: as `checked`.
  """
  ts = checked(process, ts)
  return Grid(ts, *at(process, ts))
