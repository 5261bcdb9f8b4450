"""Reward against cost: what more evaluations buy, by particles, trees, searches and rollover budgets.

    python -m experiments.tables.inference_scaling --scale=exact
    python -m experiments.tables.inference_scaling --scale=digits --workdir=RUN [--reward=digit] [--config.a.b=... ...]
    python -m experiments.tables.inference_scaling --scale=paper --workdir=RUN [--config.a.b=value ...]

exact    A mixture of three Gaussians with exact reverse kernels of 10 steps, forwards a sample in the second column.
         search: reward -|x - c|^2 with c beside the rarest mode, mean and median of 200 samples; and 1 within .25 of c
         plus .05 times that, which is not smooth. sampling: the tilt exp(.4 x + 1.2 y), distance in total variation of
         the occupancies of its three modes to the exact ones, 1000 samples. The noise of these steps is drawn anew, so
         that zero-order search, which moves the first point alone, finds little; the cost of a tree is the most that it
         may spend.
digits   A trained run under each method at the cost of 8, 16 and 32 of its own samples, mean reward of 200 samples.
paper    The same at the budgets of the papers, 50 and 100 samples' worth.
"""

import argparse
import time
from collections.abc import Callable, Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from diffjax import exact, keys, rewards, schedules, steering
from diffjax.methods import Solved
from diffjax.steering import by_name

__all__ = ['methods', 'published', 'rows']

PROCESS = schedules.edm(0.01, 20.0)
MEANS = [[-2.0, 0.0], [2.0, 0.0], [0.0, 2.5]]
TIMES = np.append(np.linspace(20 ** (1 / 7), 0.05 ** (1 / 7), 10) ** 7, 0.0)
CENTRE, SLOPE = (0.3, 2.9), (0.4, 1.2)
published = {
  'feynman_kac': '2501.06848: 4 particles beat best of 4; .8B steered above 2.6B fine-tuned',
  'tree_search': '2506.20701: as good as best-of-n at a fifth of the cost',
  'zero_order': '2501.09732: random above zero-order above paths at equal budget, by an aesthetic reward',
  'rollover': '2503.19385: rollover above SVDD above SMC above best-of-n',
}


def methods(generator: Any, reward: Callable, cost: int, scale: float) -> dict[str, Any]:
  """Each method over this generator, at a cost of so many forwards a sample, or the next below."""
  steps = generator.nfe
  width = max(cost // (7 * steps), 1)
  made = {
    'none': generator,
    'best_of': by_name.best_of(generator, reward, cost // steps),
    'zero_order': by_name.zero_order(generator, reward, max(cost // steps // 4, 1), neighbours=4),
    'paths': by_name.paths(generator, reward, width, branches=3, first=2, up=1, down=3),
    'feynman_kac': by_name.feynman_kac(generator, reward, particles=cost // steps, scale=scale),
    'svdd': by_name.svdd(generator, reward, cost // steps),
    'rollover': by_name.rollover(generator, reward, cost, begin=max(cost // 8, 1)),
    'tree_sampling': by_name.tree_sampling(generator, reward, cost // steps, scale=scale),
    'tree_search': by_name.tree_search(generator, reward, cost // steps, scale=scale, explore=0.5),
  }
  return made


def mixture(weights: list[float]) -> tuple[exact.Mixture, Solved]:
  target = exact.mixture(weights, MEANS, [0.25] * 3)
  first, zero = jnp.asarray(TIMES[0], jnp.float32), jnp.zeros(())
  law = first, zero, zero
  return target, Solved(target.denoiser(PROCESS), steering.exact_steps(target, PROCESS, TIMES), law, (2,))


def sharp(x: Any, cond: Any) -> Any:
  """1 near the centre, and a little of the square distance."""
  far = rewards.near(CENTRE)(x, cond)
  return (far > -(0.25**2)) + 0.05 * far


def tilt(x: Any, cond: Any) -> Any:
  """The reward whose tilt is a mixture again."""
  return x @ jnp.asarray(SLOPE, x.dtype)


def drawn(made: Any, n: int, labels: Any = None) -> Any:
  """Samples 0 to n - 1, and the seconds of a second run."""
  own = keys.per_sample(jax.random.key(0), n)
  run = jax.jit(lambda made, own, labels: made(own, labels))
  jax.block_until_ready(run(made, own, labels))
  begin = time.perf_counter()
  x = jax.block_until_ready(run(made, own, labels))
  return x, time.perf_counter() - begin


def rows(costs: tuple[int, ...] = (50, 200), n: int = 200, only: tuple[str, ...] = ()) -> Iterator[tuple]:
  """(table, method, cost, figure, figure) of the exact scale."""
  _, generator = mixture([0.6, 0.35, 0.05])
  near = rewards.near(CENTRE)
  for cost in costs:
    for name, made in methods(generator, near, cost, 10.0).items():
      if not only or name in only:
        r = np.asarray(near(drawn(made, n)[0], None))
        yield 'search', name, made.cost, float(r.mean()), float(np.median(r))
  for name, made in methods(generator, sharp, costs[-1], 10.0).items():
    if name in ('best_of', 'feynman_kac', 'svdd', 'rollover') and (not only or name in only):
      r = np.asarray(sharp(drawn(made, n)[0], None))
      yield 'search, not smooth', name, made.cost, float(r.mean()), float(np.median(r))
  target, generator = mixture([0.5, 0.3, 0.2])
  tilted = target.tilt(SLOPE)[0]
  want = occupancy(tilted.sample(keys.per_sample(jax.random.key(9), 100_000)), tilted)
  for name, made in methods(generator, tilt, costs[-1], 1.0).items():
    if name in ('none', 'best_of', 'feynman_kac', 'tree_sampling') and (not only or name in only):
      x = drawn(made, 5 * n)[0]
      yield 'sampling', name, made.cost, float(abs(occupancy(x, tilted) - want).sum() / 2), float(tilt(x, None).mean())


def occupancy(x: Any, target: exact.Mixture) -> np.ndarray:
  """The share of x (n, 2) nearest to each mean."""
  near = np.argmin(((np.asarray(x)[:, None] - np.asarray(target.means)) ** 2).sum(-1), 1)
  return np.bincount(near, minlength=3) / len(near)


def trained(options: argparse.Namespace, overrides: list[str]) -> Iterator[tuple]:
  """(method, cost, mean reward, its standard error, seconds) of a run."""
  from diffjax.methods import solved
  from diffjax.runs import directory
  from diffjax.runs.config import override
  from diffjax.runs.experiment import build

  denoise, _, config = directory.load(options.workdir)
  config = override(config, ['--config.sampling.solver=ancestral', *overrides])
  what = build(config)
  labels = jnp.arange(options.n, dtype=jnp.int32) % what.classes if what.classes else None
  reward = rewards.named(options.reward)
  generator = solved(what.guided(denoise, {}), what.solver(options.workdir), what.shape)
  for times in dict(digits=(8, 16, 32), paper=(50, 100))[options.scale]:
    for name, made in methods(generator, reward, times * generator.nfe, options.scale_of_reward).items():
      x, seconds = drawn(made, options.n, labels)
      r = np.asarray(reward(x, labels))
      yield name, made.cost, float(r.mean()), float(r.std() / np.sqrt(len(r))), seconds


def main() -> None:
  """Prints the table, and the papers' rankings below it."""
  parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
  parser.add_argument('--scale', choices=('exact', 'digits', 'paper'), default='exact')
  parser.add_argument('--workdir')
  parser.add_argument('--reward', default='digit')
  parser.add_argument('--scale-of-reward', type=float, default=2.0)
  parser.add_argument('--n', type=int, default=200)
  options, overrides = parser.parse_known_args()
  if options.scale == 'exact':
    print('| table | method | cost | mean reward (sampling: distance) | median (sampling: mean reward) |')
    print('|---|---|---|---|---|')
    for table, name, cost, first, second in rows():
      print(f'| {table} | {name} | {cost:.0f} | {first:.4f} | {second:.4f} |', flush=True)
  else:
    if not options.workdir:
      parser.error(f'--scale={options.scale} needs --workdir, a trained run')
    print('| method | cost | mean reward | standard error | seconds |')
    print('|---|---|---|---|---|')
    for name, cost, mean, error, seconds in trained(options, overrides):
      print(f'| {name} | {cost:.0f} | {mean:.4f} | {error:.4f} | {seconds:.1f} |', flush=True)
  for name, said in published.items():
    print(f'{name}, arXiv:{said}')


if __name__ == '__main__':
  main()
