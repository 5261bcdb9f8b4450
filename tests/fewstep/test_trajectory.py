"""Consistency trajectories: one step of them is consistency distillation, the diagonal is the denoiser, the ring."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from diffjax import fewstep, kinds, nets
from diffjax.fewstep import distances, pairs
from diffjax.fewstep.flow_map import flow_map
from diffjax.fewstep.jumps import jump_from
from diffjax.fewstep.segments import by_solver
from diffjax.fewstep.trajectory import to_the_end
from diffjax.solvers import grids
from experiments import ring as bench
from experiments.ring import STD, edm, parts, ring

NET = nets.mlp(width=8, depth=1, times=2)


def begun():
  made = parts(ring(), edm(), kinds.edm(STD), net=NET, steps=40)
  key = jax.random.key(4)
  params = jax.tree.map(lambda p: p + 0.1 * jax.random.normal(key, p.shape), made.init(key))
  return made, {'student': params, 'target': jax.tree.map(lambda p: 0.9 * p, params)}, {'x': ring().means}, key


@pytest.mark.slow
def test_one_step_to_the_end_is_consistency_distillation():
  """With s = t_min, neighbours and nothing after: the same values; and the outer jump there changes nothing."""
  made, roles, batch, key = begun()
  jump = jump_from(made, paired=True)
  law, l2 = pairs.neighbours(pairs.constantly(17)), distances.l2()
  process = jump.process
  teacher = lambda roles: ring().denoiser(process)  # noqa: E731
  steps = by_solver(process, teacher, most=6, ladder=(17, 7.0))
  distilled = flow_map(jump, law, by_solver(process, teacher), distance=l2, target='student')
  want = distilled(roles, batch, key)[0]
  for project in (None, to_the_end(jump, 'target')):
    own = flow_map(jump, law, steps, distance=l2, target='student', project=project)
    np.testing.assert_allclose(own(roles, batch, key)[0], want, rtol=2e-3, atol=1e-6)


@pytest.mark.slow
def test_the_diagonal_is_trained_to_denoise():
  """lam is the ratio of gradients in the last layer, and the method's denoiser is g(x, t, t)."""
  made, roles, batch, key = begun()
  method = fewstep.consistency_trajectory(made)
  values, aux = method.phases[0].loss(roles, batch, key)
  plain = fewstep.consistency_trajectory(made, denoising=0.0).phases[0].loss(roles, batch, key)[0]
  np.testing.assert_allclose(values, plain + aux['denoising_weight'] * aux['denoising'], rtol=1e-5)
  assert 0 < float(aux['denoising_weight'][0]) <= 10
  x, t = jnp.asarray(ring().means, jnp.float32), jnp.linspace(0.1, 5, 8)
  c_in, level = kinds.edm(STD)(made.process, t).c_in, jnp.log(t) / 4
  out = NET(roles['student'], c_in[:, None] * x, jnp.stack([level, level], -1))
  p, q = kinds.edm(STD)(made.process, t).x0
  np.testing.assert_allclose(method.denoiser(roles)(x, t).x0, p[:, None] * x + q[:, None] * out, rtol=1e-5)


@pytest.mark.slow
def test_steps_and_the_denoiser_on_the_ring():
  """Sliced W2 <= .08 at one step, off <= .05; at 4, 8 steps <= .055; the denoiser within .06 of the exact one."""
  made = parts(ring(), edm(), kinds.edm(STD), net=nets.mlp(width=128, depth=3, times=2), steps=2500)
  method = fewstep.consistency_trajectory(made)
  roles = bench.trained(method, ring(), 2500)
  ladder = lambda n: tuple(grids.karras(edm(), n, to_zero=False)[:-1])  # noqa: E731
  one, *more = (bench.figures(ring(), bench.drawn(method, roles, ladder(n))) for n in (1, 4, 8))
  assert one.sw <= 0.08 and one.off <= 0.05
  assert all(each.sw <= 0.055 for each in more)
  x0, rng = np.asarray(ring().means), np.random.default_rng(0)
  for t in (0.1, 0.5, 2.0):
    x = jnp.asarray(x0 + t * rng.standard_normal((500, *x0.shape)), jnp.float32).reshape(-1, 2)
    apart = method.denoiser(roles)(x, t).x0 - ring().denoiser(edm())(x, t).x0
    assert float(jnp.sqrt(jnp.mean(apart**2))) <= 0.06, t
