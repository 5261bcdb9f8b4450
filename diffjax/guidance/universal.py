"""Universal guidance: any network of clean data guides, by its gradient through the denoiser and by steps on x0."""

from collections.abc import Callable
from typing import Any

from diffjax.guidance.prox import prox
from diffjax.guidance.tilt import tilt
from diffjax.guidance.transform import Transform
from diffjax.prediction import Denoise

__all__ = ['universal']


def universal(
  denoise: Denoise, log_weight: Callable, scale: Any = 1.0, *, steps: int = 0, rate: Any = 0.1, price: int = 1
) -> Transform:
  """Universal guidance: forward by the gradient through the denoiser, then backward by steps on the predicted x0.

      forward     eps - scale sigma grad_x r(x0_hat(x))                       `tilt` at x0
      backward    x0 + Delta, Delta of `steps` steps z + rate grad r(z)       `prox`, no gradient through the network

  The paper's loss is -r, and its s(t) is scale sigma. Its self-recurrence, which takes every step several times with
  new noise between, is the solver's: `solvers.recurrent`.   arXiv:2302.07121 Alg. 1

  Args:
    denoise: what is asked for predictions.
    log_weight: r, (x0, t, cond) -> (B,), as of `tilt`.
    scale: of the forward part: a number, one a sample (B,), or a function of t as a pytree.
    steps: of the backward part, 0 to leave it out; published 0 to 10.
    rate: of each.
    price: evaluations that r and its gradient count as in `cost`.

  Raises:
    InputError: what `prox` refuses.
  """
  forward = tilt(denoise, log_weight, scale, at='x0', price=price)
  return prox(forward, log_weight, rate, steps=steps, price=price) if steps else forward
