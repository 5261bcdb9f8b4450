"""Autoguidance: away from a worse version of the same model."""

from typing import Any

from jax import Array
from jax.tree_util import Partial

from diffjax.guidance.mix import Mixed, mix
from diffjax.guidance.transform import as_scale, value_at
from diffjax.prediction import Denoise

__all__ = ['autoguidance']


def autoguidance(denoise: Denoise, guide: Denoise, scale: Any) -> Mixed:
  """Autoguidance: extrapolates from what a worse version of the model predicts to what the model does.

      g + scale (d - g),   d of the model and g of its guide, both under the same condition.   arXiv:2406.02507

  The guide should err as the model does, only more: a smaller network, trained for less, with a longer average. Where
  both see a Gaussian of variance v through smoothings d0 > d1, the probability-flow ODE ends with the variance
  (v + d1)^scale (v + d0)^(1 - scale), and the smoothing is undone at scale = log((v + d0) / v) / log((v + d0) /
  (v + d1)). Scale 1 is the model alone. Costs both networks, counted as 1 each though the guide is smaller.

  Args:
    denoise: the model.
    guide: its worse version, of the same process.
    scale: a number, one a sample (B,), or a function of t as a pytree; published 1.7 to 2.9.
  """
  return mix(denoise, (guide,), (Partial(_rest, as_scale(scale)),))


def _rest(scale: Any, t: Array) -> Array:
  return 1 - value_at(scale, t)
