"""Networks over meshes, run as a process of its own by test_sharded.py.

python sharded_job.py NET [WAYS]      8 host devices against one: weights after 20 steps, images, and what XLA sends
"""

import sys

import jax
import jax.numpy as jnp
import numpy as np

from diffjax import guidance, kinds, nets, schedules, solvers
from diffjax.methods import solved
from diffjax.prediction import Denoiser
from diffjax.runs.generate import generate
from diffjax.solvers import grids
from diffjax.train.sharding import batch_sharding, make_mesh, place
from experiments.bench.scaling import collectives, meshes, objections, step_of

NETS = dict(
  dit=nets.dit(depth=1, width=32, heads=4, classes=10),
  unet=nets.unet(width=16, channel_mult=(1, 2), blocks_per_level=1, attention=(4,), classes=10),
  edm2=nets.edm2(width=32, channel_mult=(1, 2), blocks_per_level=1, attention=(4,), head_dim=16, classes=10),
  uvit=nets.uvit(depth=2, width=32, heads=4, classes=10),
)
STEPS, ROWS = 20, 56


def batch_at(i):
  draw = np.random.default_rng(i)
  return {
    'x': draw.normal(size=(ROWS, 8, 8, 1)).astype(np.float32),
    'cond': draw.integers(0, 10, ROWS).astype(np.int32),
  }


def trained(net, mesh, start=None):
  """The weights to start from, on the host, those after training, on the mesh, and the compiled step with its state."""
  step, make, target = step_of(net, mesh, rows=ROWS)
  state, like = make(), target.roles['student']
  drawn = jax.device_get(state.roles['student'])
  if 'gain' in drawn:  # EDM2's last: from 0 what lies before it, of size 1, would move by hardly more than a rounding
    drawn['gain'] = np.ones((), np.float32)
  start = drawn if start is None else start  # for all meshes the same, as each draws them to a rounding
  jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-6, atol=1e-6), drawn, start)
  state = state.replace(roles={'student': jax.tree.map(lambda w, s: jax.device_put(w, s.sharding), start, like)})
  for i in range(STEPS):
    state, _ = step(state, place(batch_at(i), batch_sharding(mesh)))
  return start, state.roles['student'], (step, target)


def images(net, params, mesh):
  process = schedules.cosine()
  denoise = guidance.cfg(Denoiser(params, process, kinds.v(), jnp.asarray(10, jnp.int32), net=net), 2.0)
  solver = solvers.dpmpp_2m(process, grids.uniform(process, 4))
  return generate(solved(denoise, solver, (8, 8, 1)), 8, np.arange(8), mesh=mesh)


def host(tree):
  return np.concatenate([np.ravel(np.asarray(leaf)) for leaf in jax.tree.leaves(tree)])


def compare(net, ways):
  start, params, _ = trained(net, make_mesh(data=1))
  alone, drawn = host(params), images(net, params, None)
  for name in ways:
    mesh = make_mesh(**meshes(8)[name])
    _, params, (step, target) = trained(net, mesh, start)
    many = host(params)
    apart = np.linalg.norm(many - alone) / np.linalg.norm(alone - host(start))
    differ = np.max(np.abs(images(net, params, mesh) - drawn)) / np.max(np.abs(drawn))
    sent = collectives(step.as_text(), mesh)
    moved = sum(size for one in sent for what, size in one.sent() if what == 'features' and one.kind != 'all-reduce')
    print('found', name, apart, differ, moved, '; '.join(objections(sent, target)), sep='|', flush=True)


if __name__ == '__main__':
  compare(NETS[sys.argv[1]], sys.argv[2].split(',') if len(sys.argv) > 2 else meshes(8))
