"""A linear combination of the checkpoints of one run, its coefficients found by evolution.

theta = sum_k a_k theta_k with sum_k a_k = 1, any of them negative; moving averages are among them.   arXiv:2404.02241
"""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from diffjax.errors import InputError

__all__ = ['Combination', 'averages', 'combine', 'combined']

RATES = (0.5, 0.7, 0.8, 0.9, 0.95, 0.98)  # of moving averages over checkpoints
PARENTS, MEMBERS = 10, 40
FIRST, LAST = 0.2, 0.02  # of a mutation, in multiples of the greatest coefficient


class Combination(NamedTuple):
  """What was found.

  Attributes:
    coefficients: (K,), of sum 1.
    score: theirs, without the penalty.
    history: the score of the best so far after each evaluation.
    averages: name -> score of those that the search began with.
  """

  coefficients: np.ndarray
  score: float
  history: tuple[float, ...]
  averages: dict[str, float]


def combined(stack: Any, coefficients: Any) -> Any:
  """sum_k a_k theta_k in float32, of leaves (K, ...); where one a_k alone is not 0, that checkpoint to the last bit.

  Raises:
    InputError: another number of coefficients than of checkpoints, or ones that do not sum to 1.
  """
  a = np.asarray(coefficients, np.float64)
  count = len(jax.tree.leaves(stack)[0])
  if a.shape != (count,) or not abs(a.sum() - 1) <= 1e-6 * max(1.0, np.abs(a).sum()):
    raise InputError(f'coefficients: got {a.shape} of sum {a.sum():.6g}; allowed: one of each of the {count} '
                     'checkpoints, of sum 1')  # fmt: skip
  return _combined(stack, jnp.asarray(a, jnp.float32))


@jax.jit
def _combined(stack: Any, a: jax.Array) -> Any:
  def one(leaf: jax.Array) -> jax.Array:
    def add(total: jax.Array, part: tuple) -> tuple[jax.Array, None]:
      weight, theta = part
      return total + jnp.where(weight == 0, -0.0, weight * theta.astype(jnp.float32)), None  # -0. + x is x, always

    return jax.lax.scan(add, jnp.full(leaf.shape[1:], -0.0, jnp.float32), (a, leaf))[0].astype(leaf.dtype)

  return jax.tree.map(one, stack)


def averages(count: int) -> dict[str, np.ndarray]:
  """The coefficients of moving averages over so many checkpoints, of the last ones evenly and of the last, by name."""
  ago = np.arange(count)[::-1]
  made = {'last': (ago == 0).astype(float)}
  made |= {f'rate {rate:g}': rate**ago for rate in RATES}
  made |= {f'last {n} evenly': (ago < n).astype(float) for n in sorted({-(-count // 4), -(-count // 2), count} - {1})}
  return {name: a / a.sum() for name, a in made.items()}


def combine(
  score: Callable[[np.ndarray], float],
  count: int,
  budget: int,
  *,
  seed: int = 0,
  penalty: float = 0.0,
  progress: Callable[[int, float], None] | None = None,
) -> Combination:
  """Evolution of the coefficients: the child of two of the best, mixed or swapped and mutated, replaces the worst.

  Minimises score(a) + penalty |a|^2, from the averages of `averages`.   arXiv:2404.02241 Alg. 1

  Args:
    score: coefficients (K,) of sum 1 -> what is minimised, on samples of fixed noise; not finite where they are lost.
    count: K.
    budget: evaluations of the score, those of the averages among them.
    seed: of the evolution.
    penalty: of the square of the coefficients.
    progress: (evaluation, best score so far).

  Raises:
    InputError: fewer than two checkpoints, a negative penalty, or a budget that the averages use up.
  """
  begun = averages(count) if count > 1 else {}
  if count < 2 or penalty < 0 or budget <= len(begun):
    raise InputError(f'checkpoints, penalty, budget: got {count}, {penalty}, {budget}; allowed: at least 2 '
                     f'checkpoints, penalty >= 0, budget > {len(begun) or len(averages(2))}')  # fmt: skip
  rng, members, history = np.random.default_rng(seed), [], []

  def judge(a: np.ndarray) -> float:
    value = float(score(a))
    value = value if np.isfinite(value) else np.inf
    members.append((value + penalty * float(np.sum(a**2)), value, a))
    members.sort(key=lambda member: member[0])
    del members[MEMBERS:]
    history.append(members[0][1])
    if progress:
      progress(len(history) - 1, history[-1])
    return value

  told = {name: judge(a) for name, a in begun.items()}
  while len(history) < budget:
    share = (len(history) - len(begun)) / max(budget - len(begun), 1)
    judge(_child(rng, [a for _, _, a in members[:PARENTS]], FIRST * (LAST / FIRST) ** share))
  _, value, best = members[0]
  return Combination(best, value, tuple(history), told)


def _child(rng: np.random.Generator, parents: Sequence[np.ndarray], strength: float) -> np.ndarray:
  """Two parents mixed, or coefficient by coefficient from one of them, and a mutation of some; of sum 1."""
  a, b = (parents[int(i)] for i in rng.choice(len(parents), 2, replace=False))
  share = np.full(len(a), rng.random()) if rng.random() < 0.5 else (rng.random(len(a)) < 0.5).astype(float)
  child = share * a + (1 - share) * b
  moved = rng.random(len(a)) < rng.choice([1.0, 0.3])
  child = child + moved * rng.normal(size=len(a)) * strength * np.abs(a).max()
  return child + (1 - child.sum()) / len(child)
