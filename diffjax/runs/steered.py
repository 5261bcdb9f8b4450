"""From `config.sampling.reward` and `.steering` to what is laid over a generator, and whether it fits."""

import math
import os
from collections.abc import Iterator
from typing import Any

import jax
import jax.numpy as jnp

from diffjax import rewards
from diffjax.methods import Generator, Parts
from diffjax.runs.config import ConfigDict, ConfigError, named, refused, registry
from diffjax.steering import by_name
from diffjax.steering.feynman_kac import rewarded

__all__ = ['check_memory', 'steered']


def steered(sampling: ConfigDict, generator: Generator, parts: Parts) -> Generator:
  """The generator under the steering that a config asks for, with its reward; itself where it asks for none.

  Raises:
    ConfigError: a method, reward or option that is not there or does not fit; a reward without a method; one that does
      not say one number a sample, which is seen before anything is compiled.
  """
  if sampling.steering.name == 'none':
    if sampling.reward.name != 'none':
      raise ConfigError(f'config.sampling.reward: got {sampling.reward.name} without config.sampling.steering; allowed '
                        f'with one of {", ".join(by_name.__all__)}')  # fmt: skip
    return generator
  reward = None
  if sampling.reward.name != 'none':
    reward = refused('sampling.reward', rewards.named, sampling.reward.to_dict())
    cond = jnp.zeros(2, jnp.int32) if parts.classes else None
    refused('sampling.reward', jax.eval_shape, lambda x: rewarded(reward, x, cond), parts.rows(2))
  elif sampling.steering.name in set(by_name.__all__) - {'particles'}:
    raise ConfigError(f'config.sampling.reward: got none with {sampling.steering.name}; allowed: '
                      f'{", ".join(rewards.__all__)}')  # fmt: skip
  return named('sampling.steering', registry(by_name), sampling.steering, generator, reward)


def check_memory(sampling: ConfigDict, generator: Any, parts: Parts) -> None:
  """Estimates what a batch under steering needs, before anything is compiled.

  The largest set of arrays that one operation of the program reads and writes, a lower bound of what is held at once.

  Raises:
    ConfigError: it is more than the device has.
  """
  if sampling.steering.name == 'none':
    return
  n = int(sampling.batch)
  keys = jax.eval_shape(lambda: jax.random.split(jax.random.key(0), n))
  cond = jax.ShapeDtypeStruct((n,), jnp.int32) if parts.classes else None
  program = refused('sampling.steering', jax.make_jaxpr(generator), keys, cond)
  need, have = max(_sizes(program.jaxpr), default=0), _memory()
  if need > have:
    raise ConfigError(f'config.sampling.steering: got {sampling.steering.name}, of which a batch of {n} samples needs '
                      f'at least {need / 1e9:.1f} GB; allowed: {have / 1e9:.1f} GB, so fewer particles or a smaller '
                      'config.sampling.batch')  # fmt: skip


def _sizes(jaxpr: Any) -> Iterator[int]:
  """The bytes that each operation reads and writes, those of inner programs included."""
  for equation in jaxpr.eqns:
    shaped = [v.aval for v in (*equation.invars, *equation.outvars) if hasattr(v.aval, 'shape')]
    yield sum(math.prod(aval.shape) * getattr(aval.dtype, 'itemsize', 4) for aval in shaped)
    for parameter in equation.params.values():
      for inner in parameter if isinstance(parameter, tuple | list) else (parameter,):
        inner = getattr(inner, 'jaxpr', inner)
        if hasattr(inner, 'eqns'):
          yield from _sizes(inner)


def _memory() -> float:
  """Bytes of the device, or of the machine where it does not say."""
  stats = jax.local_devices()[0].memory_stats() or {}
  return stats.get('bytes_limit', os.sysconf('SC_PHYS_PAGES') * os.sysconf('SC_PAGE_SIZE'))
