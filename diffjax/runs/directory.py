"""A run on disk and what it is on a mesh: its training state, its step, and the network it trained."""

from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from diffjax.data.augment import FEATURES
from diffjax.methods import Generator
from diffjax.paths import place
from diffjax.prediction import Denoiser
from diffjax.process import Process
from diffjax.runs.config import ConfigDict, ConfigError, checked, override
from diffjax.runs.experiment import Experiment, build
from diffjax.runs.record import read_config
from diffjax.runs.sampling import guidance_specs
from diffjax.train import loop, sharding
from diffjax.train.loop import Batches, Fit, abstract_state
from diffjax.train.roles import Given, TrainState, active_phases
from diffjax.train.step import jit_train_step

__all__ = [
  'batch_of',
  'fit',
  'generator',
  'given',
  'load',
  'resolved',
  'restored',
  'state_of',
  'time_bins',
  'traced_step',
  'weights',
]


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
  batch: dict[str, Any] = {'x': experiment.parts.rows(rows)}
  if experiment.classes:
    batch['cond'] = jax.ShapeDtypeStruct((rows,), jnp.int32)
  for name in experiment.method.needs:
    batch[name] = jax.ShapeDtypeStruct((rows, *experiment.parts.others[name]), jnp.float32)
  if experiment.config.loading.augment:
    batch['augment'] = jax.ShapeDtypeStruct((rows, FEATURES), jnp.float32)
  return jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=where), batch)


def state_of(experiment: Experiment, mesh: Any) -> Any:
  """The shapes and shardings of the run's training state on this mesh."""
  batch, key = batch_of(experiment, mesh), jax.random.key(experiment.config.seed)
  given = Given(experiment.given_shapes(), dict)
  _, target = abstract_state(
    experiment.method, experiment.init, key, batch, mesh, ema=experiment.averages,
    time_bins=time_bins(experiment.process), layout=experiment.layout(mesh), given=given,
  )  # fmt: skip
  return target


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


def weights(experiment: Experiment, state: TrainState, ema: int | None = None) -> dict[str, Any]:
  """The parameters by role to draw with: of averaged roles the moving average of this place, -1 for the last ones.

  The place is that of `config.sampling.ema` by default. With them, by the keys of the config that name their runs,
  those of the networks that take part in guidance.
  """
  place = experiment.config.sampling.ema if ema is None else ema
  guides = _of_guides(experiment)
  if place < 0 or not experiment.averages:
    return {**state.roles, **guides}
  name = experiment.averages[place].name
  return {**state.roles, **{role: averages[name] for role, averages in state.ema.items()}, **guides}


def _of_guides(experiment: Experiment) -> dict[str, Any]:
  """The parameters of the networks that take part in guidance, read from their runs."""
  specs, found = dict(guidance_specs(experiment.config.sampling)), {}
  for field in experiment.guides:
    run, step = specs[field]['run'], specs[field].get('step', -1)
    config = override(read_config(run), [f'config.sampling.ema={specs[field].get("ema", 0)}'])
    inner, roles = _opened(config, run, step if step >= 0 else None)
    found[field] = roles[inner.method.averaged[0]]
  return found


def resolved(config: ConfigDict) -> ConfigDict:
  """The config with what `teacher` and `base` are today: their own configs, steps and digests of their checkpoints.

  A run is known by these, so that one which goes on notices another teacher.

  Raises:
    ConfigError: there is no run, or it has no such checkpoint.
  """
  from diffjax.train.checkpoint import Checkpoints  # orbax takes .2 s to import

  tree = config.to_dict()
  for field in ('teacher', 'base'):
    section = tree[field]
    if not section['run']:
      continue
    config = read_config(section['run'], f'config.{field}.run')
    saver = Checkpoints(place(section['run'], f'config.{field}.run') / 'checkpoints', config.train.max_to_keep)
    steps = saver.steps()
    step = max(steps, default=-1) if section['step'] < 0 else section['step']
    if step not in steps:
      raise ConfigError(f'config.{field}.step: got {section["step"]}; allowed in {section["run"]}: '
                        f'{", ".join(map(str, steps)) or "none is there, train it first"}')  # fmt: skip
    section |= dict(step=step, config=config.to_dict(), digest=saver.fingerprint(step))
    saver.close()
  return checked(tree)


def given(experiment: Experiment, mesh: Any) -> Given:
  """The roles that begin as the weights of other runs, read when the run begins."""

  def load() -> dict[str, Any]:
    roles = {}
    for role in experiment.method.loads:
      section = experiment.config[role]
      inner = build(checked(section.config or read_config(section.run, f'config.{role}.run')))
      state = restored(inner, section.run, mesh, section.step if section.step >= 0 else None)
      roles[role] = weights(inner, state, section.ema)[inner.method.averaged[0]]
    return roles

  return Given(experiment.given_shapes(), load)


def fit(experiment: Experiment, batches: Batches, mesh: Any, workdir: Any, **options: Any) -> Fit:
  """Trains as the config says, on this mesh, by `diffjax.train.loop.fit`; `options` of that function come first."""
  c = experiment.config
  said = dict(
    steps=c.train.steps, key=jax.random.key(c.seed), workdir=workdir, mesh=mesh, layout=experiment.layout(mesh),
    ema=experiment.averages, accumulate=c.train.accumulate, time_bins=time_bins(experiment.process),
    log_every=c.train.log_every, save_every=c.train.save_every, max_to_keep=c.train.max_to_keep,
    max_skipped=c.train.max_skipped, prefetch=c.loading.prefetch, given=given(experiment, mesh),
    profile=tuple(c.train.profile) or None,
  )  # fmt: skip
  return loop.fit(experiment.method, experiment.init, batches, **(said | options))


def load(workdir: str) -> tuple[Denoiser, Process, ConfigDict]:
  """The trained network of a run as an unguided denoiser, with its process and config.

      denoise, process, config = diffjax.load('runs/demo')

  Raises:
    ConfigError: the directory holds no run, no checkpoint, or one of a method that trains no denoiser.
  """
  experiment, roles = _opened(read_config(workdir), workdir)
  return experiment.denoiser(roles), experiment.process, experiment.config


def generator(workdir: str, overrides: Sequence[str] = ()) -> Generator:
  """What draws samples of a run, as its `config.sampling` says after overrides.

      draw = diffjax.generator('runs/demo', ['config.sampling.steps=10'])
      x = draw(jax.random.split(jax.random.key(0), 16), labels)

  Raises:
    ConfigError: the directory holds no run or no checkpoint, or an override does not fit.
  """
  experiment, roles = _opened(override(read_config(workdir), overrides), workdir)
  return experiment.generator(roles, workdir)


def _opened(config: ConfigDict, workdir: str, step: int | None = None) -> tuple[Experiment, dict[str, Any]]:
  experiment = build(config)
  state = restored(experiment, workdir, sharding.make_mesh(1, 1, 1), step)
  # through the host: arrays that are committed to no device follow whatever mesh x lies on
  return experiment, jax.tree.map(lambda p: jnp.asarray(np.asarray(p)), weights(experiment, state))
