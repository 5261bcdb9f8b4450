"""Products of densities: the scores add up, and the log-weight that makes the sum exact is told beside them.

Of q_t = prod_i p_{i,t}^{b_i} the score is S = sum b_i s_i, but the reverse SDE with it does not sample q_0; weights do:

    logW += (g^2 / 2) (|S|^2 - sum_i b_i |s_i|^2) dtau        a constant of time is left out where sum b_i is not 1

aux['weight_rate'] holds the rate, which `steering.particles` integrates.
"""

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array

from diffjax.contracts import Cond, Data, Memory, Time
from diffjax.errors import InputError
from diffjax.guidance.cfg import branches
from diffjax.guidance.transform import Transform, as_scale, cost, null_for, value_at
from diffjax.prediction import Denoise, Pred, predict
from diffjax.process import Process, expand

__all__ = ['annealed', 'experts', 'weighted_cfg']


def weighted_cfg(denoise: Denoise, scale: Any, null: Cond = None) -> 'Weighted':
  """Classifier-free guidance that can be made exact: towards p(x | cond)^scale p(x)^(1 - scale).

  The prediction of `cfg` with the rate (g^2 / 2) scale (scale - 1) |s_c - s_u|^2; under `steering.particles` the
  samples have that law. Plain guidance, by either the ODE or the SDE, has another one.   arXiv:2501.06848

  Args as of `cfg`, the scale a number or one a sample.
  """
  return Weighted(denoise, as_scale(scale), null_for(denoise, null))


class Weighted(Transform):
  """Made by `weighted_cfg`."""

  scale: Any
  null: Cond

  def __call__(self, x: Data, t: Time, cond: Cond = None, memory: Memory = None) -> Pred:
    if cond is None:
      raise InputError('cond: got None; allowed: a condition to guide towards, one a sample')
    nulls = jax.tree.map(lambda c, n: jnp.broadcast_to(n.astype(c.dtype), c.shape), cond, self.null)
    (c, u), aux = branches(self.denoise, x, t, (cond, nulls), memory)
    scale = value_at(self.scale, jnp.asarray(t))
    rate = half_g2_over_sigma2(self.process, t) * scale * (scale - 1) * square(jax.tree.map(jnp.subtract, c.eps, u.eps))
    mix = lambda c, u: (c + expand(scale - 1, c) * (c - u)).astype(c.dtype)  # noqa: E731
    known = aux if isinstance(aux, dict) else {}
    return Pred(jax.tree.map(mix, c.x0, u.x0), jax.tree.map(mix, c.eps, u.eps), known | {'weight_rate': rate})

  def cost(self, t: float) -> int:
    return 2 * cost(self.denoise, t)


def annealed(denoise: Denoise, power: float) -> 'Powers':
  """The density to a power, p^power: above 1 sharper, below 1 flatter.

  eps -> power eps, with the rate (g^2 / 2) power (power - 1) |s|^2. It begins at sigma_T z / sqrt(power).
  arXiv:2503.02819

  Raises:
    InputError: the power is not positive.
  """
  return experts((denoise,), (power,))


def experts(denoisers: Sequence[Denoise], powers: Sequence[float]) -> 'Powers':
  """The product of densities p_1^b1 p_2^b2 ... of one process, by their denoisers; powers may be negative.

  It begins at sigma_T z / sqrt(sum b). Costs all of them.   arXiv:2503.02819

  Raises:
    InputError: not one power a denoiser, or their sum is not positive.
  """
  if not denoisers or len(denoisers) != len(powers) or not sum(powers) > 0:
    raise InputError(f'powers: got {tuple(powers)} of {len(denoisers)} denoisers; allowed: one each, of positive sum')
  return Powers(denoisers[0], tuple(denoisers[1:]), jnp.asarray(powers, float))


class Powers(Transform):
  """Made by `experts` and `annealed`."""

  others: tuple
  powers: Array

  def __call__(self, x: Data, t: Time, cond: Cond = None, memory: Memory = None) -> Pred:
    preds = [denoise(x, t, cond) for denoise in (self.denoise, *self.others)]
    total = jnp.sum(self.powers)
    eps = jax.tree.map(lambda *e: sum(b * e for b, e in zip(self.powers, e, strict=True)), *[p.eps for p in preds])
    off = sum(b * square(jax.tree.map(jnp.subtract, p.eps, eps)) for b, p in zip(self.powers, preds, strict=True))
    rate = half_g2_over_sigma2(self.process, t) * ((total - 1) * square(eps) - off)
    return predict(self.process, 'eps', x, t, eps)._replace(aux={'weight_rate': rate})

  def cost(self, t: float) -> int:
    return sum(cost(denoise, t) for denoise in (self.denoise, *self.others))


def half_g2_over_sigma2(process: Process, t: Time) -> Array:
  """What |eps|^2 is multiplied with for (g^2 / 2) |score|^2; 0 where alpha = 0."""
  t = jnp.asarray(t)
  alpha, sigma = process.schedule(t)
  return jnp.where(alpha > 0, process.g2(t) / (2 * sigma**2), 0.0)


def square(eps: Data) -> Array:
  """The square norm of each row, over all modalities, (B,) float32."""
  return sum(jnp.sum(leaf.astype(jnp.float32).reshape(len(leaf), -1) ** 2, -1) for leaf in jax.tree.leaves(eps))
