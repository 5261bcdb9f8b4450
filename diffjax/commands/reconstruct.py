"""The part of diffjax evaluate that reconstructs held-out examples from what `config.sampling.observation` shows."""

import json
from typing import Any

from diffjax.commands.draw import Trained, draw, drawing, is_main_process, of_images

__all__ = ['reconstruct']


def reconstruct(workdir: str, trained: Trained, batch: Any, cond: Any) -> None:
  """Several draws of every held-out example given what was seen; figures, arrays and a picture.

  Leaves in WORKDIR: reconstructions.npz (held, observed, draws), report.json and reconstructions.png.
  """
  import jax
  import numpy as np
  from etils import epath

  from diffjax.files import write_npz
  from diffjax.runs import posterior

  experiment = trained.experiment
  c, x, seen = experiment.config, np.asarray(batch['x']), experiment.observation
  n, draws = len(x), c.evaluation.draws
  y = posterior.looked(seen, x, c.seed, np.arange(n))
  given = jax.tree.map(lambda leaf: np.repeat(leaf, draws, axis=0), posterior.told(cond, y))
  drawn = draw(trained, n * draws, given, c.seed).reshape(n, draws, *x.shape[1:])
  if not is_main_process():
    return
  found = posterior.figures(seen, x, y, drawn)
  observed = dict(c.sampling.observation.to_dict())
  report = dict(n=n, nfe=trained.generator.nfe, cost=trained.generator.cost, observation=observed,
                guidance=[*c.sampling.to_dict()['guidance']], seed=c.seed, **found)  # fmt: skip
  write_npz(f'{workdir}/reconstructions.npz', dict(held=x, observed=y, draws=drawn), compressed=True)
  (epath.Path(workdir) / 'report.json').write_text(json.dumps(report, indent=2) + '\n')
  if of_images(experiment):
    drawing('reconstructions.png', _picture, f'{workdir}/reconstructions.png', seen, x, y, drawn)
  _tell(workdir, report)


def _picture(path: str, seen: Any, x: Any, y: Any, drawn: Any) -> None:
  """Ten examples, a row each: the truth, A^+ y, up to four draws and their mean."""
  import numpy as np

  from diffjax.runs import plots

  few = drawn[:10, :4]
  plain, mean = np.asarray(seen.operator.pinv(y[:10])), drawn[:10].mean(1)
  tiles = np.concatenate([x[:10, None], plain[:, None], few, mean[:, None]], 1)
  names = ['held out', 'seen', *[f'draw {k + 1}' for k in range(few.shape[1])], 'mean']
  captions = names + [''] * (len(names) * (len(tiles) - 1))
  plots.image_grid(path, np.clip(tiles.reshape(-1, *x.shape[1:]), -1, 1), captions, columns=len(names))


def _tell(workdir: str, report: dict[str, Any]) -> None:
  for name, told in report['psnr'].items():
    print(f'PSNR of {name.replace("_", "-"):15} {told["value"]:7.2f} +- {told["se"]:.2f} dB')
  told = report['coverage']
  print(f'{told["value"]:.3f} of the numbers lie within {told["draws"]} draws ({told["expected"]:.3f} of a true '
        f'posterior), misfit {report["misfit"]:.2f}')  # fmt: skip
  print(f'{report["n"]} examples, {report["nfe"]} evaluations a draw: {workdir}/report.json')
