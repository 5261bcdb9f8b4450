"""diffjax: diffusion, score, flow, consistency, bridge and energy-based generative models in one functional algebra.

    denoise, process, config = diffjax.load('runs/demo')
    draw = diffjax.generator('runs/demo')

The rooms are imported by name: `from diffjax import schedules, solvers, guidance, exact`.
"""

from collections.abc import Sequence
from typing import Any

__all__ = ['generator', 'load']
__version__ = '0.1.0'


def load(workdir: str) -> tuple[Any, Any, Any]:
  """The trained network of a run as a denoiser, its process and its config: see `diffjax.runs.directory.load`."""
  from diffjax.runs import directory

  return directory.load(workdir)


def generator(workdir: str, overrides: Sequence[str] = ()) -> Any:
  """What draws samples of a run, whatever its method: see `diffjax.runs.directory.generator`."""
  from diffjax.runs import directory

  return directory.generator(workdir, overrides)
