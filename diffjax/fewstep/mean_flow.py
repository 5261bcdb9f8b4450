"""MeanFlow: the network is the mean velocity between two times, by the identity that ties it to the velocity."""

from collections.abc import Mapping
from typing import Any

import jax.numpy as jnp
from jax import Array

from diffjax import schedules
from diffjax.errors import InputError
from diffjax.fewstep import distances, pairs
from diffjax.fewstep.flow_map import flow_map_jvp
from diffjax.fewstep.iterated import drawing
from diffjax.fewstep.jumps import Jump, jump_from
from diffjax.fewstep.segments import Point, velocity
from diffjax.methods.parts import Parts, same_process
from diffjax.train.roles import Method, Phase

__all__ = ['identity', 'mean_flow', 'straight']


def mean_flow(
  parts: Parts, *, equal: float = 0.75, distance: Any = None, slow: float = 250.0, gamma: float = 0.0
) -> Method:
  """The mean velocity u from t to s meets its identity with the velocity v, without a teacher.

  |u - sg(v - (t - s) du/dt)|^2, v = eps - x0, du/dt along (v, 1, 0) by one jvp; x_s = x_t - (t - s) u.

  arXiv:2505.13447 Alg. 1

  Args:
    parts: what the config has made; rectified flow, kind `velocity`, a network of two times.
    equal: the probability of s = t, plain flow matching.
    distance: `distances.robust(p=0)`, the square, unless given. The paper's p = 1 regresses to a mode, which misplaces
      mass where an example has few dimensions.
    slow: what the network's time, 1000 t, is divided by: derivatives in time need a smooth embedding.
    gamma: the noise between jumps, 0 for none.

  Raises:
    InputError: another process, kind or network; a number out of its range.
  """
  straight(parts, 'mean_flow')
  jump = jump_from(parts, paired=True, end=0.0, slow=slow)
  loss = flow_map_jvp(
    jump,
    pairs.ordered(equal=equal),
    velocity(parts.process),
    identity,
    distance=distances.named(distance or dict(name='robust', p=0.0)),
  )
  return Method(
    phases=(Phase('student', loss, parts.optimiser()),),
    init=lambda key: {'student': parts.init(key)},
    generator=drawing(parts, jump, gamma),
  )


def identity(
  roles: Mapping[str, Any], jump: Jump, at: pairs.Times, point: Point, slope: Array, x_s: Array, d_jump: Array
) -> Array:
  """What u lacks to v - (t - s) du/dt: the jump's total derivative v - u - (t - s) du/dt itself."""
  return d_jump


def straight(parts: Parts, name: str) -> None:
  """Nothing on rectified flow with a network of the velocity, where x_s = x_t - (t - s) u.

  Raises:
    InputError: another process or kind.
  """
  form = parts.kind(parts.process, jnp.linspace(0.1, 0.9, 9)).target
  if not same_process(parts.process, schedules.flow()):
    raise InputError(f'process: got another; allowed with {name}: flow, x_t = (1 - t) x0 + t eps')
  if not (jnp.allclose(form[0], -1.0) and jnp.allclose(form[1], 1.0)):
    raise InputError(f'loss.kind: got another; allowed with {name}: velocity')
