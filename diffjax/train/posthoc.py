"""Power-function averages of any width, after training, from stored averages of a few widths at a few steps.

An average of width s (exponent g, `ema.gamma_of`) after t updates is the integral of theta against the profile

    p(tau) = (g + 1) tau^g / t^(g + 1),   0 < tau <= t

exactly so for a theta that stays put between updates. The profile wanted is approximated by a combination of the
stored ones, in least squares, and the same combination of parameters is the average.   arXiv:2312.02696 section 3.2
"""

from collections.abc import Iterable, Sequence
from typing import Any

import jax
import numpy as np

from diffjax.errors import InputError
from diffjax.train.ema import gamma_of
from diffjax.train.ema import power as power_average

__all__ = ['inner', 'coefficients', 'reconstruct', 'from_checkpoints']

Profile = tuple[float, float]


def inner(a: Profile, b: Profile) -> float:
  """The inner product of two averaging profiles.

  The integral of p_a p_b, each profile given as (t, width).   Algorithm 3

  (ga + 1) (gb + 1) r^e / ((ga + gb + 1) max(ta, tb)),  r = ta / tb,  e = gb if ta < tb else -ga.
  """
  (ta, ga), (tb, gb) = ((t, gamma_of(width)) for t, width in (a, b))
  exponent = gb if ta < tb else -ga
  return (ga + 1) * (gb + 1) * (ta / tb) ** exponent / ((ga + gb + 1) * max(ta, tb))


def coefficients(stored: Sequence[Profile], wanted: Profile) -> tuple[np.ndarray, float]:
  """The combination of kept averages that comes nearest to a wanted one.

  x (n,), of sum 1, that minimises |sum_i x_i p_i - p| in L2, and what remains of it as a fraction of |p|.

  The average has an error of at most that fraction times |p| times the L2 norm of the parameter's history up to the
  last t; in float64 on the host. The x grow large where stored profiles are alike, hence the scaling to unit diagonal.

  Args:
    stored: (t, width) of each stored average, t in steps or any other unit of training time.
    wanted: (t, width) of the average to be had; t at most the last stored one, and best one of those stored, as the
      profile is cut off there.

  Raises:
    InputError: nothing stored, a time that is not positive or is beyond what is stored, a width outside (0, 12^-1/2).
  """
  stored, last = list(stored), max((t for t, _ in stored), default=0.0)
  if not stored or min(t for t, _ in stored) <= 0:
    raise InputError(f'stored: got {stored}; allowed: at least one (t, width) with t > 0')
  if not 0 < wanted[0] <= last:
    raise InputError(f'wanted: got t = {wanted[0]:g}; allowed: 0 < t <= {last:g}, the last that is stored')
  for _, width in (*stored, wanted):
    power_average(width)  # refuses widths that no exponent has
  a = np.array([[inner(p, q) for q in stored] for p in stored])
  b, square = np.array([inner(p, wanted) for p in stored]), inner(wanted, wanted)
  scale = np.sqrt(np.diag(a))
  x = np.linalg.lstsq(a / np.outer(scale, scale), b / scale, rcond=1e-14)[0] / scale
  x = x / x.sum()
  return x, float(np.sqrt(max(x @ a @ x - 2 * x @ b + square, 0) / square))


def reconstruct(stored: Sequence[Profile], trees: Iterable[Any], wanted: Profile) -> Any:
  """Reconstructs an average after training from those that were kept.

  The average of `wanted` = (t, width): sum_i x_i trees_i, float32 arrays on the host.

  Sums in float64, as terms cancel; holds one stored tree at a time, so `trees` may be a generator that loads them.

  Args:
    stored: (t, width) of each tree, in their order, for example (20_000, .05).
    trees: the kept averages.
    wanted: the wanted average, (t, width).

  Raises:
    InputError: as `coefficients`; more or fewer trees than profiles.
  """
  total: Any = None
  for x, tree in zip(coefficients(stored, wanted)[0], trees, strict=True):
    part = jax.tree.map(lambda leaf, x=x: x * np.asarray(leaf, np.float64), tree)
    total = part if total is None else jax.tree.map(np.add, total, part)
  return jax.tree.map(lambda leaf: leaf.astype(np.float32), total)


def from_checkpoints(saver: Any, wanted: Profile, role: str = 'student') -> Any:
  """`reconstruct` from all checkpoints of a run that kept power-function averages of this role.

      saver = Checkpoints('runs/edm2/checkpoints')
      params = from_checkpoints(saver, (20_000, .08))

  Raises:
    InputError: no checkpoint, or no such average in them; as `coefficients`.
  """
  names = sorted(name for name in saver.load(('ema',))['ema'].get(role, {}) if name.startswith('power_'))
  if not names:
    raise InputError(f'ema: got no power-function average of {role!r} in the checkpoints; allowed: a run trained with '
                     "train.ema=('power:.05', 'power:.1')")  # fmt: skip
  stored = [(step, float(name.removeprefix('power_'))) for step in saver.steps() for name in names]

  def trees() -> Iterable[Any]:
    for step in saver.steps():
      found = saver.load(('ema',), step)['ema'][role]
      yield from (found[name] for name in names)

  return reconstruct(stored, trees(), wanted)
