"""Feedback guidance: as much guidance as the sample's own path says that it needs."""

from typing import Any

import jax
import jax.numpy as jnp
from jax import Array

from diffjax.contracts import Cond, Data, Memory, Time
from diffjax.dtypes import wide
from diffjax.errors import InputError
from diffjax.guidance.cfg import Free
from diffjax.guidance.mix import mixed
from diffjax.guidance.transform import null_for
from diffjax.prediction import Denoise, Pred

__all__ = ['feedback']


def feedback(denoise: Denoise, mixing: float, most: float = 10.0, null: Cond = None) -> 'Feedback':
  """Feedback guidance: takes a share of the unconditional law out of a conditional one that has learned it.

  Where labels were wrong with probability `mixing` (pi), a network has learned (1 - pi) p_c + pi p_u for p_c, and

      s_c = s_u + lam (s_learned - s_u),    lam = rho / (rho - pi),    rho = p_learned / p_u at x_t      in [1, most]

  rho is told along the path, from 1 at its start: each step adds log N(x_s; m_c, V) - log N(x_s; m_u, V), the two
  ancestral steps that might have led there. So it is for stochastic solvers that take ancestral steps
  (`solvers.ancestral`), of many steps; with others rho is another number. mixing 0 is the conditional prediction. Costs
  2 evaluations of `denoise`.   arXiv:2506.06085

  Args:
    denoise: what is asked for predictions.
    mixing: pi.
    most: the largest lam.
    null: the condition that means none; the network's own by default.

  Raises:
    InputError: mixing outside [0, 1), most below 1, no `null` is given or known, or the network never saw it in
      training; or (when called) there is no condition, or several modalities.
  """
  if not 0 <= mixing < 1:
    raise InputError(f'mixing: got {mixing}; allowed: a probability of at least 0 and below 1')
  if not most >= 1:
    raise InputError(f'most: got {most}; allowed: a number of at least 1')
  return Feedback(denoise, jnp.ones(()), null_for(denoise, null), jnp.asarray(mixing, float), jnp.asarray(most, float))


class Feedback(Free):
  """Made by `feedback`; it remembers log rho (B,), and where the last step began and what was predicted there."""

  mixing: Array
  most: Array

  def __call__(self, x: Data, t: Time, cond: Cond = None, memory: Memory = None) -> Pred:
    if isinstance(x, dict):
      raise InputError(f'x: got modalities {", ".join(x)}; allowed: data of one shape')
    now = jnp.broadcast_to(jnp.asarray(t, wide(x)), (len(x),))
    c, u, aux = self.pair(x, t, cond, None if memory is None else memory['denoise'])
    log_rho = jnp.zeros(len(x), wide(x)) if memory is None else self._told(x, now, memory)
    share = self.mixing * jnp.exp(-log_rho)
    lam = jnp.where(share < 1 - 1 / self.most, 1 / (1 - jnp.minimum(share, 1 - 1 / self.most)), self.most)
    pred = mixed(self.process, t, c._replace(aux=aux | {'conditional': c}), (u,), (1 - jnp.maximum(lam, 1),))
    after = dict(log_rho=log_rho, x=x, t=now, c=c.x0, u=u.x0, begun=jnp.ones(len(x), bool), denoise=aux.get('memory'))
    return pred._replace(aux=pred.aux | {'memory': after})

  def _told(self, x: Array, now: Array, memory: Any) -> Array:
    """Log rho at x, by the step from where the memory lies."""
    begun = memory['begun'].astype(bool) & (memory['t'] > now)
    before = jnp.where(begun, memory['t'], self.process.t_max)
    here = jnp.where(begun, now, self.process.t_min)
    (m_c, std), (m_u, _) = (self.process.posterior(memory['x'], memory[x0], before, here) for x0 in ('c', 'u'))
    std = jnp.maximum(std, jnp.finfo(wide(x)).tiny ** 0.25)
    gain = ((x - m_u) / std) ** 2 - ((x - m_c) / std) ** 2
    step = jnp.sum(gain.reshape(len(x), -1).astype(wide(x)), 1) / 2
    return memory['log_rho'] + jax.lax.stop_gradient(jnp.where(begun, step, 0))
