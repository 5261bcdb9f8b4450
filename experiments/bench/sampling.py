"""What the algebra costs: 20 evaluations of DPM-Solver++(2M) against a scan of 20 bare forwards of the same network.

    python -m experiments.bench.sampling [--rounds=15]

Each bare forward reads the output of the one before: a loop-invariant one would be hoisted out of the scan. Bounds:
compiled FLOPs <= 1.01 x, CPU seconds <= 1.03 x for the U-Net and the DiT and <= 1.08 x for the MLP. Beside it:
operations of the bare forwards a second, as a share of what a 2048 matmul reaches on this machine.
"""

import argparse

import jax
import jax.numpy as jnp

from diffjax import kinds, nets, schedules
from diffjax.prediction import Denoiser
from diffjax.solvers import dpmpp_2m, grids, sample
from diffjax.train.plan import counted
from experiments.bench.timing import compare, matmul_rate

STEPS = 20


def case(net, x):
  """The two programs on one network, the ratio of their FLOPs, and the operations of one forward."""
  process = schedules.cosine()
  params = net.init(jax.random.key(0), x, jnp.zeros(len(x)))
  leaves, treedef = jax.tree.flatten(params)
  draws = jax.random.split(jax.random.key(1), len(leaves))
  params = jax.tree.unflatten(
    treedef, [0.02 * jax.random.normal(k, p.shape) for k, p in zip(draws, leaves, strict=True)]
  )
  denoise = Denoiser(params, process, kinds.v(), net=net)
  solver = dpmpp_2m(process, grids.uniform(process, STEPS))

  @jax.jit
  def bare(params, x, ts):
    return jax.lax.scan(lambda x, t: (net(params, x, jnp.full(len(x), t)), None), x, ts)[0]

  ts = 1000 * jnp.asarray(solver.rows.t, jnp.float32)
  ours = jax.jit(lambda denoise, solver, x: sample(denoise, solver, x))
  forward = counted(bare.lower(params, x, ts).compile())  # of a scan, the body once
  ratio = counted(ours.lower(denoise, solver, x).compile()) / forward
  return {'bare forwards': lambda: bare(params, x, ts), 'dpmpp_2m': lambda: ours(denoise, solver, x)}, ratio, forward


def main():
  parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
  parser.add_argument('--rounds', type=int, default=15)
  rounds = parser.parse_args().rounds
  cases = {
    'U-Net 64 x (1, 2, 2), 32 x 32, batch 16': (
      nets.unet(width=64, channel_mult=(1, 2, 2), blocks_per_level=2, attention=(16,)),
      jax.random.normal(jax.random.key(2), (16, 32, 32, 3)),
    ),
    'DiT-S/4, 32 x 32, batch 16': (nets.dit('S', patch=4), jax.random.normal(jax.random.key(2), (16, 32, 32, 3))),
    'MLP 4096 x 2, batch 256': (
      nets.mlp(width=4096, depth=2),
      jax.random.normal(jax.random.key(2), (256, 64)),
    ),
  }
  rate = matmul_rate()
  for name, (net, x) in cases.items():
    programs, ratio, forward = case(net, x)
    row = compare(programs, rounds if 'MLP' in name else max(3, rounds // 3))
    ours = row['dpmpp_2m']
    print(f'{name}: FLOPs x {ratio:.4f}, CPU x {ours["cpu_ratio"]:.3f}, wall x {ours["wall_ratio"]:.3f} '
          f'({ours["wall"]:.3f} s against {row["bare forwards"]["wall"]:.3f} s); bare at '
          f'{STEPS * forward / row["bare forwards"]["wall"] / rate:.2f} of {rate / 1e9:.0f} GFLOP/s')  # fmt: skip


if __name__ == '__main__':
  main()
