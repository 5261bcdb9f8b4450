"""The denoising loss: draw a time and noise, ask the network, weigh its squared error."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import Array

from diffjax import keys
from diffjax.contracts import Cond, Data
from diffjax.dtypes import widened
from diffjax.errors import InputError
from diffjax.kinds import Kind, as_kind
from diffjax.losses.couplings import Coupling, independent
from diffjax.losses.times import TimeLaw, uniform
from diffjax.losses.uncertainty import balanced, log_level
from diffjax.losses.weights import unit
from diffjax.prediction import Net, apply_net, target
from diffjax.process import Process, expand

__all__ = ['denoising']

Loss = Callable[[dict[str, Any], dict[str, Any], Array], tuple[Array, dict[str, Array]]]


def denoising(
  process: Process,
  net: Net,
  kind: str | Kind = 'v',
  *,
  times: TimeLaw | None = None,
  weight: Callable | None = None,
  drop_cond: float = 0.0,
  corrupt: float = 0.0,
  null: Cond = None,
  given: tuple[str, ...] = (),
  uncertainty: bool = False,
  coupling: Coupling | None = None,
  role: str = 'student',
) -> Loss:
  """The weighted squared error of the network's output against its target at a random noise level.

  E w(t) mean |net(x_t, t) - target(x0, eps, t)|^2, one value an example.   arXiv:2011.13456 eq. 7

  The loss takes (roles, batch, key): roles[role] the parameters, batch['x'] (B, ...), batch['cond'] if there
  are conditions, batch['augment'] (B, 9) if the images were augmented, a key or one a sample. The network is then told
  {'label': cond, 'augment': augment}, of which only the label is ever dropped, and so with what is `given`. Values are
  float32 or wider, whatever the dtype of the network: the mean over the data dimensions of an example (summed over
  modalities when x is a pytree). The second result holds the times 't' and the unweighted 'error', (B,) each.

  Args:
    process: the forward process.
    net: the network, (params, x, t, cond, key) -> out.
    kind: what the network's output means, a name or a `Kind`.
    times: the law of t, `diffjax.losses.times`; None is uniform on [t_min, t_max].
    weight: (process, kind, t, density) -> (B,), `diffjax.losses.weights`; None is 1.
    drop_cond: the probability with which an example's condition becomes `null`, for guidance.   arXiv:2207.12598
    corrupt: the probability with which a label becomes any other, each as often: the model of a class is then
      (1 - corrupt) p(x | c) + corrupt p(x) where classes are equally many.   arXiv:2405.20494
    null: the condition that means none, for example the number of classes; a pytree like the conditions.
    given: what else of a batch, by name, the network is told of an example: 'source', x is made from it; 'mask'.
    uncertainty: values are e^-u L + u with a learned u(t), see `diffjax.losses.uncertainty`; u is in the second result.
    coupling: which noise an example has, `diffjax.losses.couplings`; None is independent.
    role: whose parameters the network has.

  Raises:
    InputError: an unknown kind, a probability outside [0, 1], no `null` to drop to, or a coupling that labels forbid.
  """
  kind, times, weight, coupling = as_kind(kind), times or uniform(), weight or unit(), coupling or independent()
  check_drop(drop_cond, null)
  check_corrupt(corrupt, null)
  coupling.check(null is not None)

  def loss(roles: dict[str, Any], batch: dict[str, Any], key: Array) -> tuple[Array, dict[str, Array]]:
    x0, eps, t, cond, k_net = started(process, times, batch, key, drop_cond, null, coupling, given, corrupt)
    out = apply_net(net, roles[role], process, kind, process.perturb(x0, eps, t), t, cond=cond, key=k_net)
    error = mean_square(out, target(process, kind, x0, eps, t))
    values, aux = weight(process, kind, t, times.density(process, t)) * error, {'t': t, 'error': error}
    if uncertainty:
      aux['uncertainty'] = log_level(roles[role], process, t, role)
      values = balanced(values, aux['uncertainty'])
    return values, aux

  return loss


def check_corrupt(corrupt: float, null: Cond) -> None:
  """Raises InputError for a probability outside [0, 1], or conditions that are no labels."""
  if not 0 <= corrupt <= 1:
    raise InputError(f'corrupt: got {corrupt}; allowed: a probability in [0, 1]')
  if corrupt and (null is None or jnp.shape(null) != ()):
    raise InputError(f'corrupt: got {corrupt}; allowed: 0 without labels, whose number is null')


class Start(NamedTuple):
  """What a loss at a random noise level begins with: data, noise, times (B,), what the network is told, its keys."""

  x0: Data
  eps: Data
  t: Array
  cond: Cond
  key: Array


def check_drop(drop_cond: float, null: Cond) -> None:
  """Raises InputError for a probability outside [0, 1], or no `null` to drop to."""
  if not 0 <= drop_cond <= 1:
    raise InputError(f'drop_cond: got {drop_cond}; allowed: a probability in [0, 1]')
  if drop_cond and null is None:
    raise InputError(f'null: got None with drop_cond = {drop_cond}; allowed: the condition that means none')


def started(
  process: Process,
  times: TimeLaw,
  batch: dict[str, Any],
  key: Array,
  drop_cond: float = 0.0,
  null: Cond = None,
  coupling: Coupling | None = None,
  given: tuple[str, ...] = (),
  corrupt: float = 0.0,
) -> Start:
  """The draws of `denoising`, from one key or one a sample."""
  x0 = jax.tree.map(widened, batch['x'])
  key = keys.per_sample(key, jax.tree.leaves(x0)[0].shape[0])
  k_t, k_eps, k_drop, k_net = keys.split(key, 4)
  eps, cond = keys.normal(k_eps, x0), batch.get('cond')
  if coupling is not None:
    eps = coupling(x0, eps, cond)
  if corrupt and cond is not None:
    chosen, drawn = keys.split(keys.fold(k_drop, 1), 2)
    other = jnp.floor(keys.uniform(drawn) * jnp.asarray(null)).astype(cond.dtype)
    cond = jnp.where(keys.bernoulli(chosen, corrupt), other, cond)
  if drop_cond and cond is not None:
    cond = _without(cond, null, keys.bernoulli(k_drop, drop_cond))
  besides = (*given, *(('augment',) if 'augment' in batch else ()))
  if besides:
    cond = {'label': cond, **{name: batch[name] for name in besides}}
  return Start(x0, eps, times(process, k_t), cond, k_net)


def _without(cond: Cond, null: Cond, dropped: Array) -> Any:
  """`null` where `dropped` (B,), else the condition."""
  return jax.tree.map(lambda c, n: jnp.where(expand(dropped, c), jnp.asarray(n, c.dtype), c), cond, null)


def mean_square(out: Data, target: Any) -> Array:
  """The mean square error over the dimensions of an example, summed over modalities, (B,)."""

  def one(out: Array, target: Array) -> Array:
    return jnp.mean((widened(out) - target) ** 2, axis=tuple(range(1, out.ndim)))

  return jax.tree.reduce(jnp.add, jax.tree.map(one, out, target))
