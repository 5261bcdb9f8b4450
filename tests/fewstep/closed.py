"""The exact flow map of a Gaussian as a network, in one dimension: the solution at which every objective rests."""

from typing import Any, NamedTuple

import jax.numpy as jnp
from jax.tree_util import Partial

from diffjax import exact, kinds
from diffjax.fewstep.jumps import Jump, through, transfer_of
from diffjax.process import Process, expand

MEAN, VAR = 0.4, 0.25


def target():
  return exact.gaussian([MEAN], VAR)


def flow(process, x, t, s):
  """The probability-flow ODE of N(MEAN, VAR) from t to s, in closed form."""
  (a, b), (c, d) = process.schedule(t), process.schedule(s)
  return expand(c, x) * MEAN + expand(jnp.sqrt((c**2 * VAR + d**2) / (a**2 * VAR + b**2)), x) * (
    x - expand(a, x) * MEAN
  )


class Exact(NamedTuple):
  """The x0 with which the jump is exact, times params['gain'], plus params['shift']; told (t, s) in process time."""

  process: Process
  end: float = 0.0

  def __call__(self, params: Any, x: Any, t: Any, cond: Any = None, key: Any = None):
    t, s = (t[:, 0], t[:, 1]) if t.ndim == 2 else (t, jnp.full_like(t, self.end))
    keep, gain = transfer_of(self.process, t, s)
    alpha, sigma = self.process.schedule(t)
    best = MEAN + expand(alpha * VAR / (alpha**2 * VAR + sigma**2), x) * (x - expand(alpha, x) * MEAN)
    far = (flow(self.process, x, t, s) - expand(keep, x) * x) / expand(jnp.where(gain == 0, 1.0, gain), x)
    return params['gain'] * jnp.where(expand(gain == 0, x), best, far) + params['shift']

  def __hash__(self):
    return 0

  def __eq__(self, other):
    return self is other


def jump(process, end=0.0, paired=True):
  """The jump of `Exact`; its network is told the process's own time."""
  kind = kinds.x0().plain()
  return Jump(process, kind, Partial(through), jnp.asarray(end, float), net=Exact(process, end), paired=paired)


def right():
  """The weights that make it exact."""
  return {'gain': jnp.ones(()), 'shift': jnp.zeros(())}
