"""Adversarial consistency training: iCT up to a step, and from there a balanced discriminator; the ring."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from classroom import audit

from diffjax import fewstep, kinds, nets
from diffjax.errors import InputError
from diffjax.fewstep.flow_map import PROGRESS
from diffjax.methods import Source
from diffjax.prediction import Denoiser
from experiments import ring as bench
from experiments.ring import STD, edm, parts, ring

RING, NET = ring(), nets.mlp(width=8, depth=1)


def own(method=fewstep.adversarial_consistency_training, **options):
  return method(parts(RING, edm(), kinds.edm(STD), net=NET, steps=40, teacher=None), **options)


def begun(method, step):
  key = jax.random.key(3)
  made = jax.tree.map(lambda p: p + 0.1 * jax.random.normal(key, p.shape), dict(method.init(key)))
  return {**made, PROGRESS: jnp.asarray(step)}


@pytest.mark.slow
def test_before_its_start_it_is_improved_consistency_training():
  """Bit for bit up to step 23 of 40; then the weight is the ratio of the gradients in the last layer."""
  method, plain = own(), own(fewstep.improved_consistency_training)
  batch, key = {'x': RING.means}, jax.random.key(4)
  loss, first = method.phases[0].loss, plain.phases[0].loss
  for step, there in ((23, False), (24, True)):
    roles = begun(method, step)
    values, aux = loss(roles, batch, key)
    want = first(roles, batch, key)[0]
    if not there:
      np.testing.assert_array_equal(values, want)
    np.testing.assert_allclose(values, want + aux['adversarial_weight'] * aux['adversarial'], rtol=1e-5)
    assert (0.01 <= float(aux['adversarial_weight'][0]) <= 10) == there
  assert method.averaged == ('student',) and method.fixed_length


def test_each_phase_moves_its_own_role():
  method = own(begins=0.0)
  for phase in method.phases:
    grads = audit(phase.loss, begun(method, 5), {'x': RING.means})
    assert {role for role, size in grads.items() if size > 0} == {phase.role}


@pytest.mark.slow
def test_a_head_on_a_feature_of_a_frozen_teacher():
  """The teacher is read for it, and not moved."""
  process, kind = edm(), kinds.edm(STD)
  made = parts(RING, process, kind, net=NET, steps=40)
  shapes = jax.eval_shape(made.init, jax.random.key(0))
  teacher = Source('run', process, (2,), 0, shapes, lambda p: Denoiser(p, process, kind, net=NET), kind, NET)
  head = dict(name='mlp', width=4, depth=1, feature='hidden0')
  method = fewstep.adversarial_consistency_training(dataclasses.replace(made, teacher=teacher), discriminator=head)
  assert method.loads == ('teacher',)
  roles = {**begun(method, 30), 'teacher': made.init(jax.random.key(5))}
  assert roles['discriminator']['hidden_0']['kernel'].shape == (8, 4)
  for phase in method.phases:
    grads = audit(phase.loss, roles, {'x': RING.means})
    assert {role for role, size in grads.items() if size > 0} == {phase.role}
  with pytest.raises(InputError, match="discriminator: got feature='hidden0'; allowed: with a teacher"):
    own(discriminator=head)


def test_refusals():
  for options in (dict(begins=1.0), dict(weight=(2.0, 1.0)), dict(begins=-0.1)):
    with pytest.raises(InputError, match='begins, weight: got .*; allowed: 0 <= begins < 1'):
      own(**options)


@pytest.mark.slow
def test_fewer_are_off_the_ring_than_without_a_discriminator():
  """From 60% of 1500 steps: of one step no more is off every mode than by iCT alone, and sliced W2 <= .09, its bound.

  It is not .8 of that of iCT alone, as was hoped: .079 to .063, with .016 off to .081.
  """
  options = dict(last=160, normal=(-0.8, 1.6), distance=dict(name='pseudo_huber', c=0.1 * 2**0.5))
  figures = []
  for make in (fewstep.improved_consistency_training, fewstep.adversarial_consistency_training):
    method = make(parts(RING, edm(), kinds.edm(STD), teacher=None, steps=1500), **options)
    roles = bench.trained(method, RING, 1500, batch=128)
    figures.append(bench.figures(RING, bench.drawn(method, roles, (10.0,))))
  print(figures)
  plain, judged = figures
  assert judged.sw <= 0.09 and judged.off <= plain.off
