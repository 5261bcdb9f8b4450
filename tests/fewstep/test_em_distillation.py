"""EM distillation: one move is distribution matching, the noise cancels, the chain keeps its prior."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from laws import TINY, measured, own, roles_of, teacher_of, trained

from diffjax import exact, fewstep, keys
from diffjax.errors import InputError
from diffjax.fewstep import critics
from diffjax.fewstep.direction import Field, direction
from diffjax.fewstep.em_distillation import Chain, chain
from diffjax.fewstep.rollouts import one_step


def begun(size=8):
  made = own(TINY)
  setting = critics.setting(made, levels=(2.0,))
  roles = roles_of(fewstep.em_distillation(made, level=2.0), made)
  batch = keys.per_sample(jax.random.key(2), size)
  z, eps = keys.normal(batch, jnp.zeros((size, 2))), keys.normal(keys.fold(batch, 1), jnp.zeros((size, 2)))
  return made, setting, roles, Chain(z, eps, eps), jnp.linspace(0.05, 8.0, size), batch


def test_one_move_is_distribution_matching():
  """With b = 0: (sigma / alpha) (ebar - eps) = a (D_psi - D_teacher) at x_t = alpha G(z) + sigma eps, and z stays."""
  made, setting, roles, begin, t, batch = begun()
  end = jax.jit(lambda roles: chain(setting, roles, begin, t, None, batch, (1, 0.3, 0.0)))(roles)
  x = one_step(made, 2.0)(roles['student'], begin.z)
  g = direction([Field(1.0, setting.teacher(roles)), Field(-1.0, setting.critic(roles))], x, begin.eps, t)
  np.testing.assert_allclose(t[:, None] * (end.free - end.eps), 0.3 * g, rtol=1e-3, atol=2e-5)
  np.testing.assert_array_equal(end.z, begin.z)


def test_equal_laws_leave_it_at_rest_whatever_the_moves():
  """With the teacher as the critic the two chains of noise are one, and z and eps keep their laws, N(0, 1)."""
  _, setting, roles, begin, t, batch = begun(4096)
  roles = {**roles, 'critic': roles['teacher']}
  end = jax.jit(lambda roles: chain(setting, roles, begin, t, None, batch, (8, 0.2, 0.1)))(roles)
  np.testing.assert_allclose(end.free, end.eps, atol=1e-6)
  growth = lambda a: (1 - a) ** 16 + 2 * a * (1 - (1 - a) ** 16) / (1 - (1 - a) ** 2)  # noqa: E731
  for part, step in ((end.z, 0.1), (end.eps, 0.2)):
    np.testing.assert_allclose(part.std(0), np.sqrt(growth(step)) * np.ones(2), atol=0.05)


def test_the_moves_of_a_gaussian_are_affine():
  """A linear generator, Gaussian laws: z goes by b (alpha A^T h - z), h = s_teacher - s_critic, in closed form."""
  made, setting, _, begin, t, batch = begun(64)
  one, other = exact.gaussian([0.3, -0.2], [0.3, 0.2]), exact.gaussian([0.1, 0.0], [0.5, 0.4])
  alone = setting.__class__(
    made, own(teacher='closed').teacher, lambda roles: one.denoiser(made.process), (2.0,), (), 1.0
  )
  roles = {'student': roles_of(fewstep.em_distillation(made), made)['student'], 'critic': ()}
  with pytest.MonkeyPatch.context() as patch:
    patch.setattr(setting.__class__, 'critic', lambda self, roles: other.denoiser(made.process))
    end = chain(alone, roles, begin, t, None, batch, (1, 0.2, 0.05))
  ask = one_step(made, 2.0)
  x, jac = ask(roles['student'], begin.z), jax.vmap(jax.jacobian(lambda z: ask(roles['student'], z[None])[0]))(begin.z)
  x_t = x + t[:, None] * begin.eps
  score = lambda law: -(x_t - law.means) / (law.var + t[:, None] ** 2)  # noqa: E731
  h = score(one) - score(other)
  k_eps, k_z = keys.split(keys.fold(batch, 0), 2)
  noise, own_noise = keys.normal(k_eps, x), keys.normal(k_z, x)
  eps = 0.8 * begin.eps + 0.2 * t[:, None] * h + np.sqrt(0.4) * noise
  z = 0.95 * begin.z + 0.05 * jnp.einsum('bij,bi->bj', jac, h) + np.sqrt(0.1) * own_noise
  np.testing.assert_allclose(end.eps, eps, rtol=2e-3, atol=2e-4)
  np.testing.assert_allclose(end.z, z, rtol=2e-3, atol=2e-4)


def test_refusals():
  for options in (dict(moves=0), dict(noise_step=1.5), dict(latent_step=-0.1)):
    with pytest.raises(InputError, match='moves, noise_step, latent_step: got .*; allowed: at least 1'):
      fewstep.em_distillation(own(), **options)


@pytest.mark.slow
def test_a_step_on_the_ring_from_its_teacher():
  """Four moves: sliced W2 <= .12, the specification's target, and masses <= .05, the bar of distribution matching."""
  net, params = teacher_of(batch=256)
  method = fewstep.em_distillation(own(net, steps=1000, rate=3e-4), moves=4, level=2.0, pace=3.0)
  seen = measured(method, trained(method, 1000, batch=256, given={'teacher': params}).roles)
  print('em distillation', seen)
  assert seen.sw <= 0.12 and seen.tv <= 0.05
