"""A small regression that trains in a second, for the tests of train/; also run as a process of its own.

python training_job.py fit WORKDIR [STEPS [PAUSE]]                            one run
python training_job.py mesh                                                   8 host devices against one
python training_job.py layout WORKDIR                                         saved on 8 devices, restored on fewer
python training_job.py pair RANK PORT OUT                                     one of two processes
python training_job.py split RANK PORT WORKDIR STEPS PAUSE                    the same, with weights split between them
python training_job.py stop RANK PORT WORKDIR                                 the same, to be ended by SIGTERM
"""

import itertools
import os
import shutil
import sys
import time

import jax
import jax.numpy as jnp
import numpy as np
import optax

from diffjax import keys
from diffjax.train import ema, optimiser
from diffjax.train.loop import fit
from diffjax.train.roles import Method, Phase
from diffjax.train.sharding import make_mesh, replicated

AVERAGES = ema.averages((0.99, 'power:.1'))
WIDTH, ROWS = 128, 16


def init(key):
  shapes = [(2, WIDTH), (WIDTH, WIDTH), (WIDTH, 2)]
  layer = lambda k, s: {'kernel': jax.random.normal(k, s) / s[0] ** 0.5, 'bias': jnp.zeros(s[1])}  # noqa: E731
  return {
    'student': {f'd{i}': layer(k, s) for i, (k, s) in enumerate(zip(jax.random.split(key, 3), shapes, strict=True))}
  }


def net(params, x):
  for name in ('d0', 'd1'):
    x = jax.nn.silu(x @ params[name]['kernel'] + params[name]['bias'])
  return x @ params['d2']['kernel'] + params['d2']['bias']


def loss(roles, batch, key):
  k_t, k_eps = keys.split(key, 2)
  t, eps = keys.uniform(k_t), keys.normal(k_eps, batch['x'])
  out = net(roles['student'], (1 - t[:, None]) * batch['x'] + t[:, None] * eps)
  error = jnp.mean((out - eps) ** 2, axis=-1)
  return error, dict(t=t, error=error)


def batch_at(i, rows=ROWS):
  return {'x': np.random.default_rng(i).normal(size=(rows, 2)).astype(np.float32)}


def batches(start):
  return map(batch_at, itertools.count(start))


def method(steps=100):
  return Method((Phase('student', loss, optimiser.adamw(steps, learning_rate=1e-2, warmup=3)),))


def run(workdir=None, steps=20, batches=batches, **options):
  options = dict(key=jax.random.key(7), ema=AVERAGES, progress=False, log_every=5, save_every=10) | options
  return fit(options.pop('method', method()), init, batches, steps=steps, workdir=workdir, **options)


def arrays(state):
  """The leaves as NumPy arrays, keys as their words."""
  words = lambda x: jax.random.key_data(x) if jnp.issubdtype(x.dtype, jax.dtypes.prng_key) else x  # noqa: E731
  return [np.asarray(words(x)) for x in jax.tree.leaves(state)]


def slow_batches(pause):
  def stream(start):
    for i in itertools.count(start):
      time.sleep(pause)
      print('batch', i, flush=True)
      yield batch_at(i)

  return stream


def distance(a, b):
  return max(float(np.max(np.abs(x - y))) for x, y in zip(arrays(a), arrays(b), strict=True))


def meshes():
  plain = optax.adam(
    1e-3
  )  # Adam's normalisation doubles rounding errors where gradients vanish; 5 steps stay below 1e-5
  options = dict(steps=5, method=Method((Phase('student', loss, plain),)))
  single = run(mesh=make_mesh(data=1), **options).state
  for sizes, accumulate in ((dict(data=8), 1), (dict(data=4, fsdp=2), 2), (dict(data=2, fsdp=2, model=2), 1)):
    state = run(mesh=make_mesh(**sizes), accumulate=accumulate, **options).state
    trees = state.roles['student'], state.ema['student']['0.99'], state.opt['student'][0].mu
    specs = [','.join(map(str, tree['d1']['kernel'].sharding.spec)) for tree in trees]
    print('found', distance(single.roles, state.roles), distance(single.ema, state.ema), *specs, sep='|')


def layout(workdir):
  run(f'{workdir}/8', steps=6, mesh=make_mesh(data=4, fsdp=2))
  for devices in (4, 2, 1, 'pair'):
    shutil.copytree(f'{workdir}/8', f'{workdir}/{devices}')
  eight = run(f'{workdir}/8', steps=7, mesh=make_mesh(data=4, fsdp=2)).state
  np.savez(f'{workdir}/8/final.npz', *arrays(eight))
  for devices in (4, 2, 1):
    fit = run(f'{workdir}/{devices}', steps=7, mesh=make_mesh(data=devices))
    kernel = fit.state.roles['student']['d1']['kernel']
    print('found', fit.start, len(kernel.sharding.device_set), distance(eight, fit.state), sep='|')


def pair(rank, port, out):
  jax.config.update('jax_cpu_collectives_implementation', 'gloo')
  jax.distributed.initialize(f'localhost:{port}', 2, rank)
  half = ROWS // 2
  local = lambda start: ({'x': b['x'][rank * half : (rank + 1) * half]} for b in batches(start))  # noqa: E731
  state = run(f'{out}/run', steps=5, batches=local).state
  again = run(f'{out}/run', steps=8, batches=local, save_every=3).state
  if rank == 0:
    np.savez(f'{out}/pair.npz', *arrays(state.roles), *arrays(again.roles))


def split(rank, port, workdir, steps, pause):
  jax.config.update('jax_cpu_collectives_implementation', 'gloo')
  jax.distributed.initialize(f'localhost:{port}', 2, rank)
  half, mesh = ROWS // 2, make_mesh(data=1, fsdp=2)
  local = lambda start: ({'x': b['x'][rank * half : (rank + 1) * half]} for b in slow_batches(pause)(start))  # noqa: E731
  state = run(workdir, steps, batches=local, mesh=mesh).state
  assert not state.roles['student']['d1']['kernel'].is_fully_addressable
  whole = jax.jit(lambda state: state, out_shardings=replicated(mesh))(state)
  if rank == 0:
    np.savez(os.path.join(workdir, 'final.npz'), *arrays(whole))


def stop(rank, port, out):
  jax.config.update('jax_cpu_collectives_implementation', 'gloo')
  jax.distributed.initialize(f'localhost:{port}', 2, rank)
  half = ROWS // 2
  local = lambda start: ({'x': b['x'][rank * half : (rank + 1) * half]} for b in slow_batches(0.05)(start))  # noqa: E731
  run(out, steps=1000, batches=local, save_every=1000)


if __name__ == '__main__':
  command, *args = sys.argv[1:]
  if command == 'fit':
    workdir, steps, pause = (*args, '30', '0')[:3] if len(args) < 3 else args
    final = run(workdir, int(steps), slow_batches(float(pause)))
    np.savez(os.path.join(workdir, 'final.npz'), *arrays(final.state))
  elif command == 'mesh':
    meshes()
  elif command == 'layout':
    layout(args[0])
  elif command == 'split':
    split(int(args[0]), args[1], args[2], int(args[3]), float(args[4]))
  elif command == 'stop':
    stop(int(args[0]), args[1], args[2])
  else:
    pair(int(args[0]), args[1], args[2])
