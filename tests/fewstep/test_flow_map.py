"""The objectives rest at the exact flow map of a Gaussian, and stop every gradient but the student's."""

import closed
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from diffjax import keys, schedules
from diffjax.fewstep import distances, pairs
from diffjax.fewstep.flow_map import added, flow_map, flow_map_end, flow_map_jvp, inverse_span, rows_split
from diffjax.fewstep.mean_flow import identity
from diffjax.fewstep.segments import by_jump, by_solver, data_line, velocity
from diffjax.losses.times import logit_normal, uniform
from experiments.ring import ring

PROCESS = {'edm': lambda: schedules.edm(0.01, 10.0), 'cosine': schedules.cosine}


def batch(n=4096):
  x = closed.target().sample(keys.per_sample(jax.random.key(1), n))
  return {'x': x}


def at_rest(loss, roles):
  """The loss and the gradient in the student at the solution."""
  value, grads = jax.value_and_grad(
    lambda student: jnp.mean(loss({**roles, 'student': student}, batch(), jax.random.key(2))[0])
  )(closed.right())
  return float(value), max(abs(float(g)) for g in jax.tree.leaves(grads))


def exactly(process):
  """The flow itself as a segment."""
  return lambda roles, point, t, u: closed.flow(process, point.x, t, u)


def roles():
  return {'target': closed.right()}


@pytest.mark.quick('cosine')
@pytest.mark.parametrize('name', PROCESS)
def test_start_and_end_rest_where_the_segment_is_the_flow(name, x64):
  """No loss and no slope, on neighbours and on triples."""
  process = PROCESS[name]()
  jump, l2 = closed.jump(process), distances.l2()
  for law in (pairs.neighbours(pairs.constantly(17)), pairs.triples(17, most=6)):
    for loss in (
      flow_map(jump, law, exactly(process), distance=l2),
      flow_map(jump, law, exactly(process), distance=l2, target='student'),
      flow_map_end(jump, law, exactly(process), distance=l2),
      flow_map(jump, law, by_jump(jump, 'target'), distance=l2, weight=inverse_span),
    ):
      value, slope = at_rest(loss, roles())
      assert value < 1e-16 and slope < 1e-7


def test_heun_is_nearly_the_flow_and_the_line_is_off_by_one_over_n(x64):
  """With 16 times the intervals the teacher's steps leave a 64th of the slope at most, the line a quarter."""
  process = PROCESS['edm']()
  jump, teacher = closed.jump(process, end=0.01), lambda roles: closed.target().denoiser(process)
  slopes = {}
  for name, segment in (('heun', by_solver(process, teacher)), ('line', data_line(process))):
    for n in (10, 160):
      law = pairs.neighbours(pairs.constantly(n))
      slopes[name, n] = at_rest(flow_map(jump, law, segment, distance=distances.l2(), target='student'), {})[1]
  assert slopes['line', 160] < slopes['line', 10] / 4
  assert slopes['heun', 160] < slopes['heun', 10] / 64
  assert slopes['heun', 10] < slopes['line', 10]


def test_many_steps_of_the_teacher_are_its_steps_one_by_one(x64):
  """Along a ladder, each sample as many as its way is long: as neighbours' steps; and one step for neighbours."""
  process, n = PROCESS['edm'](), 12
  target = ring()
  teacher = lambda roles: target.denoiser(process)  # noqa: E731
  ladder = pairs.Ladder(process)
  many, single = by_solver(process, teacher, most=5, ladder=(n, 7.0)), by_solver(process, teacher)
  x = jnp.asarray(np.random.default_rng(0).standard_normal((6, 2)))
  point = lambda x: type('P', (), dict(x=x, cond=None))()  # noqa: E731
  first, length = np.array([12, 9, 7, 5, 3, 1]), np.array([5, 4, 3, 2, 1, 1])
  got = many({}, point(x), ladder(jnp.asarray(first) / n), ladder(jnp.asarray(first - length) / n))
  for row in range(6):
    want = x[row : row + 1]
    for j in range(first[row], first[row] - length[row], -1):
      want = single({}, point(want), ladder(jnp.asarray([j / n])), ladder(jnp.asarray([(j - 1) / n])))
    np.testing.assert_allclose(got[row : row + 1], want, rtol=1e-8, atol=1e-10)


def test_mean_flow_rests_at_the_exact_velocity(x64):
  """With the flow's own velocity the identity has no residue, and no slope with the line's on average."""
  flow = schedules.flow()
  jump = closed.jump(flow)
  law = pairs.ordered(logit_normal(-0.4, 1.0), equal=0.5)
  teacher = lambda roles: closed.target().denoiser(flow)  # noqa: E731
  taught = flow_map_jvp(jump, law, velocity(flow, teacher), identity, distance=distances.l2())
  value, slope = at_rest(taught, {})
  assert value < 1e-16 and slope < 1e-7


@pytest.mark.slow
def test_a_split_batch_and_a_sum_of_losses(x64):
  process = PROCESS['edm']()
  jump, key, rows = closed.jump(process), jax.random.key(2), batch(8)
  line, law = data_line(process), pairs.neighbours(pairs.constantly(9))
  start = flow_map(jump, law, line, distance=distances.l2(), target='student')
  other = flow_map(jump, pairs.ending(uniform(), 0.02), line, distance=distances.l1(), target='student')
  where = {'student': {'gain': jnp.asarray(0.9), 'shift': jnp.asarray(0.1)}}
  got = rows_split(start, other, 0.25)(where, rows, key)[0]
  whole = start(where, rows, key)[0], other(where, rows, key)[0]
  np.testing.assert_array_equal(got, jnp.concatenate([whole[0][:2], whole[1][2:]]))
  both, aux = added(start, start, leaf='gain', name='again', most=10.0)(where, rows, key)
  np.testing.assert_allclose(both, whole[0] + aux['again_weight'] * aux['again'])

  def slope(key):
    of = lambda gain: jnp.mean(start({'student': where['student'] | {'gain': gain}}, rows, key)[0])  # noqa: E731
    return jax.grad(of)(where['student']['gain'])

  own = keys.fold(keys.per_sample(key, 8), 1)
  np.testing.assert_allclose(aux['again_weight'][0], abs(slope(key)) / (abs(slope(own)) + 1e-4), rtol=1e-6)
