"""The objectives of flow maps: a jump agrees with itself where two of its ways lead to one point.

start    J(x_t, t -> s)   against   sg J'(Phi(x_t, t -> u), u -> s)        Phi a segment, J' the target's weights
end      J(x_t, t -> s)   against   sg Phi(J'(x_t, t -> u), u -> s)
jvp      the limit u -> t of start: the total derivative dJ/dt along the flow is zero

Each is a `Loss` of the student's role; the target is stopped, whatever its role.   arXiv:2303.01469, arXiv:2310.02279,
arXiv:2405.16852 sec. 3
"""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import Array
from jax.lax import stop_gradient

from diffjax import keys
from diffjax.contracts import Cond, KeyBatch
from diffjax.dtypes import widened
from diffjax.fewstep.distances import Distance
from diffjax.fewstep.jumps import Jump
from diffjax.fewstep.pairs import Law, Times
from diffjax.fewstep.segments import Point, Segment
from diffjax.process import Process, expand
from diffjax.train.roles import Buffer

__all__ = ['PROGRESS', 'Ends', 'added', 'ends', 'flow_map', 'flow_map_end', 'flow_map_jvp', 'inverse_gap',
           'inverse_span', 'noised', 'progress', 'pure_noise', 'rows_split', 'total_derivative']  # fmt: skip

PROGRESS = 'progress'
Loss = Callable[[dict[str, Any], Any, Array], tuple[Array, dict[str, Array]]]
Weight = Callable[[Times], Array]
Start = Callable[[Process, Times, Any, KeyBatch], Point]
Project = Callable[[Mapping[str, Any], Array, Array, Cond, Any], Array]


def progress() -> Buffer:
  """The number of steps done, as data, so that a curriculum over it compiles once."""
  return Buffer(lambda key: jnp.asarray(-1, jnp.int32), lambda roles, done, batch, key: done + 1)


def noised(process: Process, at: Times, batch: Any, key_batch: KeyBatch) -> Point:
  """A batch's examples at the times t."""
  x0 = widened(batch['x'])
  eps = keys.normal(key_batch, x0)
  return Point(process.perturb(x0, eps, at.t), x0, eps, batch.get('cond'))


def pure_noise(process: Process, at: Times, batch: Any, key_batch: KeyBatch) -> Point:
  """Noise alone, sigma_t z; of a batch the number of examples, their shape and their conditions, never x itself."""
  z = keys.normal(key_batch, jax.ShapeDtypeStruct(batch['x'].shape, jnp.float32))
  return Point(expand(process.schedule(at.t)[1], z) * z, z, z, batch.get('cond'))


def drawn(
  process: Process, times: Law, roles: Mapping[str, Any], batch: Any, key: Array, start: Start = noised
) -> tuple[Times, Point, Array]:
  """The times, the points where jumps begin and the network's keys of a batch, each sample's from its own key."""
  key = keys.per_sample(key, batch['x'].shape[0])
  k_t, k_begin, k_net = keys.split(key, 3)
  at = times(process, jnp.asarray(roles.get(PROGRESS, 0)), k_t)
  return at, start(process, at, batch, k_begin)._replace(key=keys.fold(key, 7)), k_net


def flow_map(
  jump: Jump,
  times: Law,
  segment: Segment,
  *,
  distance: Distance,
  target: str = 'target',
  weight: Weight | None = None,
  project: Project | None = None,
) -> Loss:
  """The start form: a jump from x_t agrees with the target's jump from where a segment leads.

  w(t, u, s) d(P J(x_t, t -> s), sg P J'(x_u, u -> s)), x_u = Phi(x_t, t -> u).

  Args:
    jump: the student's network.
    times: the law of (t, u, s).
    segment: who carries x_t to x_u.
    distance: of the two ends.
    target: the role whose weights jump from x_u; 'student' for the student's own, stopped.
    weight: of an example; 1 unless given.
    project: (roles, x_s, s, cond, key) -> what is compared in place of x_s.
  """
  both = ends(jump, times, segment, target=target, project=project)

  def loss(roles: dict[str, Any], batch: Any, key: Array) -> tuple[Array, dict[str, Array]]:
    at, _, own, other = both(roles, batch, key)
    error = distance(own, other)
    return error if weight is None else weight(at) * error, {'t': at.t, 'error': error}

  return loss


class Ends(NamedTuple):
  """The times, the noised example, and what is compared: the student's end and the target's, the latter stopped."""

  at: Times
  point: Point
  own: Array
  other: Array


def ends(
  jump: Jump, times: Law, segment: Segment, *, target: str = 'target', project: Project | None = None
) -> Callable[[Mapping[str, Any], Any, Array], Ends]:
  """(roles, batch, key) -> the two ends that the start form compares; arguments as of `flow_map`."""

  def both(roles: Mapping[str, Any], batch: Any, key: Array) -> Ends:
    at, point, k_net = drawn(jump.process, times, roles, batch, key)
    shown = project or (lambda roles, x, s, cond, key: x)
    x_u = stop_gradient(segment(roles, point, at.t, at.u))
    other = stop_gradient(jump(roles[target], x_u, at.u, at.s, point.cond, k_net))
    own = jump(roles['student'], point.x, at.t, at.s, point.cond, k_net)
    other = stop_gradient(shown(roles, other, at.s, point.cond, k_net))
    return Ends(at, point, shown(roles, own, at.s, point.cond, k_net), other)

  return both


def flow_map_end(
  jump: Jump,
  times: Law,
  segment: Segment,
  *,
  distance: Distance,
  target: str = 'target',
  weight: Weight | None = None,
  start: Start = noised,
) -> Loss:
  """The end form: a jump agrees with a shorter one that a segment carries on.

  w(t, u, s) d(J(x_t, t -> s), sg Phi(J'(x_t, t -> u), u -> s)); `start` says what x_t is, the other arguments are those
  of `flow_map`.   arXiv:2306.05544
  """

  def loss(roles: dict[str, Any], batch: Any, key: Array) -> tuple[Array, dict[str, Array]]:
    at, point, k_net = drawn(jump.process, times, roles, batch, key, start)
    x_u = jump(roles[target], point.x, at.t, at.u, point.cond, k_net)
    other = stop_gradient(segment(roles, point._replace(x=x_u), at.u, at.s))
    error = distance(jump(roles['student'], point.x, at.t, at.s, point.cond, k_net), other)
    return error if weight is None else weight(at) * error, {'t': at.u, 'error': error}

  return loss


def total_derivative(f: Callable[[Array, Array], Any], x: Array, t: Array, slope: Array) -> tuple[Any, Any]:
  """f(x, t) and its derivative along dx/dt = slope, df/dt = (df/dx) slope + df/dt at x, by one jvp."""
  return jax.jvp(f, (x, t), (slope, jnp.ones_like(t)))


def flow_map_jvp(
  jump: Jump,
  times: Law,
  slope: Callable[[Mapping[str, Any], Point, Array], Array],
  correction: Callable[..., Array],
  *,
  distance: Distance,
  balance: Callable[[Mapping[str, Any], Array, Array], Array] | None = None,
) -> Loss:
  """The limit of the start form: the network's output is moved by a multiple of the jump's total derivative.

  d(out, sg(out + c)), c = correction(roles, jump, at, point, slope, x_s, dJ/dt).

  Args:
    jump: the student's network.
    times: the law of (t, t, s).
    slope: (roles, point, t) -> dx/dt along the flow.
    correction: what the output lacks, like x; zero exactly where dJ/dt is.
    distance: of the output and where it should be.
    balance: (roles, t, values) -> the values weighed; unweighed unless given.
  """

  def loss(roles: dict[str, Any], batch: Any, key: Array) -> tuple[Array, dict[str, Array]]:
    at, point, k_net = drawn(jump.process, times, roles, batch, key)
    dx = stop_gradient(slope(roles, point, at.t))

    def both(x: Array, t: Array) -> tuple[Array, Array]:
      out = jump.out(roles['student'], x, t, at.s, point.cond, k_net)
      return out, jump.land(x, out, t, at.s)

    (out, x_s), (_, d_jump) = total_derivative(both, point.x, at.t, dx)
    moved = stop_gradient(out + correction(roles, jump, at, point, dx, x_s, d_jump))
    error = distance(out, moved)
    return error if balance is None else balance(roles, at.t, error), {'t': at.t, 'error': error}

  return loss


def rows_split(first: Loss, second: Loss, share: float) -> Loss:
  """The first loss on the first `share` of a batch's rows, at least one, and the second on the others."""

  def loss(roles: dict[str, Any], batch: Any, key: Array) -> tuple[Array, dict[str, Array]]:
    size = jax.tree.leaves(batch)[0].shape[0]
    key, cut = keys.per_sample(key, size), min(max(round(share * size), 1), size - 1)
    one = first(roles, jax.tree.map(lambda leaf: leaf[:cut], batch), key[:cut])
    other = second(roles, jax.tree.map(lambda leaf: leaf[cut:], batch), key[cut:])
    return jax.tree.map(lambda a, b: jnp.concatenate([a, b]), one, other)

  return loss


def added(
  first: Loss,
  second: Loss,
  *,
  name: str,
  most: float,
  least: float = 0.0,
  leaf: str = '',
  start: int = 0,
  own: bool = True,
) -> Loss:
  """The sum first + lam second, lam = |grad first| / |grad second| in the student's last layer, cut off at its ends.

  Both gradients are of `roles['student'][leaf]` alone, so that they cost no backward pass through the network.
  arXiv:2310.02279 eq. 13

  Args:
    first: the loss that leads.
    second: the other.
    name: of the second in the log.
    most: that lam may be.
    least: that lam may be.
    leaf: the last layer; without one lam is `most`.
    start: the step before which lam is 0; where it is not 0 a method keeps `progress()`.
    own: whether the second draws times and noise of its own.
  """

  def loss(roles: dict[str, Any], batch: Any, key: Array) -> tuple[Array, dict[str, Array]]:
    key = keys.per_sample(key, len(batch['x']))
    key_2 = keys.fold(key, 1) if own else key

    def size(term: Loss, key: Array) -> Array:
      def of(last: Any) -> Array:
        return jnp.mean(term({**roles, 'student': {**roles['student'], leaf: last}}, batch, key)[0])

      grads = jax.grad(of)(roles['student'][leaf])
      return jnp.sqrt(sum(jnp.sum(g.astype(jnp.float32) ** 2) for g in jax.tree.leaves(grads)))

    lam = jnp.asarray(most, jnp.float32)
    if leaf:
      lam = stop_gradient(jnp.clip(size(first, key) / (size(second, key_2) + 1e-4), least, most))
    (one, aux), (two, _) = first(roles, batch, key), second(roles, batch, key_2)
    if start:
      lam = jnp.where(roles[PROGRESS] >= start, lam, 0)
    return one + lam * two, {**aux, name: two, f'{name}_weight': jnp.full_like(two, lam)}

  return loss


def inverse_gap(at: Times) -> Array:
  """The weight 1 / (t - u), which grows as neighbours come closer.

  arXiv:2310.14189 sec. 3.2
  """
  return 1 / (at.t - at.u)


def inverse_span(at: Times) -> Array:
  """Makes a square distance of end points one of mean velocities, 1 / (t - s)^2."""
  return 1 / (at.t - at.s) ** 2
