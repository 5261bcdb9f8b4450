"""Local regularisation: beside denoising, the error of one step of an adaptive solver at a random time.

A solver that controls its error takes long steps where one step errs little, so a network that is held to a small
error of one step needs fewer evaluations to be followed. The step is all that is added: neither a solver nor its
adjoint is differentiated.   arXiv:2303.02262
"""

from collections.abc import Callable
from typing import Any

import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.lax import stop_gradient

from diffjax import keys
from diffjax.contracts import Cond, Data
from diffjax.errors import InputError
from diffjax.kinds import Kind, as_kind
from diffjax.losses.denoising import Loss, denoising, started
from diffjax.losses.times import TimeLaw, uniform
from diffjax.prediction import Net, apply_net, predict
from diffjax.process import Process, expand

__all__ = ['locally_regularised', 'one_step', 'one_stochastic_step']

# Tsitouras' pair of orders 5 and 4, of which the last stage is the next step's first: doi:10.1016/j.camwa.2011.06.002
NODES = np.array([0.0, 0.161, 0.327, 0.9, 0.9800255409045097, 1.0, 1.0])
STAGES = (
  (),
  (0.161,),
  (-0.008480655492356989, 0.335480655492357),
  (2.8971530571054935, -6.359448489975075, 4.3622954328695815),
  (5.325864828439257, -11.748883564062828, 7.4955393428898365, -0.09249506636175525),
  (5.86145544294642, -12.92096931784711, 8.159367898576159, -0.071584973281401, -0.028269050394068383),
  (0.09646076681806523, 0.01, 0.4798896504144996, 1.379008574103742, -3.290069515436081, 2.324710524099774),
)
ERROR = np.array([
  -0.00178001105222577714, -0.0008164344596567469, 0.007880878010261995, -0.1447110071732629, 0.5823571654525552,
  -0.45808210592918697, 1 / 66,
])  # fmt: skip
STABLE = 3.5068  # where the region of stability of the pair ends, along the negative axis
DELTA = 1 / 6  # what the drift's part of the error of a stochastic step counts
MEASURES = ('error', 'stiffness', 'stochastic')


def locally_regularised(
  process: Process,
  net: Net,
  kind: str | Kind = 'velocity',
  *,
  penalty: float = 10.0,
  measure: str = 'error',
  length: float = 0.05,
  tolerance: float = 0.05,
  times: TimeLaw | None = None,
  weight: Callable | None = None,
  drop_cond: float = 0.0,
  null: Cond = None,
  role: str = 'student',
) -> Loss:
  """The denoising loss plus `penalty` times the local error of the network's own flow, or stiffness.

  The step starts at x_t of the loss itself, which has the law of the flow at t, and is not differentiated.

  Args:
    process: the forward process.
    net: (params, x, t, cond, key) -> out.
    kind: what its output means; one whose x0 is known at t_max.
    penalty: the published one falls from 100 to 10 over a run.
    measure: 'error' or 'stiffness' of `one_step`, or 'stochastic', the error of `one_stochastic_step`.
    length: of the step, of the whole time; shorter where less is left.
    tolerance: absolute and relative, of the error's scale; the larger the less small errors count.
    times: of both, `diffjax.losses.times`; None is uniform, under which the whole flow is regularised evenly.
    weight: of `denoising`, as are the next ones.
    drop_cond: see there.
    null: see there.
    role: whose parameters the network has.

  Raises:
    InputError: another measure, numbers that are not positive, and what `denoising` refuses.
  """
  kind, times = as_kind(kind), times or uniform()
  if measure not in MEASURES:
    raise InputError(f'measure: got {measure!r}; allowed: {", ".join(MEASURES)}')
  for field, value in (('penalty', penalty), ('length', length), ('tolerance', tolerance)):
    if not value > 0:
      raise InputError(f'{field}: got {value}; allowed: a positive number')
  task = denoising(process, net, kind, times=times, weight=weight, drop_cond=drop_cond, null=null, role=role)

  def loss(roles: dict[str, Any], batch: dict[str, Any], key: Array) -> tuple[Array, dict[str, Array]]:
    own = keys.per_sample(key, len(batch['x']))
    values, aux = task(roles, batch, own)
    x0, eps, t, cond, k_net = started(process, times, batch, own, drop_cond, null)  # the draws of the task
    x, h = stop_gradient(process.perturb(x0, eps, t)), -jnp.minimum(length * process.t_max, t)

    def pair(x: Data, t: Array) -> Any:
      return predict(process, kind, x, t, apply_net(net, roles[role], process, kind, x, t, cond=cond))

    def velocity(x: Data, t: Array) -> Any:
      pred = pair(x, t)
      return process.velocity(pred.x0, pred.eps, t)

    def drift(x: Data, t: Array) -> Any:
      pred = pair(x, t)
      half = process.g2(t) / (2 * process.schedule(t)[1])
      return process.velocity(pred.x0, pred.eps, t) + expand(half, x) * pred.eps

    if measure == 'stochastic':
      z = keys.normal(keys.fold(k_net, 1), x)
      found = one_stochastic_step(drift, lambda t: jnp.sqrt(process.g2(t)), x, t, h, z, tolerance)
    else:
      found = one_step(velocity, x, t, h, tolerance)[measure]
    return values + penalty * found, aux | {measure: found}

  return loss


def one_step(velocity: Callable, x: Array, t: Array, h: Array, tolerance: float = 0.05) -> dict[str, Array]:
  """One step of Tsitouras' pair from x (B, ...) at t (B,) over h (B,), which may be negative: its error and stiffness.

      error      |h| rms(h sum_i e_i k_i / (tolerance (1 + max(|x|, |x'|))))
      stiffness  |k_7 - k_6| / |x' - x_6| / 3.5068, both at the end of the step

  For x' = A x the first is a polynomial in h A and the second, in one dimension, |A| / 3.5068. Six evaluations.
  """
  slopes: list[Array] = []
  places: list[Array] = []
  for node, row in zip(NODES, STAGES, strict=True):
    place = x + expand(h, x) * sum((a * k for a, k in zip(row, slopes, strict=True)), jnp.zeros_like(x))
    places.append(place)
    slopes.append(velocity(place, t + node * h))
  error = expand(h, x) * sum((e * k for e, k in zip(ERROR, slopes, strict=True)), jnp.zeros_like(x))
  gap = _length(places[6] - places[5])
  return {
    'error': jnp.abs(h) * _scaled(error, x, places[6], tolerance),
    'stiffness': _length(slopes[6] - slopes[5]) / jnp.maximum(gap, jnp.finfo(x.dtype).tiny ** 0.5) / STABLE,
  }


def one_stochastic_step(
  drift: Callable, noise: Callable, x: Array, t: Array, h: Array, z: Array, tolerance: float = 0.05
) -> Array:
  """The error (B,) of one Heun step of dx = drift dt + noise(t) dw from x (B, ...) at t over h, z its normal draw.

  h rms(e),  e = (h (b(x', t') - b(x, t)) / 2 / 6 + sqrt|h| (noise(t') - noise(t)) z / 2) / scale,  x' Euler's
  """
  root = jnp.sqrt(jnp.abs(h))
  first = drift(x, t)
  ahead = x + expand(h, x) * first + expand(root * noise(t), x) * z
  moved = expand(h, x) * (drift(ahead, t + h) - first) / 2
  shaken = expand(root * (noise(t + h) - noise(t)), x) * z / 2
  return jnp.abs(h) * _scaled(DELTA * moved + shaken, x, ahead, tolerance)


def _scaled(error: Array, x: Array, ahead: Array, tolerance: float) -> Array:
  scale = tolerance * (1 + jnp.maximum(jnp.abs(x), jnp.abs(ahead)))
  return _length(error / scale) / np.sqrt(np.prod(x.shape[1:]))


def _length(x: Array) -> Array:
  """Of each row; its slope is 0 where it is 0."""
  square = jnp.sum(x.reshape(len(x), -1) ** 2, -1)
  inside = square > 0
  return jnp.where(inside, jnp.sqrt(jnp.where(inside, square, 1.0)), 0.0)
