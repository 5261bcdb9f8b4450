"""Denoising diffusion GANs and UFOGen: who moves, what ties them, and the ring."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from classroom import audit

from diffjax import fewstep, keys, kinds, nets, schedules
from diffjax.errors import InputError
from diffjax.fewstep import pairs
from diffjax.fewstep.flow_map import PROGRESS
from diffjax.methods import Sampling, Source
from diffjax.prediction import Denoiser
from diffjax.solvers import grids
from experiments import ring as bench
from experiments.ring import STD, edm, parts, ring

VP, NET = schedules.vp_linear(), nets.mlp(width=8, depth=1)
BATCH = {'x': ring().means}


def own(method, process=VP, net=NET, **options):
  return method(parts(ring(), process, 'x0', net=net, steps=40, teacher=None), **options)


def begun(method):
  made = jax.tree.map(lambda p: p + 0.1 * jax.random.normal(jax.random.key(3), p.shape), method.init(jax.random.key(0)))
  return {**made, **{name: jnp.asarray(0) for name in method.buffers}}


EVERY = {
  'ddgan': lambda: own(fewstep.diffusion_gan),
  'ufogen': lambda: own(fewstep.ufogen),
  'ufogen in pairs': lambda: own(fewstep.ufogen, posterior=True, beside=True),
}


@pytest.mark.quick('ddgan')
@pytest.mark.parametrize('name', EVERY)
def test_each_phase_moves_its_own_role(name):
  method = EVERY[name]()
  roles = begun(method)
  for phase in method.phases:
    grads = audit(phase.loss, roles, BATCH)
    assert {role for role, size in grads.items() if size > 0} == {phase.role}
  assert [phase.role for phase in method.phases] == ['student', 'discriminator'] and method.averaged == ('student',)


def test_ufogen_in_pairs_without_its_error_is_a_denoising_diffusion_gan(monkeypatch):
  """On the same strides: the same losses, bit for bit."""
  gan = own(fewstep.diffusion_gan, latent=0, r1=0.0)
  monkeypatch.setattr(pairs, 'lagging', lambda law, share: pairs.strides(4))
  other = own(fewstep.ufogen, posterior=True, beside=True, denoising=0.0)
  roles = begun(gan)
  for one, two in zip(gan.phases, other.phases, strict=True):
    key = jax.random.key(7)
    np.testing.assert_array_equal(one.loss(roles, BATCH, key)[0], two.loss(roles, BATCH, key)[0])


def test_the_penalty_is_there_when_it_is_due_and_strides_are_told_apart():
  """In one program; and the discriminator sees x_t and where the stride lands."""
  method = own(fewstep.diffusion_gan, r1=2.0, every=3)
  roles, loss = begun(method), jax.jit(method.phases[1].loss)
  r1 = [float(loss({**roles, PROGRESS: jnp.asarray(i)}, BATCH, jax.random.key(1))[1]['r1'].mean()) for i in range(4)]
  assert r1[0] == r1[3] > 0 == r1[1] == r1[2]
  t = loss(roles, BATCH, jax.random.key(1))[1]['t']
  assert set(np.unique(t)) <= {0.0, 0.25, 0.5, 0.75}
  assert roles['discriminator']['hidden_0']['kernel'].shape == (4, 8)
  assert roles['student']['hidden_0']['kernel'].shape == (6, 8)


def test_ufogen_begins_as_its_teacher():
  """Its discriminator too, but for the last layer, which is zero; another network is refused."""
  made = parts(ring(), VP, 'x0', net=NET)

  def teacher(net):
    own = parts(ring(), VP, 'x0', net=net)
    shapes = jax.eval_shape(own.init, jax.random.key(0))
    return Source('run', VP, (2,), 0, shapes, lambda p: Denoiser(p, VP, own.kind, net=net), own.kind, net)

  method = fewstep.ufogen(parts(ring(), VP, 'x0', net=NET, teacher=teacher(NET)))
  params = made.init(jax.random.key(0))
  params['out']['kernel'] += 1
  begun = method.copied['discriminator'].of(params)
  assert (
    method.copied['student'].source == 'teacher'
    and method.loads == ('teacher',)
    and method.init(jax.random.key(0)) == {}
  )
  np.testing.assert_array_equal(begun['hidden_0']['kernel'], params['hidden_0']['kernel'])
  assert begun['out']['kernel'].shape == (8, 1) and not begun['out']['kernel'].any()
  with pytest.raises(InputError, match='teacher: got run of another network or kind'):
    fewstep.ufogen(parts(ring(), VP, 'x0', net=NET, teacher=teacher(nets.mlp(width=4, depth=1))))


def test_generators_and_refusals():
  """As many strides as it was trained for, and no other grid; UFOGen draws on any."""
  asked = lambda n: Sampling(n, lambda: grids.uniform(VP, n), lambda: None, lambda denoise: denoise)  # noqa: E731
  method = own(fewstep.diffusion_gan)
  assert method.generator(begun(method), asked(4)).nfe == 4
  with pytest.raises(InputError, match='steps, grid: got 2 from 1 to 0; allowed: the grid uniform of 4 steps'):
    method.generator(begun(method), asked(2))
  method = own(fewstep.ufogen)
  assert [method.generator(begun(method), asked(n)).nfe for n in (1, 3)] == [1, 3]
  for options, message in (
    (dict(denoising=0, adversarial=0), 'denoising, adversarial: got 0, 0'),
    (dict(share=1.5), 'share: got 1.5; allowed: 0 < share <= 1'),
  ):
    with pytest.raises(InputError, match=message):
      own(fewstep.ufogen, **options)
  with pytest.raises(InputError, match='strides: got 0; allowed: a whole number'):
    own(fewstep.diffusion_gan, strides=0)


def contested(method, steps, ns, process=VP, kind='x0', **options):
  """Figures of a method on the ring after so many steps, at each number of strides, and the shares of the modes."""
  rate = optax.adam(optax.cosine_decay_schedule(1e-3, steps, 0.05), b1=0.5, b2=0.9)
  built = method(parts(ring(), process, kind, teacher=None, steps=steps, optimiser=lambda: rate), **options)
  roles = bench.trained(built, ring(), steps, batch=256)
  draws = [bench.drawn(built, roles, grids.uniform(process, n)[:-1]) for n in ns]
  return [bench.figures(ring(), x) for x in draws], draws, roles


@pytest.mark.slow
def test_four_strides_on_the_ring():
  """Sliced W2 <= .12, masses <= .08, and every mode holds two fifths of its weight at least."""
  (four,), (x,), _ = contested(fewstep.diffusion_gan, 3000, (4,))
  mass = np.bincount(np.linalg.norm(x[:, None] - np.asarray(ring().means), axis=2).argmin(1), minlength=8) / len(x)
  print('four', four, mass * 36)
  assert four.sw <= 0.12 and four.tv <= 0.08 and (mass * 36 / np.arange(1, 9)).min() >= 0.4


@pytest.mark.slow
def test_ufogen_without_its_discriminator_is_the_denoiser():
  """To .03 of the exact one; its one step is the blur, sliced W2 .63."""
  (blur,), _, roles = contested(fewstep.ufogen, 3000, (1,), process=edm(), kind=kinds.edm(STD), adversarial=0.0)
  denoise = Denoiser(roles['student'], edm(), kinds.edm(STD), net=nets.mlp(width=128, depth=3))
  apart = {}
  for t in (0.3, 1.0, 3.0):
    x = ring().sample(keys.per_sample(jax.random.key(5), 4000))
    x = x + t * jax.random.normal(jax.random.key(6), x.shape)
    apart[t] = float(jnp.sqrt(jnp.mean((denoise(x, t).x0 - ring().denoiser(edm())(x, t).x0) ** 2)))
  print('blur', blur, apart)
  assert 0.55 < blur.sw < 0.7 and max(apart.values()) <= 0.03


@pytest.mark.slow
def test_ufogen_on_the_ring():
  """Of four strides a tenth is off every mode at most; one is judged where noise hides the modes, a blur."""
  (four,), *_ = contested(fewstep.ufogen, 2000, (4,), process=edm(), kind=kinds.edm(STD))
  print('four', four)
  assert four.off <= 0.1
