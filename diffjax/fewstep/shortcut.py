"""Shortcut models: one step of a size is two steps of half that size, down to a finest step that data teach."""

from functools import partial

from diffjax.errors import InputError
from diffjax.fewstep import distances, pairs
from diffjax.fewstep.flow_map import flow_map, inverse_span, rows_split
from diffjax.fewstep.iterated import drawing
from diffjax.fewstep.jumps import jump_from
from diffjax.fewstep.mean_flow import straight
from diffjax.fewstep.segments import by_jump, data_line
from diffjax.methods.parts import Parts
from diffjax.train.ema import constant
from diffjax.train.roles import Copy, Method, Phase

__all__ = ['shortcut']


def shortcut(
  parts: Parts, *, depth: int = 7, share: float = 0.125, decay: float = 0.999, slow: float = 250.0, gamma: float = 0.0
) -> Method:
  """A step of size d is two steps of size d / 2 of the target's; the finest is flow matching.

  On a share of the rows |u(x_t, t, s) - sg (u'(x_t, t, m) + u'(x_m, m, s)) / 2|^2, t - s = 2^-k, m half-way, k even on
  0 .. depth - 1; on the others |u(x_t, t, t - 2^-depth) - (eps - x0)|^2.   arXiv:2410.12557 Alg. 1

  Samples take a power of two of even steps. The release also clips points to +-4; this does not.

  Args:
    parts: what the config has made; rectified flow, kind `velocity`, a network of two times.
    depth: the finest step is 2^-depth.
    share: of the rows that agree with two half-steps.
    decay: of the average that takes the half-steps.
    slow: what the network's time, 1000 t, is divided by.
    gamma: the noise between jumps, 0 for none.

  Raises:
    InputError: another process, kind or network; a number out of its range.
  """
  straight(parts, 'shortcut')
  if not 0 < share < 1:
    raise InputError(f'share: got {share}; allowed: between 0 and 1')
  jump = jump_from(parts, paired=True, end=0.0, slow=slow)
  of_velocity = partial(flow_map, jump, distance=distances.l2(), weight=inverse_span)
  halves = of_velocity(pairs.dyadic(depth), by_jump(jump, 'target'))
  finest = of_velocity(pairs.dyadic(depth, finest=True), data_line(parts.process), target='student')
  return Method(
    phases=(Phase('student', rows_split(halves, finest, share), parts.optimiser()),),
    copies={'target': Copy('student', constant(decay))},
    init=lambda key: {'student': parts.init(key)},
    generator=drawing(parts, jump, gamma),
  )
