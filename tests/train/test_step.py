import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from training_job import AVERAGES, batch_at, init, loss, method

from diffjax import keys
from diffjax.train import compiler, ema
from diffjax.train.loop import abstract_state
from diffjax.train.roles import Copy, Method, Phase, active_phases
from diffjax.train.sharding import make_mesh
from diffjax.train.step import init_state, jit_train_step, make_train_step


def begin(method, batch, roles=init, averages=AVERAGES):
  return jax.jit(lambda key: init_state(method, roles(key), jax.random.key(1), batch, averages))(jax.random.key(0))


def jitted(method, **options):
  return jax.jit(make_train_step(method, AVERAGES, **options), static_argnums=2, donate_argnums=0)


def pull(role, other):
  """Squared distance of `role` from `other` plus the batch: a linear loss with draws."""

  def loss(roles, batch, key):
    gap = roles[role]['w'] - roles[other]['w'] - batch['x'] - keys.normal(key, batch['x'])
    return jnp.sum(gap**2, axis=-1), {}

  return loss


TWO = Method(
  (
    Phase('student', pull('student', 'teacher'), optax.sgd(0.1)),
    Phase('critic', pull('critic', 'student'), optax.adam(0.1), every=2),
  ),
  copies={'teacher': 'student', 'target': Copy('student', ema.constant(0.5))},
)


def two_roles(key):
  return {'student': {'w': jax.random.normal(key, (2,))}, 'critic': {'w': jnp.zeros(2)}}


def test_equals_plain_optax():
  """One phase is value_and_grad, update, apply and the averages, to the last rounding."""
  method_, steps = method(), 6
  state = begin(method_, batch_at(0))
  rule = method_.phases[0].optimiser
  params = jax.tree.map(jnp.copy, state.roles['student'])
  opt, means = rule.init(params), [params] * len(AVERAGES)

  @jax.jit
  def plain(params, opt, means, batch, i):
    key = jax.random.fold_in(jax.random.fold_in(jax.random.key(1), i), 0)
    objective = lambda p: jnp.mean(loss({'student': p}, batch, keys.per_sample(key, 16))[0])  # noqa: E731
    updates, opt = rule.update(jax.grad(objective)(params), opt, params)
    params = optax.apply_updates(params, updates)
    return params, opt, [ema.update(a, m, params, i + 1) for a, m in zip(AVERAGES, means, strict=True)]

  step = jitted(method_)
  for i in range(steps):
    state, _ = step(state, batch_at(i), (0,))
    params, opt, means = plain(params, opt, means, batch_at(i), i)
  kept = [state.ema['student'][a.name] for a in AVERAGES]
  for a, b in zip(jax.tree.leaves((state.roles['student'], kept)), jax.tree.leaves((params, means)), strict=True):
    np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6)
  assert int(state.step) == steps and float(state.meter['student']['count']) == steps


def test_phases_move_their_roles_alone():
  batch = batch_at(0)
  state, step = begin(TWO, batch, two_roles), jitted(TWO)
  np.testing.assert_array_equal(state.roles['teacher']['w'], state.roles['student']['w'])
  assert [active_phases(TWO, i) for i in range(3)] == [(0, 1), (0,), (0, 1)]
  before = jax.device_get(state.roles)
  for i in range(4):
    state, _ = step(state, batch_at(i), active_phases(TWO, i))  # donated: an aliased copy would be deleted here
    after = jax.device_get(state.roles)
    moved = {role for role in after if np.any(after[role]['w'] != before[role]['w'])}
    assert moved == {'student', 'target'} | ({'critic'} if i % 2 == 0 else set())
    rate = float(ema.constant(0.5).rate(i + 1))
    expected = before['target']['w'] + rate * (after['student']['w'] - before['target']['w'])
    np.testing.assert_allclose(after['target']['w'], expected, rtol=1e-6)
    before = after
  assert [float(state.meter[p]['count']) for p in ('student', 'critic')] == [4, 2]
  assert set(state.ema) == {'student'}


@pytest.mark.parametrize('every', [((1, 0), (1, 0)), ((2, 0), (2, 1)), ((2, 0), (3, 0)), ((1, 0), (3, 2))], ids=str)
def test_averages_of_a_role_move_once_a_step(every):
  """Two phases move one role: at the n-th step that moves it, each average moves once, by rate(n) to what both left.

  Averages and followers of rates 1/2 (warmed up: 9/10, 9/11, ...) and 1 - (1 - 1/n)^(gamma + 1), in float64 by hand.
  """
  phases = [
    Phase('student', pull('student', 'teacher'), optax.sgd(rate), every=n, offset=o, name=name)
    for (n, o), rate, name in zip(every, (0.1, 0.03), 'ab', strict=True)
  ]
  two = Method(tuple(phases), copies={'teacher': 'student', 'target': Copy('student', ema.constant(0.5))})
  averages = (ema.constant(0.5), ema.power(0.1))
  state = begin(two, batch_at(0), lambda key: {'student': {'w': jax.random.normal(key, (2,))}}, averages)
  step = jax.jit(make_train_step(two, averages), static_argnums=2)
  rates = [lambda n: max(0.5, 9 / (n + 9)), lambda n: 1 - (1 - 1 / n) ** (ema.gamma_of(0.1) + 1)]
  means, target, n = [np.asarray(state.roles['student']['w'], np.float64)] * 2, state.roles['target']['w'], 0
  for i in range(7):
    active = active_phases(two, i)
    if not active:
      state = state.replace(step=state.step + 1)
      continue
    state, _ = step(state, batch_at(i), active)
    w, n = np.asarray(state.roles['student']['w'], np.float64), n + 1
    means = [mean + rate(n) * (w - mean) for mean, rate in zip(means, rates, strict=True)]
    target = target + rates[0](n) * (w - target)
    for average, mean in zip(averages, means, strict=True):
      np.testing.assert_allclose(state.ema['student'][average.name]['w'], mean, rtol=0, atol=3e-6)
    np.testing.assert_allclose(state.roles['target']['w'], target, rtol=0, atol=3e-6)


def test_closed_form_of_the_first_phase():
  batch = batch_at(3)
  state = begin(TWO, batch, two_roles)
  w = np.asarray(state.roles['student']['w'])
  key_batch = keys.per_sample(jax.random.fold_in(jax.random.fold_in(jax.random.key(1), 0), 0), 16)
  pulled = np.mean(batch['x'] + np.asarray(keys.normal(key_batch, batch['x'])), axis=0)
  state, _ = jitted(TWO)(state, batch, (0,))
  np.testing.assert_allclose(state.roles['student']['w'], w + 0.1 * 2 * pulled, rtol=1e-5)


def test_accumulation_is_the_whole_batch():
  """The same draws and the same mean, only summed in another order; SGD, which does not magnify rounding."""
  method_ = Method((Phase('student', loss, optax.sgd(0.1)),))
  start = jax.device_get(begin(method_, batch_at(0), averages=()).replace(key=None))

  def after(accumulate):
    state = jax.tree.map(jnp.asarray, start).replace(key=jax.random.key(1))
    step = jax.jit(make_train_step(method_, accumulate=accumulate), static_argnums=2)
    for i in range(3):
      state, _ = step(state, batch_at(i), (0,))
    return jax.tree.leaves((state.roles, state.meter))

  plain = after(1)
  for accumulate in (2, 16):
    for a, b in zip(plain, after(accumulate), strict=True):
      np.testing.assert_allclose(a, b, rtol=2e-5, atol=1e-6)


def test_accumulation_must_divide():
  with pytest.raises(ValueError, match='batch: got 16 rows; allowed: a multiple of accumulate = 3'):
    jitted(method(), accumulate=3)(begin(method(), batch_at(0)), batch_at(0), (0,))


@pytest.mark.parametrize('bad', ['nan', 'gradient'])
def test_steps_that_are_not_finite_change_nothing(bad):
  """A poisoned batch, or a gradient infinite at a finite loss, leaves everything but the counters as it was."""

  def rooted(roles, batch, key):
    values, aux = loss(roles, batch, key)
    kink = jnp.sqrt(jnp.abs(roles['student']['d2']['bias'][0] * batch['kink'][:, 0]))  # slope inf at 0
    return values + kink, aux

  method_ = Method((Phase('student', rooted, optax.adam(1e-2)),)) if bad == 'gradient' else method()
  poisoned = batch_at(1)
  if bad == 'gradient':
    poisoned['kink'] = np.ones((16, 1), np.float32)
  else:
    poisoned['x'][5, 1] = np.float32(bad)
  state = begin(method_, poisoned)
  before = jax.device_get(state.replace(key=None))
  state, signals = jitted(method_)(state, poisoned, (0,))
  for name in ('roles', 'opt', 'ema', 'meter'):
    jax.tree.map(np.testing.assert_array_equal, getattr(before, name), jax.device_get(getattr(state, name)))
  assert (int(state.step), int(state.skipped)) == (1, 1)
  assert int(state.skipped_in_a_row) == int(signals['skipped_in_a_row']) == 1
  if bad == 'gradient':
    return assert_finite(state)
  step = jitted(method_)
  state, _ = step(state, poisoned, (0,))
  assert (int(state.skipped), int(state.skipped_in_a_row)) == (2, 2)
  state, _ = step(state, batch_at(2), (0,))
  assert (int(state.skipped), int(state.skipped_in_a_row)) == (2, 0)
  assert_finite(state)


def assert_finite(state):
  assert all(np.all(np.isfinite(leaf)) for leaf in jax.tree.leaves((state.roles, state.opt, state.ema)))


def test_refused():
  with pytest.raises(ValueError, match='phase: got the role .critic.; allowed: student'):
    begin(Method((Phase('critic', loss, optax.sgd(0.1)),)), batch_at(0))
  with pytest.raises(ValueError, match='phases: got'):
    Method((Phase('a', loss, optax.sgd(0.1)), Phase('a', loss, optax.sgd(0.1))))
  with pytest.raises(ValueError, match='every=0'):
    Phase('a', loss, optax.sgd(0.1), every=0)


def test_given_options_replace_those_of_training(monkeypatch):
  """What the dry run estimates for other platforms holds nothing that only a CPU's training is asked for."""
  _, target = abstract_state(method(), init, jax.random.key(0), batch_at(0), make_mesh(), AVERAGES)
  training, asked = compiler.training(), []
  monkeypatch.setattr(jax, 'jit', lambda step, **how: asked.append(how['compiler_options']))
  for options in (None, {}, compiler.once()):
    jit_train_step(method(), target, AVERAGES, options=options)
  assert asked == [training, {}, compiler.once()] and training


def test_the_guard_selects_on_cuda_and_branches_elsewhere():
  """By the lowered programs of one trace: beside those on the platform, which XLA folds, the guard's own."""
  state = begin(method(), batch_at(0))
  traced = jax.jit(make_train_step(method(), AVERAGES), static_argnums=2).trace(state, batch_at(0), (0,))
  lowered = {p: traced.lower(lowering_platforms=(p,)).as_text() for p in ('cuda', 'cpu', 'tpu')}
  branches = {platform: text.count('"stablehlo.case"') for platform, text in lowered.items()}
  assert branches['cpu'] == branches['tpu'] == branches['cuda'] + 1


def test_selecting_moves_what_branching_moves(monkeypatch):
  """A good batch, a bad one, a good one: the guard of CUDA against that of the others."""

  def states():
    state, step, kept = begin(method(), batch_at(0)), jitted(method()), []
    for i in range(3):
      batch = batch_at(i)
      state, _ = step(state, batch | {'x': batch['x'] * np.nan} if i == 1 else batch, (0,))
      kept.append(jax.device_get((state.roles, state.opt, state.ema)))
    return kept

  branched = states()
  monkeypatch.setattr(jax.lax, 'platform_dependent', lambda *args, cuda, default: cuda(*args))
  selected = states()
  jax.tree.map(np.testing.assert_array_equal, selected[0], selected[1])
  for one, other in zip(selected, branched, strict=True):
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-7), one, other)
