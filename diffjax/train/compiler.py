"""What is asked of XLA's compiler, by platform: the one place that does. GPU and TPU get its defaults."""

import functools
from typing import Any

import jax

__all__ = ['once', 'training']

# An initialiser runs once: on a CPU optimising it costs more than it saves (10 s against 3 s for a small U-Net).
ONCE = {'cpu': {'xla_backend_optimization_level': 0}}

# XLA's library YNN makes a convolution's filter gradient one with a window as large as the image, at half the speed of
# Eigen's: it keeps products and sums alone. A training step of a 32 x 32 U-Net takes .7 to .8 of the time.
TRAINING = {'cpu': {'xla_cpu_experimental_ynn_fusion_type': 'LIBRARY_FUSION_TYPE_DOT,LIBRARY_FUSION_TYPE_REDUCE'}}


def once() -> dict[str, Any]:
  """For a program that runs once."""
  return ONCE.get(jax.default_backend(), {})


def training() -> dict[str, Any]:
  """For a step of training: those that this version of XLA knows."""
  return {name: value for name, value in TRAINING.get(jax.default_backend(), {}).items() if _known(name, value)}


@functools.cache
def _known(name: str, value: Any) -> bool:
  try:
    jax.jit(lambda: 0, compiler_options={name: value}).lower().compile()
  except jax.errors.JaxRuntimeError:
    return False
  return True
