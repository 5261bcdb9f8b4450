"""The twisted diffusion sampler: particles that are moved by a gradient and weighed by what the move costs."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import Array

from diffjax.contracts import Cond, Data, KeyBatch, Memory, Time
from diffjax.errors import InputError
from diffjax.guidance.transform import Transform, as_scale, cost
from diffjax.prediction import Denoise, Pred
from diffjax.process import expand
from diffjax.pytree import PyTree
from diffjax.solvers import Solver
from diffjax.solvers.noise import Noise
from diffjax.steering.feynman_kac import FeynmanKac, rewarded
from diffjax.steering.particles import Rows, wrapped

__all__ = ['linear_likelihood', 'twist', 'twisted']


def twisted(
  solver: Solver, reward: Callable, particles: int, *, threshold: float = 0.5, cond: Cond = None, whole: bool = False
) -> Any:
  """The twisted diffusion sampler: steps follow the gradient of a twist, weights make up for it.

      x_s ~ N(m + S G, S),   G = grad_x log p~(x_t)
      logW += log p(x_s | x_t) - log q(x_s | x_t) + log p~(x_s) - log p~(x_t),   the last factor exp(reward(x0))

  m and S are of the solver's own step. The denoiser has to be `twist(denoise, reward)`, which states log p~ and G; the
  law, p(x0 | cond) exp(reward(x0)) / Z, does not depend on the twist as K grows. Where a step draws no noise (the last
  one) it is not moved.   arXiv:2306.17775 Alg. 1

  Args as of `feynman_kac`, of which this is the potential `difference` with another proposal.
  """
  solver, rows, share, last = wrapped(solver, particles, threshold)
  return Twisted(
    solver, rows, share, last, cond, as_scale(reward), jnp.ones(()), count=particles, whole=whole, skips=solver.skips
  )


class Twisted(FeynmanKac):
  """Made by `twisted`."""

  def worth(self, pred: Pred, row: Rows, key_batch: KeyBatch) -> Array:
    return told_by(pred).value

  def move(self, state: Any, told: Any, pred: Pred, row: Rows, key_batch: KeyBatch, noise: Noise) -> tuple[Any, Array]:
    slope = told_by(pred).slope
    if hasattr(self.solver, 'shifted'):  # its law is no Gaussian, and it knows how to move it
      return self.solver.shifted(state, row.inner, key_batch, noise, slope)
    std = self.solver.point(self.solver.transition(state, pred, row.inner)[1])
    shift = jax.tree.map(lambda std, slope: std * slope, std, slope)
    drawn: list = []

    def moved(key_batch: KeyBatch, row: Any, like: Data) -> Any:
      drawn.append(noise(key_batch, row, like))
      return jax.tree.map(jnp.add, drawn[0], shift)

    after = self.solver.update(state, pred, row.inner, key_batch, moved)
    # of z' = z + shift: log N(z') - log N(z)
    ratio = jax.tree.leaves(jax.tree.map(lambda z, d: _sum(d * (z + d / 2)), drawn[0], shift))
    return after, -jnp.sum(jnp.stack(ratio), 0)


class Twist(NamedTuple):
  """log p~ (B,) of the points, and its gradient there, like x."""

  value: Array
  slope: Any


def told_by(pred: Pred) -> Twist:
  """What `twist` put beside a prediction; InputError where there is none."""
  if not (isinstance(pred.aux, dict) and 'twist' in pred.aux):
    raise InputError('denoise: got one that states no twist; allowed: twist(denoise, reward)')
  return pred.aux['twist']


def twist(denoise: Denoise, reward: Callable) -> 'Twisting':
  """States the twist beside each prediction, which stays as it is: aux['twist'] holds log p~(x_t) and its gradient.

  log p~ = reward(D(x_t)), through the network; of `linear_likelihood`, N(y; H D, R + H C H^T) with the posterior
  covariance C = (sigma^2 / alpha) dD/dx, taken as constant. Costs a forward and its VJP, and a JVP a row of H.
  """
  return Twisting(denoise, as_scale(reward))


class Twisting(Transform):
  """Made by `twist`."""

  reward: Any

  def __call__(self, x: Data, t: Time, cond: Cond = None, memory: Memory = None) -> Pred:
    def total(x: Data) -> tuple[Array, tuple[Array, Pred]]:
      pred = self.denoise(x, t, cond, memory)
      if hasattr(self.reward, 'blurred'):
        value = self.reward.blurred(pred.x0, self._covariance(x, t, cond, memory))
      else:
        value = rewarded(self.reward, pred.x0, cond)
      return jnp.sum(value), (value, pred)

    slope, (value, pred) = jax.grad(total, has_aux=True)(x)
    aux = pred.aux if isinstance(pred.aux, dict) else {}
    return pred._replace(aux=aux | {'twist': Twist(value, slope)})

  def _covariance(self, x: Data, t: Time, cond: Cond, memory: Memory) -> Array:
    """H C H^T (B, m, m) at x, which no gradient sees."""
    alpha, sigma = self.process.schedule(jnp.asarray(t))
    x = jax.lax.stop_gradient(x)
    matrix = self.reward.matrix

    def column(row: Array) -> Array:
      along = jnp.broadcast_to(row.reshape(x.shape[1:]), x.shape).astype(x.dtype)
      push = jax.jvp(lambda x: self.denoise(x, t, cond, memory).x0, (x,), (along,))[1]
      return push.reshape(len(x), -1) @ matrix.T

    seen = jnp.moveaxis(jax.vmap(column)(matrix), 0, -1) * expand(sigma**2 / alpha, jnp.zeros((len(x), 1, 1)))
    return jax.lax.stop_gradient((seen + jnp.swapaxes(seen, 1, 2)) / 2)

  def cost(self, t: float) -> int:
    return cost(self.denoise, t) * (2 + (len(self.reward.matrix) if hasattr(self.reward, 'blurred') else 0))


def linear_likelihood(matrix: Any, y: Any, noise_std: float, covariance: bool = True) -> 'Linear | Sharp':
  """The log-likelihood of y = H x0 + n, n ~ N(0, noise_std^2 I), as a reward; H (m, d), y (m,) or one a sample (B, m).

  With `covariance` the twist counts what the prediction does not know of x0; without, it is the likelihood of DPS.
  """
  made = Linear if covariance else Sharp
  return made(jnp.asarray(matrix, float), jnp.asarray(y, float), jnp.asarray(noise_std, float) ** 2)


class Sharp(PyTree):
  """Made by `linear_likelihood` without `covariance`."""

  matrix: Array
  y: Array
  var: Array

  def __call__(self, x0: Data, cond: Cond = None) -> Array:
    off = self.y - x0.reshape(len(x0), -1) @ self.matrix.T
    return -0.5 * jnp.sum(off**2 / self.var + jnp.log(2 * jnp.pi * self.var), -1)


class Linear(Sharp):
  """Made by `linear_likelihood`."""

  def blurred(self, x0: Data, covariance: Array) -> Array:
    """The log-density of y when x0 has this covariance after H, (B, m, m)."""
    off = self.y - x0.reshape(len(x0), -1) @ self.matrix.T
    whole = covariance + self.var * jnp.eye(len(self.matrix), dtype=x0.dtype)
    solved = jnp.linalg.solve(whole, off[..., None])[..., 0]
    return -0.5 * (jnp.sum(off * solved, -1) + jnp.linalg.slogdet(2 * jnp.pi * whole)[1])


def _sum(x: Array) -> Array:
  return jnp.sum(x.reshape(len(x), -1), -1)
