"""Interleaved timing: A B A B ..., so that a drift of the machine's speed meets all programs alike."""

import time
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

__all__ = ['compare', 'matmul_rate']


def compare(programs: dict[str, Callable[[], Any]], rounds: int) -> dict[str, dict[str, float]]:
  """Medians over `rounds` runs of each program, in turn, after one warm-up.

  Returns:
    name -> wall and cpu seconds, and wall_ratio and cpu_ratio: medians, over rounds, of the ratio to the first program.
  """
  for program in programs.values():
    jax.block_until_ready(program())
  taken = {name: [] for name in programs}
  for _ in range(rounds):
    for name, program in programs.items():
      wall, cpu = time.perf_counter(), time.process_time()
      jax.block_until_ready(program())
      taken[name].append((time.perf_counter() - wall, time.process_time() - cpu))
  times = {name: np.array(pairs) for name, pairs in taken.items()}
  base = next(iter(times.values()))
  table = {}
  for name, pairs in times.items():
    wall, cpu = np.median(pairs, axis=0)
    ratios = np.median(pairs / base, axis=0)
    table[name] = dict(wall=float(wall), cpu=float(cpu), wall_ratio=float(ratios[0]), cpu_ratio=float(ratios[1]))
  return table


def matmul_rate(size: int = 2048, dtype: str = 'float32', rounds: int = 9) -> float:
  """Operations a second of a square matrix product on the default device: the best of some runs, 10 products each."""
  x = jnp.full((size, size), 1 / size, dtype)
  chain = jax.jit(lambda x: jax.lax.fori_loop(0, 10, lambda _, y: x @ y, x))
  jax.block_until_ready(chain(x))
  taken = []
  for _ in range(rounds):
    start = time.perf_counter()
    jax.block_until_ready(chain(x))
    taken.append(time.perf_counter() - start)
  return 10 * 2 * size**3 / min(taken)
