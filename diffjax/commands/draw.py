"""Drawing from a trained run, shared by the commands that do."""

from collections.abc import Sequence
from typing import Any

from diffjax.commands.start import mesh_of, start

__all__ = ['draw', 'network', 'picture', 'sampler', 'write_npz']


def sampler(
  workdir: str, overrides: Sequence[str], step: int | None = None, file: str | None = None
) -> tuple[Any, Any, Any, Any]:
  """The experiment of a run, its guided denoiser, its solver and the mesh, after overrides of how to sample.

  The solver is that of the config, or the one in a solver file.
  """
  if file is None:
    what, denoise, mesh = network(workdir, overrides, step)
    return what, denoise, what.solver(workdir), mesh
  from diffjax.solvers.file import read

  both = [o for o in overrides if o.removeprefix('--').startswith(('config.sampling.solver', 'config.sampling.grid',
                                                                    'config.sampling.steps'))]  # fmt: skip
  if both:
    raise ValueError(f'solver: got {file} and {both[0]}; allowed: one of them, the file has its own times and steps')
  what, denoise, mesh = network(workdir, overrides, step)
  return what, denoise, read(file, what.process, what.shape).table, mesh


def network(workdir: str, overrides: Sequence[str], step: int | None = None) -> tuple[Any, Any, Any]:
  """The experiment of a run, its guided denoiser and the mesh, after overrides of how to sample."""
  from diffjax import config as configs
  from diffjax import experiment, run

  trained = run.read_config(workdir)
  if trained.loss.name == 'modalities':
    raise ValueError(f'workdir: {workdir} holds a network of several modalities; allowed here: one of a single one. '
                     'Draw with diffjax.load and diffjax.nets.modes')  # fmt: skip
  config = configs.override(trained, overrides)
  before, after = trained.to_dict(), config.to_dict()
  moved = [k for k in ('data', 'process', 'net', 'loss', 'train') if after[k] != before[k]]
  if moved:
    raise ValueError(f'config.{moved[0]}: differs from the run in {workdir}; allowed here: config.sampling, '
                     'config.evaluation, config.mesh, config.seed')  # fmt: skip
  start(config)
  what = experiment.build(config)
  mesh = mesh_of(config)
  state = run.restored(what, workdir, mesh, step)
  return what, what.guided(what.denoiser(run.weights(what, state))), mesh


def draw(what: Any, denoise: Any, solver: Any, mesh: Any, n: int, labels: Any, seed: int) -> Any:
  """Samples on the host; images, unlike latents, are clipped to the range of the data."""
  import numpy as np

  from diffjax.generate import generate

  drawn = generate(denoise, solver, what.shape, n, labels, seed, what.config.sampling.batch, mesh)
  bounded = len(what.shape) == 3 and not what.config.data.get('latents', False)
  return np.clip(drawn, -1, 1) if bounded else drawn


def write_npz(path: str, samples: Any, labels: Any) -> None:
  import io

  import numpy as np
  from etils import epath

  buffer = io.BytesIO()
  np.savez_compressed(buffer, samples=samples, **({} if labels is None else dict(labels=labels)))
  epath.Path(path).parent.mkdir(parents=True, exist_ok=True)
  epath.Path(path).write_bytes(buffer.getvalue())


def picture(path: str, drawn: Any, labels: Any, held: Any = None) -> None:
  """A grid of images, or a scatter plot of points beside the held-out ones."""
  from diffjax import plots

  if drawn.ndim == 4:
    plots.image_grid(path, drawn, labels)
  else:
    plots.points(path, {'samples': drawn} if held is None else {'held out': held, 'samples': drawn})
