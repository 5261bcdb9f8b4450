"""The SDE of a flow with any noise: the marginals of the ODE, for steering, which needs steps that draw."""

from collections.abc import Callable
from typing import Any

import numpy as np

from diffjax.errors import InputError
from diffjax.noise_levels import on_grid
from diffjax.process import Process
from diffjax.solvers.builder import TableBuilder
from diffjax.solvers.table import Table

__all__ = ['flow_sde']

SHAPES: dict[str, Callable] = {
  'constant': lambda t, sigma: np.ones_like(t),
  'sigma': lambda t, sigma: sigma,
  'sin': lambda t, sigma: np.sin(np.pi * t) ** 2,
  'square': lambda t, sigma: t**2,
}


def flow_sde(process: Process, ts: Any, noise: str = 'square', size: float = 3.0) -> Table:
  """The reverse SDE with the noise g(t) of your choice, which leaves every marginal as it is.

      dx = [u - (g^2 / 2) score] dt + g dw,   g = size times t^2, sigma(t), sin^2(pi t) or 1

  t runs in the process's span scaled to [0, 1]. u is the velocity of the flow, score = -eps / sigma: a network of any
  kind says both. Each step keeps the marginal of a constant prediction, whatever g and its length,

      x_s = alpha_s x0 + sqrt(sigma_s^2 - v^2) eps + v z,   v = min(g sqrt(t - s), sigma_s),

  which to first order is Euler's; g = 0 is DDIM, the flow's ODE.   arXiv:2503.19385 sec. 4

  Args:
    process: the forward process.
    ts: the time grid, n + 1 strictly decreasing times.
    noise: constant, sigma, sin or square.
    size: the factor of g.

  Raises:
    InputError: another noise, or a negative size.
  """
  if noise not in SHAPES:
    raise InputError(f'noise: got {noise!r}; allowed: {", ".join(SHAPES)}')
  if not size >= 0:
    raise InputError(f'size: got {size}; allowed: a number of at least 0')
  ts, alpha, sigma, _ = on_grid(process, ts)
  span = float(process.t_max)
  g = size * SHAPES[noise](ts / span, sigma)
  table = TableBuilder('x')
  for i in range(len(ts) - 1):
    std = min(g[i] * np.sqrt((ts[i] - ts[i + 1]) / span), sigma[i + 1])
    rest = np.sqrt(sigma[i + 1] ** 2 - std**2)
    table.row(ts[i], x=alpha[i + 1] * table.x0 + rest * table.eps + std * table.z)
  return table.done()
