"""All modes of one UniDiffuser on pairs of digits and labels, or digits and projections, over several seeds.

    python -m experiments.tables.unidiffuser --seeds=0,1,2 [--other=projection] [--config.section.key=value ...]

Each seed trains experiments/configs/unidiffuser_digits.py in runs/table_unidiffuser/OTHER/SEED (resumed if it was
stopped) and draws with the config's solver, without guidance:

    other -> image     for the held-out digits' label or projection: does the image, read again, agree with it?
    image -> other     for the held-out images: does what is drawn agree with theirs?
    joint              does what is drawn of both agree?
    image alone        Frechet distance of 1437 images to the held-out ones in pixels (covariances shrunk by .001), over
                       that of the 1437 training images

To agree is, for labels, to be of one class, read by the label network of the digits protocol: the bars, set before any
run, are .85 for label -> image and .90 for image -> label. For projections it is 1 - the mean square of the difference,
whose parts have variance 1; no bar is set.
"""

import argparse
from pathlib import Path
from typing import Any

import jax
import numpy as np

from diffjax import keys
from diffjax.cli import main as diffjax
from diffjax.data.pairs import one_hot, projected
from diffjax.guidance.modes import clean, conditional, marginalised
from diffjax.metrics import digits
from diffjax.metrics.frechet import frechet
from diffjax.runs import directory, examples
from diffjax.runs.experiment import build
from diffjax.solvers import sample

__all__ = ['agreement', 'bars', 'modes', 'read']

CONFIG = 'experiments/configs/unidiffuser_digits.py'
BARS = {'label': {'other -> image': 0.85, 'image -> other': 0.90}, 'projection': {}}
BATCH = 360


def read(other: str, images: np.ndarray, seen: np.ndarray) -> np.ndarray:
  """What the other modality of these images is."""
  return one_hot(digits.labels(images)) if other == 'label' else projected(images, seen)


def agreement(other: str, a: np.ndarray, b: np.ndarray) -> float:
  """Between two values of the other modality, (n, d) each."""
  return float(np.mean(a.argmax(1) == b.argmax(1)) if other == 'label' else 1 - np.mean((a - b) ** 2))


def modes(workdir: str, other: str) -> dict[str, float]:
  """The figures of one trained run."""
  denoise, process, config = directory.load(workdir)
  what = build(config)
  solver = what.solver()
  (held, _), (seen, _) = examples.arrays(what, 'test'), examples.arrays(what, 'train')

  def noise(stream: int, n: int) -> dict[str, Any]:
    return process.prior(keys.per_sample(jax.random.key(stream), n), what.parts.rows(n))

  def drawn(of: Any, start: Any, cond: Any = None) -> Any:
    """In batches of one size, so that one program serves a mode."""
    n = jax.tree.leaves(start)[0].shape[0]
    at = [np.arange(i, i + BATCH) % n for i in range(0, n, BATCH)]
    parts = [sample(of, solver, _rows(start, i), cond=_rows(cond, i)) for i in at]
    return jax.tree.map(lambda *x: np.concatenate(x)[:n], *parts)

  n, free = len(held['image']), noise(4, len(seen['image']))
  image = drawn(conditional(denoise, 'image'), noise(1, n)['image'], clean({other: held[other]}))
  value = drawn(conditional(denoise, other), noise(2, n)[other], clean({'image': held['image']}))
  both = drawn(denoise, noise(3, n))
  alone = drawn(conditional(denoise, 'image'), free['image'], marginalised(process, {other: free[other]}))
  return {
    'other -> image': agreement(other, read(other, _clipped(image), seen['image']), held[other]),
    'image -> other': agreement(other, value, held[other]),
    'joint': agreement(other, read(other, _clipped(both['image']), seen['image']), both[other]),
    'image alone, FD64 / floor': _distance(held['image'], alone) / _distance(held['image'], seen['image']),
  }


def _rows(tree: Any, at: np.ndarray) -> Any:
  return jax.tree.map(lambda x: x[at], tree)


def bars(other: str, figures: dict[str, float]) -> dict[str, bool]:
  """Which bars the figures of a run meet."""
  return {name: figures[name] > bar for name, bar in BARS[other].items()}


def _clipped(images: np.ndarray) -> np.ndarray:
  return np.clip(images, -1, 1)


def _distance(held: np.ndarray, images: np.ndarray) -> float:
  return frechet(*(_clipped(x).reshape(len(x), -1) for x in (held, images)), shrinkage=1e-3)


def main() -> None:
  parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
  parser.add_argument('--seeds', default='0,1,2')
  parser.add_argument('--other', default='label', choices=BARS)
  parser.add_argument('--workdir', default='runs/table_unidiffuser')
  options, overrides = parser.parse_known_args()
  lines = []
  for seed in options.seeds.split(','):
    workdir = Path(options.workdir) / options.other / seed
    config = [f'--config={CONFIG}:{options.other}', f'--config.seed={seed}', *overrides]
    if diffjax(['train', f'--workdir={workdir}', *config]):
      raise SystemExit(2)
    figures = modes(str(workdir), options.other)
    missed = [name for name, met in bars(options.other, figures).items() if not met]
    shown = [f'{value:.3f}' for value in figures.values()]
    lines.append([seed, *shown, 'missed: ' + ', '.join(missed) if missed else 'met' if BARS[options.other] else 'none'])
    titles = ['seed', *figures, 'bars']
  for line in (titles, ['---'] * len(titles), *lines):
    print('| ' + ' | '.join(line) + ' |')


if __name__ == '__main__':
  main()
