"""Products of densities: the scores add up, and the log-weight that makes the sum exact is told beside them.

Of q_t = prod_i p_{i,t}^{b_i} the score is S = sum b_i s_i, but the reverse SDE with it does not sample q_0; weights do:

    logW += (g^2 / 2) (|S|^2 - sum_i b_i |s_i|^2) dtau        a constant of time is left out where sum b_i is not 1

aux['weight_rate'] holds the rate, which `steering.particles` integrates. Powers that sum to 1 are `mix`'s as well.
"""

from collections.abc import Sequence

import jax
import jax.numpy as jnp
from jax import Array

from diffjax.contracts import Cond, Data, Memory, Time
from diffjax.errors import InputError
from diffjax.guidance.transform import Transform, cost
from diffjax.prediction import Denoise, Pred, predict
from diffjax.process import Process

__all__ = ['annealed', 'product']


def annealed(denoise: Denoise, power: float) -> 'Powers':
  """The density to a power, p^power: above 1 sharper, below 1 flatter.

  eps -> power eps, with the rate (g^2 / 2) power (power - 1) |s|^2. It begins at sigma_T z / sqrt(power).
  arXiv:2503.02819

  Raises:
    InputError: the power is not positive.
  """
  return product((denoise,), (power,))


def product(denoisers: Sequence[Denoise], powers: Sequence[float]) -> 'Powers':
  """The product of densities p_1^b1 p_2^b2 ... of one process, by their denoisers; powers may be negative.

  It begins at sigma_T z / sqrt(sum b). Costs all of them.   arXiv:2503.02819

  Raises:
    InputError: not one power a denoiser, or their sum is not positive.
  """
  if not denoisers or len(denoisers) != len(powers) or not sum(powers) > 0:
    raise InputError(f'powers: got {tuple(powers)} of {len(denoisers)} denoisers; allowed: one each, of positive sum')
  return Powers(denoisers[0], tuple(denoisers[1:]), jnp.asarray(powers, float))


class Powers(Transform):
  """Made by `product` and `annealed`."""

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
  parts = [jnp.sum(leaf.astype(jnp.float32).reshape(len(leaf), -1) ** 2, -1) for leaf in jax.tree.leaves(eps)]
  return jnp.sum(jnp.stack(parts), 0)
