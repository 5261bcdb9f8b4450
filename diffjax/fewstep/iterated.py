"""The generator of jumps: from noise to data by a few of them, with fresh noise between or none."""

from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import struct
from jax import Array
from scipy.optimize import linear_sum_assignment

from diffjax import keys, labels
from diffjax.contracts import Cond, Data, KeyBatch, Params
from diffjax.errors import InputError
from diffjax.fewstep.jumps import Jump
from diffjax.methods.parts import Parts, Sampling
from diffjax.noise_levels import at, checked
from diffjax.process import Process
from diffjax.pytree import PyTree
from diffjax.solvers import renoise

__all__ = ['Iterated', 'drawing', 'iterated', 'law_of']


class Iterated(PyTree):
  """x = J(x, t_k -> u_k), then noise from u_k up to t_{k+1}; the last jump ends at the jump's end.

  On EDM's process u_k = sqrt(1 - gamma^2) t_{k+1}, elsewhere that share of sigma / alpha. gamma 1 jumps to the end each
  time and forgets where it was, gamma 0 follows the flow.   arXiv:2303.01469 Alg. 1, arXiv:2310.02279 Alg. 2

  Attributes:
    params: of the network.
    jump: what is iterated.
    rows: (n,) each: from where each jump goes, to where, and up to where noise follows.
    law: the time at which x begins, and the mean and deviation of the data, 0 where they are not known.
    shape: of one sample.
  """

  params: Params
  jump: Jump
  rows: tuple[Array, Array, Array]
  law: tuple[Array, Array, Array]
  shape: tuple[int, ...] = struct.field(pytree_node=False)

  @property
  def nfe(self) -> int:
    """Jumps of a sample."""
    return len(self.rows[0])

  @property
  def cost(self) -> float:
    """Forwards of a sample."""
    return float(self.nfe)

  @property
  def times(self) -> np.ndarray:
    """The time from which each jump goes."""
    return np.asarray(self.rows[0])

  def check_cond(self, cond: Cond, field: str = 'cond') -> None:
    """Raises InputError for labels that the network does not have."""
    labels.check(cond, getattr(getattr(self.jump.net, 'module', None), 'classes', 0), field)

  def __call__(self, key_batch: KeyBatch, cond: Cond = None) -> Data:
    """The samples, one a key."""
    return self.run(key_batch, cond)[0]

  def path(self, key_batch: KeyBatch, cond: Cond = None) -> tuple[Data, tuple[Data, Data]]:
    """The samples, the points before each jump and where a jump to the end would have led, (n, B, ...) each."""
    return self.run(key_batch, cond, lambda x, t: (x, self.jump(self.params, x, t, self.jump.end, cond)))

  def run(self, key_batch: KeyBatch, cond: Cond = None, seen: Callable = lambda x, t: ()) -> tuple[Data, Any]:
    """The samples, and what seen(x, t) keeps of the point before each jump, stacked."""
    return self.jumps_from(*self.start(key_batch), cond, seen)

  def start(self, key_batch: KeyBatch) -> tuple[Array, KeyBatch]:
    """Where samples begin, and the keys of the noise between jumps."""
    begin, own = keys.split(key_batch, 2)
    like = jax.ShapeDtypeStruct((len(key_batch), *self.shape), jnp.float32)
    return self.jump.process.start(begin, like, *self.law), own

  def finish(self, x: Array, own: KeyBatch, cond: Cond = None) -> Data:
    """The samples from where they begin."""
    return self.jumps_from(x, own, cond, lambda x, t: ())[0]

  def jumps_from(self, x: Array, own: KeyBatch, cond: Cond, seen: Callable) -> tuple[Array, Any]:
    """The jumps from a first point x with these keys for the noise between them, and what is kept of the way."""
    process = self.jump.process

    def step(x: Array, row: tuple) -> tuple[Array, Any]:
      (t, u, up), i = row
      kept = seen(x, t)
      x = self.jump(self.params, x, t, u, cond)
      noised = renoise(process, x, u, up, keys.normal(keys.fold(own, i), x))
      return jnp.where(up > u, noised, x), kept

    return jax.lax.scan(step, x, (self.rows, jnp.arange(len(self.rows[0]))))


def iterated(
  parts: Parts,
  jump: Jump,
  params: Params,
  sampling: Sampling,
  gamma: float = 1.0,
  known: np.ndarray | None = None,
) -> Iterated:
  """A recipe's generator: `sampling.steps` jumps between the times of `sampling.grid`, the last to the jump's end.

  A student of a few times alone knows nothing of those between them: where `known` are given, jumps go from the ones
  nearest to the grid's.

  Raises:
    InputError: gamma outside [0, 1], guidance, which jumps do not take, a jump from before their end, or more jumps
      than times that are known.
  """
  if not 0 <= gamma <= 1:
    raise InputError(f'gamma: got {gamma}; allowed: 0, the flow, to 1, fresh noise before each jump')
  if sampling.guided(jump) is not jump:  # type: ignore[arg-type]
    raise InputError('guidance: got some; allowed: none, since jumps are guided when they are trained')
  end, process = float(jump.end), jump.process
  ts = checked(process, sampling.grid())[:-1]
  if ts[-1] <= end * (1 + 1e-6):
    raise InputError(f'grid: got a jump from {ts[-1]:.4g}; allowed: times above {end:.4g}, where jumps end (the grids '
                     'uniform and noise_share keep above it)')  # fmt: skip
  ts = ts if known is None else _nearest(process, ts, known)
  up = np.append(ts[1:], end)
  u = np.maximum(_landing(process, up, gamma), end)
  u[-1] = end
  rows = jnp.asarray(ts, float), jnp.asarray(u, float), jnp.asarray(up, float)
  return Iterated(params, jump, rows, law_of(sampling, ts[0]), parts.shape)


def _nearest(process: Process, ts: np.ndarray, known: np.ndarray) -> np.ndarray:
  """As many of the known times, none twice, that are together nearest to these in log(sigma / alpha)."""
  if len(ts) > len(known):
    raise InputError(f'sampling.steps: got {len(ts)}; allowed: at most {len(known)}, the times that the student knows')
  lam, own = (np.clip(at(process, times)[2], -20, 20) for times in (ts, known))
  return np.sort(known[linear_sum_assignment(np.abs(lam[:, None] - own))[1]])[::-1]


def law_of(sampling: Sampling, t: float) -> tuple[Array, Array, Array]:
  """The law of x where sampling begins: the time, and the mean and deviation of the data, 0 where not known."""
  mean, std = (0.0, 0.0) if sampling.data is None else (sampling.data.mean, sampling.data.std)
  return jnp.asarray(t, float), jnp.asarray(mean, float), jnp.asarray(std, float)


def _landing(process: Process, up: np.ndarray, gamma: float) -> np.ndarray:
  """Where a jump lands before noise leads up to these times."""
  if gamma == 0:
    return up.copy()
  if gamma == 1:
    return np.zeros_like(up)
  lam = process.lam(jnp.asarray(up)) - 0.5 * np.log1p(-(gamma**2))
  return np.asarray(process.lam_inverse(lam), np.float64)


def drawing(
  parts: Parts, jump: Jump | Callable[..., Jump], gamma: float = 1.0, known: np.ndarray | None = None
) -> Callable[..., Iterated]:
  """The generator of a method whose student is a jump, or one that its roles make: roles -> jump."""

  def generator(roles: Mapping[str, Any], sampling: Sampling) -> Iterated:
    made = jump if isinstance(jump, Jump) else jump(roles)
    return iterated(parts, made, roles['student'], sampling, gamma, known)

  return generator
