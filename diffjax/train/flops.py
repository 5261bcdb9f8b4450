"""The floating-point operations of a program, counted where it is traced: before a backend fuses or splits anything."""

import math
from collections.abc import Callable, Iterator
from typing import Any

import jax
import numpy as np

__all__ = ['count', 'flops']


def flops(function: Callable, *arguments: Any) -> int:
  """Twice the multiply-adds of all matrix products and convolutions that function(*arguments) does, on all devices.

  The body of a scan counts as often as it runs, of a cond the dearest branch, and of a while loop, whose length nobody
  knows, once. Products with the zeros of padding and dilation are left out, as XLA does.

  Args:
    function: what is counted.
    arguments: arrays or shapes.
  """
  return count(jax.make_jaxpr(function)(*arguments).jaxpr)


def count(jaxpr: Any) -> int:
  """The same of a jaxpr."""
  return sum(_equation(equation) for equation in jaxpr.eqns)


def _equation(equation: Any) -> int:
  name, params = equation.primitive.name, equation.params
  if name == 'dot_general':
    (contracted, _), _ = params['dimension_numbers']
    left = equation.invars[0].aval.shape
    return 2 * math.prod(equation.outvars[0].aval.shape) * math.prod(left[i] for i in contracted)
  if name == 'conv_general_dilated':
    return _convolution(params, *(v.aval.shape for v in (*equation.invars, *equation.outvars)))
  inner = [count(jaxpr) for value in params.values() for jaxpr in _programs(value)]
  if name == 'cond':
    return max(inner)
  return params['length'] * sum(inner) if name == 'scan' else sum(inner)


def _convolution(params: Any, left: tuple[int, ...], kernel: tuple[int, ...], out: tuple[int, ...]) -> int:
  axes = params['dimension_numbers']
  pairs = 1
  for i, (a, k, o) in enumerate(zip(axes.lhs_spec[2:], axes.rhs_spec[2:], axes.out_spec[2:], strict=True)):
    spread = params['lhs_dilation'][i]
    at = params['window_strides'][i] * np.arange(out[o])[:, None] - params['padding'][i][0]
    at = at + params['rhs_dilation'][i] * np.arange(kernel[k])
    pairs *= int(np.sum((at >= 0) & (at <= (left[a] - 1) * spread) & (at % spread == 0)))
  return 2 * pairs * out[axes.out_spec[0]] * out[axes.out_spec[1]] * kernel[axes.rhs_spec[1]]


def _programs(value: Any) -> Iterator[Any]:
  """The jaxprs among an equation's parameters, closed or open, alone or in a tuple."""
  for part in value if isinstance(value, tuple | list) else (value,):
    part = getattr(part, 'jaxpr', part)
    if hasattr(part, 'eqns'):
      yield part
