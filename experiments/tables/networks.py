"""Three networks on the digits, over several seeds: with bars for each, set before any run.

    python -m experiments.tables.networks --rows=unet,dit,uvit --seeds=0,1,2 [--config.section.key=value ...]

Each run lies in runs/table_networks/ROW/SEED, resumed if it was stopped. The bars, set before any run:

    unet   U-Net of width 32, kind eps, no labels, 3000 steps of 128: eps error < .14, and with 50 DDIM steps
           FD64 / floor < 8
    dit    experiments/configs/dit_digits.py, guidance 1.5, 50 DDIM steps: label consistency > .90, FD64 / floor < 10
    uvit   U-ViT of width 96 and 4 + 1 blocks, kind eps, no labels, 3000 steps of 128: the eps error is at least 2%
           below that of the same network without its long skips, where a block reads the one before alone

eps error: of the averaged weights on the 360 held-out images, 8 draws each, t uniform. FD64: Frechet distance in pixels
(covariances shrunk by .001) of 360 samples to the held-out images; its floor is that of the training images.
"""

import argparse
import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from diffjax import losses
from diffjax.losses import times
from diffjax.metrics import digits
from diffjax.metrics.frechet import frechet
from diffjax.nets import Apply
from diffjax.runs import examples
from diffjax.runs.config import from_file, override
from diffjax.runs.experiment import Experiment, build
from diffjax.runs.generate import generate
from diffjax.train import loop

__all__ = ['ROWS', 'Unskipped', 'eps_error', 'trained']

CONFIGS = 'experiments/configs'
PLAIN = (
  'data.classes=0',
  'loss.drop_cond=0.0',
  'loss.kind=eps',
  'train.steps=3000',
  'train.batch=128',
  'sampling.guidance_scale=1.0',
)
DDIM = ('sampling.solver.name=ddim', 'sampling.grid.name=uniform', 'sampling.steps=50', 'mesh.cpu_devices=0')


class Unskipped(NamedTuple):
  """A U-ViT whose later blocks read the one before alone: their maps of [h, skip] are [1, 0], whatever was trained."""

  net: Apply

  def __call__(self, params: Any, x: Any, t: Any, cond: Any = None, key: Any = None) -> Any:
    """What the network returns where every skip is cut."""
    width = params['norm']['scale'].size
    straight = dict(kernel=jnp.eye(2 * width, width), bias=jnp.zeros(width))
    cut = {k: {**part, 'skip': straight} if k.startswith('out_block') else part for k, part in params.items()}
    return self.net(cut, x, t, cond, key)


def experiment(file: str, *changes: str) -> Experiment:
  return build(override(from_file(f'{CONFIGS}/{file}.py'), [f'--config.{change}' for change in changes]))


def trained(what: Experiment, workdir: Path, net: Any = None) -> Any:
  """The averaged weights after the config's training, of another network function where one is given."""
  c: Any = what.config
  if net is not None:
    loss = losses.denoising(what.process, net, what.parts.kind, times=times.stratified())
    phases = (dataclasses.replace(what.method.phases[0], loss=loss),)
    what = dataclasses.replace(what, method=dataclasses.replace(what.method, phases=phases))
  batches = examples.stream(what, examples.dataset(what, 'train'))
  done = loop.fit(
    what.method, what.init, batches, steps=c.train.steps, key=jax.random.key(c.seed), workdir=str(workdir),
    ema=what.averages, log_every=c.train.log_every, save_every=c.train.save_every, progress=False,
  )  # fmt: skip
  return jax.tree.map(jnp.asarray, done.state.ema['student'][what.averages[0].name])


def eps_error(what: Experiment, params: Any, net: Any = None, draws: int = 8) -> float:
  """E |eps_hat - eps|^2 an element on the held-out images, for networks of kind eps."""
  loss = jax.jit(losses.denoising(what.process, net or what.net, 'eps', times=times.stratified()))
  images, _ = examples.arrays(what, 'test')
  values = [loss({'student': params}, {'x': images}, jax.random.key(i))[0] for i in range(draws)]
  return float(np.mean(values))


def distance(what: Experiment, drawn: np.ndarray) -> float:
  held, seen = (examples.arrays(what, split)[0].reshape(-1, 64) for split in ('test', 'train'))
  own = np.clip(drawn, -1, 1).reshape(-1, 64)
  return frechet(held, own, shrinkage=1e-3) / frechet(held, seen, shrinkage=1e-3)


def drawn(what: Experiment, params: Any) -> tuple[np.ndarray, np.ndarray | None]:
  """As many samples as there are held-out images, with their labels."""
  images, labels = examples.arrays(what, 'test')
  seed = int(what.config.to_dict()['seed'])
  return generate(what.generator({'student': params}), len(images), labels, seed=seed, batch=len(images)), labels


def unet(seed: str, workdir: Path, overrides: Sequence[str]) -> dict[str, tuple[float, bool]]:
  what = experiment('digits', *PLAIN, *DDIM, 'net.width=32', f'seed={seed}', *overrides)
  params = trained(what, workdir)
  error, ratio = eps_error(what, params), distance(what, drawn(what, params)[0])
  return {'eps error': (error, error < 0.14), 'FD64 / floor': (ratio, ratio < 8)}


def dit(seed: str, workdir: Path, overrides: Sequence[str]) -> dict[str, tuple[float, bool]]:
  what = experiment('dit_digits', *DDIM, f'seed={seed}', *overrides)
  images, labels = drawn(what, trained(what, workdir))
  same = float(np.mean(digits.labels(np.clip(images, -1, 1)) == labels))
  ratio = distance(what, images)
  return {'label consistency': (same, same > 0.9), 'FD64 / floor': (ratio, ratio < 10)}


def uvit(seed: str, workdir: Path, overrides: Sequence[str]) -> dict[str, tuple[float, bool]]:
  what = experiment('dit_digits', *PLAIN, *DDIM, 'net.name=uvit', 'net.depth=4', 'net.width=96', 'net.heads=4',
                    f'seed={seed}', *overrides)  # fmt: skip
  cut = Unskipped(what.net)
  error = eps_error(what, trained(what, workdir / 'skips'))
  without = eps_error(what, trained(what, workdir / 'none', cut), cut)
  return {'eps error': (error, True), 'without skips': (without, error < 0.98 * without)}


ROWS = dict(unet=unet, dit=dit, uvit=uvit)


def main() -> None:
  parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
  parser.add_argument('--rows', default='unet,dit,uvit')
  parser.add_argument('--seeds', default='0,1,2')
  parser.add_argument('--workdir', default='runs/table_networks')
  options, overrides = parser.parse_known_args()
  changes = [override.removeprefix('--config.') for override in overrides]
  print('| network | seed | figures |\n|---|---|---|')
  for row in options.rows.split(','):
    for seed in options.seeds.split(','):
      figures = ROWS[row](seed, Path(options.workdir) / row / seed, changes)
      told = [f'{name} {value:.4f} {"met" if met else "missed"}' for name, (value, met) in figures.items()]
      print(f'| {row} | {seed} | {", ".join(told)} |', flush=True)


if __name__ == '__main__':
  main()
