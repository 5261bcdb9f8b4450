"""sCM: the tangent against the paper's own terms on the angle, zero at the exact map, and the ring."""

import closed
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from diffjax import fewstep, keys, kinds, nets, schedules
from diffjax.fewstep import pairs
from diffjax.fewstep.continuous import tangent
from diffjax.fewstep.flow_map import total_derivative
from diffjax.fewstep.jumps import jump_from
from diffjax.fewstep.segments import Point, velocity
from experiments import ring as bench
from experiments.ring import STD, edm, parts, ring

SD = 0.5


class Told:
  """The exact jump to the data of a Gaussian as a network of kind `edm`, told -lam / 4."""

  def __init__(self, process):
    self.process = process

  def __call__(self, params, x, level, cond=None, key=None):
    t = self.process.lam_inverse(-4 * level)
    form = kinds.edm(SD)(self.process, t)
    p, q = form.x0
    clean = closed.flow(self.process, x / form.c_in[:, None], t, jnp.zeros_like(t))
    return (clean - (p / form.c_in)[:, None] * x) / q[:, None]


def placed(process, n=64):
  key = keys.per_sample(jax.random.key(0), n)
  x0 = closed.target().sample(key)
  eps = keys.normal(keys.fold(key, 1), x0)
  t = jnp.linspace(0.1, 0.9, n) * process.t_max
  return pairs.Times(t, t, jnp.zeros_like(t)), Point(process.perturb(x0, eps, t), x0, eps, None)


def corrected(jump, params, at, point, slope, rule, roles=None):
  out = lambda x, t: jump.land(x, jump.out(params, x, t, at.s), t, at.s)  # noqa: E731
  f, df = total_derivative(out, point.x, at.t, slope)
  return rule(roles or {}, jump, at, point, slope, f, df)


@pytest.mark.quick('cosine')
@pytest.mark.parametrize('make', [lambda: schedules.edm(0.01, 10.0), schedules.cosine], ids=['edm', 'cosine'])
def test_the_exact_map_has_no_tangent(make, x64):
  """Along the flow itself the jump to the data does not move: 1e-5 of the data's deviation, whatever the process."""
  process = make()
  jump = jump_from(parts(closed.target(), process, kinds.edm(SD), net=Told(process)), end=0.0)
  at, point = placed(process)
  slope = velocity(process, lambda roles: closed.target().denoiser(process))({}, point, at.t)
  g = corrected(jump, (), at, point, slope, tangent(1, normalised=False))
  assert float(jnp.abs(g).max()) < 1e-5
  line = corrected(jump, (), at, point, velocity(process)({}, point, at.t), tangent(1, normalised=False))
  assert float(jnp.abs(line).max()) > 0.1  # along the line to one example it does


def test_the_published_terms(x64):
  """On the angle: g = cos [-cos (sd F - dx) - r sin (x + sd dF)], F and x those of sCM.

  arXiv:2410.11081 eq. 6-8
  """
  process = schedules.edm(0.01, 10.0)
  net = nets.mlp(width=16, depth=2)
  made = parts(ring(), process, kinds.edm(SD), net=net)
  jump = jump_from(made, end=0.0)
  params = jax.tree.map(lambda p: p.astype(float), made.init(jax.random.key(0)))
  params = jax.tree.map(lambda p: p + 0.3 * jax.random.normal(jax.random.key(1), p.shape), params)
  key = keys.per_sample(jax.random.key(0), 8)
  x0 = ring().sample(key)
  angle = jnp.linspace(0.2, 1.4, 8)
  t, eps = SD * jnp.tan(angle), keys.normal(keys.fold(key, 1), x0)
  point = Point(process.perturb(x0, eps, t), x0, eps, None)
  at = pairs.Times(t, t, jnp.zeros_like(t))

  cos, sin = jnp.cos(angle)[:, None], jnp.sin(angle)[:, None]
  turned = cos * x0 + sin * SD * eps  # sCM's x_t, z = sd eps
  drift = cos * SD * eps - sin * x0

  def published(x, angle):  # sCM's F, told EDM's coordinate of the same noise level
    level = SD * jnp.tan(angle)
    return -net(params, x / SD, jnp.log(level) / 4)

  f, df = jax.jvp(published, (turned, angle), (drift, jnp.ones_like(angle)))
  for done, share in ((0, 1 / 4), (1, 2 / 4), (9, 1.0)):
    want = cos * (-cos * (SD * f - drift) - share * sin * (turned + SD * df))
    roles = {'progress': jnp.asarray(done)}
    slope = velocity(process)({}, point, t)
    got = -SD * corrected(jump, params, at, point, slope, tangent(4, normalised=False), roles)
    np.testing.assert_allclose(got, want, rtol=1e-5, atol=1e-7)
    unit = corrected(jump, params, at, point, slope, tangent(4), roles)
    norm = jnp.linalg.norm(want / SD, axis=-1, keepdims=True)
    np.testing.assert_allclose(unit, -want / SD / (norm + 0.1), rtol=1e-5, atol=1e-7)
    assert float(jnp.linalg.norm(unit, axis=-1).max()) <= 1


@pytest.mark.slow
def test_it_is_the_limit_of_neighbours(x64):
  """Discrete distillation's step of the output at t - u -> 0 is -g, cosine above .99, examples and levels together."""
  process, target = schedules.edm(0.01, 10.0), ring()
  made = parts(target, process, kinds.edm(STD), net=nets.mlp(width=16, depth=2))
  jump = jump_from(made, end=0.0)
  params = jax.tree.map(lambda p: p.astype(float), made.init(jax.random.key(0)))
  params = jax.tree.map(lambda p: p + 0.3 * jax.random.normal(jax.random.key(1), p.shape), params)
  key = keys.per_sample(jax.random.key(0), 32)
  x0, t = target.sample(key), jnp.geomspace(0.05, 8, 32)
  eps = keys.normal(keys.fold(key, 1), x0)
  point, at = Point(process.perturb(x0, eps, t), x0, eps, None), pairs.Times(t, t, jnp.zeros_like(t))
  slope = velocity(process, lambda roles: target.denoiser(process))({}, point, t)
  got = corrected(jump, params, at, point, slope, tangent(1, normalised=False))
  u = t * (1 - 3e-3)  # the embedding of time is float32
  step = jump(params, point.x + (u - t)[:, None] * slope, u, 0.0) - jump(params, point.x, t, 0.0)
  turn = (jnp.arctan(t / STD) - jnp.arctan(u / STD))[:, None]
  want = jnp.cos(jnp.arctan(t / STD))[:, None] * step / turn / STD
  cosine = jnp.sum(got * want) / jnp.linalg.norm(got) / jnp.linalg.norm(want)
  assert float(cosine) > 0.999
  np.testing.assert_allclose(jnp.linalg.norm(got), jnp.linalg.norm(want), rtol=0.01)


@pytest.mark.slow
def test_one_and_two_steps_on_the_ring():
  """Taught by the exact denoiser: sliced W2 <= .12 at one step, <= .06 at two."""
  method = fewstep.continuous_consistency(parts(ring(), edm(), kinds.edm(STD)), warm_up=1000)
  roles = bench.trained(method, ring(), 5000)
  one, two = (bench.figures(ring(), bench.drawn(method, roles, ts)).sw for ts in ((10.0,), (10.0, 1.0)))
  assert one <= 0.12 and two <= 0.06
