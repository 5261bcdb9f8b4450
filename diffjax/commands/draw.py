"""Drawing from a trained run, shared by the commands that do."""

import argparse
import sys
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from diffjax.commands.start import TIMEOUT, mesh_of, start
from diffjax.errors import InputError

MADE = ('data', 'process', 'net', 'loss', 'method', 'teacher', 'base', 'train')  # what a run was made from
__all__ = [
  'Trained',
  'is_main_process',
  'draw',
  'drawing',
  'network',
  'of_images',
  'picture',
  'sampler',
  'titles',
  'write_npz',
]


class Trained(NamedTuple):
  """A run to draw from: its experiment, the mesh, the parameters by role, the step they are of, and what draws."""

  experiment: Any
  mesh: Any
  roles: dict[str, Any]
  step: int
  generator: Any = None

  @property
  def denoise(self) -> Any:
    """The guided denoiser, where the method trains one; else raises ConfigError."""
    return self.experiment.guided(self.experiment.denoiser(self.roles), self.roles)


def sampler(options: argparse.Namespace, overrides: Sequence[str], step: int | None = None) -> Trained:
  """The run, to be drawn from as its config says or by the solver of the file `options.solver`."""
  file = options.solver
  both = [o for o in overrides if o.removeprefix('--').startswith(('config.sampling.solver', 'config.sampling.grid',
                                                                    'config.sampling.steps',
                                                                    'config.sampling.teleport'))]  # fmt: skip
  if file and both:
    raise InputError(f'solver: got {file} and {both[0]}; allowed: one of them, the file has its own times and steps')
  trained = network(options.workdir, overrides, step, options.distributed, options.timeout)
  experiment, solver = trained.experiment, None
  if file:
    from diffjax.solvers.solver_file import read

    solver = read(file, experiment.process, experiment.shape).table
  return trained._replace(generator=experiment.generator(trained.roles, options.workdir, solver))


def network(
  workdir: str,
  overrides: Sequence[str],
  step: int | None = None,
  distributed: str | None = None,
  timeout: int = TIMEOUT,
) -> Trained:
  """The run with the weights of `step`, the newest by default, after overrides of how to sample."""
  from diffjax.runs import config as configs
  from diffjax.runs import directory, record
  from diffjax.runs.experiment import build

  trained = record.read_config(workdir)
  config = configs.override(trained, overrides)
  before, after = trained.to_dict(), config.to_dict()
  moved = [k for k in MADE if after[k] != before[k]]
  if moved:
    raise InputError(f'config.{moved[0]}: differs from the run in {workdir}; allowed here: config.sampling, '
                     'config.evaluation, config.mesh, config.seed')  # fmt: skip
  start(config, distributed, timeout)
  experiment = build(config)
  mesh = mesh_of(config)
  state = directory.restored(experiment, workdir, mesh, step)
  return Trained(experiment, mesh, directory.weights(experiment, state), int(state.step))


def is_main_process() -> bool:
  """Whether this process is the one that writes what there is one of."""
  import jax

  return jax.process_index() == 0


def draw(trained: Trained, n: int, cond: Any, seed: int) -> Any:
  """Samples 0 .. n - 1 of this seed on every host; images, unlike latents, are clipped to the range of the data.

  Raises:
    FloatingPointError: some are not finite.
  """
  import jax
  import numpy as np

  from diffjax import finite
  from diffjax.runs.generate import generate

  experiment = trained.experiment
  batch = experiment.config.sampling.batch
  drawn = generate(trained.generator, n, cond, seed=seed, batch=batch, mesh=trained.mesh)
  for leaf in jax.tree.leaves(drawn):
    finite.check('samples', finite.lost(leaf))
  return np.clip(drawn, -1, 1) if of_images(experiment) else drawn


def of_images(experiment: Any) -> bool:
  """Whether the samples are images with numbers from -1 to 1, not latents or points."""
  return (
    isinstance(experiment.shape, tuple)
    and len(experiment.shape) == 3
    and not experiment.config.data.get('latents', False)
  )


def write_npz(path: str, samples: Any, labels: Any) -> None:
  """Writes samples, of several modalities each by its name, and labels as one npz file, whole or not at all."""
  from diffjax.files import write_npz

  arrays = dict(samples) if isinstance(samples, dict) else dict(samples=samples)
  arrays |= {} if labels is None else dict(labels=labels)
  write_npz(path, arrays, compressed=True)


def drawing(title: str, make: Callable[..., None], *arguments: Any, **options: Any) -> None:
  """make(...), the last thing that a command does: where it fails a line says so, and what was written stays good."""
  try:
    make(*arguments, **options)
  except Exception as error:
    print(f'diffjax: {title}: no picture ({type(error).__name__}: {error})', file=sys.stderr, flush=True)


def titles(experiment: Any, labels: Any) -> Any:
  """What stands under the picture of each label: the name of its class, or the label itself where the run has none."""
  names = experiment.config.data.get('names')
  return labels if labels is None or not names else [names[label] for label in labels]


def picture(path: str, drawn: Any, labels: Any, held: Any = None) -> None:
  """A grid of images, or points of any shape beside the held-out ones."""
  from diffjax.runs import plots

  if isinstance(drawn, dict):
    drawn, held = drawn.get('image', next(iter(drawn.values()))), None
  if drawn.ndim == 4:
    plots.image_grid(path, drawn, labels)
  else:
    plots.points(path, {'samples': drawn} if held is None else {'held out': held, 'samples': drawn})
