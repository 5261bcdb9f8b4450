"""Generators: how the trained roles of a method draw. Commands know nothing else of a method."""

from typing import Any, Protocol

import jax
import jax.numpy as jnp
import numpy as np
from flax import struct
from flax.core import FrozenDict

from diffjax import guidance, keys, labels
from diffjax.contracts import Cond, Data, KeyBatch
from diffjax.methods.parts import Parts, Sampling
from diffjax.prediction import Denoise
from diffjax.pytree import PyTree
from diffjax.solvers import Solver, first_time, sample, start_time, trajectory

__all__ = ['Generator', 'Solved', 'solved']


class Generator(Protocol):
  """A pytree that draws: (keys (B,), cond) -> x (B, ...), sample k from its own key alone.

  One that has a way to show has `path(keys, cond)` too, which returns the sample, and the points before each step with
  the data predicted there, ((B, ...), ((n, B, ...), (n, B, ...))), and `times`, those n.

  One whose noise can be searched has `start(keys) -> (x, own)`, where samples begin and the keys of all other draws,
  and `finish(x, own, cond)`.
  """

  @property
  def nfe(self) -> int:
    """Network evaluations of a sample."""
    ...

  @property
  def cost(self) -> float:
    """Forwards and VJPs of a sample."""
    ...

  def __call__(self, key_batch: KeyBatch, cond: Cond = None) -> Data:
    """Draws samples, one a key."""
    ...

  def check_cond(self, cond: Cond, field: str = 'cond') -> None:
    """Raises InputError for a condition that it cannot take."""
    ...


class Solved(PyTree):
  """A denoiser under a solver, begun with the law that belongs to the first time of its grid.

  Attributes:
    denoise: what is asked for predictions.
    solver: the method on its grid.
    law: the time at which x begins, and the mean and deviation of the data, 0 where they are not known.
    shape: of one sample.
  """

  denoise: Denoise
  solver: Any
  law: tuple[Any, Any, Any]
  shape: Any = struct.field(pytree_node=False)

  @property
  def nfe(self) -> int:
    """Network evaluations of a sample."""
    return self.solver.nfe

  @property
  def times(self) -> np.ndarray:
    """The time of each row of the solver."""
    return np.asarray(self.solver.rows.t)

  @property
  def cost(self) -> float:
    """Forwards and VJPs of a sample."""
    evaluated = self.times[np.asarray(self.solver.rows.evaluated)]
    return sum(guidance.cost(self.denoise, t) for t in evaluated)

  def check_cond(self, cond: Cond, field: str = 'cond') -> None:
    """Raises InputError for labels that the network does not have."""
    labels.check_for(self.denoise, cond, field)

  def start(self, key_batch: KeyBatch) -> tuple[Data, KeyBatch]:
    """Where samples begin, (B, ...), and the solver's own keys."""
    begin, own = keys.split(key_batch, 2)
    shapes = dict(self.shape) if isinstance(self.shape, FrozenDict) else self.shape
    like = jax.tree.map(
      lambda shape: jax.ShapeDtypeStruct((key_batch.shape[0], *shape), jnp.float32),
      shapes,
      is_leaf=lambda node: isinstance(node, tuple),
    )
    return self.denoise.process.start(begin, like, *self.law), own

  def finish(self, x: Data, own: KeyBatch, cond: Cond = None) -> Any:
    """The samples from where they begin, with the solver's own keys."""
    return sample(self.denoise, self.solver, x, own, cond)

  def __call__(self, key_batch: KeyBatch, cond: Cond = None) -> Data:
    """The samples, one a key."""
    return self.finish(*self.start(key_batch), cond)

  def path(self, key_batch: KeyBatch, cond: Cond = None) -> tuple[Data, tuple[Data, Data]]:
    """The sample, the points before each row and the data predicted there."""
    x, own = self.start(key_batch)
    return trajectory(self.denoise, self.solver, x, own, cond)


def solved(denoise: Denoise, solver: Solver, shape: Any, data: Any = None) -> Solved:
  """The generator that takes noise to data by a solver; `data` is its mean and deviation, where they are known.

  With a deviation of 0 that is a source, from which samples begin with the noise of the grid's first time on it.

  Args:
    denoise: what is asked for predictions.
    solver: the method on its grid.
    shape: of one sample, a dict of shapes by modality.
    data: a `statistics.Spread`, by modality where there are several.

  Warns:
    UserWarning: neither noise nor the data's Gaussian is the law at the grid's first time (`solvers.start_time`).
  """
  several = isinstance(shape, dict)
  each = (lambda part: {name: getattr(data[name], part) for name in shape}) if several else lambda p: getattr(data, p)
  mean, std = (0.0, 0.0) if data is None else (each('mean'), each('std'))
  known = data is not None and not any(np.any(leaf) for leaf in jax.tree.leaves(std))  # data of one point, a source
  t = first_time(solver) if known else start_time(denoise.process, solver, std)
  law = jax.tree.map(lambda leaf: jnp.asarray(leaf, float), (t, mean, std))
  return Solved(denoise, solver, law, FrozenDict(shape) if several else tuple(shape))


def under_solver(parts: Parts, denoise: Denoise, sampling: Sampling) -> Solved:
  """A recipe's generator: its denoiser, guided, under the solver of `config.sampling`."""
  return solved(sampling.guided(denoise), sampling.solver(), parts.shape, sampling.data)
