"""Several students: one of them is the method itself, each sees its own labels, and a label is drawn by its student."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from laws import LABELLED, drawn, filled, labelled, own, roles_of, trained

from diffjax import fewstep, keys, nets
from diffjax.errors import InputError
from diffjax.fewstep.multi_student import among, shared_out
from diffjax.methods import Sampling
from diffjax.metrics.transport import sliced_wasserstein

SAMPLING = Sampling(1, lambda: None, lambda: None, lambda denoise: denoise)
DATA = {'x': labelled().means, 'cond': jnp.arange(8)}


@pytest.mark.slow
def test_one_student_is_distribution_matching_2():
  """The same values, turns, beginnings and samples, by names with a number."""
  made = own(LABELLED, classes=8)
  plain, one = fewstep.distribution_matching_2(made, every=2), fewstep.multi_student(made, students=1, every=2)
  roles, key = roles_of(plain, made), jax.random.key(3)
  numbered = {name if name == 'teacher' else f'{name}_0': tree for name, tree in roles.items()}
  for a, b in zip(plain.phases, one.phases, strict=True):
    np.testing.assert_array_equal(a.loss(roles, DATA, key)[0], b.loss(numbered, DATA, key)[0])
    assert (f'{a.role}_0', a.every, a.offset) == (b.role, b.every, b.offset)
  begun, again = plain.init(key), one.init(key)
  assert set(again) == {'discriminator_0'}
  jax.tree.map(np.testing.assert_array_equal, begun['discriminator'], again['discriminator_0'])
  assert one.averaged == ('student_0',) and set(one.copies) == {'student_0', 'critic_0'}
  batch = keys.per_sample(key, 8)
  np.testing.assert_array_equal(
    plain.generator(roles, SAMPLING)(batch, DATA['cond']), one.generator(numbered, SAMPLING)(batch, DATA['cond'])
  )


def test_a_label_is_drawn_by_its_student():
  """A mixed batch is what each student draws of its own labels; one evaluation makes a sample, four are run."""
  made = own(LABELLED, classes=8)
  method = fewstep.multi_student(made, students=4, judging=0.0)
  roles = {f'student_{k}': filled(made.teacher.params, k) for k in range(4)}
  batch, cond = keys.per_sample(jax.random.key(1), 8), jnp.asarray([7, 0, 3, 5, 2, 1, 6, 4])
  draw = method.generator(roles, SAMPLING)
  assert draw.nfe == 1 and draw.cost == 4
  mixed = draw(batch, cond)
  plain = fewstep.distribution_matching_2(made, judging=0.0)
  for k in range(4):
    alone = plain.generator({'student': roles[f'student_{k}']}, SAMPLING)(batch, cond)
    mine = np.asarray(cond) // 2 == k
    np.testing.assert_allclose(mixed[mine], alone[mine], atol=1e-6)
  with pytest.raises(InputError, match='cond: got none; allowed: labels, which say who draws'):
    draw(batch)


def test_each_sees_the_data_of_its_labels():
  """Rows of other labels become rows of these, drawn evenly; without any of these nothing changes."""
  cond = jnp.asarray([0, 1, 2, 3] * 500)
  batch = {'x': 10.0 * cond[:, None], 'cond': cond}
  seen = among(batch, (1, 3), jax.random.key(0))
  assert set(np.asarray(seen['cond'])) == {1, 3}
  np.testing.assert_array_equal(seen['x'][:, 0], 10 * seen['cond'])
  inside = np.isin(np.asarray(cond), (1, 3))
  np.testing.assert_array_equal(seen['cond'][inside], cond[inside])
  assert abs(float(np.mean(seen['cond'][~inside] == 1)) - 0.5) < 0.07
  np.testing.assert_array_equal(among(batch, (5,), jax.random.key(0))['cond'], cond)


def test_shares():
  assert shared_out(8, 3) == ((0, 1), (2, 3, 4), (5, 6, 7)) and shared_out(10, 1) == (tuple(range(10)),)
  made = own(LABELLED, classes=8)
  for options in (dict(students=9), dict(shares=((0, 1), (1, 2, 3, 4, 5, 6, 7))), dict(shares=((0,), (1,)))):
    with pytest.raises(InputError, match='students, shares: got .*; allowed: each of the 8 labels in one share'):
      fewstep.multi_student(made, **options)
  with pytest.raises(InputError, match='labels: got some; allowed: none'):
    fewstep.multi_student(made, labels=(1,))
  with pytest.raises(InputError, match='allowed: each of the 0 labels'):
    fewstep.multi_student(own())


@pytest.mark.slow
def test_four_students_of_two_labels_are_nearer_than_one_of_eight():
  """Each of width 32 and of as many steps: the mean distance of a class at least a fifth less."""
  net, label = nets.mlp(width=32, depth=2, classes=8), np.arange(8000) % 8
  data = np.asarray(labelled().sample(keys.per_sample(jax.random.key(9), 8000), jnp.asarray(label)))
  apart = {}
  for students in (1, 4):
    made = own(net, classes=8, steps=1000, rate=1e-3, teacher='closed')
    method = fewstep.multi_student(made, students=students, judging=0.0, every=2, levels=(2.0,))
    x = drawn(method, trained(method, 1000, batch=256).roles, 8000, cond=jnp.asarray(label))
    apart[students] = np.mean([sliced_wasserstein(data[label == k], x[label == k], 64) for k in range(8)])
  print('students', apart)
  assert apart[4] <= 0.8 * apart[1]
