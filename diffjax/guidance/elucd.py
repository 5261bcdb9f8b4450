"""EluCD: guidance by a classifier of clean data, as it is, at the predicted data and not through the network."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array
from jax.tree_util import Partial

from diffjax.contracts import Cond, Data, Memory, Time
from diffjax.errors import InputError
from diffjax.guidance.tilt import Tilted
from diffjax.guidance.transform import Transform, as_scale, cost, value_at
from diffjax.prediction import Denoise, Pred
from diffjax.process import Process, expand

__all__ = ['elucd', 'elucd_kick']


def elucd(
  denoise: Denoise, logits: Callable, scale: Any = 1.0, *, joint: float = 1.0, marginal: float = 0.5, bump: float = 0.3
) -> 'Elucidated':
  """EluCD: classifier guidance by a classifier of clean data, whose marginal is made flatter than its joint.

      G = grad_z [joint f_y(z) - log sum_c exp(marginal f_c(z))]   at z = x0_hat, taken as if it were x
      score + scale (1 + bump (max g^2 / g(t)^2) sin(pi t / t_max)) G                    arXiv:2310.11311

  joint = marginal = 1 is the gradient of log-softmax; marginal below 1 does not vanish where the classifier is sure.
  The second factor is the published one on the step's variance; its maximum is that below .98 t_max. Costs one
  evaluation more, the classifier's forward and VJP: none goes through the denoiser. Classifiers with ReLU guide better
  with a softplus in its place, softplus(3 z) / 3 as published.

  Args:
    denoise: what is asked for predictions.
    logits: f, (x, t) -> (B, C), of clean data, t = 0; as a pytree its parameters may change without another
      compilation.
    scale: a number, one a sample (B,), or a function of t as a pytree; 0 is `denoise`.
    joint: T1, published 1.
    marginal: T2, published .5.
    bump: gamma, published .3.

  Raises:
    InputError: when called, there are no labels.
  """
  process = denoise.process
  most = jnp.max(process.g2(jnp.linspace(process.t_min, 0.98 * process.t_max, 64)))
  weight = Partial(_bumped, process, as_scale(scale), most * bump)
  temperatures = jnp.asarray(joint, float), jnp.asarray(marginal, float)
  return Elucidated(
    denoise, Partial(_evidence, as_scale(logits), *temperatures), weight, at='x0', through=False, price=1
  )


class Elucidated(Tilted):
  """Made by `elucd`."""


def elucd_kick(
  denoise: Denoise,
  logits: Callable,
  scale: Any = 1.0,
  *,
  joint: float = 1.0,
  marginal: float = 0.0,
  most: float = 0.004,
  bump: float = 0.3,
) -> 'Kicked':
  """EluCD as published for EDM: the sample itself is kicked, by a gradient of fixed size, before the network sees it.

      x' = x + scale c(t) rms(x) G / rms(G),   G of `elucd` at z = x / max(1, rms(x))
      c = max(most (1 - u), 1e-5) + bump most sin(pi u),   u from 0 to 1 evenly along Karras's grid, rho = 7

  It returns the pair predicted at x', which is consistent there and not at x: run it with `solvers.pair_form(table,
  process)`, whose first-order step begins at x'. Costs one evaluation more, the classifier's.   arXiv:2310.11311

  Args:
    denoise: what is asked for predictions.
    logits: as of `elucd`, asked at t = 0.
    scale: likewise.
    joint: T1, published 1.
    marginal: T2, published 0: the logit alone.
    most: c_max, published .004.
    bump: gamma, published .3.

  Raises:
    InputError: when called, there are no labels.
  """
  temperatures = jnp.asarray(joint, float), jnp.asarray(marginal, float)
  sizes = jnp.asarray(most, float), jnp.asarray(bump, float)
  return Kicked(denoise, Partial(_evidence, as_scale(logits), *temperatures), as_scale(scale), sizes)


class Kicked(Transform):
  """Made by `elucd_kick`."""

  log_weight: Any
  scale: Any
  sizes: tuple[Array, Array]

  def __call__(self, x: Data, t: Time, cond: Cond = None, memory: Memory = None) -> Pred:
    return self.denoise(x + self.kick(x, t, cond), t, cond, memory)

  def kick(self, x: Array, t: Time, cond: Cond) -> Array:
    """X' - x, of the root mean square scale c(t) rms(x)."""
    size = _rms(x)
    times = jnp.broadcast_to(jnp.asarray(t), (len(x),))
    slope = jax.grad(lambda z: jnp.sum(self.log_weight(z, times, cond)))(x / jnp.maximum(1, size))
    most, bump = self.sizes
    u = _progress(self.process, jnp.asarray(t))
    c = jnp.maximum(most * (1 - u), 1e-5) + bump * most * jnp.sin(jnp.pi * u)
    return (expand(value_at(self.scale, t) * c, x) * size * slope / (_rms(slope) + 1e-30)).astype(x.dtype)

  def cost(self, t: float) -> int:
    """One evaluation more."""
    return cost(self.denoise, t) + 1


def _evidence(logits: Callable, joint: Array, marginal: Array, z: Data, t: Time, cond: Cond) -> Array:
  labels = cond.get('label') if isinstance(cond, dict) else cond
  if labels is None:
    raise InputError('cond: got no labels; allowed: a label to guide towards, one a sample')
  out = logits(z, jnp.zeros(len(labels)))
  own = jnp.take_along_axis(out, labels[:, None], 1)[:, 0]
  return joint * own - jax.nn.logsumexp(marginal * out, -1)


def _bumped(process: Process, scale: Any, most: Array, t: Array) -> Array:
  t = jnp.asarray(t)
  g2 = process.g2(jnp.minimum(t, 0.98 * process.t_max))
  return value_at(scale, t) * (1 + most / g2 * jnp.sin(jnp.pi * t / process.t_max))


def _progress(process: Process, t: Array) -> Array:
  """Where a time lies on Karras's grid: 0 at t_max, 1 at t_min."""
  first, here, last = (jnp.exp(-process.lam(t) / 7) for t in (process.t_max, t, process.t_min))
  return (first - here) / (first - last)


def _rms(x: Array) -> Array:
  return jnp.sqrt(jnp.mean(x**2, axis=tuple(range(1, x.ndim)), keepdims=True))
