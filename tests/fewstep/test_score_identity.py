"""Score identity distillation: where it rests, what its expectation is, what passes its gradient."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from laws import blind, own, roles_of

from diffjax import exact, fewstep, keys, schedules
from diffjax.errors import InputError
from diffjax.fewstep.direction import ranks
from diffjax.fewstep.score_identity import identity

COSINE = schedules.cosine()
TEACHER = exact.gaussian([0.0], 0.25)


def gaussian(alpha, n, critic=None):
  """The loss of a generator x = a z by the deviation a, whose critic is the exact one of deviation `critic`, or of a."""
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
  """The value moves by its gradient: a finite difference over the student's weights, at fixed weights elsewhere."""
  made = own()
  method = fewstep.score_identity(made, level=2.0)
  roles, loss = roles_of(method, made), method.phases[1].loss
  way = jax.tree.map(jnp.ones_like, roles['student'])
  batch = {'x': blind()['x'].astype(jnp.float32)}

  def value(h):
    moved = jax.tree.map(lambda p, w: p + h * w, roles['student'], way)
    values, aux = loss({**roles, 'student': moved}, batch, jax.random.key(0))
    return values.mean()

  with jax.enable_x64(False):
    both = jax.jit(jax.value_and_grad(value))
  (up, _), (down, _), (_, slope) = both(1e-2), both(-1e-2), both(0.0)
  assert np.isfinite(float(up)) and float(slope) != 0 and np.isfinite(float(down))


def test_refusals():
  with pytest.raises(InputError, match='alpha: got 0.0; allowed: a positive number, 1.2 in the paper'):
    fewstep.score_identity(own(), alpha=0.0)
  with pytest.raises(InputError, match='low, high, rho: got 0.0, 1.5'):
    fewstep.score_identity(own(), high=1.5)
