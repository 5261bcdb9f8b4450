"""A whole run, the same for every method.

    mesh -> shapes of the state -> shardings -> jit(init) -> restore what is there -> steps -> save

The host only hands out steps: what is logged adds up on the device and is read a few steps late, so that the next step
is always waiting when one ends.
"""

import signal
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import TYPE_CHECKING, Any, NamedTuple

import jax
import jax.numpy as jnp
from etils import epath
from jax import Array
from jax.sharding import Mesh

from diffjax.paths import place
from diffjax.train import compiler
from diffjax.train import meter as meters
from diffjax.train import sharding as shardings
from diffjax.train.clock import Clock
from diffjax.train.ema import Average
from diffjax.train.log import Log
from diffjax.train.prefetch import Prefetch
from diffjax.train.roles import Given, Method, TrainState, active_phases
from diffjax.train.rules import Layout
from diffjax.train.step import init_state, jit_train_step

if TYPE_CHECKING:
  from diffjax.train.checkpoint import Checkpoints

__all__ = ['Fit', 'NonFinite', 'abstract_state', 'fit']

Batches = Callable[[int], Iterator[Any]]
AHEAD = 2  # steps handed out before the host waits for one


class NonFinite(FloatingPointError):
  """Too many steps in a row had a loss or gradient that is not finite."""


@dataclass
class Fit:
  """What `fit` returns: the last state, the step it began from, steps per second, and `Clock.seconds`."""

  state: TrainState
  start: int
  steps_per_s: float
  seconds: dict[str, float]


def abstract_state(
  method: Method,
  init: Callable[[Array], Mapping[str, Any]],
  key: Array,
  batch: Any,
  mesh: Mesh,
  ema: Sequence[Average] = (),
  *,
  time_bins: meters.TimeBins | None = None,
  layout: Layout | None = None,
  min_fsdp_size: int = 2**14,
  given: Given | None = None,
) -> tuple[Callable[[], TrainState], Any]:
  """The function that makes the state, compiled when called, and the state's shapes with their shardings.

  Args:
    method: the roles, phases and copies that are trained.
    init: key -> role -> params.
    key: a typed key.
    batch: arrays or shapes of a whole batch, of all processes together.
    mesh: the devices.
    ema: the averages kept of `method.averaged`.
    time_bins: t -> [0, 1] for the loss by time bin; t itself by default.
    layout: how weights lie on the mesh; None where only the batch is split.
    min_fsdp_size: leaves below this size are not split over fsdp.
    given: roles that begin as the weights of other runs, which are read when the state is made.
  """
  given = Given({}, dict) if given is None else given
  rows = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, jax.dtypes.canonicalize_dtype(x.dtype)), batch)
  first, second = jax.random.split(key)

  def make(first: Array, second: Array, given: Mapping[str, Any]) -> TrainState:
    return init_state(method, {**init(first), **given}, second, rows, ema, time_bins=time_bins)

  shapes = jax.eval_shape(make, first, second, dict(given.shapes))
  where = shardings.state_shardings(mesh, shapes, layout, min_fsdp_size)
  target = jax.tree.map(lambda s, w: jax.ShapeDtypeStruct(s.shape, s.dtype, sharding=w), shapes, where)

  def begin() -> TrainState:
    compiled = jax.jit(make, out_shardings=where, compiler_options=compiler.once())
    return compiled(first, second, dict(given.load()))

  return begin, target


def fit(
  method: Method,
  init: Callable[[Array], Mapping[str, Any]],
  batches: Batches,
  *,
  steps: int,
  key: Array,
  workdir: str | epath.Path | None = None,
  mesh: Mesh | None = None,
  layout: Layout | None = None,
  min_fsdp_size: int = 2**14,
  ema: Sequence[Average] = (),
  accumulate: int = 1,
  time_bins: meters.TimeBins | None = None,
  log_every: int = 50,
  save_every: int = 1000,
  max_to_keep: int = 2,
  max_skipped: int = 20,
  prefetch: int = 0,
  given: Given | None = None,
  config: Mapping[str, Any] | None = None,
  profile: tuple[int, int] | None = None,
  progress: bool = True,
) -> Fit:
  """Trains for `steps` steps, from the newest checkpoint in workdir/checkpoints where there is one.

  Args:
    method: the roles, phases and copies that are trained.
    init: key -> role -> params; traced, never run op by op.
    batches: start -> iterator of the batches start, start + 1, ...: dicts of NumPy arrays, the rows of this process.
    steps: the last step.
    key: a typed key.
    workdir: where checkpoints, metrics.csv, events and profiles go; None keeps nothing.
    mesh: where arrays live, see `diffjax.train.sharding` and `diffjax.train.rules`; all devices in
      one data axis by default.
    layout: see `mesh`.
    min_fsdp_size: see `mesh`.
    ema: averages of `method.averaged`, see `diffjax.train.ema.averages`.
    accumulate: microbatches a step.
    time_bins: t -> [0, 1] for the loss by time bin; t itself by default.
    log_every: steps between lines of the log.
    save_every: steps between checkpoints.
    max_to_keep: the number of checkpoints kept.
    max_skipped: so many steps in a row that are not finite end the run.
    prefetch: batches placed on the devices before their step, by a thread.
    given: roles that begin as the weights of other runs, which are read when this one begins.
    config: JSON, kept with each checkpoint.
    profile: (first, last) step between which a trace is written to workdir/profile.
    progress: whether to show a bar.

  Raises:
    InputError: a batch that the mesh does not divide, a workdir that cannot be written, another config's checkpoint.
    NonFinite: see `max_skipped`.
    SystemExit: with status 0, after a checkpoint, when the process was asked to stop (SIGTERM).
  """
  mesh = shardings.make_mesh() if mesh is None else mesh
  clock = Clock(time.perf_counter())
  is_main_process = jax.process_index() == 0
  stream = batches(0)
  example = next(stream)
  whole = jax.tree.map(
    lambda x: jax.ShapeDtypeStruct((x.shape[0] * jax.process_count(), *x.shape[1:]), x.dtype), example
  )
  shardings.check_batch(mesh, jax.tree.leaves(whole)[0].shape[0], accumulate)
  make, target = abstract_state(
    method, init, key, whole, mesh, ema, time_bins=time_bins, layout=layout, min_fsdp_size=min_fsdp_size, given=given
  )
  saver, state = None, None
  if workdir is not None:
    from diffjax.train.checkpoint import Checkpoints  # orbax takes .2 s to import

    saver = Checkpoints(place(workdir, 'workdir') / 'checkpoints', max_to_keep, config)
    state = saver.restore(target)
  state = make() if state is None else state
  start = int(state.step)
  if start >= steps:
    if is_main_process:
      print(f'finished: {start} of {steps} steps are done, nothing is left to do')
    if saver is not None:
      saver.close()
    return Fit(state, start, 0.0, clock.seconds)
  if start and is_main_process:
    print(f'going on from step {start} of {steps}')
  rows = shardings.batch_sharding(mesh)
  stream = batches(start) if start else chain([example], stream)
  stream = Prefetch(stream, lambda batch: shardings.place(batch, rows), prefetch)
  step = jit_train_step(method, target, ema, accumulate=accumulate, time_bins=time_bins, layout=layout)
  log = Log(workdir if is_main_process else None, start, steps, progress and is_main_process)
  traces = None if workdir is None or profile is None else place(workdir) / 'profile'
  when, outputs = _When(log_every, save_every, max_skipped, profile), _Outputs(log, saver, traces, clock)
  run = _Run(method, step, stream, mesh, when, outputs)
  try:
    state = run(state, start, steps)
  except jax.errors.JaxRuntimeError:
    saver = saver if jax.process_count() == 1 else None  # to close it is to wait for all, and one may be lost
    raise
  finally:
    run.end_trace()
    stream.close()
    log.close()
    if saver is not None:
      saver.close()
  return Fit(state, start, clock.rate(), clock.seconds)


def _cut(meter: Any, skipped: Array) -> tuple[Any, Any]:
  """What was added up, under names that donation spares, and a blank meter."""
  return (jax.tree.map(jnp.copy, meter), jnp.copy(skipped)), jax.tree.map(jnp.zeros_like, meter)


class _When(NamedTuple):
  """At which steps the loop does more than train."""

  log_every: int
  save_every: int
  max_skipped: int
  """So many steps in a row that are not finite end the run."""
  profile: tuple[int, int] | None
  """(first, last) step of a trace."""


class _Outputs(NamedTuple):
  """What the loop writes to."""

  log: Log
  saver: 'Checkpoints | None'
  traces: epath.Path | None
  """The folder of the trace; None traces nothing."""
  clock: Clock


class _Run:
  """The loop, with what it remembers between steps."""

  def __init__(self, method: Method, step: Any, stream: Prefetch, mesh: Mesh, when: _When, outputs: _Outputs):
    self.method, self.step, self.stream, self.when = method, step, stream, when
    self.log, self.saver, self.traces, self.clock = outputs
    self.tracing = False
    self.cut = jax.jit(_cut, out_shardings=shardings.replicated(mesh))
    self.waiting: deque = deque()
    self.lines: deque = deque()

  def __call__(self, state: TrainState, start: int, steps: int) -> TrainState:
    with _Stop() as stop:
      for i in range(start, steps):
        self._trace(i, state)
        with self.clock('wait'):
          batch = next(self.stream)
        state, signals = self.step(state, batch, active_phases(self.method, i))
        self.waiting.append((i + 1, signals))
        if len(self.waiting) > AHEAD:
          self._retire()
        if (i + 1) % self.when.log_every == 0 or i + 1 == steps:
          line, blank = self.cut(state.meter, state.skipped)
          self.lines.append((i + 1, line))
          if (i + 1) % self.when.log_every == 0:  # else a longer run goes on adding from here
            state = state.replace(meter=blank)
        asked = stop.asked if jax.process_count() == 1 or self.saver is None else self.saver.reached_preemption(i + 1)
        if asked or i + 1 == steps or (i + 1) % self.when.save_every == 0:
          self._save(state, i + 1, last=asked or i + 1 == steps)
        if asked:
          raise SystemExit(0)
    return state

  def _retire(self) -> None:
    """Waits for the oldest step under way, and reads what it and lines before it said."""
    step, signals = self.waiting.popleft()
    in_a_row, loss = int(signals['skipped_in_a_row']), float(signals['loss'])
    self.clock.step()
    if in_a_row >= self.when.max_skipped:
      kept = self.saver.steps() if self.saver is not None else ()
      held = f'the checkpoint of step {kept[-1]} is the last good one' if kept else 'there is no checkpoint yet'
      text = f'the loss or gradient was not finite in {in_a_row} steps in a row, up to step {step}'
      raise NonFinite(f'{text}; {held}. A lower learning rate (optimiser.learning_rate) or clip often helps')
    rate = self.clock.rate()
    with self.clock('log'):
      self.log.tick(loss)
      while self.lines and self.lines[0][0] <= step:
        at, (meter, skipped) = self.lines.popleft()
        self.log.write(at, {**meters.means(jax.device_get(meter)), 'skipped': float(skipped)}, steps_per_s=rate)

  def _save(self, state: TrainState, step: int, last: bool) -> None:
    """Every line up to the checkpoint is written before it, so that a run that goes on from it lacks none."""
    while self.waiting:
      self._retire()
    with self.clock('save'):
      self.log.flush()
      if self.saver is not None:
        self.saver.save(state, step)
        if last:
          self.saver.wait()

  def _trace(self, step: int, state: TrainState) -> None:
    if self.when.profile is None or self.traces is None:
      return
    first, last = self.when.profile
    if step == first:
      jax.block_until_ready(state)
      options = jax.profiler.ProfileOptions()
      options.python_tracer_level = 0  # every Python call would cost more than what is measured
      jax.profiler.start_trace(str(self.traces), profiler_options=options)
      self.tracing = True
    elif self.tracing and step == last:
      self.end_trace(state)

  def end_trace(self, state: Any = None) -> None:
    """Writes the trace, where one was begun."""
    if self.tracing:
      jax.block_until_ready(state)
      jax.profiler.stop_trace()
      self.tracing = False


class _Stop:
  """Whether SIGTERM came. With several processes JAX's own notifier listens, and a handler here would silence it."""

  def __enter__(self) -> '_Stop':
    self.asked = False
    self.mine = jax.process_count() == 1 and threading.current_thread() is threading.main_thread()
    if self.mine:
      self.before = signal.signal(signal.SIGTERM, self._note)
    return self

  def _note(self, *_: Any) -> None:
    self.asked = True

  def __exit__(self, *_: Any) -> None:
    if self.mine:
      signal.signal(signal.SIGTERM, self.before)
