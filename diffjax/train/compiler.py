"""What is asked of XLA's compiler, by platform: the one place that does. Runs on GPU and TPU get its defaults."""

import functools
import os
from typing import Any

import jax

__all__ = ['named_operations', 'once', 'training']

# On a CPU, to optimise what runs once costs more than it saves: 10 s against 3 s for an initialiser of a small U-Net.
ONCE = {'cpu': {'xla_backend_optimization_level': 0}}

# XLA's library YNN makes a convolution's filter gradient one with a window as large as the image, at half the speed of
# Eigen's: it keeps products and sums alone. A training step of a 32 x 32 U-Net takes .73 to .84 of the time.
TRAINING = {'cpu': {'xla_cpu_experimental_ynn_fusion_type': 'LIBRARY_FUSION_TYPE_DOT,LIBRARY_FUSION_TYPE_REDUCE'}}


def once() -> dict[str, Any]:
  """For a program that runs once, or is only measured: its buffers are the same."""
  return ONCE.get(jax.default_backend(), {})


def training() -> dict[str, Any]:
  """For a step of training: those that this version of XLA knows."""
  return {name: value for name, value in TRAINING.get(jax.default_backend(), {}).items() if _known(name, value)}


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
