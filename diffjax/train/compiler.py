"""What is asked of XLA's compiler, by platform: the one place that does. Runs on GPU and TPU get its defaults."""

import functools
import os
from collections.abc import Callable
from typing import Any

import jax

from diffjax.train.flops import programs

__all__ = ['named_operations', 'once', 'training']

# On a CPU, to optimise what runs once costs more than it saves: 10 s against 3 s for an initialiser of a small U-Net.
ONCE = {'cpu': {'xla_backend_optimization_level': 0}}

# XLA's library YNN makes a convolution's filter gradient one with a window as large as the image, at half the speed of
# Eigen's: it keeps products and sums alone. A training step of a 32 x 32 U-Net takes .73 to .84 of the time.
TRAINING = {'cpu': {'xla_cpu_experimental_ynn_fusion_type': 'LIBRARY_FUSION_TYPE_DOT,LIBRARY_FUSION_TYPE_REDUCE'}}


# XLA for CPU asks the system for all temporary memory of a step in one piece and gives it back, and so waits for every
# page of it anew. In pieces below some 30 MB the allocator keeps it: .76 of the time of that U-Net, .7 to .8 of a DiT.
# A piece must hold the largest array, with the zeros that a convolution puts around it, or XLA warns of each that is
# larger.
PIECES = {'cpu': 'xla_multiheap_size_constraint_per_heap'}
PIECE = 2**23  # bytes


def once() -> dict[str, Any]:
  """For a program that runs once, or is only measured: its buffers are the same."""
  return ONCE.get(jax.default_backend(), {})


def training(program: Callable[[], Any]) -> dict[str, Any]:
  """For a step of training: those that this version of XLA knows.

  Args:
    program: the step's jaxpr, closed; called where the platform's options depend on it.
  """
  platform = jax.default_backend()
  options: dict[str, Any] = dict(TRAINING.get(platform, {}))
  if platform in PIECES:
    options[PIECES[platform]] = max(PIECE, largest(program().jaxpr) * 5 // 4)
  return {name: value for name, value in options.items() if _known(name, value)}


def largest(jaxpr: Any) -> int:
  """Bytes of the largest array that a program computes, over all devices, whether or not it is ever stored."""
  own = (v.aval.size * v.aval.dtype.itemsize for e in jaxpr.eqns for v in e.outvars if hasattr(v.aval, 'shape'))
  inner = (largest(part) for e in jaxpr.eqns for value in e.params.values() for part in programs(value))
  return max(*own, *inner, 0, 0)


def named_operations() -> None:
  """Before JAX looks for devices: a GPU's trace shows operations by name, where a CUDA graph would be a single one."""
  flags, graphs = os.environ.get('XLA_FLAGS', ''), '--xla_gpu_enable_command_buffer='
  if graphs not in flags:
    os.environ['XLA_FLAGS'] = f'{flags} {graphs}'.strip()


@functools.cache
def _known(name: str, value: Any) -> bool:
  try:
    jax.jit(lambda: 0, compiler_options={name: value}).lower().compile()
  except jax.errors.JaxRuntimeError:
    return False
  return True
