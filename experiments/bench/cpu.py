"""The U-Net on CPU cores: diffjax on one and on several host devices against PyTorch, in the same run.

    pip install torch && python -m experiments.bench.cpu [--rounds=7] [--devices=2]

U-Net 64 x (1, 2, 2) at 32 x 32, batch 16, float32, the same weights on both sides (the outputs are compared first): a
forward, and the loss with its gradient. XLA runs small operations on one core; with the batch split over as many host
devices as there are cores (`mesh.cpu_devices`), all of them run on every core. Goal: at least PyTorch's time.
"""

import argparse
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from diffjax import nets
from diffjax.train import compiler
from experiments.bench.timing import compare, matmul_rate

SIZES: dict[str, Any] = dict(width=64, channel_mult=(1, 2, 2), blocks_per_level=2)
ROWS = 16


def task():
  """The network, its weights and one batch, as NumPy arrays."""
  net = nets.unet(**SIZES, attention=(16,))
  draws = np.random.default_rng(0)
  x, y = draws.standard_normal((2, ROWS, 32, 32, 3)).astype(np.float32)
  t = np.linspace(1, 900, ROWS, dtype=np.float32)
  like = jax.eval_shape(net.init, jax.random.key(0), x, t)
  return net, jax.tree.map(lambda leaf: np.float32(0.03 * draws.standard_normal(leaf.shape)), like), x, t, y


def ours(net, params, x, t, y, devices):
  """(forward, gradient) with the batch over so many devices."""
  auto = (jax.sharding.AxisType.Auto,)
  mesh = jax.make_mesh((devices,), ('data',), axis_types=auto, devices=jax.devices()[:devices])
  rows, whole = (jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec(*axes)) for axes in (('data',), ()))
  given = jax.device_put(params, whole), *jax.device_put((x, t, y), rows)
  forward = jax.jit(lambda params, x, t, y: net(params, x, t))
  loss = lambda params, x, t, y: jnp.mean((net(params, x, t) - y) ** 2)  # noqa: E731
  gradient = jax.jit(jax.value_and_grad(loss), compiler_options=compiler.training())
  return lambda: forward(*given), lambda: gradient(*given)


def theirs(params, x, t, y, layout):
  """The same in PyTorch, images in this memory layout."""
  import torch  # pyright: ignore[reportMissingImports]

  from experiments.bench.torch_unet import unet, weights

  made = weights(params, layout)
  leaves = jax.tree.leaves(made)
  x, y = (torch.tensor(a).permute(0, 3, 1, 2).contiguous(memory_format=layout) for a in (x, y))
  run = lambda: unet(made, x, torch.tensor(t), **SIZES, places=(16,))  # noqa: E731

  def forward():
    with torch.no_grad():
      return run()

  return forward, lambda: torch.autograd.grad(((run() - y) ** 2).mean(), leaves)


def main():
  parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
  parser.add_argument('--rounds', type=int, default=7)
  parser.add_argument('--devices', type=int, default=2, help='host devices, one a core')
  options = parser.parse_args()
  jax.config.update('jax_num_cpu_devices', options.devices)
  try:
    import torch  # pyright: ignore[reportMissingImports]
  except ImportError:
    raise SystemExit('torch: not installed; allowed: an environment with it (pip install torch)') from None
  given = task()
  pairs = {
    'PyTorch, channels last': theirs(*given[1:], torch.channels_last),
    'PyTorch': theirs(*given[1:], torch.contiguous_format),
    'diffjax, one device': ours(*given, 1),
    f'diffjax, {options.devices} devices': ours(*given, options.devices),
  }
  want = np.asarray(pairs['diffjax, one device'][0]())
  for name, (forward, _) in pairs.items():
    if 'PyTorch' in name:
      got = forward().permute(0, 2, 3, 1).numpy()
      assert np.abs(got - want).max() < 1e-4 * np.abs(want).max(), name
  print(f'matmul of 2048: {matmul_rate() / 1e9:.0f} GFLOP/s')
  for place, what in enumerate(('forward', 'loss and gradient')):
    table = compare({name: pair[place] for name, pair in pairs.items()}, options.rounds)
    for name, row in table.items():
      print(f'{what}, {name}: {1e3 * row["wall"]:.0f} ms, x {row["wall_ratio"]:.3f} '
            f'(CPU {1e3 * row["cpu"]:.0f} ms, x {row["cpu_ratio"]:.3f})', flush=True)  # fmt: skip


if __name__ == '__main__':
  main()
