"""Mean-reverting processes: a network of x that drifts to mu as a denoiser of y = x - (1 - alpha) mu, and the way back.

For dx = theta (mu - x) dt + g dw with g^2 = 2 spread^2 theta, y is an alpha / sigma diffusion of the same x0 (process
`schedules.mean_reverting`), so that a solver on y is a solver on x: DDPM is IR-SDE's posterior sampler, and DPM-Solver
in its four forms (data or noise, ODE or SDE, of orders one and two) is MR-Sampler.   arXiv:2301.11699, arXiv:2502.07856

    process = schedules.mean_reverting()
    denoise = mean_reverting(Denoiser(params, process, as_kind('eps'), net=net))    # net(params, x, t, mu, key)
    solver = sde_dpmpp_2m(process, grids.uniform(process, 10), exact=True)
    x0 = sample(denoise, solver, initial_noise(process, mu, keys), key, mu)         # x = y at t = 0
"""

from typing import Any

import jax
import jax.numpy as jnp
from jax import Array

from diffjax.contracts import Cond, Data, KeyBatch, Memory, Time
from diffjax.errors import InputError
from diffjax.guidance.transform import Transform
from diffjax.prediction import Denoiser, Pred, apply_net, predict
from diffjax.process import Process, expand, over_time

__all__ = ['mean_reverting', 'initial_noise', 'to_centred', 'from_centred']


def mean_reverting(denoise: Denoiser, mu: Data = None) -> 'Around':
  """Makes a network of a mean-reverting process, which sees x, a denoiser of the centred variable y.

  y = x - (1 - alpha) mu; the network's output is read as one of this kind at y.

  x0 and eps are those of the network at x, and y = alpha x0 + sigma eps: consistent. Wrap the network first, and
  guidance or thresholds around it.

  Args:
    denoise: a network with a `mean_reverting` process; v and velocity are those of y.
    mu: what broadcasts against x, e.g. (B, ...); None takes the condition for mu.

  Raises:
    InputError: denoise is not a plain `Denoiser`, or (when called) there is neither a mu nor a condition.
  """
  if not isinstance(denoise, Denoiser):
    raise InputError(f'denoise: got {type(denoise).__name__}; allowed: a Denoiser, before any transform')
  return Around(denoise, jax.tree.map(jnp.asarray, mu))


class Around(Transform):
  """Made by `mean_reverting`."""

  denoise: Denoiser
  mu: Data = None

  def __call__(self, x: Data, t: Time, cond: Cond = None, memory: Memory = None) -> Pred:
    inner, mu = self.denoise, cond if self.mu is None else self.mu
    if mu is None:
      raise InputError('cond: got None; allowed: mu, one a sample, or a denoiser made with a mu of its own')
    seen = from_centred(self.process, x, mu, t)
    out = apply_net(inner.net, inner.params, inner.process, inner.kind, seen, t, cond=cond)
    return predict(self.process, inner.kind, x, t, jax.tree.map(lambda out, x: out.astype(x.dtype), out, x))


def initial_noise(process: Process, mu: Data, key_batch: KeyBatch) -> Any:
  """The published start of a mean-reverting process, as a y.

  y at t_max, alpha mu + sigma z: the published start x = mu + sigma z, one draw a key; mu (B, ...).
  """
  return to_centred(process, jax.tree.map(jnp.add, mu, process.prior(key_batch, mu)), mu, process.t_max)


def to_centred(process: Process, x: Data, mu: Data, t: Time) -> Any:
  """Centres x at time t, () or (B,): y = x - (1 - alpha(t)) mu."""
  return over_time(lambda t, x, mu: x - _pull(process, t, x) * mu, t, x, mu)


def from_centred(process: Process, y: Data, mu: Data, t: Time) -> Any:
  """Undoes `to_centred`: x = y + (1 - alpha(t)) mu; at t = 0 it is y."""
  return over_time(lambda t, y, mu: y + _pull(process, t, y) * mu, t, y, mu)


def _pull(process: Process, t: Time, x: Array) -> Array:
  return expand(1 - process.schedule(jnp.asarray(t))[0], x).astype(x.dtype)
