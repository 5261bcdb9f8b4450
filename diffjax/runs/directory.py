"""A run's directory: the config it was made from, its data, and the network it trained."""

import contextlib
import dataclasses
import difflib
import json
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from diffjax import data
from diffjax.data.augment import FEATURES
from diffjax.errors import InputError
from diffjax.files import write
from diffjax.metrics.resample import spread
from diffjax.paths import place
from diffjax.prediction import Denoiser
from diffjax.process import Process
from diffjax.runs.config import ConfigDict, ConfigError, checked
from diffjax.runs.experiment import Experiment, build
from diffjax.train import sharding
from diffjax.train.loop import abstract_state
from diffjax.train.roles import TrainState, active_phases
from diffjax.train.step import jit_train_step

__all__ = [
  'arrays',
  'batch_of',
  'claim',
  'dataset',
  'differences',
  'held',
  'held_out',
  'load',
  'read_config',
  'reader',
  'restored',
  'state_of',
  'stream',
  'time_bins',
  'traced_step',
  'weights',
]

FREE = ('sampling', 'evaluation', 'mesh', 'loading.workers', 'loading.prefetch', 'train.log_every', 'train.save_every',
        'train.max_to_keep', 'train.profile', 'train.max_skipped')  # fmt: skip
"""What may differ between the start of a run and a command that goes on from it: nothing that moves its numbers."""

CHUNK = 1024  # examples that are read at a time where only their labels are wanted


def claim(
  workdir: str, config: ConfigDict, names: tuple[str, ...] | None = None, free: tuple[str, ...] = ()
) -> ConfigDict:
  """Make the directory and keep the config there, with the names of the classes; one of another run is left as it is.

  Args:
    workdir: the directory.
    config: the run's.
    names: of the classes, where the data give any.
    free: keys beside those of FREE that may differ from the run that is there; its config stays beside the new one, as
      config_STEPS_steps.json.

  Returns:
    The config that is kept: data.names are `names` where there are any.

  Raises:
    ConfigError: it holds a run of another config (the keys that differ are named), or cannot be written.
  """
  path = place(workdir, 'workdir') / 'config.json'
  if names and config.data.classes:
    config = ConfigDict(config.to_dict() | dict(data=config.data.to_dict() | dict(names=tuple(names))))
  if path.exists():
    before = read_config(workdir).to_dict()
    told = differences(before, config.to_dict(), FREE + free)
    if told:
      raise ConfigError(f'workdir: {workdir} holds the run of another config: {told}; allowed: the same config, or '
                        'another directory')  # fmt: skip
  if jax.process_index():
    return config
  try:
    if free and path.exists():
      write(path.parent / f'config_{before["train"]["steps"]}_steps.json', path.read_bytes())
    write(path, (json.dumps(config.to_dict(), indent=2) + '\n').encode())
  except OSError as error:
    raise ConfigError(f'workdir: got {workdir!r}; allowed: a directory that can be written ({error})') from None
  return config


def differences(before: dict[str, Any], after: dict[str, Any], free: tuple[str, ...] = FREE) -> str:
  """The first few keys of two nested dicts that differ, without those in `free`, as text; empty where none do."""
  there, here = _flat(before), _flat(after)
  keys = [k for k in {**there, **here} if not k.startswith(free) and there.get(k) != here.get(k)]
  return '; '.join(f'{k} is {there.get(k)!r} there and {here.get(k)!r} here' for k in sorted(keys)[:4])


def read_config(workdir: str) -> ConfigDict:
  """The resolved config of a run.

  Raises:
    ConfigError: there is no run in this directory (one of a similar name is pointed out), or its config is damaged.
  """
  path = place(workdir, 'workdir') / 'config.json'
  if not path.exists():
    around = path.parent.parent
    names = [p.name for p in around.iterdir() if (p / 'config.json').exists()] if around.exists() else []
    near = difflib.get_close_matches(path.parent.name, names, 1)
    hint = f', did you mean {str(around / near[0])!r}?' if near else ''
    raise ConfigError(
      f'workdir: got {workdir!r}, which holds no run{hint}; allowed: a directory that diffjax train made'
    )
  try:
    tree = json.loads(path.read_text())
  except json.JSONDecodeError as error:
    raise ConfigError(f'workdir: {path} is not JSON ({error}); allowed: the file that diffjax train wrote') from None
  return checked(_tuples(tree))


def dataset(experiment: Experiment, split: str) -> data.DataSet:
  """One split of the config's data, checked against the shape and classes that the config declares.

  Raises:
    ConfigError: they differ, or the data cannot be had.
  """
  declared = experiment.config.data.to_dict()
  options: dict[str, Any] = {k: v for k, v in declared.items() if k not in ('name', 'shape', 'classes')}
  also = {'synthetic': ('shape', 'classes'), 'npz': ('classes',)}.get(declared['name'], ())
  options |= {k: declared[k] or None for k in also}
  try:
    found = data.load(declared['name'], split, **options)
  except (InputError, ImportError) as error:
    raise ConfigError(f'config.data: {error}') from error
  if found.shape != experiment.shape:
    raise ConfigError(f'config.data.shape: got {experiment.shape}; allowed: {found.shape}, that of {found.name}')
  if experiment.classes not in (0, found.classes):
    allowed = 'only 0, it has no labels' if found.classes is None else f'{found.classes}, or 0 to ignore the labels'
    raise ConfigError(f'config.data.classes: got {experiment.classes}; allowed on {found.name}: {allowed}')
  return found


def arrays(experiment: Experiment, split: str) -> tuple[Any, np.ndarray | None]:
  """A whole split: x (n, *shape), or a dict of those, and labels (n,), None where the config ignores them."""
  whole = dataset(experiment, split).arrays()
  return whole['x'], whole['cond'] if experiment.classes else None


@dataclasses.dataclass(frozen=True)
class Images:
  """The examples of a set without their labels, read as it reads them."""

  whole: data.DataSet

  @property
  def size(self) -> int:
    return self.whole.size

  def take(self, indices: Sequence[int] | np.ndarray) -> dict[str, np.ndarray]:
    return {'x': self.whole.take(indices)['x']}


def reader(experiment: Experiment, split: str) -> data.DataSet | Images:
  """A split to be read some examples at a time (`take`), without labels where the config ignores them."""
  source = dataset(experiment, split)
  return source if experiment.classes else Images(source)


def held_out(experiment: Experiment, split: str, n: int) -> tuple[np.ndarray, np.ndarray | None]:
  """N examples of a split (all, where there are fewer) with their labels: the same for every run, whatever the order.

  They are spread evenly over the split, with its classes in proportion, those of the data where the config has none
  (`metrics.resample.spread`).
  """
  source = dataset(experiment, split)
  labels = None
  if source.classes is not None and n < source.size:
    chunks = (range(i, min(i + CHUNK, source.size)) for i in range(0, source.size, CHUNK))
    labels = np.concatenate([source.take(chunk)['cond'] for chunk in chunks])
  taken = source.take(spread(n, source.size, labels))
  return taken['x'], taken['cond'] if experiment.classes else None


def held(source: data.DataSet) -> data.DataSet:
  """The set in memory where it is small: read once, not again by every stream."""
  return source.loaded() if source.nbytes < 2**30 else source


def stream(experiment: Experiment, source: data.DataSet) -> Callable[[int], Iterator[dict[str, np.ndarray]]]:
  """Makes the function that opens the training batches at a given step, this process's rows only.

  start -> the batches from there on, the rows of this process; labels only where the config has classes.
  """
  config, shard = experiment.config, (jax.process_index(), jax.process_count())
  keep = ('x', 'cond', 'augment') if experiment.classes else ('x', 'augment')
  source = held(source)

  def batches(start: int) -> Iterator[dict[str, np.ndarray]]:
    rows = data.batches(source, config.train.batch, config.seed, shard=shard, start=start, **config.loading)
    with contextlib.closing(rows):
      for batch in rows:
        yield {k: v for k, v in batch.items() if k in keep}

  return batches


def time_bins(process: Process) -> Callable[[Array], Array]:
  """Where a time falls among the bins of the logged loss.

  t -> [0, 1] for the loss by time bin: t / t_max, or even in lam where time is a noise level.
  """
  if not process.by_noise:
    return lambda t: t / process.t_max
  low, high = process.lam(process.t_max), process.lam(process.t_min)
  return lambda t: (high - process.lam(t)) / (high - low)


def batch_of(experiment: Experiment, mesh: Any) -> dict[str, Any]:
  """The shapes and shardings of one batch on this mesh."""
  rows, where = experiment.config.train.batch, sharding.batch_sharding(mesh)
  batch: dict[str, Any] = {'x': experiment.rows(rows)}
  if experiment.classes:
    batch['cond'] = jax.ShapeDtypeStruct((rows,), jnp.int32)
  if experiment.config.loading.augment:
    batch['augment'] = jax.ShapeDtypeStruct((rows, FEATURES), jnp.float32)
  return jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=where), batch)


def state_of(experiment: Experiment, mesh: Any) -> Any:
  """The shapes and shardings of the run's training state on this mesh."""
  batch = batch_of(experiment, mesh)
  key, bins = jax.random.key(experiment.config.seed), time_bins(experiment.process)
  return abstract_state(
    experiment.method, experiment.init, key, batch, mesh, experiment.averages, time_bins=bins,
    layout=experiment.layout(mesh),
  )[1]  # fmt: skip


def traced_step(experiment: Experiment, mesh: Any, options: dict[str, Any] | None = None) -> Any:
  """The first train step of the run traced on this mesh from shapes alone, to be lowered and compiled.

  Args:
    experiment: the run's.
    mesh: the devices.
    options: of the compiler.
  """
  state, batch = state_of(experiment, mesh), batch_of(experiment, mesh)
  accumulate, bins = experiment.config.train.accumulate, time_bins(experiment.process)
  step = jit_train_step(
    experiment.method, state, experiment.averages, accumulate=accumulate, time_bins=bins,
    layout=experiment.layout(mesh), options=options,
  )  # fmt: skip
  return step.trace(state, batch, active_phases(experiment.method, 0))


def restored(experiment: Experiment, workdir: str, mesh: Any, step: int | None = None) -> TrainState:
  """The newest training state of a run, or that of `step`, laid out on this mesh.

  Raises:
    ConfigError: the run has no checkpoint yet, none of this step, or one of another structure (the leaves are named).
  """
  from diffjax.train.checkpoint import Checkpoints  # orbax takes .2 s to import

  saver = Checkpoints(place(workdir, 'workdir') / 'checkpoints', experiment.config.train.max_to_keep)
  steps = saver.steps()
  known = step is None or step in steps
  state = saver.restore(state_of(experiment, mesh), step) if known else None
  saver.close()
  if not known:
    raise ConfigError(f'step: got {step}; allowed in {workdir}: {", ".join(map(str, steps)) or "none is there"}')
  if state is None:
    raise ConfigError(f'workdir: {workdir} has no checkpoint yet; allowed: a run that diffjax train has saved')
  return state


def weights(experiment: Experiment, state: TrainState) -> Any:
  """The parameters that `config.sampling.ema` asks for: a moving average by place, or -1 the last ones."""
  place = experiment.config.sampling.ema
  if place < 0 or not experiment.averages:
    return state.roles['student']
  return state.ema['student'][experiment.averages[place].name]


def load(workdir: str) -> tuple[Denoiser, Process, ConfigDict]:
  """The trained network of a run as an unguided denoiser, with its process and config.

      denoise, process, config = diffjax.load('runs/demo')

  Raises:
    ConfigError: the directory holds no run, or no checkpoint.
  """
  experiment = build(read_config(workdir))
  state = restored(experiment, workdir, sharding.make_mesh(1, 1, 1))
  # through the host: arrays that are committed to no device follow whatever mesh x lies on
  params = jax.tree.map(lambda p: jnp.asarray(np.asarray(p)), weights(experiment, state))
  return experiment.denoiser(params), experiment.process, experiment.config


def _flat(tree: dict[str, Any], path: str = '') -> dict[str, Any]:
  flat = {}
  for key, value in tree.items():
    flat |= _flat(value, f'{path}{key}.') if isinstance(value, dict) else {f'{path}{key}': value}
  return flat


def _tuples(tree: Any) -> Any:
  """JSON's lists as the tuples they were."""
  if isinstance(tree, dict):
    return {k: _tuples(v) for k, v in tree.items()}
  return tuple(_tuples(v) for v in tree) if isinstance(tree, list) else tree
