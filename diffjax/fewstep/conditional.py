"""CoMoSpeech: consistency distillation of data given a condition, the noise centred on a coarse prediction of them."""

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
from flax import struct
from jax import Array

from diffjax.contracts import Cond, Params
from diffjax.dtypes import widened
from diffjax.errors import InputError
from diffjax.fewstep import distances, pairs
from diffjax.fewstep.beside import SOURCE, beside
from diffjax.fewstep.flow_map import flow_map
from diffjax.fewstep.iterated import Iterated, iterated
from diffjax.fewstep.jumps import Jump, jump_from
from diffjax.fewstep.segments import by_solver, taught
from diffjax.losses.denoising import mean_square
from diffjax.methods.parts import Parts, Sampling
from diffjax.methods.starts import loads
from diffjax.process import expand
from diffjax.train.ema import constant
from diffjax.train.roles import Copy, Method, Phase

__all__ = ['conditional_consistency']


def conditional_consistency(
  parts: Parts,
  *,
  intervals: int = 49,
  rho: float = 7.0,
  solver: str = 'ddim',
  distance: Any = None,
  decay: float = 0.95,
  centred: bool = True,
) -> Method:
  """A coarse prediction mu of the data from their label, and a one-step student from noise about it.

  |mu_c - x0|^2 by the role 'encoder', and d(f(x_t, mu_c, t), sg f'(x_u, mu_c, u)) by the student, with x_u the
  teacher's step to the neighbour u from x_t = alpha x0 + sigma (mu_c + xi). In x_t - sigma mu_c that is the plain
  process, in which teacher, steps and fresh noise are those of consistency distillation: only the student's network
  sees the centred x_t, and mu_c beside it. The losses of a text encoder, of durations and padding are not here.

  arXiv:2305.06908 Alg. 1

  Args:
    parts: what the config has made; data with labels, a network that reads a source.
    intervals: of the grid; the paper's 50 levels are 49.
    rho: of the grid.
    solver: the teacher's step, 'ddim', which is the paper's Euler, or 'heun'.
    distance: as of `consistency_distillation`.
    decay: of the average that is the target.
    centred: whether the network sees the noise about mu_c; about 0 otherwise.

  Raises:
    InputError: no teacher or one that does not fit, no labels, another network; a number out of its range.
  """
  if not parts.classes:
    raise InputError('data.classes: got 0; allowed: data with labels, from which they are predicted')
  (source, teacher), own = taught(parts), beside(parts)
  alone = jump_from(own)
  jump = Centred(alone.process, alone.kind, alone.form, alone.end, net=own.net, paired=False, centred=centred)
  plain = flow_map(
    jump,
    pairs.neighbours(pairs.constantly(intervals), rho=rho),
    by_solver(parts.process, teacher, solver),
    distance=distances.named(distance or 'l2'),
  )

  def loss(roles: dict[str, Any], batch: Any, key: Array) -> Any:
    return plain({**roles, **{name: about(roles, name) for name in ('student', 'target')}}, batch, key)

  known = pairs.nodes(parts.process, intervals, rho)

  def generator(roles: Mapping[str, Any], sampling: Sampling) -> Iterated:
    return iterated(parts, jump, about(roles, 'student'), sampling, known=known)

  return Method(
    phases=(Phase('encoder', predicted, parts.optimiser()), Phase('student', loss, parts.optimiser())),
    copies={'target': Copy('student', constant(decay))},
    averaged=('student', 'encoder'),
    init=lambda key: {
      'encoder': {'mean': jnp.zeros((parts.classes, *parts.shape))},
      'student': own.init(key),
    },
    loads=loads(source),
    generator=generator,
  )


class Centred(Jump):
  """A jump whose network sees the noise about a mean: its weights are {'net': .., 'mean': (classes, ...)}.

  Attributes:
    centred: whether it does; the mean stands beside x either way.
  """

  centred: bool = struct.field(pytree_node=False, kw_only=True)

  def out(self, params: Params, x: Array, t: Array, s: Array, cond: Cond = None, key: Any = None) -> Array:
    """What the network returns for x (B, ...), the mean of whose noise is 0."""
    mean = params['mean'][cond].astype(x.dtype)
    seen = x + expand(self.process.schedule(t)[1], x) * mean if self.centred else x
    return super().out(params['net'], seen, t, s, {'label': cond, SOURCE: mean}, key)


def predicted(roles: dict[str, Any], batch: Any, key: Array) -> tuple[Array, dict[str, Array]]:
  """The error of the coarse prediction of a batch by its labels; at rest at the means of the classes."""
  error = mean_square(roles['encoder']['mean'][batch['cond']], widened(batch['x']))
  return error, {}


def about(roles: Mapping[str, Any], role: str) -> dict[str, Any]:
  """The weights of a centred jump of this role, the encoder's stopped."""
  return {'net': roles[role], 'mean': jax.lax.stop_gradient(roles['encoder']['mean'])}
