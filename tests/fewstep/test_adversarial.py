"""Adversarial terms: the log ratio of densities is where a discriminator rests, a penalty by its formula, who moves."""

import itertools
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from classroom import audit
from jax.scipy.special import ndtri

from diffjax import keys, kinds, nets
from diffjax.errors import InputError
from diffjax.fewstep import adversarial
from diffjax.fewstep.adversarial import Headed, Shown, at_level, discriminator_loss, from_data, generator_loss, judge_of
from diffjax.fewstep.flow_map import PROGRESS, added
from diffjax.losses.times import uniform
from diffjax.train.loop import NonFinite, fit
from diffjax.train.roles import Method, Phase
from experiments.ring import STD, edm, parts, ring


class Polynomial(NamedTuple):
  """l = bias + slope x + curve |x|^2 + mixed x y, y what is beside x."""

  role: str = 'discriminator'

  def __call__(self, roles, shown):
    p, x = roles[self.role], shown.x
    y = 0 if shown.beside is None else shown.beside
    return jnp.sum(p['slope'] * x + p['curve'] * x**2 + p['mixed'] * x * y, -1) + p['bias']


FLAT = dict(slope=jnp.zeros(()), curve=jnp.zeros(()), mixed=jnp.zeros(()), bias=jnp.zeros(()))


def shifted(roles, batch, key_batch):
  """The student's: noise and a shift."""
  x = roles['student']['shift'] + keys.normal(key_batch, batch['x'])
  return Shown(x, jnp.zeros(len(x)))


def test_the_discriminator_rests_at_the_log_ratio(x64):
  """Of N(.8, 1) and N(-.3, 1.5^2), by quantiles: log p / q is quadratic; no slope there, and one elsewhere."""
  z = ndtri((jnp.arange(20000) + 0.5) / 20000)[:, None]
  real, made = (lambda *_: Shown(0.8 + z, z[:, 0])), (lambda *_: Shown(1.5 * z - 0.3, z[:, 0]))
  loss = discriminator_loss(Polynomial(), real, made)
  a, b = 1.5**-2, 1.0
  best = FLAT | dict(
    curve=jnp.asarray((a - b) / 2), slope=0.8 * b + 0.3 * a, bias=jnp.log(1.5) + (a * 0.09 - b * 0.64) / 2
  )
  slope = jax.grad(lambda p: jnp.mean(loss({'discriminator': p}, {'x': z}, jax.random.key(0))[0]))
  worst = lambda p: max(abs(float(g)) for g in jax.tree.leaves(slope(p)))  # noqa: E731
  assert worst(best) < 1e-3
  for name in ('curve', 'slope', 'bias'):
    assert worst(best | {name: best[name] + 0.1}) > 1e-2, name


def test_losses_by_their_formulas_and_the_penalty_looks_at_x_alone():
  """Also that it is there in the steps that are due, and not multiplied by their number."""
  x, y, z = (jnp.asarray(np.random.default_rng(i).standard_normal((6, 2)), jnp.float32) for i in range(3))
  p = dict(slope=0.4, curve=-0.3, mixed=0.7, bias=0.1)
  draws = [lambda roles, batch, key, x=x: Shown(x, jnp.zeros(6), beside=y) for x in (x, z)]
  roles = {'discriminator': p, 'student': {}}
  yes, no = (np.asarray(np.sum(0.4 * u - 0.3 * u**2 + 0.7 * u * y, -1) + 0.1) for u in (x, z))
  plain = np.log1p(np.exp(-yes)) + np.log1p(np.exp(no))
  slope = np.sum((0.4 - 0.6 * x + 0.7 * y) ** 2, -1)
  batch, key = {'x': x}, jax.random.key(0)
  run = lambda loss, **more: loss({**roles, **more}, batch, key)[0]  # noqa: E731
  np.testing.assert_allclose(run(discriminator_loss(Polynomial(), *draws)), plain, rtol=1e-5)
  np.testing.assert_allclose(run(discriminator_loss(Polynomial(), *draws, r1=0.6)), plain + 0.3 * slope, rtol=1e-5)
  lazy = discriminator_loss(Polynomial(), *draws, r1=0.6, every=3)
  for step in range(4):
    want = plain + 0.3 * slope * (step % 3 == 0)
    np.testing.assert_allclose(run(lazy, **{PROGRESS: jnp.asarray(step)}), want, rtol=1e-5)
  np.testing.assert_allclose(run(generator_loss(Polynomial(), draws[1])), np.log1p(np.exp(-no)), rtol=1e-5)


def test_each_loss_moves_its_own_role():
  level = at_level(shifted, edm(), uniform())
  p = dict(slope=0.4, curve=-0.3, mixed=0.7, bias=0.1)
  roles = {'discriminator': jax.tree.map(jnp.asarray, p), 'student': {'shift': jnp.ones(2)}, 'teacher': jnp.ones(())}
  for loss, moved in (
    (generator_loss(Polynomial(), level), 'student'),
    (discriminator_loss(Polynomial(), from_data, level, r1=0.1), 'discriminator'),
  ):
    grads = audit(loss, roles, {'x': ring().means})
    assert {name for name, size in grads.items() if size > 0} == {moved}


@pytest.mark.parametrize('beside', [False, True])
def test_a_discriminator_is_the_students_network_with_one_output(beside):
  """Told x at its scale, its time, and what is beside it."""
  made = parts(ring(), edm(), kinds.edm(STD), net=nets.mlp(width=8, depth=1, times=2))
  judge = judge_of(made, beside=beside)
  params = jax.tree.map(lambda p: p + 0.1, judge.init(jax.random.key(0)))
  x, t = jnp.asarray(ring().means, jnp.float32), jnp.linspace(0.1, 5, 8)
  inner = x / jnp.sqrt(STD**2 + t[:, None] ** 2)
  inner = jnp.concatenate([inner, 2 * x], -1) if beside else inner
  want = nets.mlp(width=8, depth=1, out_channels=1)(params, inner, jnp.log(t) / 4)[:, 0]
  got = judge({'discriminator': params}, Shown(x, t, beside=2 * x if beside else None))
  np.testing.assert_allclose(got, want, rtol=1e-5)
  assert np.std(want) > 1e-3


def test_the_output_is_averaged_over_positions():
  unet = dict(width=4, channel_mult=(1,), blocks_per_level=1, attention=())
  made = parts(ring(), edm(), 'x0', net=nets.unet(**unet, classes=3), shape=(4, 4, 1), classes=3)
  judge, mlp = judge_of(made), judge_of(made, dict(name='mlp', width=4))
  assert judge.net == nets.unet(**unet, classes=3, out_channels=1) and mlp.net.module.classes == 3
  out = jnp.arange(32.0).reshape(2, 4, 4, 1)
  judge = judge._replace(net=lambda params, x, t, cond, key: params * out)
  np.testing.assert_allclose(judge({'discriminator': 2.0}, Shown(*made.inputs(2))), [15, 47])


def test_a_head_reads_a_feature_of_another_role():
  """It has weights of its own; either is moved alone."""
  net = nets.mlp(width=4, depth=1)
  made = parts(ring(), edm(), 'x0', net=net)
  trunk = nets.Apply(net.module, taps=('hidden0',))
  headed = Headed(trunk, nets.mlp(4, 1, out_channels=1), made.process, made.kind, made.inputs(1))
  roles = {'discriminator': headed.init(jax.random.key(0)), 'teacher': made.init(jax.random.key(1))}
  roles = jax.tree.map(lambda p: p + 0.1, roles)
  assert roles['discriminator']['hidden_0']['kernel'].shape == (4, 4)
  draws = [lambda *_, gain=gain: Shown(gain * jnp.asarray(ring().means, jnp.float32), jnp.ones(8)) for gain in (1, 2)]
  for moves, still in (('discriminator', 'teacher'), ('teacher', 'discriminator')):
    grads = audit(discriminator_loss(headed, *draws, moves=(moves,)), roles, {'x': ring().means})
    assert grads[still] == 0 < grads[moves]


def test_a_sum_of_two_losses_begins_when_it_is_told():
  """Balanced by the last layer's gradients between its ends, or of a fixed weight; 0 before its start."""
  term = lambda scale: lambda roles, batch, key: (scale * roles['student']['out'] * batch['x'], {})  # noqa: E731
  roles, batch, key = (
    {'student': {'out': jnp.ones(())}, PROGRESS: jnp.asarray(4)},
    {'x': jnp.ones(3)},
    jax.random.key(0),
  )
  for options, lam in (
    (dict(most=9.0, leaf='out'), 3.0), (dict(most=2.0, leaf='out'), 2.0), (dict(most=9.0, least=5.0, leaf='out'), 5.0),
    (dict(most=0.25), 0.25), (dict(most=9.0, leaf='out', start=4), 3.0), (dict(most=9.0, leaf='out', start=5), 0.0),
  ):  # fmt: skip
    values, aux = added(term(6.0), term(2.0), name='other', **options)(roles, batch, key)
    np.testing.assert_allclose(values, 6 + 2 * lam, rtol=1e-3)
    np.testing.assert_allclose(aux['other_weight'], lam, rtol=1e-3)


def test_one_that_diverges_ends_the_run():
  """The logits overflow after a step of a far too great rate: the loop's own message, and no endless run."""
  phases = (
    Phase('student', generator_loss(Polynomial(), shifted), optax.sgd(1e-2)),
    Phase('discriminator', discriminator_loss(Polynomial(), from_data, shifted), optax.sgd(1e38)),
  )
  batches = lambda start: ({'x': np.ones((8, 2), np.float32)} for _ in itertools.count(start))  # noqa: E731
  init = lambda key: {'student': {'shift': jnp.zeros(2)}, 'discriminator': FLAT}  # noqa: E731
  with pytest.raises(NonFinite, match='the loss or gradient was not finite in 3 steps in a row'):
    fit(Method(phases), init, batches, steps=50, key=jax.random.key(0), max_skipped=3, progress=False)


def test_refusals():
  made = parts(ring(), edm(), 'x0', net=nets.mlp(width=8, depth=1))
  for spec, message in {
    'resnet': "discriminator: got 'resnet'; allowed: controlled, dit",
    'dit': 'discriminator: got dit with wide; allowed: the options of dit',
  }.items():
    with pytest.raises(InputError, match=message):
      judge_of(made, dict(name=spec, wide=3))
  with pytest.raises(InputError, match='discriminator: got none, for a student'):
    judge_of(parts(ring(), edm(), 'x0', net=lambda *_: None))
  with pytest.raises(InputError, match='pace: got 0; allowed: a positive multiple'):
    adversarial.paced(made, 0)
  with pytest.raises(InputError, match='r1, every: got -1, 1'):
    discriminator_loss(Polynomial(), from_data, from_data, r1=-1)
