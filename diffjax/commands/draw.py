"""Drawing from a trained run, shared by the commands that do."""

import argparse
import sys
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from diffjax.commands.start import TIMEOUT, mesh_of, start
from diffjax.errors import InputError

__all__ = ['Trained', 'chief', 'draw', 'drawing', 'network', 'of_images', 'picture', 'sampler', 'titles', 'write_npz']


class Trained(NamedTuple):
  """A run to draw from: its experiment, its guided denoiser, the mesh, the weights and the step they are of.

  data: the mean and deviation of its data, None where the run keeps none.
  """

  what: Any
  denoise: Any
  mesh: Any
  params: Any
  step: int
  data: Any


def sampler(options: argparse.Namespace, overrides: Sequence[str], step: int | None = None) -> tuple[Trained, Any]:
  """The run and its solver, that of the config or of the file `options.solver`, after overrides of how to sample."""
  file, joined = options.solver, (options.distributed, options.timeout)
  if file is None:
    trained = network(options.workdir, overrides, step, *joined)
    return trained, trained.what.solver(options.workdir)
  from diffjax.solvers.solver_file import read

  both = [o for o in overrides if o.removeprefix('--').startswith(('config.sampling.solver', 'config.sampling.grid',
                                                                    'config.sampling.steps',
                                                                    'config.sampling.teleport'))]  # fmt: skip
  if both:
    raise InputError(f'solver: got {file} and {both[0]}; allowed: one of them, the file has its own times and steps')
  trained = network(options.workdir, overrides, step, *joined)
  return trained, read(file, trained.what.process, trained.what.shape).table


def network(
  workdir: str,
  overrides: Sequence[str],
  step: int | None = None,
  distributed: str | None = None,
  timeout: int = TIMEOUT,
) -> Trained:
  """The run with the weights of `step`, the newest by default, after overrides of how to sample."""
  from diffjax.runs import config as configs
  from diffjax.runs import directory, experiment

  trained = directory.read_config(workdir)
  if trained.loss.name == 'modalities':
    raise InputError(f'workdir: {workdir} holds a network of several modalities; allowed here: one of a single one. '
                     'Draw with diffjax.load and diffjax.nets.modes')  # fmt: skip
  config = configs.override(trained, overrides)
  before, after = trained.to_dict(), config.to_dict()
  moved = [k for k in ('data', 'process', 'net', 'loss', 'train') if after[k] != before[k]]
  if moved:
    raise InputError(f'config.{moved[0]}: differs from the run in {workdir}; allowed here: config.sampling, '
                     'config.evaluation, config.mesh, config.seed')  # fmt: skip
  start(config, distributed, timeout)
  what = experiment.build(config)
  mesh = mesh_of(config)
  state = directory.restored(what, workdir, mesh, step)
  params = directory.weights(what, state)
  return Trained(what, what.guided(what.denoiser(params)), mesh, params, int(state.step), what.spread(workdir))


def chief() -> bool:
  """Whether this process is the one that writes what there is one of."""
  import jax

  return jax.process_index() == 0


def draw(trained: Trained, solver: Any, n: int, labels: Any, seed: int) -> Any:
  """Samples 0 .. n - 1 of this seed on every host; images, unlike latents, are clipped to the range of the data.

  Raises:
    FloatingPointError: some are not finite.
  """
  import numpy as np

  from diffjax import finite
  from diffjax.runs.generate import generate

  what, denoise, mesh, *_ = trained
  drawn = generate(denoise, solver, what.shape, n, labels, seed, what.config.sampling.batch, mesh, trained.data)
  finite.check('samples', finite.lost(drawn))
  return np.clip(drawn, -1, 1) if of_images(what) else drawn


def of_images(what: Any) -> bool:
  """Whether the samples are images with numbers from -1 to 1, not latents or points."""
  return len(what.shape) == 3 and not what.config.data.get('latents', False)


def write_npz(path: str, samples: Any, labels: Any) -> None:
  """Writes samples and labels as one npz file, whole or not at all."""
  from diffjax.files import write_npz

  arrays = dict(samples=samples) if labels is None else dict(samples=samples, labels=labels)
  write_npz(path, arrays, compressed=True)


def drawing(what: str, make: Callable[..., None], *arguments: Any, **options: Any) -> None:
  """make(...), the last thing that a command does: where it fails a line says so, and what was written stays good."""
  try:
    make(*arguments, **options)
  except Exception as error:
    print(f'diffjax: {what}: no picture ({type(error).__name__}: {error})', file=sys.stderr, flush=True)


def titles(what: Any, labels: Any) -> Any:
  """What stands under the picture of each label: the name of its class, or the label itself where the run has none."""
  names = what.config.data.get('names')
  return labels if labels is None or not names else [names[label] for label in labels]


def picture(path: str, drawn: Any, labels: Any, held: Any = None) -> None:
  """A grid of images, or points of any shape beside the held-out ones."""
  from diffjax.runs import plots

  if drawn.ndim == 4:
    plots.image_grid(path, drawn, labels)
  else:
    plots.points(path, {'samples': drawn} if held is None else {'held out': held, 'samples': drawn})
