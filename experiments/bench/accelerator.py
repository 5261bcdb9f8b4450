"""Model FLOPs utilisation of training on an accelerator: DiT-XL/2 on 32 x 32 x 4 latents and a U-Net, in bfloat16.

    python -m experiments.bench.accelerator [--case=dit|unet] [--batch=64] [--remat=dots] [--attention=cudnn]

utilisation = 3 x (operations of a forward) x batch / (seconds a step x peak of the devices). The operations are those
that XLA counts in the forward pass as it is written, before any recomputation, at two a multiply-add; the backward pass
counts twice the forward, recomputation counts nothing. The step is `diffjax.train.step` whole: guard, Adam, average,
log. Peaks are the vendors' dense bfloat16 figures. Goal: at least .45 for the DiT. Refuses to run on a CPU.
"""

import argparse
import time
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from diffjax import losses, nets, schedules
from diffjax.roles import Method, Phase
from diffjax.train import ema
from diffjax.train.loop import abstract_state
from diffjax.train.plan import counted
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


def forward_operations(net, shape: tuple[int, ...]) -> float:
  """Operations of one example's forward pass."""
  x, t, labels = jnp.zeros((1, *shape)), jnp.zeros(1), jnp.zeros(1, jnp.int32)
  params = jax.eval_shape(net.init, jax.random.key(0), x, t, labels)
  return counted(jax.jit(lambda params: net(params, x, t, labels)).lower(params))


def measured(net, shape: tuple[int, ...], batch: int, steps: int) -> float:
  """Median seconds of a training step, the batch over all devices."""
  process, averages = schedules.flow(), ema.averages((0.9999,))
  method = Method((Phase('student', losses.denoising(process, net, 'velocity'), optax.adam(1e-4)),))
  mesh = make_mesh()
  rows = {'x': np.zeros((batch, *shape), np.float32), 'cond': np.zeros(batch, np.int32)}
  inputs = jnp.zeros((1, *shape)), jnp.zeros(1), jnp.zeros(1, jnp.int32)
  init = lambda key: {'student': net.init(key, *inputs)}  # noqa: E731
  make, target = abstract_state(method, init, jax.random.key(0), rows, mesh, averages)
  step = jit_train_step(method, target, averages)
  state, rows, taken = make(), jax.device_put(rows, batch_sharding(mesh)), []
  for _ in range(steps + 3):
    start = time.perf_counter()
    state, signals = step(state, rows, (0,))
    jax.block_until_ready(signals)
    taken.append(time.perf_counter() - start)
  return float(np.median(taken[3:]))


def main():
  parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
  parser.add_argument('--case', choices=('dit', 'unet'), default='dit')
  parser.add_argument('--batch', type=int, default=64, help='examples a device')
  parser.add_argument('--remat', default=None, help='a policy of the network: True, dots, dots_no_batch')
  parser.add_argument('--attention', default='cudnn', help="of the DiT: 'cudnn' or 'xla'")
  parser.add_argument('--steps', type=int, default=20)
  options = parser.parse_args()
  best, remat = peak() * jax.device_count(), True if options.remat == 'True' else options.remat
  plain: dict[str, Any] = dict(classes=1000, dtype='bfloat16')
  if options.case == 'dit':
    net, shape = nets.dit('XL', **plain, attention=options.attention, remat=remat), (32, 32, 4)
    counted = nets.dit('XL', classes=1000)
  else:
    sizes: dict[str, Any] = dict(width=192, levels=(1, 2, 3, 4), blocks=3, attention=(32, 16, 8))
    net, shape = nets.unet(**sizes, **plain, remat=remat), (64, 64, 3)
    counted = nets.unet(**sizes, classes=1000)
  operations, batch = forward_operations(counted, shape), options.batch * jax.device_count()
  seconds = measured(net, shape, batch, options.steps)
  rate = 3 * operations * batch / seconds
  print(f'{options.case}, {jax.device_count()} x {jax.devices()[0].device_kind}, batch {batch}: '
        f'{operations / 1e9:.1f} GFLOP a forward, {1e3 * seconds:.1f} ms a step, {rate / 1e12:.0f} TFLOP/s, '
        f'utilisation {rate / best:.3f}')  # fmt: skip


if __name__ == '__main__':
  main()
