"""Distribution backtracking: who teaches when, what is kept on the way, and that the student rests meanwhile."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from laws import TINY, blind, filled, measured, own, roles_of, teacher_of, trained

from diffjax import fewstep
from diffjax.errors import InputError
from diffjax.fewstep.distil_back import teacher_index
from diffjax.train.step import init_state, make_train_step


def test_who_teaches():
  """From N - 1 by one every interval to 0, the teacher, where it stays."""
  seen = [int(teacher_index(step, 4, 3)) for step in range(16)]
  assert seen == [3, 3, 3, 2, 2, 2, 1, 1, 1, 0, 0, 0, 0, 0, 0, 0]
  assert [int(teacher_index(step, 1, 3)) for step in range(5)] == [0] * 5


@pytest.mark.slow
def test_none_recorded_is_distribution_matching():
  """The same values; and with some recorded too once the way back has ended."""
  made = own()
  back, plain = fewstep.distil_back(made, recorded=0), fewstep.distribution_matching(made, regression=0.0)
  roles, key = roles_of(plain, made), jax.random.key(3)
  want = [phase.loss(roles, blind(), key)[0] for phase in plain.phases]
  assert back.buffers == {} and [phase.every for phase in back.phases] == [1, 1]
  for phase, values in zip(back.phases, want, strict=True):
    np.testing.assert_array_equal(phase.loss(roles, blind(), key)[0], values)
  later = fewstep.distil_back(made, recorded=2, apart=3, interval=4)
  chain = later.buffers['chain'].init(key).replace(params=jax.tree.map(
    lambda leaf: jnp.stack([leaf, leaf]), filled(made.teacher.params, 9)))  # fmt: skip
  student = later.phases[1].loss
  ended = {**roles, 'progress': jnp.asarray(6 + 4), 'chain': chain}
  np.testing.assert_allclose(student(ended, blind(), key)[0], want[1], rtol=1e-5)
  before = {**ended, 'progress': jnp.asarray(6 + 3)}
  assert np.abs(np.asarray(student(before, blind(), key)[0] - want[1])).max() > 1e-4
  own_teacher = {**roles, 'teacher': filled(made.teacher.params, 9)}
  np.testing.assert_allclose(
    student(before, blind(), key)[0], plain.phases[1].loss(own_teacher, blind(), key)[0], rtol=1e-5
  )


@pytest.mark.slow
def test_what_is_kept_on_the_way():
  """The student rests for recorded * apart steps; copy i is the critic after i * apart moves; then the student goes."""
  made = own(TINY, rate=1e-2)
  method = fewstep.distil_back(made, recorded=2, apart=2, interval=3)
  first = {'teacher': filled(made.teacher.params), **method.init(jax.random.key(0))}
  state = init_state(method, first, jax.random.key(1), blind())
  step = jax.jit(make_train_step(method), static_argnums=2)
  leaf = lambda tree: np.asarray(jax.tree.leaves(tree)[0])  # noqa: E731
  students, critics, chains = [], [], []
  for _ in range(6):
    state, _ = step(state, blind(), (0, 1))
    students.append(leaf(state.roles['student']))
    critics.append(leaf(state.roles['critic']))
    chains.append(leaf(state.buffers['chain'].params))
  assert int(state.skipped) == 0 and int(state.buffers['progress']) == 5
  for i in range(4):
    np.testing.assert_array_equal(students[i], leaf(first['teacher']))
  assert np.abs(students[4] - students[3]).max() > 1e-4
  np.testing.assert_array_equal(chains[-1][0], critics[1])
  np.testing.assert_array_equal(chains[-1][1], critics[3])


def test_refusals():
  with pytest.raises(InputError, match='recorded: got 5 with ring, a closed form or another network'):
    fewstep.distil_back(own(teacher='closed'))
  with pytest.raises(InputError, match='recorded, apart, interval: got 5, 0, 1000; allowed: at least 0, 1, 1'):
    fewstep.distil_back(own(), apart=0)


@pytest.mark.slow
def test_a_step_on_the_ring_from_its_teacher():
  """Sliced W2 <= .12, the distance to which the specification counts steps."""
  net, params = teacher_of(batch=256)
  method = fewstep.distil_back(own(net, steps=1000, rate=3e-4), recorded=4, apart=25, interval=50, level=2.0, pace=3.0)
  seen = measured(method, trained(method, 1000, batch=256, given={'teacher': params}).roles)
  print('distil back', seen)
  assert seen.sw <= 0.12
