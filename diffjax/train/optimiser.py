"""Optimisers as a config names them: a rule, its learning-rate schedule, a clip on the global norm.

rate(n) = learning_rate n / warmup, n < warmup; then by `schedule`, with f = final_fraction,
        = learning_rate                                                                      'constant'
        = learning_rate (f + (1 - f) (1 + cos(pi (n - warmup) / (steps - warmup))) / 2)      'cosine'
        = learning_rate / sqrt(max(n / decay_from, 1))                                       'inverse_sqrt'

`forced_norm` keeps the weights of magnitude-preserving networks at unit mean square after each step (`train.forced`).
"""

import inspect
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import optax

from diffjax.errors import InputError
from diffjax.train.forced import force_norm

__all__ = ['adamw', 'adam', 'lion', 'sgd']

ENDLESS = ('constant', 'inverse_sqrt')  # schedules that do not know where the run ends
SCHEDULES = ('cosine', *ENDLESS)
SHAPE = ('warmup', 'schedule', 'final_fraction', 'decay_from')


def adamw(
  steps: int,
  learning_rate: float = 1e-3,
  weight_decay: float = 1e-2,
  b1: float = 0.9,
  b2: float = 0.999,
  eps: float = 1e-8,
  **shape: Any,
) -> optax.GradientTransformation:
  """Adam with decoupled weight decay on matrices and kernels, not on biases and scales.

  arXiv:1711.05101
  """
  rate = rate_schedule(steps, learning_rate, **_schedule(shape))
  return _clipped(optax.adamw(rate, b1, b2, eps, weight_decay=weight_decay, mask=decayed), **shape)


def adam(
  steps: int, learning_rate: float = 1e-3, b1: float = 0.9, b2: float = 0.999, eps: float = 1e-8, **shape: Any
) -> optax.GradientTransformation:
  """Adam.

  arXiv:1412.6980
  """
  rate = rate_schedule(steps, learning_rate, **_schedule(shape))
  return _clipped(optax.adam(rate, b1, b2, eps), **shape)


def lion(
  steps: int, learning_rate: float = 1e-4, weight_decay: float = 1e-2, b1: float = 0.9, b2: float = 0.99, **shape: Any
) -> optax.GradientTransformation:
  """The sign of a momentum, with the same weight decay as adamw.

  arXiv:2302.06675
  """
  rate = rate_schedule(steps, learning_rate, **_schedule(shape))
  return _clipped(optax.lion(rate, b1, b2, weight_decay=weight_decay, mask=decayed), **shape)


def sgd(steps: int, learning_rate: float = 1e-2, momentum: float = 0.0, **shape: Any) -> optax.GradientTransformation:
  """Gradient descent, with heavy-ball momentum where it is not 0."""
  rate = rate_schedule(steps, learning_rate, **_schedule(shape))
  return _clipped(optax.sgd(rate, momentum or None), **shape)


def rate_schedule(
  steps: int,
  learning_rate: float,
  warmup: int = 0,
  schedule: str = 'cosine',
  final_fraction: float = 0.0,
  decay_from: int = 0,
) -> optax.Schedule:
  """The rate as a function of the update count; the equation heads this module.

  Raises:
    InputError: an unknown schedule, a warm-up longer than the run, a learning_rate that is not positive, no decay_from
      for 'inverse_sqrt'.
  """
  if schedule not in SCHEDULES:
    raise InputError(f'optimiser.schedule: got {schedule!r}; allowed: {", ".join(SCHEDULES)}')
  if not 0 <= warmup < max(steps, 1):
    raise InputError(f'optimiser.warmup: got {warmup}; allowed: 0 <= warmup < steps = {steps}')
  if not learning_rate > 0:
    raise InputError(f'optimiser.learning_rate: got {learning_rate}; allowed: a positive learning rate')
  if schedule == 'inverse_sqrt' and not decay_from > 0:
    raise InputError(f'optimiser.decay_from: got {decay_from}; allowed with inverse_sqrt: the step where decay begins')
  rest = optax.constant_schedule(learning_rate)
  if schedule == 'inverse_sqrt':  # arXiv:2312.02696
    rest = lambda n: learning_rate / jnp.sqrt(jnp.maximum((n + warmup) / decay_from, 1))  # noqa: E731
  if schedule == 'cosine':
    rest = optax.cosine_decay_schedule(learning_rate, steps - warmup, alpha=final_fraction)
  if not warmup:
    return rest
  return optax.join_schedules([optax.linear_schedule(0.0, learning_rate, warmup), rest], [warmup])


def schedule_of(options: Mapping[str, Any]) -> str:
  """The schedule that an optimiser with these options follows."""
  return options.get('schedule', inspect.signature(rate_schedule).parameters['schedule'].default)


def decayed(params: Any) -> Any:
  """True for the leaves that weight decay acts on: those of two axes or more that are no 'bias' or 'scale' by name.

  By name too, since biases and norm scales of layers under `scan` are stacked, and those of q, k and v are three.
  """

  def one(path: tuple, leaf: Any) -> bool:
    return jnp.ndim(leaf) >= 2 and jax.tree_util.keystr(path[-1:], simple=True) not in ('bias', 'scale')

  return jax.tree.map_with_path(one, params)


def _schedule(shape: dict[str, Any]) -> dict[str, Any]:
  unknown = sorted(set(shape) - {*SHAPE, 'clip', 'forced_norm'})
  if unknown:
    allowed = ', '.join((*SHAPE, 'clip', 'forced_norm'))
    raise InputError(f'optimiser: got the unknown option {unknown[0]}; allowed beside its own: {allowed}')
  return {name: value for name, value in shape.items() if name in SHAPE}


def _clipped(
  rule: optax.GradientTransformation, clip: float = 1.0, forced_norm: bool = False, **_: Any
) -> optax.GradientTransformation:
  """The rule behind a clip: gradients of a global norm above `clip` (0: none) are scaled to it; forced norm last."""
  links = ([optax.clip_by_global_norm(clip)] if clip else []) + [rule] + ([force_norm()] if forced_norm else [])
  return optax.chain(*links) if len(links) > 1 else rule
