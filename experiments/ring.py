"""The closed-form bench of few-step methods: a ring of eight unequal modes, a run of any method on it, its figures.

Modes at radius 1, deviation .1, weights (k + 1) / 36; EDM's process runs from .01 to 10. The ring is the data and,
unless another is given, the teacher too.
"""

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from diffjax import exact, keys, kinds, nets, schedules
from diffjax.exact import Mixture
from diffjax.methods import Parts, Sampling, Source
from diffjax.nets import Apply
from diffjax.process import Process
from diffjax.solvers import grids
from diffjax.train.ema import constant
from diffjax.train.optimiser import adam
from diffjax.train.roles import Method, TrainState, active_phases
from diffjax.train.step import init_state, make_train_step

__all__ = ['STD', 'Figures', 'closed', 'drawn', 'edm', 'even', 'figures', 'parts', 'ring', 'state_of', 'trained']

STD = 0.714  # of the ring, a coordinate
AXES = np.pi * np.arange(256) / 256
WAYS = np.stack([np.cos(AXES), np.sin(AXES)])
OFF = 0.4  # four deviations of a mode


class Figures(NamedTuple):
  """How far samples are from a target.

  sw: root of the mean over 256 directions of the projections' squared W2; .017 for data against data at n = 20000.
  tv: total variation between the shares of the nearest modes and the weights; floor .005.
  off: the share farther than .4 from every mode; floor .0003.
  """

  sw: float
  tv: float
  off: float


def ring(labels: Any = None) -> Mixture:
  """The target; every mode is its own class unless `labels` (8,) say otherwise."""
  angle = 2 * np.pi * np.arange(8) / 8
  return exact.mixture(np.arange(1, 9) / 36, np.stack([np.cos(angle), np.sin(angle)], 1), np.full(8, 0.01), labels)


def edm() -> Process:
  return schedules.edm(sigma_min=0.01, sigma_max=10.0)


def even(n: int, process: Process | None = None) -> tuple[float, ...]:
  """N times, even, of rectified flow unless another process is given; without the 0 at the end."""
  return tuple(np.asarray(grids.uniform(process or schedules.flow(), n)[:-1]))


def closed(target: Mixture, process: Process, classes: int = 0, name: str = 'ring') -> Source:
  """The closed form as a teacher."""
  return Source(name, process, target.means.shape[1:], classes, (), lambda _: target.denoiser(process))


def parts(
  target: Mixture,
  process: Process,
  kind: Any,
  *,
  net: Apply | None = None,
  steps: int = 5000,
  rate: float = 1e-3,
  classes: int = 0,
  **changes: Any,
) -> Parts:
  """What a config would make: Adam with a cosine to 5%, by default a network of 3 x 128; `changes` are of `Parts`."""
  net = nets.mlp(width=128, depth=3, classes=classes) if net is None else net
  made: dict[str, Any] = dict(
    process=process, kind=kinds.as_kind(kind), net=net, shape=target.means.shape[1:], classes=classes,
    loss=lambda *_: None, loss_options={}, steps=steps,
    optimiser=lambda n=steps: adam(n, rate, schedule='cosine', final_fraction=0.05, clip=0.0),
    teacher=closed(target, process, classes),
  )  # fmt: skip
  return Parts(**(made | changes))


def state_of(
  method: Method,
  seed: int = 0,
  batch: int = 8,
  dim: int = 2,
  ema: Sequence[Any] = (),
  *,
  given: Mapping[str, Any] | None = None,
  labelled: bool = False,
) -> TrainState:
  """The state before the first step; `given` are roles that the method loads."""
  like = {'x': jax.ShapeDtypeStruct((batch, dim), jnp.float32)}
  if labelled:
    like['cond'] = jax.ShapeDtypeStruct((batch,), jnp.int32)

  def begun(key: jax.Array) -> TrainState:
    roles = {**(method.init(key) if method.init else {}), **(given or {})}
    return init_state(method, roles, key, like, ema)

  return jax.jit(begun)(jax.random.key(seed))


def trained(
  method: Method,
  target: Mixture,
  steps: int,
  *,
  batch: int = 512,
  seed: int = 0,
  decay: float | None = 0.999,
  given: Mapping[str, Any] | None = None,
  labelled: bool = False,
) -> dict[str, Any]:
  """Roles and buffers after so many steps on fresh data, all in one program.

  The method's averaged roles are their averages of this decay, or the last weights where it is None. Every phase moves
  at its own steps. With `labelled` a batch has labels, of the weights' own law.
  """
  ema = () if decay is None else (constant(decay),)
  move: Any = make_train_step(method, ema)
  data = jax.random.key(seed + 1)
  due = [active_phases(method, i) for i in range(int(np.lcm.reduce([phase.every for phase in method.phases])))]
  sets = sorted(set(due))
  turns = jnp.asarray([sets.index(active) for active in due])
  moves = [partial(move, active=active) for active in sets]

  def drawn_batch(i: jax.Array) -> dict[str, jax.Array]:
    own = keys.per_sample(jax.random.fold_in(data, i), batch)
    if not labelled:
      return {'x': target.sample(own)}
    chosen = jax.vmap(lambda key: jax.random.categorical(key, target.log_weights))(keys.fold(own, 1))
    return {'x': target.sample(own, target.labels[chosen]), 'cond': target.labels[chosen]}

  def one(state: TrainState, i: jax.Array) -> tuple[TrainState, None]:
    now = drawn_batch(i)
    if len(moves) == 1:
      return moves[0](state, now)[0], None
    return jax.lax.switch(turns[i % len(due)], [lambda state, m=m: m(state, now)[0] for m in moves], state), None

  state = state_of(method, seed, batch, target.means.shape[1], ema, given=given, labelled=labelled)
  state = jax.jit(lambda state: jax.lax.scan(one, state, jnp.arange(steps))[0])(state)
  if int(state.skipped):
    raise FloatingPointError(f'{int(state.skipped)} of {steps} steps were not finite')
  averages = {role: kept[ema[0].name] for role, kept in state.ema.items()} if ema else {}
  return {**state.roles, **averages, **state.buffers}


def drawn(
  method: Method,
  roles: Mapping[str, Any],
  ts: Sequence[float],
  n: int = 20000,
  seed: int = 7,
  *,
  solver: Any = None,
  scale: float = 1.0,
  cond: Any = None,
) -> np.ndarray:
  """N samples on the grid of these times, which lack the 0 at the end; `solver` is for methods that draw by one."""
  grid: Any = np.append(ts, 0.0)
  sampling = Sampling(len(ts), lambda: grid, lambda: solver, lambda denoise: denoise, scale=scale)
  make: Any = method.generator
  draw = make(roles, sampling)
  return np.asarray(
    jax.jit(lambda draw, key, cond: draw(key, cond))(draw, keys.per_sample(jax.random.key(seed), n), cond)
  )


def figures(target: Mixture, x: Any, reference: Any = None, seed: int = 11) -> Figures:
  """The figures of samples x (n, 2) of a mixture; sw is to as many fresh draws of it unless a `reference` is given."""
  x = np.asarray(x)
  data = np.asarray(target.sample(keys.per_sample(jax.random.key(seed), len(x))) if reference is None else reference)
  sw = np.sqrt(np.mean((np.sort(x @ WAYS, 0) - np.sort(data @ WAYS, 0)) ** 2))
  apart = np.linalg.norm(x[:, None] - np.asarray(target.means), axis=-1)
  mass = np.bincount(apart.argmin(1), minlength=len(target.means)) / len(x)
  tv = 0.5 * np.abs(mass - np.exp(np.asarray(target.log_weights))).sum()
  return Figures(float(sw), float(tv), float(np.mean(apart.min(1) > OFF)))
