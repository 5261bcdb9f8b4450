"""Networks over meshes, run as a process of its own by test_sharded.py.

python sharded_job.py NET [WAYS]      8 host devices against one: weights after 20 steps, images, and what XLA sends
"""

import sys

import jax
import jax.numpy as jnp
import numpy as np

from diffjax import guidance, kinds, nets, schedules, solvers
from diffjax.generate import generate
from diffjax.prediction import Denoiser
from diffjax.solvers import grids
from diffjax.train.sharding import batch_sharding, make_mesh, place
from experiments.bench.scaling import collectives, meshes, objections, step_of

NETS = dict(
  dit=nets.dit(depth=1, width=32, heads=4, classes=10),
  unet=nets.unet(width=16, levels=(1, 2), blocks=1, attention=(4,), classes=10),
  edm2=nets.edm2(width=32, levels=(1, 2), blocks=1, attention=(4,), head=16, classes=10),
  uvit=nets.uvit(depth=2, width=32, heads=4, classes=10),
)
STEPS, ROWS = 20, 40


def batch_at(i):
  draw = np.random.default_rng(i)
  return {
    'x': draw.normal(size=(ROWS, 8, 8, 1)).astype(np.float32),
    'cond': draw.integers(0, 10, ROWS).astype(np.int32),
  }


def trained(net, mesh, start=None):
  """The weights before and after, the same on the mesh, and the compiled step with the state's shapes."""
  step, make, target = step_of(net, mesh, rows=ROWS)
  state = make()
  if start is not None:  # the mesh draws them to a rounding: on EDM2's, of size 1, that is as much as 20 steps move
    like = target.roles['student']
    state = state.replace(roles={'student': jax.tree.map(lambda w, s: jax.device_put(w, s.sharding), start, like)})
  start = jax.device_get(state.roles['student'])
  for i in range(STEPS):
    state, _ = step(state, place(batch_at(i), batch_sharding(mesh)))
  return start, host(state.roles['student']), state.roles['student'], (step, target)


def images(net, params, mesh):
  process = schedules.cosine()
  denoise = guidance.cfg(Denoiser(params, process, kinds.v(), jnp.asarray(10, jnp.int32), net=net), 2.0)
  solver = solvers.dpmpp_2m(process, grids.uniform(process, 4))
  return generate(denoise, solver, (8, 8, 1), 8, np.arange(8), mesh=mesh)


def host(tree):
  return np.concatenate([np.ravel(np.asarray(leaf)) for leaf in jax.tree.leaves(tree)])


def compare(net, ways):
  start, one, params, _ = trained(net, make_mesh(data=1))
  way = np.linalg.norm(one - host(start))
  drawn = images(net, params, None)
  for name in ways:
    mesh = make_mesh(**meshes(8)[name])
    _, many, params, (step, target) = trained(net, mesh, start)
    apart = np.linalg.norm(many - one) / way
    differ = np.max(np.abs(images(net, params, mesh) - drawn)) / np.max(np.abs(drawn))
    said = objections(collectives(step.as_text(), mesh), target)
    print('found', name, apart, np.max(np.abs(many - one)), differ, '; '.join(said), sep='|', flush=True)


if __name__ == '__main__':
  compare(NETS[sys.argv[1]], sys.argv[2].split(',') if len(sys.argv) > 2 else meshes(8))
