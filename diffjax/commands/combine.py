"""diffjax search --method=checkpoints: a sum of a run's saved checkpoints, found by evolution, as a run of its own."""

import argparse
import time
from collections.abc import Callable, Sequence
from typing import Any

from diffjax.commands.draw import Trained, draw, network
from diffjax.errors import InputError

__all__ = ['run']


def run(
  options: argparse.Namespace, overrides: Sequence[str], out: str, progress: Callable[[int, float], None]
) -> None:
  """Search, tell the distances on held-out data and other noise, and write the run."""
  import numpy as np

  from diffjax import search
  from diffjax.files import write_npz

  if options.step is not None:
    raise InputError(f'step: got {options.step} with --method=checkpoints; allowed: --since, the first to combine')
  began = time.perf_counter()
  trained = network(options.workdir, overrides)
  c, role = trained.experiment.config, trained.experiment.method.averaged[0]
  steps, stack = _stacked(trained, options, role)
  seen, held = (_distance(trained, options, split, stack, role, part)
                for part, split in enumerate(('train', c.evaluation.split)))  # fmt: skip
  found = search.combine(
    seen, len(steps), options.budget, seed=options.seed, penalty=options.penalty, progress=progress
  )
  best, known = min(found.averages, key=found.averages.__getitem__), search.averages(len(steps))
  figures = {'the last checkpoint': held(known['last']), f'the best average ({best})': held(known[best])}
  figures['combined'] = held(found.coefficients)
  if not np.isfinite(figures['combined']):
    raise FloatingPointError('search: the combination found draws samples that are not finite')
  _write(trained, options.workdir, out, role, search.combined(stack, found.coefficients))
  write_npz(f'{out}/combined.npz', dict(steps=np.asarray(steps), coefficients=found.coefficients))
  print(f'distance on held-out data: {", ".join(f"{name} {value:.4f}" for name, value in figures.items())}')
  print(f'{len(steps)} checkpoints, {options.budget} sums, {options.starts} samples, seed {options.seed}, '
        f'{time.perf_counter() - began:.0f} s: {out}')  # fmt: skip


def _stacked(trained: Trained, options: argparse.Namespace, role: str) -> tuple[tuple[int, ...], Any]:
  """The steps of the checkpoints, and their weights of this role as leaves (K, ...), float32."""
  import jax
  import jax.numpy as jnp
  import numpy as np

  from diffjax.paths import place
  from diffjax.train.checkpoint import Checkpoints

  saver = Checkpoints(place(options.workdir, 'workdir') / 'checkpoints', trained.experiment.config.train.max_to_keep)
  every = saver.steps()
  steps = tuple(step for step in every if step >= options.since)
  if len(steps) < 2:
    raise InputError(f'since: got {options.since}; allowed: a step from which on there are at least 2 checkpoints, of '
                     f'{", ".join(map(str, every))} in {options.workdir} (train.max_to_keep keeps more)')  # fmt: skip
  trees = [saver.load(('roles',), step)['roles'][role] for step in steps]
  saver.close()
  return steps, jax.tree.map(lambda *leaves: jnp.asarray(np.stack([np.asarray(x, np.float32) for x in leaves])), *trees)


def _distance(
  trained: Trained, options: argparse.Namespace, split: str, stack: Any, role: str, part: int
) -> Callable[[Any], float]:
  """Coefficients -> the distance of so many samples of seed + part from as many examples of this split."""
  import numpy as np

  from diffjax import metrics, search
  from diffjax.metrics.frechet import frechet
  from diffjax.metrics.transport import sliced_wasserstein
  from diffjax.runs import examples

  experiment = trained.experiment
  if not isinstance(experiment.shape, tuple) or experiment.parts.vocabulary is not None:
    raise InputError(f'config.data: got {experiment.config.data.name}; allowed: images or points of one modality')
  batch = examples.held_out(experiment, examples.dataset(experiment, split), options.starts)
  cond = examples.conditions(experiment, batch.get('cond'), batch)
  features, _ = metrics.features_for(experiment.config.data.name, examples.reader(experiment, 'train'))
  near, far = features(batch['x']), sliced_wasserstein if len(experiment.shape) == 1 else frechet

  def distance(coefficients: Any) -> float:
    roles = {**trained.roles, role: search.combined(stack, coefficients)}
    drawing = trained._replace(generator=experiment.generator(roles, options.workdir))
    try:
      return far(near, features(draw(drawing, len(near), cond, options.seed + part)))
    except FloatingPointError:
      return np.inf

  return distance


def _write(trained: Trained, workdir: str, out: str, role: str, params: Any) -> None:
  """The newest state of the run with these weights, and as every average of them, in a directory of its own."""
  import jax

  from diffjax.paths import place
  from diffjax.runs import directory, examples, record, spread
  from diffjax.train.checkpoint import Checkpoints

  experiment = trained.experiment
  state = directory.restored(experiment, workdir, trained.mesh)
  config = record.claim(out, record.read_config(workdir))
  put = lambda old: jax.tree.map(lambda new, leaf: jax.device_put(new.astype(leaf.dtype), leaf.sharding), params, old)  # noqa: E731
  ema = {**state.ema, role: {name: put(old) for name, old in state.ema[role].items()}}
  state = state.replace(roles={**state.roles, role: put(state.roles[role])}, ema=ema)
  saver = Checkpoints(place(out, 'out') / 'checkpoints', config=config.to_dict())
  saver.save(state, int(state.step))
  if not saver.close():
    raise InputError(f'out: got {out}; allowed: a directory that can be written')
  spread.measure(out, examples.dataset(experiment, 'train'))
