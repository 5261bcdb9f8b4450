"""Mixing predictions with weights that sum to 1: the one rule of guidance by another prediction."""

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array

from diffjax.contracts import Cond, Data, Memory, Time
from diffjax.dtypes import wide
from diffjax.errors import InputError
from diffjax.guidance.transform import Transform, as_scale, cost, value_at
from diffjax.prediction import Denoise, Pred
from diffjax.process import Process, expand, over_time

__all__ = ['mix', 'mixed']


def mix(denoise: Denoise, others: Sequence[Denoise], weights: Sequence[Any]) -> 'Mixed':
  """An affine combination of denoisers of one process: their scores, with weights that sum to 1.

      D + sum_i w_i (D_i - D)        in x0 and eps; D has the weight b_0 = 1 - sum_i w_i

  Of Gaussians N(m_i, v_i) the probability-flow ODE, begun at sigma = inf, ends with the variance prod_i v_i^{b_i};
  guidance by a condition, by a worse network, by a perturbed one are all of this form. Weights 0 give D, bit for bit.
  The product of the laws with the exponents b_i is another law; the rate at which particles of the reverse SDE must
  be weighed to sample it is in `aux['weight_rate']` (see `mixed`). Costs every denoiser once.

  Args:
    denoise: D.
    others: D_i; each sees the same x, t and condition.
    weights: w_i: numbers, one a sample (B,), or functions of t as pytrees.

  Raises:
    InputError: not one weight for each of the others, or none of these.
  """
  if not others or len(others) != len(weights):
    raise InputError(f'weights: got {len(weights)} for {len(others)} other denoisers; allowed: one each, at least one')
  return Mixed(denoise, tuple(others), tuple(map(as_scale, weights)))


class Mixed(Transform):
  """Made by `mix`; what its denoisers remember is a tuple, one entry each."""

  others: tuple[Any, ...]
  weights: tuple[Any, ...]

  def __call__(self, x: Data, t: Time, cond: Cond = None, memory: Memory = None) -> Pred:
    every = (self.denoise, *self.others)
    before = (None,) * len(every) if memory is None else memory
    base, *others = (each(x, t, cond, own) for each, own in zip(every, before, strict=True))
    pred = mixed(self.process, t, base, others, self.weights)
    after = tuple(p.aux.get('memory') if isinstance(p.aux, dict) else None for p in (base, *others))
    return pred._replace(aux=pred.aux | {'memory': after}) if jax.tree.leaves(after) else pred

  def cost(self, t: float) -> int:
    """All of them."""
    return cost(self.denoise, t) + sum(cost(other, t) for other in self.others)


def mixed(process: Process, t: Time, base: Pred, others: Sequence[Pred], weights: Sequence[Any]) -> Pred:
  """The prediction base + sum_i w_i (other_i - base), consistent where all of them are; at weights 0 base itself.

  Its aux is that of base with 'weight_rate' (B,): particles that follow the reverse SDE of the mixed score
  S = sum_i b_i s_i sample prod_i p_i^{b_i} where their log-weights grow, per unit of reverse time, by

      - (g^2 / 2) (sum_i b_i |s_i|^2 - |S|^2) = lam' (sum_i b_i |eps_i|^2 - |eps|^2)

  and, where the predictions are mixtures of such a rate themselves, by b_i times theirs.

  Args:
    process: the forward process.
    t: () or (B,), or times, one a modality.
    base: the prediction whose weight is what the others leave of 1.
    others: further ones at the same x.
    weights: w_i, one for each of the others, as of `mix`.
  """

  def total(t: Array, base: Array, *others: Array) -> Array:
    out = base
    for other, weight in zip(others, weights, strict=True):
      out = out + expand(value_at(weight, jnp.asarray(t)), base) * (other - base)
    return out.astype(base.dtype)

  def rate(t: Array, base: Array, *others: Array) -> Array:
    t = jnp.asarray(t, wide(base))
    shares = [expand(value_at(weight, t), base) for weight in weights]
    gaps = [(other - base).astype(t.dtype) for other in others]
    pairs = list(zip(shares, gaps, strict=True))
    spread: Any = sum(w * gap**2 for w, gap in pairs) - sum(w * gap for w, gap in pairs) ** 2
    return _falling(process, t) * jnp.sum(spread.reshape(len(base), -1), -1)

  def over(f: Any, part: str) -> Any:
    return over_time(f, t, getattr(base, part), *(getattr(other, part) for other in others))

  aux = base.aux if isinstance(base.aux, dict) else {}
  weight_rate = sum(jax.tree.leaves(over(rate, 'eps'))) + _inner(t, (base, *others), weights)
  return Pred(over(total, 'x0'), over(total, 'eps'), aux | {'weight_rate': weight_rate})


def _inner(t: Time, preds: Sequence[Pred], weights: Sequence[Any]) -> Array | int:
  """The rates of predictions that are mixtures themselves, by their shares."""
  rates = [pred.aux.get('weight_rate', 0) if isinstance(pred.aux, dict) else 0 for pred in preds]
  shares = [value_at(weight, jnp.asarray(jax.tree.leaves(t)[0])) for weight in weights]
  return sum(share * rate for share, rate in zip((1 - sum(shares), *shares), rates, strict=True))


def _falling(process: Process, t: Array) -> Array:
  """Lam' = alpha' / alpha - sigma' / sigma, 0 at the two ends of time where it is infinite."""
  (alpha, sigma), (da, ds) = process.schedule(t), process.rates(t)
  inside = (alpha > 0) & (sigma > 0)
  return jnp.where(inside, da / jnp.where(inside, alpha, 1) - ds / jnp.where(inside, sigma, 1), 0)
