"""Distribution matching distillation: its pairs, its refusals, and the ring without data."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from laws import blind, measured, own, roles_of, teacher_of, trained

from diffjax import fewstep, solvers
from diffjax.errors import InputError
from diffjax.fewstep import critics
from diffjax.fewstep.distribution_matching import matching
from diffjax.fewstep.rollouts import one_step
from diffjax.solvers import grids


def test_pairs_hold_the_step_to_the_teachers_flow():
  """With a weight c the loss is the direction's plus c |G(z) - y|^2 / d, y where the teacher takes z."""
  made = own(teacher='closed')
  method = fewstep.distribution_matching(made, level=2.0, regression=0.5, pool=8, fresh=8, steps=3)
  roles = roles_of(method, made)
  for name in ('progress', 'pairs'):
    roles[name] = method.buffers[name].renew(roles, roles[name], blind(), jax.random.key(1))
  pairs = roles['pairs']
  solver = solvers.dpmpp_2m(made.process, grids.noise_share(made.process, 3))
  y = solvers.sample(made.teacher.denoiser(()), solver, 10.0 * pairs.z)
  np.testing.assert_allclose(pairs.x, y, atol=1e-4)
  values, aux = method.phases[1].loss(roles, blind(), jax.random.key(2))
  plain = fewstep.distribution_matching(made, level=2.0, regression=0.0)
  np.testing.assert_allclose(
    values - 0.5 * aux['regression'], plain.phases[1].loss(roles, blind(), jax.random.key(2))[0], atol=1e-6
  )
  errors = jnp.mean((one_step(made, 2.0)(roles['student'], pairs.z) - pairs.x) ** 2, 1)
  assert all(jnp.min(jnp.abs(errors - error)) < 1e-5 for error in aux['regression'])
  assert plain.buffers == {} and plain.loads == ()


def test_equal_denoisers_leave_the_student_at_rest():
  """A critic with the teacher's weights: no gradient whatever the student, and some with another critic."""
  made = own()
  setting = critics.setting(made)
  loss = matching(setting)
  roles = roles_of(fewstep.distribution_matching(made, regression=0.0), made)

  def size(roles):
    grads = jax.grad(lambda p: loss({**roles, 'student': p}, blind(), jax.random.key(0))[0].mean())(roles['student'])
    return max(float(jnp.abs(g).max()) for g in jax.tree.leaves(grads))

  assert size({**roles, 'critic': roles['teacher']}) < 1e-7 < 1e-3 < size(roles)


def test_refusals():
  for options, message in {
    (('regression', -1.0),): 'regression: got -1.0; allowed: at least 0',
    (('pace', 0.0),): 'pace: got 0.0; allowed: a positive multiple',
    (('level', 20.0),): 'levels: got .20.0,.; allowed: falling times above 0.01 and up to t_max 10',
    (('scale', 2.0),): 'scale: got 2.0; allowed: 1, since the data have no labels',
    (('pool', 10), ('fresh', 4)): 'pool, fresh: got 10, 4',
  }.items():
    with pytest.raises(InputError, match=message):
      fewstep.distribution_matching(own(), **dict(options))


@pytest.mark.slow
def test_a_step_on_the_ring_from_its_teacher():
  """Sliced W2 <= .06, masses <= .05, off <= .04: ten times nearer than the teacher at one step (.635)."""
  net, params = teacher_of()
  method = fewstep.distribution_matching(own(net, steps=1500, rate=3e-4), level=2.0, regression=0.0, pace=3.0)
  state = trained(method, 1500, given={'teacher': params})
  seen = measured(method, state.roles)
  print('distribution matching', seen)
  assert seen.sw <= 0.06 and seen.tv <= 0.05 and seen.off <= 0.04
