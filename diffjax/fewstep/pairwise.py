"""Pairwise sample optimisation: a few-step sampler is tuned to prefer one of two samples, at its own levels."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.lax import stop_gradient

from diffjax import keys, rewards
from diffjax.contracts import Cond, KeyBatch, Params
from diffjax.dtypes import widened
from diffjax.errors import InputError
from diffjax.fewstep.transitions import Policy, log_probs, policy, rollout
from diffjax.losses.denoising import mean_square
from diffjax.methods import Parts
from diffjax.methods.starts import tuned, tuning
from diffjax.train.roles import Method, Phase

__all__ = ['pairwise_sample_optimisation']


def pairwise_sample_optimisation(
  parts: Parts,
  *,
  reward: Any = None,
  steps: int = 4,
  grid: Any = 'uniform',
  scale: float = 1.0,
  beta: float = 50.0,
  clip: float = 0.1,
  loser: float = 1.0,
) -> Method:
  """PSO: the likelihood of the better of two samples rises against that of the worse, each against the base's.

  Online, with a `reward`, the two are ways of the student, and at every noisy transition

      -log sigmoid(beta (r_w - r_l)),  r = log p_theta(x_k+1 | x_k) - log p_base,  e^r cut off to [1 - e, 1 + e]

  means over the dimensions; two of one reward say nothing. Offline the better one is the example, the worse one a
  sample of the base, both noised to one level of the sampler by one noise, and with l = |x0(x_t, t) - x0|^2, a mean,

      -log sigmoid(beta ((l_base - l)_w - kappa (l_base - l)_l))

  arXiv:2410.03190 sec. 3

  Args:
    parts: with a base, the run that is tuned.
    reward: of `diffjax.rewards`; None to prefer the examples, offline.
    steps: jumps of a sample.
    grid: of the jumps, as `config.sampling.grid`: its name, or the times themselves.
    scale: that a base is told which takes one.
    beta: how much a margin counts.
    clip: e, online; 1 for no bound, as data of few dimensions want it.
    loser: kappa, offline.

  Raises:
    InputError: no base or one that does not fit, a reward or grid of another name, a number out of its range.
  """
  base = tuned(parts)
  if not (beta > 0 and 0 < clip <= 1 and loser >= 0):
    raise InputError(f'beta, clip, loser: got {beta}, {clip}, {loser}; allowed: beta > 0, 0 < clip <= 1, loser >= 0')
  made = policy(base, steps, grid, scale)
  pair = _offline(made, beta, loser) if reward is None else _online(made, rewards.named(reward), beta, clip)

  def loss(roles: dict[str, Any], batch: Any, key: Array) -> tuple[Array, dict[str, Array]]:
    x, cond = jax.tree.leaves(batch)[0], batch.get('cond')
    return pair(roles['student'], stop_gradient(roles['base']), batch, cond, keys.per_sample(key, len(x)))

  return Method(phases=(Phase('student', loss, parts.optimiser()),), **tuning(base))


Pair = Callable[[Params, Params, Any, Cond, KeyBatch], tuple[Array, dict[str, Array]]]


def _online(made: Policy, worth: rewards.Reward, beta: float, clip: float) -> Pair:
  low, high = (np.log1p(-clip), np.log1p(clip)) if clip < 1 else (-np.inf, np.inf)

  def pair(student: Params, base: Params, batch: Any, cond: Cond, key: KeyBatch) -> tuple[Array, dict[str, Array]]:
    draw, reference = made(student), made(base)
    ways = [rollout(made(stop_gradient(student)), own, cond) for own in keys.split(key, 2)]
    value = [worth(way.end, cond) for way in ways]
    ratio = [jnp.clip(log_probs(draw, way, cond) - log_probs(reference, way, cond), low, high) for way in ways]
    sign = jnp.sign(value[0] - value[1])
    values = jnp.mean(-jax.nn.log_sigmoid(beta * sign * (ratio[0] - ratio[1])), 0)
    return jnp.where(sign == 0, 0, values), {'reward': (value[0] + value[1]) / 2, 'told': jnp.abs(sign)}

  return pair


def _offline(made: Policy, beta: float, kappa: float) -> Pair:
  def pair(student: Params, base: Params, batch: Any, cond: Cond, key: KeyBatch) -> tuple[Array, dict[str, Array]]:
    k_level, k_eps, k_way = keys.split(key, 3)
    draw, better = made(student), widened(batch['x'])
    process, worse = draw.jump.process, made(base)(k_way, cond)
    level = jnp.floor(keys.uniform(k_level) * draw.nfe).astype(jnp.int32)
    t, eps = draw.rows[0][level], keys.normal(k_eps, better)

    def gain(x0: Array) -> Array:
      x = process.perturb(x0, eps, t)
      error = [mean_square(draw.jump(params, x, t, draw.jump.end, cond), x0) for params in (base, student)]
      return error[0] - error[1]

    won, lost = gain(better), gain(stop_gradient(worse))
    return -jax.nn.log_sigmoid(beta * (won - kappa * lost)), {'won': won, 'lost': lost}

  return pair
