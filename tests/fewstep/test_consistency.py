"""Consistency distillation and training: roles, degenerate equalities, one program for a curriculum, the ring."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from diffjax import fewstep, kinds, nets, schedules
from diffjax.methods import Source
from diffjax.prediction import Denoiser
from diffjax.train.step import make_train_step
from experiments import ring as bench
from experiments.ring import STD, edm, parts, ring

RING, EDM, NET, PAIRED = ring(), edm(), nets.mlp(width=8, depth=1), nets.mlp(width=8, depth=1, times=2)


def scaled(params, x, t, cond, key):
  """The exact denoiser of the ring, scaled by a weight: a teacher with parameters."""
  return params['scale'] * RING.denoiser(EDM)(x, t).x0


def teacher(process):
  made = lambda params: Denoiser(params, process, kinds.x0().plain(), net=scaled)  # noqa: E731
  return Source('scaled', process, (2,), 0, {'scale': jnp.ones(())}, made, kinds.x0(), NET)


def own(method, **options):
  """A method on the ring with a teacher whose weights are a role."""
  straight = method in (fewstep.mean_flow, fewstep.shortcut)
  process, kind = (schedules.flow(), 'velocity') if straight else (edm(), kinds.edm(STD))
  paired = straight or method is fewstep.consistency_trajectory
  made = parts(RING, process, kind, net=PAIRED if paired else NET, steps=40, teacher=teacher(process))
  return method(made, **options)


EVERY = {
  'cd': lambda: own(fewstep.consistency_distillation),
  'ct': lambda: own(fewstep.consistency_training),
  'ict': lambda: own(fewstep.improved_consistency_training),
  'scd': lambda: own(fewstep.continuous_consistency),
  'sct': lambda: own(fewstep.continuous_consistency, taught_by='data', balanced_levels=False),
  'mean_flow': lambda: own(fewstep.mean_flow),
  'shortcut': lambda: own(fewstep.shortcut),
  'ctm': lambda: own(fewstep.consistency_trajectory),
  'ctm of itself': lambda: own(fewstep.consistency_trajectory, taught_by='self'),
}


def begun(method):
  """Its roles with weights that are not zero, a batch, and the loss of its phase."""
  key = jax.random.key(3)
  made = dict(method.init(key))
  made['student'] = jax.tree.map(lambda p: p + 0.1 * jax.random.normal(key, p.shape), made['student'])
  for name in method.copies:
    made[name] = jax.tree.map(lambda p: 0.9 * p, made['student'])
  if 'teacher' in method.loads:
    made['teacher'] = {'scale': jnp.ones(())}
  return made, {name: jnp.asarray(7) for name in method.buffers}, method.phases[0].loss


def values(method, roles=None):
  made, buffers, loss = begun(method)
  return loss({**made, **buffers, **(roles or {})}, {'x': RING.means}, jax.random.key(4))[0]


@pytest.mark.parametrize('name', EVERY)
def test_only_the_student_is_moved(name):
  """The gradient in every other role is zero, to the bit, and the student's is not."""
  made, buffers, loss = begun(EVERY[name]())

  def mean(roles):
    return jnp.mean(loss({**roles, **buffers}, {'x': RING.means}, jax.random.key(4))[0])

  grads = jax.jit(jax.grad(mean))(made)
  for role, grad in grads.items():
    total = sum(float(jnp.sum(jnp.abs(leaf))) for leaf in jax.tree.leaves(grad))
    assert np.isfinite(total) and (total > 0) == (role == 'student'), role


@pytest.mark.slow
def test_without_its_improvements_it_is_the_first_training():
  """Each switched back: the same values on the same batch, bit for bit; and each of them matters."""
  options = dict(first=2, last=20, distance='l2')
  off = dict(stopped=False, weighted=False, doubled=False, normal=())
  want = values(own(fewstep.consistency_training, **options))
  np.testing.assert_array_equal(values(own(fewstep.improved_consistency_training, **options, **off)), want)
  on = dict(stopped=True, weighted=True, doubled=True, normal=(-1.1, 2.0), distance='pseudo_huber')
  for name, value in on.items():
    other = values(own(fewstep.improved_consistency_training, **(options | off | {name: value})))
    assert not np.allclose(other, want, rtol=1e-3), name


def test_one_program_for_the_curriculum(compiles):
  """Steps with 10, 20 and 40 intervals run the program of the first."""
  method = own(fewstep.improved_consistency_training, last=40)
  step = jax.jit(make_train_step(method), static_argnums=2)
  state, batch = bench.state_of(method), {'x': RING.means}
  assert int(state.buffers['progress']) == -1
  state, _ = step(state, batch, (0,))
  with compiles(0):
    for _ in range(35):
      state, _ = step(state, batch, (0,))
  assert int(state.buffers['progress']) == 35


@pytest.mark.slow
def test_one_step_of_the_distilled_is_nearly_the_teacher():
  """On the ring: sliced W2 <= .05, masses <= .03, off <= .03, 12 times nearer than the teacher at one step (.635)."""
  method = fewstep.consistency_distillation(parts(RING, edm(), kinds.edm(STD)))
  roles = bench.trained(method, RING, 5000)
  one, two = (bench.figures(RING, bench.drawn(method, roles, ts)) for ts in ((10.0,), (10.0, 0.8)))
  assert one.sw <= 0.05 and one.tv <= 0.03 and one.off <= 0.03 and two.sw <= one.sw + 0.003


@pytest.mark.slow
def test_training_without_a_teacher():
  """On the ring, c = .1 sqrt(d): sliced W2 <= .09, masses <= .05, at two steps <= .07, and better than the first."""
  huber = dict(name='pseudo_huber', c=0.1 * 2**0.5)
  figures = {}
  for name, make in {
    'ict': lambda own: fewstep.improved_consistency_training(own, last=160, normal=(-0.8, 1.6), distance=huber),
    'ct': lambda own: fewstep.consistency_training(own, last=40),
  }.items():
    method = make(parts(RING, edm(), kinds.edm(STD)))
    roles = bench.trained(method, RING, 5000)
    figures[name] = [bench.figures(RING, bench.drawn(method, roles, ts)) for ts in ((10.0,), (10.0, 0.8))]
  one, two = figures['ict']
  assert one.sw <= 0.09 and one.tv <= 0.05 and two.sw <= 0.07
  assert one.sw <= 0.75 * figures['ct'][0].sw
