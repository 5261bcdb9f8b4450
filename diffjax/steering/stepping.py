"""One step of a solver for samples that are at rows of their own, as searches need it."""

from typing import Any

import jax
import jax.numpy as jnp
from jax import Array

from diffjax.contracts import Cond, KeyBatch
from diffjax.errors import InputError
from diffjax.methods.generator import Solved
from diffjax.prediction import Pred
from diffjax.solvers.noise import independent
from diffjax.steering.noise_search import Search

__all__ = []


class Stepping(Search):
  """A search that draws one step at a time: the state after row i is judged by the x0 predicted at row i + 1.

  After the last row the sample itself is judged, and the denoiser not asked.
  """

  @property
  def rows(self) -> int:
    """The steps of the solver."""
    return len(self.generator.solver.rows.t)

  def begun(self, key_batch: KeyBatch) -> tuple[Any, KeyBatch]:
    """The states before the first row, and keys for all that follows."""
    x, own = self.generator.start(key_batch)
    return self.generator.solver.init(x, own), own

  def asked_at(self, state: Any, t: Any, cond: Cond) -> tuple[Pred, Array]:
    """The prediction, and the reward of its x0, at times () or (B,)."""
    pred = self.generator.denoise(self.generator.solver.point(state), t, cond)
    return pred._replace(aux=()), self.worth(pred.x0, cond)

  def stepped(self, state: Any, pred: Pred, i: Array, key_batch: KeyBatch) -> Any:
    """The states after the rows i (B,) of each sample."""
    solver = self.generator.solver
    rows = jax.tree.map(jnp.asarray, solver.rows)

    def one(state: Any, pred: Pred, i: Array, key: Array) -> Any:
      alone = jax.tree.map(lambda leaf: leaf[None], (state, pred))
      row = jax.tree.map(lambda leaf: leaf[i], rows)
      return jax.tree.map(lambda leaf: leaf[0], solver.update(*alone, row, key[None], independent))

    return jax.vmap(one)(state, pred, i, key_batch)

  def judged(self, state: Any, i: Array, cond: Cond) -> tuple[Pred, Array]:
    """The prediction at the states after i (B,) rows, and the reward there; the sample's own after the last row."""
    times = jnp.asarray(self.generator.solver.rows.t, jnp.float32)
    pred, r = self.asked_at(state, times[jnp.minimum(i, self.rows - 1)], cond)
    return pred, jnp.where(i == self.rows, self.worth(self.generator.solver.output(state), cond), r)


def check(generator: Any) -> Solved:
  """The generator, if it is a denoiser under a stochastic solver whose every row is an evaluation; else InputError."""
  if not isinstance(generator, Solved):
    raise InputError(f'generator: got {type(generator).__name__}; allowed: a denoiser under a solver, or best_of')
  if generator.solver.skips or not generator.solver.stochastic:
    raise InputError('solver: got one that draws no noise or skips evaluations; allowed: a stochastic one with an '
                     'evaluation a row, such as ancestral, ddim with eta or flow_sde')  # fmt: skip
  return generator
