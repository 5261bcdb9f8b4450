"""Score identity distillation: where it rests, what its expectation is, what passes its gradient."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from laws import blind, measured, own, roles_of, teacher_of, trained

from diffjax import exact, fewstep, keys, schedules
from diffjax.errors import InputError
from diffjax.fewstep import critics
from diffjax.fewstep.direction import ranks
from diffjax.fewstep.score_identity import identity

COSINE = schedules.cosine()
TEACHER = exact.gaussian([0.0], 0.25)


def gaussian(alpha, n):
  """(a, critic) -> the loss of a generator x = a z with the exact critic of this deviation, of a unless given."""
  data = {'x': jnp.full((n, 1), jnp.nan)}
  make = lambda a, key_batch: (a * keys.normal(key_batch, data['x']), None)  # noqa: E731

  def asked(roles, cond, key_batch):
    known = exact.gaussian([0.0], 1.0).replace(var=(roles['critic'] ** 2).reshape(1, 1))
    return TEACHER.denoiser(COSINE), None, known.denoiser(COSINE), None, 1.0

  loss = identity(make, asked, COSINE, ranks(0.1, 0.8), alpha, normalised=False)
  return lambda a, critic=None: loss({'student': a, 'critic': a if critic is None else critic}, data, jax.random.key(1))


def test_its_expectation_with_the_perfect_critic_is_the_fisher_divergence():
  """E delta (D - x) = E |delta|^2, so the mean is (1 - a) E |delta|^2; within three standard errors, for two a."""
  for alpha in (0.5, 1.2):
    values, aux = jax.jit(gaussian(alpha, 20000))(jnp.asarray(0.8))
    gap = values - (1 - alpha) * aux['error']
    assert float(aux['error'].mean()) > 1e-3
    assert abs(float(gap.mean())) < 3 * float(gap.std()) / 20000**0.5


def test_it_rests_where_the_laws_are_equal_and_leads_there():
  """At a = .5, the teacher's deviation, no gradient at all; with the critic of what is made, downhill towards it."""
  slope = jax.jit(jax.grad(lambda a, critic: gaussian(1.2, 20000)(a, critic)[0].mean()))
  at = lambda a: float(slope(jnp.asarray(a), jnp.asarray(a)))  # noqa: E731
  assert abs(at(0.5)) < 1e-6 and at(0.4) < -1e-3 and at(0.7) > 1e-3


def test_gradients_pass_the_inputs_of_both_denoisers():
  """Without the divisor the value moves by its gradient: a central difference along a way of the student's weights."""
  made = own()
  setting = critics.setting(made, levels=(2.0,))
  roles = roles_of(fewstep.score_identity(made), made)
  asked = lambda roles, cond, key_batch: (setting.teacher(roles), cond, setting.critic(roles), cond, 1.0)  # noqa: E731
  loss = identity(setting.make, asked, made.process, ranks(0.4, 0.8), normalised=False)

  @jax.jit
  def value(h):
    moved = jax.tree.map(lambda p: p + h, roles['student'])
    return loss({**roles, 'student': moved}, blind(), jax.random.key(0))[0].mean()

  slope, h = float(jax.grad(value)(0.0)), 2e-3
  assert abs(slope) > 1e-3
  np.testing.assert_allclose((value(h) - value(-h)) / (2 * h), slope, rtol=2e-2)


def test_refusals():
  with pytest.raises(InputError, match='alpha: got 0.0; allowed: a positive number, 1.2 in the paper'):
    fewstep.score_identity(own(), alpha=0.0)
  with pytest.raises(InputError, match='low, high, rho: got 0.0, 1.5'):
    fewstep.score_identity(own(), high=1.5)


@pytest.mark.slow
def test_a_step_on_the_ring_from_its_teacher():
  """Sliced W2 <= .12, off <= .05, the specification's targets."""
  net, params = teacher_of(batch=256)
  method = fewstep.score_identity(own(net, steps=1500, rate=3e-4), level=2.0, pace=3.0)
  seen = measured(method, trained(method, 1500, batch=256, given={'teacher': params}).roles)
  print('score identity', seen)
  assert seen.sw <= 0.12 and seen.off <= 0.05
