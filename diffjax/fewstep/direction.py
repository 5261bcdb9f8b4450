"""Direction fields: where samples are to go, by residuals of denoisers at noised samples, pulled back to their maker.

    g = sum_j k_j (x - D_j(alpha x + sigma eps, t, c_j)),      L = 1/2 mean (x - sg(x - g))^2

The gradient of L in x is g / d, so that of whatever made x is its Jacobian's transpose times g: a generator's weights,
the parameters of a scene, or particles themselves. With a teacher of k = 1 and a critic of k = -1, which denoises what
is generated, g is proportional to the gradient of the divergence KL(generated | teacher's) at noise level t; the
teacher alone is score distillation sampling.   arXiv:2209.14988, arXiv:2305.16213, arXiv:2311.18828
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import Array
from jax.lax import stop_gradient
from jax.tree_util import Partial

from diffjax import keys
from diffjax.contracts import Cond, Data, KeyBatch, Params
from diffjax.dtypes import widened
from diffjax.errors import InputError
from diffjax.fewstep.pairs import Ladder
from diffjax.losses.times import TimeLaw
from diffjax.prediction import Denoise
from diffjax.process import Process, expand

__all__ = ['Field', 'denoised', 'direction', 'matched', 'mean_size', 'pull_back', 'ranks', 'residual']

Loss = Callable[[dict[str, Any], Any, Array], tuple[Array, dict[str, Array]]]
Made = Callable[[Params, KeyBatch], tuple[Data, Cond]]


class Field(NamedTuple):
  """One term of a direction: k (x - D(alpha x + sigma eps, t, cond)); k a number or (B,)."""

  k: Any
  denoise: Denoise
  cond: Cond = None


def residual(denoise: Denoise, x: Array, eps: Array, t: Array, cond: Cond = None) -> Array:
  """What a denoiser would take away from samples, x - D(alpha x + sigma eps, t), like x; no gradient passes."""
  x = stop_gradient(x)
  return stop_gradient(x - denoise(denoise.process.perturb(x, eps, t), t, cond).x0)


def direction(fields: Sequence[Field], x: Array, eps: Array, t: Array) -> Array:
  """The sum of k (x - D(x_t, t)) over fields, all of them at one x_t = alpha x + sigma eps, like x."""
  return sum(expand(k, x) * residual(denoise, x, eps, t, cond) for k, denoise, cond in fields)  # type: ignore[return-value]


def pull_back(x: Array, g: Array) -> Array:
  """1/2 mean (x - sg(x - g))^2 over the dimensions of an example, (B,), whose gradient in x is g / d."""
  return 0.5 * jnp.mean((x - stop_gradient(x - g)) ** 2, axis=tuple(range(1, x.ndim)))


def mean_size(x: Array) -> Array:
  """The mean absolute value over the dimensions of an example, (B,), at least 1e-5: what a direction is divided by."""
  return jnp.maximum(jnp.mean(jnp.abs(x), axis=tuple(range(1, x.ndim))), 1e-5)


def matched(
  make: Made,
  fields: Callable[[Mapping[str, Any], Cond], Sequence[Field]],
  process: Process,
  times: Callable[[Process, KeyBatch], Array],
  *,
  normalised: bool = True,
  weigh: Callable[..., Array] | None = None,
  also: Callable[..., Array] | None = None,
  role: str = 'student',
) -> Loss:
  """The loss of `role` whose gradient carries what it makes along a direction field.

  The data of a batch are not read, only how many rows it has.

  Args:
    make: (the role's params, keys) -> (x, cond).
    fields: (roles, cond) -> the fields, the teacher's first.
    process: by which samples are noised.
    times: the law of t.
    normalised: whether an example's direction is divided by mean |x - D| of the first field, arXiv:2311.18828 eq. 8.
    weigh: (roles, x_t, t, cond) -> what an example's direction is multiplied by, (B,).
    also: (roles, batch, x, cond, keys) -> what is added, (B,), another loss of the same samples.
    role: what is moved.
  """

  def loss(roles: dict[str, Any], batch: Any, key: Array) -> tuple[Array, dict[str, Array]]:
    k_make, k_t, k_eps = keys.split(keys.per_sample(key, rows(batch)), 3)
    x, cond = make(roles[role], k_make)
    x = widened(x)
    t, eps = times(process, k_t), keys.normal(k_eps, x)
    asked = fields(roles, cond)
    parts = [residual(field.denoise, x, eps, t, field.cond) for field in asked]
    g: Any = sum(expand(field.k, part) * part for field, part in zip(asked, parts, strict=True))
    if normalised:
      g = expand(1 / mean_size(parts[0]), g) * g
    if weigh is not None:
      x_t = process.perturb(stop_gradient(x), eps, t)
      g = expand(stop_gradient(weigh(roles, x_t, t, cond)), g) * g
    values = pull_back(x, g)
    aux = {'t': t, 'error': 2 * values}
    if also is None:
      return values, aux
    extra = also(roles, batch, x, cond, keys.fold(k_eps, 1))
    return values + extra, {**aux, 'also': extra}

  return loss


def denoised(make: Made, loss: Loss, role: str = 'student', weigh: Callable[[Cond], Array] | None = None) -> Loss:
  """A loss on what `role` makes, stopped, in place of the data: how a critic learns what is generated.

  Args:
    make: (the role's params, keys) -> (x, cond).
    loss: of another role, on {'x', 'cond'}, such as `losses.denoising(..., role='critic')`.
    role: who makes.
    weigh: the condition -> the weight of an example, (B,).
  """

  def of_made(roles: dict[str, Any], batch: Any, key: Array) -> tuple[Array, dict[str, Array]]:
    k_make, k_loss = keys.split(keys.per_sample(key, rows(batch)), 2)
    x, cond = stop_gradient(make(roles[role], k_make))
    values, aux = loss(roles, {'x': x} if cond is None else {'x': x, 'cond': cond}, k_loss)
    return values if weigh is None else weigh(cond) * values, aux

  return of_made


def ranks(low: float = 0.02, high: float = 0.98, rho: float = 7.0) -> TimeLaw:
  """The law of t whose rank on EDM's ladder, (sigma / alpha)^(1/rho) from t_min to t_max, is even on [low, high].

  arXiv:2405.14867 app. D

  Raises:
    InputError: low and high are no part of [0, 1], or rho is not positive.
  """
  if not (0 <= low < high <= 1 and rho > 0):
    raise InputError(f'low, high, rho: got {low}, {high}, {rho}; allowed: 0 <= low < high <= 1 and a positive rho')
  numbers = tuple(jnp.asarray(n, float) for n in (low, high, rho))
  return TimeLaw(Partial(_of_rank, *numbers), Partial(_rank_density, *numbers))


def _of_rank(low: Array, high: Array, rho: Array, process: Process, u: Array) -> Array:
  return Ladder(process, rho)(low + u * (high - low))  # type: ignore[arg-type]


def _rank_density(low: Array, high: Array, rho: Array, process: Process, t: Array) -> Array:
  first, last = Ladder(process, rho).ends()  # type: ignore[arg-type]
  level = jnp.exp(-process.lam(t) / rho)
  slope = process.g2(t) / (2 * process.schedule(t)[1] ** 2) / rho * level / (last - first)  # of the rank in t
  rank = (level - first) / (last - first)
  return jnp.where((rank >= low) & (rank <= high), slope / (high - low), 0.0)


def rows(batch: Any) -> int:
  """The number of rows of a batch, all that data-free methods ask of one."""
  return jax.tree.leaves(batch)[0].shape[0]
