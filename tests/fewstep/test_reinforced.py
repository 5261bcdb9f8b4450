"""RLCM: the gradient of the policy, advantages of each label, no data, and a reward without a gradient on the ring."""

import dataclasses

import bases
import closed
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from diffjax import fewstep, keys, kinds
from diffjax.errors import InputError
from diffjax.fewstep.reinforced import Seen
from diffjax.train.step import init_state, make_train_step
from experiments import ring as bench

TIMES = (10.0, 1.0)
RL = fewstep.rl_consistency


def begun(method, batch=None):
  batch = bases.batch() if batch is None else batch
  return init_state(method, {'base': closed.right()}, jax.random.key(2), batch), batch


def drawn(method):
  """The roles with the ways of the first step."""
  buffer, roles, batch = method.buffers['drawn'], {'base': closed.right(), 'student': closed.right()}, bases.batch()
  made = jax.jit(lambda: buffer.renew(roles, buffer.init(jax.random.key(2)), batch, jax.random.key(4)))()
  return {**roles, 'drawn': made}, batch


def test_the_gradient_is_that_of_the_reward_by_way_of_the_noise():
  """One noisy transition of mean m; the sample is affine in it. With R = -(end - 1)^2 and all else held,

  d E R / d shift = -2 (E end - 1) (d end / d x) (d m / d shift): to 3 standard errors of 20000 samples.
  """
  n = 20_000
  method = RL(bases.on_exact(), reward=dict(name='near', point=(1.0,)), grid=TIMES, steps=2, ways=n, memory=n, least=n)
  roles, batch = drawn(method)
  loss, kept = method.phases[0].loss, roles['drawn']

  def each(shift):
    student = {**roles['student'], 'shift': shift}
    return loss({**roles, 'student': student}, batch, keys.per_sample(jax.random.key(0), 32))[0]

  slopes = np.asarray(jax.jit(jax.jacfwd(each))(jnp.zeros(())))  # of -A log p
  jump, right = closed.jump(bases.EDM, 0.01), closed.right()
  last = lambda x: jump(right, x[None, None], 1.0, 0.01)[0, 0]  # noqa: E731
  first = lambda shift: jump({**right, 'shift': shift}, jnp.zeros((1, 1)), 10.0, 0.01)[0, 0]  # noqa: E731
  pull = jax.grad(last)(0.4) * jax.grad(first)(0.0)
  want = -2 * (closed.MEAN - 1) * pull / np.std(kept.reward)
  assert want > 0.05
  assert abs(-slopes.mean() - want) < 3 * slopes.std() / n**0.5 + 0.02 * abs(want)  # the start has no deviation of data


def test_advantages_are_of_what_each_label_had():
  """Against a plain loop over lists of the last rewards."""
  rng, memory, least, total = np.random.default_rng(0), 5, 3, np.zeros(3, int)
  seen, lists = Seen.none(3, memory), [[], [], []]
  for size in (4, 12, 7):
    value, label = rng.normal(size=size).astype(np.float32), rng.choice(3, size, p=[0.6, 0.3, 0.1])
    seen = seen.add(jnp.asarray(value), jnp.asarray(label))
    told = seen.advantage(jnp.asarray(value), jnp.asarray(label), least)
    for v, c in zip(value, label, strict=True):
      lists[c] = [*lists[c], v][-memory:]
    total = total + np.bincount(label, minlength=3)
    for k, (v, c) in enumerate(zip(value, label, strict=True)):
      of = lists[c] if total[c] >= least else value
      np.testing.assert_allclose(told[k], np.clip((v - np.mean(of)) / (np.std(of) + 1e-6), -10, 10), rtol=1e-3)


def test_ways_are_kept_for_their_updates_and_the_clip_ends_the_gradient():
  """Drawn anew every second step; at the weights they were drawn with ratios are 1, far from there clipped."""
  method = RL(
    bases.on_exact(), reward=dict(name='within', point=(1.0,), radius=0.3), grid=TIMES, steps=2, ways=8, updates=2
  )
  state, batch = begun(method)
  move = jax.jit(make_train_step(method), static_argnums=2)
  ends = []
  for _ in range(4):
    state, _ = move(state, batch, (0,))
    ends.append(np.asarray(state.buffers['drawn'].way.end))
  np.testing.assert_array_equal(ends[0], ends[1])
  np.testing.assert_array_equal(ends[2], ends[3])
  assert not np.allclose(ends[1], ends[2])
  roles, batch = drawn(method)
  own = lambda shift: {**roles, 'student': {**roles['student'], 'shift': shift}}  # noqa: E731
  loss = jax.jit(lambda shift: method.phases[0].loss(own(shift), batch, jax.random.key(0)))
  here, there = loss(jnp.zeros(())), loss(jnp.asarray(0.5))
  np.testing.assert_allclose(here[0], -roles['drawn'].advantage, rtol=2e-4)
  assert here[1]['clipped'].sum() == 0 and there[1]['clipped'].mean() > 0.5


def test_only_the_student_moves_and_no_data_are_read():
  """The example may be anything: the same values. Gradients of the base and of what was drawn are zero."""
  method = RL(bases.on_exact(), reward=dict(name='near', point=(1.0,)), grid=TIMES, steps=2, ways=8)
  assert method.loads == ('base',) and dict(method.copies) == {'student': 'base'}
  state, batch = begun(method)
  none = jax.tree.map(lambda x: x * jnp.nan, batch)
  move = jax.jit(make_train_step(method), static_argnums=2)
  moved, other = (move(state, x, (0,))[0].roles['student'] for x in (batch, none))
  assert moved == other and moved != state.roles['student']
  roles, _ = drawn(method)
  for role in ('student', 'base'):
    value = lambda tree: jnp.mean(method.phases[0].loss({**roles, role: tree}, batch, jax.random.key(0))[0])  # noqa: B023, E731
    size = sum(float(jnp.abs(leaf)) for leaf in jax.tree.leaves(jax.jit(jax.grad(value))(roles[role])))
    assert (size > 0) == (role == 'student')


def test_refusals():
  near = dict(name='near', point=(1.0,))
  for changes, options, message in (
    (dict(base=None), dict(reward=near), 'base: got none; allowed: config.base.run'),
    (
      dict(kind=kinds.as_kind('eps')),
      dict(reward=near),
      'base: got exact, a closed form or of another network',
    ),
    ({}, dict(reward=near, ways=0), 'ways, updates, memory, least, clip: got 0'),
    ({}, dict(reward=near, least=40), 'got 64, 1, 32, 40'),
    ({}, dict(reward='none'), "reward: got 'none'"),
    ({}, dict(reward=near, grid=(1.0, 10.0), steps=2), r'grid: got \(1.0, 10.0\) for 2 steps; allowed'),
  ):
    made = dataclasses.replace(bases.on_exact(), **changes)
    with pytest.raises(InputError, match=message):
      RL(made, **options)


@pytest.mark.slow
def test_a_reward_without_a_gradient_fills_its_mode():
  """On the ring, 1 within .4 of mode 3, whose weight is .111: at least .6 of four-step samples lie there after 200
  updates of 512 ways, and at most .05 off every mode.
  """
  centre = tuple(float(c) for c in bench.ring().means[3])
  reward = dict(name='within', point=centre, radius=0.4)
  method = RL(bases.on_the_ring(200, 1e-3), reward=reward, grid=bases.TIMES, ways=512, memory=512, least=512)
  roles = bases.tuned(method, 200, jnp.zeros((512, 2)))
  share, off = bases.mass(bench.drawn(method, roles, bases.TIMES))
  print(f'rl_consistency: mode 3 {share:.3f}, off {off:.4f}')
  assert share >= 0.6 and off <= 0.05
