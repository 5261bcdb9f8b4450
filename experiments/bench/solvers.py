"""What solvers cost beside the network: operations, compilation, and many tables at once.

    python -m experiments.bench.solvers [--rounds=15]

Bounds: compiled FLOPs of any table <= 1.02 x its forwards, U-Net 64 x (1, 2, 2) at 32 x 32 (tables with as many
registers and the same flags are one program, so each such program is measured once); a population of 64 tables on the
2-D mixture in one program <= 1.2 x the compiled loop over them at 1024 particles, and at least 5 x faster at 16. The
seconds to trace and to compile each solver with an MLP are reported.
"""

import argparse
import time

import jax
import jax.numpy as jnp
import numpy as np

from diffjax import exact, kinds, nets, schedules, search, solvers
from diffjax.prediction import Denoiser
from diffjax.solvers import grids, sample
from diffjax.train.plan import counted
from experiments.bench.timing import compare

STEPS = 10


def denoiser(net, shape):
  """The network with random weights on the cosine process."""
  params = net.init(jax.random.key(0), jnp.zeros((1, *shape)), jnp.zeros(1))
  leaves, treedef = jax.tree.flatten(params)
  draws = jax.random.split(jax.random.key(1), len(leaves))
  params = [0.02 * jax.random.normal(k, p.shape) for k, p in zip(draws, leaves, strict=True)]
  return Denoiser(jax.tree.unflatten(treedef, params), schedules.cosine(), kinds.v(), net=net)


def laid_out(process):
  """Name -> table, each with its default options on a grid in t that stays above alpha = 0."""
  return {name: getattr(solvers, name)(process, grids.uniform(process, STEPS)) for name in solvers.tables.__all__}


def operations():
  """FLOPs of a row over those of a forward, one line a program."""
  denoise = denoiser(nets.unet(width=64, channel_mult=(1, 2, 2), blocks_per_level=2, attention=(16,)), (32, 32, 3))
  x = jnp.zeros((16, 32, 32, 3))
  bare = (
    jax.jit(lambda params, x, t: denoise.net(params, x, t, None, None))
    .lower(denoise.params, x, jnp.zeros(16))
    .compile()
  )
  forward = counted(bare)
  programs = {}
  for name, table in laid_out(denoise.process).items():
    programs.setdefault((len(table.registers), table.stochastic, table.skips), []).append((name, table))
  for (registers, stochastic, skips), same in sorted(programs.items()):
    key = jax.random.key(0) if stochastic else None
    run = jax.jit(lambda denoise, solver, x: sample(denoise, solver, x, key))  # noqa: B023
    ratio = counted(run.lower(denoise, same[0][1], x).compile()) / forward
    flags = f'{registers} registers' + (', stochastic' if stochastic else '') + (', skips rows' if skips else '')
    print(f'FLOPs x {ratio:.4f}  {flags}: {", ".join(name for name, _ in same)}', flush=True)


def compilation():
  """Seconds to trace and to compile, each solver with an MLP 256 x 3."""
  denoise = denoiser(nets.mlp(width=256, depth=3), (64,))
  x = jnp.zeros((256, 64))
  for name, table in laid_out(denoise.process).items():
    jax.clear_caches()
    start = time.perf_counter()
    lowered = jax.jit(lambda denoise, solver, x: sample(denoise, solver, x, jax.random.key(0))).lower(denoise, table, x)
    traced = time.perf_counter()
    lowered.compile()
    print(f'{name}: traced in {traced - start:.2f} s, compiled in {time.perf_counter() - traced:.2f} s', flush=True)


def populations(rounds):
  """64 tables by one program against a loop of one compiled program."""
  process = schedules.cosine()
  three = [0.5, 0.3, 0.2], [[1, 0.5], [-0.8, -1], [-0.5, 1.2]]
  denoise = exact.mixture(*three, [0.16, 0.09, 0.25]).denoiser(process)
  tables = [solvers.dpmpp_2m(process, grids.noise_share(process, STEPS, power=p)) for p in np.linspace(1, 2, 64)]
  together = jax.tree.map(jnp.asarray, search.population(tables))
  apart = [jax.tree.map(jnp.asarray, search.member(together, i)) for i in range(64)]
  for particles in (1024, 16):
    x = jax.random.normal(jax.random.key(2), (particles, 2))
    zeros = jnp.zeros_like(x)
    programs = {
      'loop': lambda x=x, zeros=zeros: [search.rms(sample(denoise, table, x), zeros) for table in apart],
      'population': lambda x=x, zeros=zeros: search.errors(denoise, together, x, zeros),
    }
    row = compare(programs, rounds)
    print(f'64 tables, {particles} particles: one program takes {row["population"]["wall_ratio"]:.3f} of the loop '
          f'({row["population"]["wall"]:.4f} s against {row["loop"]["wall"]:.4f} s)', flush=True)  # fmt: skip


def main():
  parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
  parser.add_argument('--rounds', type=int, default=15)
  rounds = parser.parse_args().rounds
  populations(rounds)
  compilation()
  operations()


if __name__ == '__main__':
  main()
