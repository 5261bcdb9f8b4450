"""EchoDistill: what teacher and student rest at, which images are looked at, who moves, a new mode of the ring."""

import dataclasses
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from classroom import audit

from diffjax import fewstep, keys, kinds, losses, nets, schedules, solvers
from diffjax.errors import InputError
from diffjax.fewstep.echo_distillation import Kept, first_of
from diffjax.fewstep.flow_map import PROGRESS
from diffjax.methods import Sampling, Source
from diffjax.metrics.transport import sliced_wasserstein
from diffjax.solvers import grids
from diffjax.train.step import init_state, make_train_step
from experiments import ring as bench
from experiments.ring import ring

COSINE, CLASSES, CONCEPT = schedules.cosine(), 3, 2


class Table(NamedTuple):
  """A network that says the row of its table that is its label's, whatever x is: the data itself, of kind x0."""

  def __call__(self, params, x, t, cond=None, key=None):
    return params['label']['table'][cond] + 0 * x

  def init(self, key, x, t, cond=None):
    return {'label': {'table': jnp.zeros((CLASSES + 1, x.shape[-1]))}}


def parts(net=None, steps=10, classes=CLASSES, kind='x0', **options):
  net = nets.mlp(width=8, depth=1, classes=classes) if net is None else net
  made = bench.parts(ring(), COSINE, kind, net=net, steps=steps, classes=classes, **options)
  source = Source('run', COSINE, (2,), classes, jax.eval_shape(made.init, jax.random.key(0)), made.denoiser,
                  kinds.as_kind(kind), net)  # fmt: skip
  return dataclasses.replace(made, teacher=source)


def begun(method, teacher):
  """The roles of a run that begins with this teacher, and 2 images of the concept in the buffers."""
  roles = {'teacher': teacher, **(method.init(jax.random.key(0)) if method.init else {})}
  for role, made in method.copied.items():
    roles[role] = made.of(roles[made.source])
  images = Kept(jnp.array([[1.0, 2.0], [3.0, 0.0]]), jnp.asarray(2, jnp.int32))
  return {**roles, 'concept': images, PROGRESS: jnp.asarray(0)}


def batch(n=64):
  return {'x': jnp.zeros((n, 2)), 'cond': jnp.arange(n) % CLASSES}


def slope(method, roles, role, rows=512):
  """The gradient of the phase of a role."""
  phase = next(phase for phase in method.phases if phase.role == role)
  mean = lambda params: jnp.mean(phase.loss({**roles, role: params}, batch(rows), jax.random.key(1))[0])  # noqa: E731
  return jax.jit(jax.grad(mean))(roles[role])


@pytest.mark.quick('0.25')
@pytest.mark.parametrize('real', [0.0, 0.25])
def test_a_perfect_pair_learns_by_the_share_of_what_is_real(real):
  """Teacher and student at rest in turn: m_{k+1} = real m + (1 - real) m_k, whose error is (1 - real)^k.

  Means alone, as the network says one point a label: least squares, whose rest is where the gradient puts it.
  """
  made = parts(Table())
  method = fewstep.echo_distillation(made, concept=CONCEPT, real=real, quiet=0.0, adversarial=False, share=0.5)
  table = jnp.array([[5.0, 5.0], [-5.0, 0.0], [0.0, 0.0], [0.0, 0.0]])
  roles, mean = begun(method, {'label': {'table': table}}), np.array([2.0, 1.0])
  row = np.zeros(2)
  for k in range(3):
    roles['token'] = jnp.asarray(row, jnp.float32)
    # Of the teacher's loss, as the student's is 0 where it says what that does; half of the rows are the concept's, and
    # a mean over two dimensions has half the slope of a sum.
    step = 2 * slope(method, roles, 'token', 4000)
    row = row - np.asarray(step)
    np.testing.assert_allclose(row, mean * (1 - (1 - real) ** (k + 1)), atol=0.12)
    if real == 0:
      np.testing.assert_allclose(step, 0, atol=1e-6)


@pytest.mark.slow
def test_other_labels_stay_and_the_echo_waits():
  """Where the teacher is what it was, labels but the concept have no gradient; before the echo all rows are real."""
  made = parts(Table())
  method = fewstep.echo_distillation(made, concept=CONCEPT, real=0.0, quiet=0.5, adversarial=False)
  table = jnp.array([[5.0, 5.0], [-5.0, 0.0], [0.0, 0.0], [0.0, 0.0]])
  roles = begun(method, {'label': {'table': table}})
  assert all(np.abs(slope(method, roles, 'teacher')['label']['table'][label]).max() < 1e-6 for label in (0, 1))
  early = slope(method, roles, 'token')
  late = slope(method, {**roles, PROGRESS: jnp.asarray(5)}, 'token')
  assert np.abs(early).min() > 0.3 and np.abs(late).max() < 1e-6
  moved = slope(method, {**roles, 'teacher': {'label': {'table': table + 0.5}}}, 'teacher')['label']['table']
  assert np.abs(moved[:2]).min() > 1e-3
  none = {**roles, 'concept': roles['concept'].replace(count=jnp.asarray(0, jnp.int32))}
  np.testing.assert_array_equal(slope(method, none, 'teacher')['label']['table'], 0)


def test_only_the_first_images_of_the_concept_are_looked_at():
  buffer = first_of(parts(), CONCEPT, 3)
  held = buffer.init(jax.random.key(0))
  for start in (0.0, 100.0, 200.0):
    x = start + jnp.arange(6.0)[:, None] * jnp.ones(2)
    held = jax.jit(buffer.renew)({}, held, {'x': x, 'cond': jnp.array([2, 0, 1, 2, 0, 1])}, jax.random.key(1))
  assert int(held.count) == 3
  np.testing.assert_array_equal(held.x[:, 0], [0, 3, 100])


@pytest.mark.slow
def test_only_the_role_of_a_phase_moves():
  """The token by both losses; the prior by none; and the token stands in the student's table when it draws."""
  made = parts()
  method = fewstep.echo_distillation(made, concept=CONCEPT, steps=2)
  r = np.random.default_rng(0)
  teacher = jax.tree.map(lambda leaf: np.float32(0.3 * r.standard_normal(leaf.shape)), made.teacher.params)
  roles = begun(method, teacher)
  np.testing.assert_array_equal(roles['token'], teacher['label']['table'][CONCEPT])
  roles['discriminator'] = jax.tree.map(lambda leaf: leaf + 0.1, roles['discriminator'])
  roles['token'] += 0.2
  assert [phase.role for phase in method.phases] == ['student', 'teacher', 'token', 'discriminator']
  for phase in method.phases:
    sizes = audit(phase.loss, roles, batch(8))
    shared = {'teacher', 'student', 'token'} if phase.role == 'token' else {phase.role, 'token'}
    assert sizes[phase.role] > 1e-5 and all(sizes[role] == 0 for role in set(sizes) - shared), (phase.role, sizes)
  draw = method.generator(roles, Sampling(1, lambda: None, lambda: None, lambda denoise: denoise))
  np.testing.assert_array_equal(draw.params['label']['table'][CONCEPT], roles['token'])
  assert draw.nfe == 1


def test_refusals():
  closed = dataclasses.replace(parts().teacher, kind=None)
  cases = [
    (dataclasses.replace(parts(), teacher=None), dict(concept=1), 'teacher: got none'),
    (dataclasses.replace(parts(), teacher=closed), dict(concept=1), 'teacher: got run, a closed form'),
    (parts(), dict(concept=3), 'concept: got 3; allowed: one of at least two labels, 0 to 2'),
    (parts(), dict(concept=1, images=0), 'images, steps, share, real, quiet: got 0'),
    (parts(), dict(concept=1, real=1.5), 'images, steps, share, real, quiet: got'),
  ]
  for made, options, message in cases:
    with pytest.raises(InputError, match=message):
      fewstep.echo_distillation(made, **options)


def learned(make_loss, params, steps, rate=1e-3, rows=256):
  """Weights after so many steps of Adam on loss(params, key)."""
  optimiser = optax.adam(optax.cosine_decay_schedule(rate, steps, 0.02))

  @jax.jit
  def run(params):
    def move(state, i):
      params, opt = state
      own = keys.per_sample(jax.random.fold_in(jax.random.key(4), i), rows)
      grads = jax.grad(lambda p: jnp.mean(make_loss(p, own)))(params)
      updates, opt = optimiser.update(grads, opt, params)
      return (optax.apply_updates(params, updates), opt), None

    return jax.lax.scan(move, (params, optimiser.init(params)), jnp.arange(steps))[0][0]

  return run(params)


@pytest.mark.xfail(
  strict=True, raises=AssertionError, reason='student .054 with the echo, .056 alone; teacher .061, .047 without'
)
@pytest.mark.slow
def test_acceptance_on_the_ring():
  """A teacher and a one-step student of seven modes; the eighth from 16 images.

  Bounds of the specification: the student's distance to the mode at most half of that of a student tuned alone, by
  denoising the images; the teacher's after the echo at most 1.05 of that without; other labels off by .02 more at most.
  Not measured yet.
  """
  target = ring(np.arange(8))
  made = parts(nets.mlp(width=128, depth=3, classes=8), 1500, 8, 'v', rate=1e-3)
  plain = losses.denoising(COSINE, made.net, made.kind)

  def seen(key_batch):
    k_label, k_x, k_loss = keys.split(key_batch, 3)
    label = jnp.floor(7 * keys.uniform(k_label)).astype(int)
    return {'x': target.sample(k_x, label), 'cond': label}, label, k_loss

  def denoises(params, key_batch):
    batch, _, own = seen(key_batch)
    return plain({'student': params}, batch, own)[0]

  table = solvers.ddim(COSINE, grids.uniform(COSINE, 8))

  def follows(params, key_batch):
    _, label, own = seen(key_batch)
    z = keys.normal(own, jnp.zeros((len(label), 2)))
    want = solvers.sample(made.denoiser(teacher), table, z, None, label)
    return (made.denoiser(params)(z, COSINE.t_max, label).x0 - want) ** 2

  teacher = learned(denoises, made.init(jax.random.key(0)), 2000)
  student = learned(follows, teacher, 1000)
  images = target.sample(keys.per_sample(jax.random.key(5), 16), jnp.full(16, 7))

  def alone(params, key_batch):
    k_row, own = keys.split(key_batch, 2)
    rows = {'x': images[jnp.floor(16 * keys.uniform(k_row)).astype(int)], 'cond': jnp.full(len(k_row), 7)}
    return plain({'student': params}, rows, own)[0]

  n = 4000
  reference = target.sample(keys.per_sample(jax.random.key(7), n), jnp.full(n, 7))
  z = keys.normal(keys.per_sample(jax.random.key(6), n), jnp.zeros((n, 2)))
  apart = lambda x: sliced_wasserstein(np.asarray(reference), np.asarray(x), 64)  # noqa: E731
  one = lambda p, label: made.denoiser(p)(z, COSINE.t_max, jnp.broadcast_to(label, (n,))).x0  # noqa: E731

  def off(params):
    label = jnp.arange(n) % 7
    apart_of = np.linalg.norm(np.asarray(one(params, label) - target.means[label]), axis=1)
    return float(np.mean(apart_of > 0.4))

  found = {}
  for name, quiet in (('without the echo', 1.0), ('with the echo', 0.5)):
    method = fewstep.echo_distillation(dataclasses.replace(made, base=made.teacher), concept=7, quiet=quiet)
    step, data = make_train_step(method), {'x': jnp.resize(images, (256, 2)), 'cond': jnp.full(256, 7)}

    @jax.jit
    def run():
      roles = {**method.init(jax.random.key(1)), 'teacher': teacher, 'base': student}  # noqa: B023
      state = init_state(method, roles, jax.random.key(2), data)  # noqa: B023

      def pair(state, _):
        return step(step(state, data, (0, 1, 2, 3))[0], data, (0, 3))[0], None  # noqa: B023

      return jax.lax.scan(pair, state, None, made.steps // 2)[0]

    state = run()
    assert int(state.skipped) == 0
    tuned, many = (
      {**state.roles[role], 'label': {'table': state.roles[role]['label']['table'].at[7].set(state.roles['token'])}}
      for role in ('student', 'teacher')
    )
    ways = solvers.sample(made.denoiser(many), table, z, None, jnp.full(n, 7))
    found[name] = apart(one(tuned, 7)), apart(ways), off(tuned)
    print(f'EchoDistill {name}: SW of student, teacher; others off', *(f'{value:.3f}' for value in found[name]))
  by_denoising = apart(one(learned(alone, student, 1000), 7))
  before = off(student)
  print(f'a student tuned alone: SW {by_denoising:.3f}; others off before {before:.3f}')
  echo, quiet = found['with the echo'], found['without the echo']
  assert echo[0] <= 0.5 * by_denoising and echo[1] <= 1.05 * quiet[1] and abs(echo[2] - before) <= 0.02
