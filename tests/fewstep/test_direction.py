"""Directions: their gradient, what they read, and the point at which the right critic leaves them at rest."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from diffjax import exact, keys, kinds, nets, schedules
from diffjax.errors import InputError
from diffjax.fewstep.direction import Field, denoised, direction, matched, pull_back, ranks, residual
from diffjax.fewstep.rollouts import drawn_labels, levels_of, made, over_levels
from diffjax.methods import Sampling
from experiments.ring import parts, ring

EDM = schedules.edm(sigma_min=0.01, sigma_max=10.0)


def test_pull_back_has_the_direction_as_its_gradient():
  """In x g / d; through a linear generator x = A z its Jacobian's transpose times that; none reaches the fields."""
  x, g = jax.random.normal(jax.random.key(0), (2, 5, 3))
  np.testing.assert_allclose(jax.grad(lambda x: pull_back(x, g).sum())(x), g / 3, atol=1e-6)
  z = jax.random.normal(jax.random.key(1), (5, 2))
  a = jax.random.normal(jax.random.key(2), (2, 3))
  np.testing.assert_allclose(jax.grad(lambda a: pull_back(z @ a, g).sum())(a), z.T @ g / 3, atol=1e-5)
  assert float(jnp.abs(jax.grad(lambda g: pull_back(x, g).sum())(g)).max()) == 0


def test_direction_of_gaussians_is_the_score_difference():
  """(x - D) - (x - D') = sigma^2 / alpha (s' - s), for k and for k (B,); nothing passes a gradient."""
  process = schedules.cosine()
  one, other = exact.gaussian([0.5, 0.0], [0.3, 0.3]), exact.gaussian([0.0, 0.2], [1.0, 0.5])
  x, eps = jax.random.normal(jax.random.key(0), (2, 6, 2))
  t = jnp.linspace(0.1, 0.9, 6)
  alpha, sigma = process.schedule(t)
  fields = lambda x: direction(  # noqa: E731
    [Field(1.0, one.denoiser(process)), Field(-jnp.ones(6), other.denoiser(process))], x, eps, t
  )
  score = lambda law: jax.vmap(jax.grad(lambda x, a, s: law.log_density(x[None], a, s)[0]))(  # noqa: E731
    process.perturb(x, eps, t), alpha, sigma
  )
  want = (sigma**2 / alpha)[:, None] * (score(other) - score(one))
  np.testing.assert_allclose(fields(x), want, atol=2e-5)
  np.testing.assert_allclose(
    residual(one.denoiser(process), x, eps, t), x - one.denoiser(process)(process.perturb(x, eps, t), t).x0, atol=1e-6
  )
  assert float(jnp.abs(jax.jacobian(fields)(x)).max()) == 0


def test_matched_rests_where_the_laws_are_equal_and_reads_no_data():
  """A generator of the teacher's own law with the exact critic has no gradient; half its size has one outwards."""
  process, law = schedules.cosine(), exact.gaussian([0.0], 0.25)
  data = {'x': jnp.full((64, 1), jnp.nan)}

  def slope(size):
    make = lambda a, key_batch: (a * keys.normal(key_batch, data['x']), None)  # noqa: E731
    critic = exact.gaussian([0.0], size**2).denoiser(process)
    loss = matched(make, lambda roles, cond: (Field(1.0, law.denoiser(process)), Field(-1.0, critic)), process, ranks())
    return jax.grad(lambda a: loss({'student': a}, data, jax.random.key(0))[0].mean())(jnp.asarray(size))

  assert abs(float(slope(0.5))) < 1e-6 and float(slope(0.25)) < -1e-2


def test_ranks_are_even_on_the_ladder():
  """Its density is the slope of its distribution, and integrates to one."""
  for process in (EDM, schedules.cosine()):
    law = ranks(0.1, 0.7)
    u = jnp.linspace(0.005, 0.995, 400)
    t = np.asarray(law.quantile(process, u), np.float64)
    middle = jnp.asarray((t[1:] + t[:-1]) / 2)
    np.testing.assert_allclose(np.diff(np.asarray(u)) / np.diff(t), law.density(process, middle), rtol=2e-2)
  sigma = ranks(0.0, 1.0).quantile(EDM, jnp.asarray([0.0, 0.5, 1.0]))
  np.testing.assert_allclose(sigma, [0.01, ((0.01 ** (1 / 7) + 10 ** (1 / 7)) / 2) ** 7, 10.0], rtol=1e-4)


@pytest.mark.slow
def test_a_rollout_is_trained_on_what_it_meets():
  """The samples of one level are D(sigma z); of two, half leave at each; those of the generator have the same law."""
  own = parts(ring(), EDM, kinds.edm(0.7), net=nets.mlp(width=8, depth=1))
  params = own.init(jax.random.key(0))
  batch = keys.per_sample(jax.random.key(1), 4096)
  draw = lambda levels: jax.jit(made(own, levels))(params, batch)[0]  # noqa: E731
  one, two = np.asarray(draw((2.0,))), np.asarray(draw((2.0, 0.5)))
  steps = lambda n: Sampling(n, lambda: None, lambda: None, lambda denoise: denoise)  # noqa: E731
  first = over_levels(own, (2.0,))({'student': params}, steps(1))
  second = over_levels(own, (2.0, 0.5))({'student': params}, steps(2))
  assert first.nfe == 1 and second.nfe == 2
  ends = np.asarray(first(batch)), np.asarray(second(batch))
  moments = lambda x: np.concatenate([x.mean(0), np.cov(x.T).ravel()])  # noqa: E731
  np.testing.assert_allclose(moments(one), moments(ends[0]), atol=0.05)
  both = np.concatenate([ends[0][:2048], ends[1][:2048]])
  np.testing.assert_allclose(moments(two), moments(both), atol=0.05)
  with pytest.raises(InputError, match='steps: got 1; allowed: 2, the levels of the generator'):
    over_levels(own, (2.0, 0.5))({'student': params}, steps(1))


@pytest.mark.slow
def test_gradients_pass_the_last_evaluation_alone():
  """With a first level whose evaluation is stopped, the gradient equals that of one evaluation at what is met."""
  own = parts(ring(), EDM, kinds.edm(0.7), net=nets.mlp(width=4, depth=1))
  params, batch = own.init(jax.random.key(0)), keys.per_sample(jax.random.key(1), 8)
  make = made(own, (2.0, 0.5))
  x = make(params, batch)[0]
  grads = jax.grad(lambda moved: jnp.sum(make(moved, batch)[0] * x))(params)
  critic = denoised(make, lambda roles, batch, key: (jnp.sum(batch['x'], 1), {}))
  told = jax.grad(lambda moved: critic({'student': moved}, {'x': x}, jax.random.key(0))[0].sum())(params)
  assert max(float(jnp.abs(g).max()) for g in jax.tree.leaves(grads)) > 1e-3
  assert max(float(jnp.abs(g).max()) for g in jax.tree.leaves(told)) == 0


def test_levels_and_labels():
  own = parts(ring(), EDM, kinds.edm(0.7), classes=8)
  assert levels_of(own, ()) == (10.0,) and levels_of(own, (2, 0.5)) == (2.0, 0.5)
  for wrong in ((0.5, 2.0), (20.0,), (1.0, 0.001)):
    with pytest.raises(InputError, match='levels: got .*; allowed: falling times above 0.01 and up to t_max 10'):
      levels_of(own, wrong)
  batch = keys.per_sample(jax.random.key(0), 4000)
  assert set(np.asarray(drawn_labels(own, (2, 5))(batch))) == {2, 5}
  count = np.bincount(np.asarray(drawn_labels(own)(batch)), minlength=8)
  assert abs(count / 4000 - 1 / 8).max() < 4 * np.sqrt(7 / 64 / 4000)
