"""InvDiff: the bound it rests on, where it begins, what its groups look for, and a biased model mended."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from sklearn.metrics import adjusted_rand_score

from diffjax import exact, keys, methods, nets, schedules
from diffjax.errors import InputError
from diffjax.methods import Source
from diffjax.methods.invariant import group_losses, shift_bound
from experiments import ring

MEANS, WEIGHTS = [[-2.0, 0.0], [2.0, 0.0], [0.0, 2.5]], [0.9, 0.07, 0.03]
DATA = exact.mixture(WEIGHTS, MEANS, np.full(3, 0.25))
PROCESS = schedules.cosine()


def parts(width=8, **changes):
  """A base that knows the common component alone."""
  biased = exact.mixture([1.0], MEANS[:1], [0.25])
  base = Source('biased', PROCESS, (2,), 0, (), lambda _: biased.denoiser(PROCESS))
  return ring.parts(DATA, PROCESS, 'eps', net=nets.mlp(width, 1 if width == 8 else 2), base=base, **changes)


def test_the_bound_on_shifts_and_where_it_is_met():
  """sum q_g L_g <= mean L + sqrt(G) |q - 1/G| std L, to 1e-12, with equality along L - mean L."""
  rng = np.random.default_rng(0)
  with jax.enable_x64(True):
    for groups in (2, 3, 8):
      losses = rng.exponential(size=groups)
      for q in rng.dirichlet(np.full(groups, 0.4), 50):
        assert q @ losses <= shift_bound(jnp.asarray(losses), jnp.asarray(q)) + 1e-12
      away = losses - losses.mean()
      met = 1 / groups + 0.3 * away / np.abs(away).max() / groups
      np.testing.assert_allclose(shift_bound(jnp.asarray(losses), jnp.asarray(met)), met @ losses, rtol=1e-12)


def test_it_begins_as_the_base_and_its_groups_part_what_is_lost():
  """Delta is 0 at the start, its gradient is not; groups by loss are worth more than groups by chance."""
  made = parts()
  method = methods.invariant(made)
  roles = jax.jit(method.init)(jax.random.key(0))
  x = jnp.asarray(np.random.default_rng(0).normal(size=(64, 2)), jnp.float32)

  @jax.jit
  def run(roles, x):
    apart, together = (phase.loss for phase in method.phases)
    slope = jax.grad(lambda student: together({**roles, 'student': student}, {'x': x}, jax.random.key(1))[0])
    both = method.denoiser(roles)(x, 0.5), made.base.denoiser(())(x, 0.5)
    parted = jax.grad(lambda groups: apart({**roles, 'groups': groups}, {'x': x}, jax.random.key(1))[0])
    return both, slope(roles['student']), parted(roles['groups'])

  (got, want), slope, parted = run(roles, x)
  np.testing.assert_array_equal(got.x0, want.x0)
  np.testing.assert_array_equal(got.eps, want.eps)
  for tree in (slope, parted):
    assert max(float(jnp.abs(leaf).max()) for leaf in jax.tree.leaves(tree)) > 1e-3
  moved = jax.tree.map(lambda leaf: leaf + 0.1, roles)
  shifted = jax.jit(method.denoiser)(moved)(x, 0.5)
  np.testing.assert_allclose(PROCESS.perturb(shifted.x0, shifted.eps, 0.5), x, atol=1e-5)
  errors, right = jnp.asarray([1.0, 1, 3, 3]), jnp.asarray([[1.0, 0], [1, 0], [0, 1], [0, 1]])
  np.testing.assert_allclose(group_losses(errors, right), [1, 3])
  np.testing.assert_allclose(group_losses(errors, right[jnp.asarray([0, 2, 1, 3])]), [2, 2])


@pytest.mark.slow
def test_the_worst_group_of_a_biased_model_is_mended():
  """The worst component's denoising loss falls by 20% and more, the mean rises by 5% at most."""
  made = parts(width=64, steps=1500, rate=3e-3)
  method = methods.invariant(made)
  roles = ring.trained(method, DATA, 1500, batch=256)
  keep = {}
  for name, denoise in dict(base=made.base.denoiser(()), mended=method.denoiser(roles)).items():
    losses = []
    for k in range(3):
      rng = np.random.default_rng(k)
      x0 = jnp.asarray(rng.normal(size=(4000, 2)) * 0.5 + MEANS[k], jnp.float32)
      eps, t = jnp.asarray(rng.normal(size=(4000, 2)), jnp.float32), jnp.asarray(rng.uniform(0.01, 0.99, 4000))
      told = jax.jit(denoise.__call__)(PROCESS.perturb(x0, eps, t), t).eps
      losses.append(float(jnp.mean((told - eps) ** 2)))
    keep[name] = np.asarray(losses)
  x = DATA.sample(keys.per_sample(jax.random.key(7), 2000))
  part = np.argmin(np.linalg.norm(np.asarray(x)[:, None] - MEANS, axis=-1), 1)
  group = np.argmax(nets.mlp(64, 2, 2)(roles['groups'], x, jnp.zeros(len(x))), 1)
  assert adjusted_rand_score(part, group) >= 0.5
  assert keep['mended'].max() <= 0.8 * keep['base'].max()
  assert np.dot(WEIGHTS, keep['mended']) <= 1.05 * np.dot(WEIGHTS, keep['base'])


def test_bad_input_is_refused():
  with pytest.raises(InputError, match='groups, spread, least, rate: got 1'):
    methods.invariant(parts(), groups=1)
  with pytest.raises(InputError, match='base: got none'):
    methods.invariant(ring.parts(DATA, PROCESS, 'eps', net=nets.mlp(8, 1)))
