"""ProDiff's two targets, and the third reading of its abstract, which accelerates nothing."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from classroom import GAUSSIAN, Slopes, audit

from diffjax import exact, fewstep, keys, kinds, schedules, solvers
from diffjax.errors import InputError
from diffjax.fewstep.lessons import implied_x0, jumps
from diffjax.methods import Sampling, Source
from diffjax.solvers import grids
from experiments.ring import figures, parts, ring, trained

COSINE = schedules.cosine()
T = float(COSINE.t_max)


def noise(n, seed=8):
  return COSINE.schedule(T)[1] * keys.normal(keys.per_sample(jax.random.key(seed), n), jnp.zeros((n, 2)))


def drawn(denoise, n, x, solver=solvers.ddim):
  key = keys.per_sample(jax.random.key(4), len(x))
  return solvers.sample(denoise, solver(COSINE, grids.uniform(COSINE, n)), x, key)


@pytest.mark.slow
def test_the_three_readings_on_the_ring():
  """Ideal students of an exact eight-step teacher: what the paper's two targets promise, and why samples do not do."""
  target, x = ring(), noise(4000)
  teacher = jax.jit(lambda x, t, cond: target.denoiser(COSINE)(x, t).x0)
  times = lambda n: list(np.float32(T * np.arange(n, -1, -1) / n)[:, None].repeat(len(x), 1))  # noqa: E731

  def implied(x, t, cond):
    ts = [jnp.maximum(t - i * T / 8, 0) for i in range(3)]
    return implied_x0(COSINE, x, jumps(COSINE, teacher, x, ts), t, ts[-1])

  def endpoint(x, t, cond):
    return jumps(COSINE, teacher, x, [jnp.maximum(t - i * T / 8, 0) for i in range(9)])

  eight, four = (jumps(COSINE, teacher, x, times(n)) for n in (8, 4))
  np.testing.assert_allclose(jumps(COSINE, implied, x, times(4)), eight, atol=1e-5)
  np.testing.assert_allclose(jumps(COSINE, endpoint, x, times(1)), eight, atol=1e-5)
  whole, plain, ends = (figures(target, y) for y in (eight, four, jumps(COSINE, endpoint, x, times(4))))
  assert whole.sw < plain.sw / 1.8 and ends.sw < plain.sw / 1.3 and ends.off < plain.off / 5
  # samples as data: the fixed point is their posterior mean, by kernels on them as components
  kernels = exact.mixture(np.ones(1000), np.asarray(eight)[:1000], np.full(1000, 1e-4))
  again = figures(target, kernels.denoiser(COSINE)(x[:1000], T).x0)
  assert again.sw >= 8 * whole.sw


@pytest.mark.quick('implied')
@pytest.mark.parametrize('target', ['implied', 'endpoint'])
def test_a_student_that_can_hold_it_draws_what_its_teacher_draws(target):
  """Two steps for four on a Gaussian, and one step of the student of end points; the last is what they differ in."""
  own = parts(GAUSSIAN, COSINE, 'x0', net=Slopes(2, T), steps=400, rate=0.05)
  method = fewstep.prodiff(own, steps=4, target=target, distance='l2')
  student, x = method.denoiser(trained(method, GAUSSIAN, 400, batch=128, decay=None)), noise(64)
  four = drawn(GAUSSIAN.denoiser(COSINE), 4, x)
  at = 2 if target == 'implied' else 1
  assert np.abs(drawn(student, at, x) - four).max() < 2e-3
  if target == 'implied':
    assert np.abs(drawn(student, 1, x) - four).max() > 0.1


def test_only_the_student_moves_and_the_grid_is_its_own():
  net = Slopes(2, T)
  params = net.init(jax.random.key(5), jnp.zeros((1, 2)), None)
  source = Source('run', COSINE, (2,), 0, params, lambda p: own.denoiser(p), kinds.as_kind('x0'), net)
  own = parts(GAUSSIAN, COSINE, 'x0', net=net, steps=4, teacher=source)
  method = fewstep.prodiff(own, target='endpoint')
  assert method.copies == {'student': 'teacher'} and method.loads == ('teacher',)
  other = jax.tree.map(lambda p: p + 0.1, params)
  batch = {'x': GAUSSIAN.sample(keys.per_sample(jax.random.key(1), 16))}
  for target in ('implied', 'endpoint'):
    moved = audit(fewstep.prodiff(own, target=target).phases[0].loss, {'teacher': params, 'student': other}, batch)
    assert moved['teacher'] == 0 and moved['student'] > 1e-3

  def sampling(n, solver=solvers.ddim):
    ts = grids.uniform(COSINE, n)
    return Sampling(n, lambda: ts, lambda: solver(COSINE, ts), lambda denoise: denoise)

  roles = {'student': params}
  for n, solver in ((1, solvers.ddim), (2, solvers.ddim), (2, solvers.ddpm)):
    assert method.generator(roles, sampling(n, solver)).nfe == n
  with pytest.raises(InputError, match='a grid uniform of 2 steps or a divisor'):
    method.generator(roles, sampling(3))
  with pytest.raises(InputError, match='a grid uniform of 2 steps and a solver'):
    fewstep.prodiff(own).generator(roles, sampling(1))
  with pytest.raises(InputError, match="target: got 'samples'; allowed: implied, endpoint"):
    fewstep.prodiff(own, target='samples')
  with pytest.raises(InputError, match='steps: got 5; allowed: an even number'):
    fewstep.prodiff(own, steps=5)
