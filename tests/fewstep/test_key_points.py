"""Key points: a record made once, chords that are exact on an exact record, a gradient through the last step alone."""

import dataclasses
from typing import Any, NamedTuple

import closed
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from classroom import audit

from diffjax import fewstep, keys, nets, schedules
from diffjax.errors import InputError
from diffjax.fewstep.jumps import jump_from
from diffjax.fewstep.key_points import RECORD, Record, at_key_point, key_times, rolled
from diffjax.methods import Sampling
from diffjax.process import Process
from diffjax.solvers import transfer
from experiments import ring as bench
from experiments.ring import parts, ring

FLOW, RING = schedules.flow(), ring()
TIMES = key_times(FLOW, 4, 1.0)


class Chords(NamedTuple):
  """The velocity of the chord of a Gaussian's flow from t to the next of even times, times a gain, plus a shift."""

  process: Process
  n: int = 4

  def __call__(self, params: Any, x: Any, t: Any, cond: Any = None, key: Any = None):
    t = jnp.round(t / 1000 * self.n) / self.n
    s = t - 1 / self.n
    return params['gain'] * (x - closed.flow(self.process, x, t, s)) * self.n + params['shift']

  def init(self, key, x, t, cond=None):
    return closed.right()


def own(target=None, net=None, **options):
  target = closed.target() if target is None else target
  made = parts(target, FLOW, 'velocity', net=net or Chords(FLOW), steps=40)
  return made, fewstep.key_points(made, **(dict(trajectories=8, fresh=4, steps=64, adversarial=0.0) | options))


def exact(n=32):
  """A record of the flow in closed form."""
  z = keys.normal(keys.per_sample(jax.random.key(8), n), jnp.zeros((n, 1)))
  x = jnp.stack([closed.flow(FLOW, z, jnp.ones(n), jnp.full(n, t)) for t in TIMES], 1)
  return Record(x, None, jnp.asarray(n))


def test_the_record_is_made_once_and_lies_on_the_flow():
  """Eight trajectories in two steps, to .01 of the closed form; then it stays, and data are never read."""
  _, method = own()
  buffer, batch = method.buffers[RECORD], {'x': jnp.full((4, 1), jnp.nan)}
  renew = jax.jit(lambda kept, key: buffer.renew({'student': closed.right()}, kept, batch, key))
  seen = [buffer.init(jax.random.key(0))]
  for i in range(4):
    seen.append(renew(seen[-1], jax.random.key(i)))
  assert [int(record.held) for record in seen] == [0, 4, 8, 8, 8]
  last = seen[-1]
  np.testing.assert_array_equal(last.x, seen[2].x)
  for i, t in enumerate(TIMES):
    want = closed.flow(FLOW, last.x[:, 0], jnp.ones(8), jnp.full(8, t))
    np.testing.assert_allclose(last.x[:, i], want, atol=0.01)
  assert np.std(last.x[:, 0]) > 0.3


@pytest.mark.slow
def test_chords_of_an_exact_record_are_the_students_rest():
  """No error at the chords of the flow, and a gain or a shift of the velocity shows by its square."""
  _, method = own()
  loss, batch = method.phases[0].loss, {'x': jnp.full((16, 1), jnp.nan)}
  roles = {'student': closed.right(), RECORD: exact()}
  assert float(loss(roles, batch, jax.random.key(0))[0].max()) < 1e-8
  off = {**roles, 'student': closed.right() | {'shift': jnp.asarray(0.2)}}
  values, aux = loss(off, batch, jax.random.key(0))
  np.testing.assert_allclose(values, 0.04, rtol=1e-3)
  assert set(np.unique(aux['t'])) <= set(np.float32(TIMES[:-1]))


@pytest.mark.slow
def test_the_students_way_has_a_gradient_in_its_last_step_alone():
  """The exact student lands on the record; a shift of all velocities moves it by the last step's length, a fourth."""
  made, _ = own()
  jump, rows = jump_from(made, end=0.0), keys.per_sample(jax.random.key(3), 16)
  roles = {'student': closed.right(), RECORD: exact()}
  real, made = at_key_point(TIMES)(roles, {}, rows), rolled(jump, TIMES)(roles, {}, rows)
  np.testing.assert_allclose(made.x, real.x, atol=1e-5)
  np.testing.assert_array_equal(made.t, real.t)
  assert set(np.unique(real.t)) <= set(np.float32(TIMES[1:])) and len(np.unique(real.t)) > 1

  def landed(shift):
    return rolled(jump, TIMES)({**roles, 'student': closed.right() | {'shift': shift}}, {}, rows).x[:, 0]

  np.testing.assert_allclose(jax.jacfwd(landed)(jnp.zeros(())), -0.25, rtol=1e-4)


def test_each_phase_moves_its_own_role():
  made, method = own(target=RING, net=nets.mlp(width=8, depth=1), adversarial=0.1)
  key = jax.random.key(3)
  roles = jax.tree.map(lambda p: p + 0.1 * jax.random.normal(key, p.shape), dict(method.init(key)))
  record = Record(jax.random.normal(key, (8, 5, 2)), None, jnp.asarray(8))
  for phase in method.phases:
    grads = audit(phase.loss, {**roles, RECORD: record}, {'x': jnp.full((8, 2), jnp.nan)})
    assert {role for role, size in grads.items() if size > 0} == {phase.role}


def test_the_key_times_and_the_generator():
  """Shifted they are those of rectified flow at another resolution; it draws by as many steps as there are points."""
  np.testing.assert_allclose(key_times(FLOW, 4, 3.0), [1, 0.9, 0.75, 0.5, 0], rtol=1e-6)
  _, method = own(shift=3.0)
  asked = Sampling(4, lambda: np.linspace(1, 0, 5), lambda: None, lambda denoise: denoise)
  draw = method.generator({'student': closed.right()}, asked)
  np.testing.assert_allclose(draw.times, [1, 0.9, 0.75, 0.5], rtol=1e-6)
  _, method = own()
  draw = method.generator({'student': closed.right()}, asked)
  x = jax.jit(lambda draw, rows: draw(rows))(draw, keys.per_sample(jax.random.key(1), 4000))
  assert abs(float(x.mean()) - closed.MEAN) < 0.04 and abs(float(x.var()) - closed.VAR) < 0.03
  with pytest.raises(InputError, match='steps: got 8; allowed: 4, the key points of the training'):
    method.generator({'student': closed.right()}, dataclasses.replace(asked, steps=8))


def test_refusals():
  for options, message in (
    (dict(points=3), 'points, steps, trajectories, fresh: got 3, 64, 8, 4'),
    (dict(fresh=3), 'points, steps, trajectories, fresh: got 4, 64, 8, 3'),
    (dict(shift=0), 'shift, adversarial: got 0, 0.0'),
    (dict(scale=2.0), 'scale: got 2.0; allowed: 1'),
  ):
    with pytest.raises(InputError, match=message):
      own(**options)


@pytest.mark.slow
def test_four_steps_on_the_ring():
  """The chords alone: sliced W2 <= .06, 2.5 times below the teacher's in four; half the ends within .05 of its."""
  made = parts(RING, FLOW, 'velocity', steps=1500)
  method = fewstep.key_points(made, trajectories=4096, fresh=64, adversarial=0.0)
  roles = bench.trained(method, RING, 1500, batch=256)
  own = bench.figures(RING, bench.drawn(method, roles, bench.even(4)))
  z, jump = keys.normal(keys.per_sample(jax.random.key(40), 2000), jnp.zeros((2000, 2))), jump_from(made, end=0.0)
  exact = RING.denoiser(FLOW)

  def ends(move, n):
    ts = jnp.asarray(key_times(FLOW, n, 1.0), jnp.float32)
    return jax.jit(lambda x: jax.lax.scan(lambda x, i: (move(x, ts[i], ts[i + 1]), None), x, jnp.arange(n))[0])(z)

  euler = lambda x, t, s: transfer(FLOW, x, exact(x, t).x0, t, s)  # noqa: E731
  student = ends(lambda x, t, s: jump(roles['student'], x, t, s), 4)
  apart = float(np.median(np.linalg.norm(student - ends(euler, 1000), axis=1)))
  teacher = bench.figures(RING, np.asarray(ends(euler, 4)))
  print(own, apart, teacher)
  assert own.sw <= 0.06 and apart <= 0.05 and teacher.sw >= 2.5 * own.sw
