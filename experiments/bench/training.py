"""The train step against a bare one: value_and_grad of the same loss, AdamW and one moving average, nothing else.

    python -m experiments.bench.training [--rounds=15]

Ours also guards against non-finite steps, logs the loss by time bin and takes phases. Bound: >= 0.97 x bare steps/s.
Ours donates its state, for half the memory; told too is the ratio to a bare step that does. One that keeps its inputs
is faster where weights outweigh activations: on a CPU XLA keeps temporary values in the arrays that it will return.
Beside it: operations of the bare step a second, as a share of what a 2048 matmul reaches on this machine.
"""

import argparse

import jax
import jax.numpy as jnp
import optax

from diffjax import keys, losses, nets, schedules
from diffjax.train import compiler, ema
from diffjax.train.plan import counted
from diffjax.train.roles import Method, Phase
from diffjax.train.step import init_state, make_train_step
from experiments.bench.timing import compare, matmul_rate

INNER = 5  # steps a round


def case(net, x, labels):
  """The two programs on one network, and the operations of a bare step."""
  process = schedules.cosine()
  loss = losses.denoising(process, net)
  batch = {'x': x, 'cond': labels} if labels is not None else {'x': x}
  optimiser = optax.chain(optax.clip_by_global_norm(1.0), optax.adamw(1e-4))
  params = net.init(jax.random.key(0), x[:1], jnp.zeros(1), None if labels is None else labels[:1])
  key = jax.random.key(1)

  def bare(params, opt, mean, i):
    rows = keys.per_sample(jax.random.fold_in(key, i), len(x))
    value, grads = jax.value_and_grad(lambda p: jnp.mean(loss({'student': p}, batch, rows)[0]))(params)
    updates, opt = optimiser.update(grads, opt, params)
    params = optax.apply_updates(params, updates)
    return params, opt, jax.tree.map(lambda m, p: m + 1e-3 * (p - m), mean, params), value

  keeping, donating = (
    jax.jit(bare, donate_argnums=given, compiler_options=compiler.training()) for given in ((), (0, 1, 2))
  )
  averages = ema.averages((0.999,))
  method = Method((Phase('student', loss, optimiser),))
  step = make_train_step(method, averages)
  step = jax.jit(step, static_argnums=2, donate_argnums=0, compiler_options=compiler.training())
  state = [jax.jit(lambda params: init_state(method, {'student': params}, key, batch, averages))(params)]

  def run_bare(step):
    copy = jax.tree.map(jnp.copy, params)
    moved = [[copy, optimiser.init(copy), jax.tree.map(jnp.copy, copy)]]

    def run():
      for i in range(INNER):
        *moved[0], value = step(*moved[0], i)
      return value

    return run

  def run_ours():
    for _ in range(INNER):
      state[0], signals = step(state[0], batch, (0,))
    return signals['loss']

  operations = counted(keeping.lower(params, optimiser.init(params), params, 0).compile())
  return {'bare step': run_bare(keeping), 'donating': run_bare(donating), 'diffjax step': run_ours}, operations


def main():
  parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
  parser.add_argument('--rounds', type=int, default=15)
  rounds = parser.parse_args().rounds
  key = jax.random.key(2)
  cases = {
    'digits U-Net, batch 128': (
      nets.unet(width=32, channel_mult=(1, 2), blocks_per_level=1, attention=(4,), classes=10),
      jax.random.normal(key, (128, 8, 8, 1)),
      jnp.arange(128, dtype=jnp.int32) % 10,
    ),
    'U-Net 64 x (1, 2, 2), 32 x 32, batch 16': (
      nets.unet(width=64, channel_mult=(1, 2, 2), blocks_per_level=2, attention=(16,)),
      jax.random.normal(key, (16, 32, 32, 3)),
      None,
    ),
    'DiT-S/4, 32 x 32, batch 16': (nets.dit('S', patch=4), jax.random.normal(key, (16, 32, 32, 3)), None),
  }
  rate = matmul_rate()
  for name, (net, x, labels) in cases.items():
    programs, operations = case(net, x, labels)
    row = compare(programs, rounds if 'digits' in name else max(3, rounds // 3))
    ours, bare, donating = row['diffjax step'], row['bare step'], row['donating']
    print(f'{name}: steps a second x {1 / ours["wall_ratio"]:.3f}, CPU x {ours["cpu_ratio"]:.3f}, '
          f'x {donating["wall_ratio"] / ours["wall_ratio"]:.3f} of a bare step that donates '
          f'({INNER / ours["wall"]:.2f} against {INNER / bare["wall"]:.2f} steps a second); bare step at '
          f'{INNER * operations / bare["wall"] / rate:.2f} of {rate / 1e9:.0f} GFLOP/s')  # fmt: skip


if __name__ == '__main__':
  main()
