"""What `config.sampling.steering` names: each lays a method over a generator, (generator, reward, **options)."""

from collections.abc import Callable
from typing import Any

import numpy as np
from flax import struct
from jax.tree_util import Partial

from diffjax.contracts import Cond, Data, KeyBatch
from diffjax.errors import InputError
from diffjax.guidance.transform import as_scale
from diffjax.methods.generator import Solved
from diffjax.prediction import Denoise
from diffjax.pytree import PyTree
from diffjax.solvers import sample
from diffjax.steering.feynman_kac import feynman_kac as of_reward
from diffjax.steering.find import find
from diffjax.steering.noise_search import best_of, paths, zero_order
from diffjax.steering.particles import particle_keys, spread
from diffjax.steering.particles import particles as weighted
from diffjax.steering.rollover import rollover, svdd
from diffjax.steering.tree import tree_sampling, tree_search
from diffjax.steering.twisted import twist
from diffjax.steering.twisted import twisted as moved

__all__ = ['best_of', 'feynman_kac', 'find', 'particles', 'paths', 'rollover', 'svdd', 'tree_sampling', 'tree_search',
           'twisted', 'zero_order']  # fmt: skip


class Steered(PyTree):
  """A generator of particles: one of them a sample, drawn by weight.

  Attributes:
    generator: a denoiser under a solver, which draws where particles begin.
    denoise: what the particles are asked of.
    solver: the particles.
  """

  generator: Solved
  denoise: Denoise
  solver: Any
  count: int = struct.field(pytree_node=False)

  @property
  def nfe(self) -> int:
    """Network evaluations of a sample: those of all its particles."""
    return self.solver.nfe

  @property
  def times(self) -> np.ndarray:
    """The time of each row of the solver."""
    return self.generator.times

  @property
  def cost(self) -> float:
    """Forwards and VJPs of a sample."""
    return self.count * self.generator.replace(denoise=self.denoise).cost

  def check_cond(self, cond: Cond, field: str = 'cond') -> None:
    """Raises InputError for a condition that the network cannot take."""
    self.generator.check_cond(cond, field)

  def __call__(self, key_batch: KeyBatch, cond: Cond = None) -> Data:
    """The samples, one a key."""
    x, own = self.generator.start(particle_keys(key_batch, self.count))
    cond = spread(cond, self.count)
    return sample(self.denoise, self.solver.replace(cond=cond), x, own, cond)


def particles(generator: Any, reward: Callable | None = None, *, particles: int = 8, threshold: float = 0.5) -> Steered:
  """Weighted particles of a guidance that states a weight rate, such as `weighted_cfg`; no reward."""
  if reward is not None:
    raise InputError('reward: got one with particles alone, which follow the weights of the guidance; allowed: '
                     'feynman_kac')  # fmt: skip
  return _steered(generator, particles, lambda solver: weighted(solver, particles, threshold=threshold))


def feynman_kac(
  generator: Any, reward: Callable, *, particles: int = 8, scale: float = 1.0, potential: str = 'difference',
  every: int = 1, threshold: float = 0.5,
) -> Steered:  # fmt: skip
  """`steering.feynman_kac` of so many particles a sample."""
  options: dict[str, Any] = dict(scale=scale, potential=potential, every=every, threshold=threshold)
  return _steered(generator, particles, lambda solver: of_reward(solver, reward, particles, **options))


def twisted(
  generator: Any, reward: Callable, *, particles: int = 8, scale: float = 1.0, threshold: float = 0.5
) -> Steered:
  """`steering.twisted` of so many particles a sample, by the gradient of the reward of x0 through the network."""
  scaled = Partial(_scaled, as_scale(reward), as_scale(scale))
  made = _steered(generator, particles, lambda solver: moved(solver, scaled, particles, threshold=threshold))
  return made.replace(denoise=twist(generator.denoise, scaled))


def _scaled(reward: Callable, scale: Any, x: Data, cond: Cond) -> Any:
  return scale * reward(x, cond)


def _steered(generator: Any, count: int, wrap: Callable) -> Steered:
  if not isinstance(generator, Solved):
    raise InputError(f'generator: got {type(generator).__name__}, which has no solver to wrap; allowed: a denoiser '
                     'under one; or best_of, zero_order, find')  # fmt: skip
  return Steered(generator, generator.denoise, wrap(generator.solver), count)
