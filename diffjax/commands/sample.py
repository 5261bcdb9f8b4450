"""diffjax sample."""

import argparse
from collections.abc import Sequence
from typing import Any

from diffjax.commands.draw import (
  MADE,
  Trained,
  draw,
  drawing,
  is_main_process,
  of_images,
  picture,
  sampler,
  titles,
  write_npz,
)
from diffjax.commands.start import add_distributed_arguments, barrier
from diffjax.errors import InputError

__all__ = ['TEXT', 'arguments', 'run']

TEXT = """\
Draw samples from a checkpoint of a run with the solver, steps and guidance scale of its config, or others.

Sample k of a seed depends on the seed and k alone, whatever the batch, mesh or number of hosts.

--n=10 draws k = 0 to 9 and writes OUT.npz (samples, float in the range of the data, and labels) and OUT.png.

--seeds=0-9 draws the same k for evaluation suites, where they may be many thousands: all hosts share the work and write
finished parts to OUT/; after a stop the same command goes on, on any number of hosts; at the end process 0 writes
OUT.npz, and a file or a draw that is there already is never replaced. arr_0 are the images in the order of k, uint8
(n, H, W, C), 127.5 x + 128 cut to 0..255 and rounded down, arr_1 the labels. Data that are no images stay float, under
the names samples and labels.

--source=OTHER translates: sample k is the k-th held-out example of the run OTHER, encoded into the noises of a
stochastic solver (--config.sampling.solver=ddpm) by that run's network and drawn by this one's. With OTHER the run
itself, --labels=3 makes each held-out digit a 3."""

LAST = 2**31 - 1


def arguments(parser: argparse.ArgumentParser) -> None:
  """What the command takes beside --workdir."""
  parser.add_argument(
    '--labels', metavar='0,1,2', help='the classes to draw: sample k has the k-th of them, over and over, or, with '
    '`random`, one drawn from its own key; all in turn by default')  # fmt: skip
  parser.add_argument('--n', type=int, help='how many samples; one a label by default')
  parser.add_argument('--seeds', metavar='0-9,12', help='the samples k to draw, rising, for evaluation suites')
  parser.add_argument('--source', metavar='OTHER', help='a run whose held-out examples are translated')
  parser.add_argument('--seed', type=int, default=0)
  parser.add_argument('--step', type=int, help='the checkpoint to take; the newest by default')
  parser.add_argument('--solver', metavar='FILE', help="a solver that diffjax search wrote; the config's by default")
  parser.add_argument('--out', metavar='PATH', help='where to write, without suffix; WORKDIR/drawn by default, with '
                      '--seeds WORKDIR/seeds')  # fmt: skip
  add_distributed_arguments(parser)


def run(options: argparse.Namespace, overrides: Sequence[str]) -> None:
  """Draw samples and write them with a picture, or part by part."""
  from diffjax.keys import check_seed
  from diffjax.runs import record
  from diffjax.runs.sampling import guidance_scale

  check_seed(options.seed)
  config = record.read_config(options.workdir)
  given = _labels(options.labels, config.data.classes)
  ks = _seeds(options)
  if ks is None:
    import numpy as np

    ks = np.arange(options.n if options.n is not None else config.data.classes or 10 if given is None else len(given))
  out = options.out or f'{options.workdir}/{"drawn" if options.seeds is None else "seeds"}'
  out = out.removesuffix('.npz').removesuffix('.png')
  trained = sampler(options, overrides, options.step)
  labels = _classes(options, given, trained.experiment.classes, ks)
  cond = None
  if options.source:
    from diffjax.commands.translate import translation

    trained, cond, labels = translation(options, trained, labels, ks)
  if options.seeds is None:
    _few(options, trained, ks, labels, out, _conditions(trained, labels, ks) if cond is None else cond)
  else:
    _many(options, trained, ks, labels, out)
  c = trained.experiment.config.sampling
  if is_main_process():
    kinds = '.npz and .png' if options.seeds is None else '.npz'
    leap = f' from sigma / alpha <= {c.teleport:g} on' if c.teleport else ''
    print(f'{len(ks)} samples, {options.solver or c.solver.name + leap}, {trained.generator.nfe} evaluations, '
          f'scale {guidance_scale(c):g}: {out}{kinds}')  # fmt: skip


def _few(options: argparse.Namespace, trained: Trained, ks: Any, labels: Any, out: str, cond: Any) -> None:
  drawn = draw(trained, len(ks), cond, options.seed)
  if is_main_process():
    write_npz(f'{out}.npz', drawn, labels)
    drawing(f'{out}.png', picture, f'{out}.png', drawn, titles(trained.experiment, labels))


def _many(options: argparse.Namespace, trained: Trained, ks: Any, labels: Any, out: str) -> None:
  """Part by part, then all in one file."""
  from tqdm import tqdm

  from diffjax.runs.generate import drawn
  from diffjax.runs.parts import Parts

  experiment = trained.experiment
  if isinstance(experiment.shape, dict):
    raise InputError(f'seeds: got {options.seeds!r} for data of several modalities; allowed: --n')
  parts = Parts(out, ks, labels, _made(options, trained), images=of_images(experiment))
  batch = experiment.config.sampling.batch

  def some(places: Any) -> Any:
    cond = _conditions(trained, None if labels is None else labels[places], ks[places])
    with tqdm(total=len(places), disable=not is_main_process(), unit='sample', desc='of this host') as bar:
      for x in drawn(trained.generator, ks[places], cond, seed=options.seed, batch=batch, mesh=trained.mesh):
        yield x
        bar.update(len(x))

  parts.fill(some)
  if is_main_process() and not parts.whole.exists():
    parts.join()
  barrier('joined')


def _conditions(trained: Trained, labels: Any, ks: Any) -> Any:
  """What the generator is given for the samples ks: labels, and what else it asks for of the k-th held-out example."""
  from diffjax.runs import examples

  experiment = trained.experiment
  if not experiment.method.conditions:
    return labels
  source = examples.dataset(experiment, experiment.config.evaluation.split)
  return examples.conditions(experiment, labels, source.take(ks % source.size))


def _made(options: argparse.Namespace, trained: Trained) -> dict[str, Any]:
  """All that the samples depend on; of files and weights a digest."""
  import numpy as np
  from etils import epath

  from diffjax import solvers
  from diffjax.fingerprint import digest
  from diffjax.train.checkpoint import checksums

  config = trained.experiment.config.to_dict()
  s = config['sampling']
  weights = digest(dict(words=np.asarray(checksums(trained.roles))))
  if options.solver:
    how, files = dict(file=options.solver), [options.solver]
  else:
    how = {k: s[k] for k in ('solver', 'grid', 'steps', 'teleport')}
    known = solvers.with_statistics.get(s['solver']['name']), 'gaussian' if s['teleport'] else None
    files = [f'{options.workdir}/statistics/{kind}.npz' for kind in known if kind]
  if trained.experiment.spread(options.workdir) is not None:
    files.append(f'{options.workdir}/statistics/data.npz')
  if s['source']:
    files.append(s['source'])
    how['strength'] = s['strength']
  how['digests'] = [digest(dict(bytes=np.frombuffer(epath.Path(file).read_bytes(), np.uint8))) for file in files]
  return dict(
    run={k: config[k] for k in MADE if k != 'train'},
    checkpoint=dict(step=trained.step, ema=s['ema'], weights=weights),
    solver=how,
    guidance={k: s[k] for k in ('guidance_scale', 'interval', 'threshold', 'guidance')},
    labels=options.labels,
    seed=options.seed,
    seeds=options.seeds,
  )


def _seeds(options: argparse.Namespace) -> Any:
  """The samples of --seeds=a-b,c, rising; None without."""
  import numpy as np

  if options.n is not None and options.n < 1:
    raise InputError(f'n: got {options.n}; allowed: at least 1')
  if options.seeds is None:
    return None
  if options.n is not None:
    raise InputError(f'seeds: got {options.seeds!r} and n {options.n}; allowed: one of them, --seeds=0-{options.n - 1}')
  ends = [part.split('-') for part in options.seeds.split(',')]
  rising = [int(e) for pair in ends for e in (pair[0], pair[-1]) if e.isascii() and e.isdigit()]
  whole = len(rising) == 2 * len(ends) and all(len(pair) < 3 for pair in ends) and rising[-1] <= LAST
  if not whole or any(b < a or (b == a and i % 2) for i, (a, b) in enumerate(zip(rising, rising[1:], strict=False))):
    raise InputError(f'seeds: got {options.seeds!r}; allowed: whole numbers and ranges, each above the one before, '
                     f'such as 0-49999 or 0-9,12, up to {LAST}')  # fmt: skip
  return np.concatenate([np.arange(a, b + 1) for a, b in zip(rising[::2], rising[1::2], strict=True)])


def _labels(text: str | None, classes: int) -> Any:
  """The classes of --labels; None without, or for `random`."""
  import numpy as np

  if text is None or (text == 'random' and classes):
    return None
  allowed = f'0 to {classes - 1}, separated by commas, or random' if classes else 'none, this run has no labels'
  try:
    labels = np.array([int(part) for part in text.split(',')], np.int32)
  except ValueError:
    raise InputError(f'labels: got {text!r}; allowed: {allowed}') from None
  wrong = labels[(labels < 0) | (labels >= classes)]
  if len(wrong):
    raise InputError(f'labels: got {wrong[0]}; allowed: {allowed}')
  return labels


def _classes(options: argparse.Namespace, given: Any, classes: int, ks: Any) -> Any:
  """The class of each sample k, a function of the seed and k; None where there are none."""
  import numpy as np

  from diffjax.runs.generate import random_labels

  if not classes:
    return None
  if options.labels == 'random':
    return random_labels(options.seed, ks, classes)
  given = np.arange(classes) if given is None else given
  return given[ks % len(given)].astype(np.int32)
