"""Model FLOPs utilisation of training on an accelerator: DiT-XL/2 on 32 x 32 x 4 latents and a U-Net, in bfloat16.

    python -m experiments.bench.accelerator [--case=dit|unet] [--batch=64] [--remat=dots] [--attention=cudnn] [--scan]
                                            [--operations=20]

utilisation = 3 x (operations of a forward) x batch / (seconds a step x peak of the devices). The operations are two a
multiply-add of the matrix products and convolutions in the forward pass as it is written (`diffjax.train.flops`); the
backward pass counts twice the forward, recomputation counts nothing. The step is `diffjax.train.step` whole: guard,
Adam, average, log. Its time is the median of five runs of `steps` steps over their number, dispatched together as
training does. Peaks are the vendors' dense bfloat16 figures. Goal: at least .45 for the DiT. Refuses to run on a CPU.
On a GPU, XLA_FLAGS=--xla_gpu_enable_command_buffer= shows `--operations` by name, where a CUDA graph would be one.
"""

import argparse
import tempfile
import time
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from diffjax import losses, nets, schedules
from diffjax.commands.profile import tell_operations
from diffjax.train import ema, trace
from diffjax.train.flops import flops
from diffjax.train.loop import abstract_state
from diffjax.train.roles import Method, Phase
from diffjax.train.sharding import batch_sharding, make_mesh
from diffjax.train.step import jit_train_step

PEAK = {  # operations a second a device
  'H100': 989e12, 'H200': 989e12, 'A100': 312e12, 'TPU v4': 275e12, 'TPU v5 lite': 197e12, 'TPU v5p': 459e12,
  'TPU v6 lite': 918e12,
}  # fmt: skip


def peak() -> float:
  """The peak of the default device, from its kind; SystemExit where it is not in the table."""
  kind = jax.devices()[0].device_kind
  known = [rate for name, rate in PEAK.items() if name in kind]
  if not known:
    raise SystemExit(f'device: got {kind!r}; allowed: one of {", ".join(PEAK)}, whose peak is known')
  return known[0]


def forward_operations(net, shape: tuple[int, ...]) -> int:
  """Of one example."""
  x, t, labels = jnp.zeros((1, *shape)), jnp.zeros(1), jnp.zeros(1, jnp.int32)
  params = jax.eval_shape(net.init, jax.random.key(0), x, t, labels)
  return flops(lambda params: net(params, x, t, labels), params)


class Trainer:
  """Training of a network on noise, the batch over all devices: what one step needs, compiled."""

  def __init__(self, net, shape: tuple[int, ...], batch: int):
    process, averages = schedules.flow(), ema.averages((0.9999,))
    method = Method((Phase('student', losses.denoising(process, net, 'velocity'), optax.adam(1e-4)),))
    mesh, draw = make_mesh(), np.random.default_rng(0)
    rows = {'x': draw.normal(size=(batch, *shape)).astype(np.float32), 'cond': draw.integers(0, 1000, batch)}
    inputs = jnp.zeros((1, *shape)), jnp.zeros(1), jnp.zeros(1, jnp.int32)
    init = lambda key: {'student': net.init(key, *inputs)}  # noqa: E731
    make, target = abstract_state(method, init, jax.random.key(0), rows, mesh, averages)
    self.rows = jax.device_put(rows, batch_sharding(mesh))
    step, self.state = jit_train_step(method, target, averages), make()
    start = time.perf_counter()
    self.step = step.lower(self.state, self.rows, (0,)).compile()
    self.compiled = time.perf_counter() - start

  def steps(self, n: int) -> float:
    """Seconds a step."""
    start = time.perf_counter()
    for _ in range(n):
      self.state, signals = self.step(self.state, self.rows)
    jax.block_until_ready(signals)
    return (time.perf_counter() - start) / n

  def profile(self, n: int, shown: int) -> None:
    """Print the operations of a step that take longest."""
    with tempfile.TemporaryDirectory() as where:
      with jax.profiler.trace(where):
        self.steps(n)
      found = trace.operations(next(Path(where).rglob('*.xplane.pb')))
    tell_operations(found, trace.sources(self.step.as_text()), n, shown)


def main():
  parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
  parser.add_argument('--case', choices=('dit', 'unet'), default='dit')
  parser.add_argument('--batch', type=int, default=64, help='examples a device')
  parser.add_argument('--remat', default=None, help='a policy of the network: True, dots, dots_no_batch')
  parser.add_argument('--attention', default='cudnn', help="of the DiT: 'cudnn' or 'xla'")
  parser.add_argument('--scan', action='store_true', help='of the DiT: compile one block')
  parser.add_argument('--steps', type=int, default=10)
  parser.add_argument('--operations', type=int, default=0, help='show this many of the longest operations')
  options = parser.parse_args()
  best, remat = peak() * jax.device_count(), True if options.remat == 'True' else options.remat
  plain: dict[str, Any] = dict(classes=1000, dtype='bfloat16', remat=remat)
  if options.case == 'dit':
    net, shape = nets.dit('XL', **plain, attention_impl=options.attention, scan=options.scan), (32, 32, 4)
    bare = nets.dit('XL', classes=1000)
  else:
    sizes: dict[str, Any] = dict(width=192, channel_mult=(1, 2, 3, 4), blocks_per_level=3, attention=(32, 16, 8))
    net, shape = nets.unet(**sizes, **plain), (64, 64, 3)
    bare = nets.unet(**sizes, classes=1000)
  operations, batch = forward_operations(bare, shape), options.batch * jax.device_count()
  trainer = Trainer(net, shape, batch)
  trainer.steps(3)
  seconds = float(np.median([trainer.steps(options.steps) for _ in range(5)]))
  rate = 3 * operations * batch / seconds
  print(f'{options.case}, {jax.device_count()} x {jax.devices()[0].device_kind}, batch {batch}: '
        f'{operations / 1e9:.1f} GFLOP a forward, {1e3 * seconds:.1f} ms a step, {rate / 1e12:.0f} TFLOP/s, '
        f'utilisation {rate / best:.3f}, compiled in {trainer.compiled:.0f} s', flush=True)  # fmt: skip
  if options.operations:
    trainer.profile(3, options.operations)


if __name__ == '__main__':
  main()
