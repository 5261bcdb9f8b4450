"""BOOT: no data, the boundary is the denoiser at the noise, at rest where the student is the flow, the ring."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from closed import flow, right, target
from closed import jump as exact_jump

from diffjax import fewstep, keys, kinds, nets, schedules
from diffjax.errors import InputError
from diffjax.fewstep import distances
from diffjax.fewstep.boot import bootstrapped, in_turn
from diffjax.fewstep.flow_map import flow_map_end, pure_noise
from diffjax.fewstep.jumps import transfer_of
from diffjax.fewstep.segments import by_solver
from diffjax.methods import Sampling
from experiments import ring as bench
from experiments.ring import STD, parts, ring

NET = nets.mlp(width=8, depth=1)
SHAPE = {'x': jax.ShapeDtypeStruct((64, 1), jnp.float32)}  # any use of it as numbers raises


def made(**options):
  own = parts(ring(), schedules.cosine(), kinds.edm(STD), net=NET, steps=40)
  key = jax.random.key(4)
  params = jax.tree.map(lambda p: p + 0.3 * jax.random.normal(key, p.shape), own.init(key))
  return fewstep.boot(own, **options), {'student': params, 'progress': jnp.asarray(0)}, own


def test_the_times():
  """All from t_max; u - s is the span of the stage, or u is t_max with the probability of the boundary."""
  process, span = schedules.cosine(), in_turn((0.25, 0.1), 10)
  ks = keys.per_sample(jax.random.key(0), 4000)
  reach = float(process.t_max - process.t_min)
  law = jax.jit(lambda done: bootstrapped(span, 0.3)(process, done, ks))
  for done, d in ((0, 0.25), (4, 0.25), (5, 0.1), (12, 0.1)):
    at = law(jnp.asarray(done))
    first = np.asarray(at.u == process.t_max)
    assert (np.asarray(at.t) == float(process.t_max)).all() and abs(first.mean() - 0.3) < 0.04
    np.testing.assert_allclose((at.u - at.s)[~first], d * reach, rtol=1e-4)
    gap = np.asarray(at.u - at.s)[first] / reach
    assert 0.1 * d * 0.99 < gap.min() and gap.max() < d * 1.001 and float(at.s.min()) > float(process.t_min) - 1e-6
  at = bootstrapped(span, 0.3, rho=7.0)(schedules.edm(0.01, 10.0), jnp.asarray(0), ks)
  ranks = [np.asarray(t) ** (1 / 7) / (10 ** (1 / 7) - 0.01 ** (1 / 7)) for t in (at.u, at.s)]
  first = np.asarray(at.u) > 9.999
  np.testing.assert_allclose((ranks[0] - ranks[1])[~first], 0.25, rtol=1e-3)


def test_no_data_and_only_the_student_is_moved():
  """Examples that raise when they are read; the boundary's lesson by DDIM is D(x_T, T)."""
  method, roles, own = made(solver='ddim', boundary=0.999999, spans=(0.5,))
  batch = {'x': jax.ShapeDtypeStruct((64, 2), jnp.float32)}
  key = jax.random.key(2)
  values, aux = jax.jit(lambda roles: method.phases[0].loss(roles, batch, key))(roles)
  ks = keys.per_sample(key, 64)
  _, k_z, _ = keys.split(ks, 3)
  z, process = keys.normal(k_z, jnp.zeros((64, 2))), own.process
  x = process.schedule(process.t_max)[1] * z
  s = bootstrapped(in_turn((0.5,), 40), 0.999999)(process, jnp.asarray(0), keys.split(ks, 3)[0]).s
  form = kinds.edm(STD)(process, process.t_max)
  out = NET(roles['student'], form.c_in * x, kinds.edm(STD)(process, s).network_time)
  y = form.x0[0] * x + form.x0[1] * out
  want = jnp.mean((y - ring().denoiser(process)(x, process.t_max).x0) ** 2, -1)
  np.testing.assert_allclose(values, want, rtol=2e-3)
  assert np.all(np.asarray(aux['t']) == float(process.t_max))
  with pytest.raises(TypeError):
    jnp.sum(batch['x'])


@pytest.mark.parametrize('name', ['cosine', 'edm'])
def test_at_rest_at_the_flow(name, x64):
  """No loss and no slope where the steps are the flow's own; of Heun's a 16th of the slope at a quarter of the span."""
  process = schedules.cosine() if name == 'cosine' else schedules.edm(0.01, 10.0)
  rho = 0.0 if name == 'cosine' else 7.0
  flowing = lambda roles, point, t, u: flow(process, point.x, t, u)  # noqa: E731
  heun = by_solver(process, lambda roles: target().denoiser(process))

  def slope(segment, d):
    loss = flow_map_end(
      exact_jump(process), bootstrapped(lambda done: jnp.asarray(d), 0.1, rho), segment, distance=distances.l2(),
      target='student', weight=lambda at: transfer_of(process, at.t, at.s)[1] ** -2, start=pure_noise,
    )  # fmt: skip
    mean = lambda student: jnp.mean(loss({'student': student}, SHAPE, jax.random.key(2))[0])  # noqa: E731
    value, grads = jax.jit(jax.value_and_grad(mean))(right())
    return float(value), max(abs(float(g)) for g in jax.tree.leaves(grads))

  value, at_rest = slope(flowing, 0.1)
  assert value < 1e-16 and at_rest < 1e-7
  coarse, fine = slope(heun, 0.05)[1], slope(heun, 0.0125)[1]
  assert fine < coarse / 16


def test_one_step_and_refusals():
  method, roles, own = made()
  sampling = lambda n: Sampling(n, lambda: np.array([0.5, 0.0]), lambda: None, lambda denoise: denoise)  # noqa: E731
  draw = method.generator(roles, sampling(1))
  assert draw.nfe == 1
  np.testing.assert_allclose(draw.times, [float(own.process.t_max)], rtol=1e-6)  # whatever the grid
  with pytest.raises(InputError, match='steps: got 2; allowed: 1'):
    method.generator(roles, sampling(2))
  for wrong in (dict(spans=()), dict(spans=(1.5,)), dict(boundary=0.0), dict(rho=-1.0)):
    with pytest.raises(InputError, match='spans, boundary, rho: got'):
      made(**wrong)


@pytest.mark.slow
def test_the_ring_without_data():
  """Cosine: sliced W2 <= .07 and off <= .04 at one step, where DDIM has .678."""
  method = fewstep.boot(parts(ring(), schedules.cosine(), kinds.edm(STD), steps=5000))
  roles = bench.trained(method, ring(), 5000)
  got = bench.figures(ring(), bench.drawn(method, roles, (0.9946,)))
  assert got.sw <= 0.07 and got.off <= 0.04, got
