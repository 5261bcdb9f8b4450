"""One step of training for every method: each active phase moves its role, and what averages that role follows.

keys  = per_sample(fold_in(fold_in(state.key, step), phase), B)        the draws of sample k know no mesh, no microbatch
grad  = d/d roles[role]  mean over B of loss(roles, batch, keys)
buffers = renew(roles, buffers, batch, key)     before the phases
roles[role], opt[phase]  = optimiser(grad)      unless loss or |grad| is not finite: then nothing of the phase moves
"""

import contextlib
import math
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax import Array

from diffjax import keys
from diffjax.errors import InputError
from diffjax.train import compiler
from diffjax.train import meter as meters
from diffjax.train.ema import Average, update
from diffjax.train.roles import Copy, Method, Phase, TrainState, active_phases
from diffjax.train.rules import Layout

__all__ = ['init_state', 'jit_train_step', 'make_train_step']

BUFFERS = 2**16  # the first of the numbers with which keys of buffers are folded; those below are the phases'
Step = Callable[[TrainState, Any, tuple[int, ...]], tuple[TrainState, dict[str, Array]]]


class Moved(NamedTuple):
  """What one phase's update moves, all of it or, where the update is not finite, none of it."""

  params: Any
  opt: Any
  averages: dict[str, Any]
  """Name of the average -> params, of the phase's role."""
  followers: dict[str, Any]
  """Role -> params, of the copies that follow the phase's role."""


def init_state(
  method: Method,
  roles: Mapping[str, Any],
  key: Array,
  batch: Any,
  ema: Sequence[Average] = (),
  *,
  time_bins: meters.TimeBins | None = None,
) -> TrainState:
  """The state before the first step, to be called inside jit so that copies are copies.

  Args:
    method: the roles, phases and copies that are trained.
    roles: role -> params, without the method's copies.
    key: a typed key.
    batch: arrays or shapes of one (micro)batch; only tells what the losses report.
    ema: the averages kept of `method.averaged`.
    time_bins: t -> [0, 1] for the loss by time bin; t itself by default.

  Raises:
    InputError: a phase, a copy or an average of a role that nobody gives.
  """
  roles = dict(roles)
  for role, made in method.copied.items():
    _known(roles, made.source, f'copies.{role}')
    roles[role] = jax.tree.map(jnp.copy, made.of(roles[made.source]))
  for role in method.loads:
    _known(roles, role, 'loads')
  for phase in method.phases:
    _known(roles, phase.role, 'phase')
  for role in method.averaged:
    _known(roles, role, 'averaged')

  buffers = {
    name: buffer.init(jax.random.fold_in(key, BUFFERS + i)) for i, (name, buffer) in enumerate(method.buffers.items())
  }

  def summary(phase: Phase, batch: Any) -> dict[str, Array]:
    size = jax.tree.leaves(batch)[0].shape[0]
    return {
      **meters.summarise(*phase.loss({**roles, **buffers}, batch, keys.per_sample(key, size)), time_bins),
      'grad_norm': jnp.zeros(()),
    }

  float32 = lambda tree: jax.tree.map(lambda p: jnp.array(p, jnp.float32), tree)  # noqa: E731
  zero = jnp.zeros((), jnp.int32)
  shapes = {phase.name: jax.eval_shape(partial(summary, phase), batch) for phase in method.phases}
  return TrainState(
    step=zero,
    roles=roles,
    opt={phase.name: phase.optimiser.init(roles[phase.role]) for phase in method.phases},
    ema={role: {average.name: float32(roles[role]) for average in ema} for role in method.averaged},
    key=key,
    skipped=zero,
    skipped_in_a_row=zero,
    meter=meters.blank(shapes),
    buffers=buffers,
  )


def make_train_step(
  method: Method, ema: Sequence[Average] = (), *, accumulate: int = 1, time_bins: meters.TimeBins | None = None
) -> Step:
  """Makes the pure training step of a method: each active phase moves its role.

  step(state, batch, active) -> (state, signals), pure; `active` is static and comes from `active_phases`.

  Args:
    method: the roles, phases and copies that are trained.
    ema: the averages kept of `method.averaged`.
    accumulate: microbatches a step. The mean gradient is that of the whole batch, and so is every draw.
    time_bins: t -> [0, 1] for the loss by time bin; t itself by default.

  Returns:
    signals: 'loss' of the first active phase; 'skipped_in_a_row', the steps skipped one after another up to now.
  """

  def step(state: TrainState, batch: Any, active: tuple[int, ...]) -> tuple[TrainState, dict[str, Array]]:
    now = jax.random.fold_in(state.key, state.step)
    roles, opt, averages, meter = dict(state.roles), dict(state.opt), dict(state.ema), dict(state.meter)
    buffers = _renewed(method, state, batch, now)
    all_finite, first_loss = jnp.asarray(True), None
    for index in active:
      phase = method.phases[index]
      last = not any(method.phases[later].role == phase.role for later in active if later > index)
      grads, summary = gradient(
        phase, {**roles, **buffers}, batch, jax.random.fold_in(now, index), accumulate, time_bins
      )
      summary['grad_norm'] = norm(grads)
      finite = jnp.isfinite(summary['loss']) & jnp.isfinite(summary['grad_norm'])
      moved = Moved(
        params=roles[phase.role],
        opt=opt[phase.name],
        averages=averages.get(phase.role, {}) if last else {},
        followers={role: roles[role] for role, made in method.copied.items() if _follows(made, phase.role) and last},
      )
      update_all = partial(_update_all, method, phase, ema, _moves(method, phase.role, state.step))
      moved = _guarded(finite, update_all, moved, grads)
      roles[phase.role], opt[phase.name] = moved.params, moved.opt
      roles.update(moved.followers)
      if moved.averages:
        averages[phase.role] = moved.averages
      meter[phase.name] = meters.add(meter[phase.name], summary, finite)
      all_finite, first_loss = all_finite & finite, summary['loss'] if first_loss is None else first_loss
    in_a_row = jnp.where(all_finite, 0, state.skipped_in_a_row + 1)
    state = state.replace(
      step=state.step + 1,
      roles=roles,
      opt=opt,
      ema=averages,
      skipped=state.skipped + jnp.where(all_finite, 0, 1),
      skipped_in_a_row=in_a_row,
      meter=meter,
      buffers=buffers,
    )
    loss = jnp.asarray(jnp.nan) if first_loss is None else first_loss
    return state, dict(loss=loss, skipped_in_a_row=jnp.array(in_a_row))

  return step


def jit_train_step(
  method: Method,
  target: TrainState,
  ema: Sequence[Average] = (),
  *,
  accumulate: int = 1,
  time_bins: meters.TimeBins | None = None,
  layout: Layout | None = None,
  options: dict[str, Any] | None = None,
) -> Any:
  """Compiles the training step of a method, with the state donated and left where it lies.

  `make_train_step` under jit: `active` static, the state donated and left on the shardings of `target`.

  Args:
    method: the roles, phases and copies that are trained.
    target: the state's shapes with their shardings.
    ema: the averages kept of `method.averaged`.
    accumulate: microbatches a step.
    time_bins: t -> [0, 1] for the loss by time bin; t itself by default.
    layout: where features lie while the step is computed; left to XLA where None.
    options: of the compiler, in place of those of `compiler.training`.
  """
  where = jax.tree.map(lambda leaf: leaf.sharding, target)
  mesh = jax.tree.leaves(where)[0].mesh
  move = make_train_step(method, ema, accumulate=accumulate, time_bins=time_bins)

  def step(state: TrainState, batch: Any, active: tuple[int, ...]) -> tuple[TrainState, dict[str, Array]]:
    with layout.activations(mesh) if layout else contextlib.nullcontext():
      return move(state, batch, active)

  options = compiler.training() if options is None else options
  return jax.jit(step, static_argnums=2, donate_argnums=0, out_shardings=(where, None), compiler_options=options)


def gradient(
  phase: Phase, roles: Mapping[str, Any], batch: Any, key: Array, accumulate: int, time_bins: meters.TimeBins | None
) -> tuple[Any, dict[str, Array]]:
  """The gradient of the mean loss in the phase's role, float32 sums over microbatches, and what is logged of it.

  Microbatch j holds the rows j, j + k, j + 2k, ...: those lie evenly on the devices that share the batch.
  """
  size = jax.tree.leaves(batch)[0].shape[0]
  rows = keys.per_sample(key, size)

  def of(batch: Any, rows: Array) -> tuple[Any, dict[str, Array]]:
    def objective(params: Any) -> tuple[Array, tuple[Array, dict]]:
      values, aux = phase.loss({**roles, phase.role: params}, batch, rows)
      return jnp.mean(values.astype(jnp.float32)), (values, aux)

    grads, (values, aux) = jax.grad(objective, has_aux=True)(roles[phase.role])
    return grads, meters.summarise(values, aux, time_bins)

  if accumulate == 1:
    return of(batch, rows)
  if size % accumulate:
    raise InputError(f'batch: got {size} rows; allowed: a multiple of accumulate = {accumulate}')
  stack = lambda x: jnp.swapaxes(x.reshape(size // accumulate, accumulate, *x.shape[1:]), 0, 1)  # noqa: E731
  parts = jax.tree.map(stack, (batch, rows))

  def add(total: Any, part: Any) -> tuple[Any, None]:
    return jax.tree.map(lambda a, b: a + b.astype(a.dtype), total, of(*part)), None

  shapes = jax.eval_shape(of, *jax.tree.map(lambda x: x[0], parts))
  total = jax.tree.map(lambda s: jnp.zeros(s.shape, jnp.float32), shapes)
  (grads, summary), _ = jax.lax.scan(add, total, parts)
  grads = jax.tree.map(lambda g, s: (g / accumulate).astype(s.dtype), grads, shapes[0])
  return grads, {name: v if name.startswith('bin_') else v / accumulate for name, v in summary.items()}


def _renewed(method: Method, state: TrainState, batch: Any, key: Array) -> dict[str, Any]:
  """The buffers after this step's renewal, one after another; each that is not finite stays as it was."""
  kept = dict(state.buffers)
  for i, (name, buffer) in enumerate(method.buffers.items()):
    new = buffer.renew({**state.roles, **kept}, kept[name], batch, jax.random.fold_in(key, BUFFERS + i))
    floats = [leaf for leaf in jax.tree.leaves(new) if jnp.issubdtype(leaf.dtype, jnp.floating)]
    finite = jnp.all(jnp.stack([jnp.all(jnp.isfinite(leaf)) for leaf in floats] or [jnp.asarray(True)]))
    kept[name] = jax.tree.map(partial(jnp.where, finite), new, kept[name])
  return kept


def norm(tree: Any) -> Array:
  """The Euclidean norm of all leaves together, float32."""
  return jnp.sqrt(sum(jnp.sum(jnp.square(leaf.astype(jnp.float32))) for leaf in jax.tree.leaves(tree)))


def _guarded(finite: Array, update_all: Callable[[Moved, Any], Moved], moved: Moved, grads: Any) -> Moved:
  """update_all(moved, grads) if finite, else moved.

  CUDA selects: XLA fuses that with the optimiser's pass over the weights, where a branch is a pass of its own and waits
  for the host. Elsewhere it is a branch: XLA for CPU copies the moments before it selects (18% of a small step).
  """
  update_all = jax.jit(update_all, inline=True)  # traced once for both

  def branch(moved: Moved, grads: Any) -> Moved:
    return jax.lax.cond(finite, update_all, lambda moved, grads: moved, moved, grads)

  def select(moved: Moved, grads: Any) -> Moved:
    return jax.tree.map(partial(jax.lax.select, finite), update_all(moved, grads), moved)

  return jax.lax.platform_dependent(moved, grads, cuda=select, default=branch)


def _update_all(method: Method, phase: Phase, ema: Sequence[Average], count: Array, moved: Moved, grads: Any) -> Moved:
  """Parameters, optimiser, averages and following copies after update number `count`."""
  updates, opt = phase.optimiser.update(grads, moved.opt, moved.params)
  params = optax.apply_updates(moved.params, updates)
  held = [average for average in ema if average.name in moved.averages]
  averages = {average.name: update(average, moved.averages[average.name], params, count) for average in held}
  rates = {role: method.copied[role].average for role in moved.followers}
  followers = {role: update(rates[role], copy, params, count) for role, copy in moved.followers.items()}
  return Moved(params, opt, averages, followers)


def _moves(method: Method, role: str, step: Array) -> Array:
  """The number of steps up to this one, itself included, in which some phase moves the role."""
  period = math.lcm(*(phase.every for phase in method.phases if phase.role == role))
  due = [any(method.phases[i].role == role for i in active_phases(method, s)) for s in range(period)]
  so_far = np.cumsum(due)
  return step // period * int(so_far[-1]) + jnp.asarray(so_far, jnp.int32)[step % period]


def _follows(made: Copy, role: str) -> bool:
  return made.average is not None and made.source == role


def _known(roles: Mapping[str, Any], role: str, field: str) -> None:
  if role not in roles:
    raise InputError(f'{field}: got the role {role!r}; allowed: {", ".join(sorted(roles))}')
