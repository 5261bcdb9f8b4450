"""Self-Forcing: clips from a student's own frames; the closed-form VAR(2), where the best student is known."""

import dataclasses
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import var
from classroom import audit

from diffjax import fewstep, keys, nets, schedules
from diffjax.errors import InputError
from diffjax.fewstep import causal
from diffjax.fewstep.causal import unrolled, windows
from diffjax.train.step import init_state, make_train_step
from experiments import ring as bench

COSINE, FRAMES = schedules.cosine(), 8


def parts(steps=10, net=None, **options):
  net = nets.mlp(width=8, depth=1) if net is None else net
  own = dict(shape=(FRAMES, 2), teacher=var.teacher(COSINE, FRAMES))
  return bench.parts(var.window(1), COSINE, 'x0', net=net, steps=steps, **own, **options)


def unread(rows):
  return {'x': jax.ShapeDtypeStruct((rows, FRAMES, 2), jnp.float32)}


def filled(tree, seed=0):
  r = np.random.default_rng(seed)
  return jax.tree.map(lambda leaf: np.float32(0.3 * r.standard_normal(leaf.shape)), tree)


def test_the_best_student_draws_the_process():
  """From two frames, one and none: every window has the covariance of the process, so its direction is 0 on average."""
  own = causal.causal(parts(net=var.Linear()), 1, 2)
  n = 4000
  draw = fewstep.self_forcing(parts(net=var.Linear()), length=24).generator({'student': var.best()}, None)
  x = np.asarray(jax.jit(lambda draw, k: draw(k))(draw, keys.per_sample(jax.random.key(0), n)))
  assert x.shape == (n, 24, 2) == (n, *draw.shape) and draw.nfe == draw.cost == 24
  whole = np.asarray(var.window(FRAMES).covariance())
  for start in (0, 16):
    flat = x[:, start : start + FRAMES].reshape(n, -1)
    np.testing.assert_allclose(flat.T @ flat / n, whole, atol=5 * np.sqrt(2 / n))
  assert own.net.shape == (1, 2)


@pytest.mark.slow
def test_windows_are_parts_of_what_was_made_and_their_gradient_is_one_call_deep():
  """Values of the clip itself, at a place of each clip's own; what a frame was made from passes no gradient."""
  block, levels, rows = 2, (0.99, 0.6, 0.3), 12
  own = causal.causal(parts(), block, 3)
  params, key_batch = filled(own.init(jax.random.key(0))), keys.per_sample(jax.random.key(1), rows)
  make = windows(own, levels, 20, FRAMES, lambda key_batch: None)
  x, _ = jax.jit(make)(params, key_batch)
  _, k_last, k_place, k_make = keys.split(key_batch, 4)
  last = jnp.floor(3 * keys.uniform(k_last)).astype(int)
  kept = jax.jit(lambda p: unrolled(own.denoiser(p), levels, k_make, None, 20 // block, last))(params)
  clips = jnp.moveaxis(kept.x, 0, 1).reshape(rows, 20, 2)
  place = block * np.floor(keys.uniform(k_place) * ((20 - FRAMES) // block + 1)).astype(int)
  assert set(np.asarray(last)) == {0, 1, 2} and place.max() <= 20 - FRAMES
  np.testing.assert_allclose(
    x, np.stack([clip[p : p + FRAMES] for clip, p in zip(clips, place, strict=True)]), atol=1e-5
  )

  inputs, past, seen = (np.stack([leaf[p // block : (p + FRAMES) // block, i] for i, p in enumerate(place)])
                        for leaf in (kept.inputs, kept.past, kept.seen))  # fmt: skip
  ts = jnp.asarray(levels)[last]

  def alone(p):
    """The frames of the windows, each by the call that made it, from frozen inputs."""
    made = [own.denoiser(p)(inputs[:, j], ts, {'label': None, 'past': past[:, j], 'seen': seen[:, j]}).x0
            for j in range(FRAMES // block)]  # fmt: skip
    return jnp.sum(jnp.sin(jnp.concatenate(made, 1)))

  want, got = (
    jax.jit(jax.grad(alone))(params),
    jax.jit(jax.grad(lambda p: jnp.sum(jnp.sin(make(p, key_batch)[0]))))(params),
  )
  jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=2e-3, atol=2e-4), got, want)


def test_a_block_is_told_the_frames_before_it_and_how_many_there_are():
  own = causal.causal(parts(), 1, 3)
  kept = unrolled(own.denoiser(filled(own.init(jax.random.key(0)))), (1.0,),
                  keys.per_sample(jax.random.key(1), 2), None, 6, jnp.zeros(2, int))  # fmt: skip
  np.testing.assert_array_equal(kept.seen[:, 0], [0, 1, 2, 3, 3, 3])
  np.testing.assert_array_equal(kept.past[0], 0)
  np.testing.assert_array_equal(kept.past[5, 1], kept.x[2:5, 1, 0])
  np.testing.assert_array_equal(kept.past[1, 1], np.stack([0 * kept.x[0, 1, 0], 0 * kept.x[0, 1, 0], kept.x[0, 1, 0]]))


@pytest.mark.slow
def test_with_the_teachers_frames_it_is_plain_and_only_the_role_of_a_phase_moves():
  method = fewstep.self_forcing(parts(), levels=(0.99, 0.5))
  roles = {name: filled(tree, i) for i, (name, tree) in enumerate(method.init(jax.random.key(0)).items())}
  for phase in method.phases:
    sizes = audit(phase.loss, roles, unread(4))
    assert sizes.pop(phase.role) > 1e-5 and max(sizes.values()) == 0
  assert [(phase.role, phase.every) for phase in method.phases] == [('critic', 1), ('student', 5)]
  same = fewstep.self_forcing(parts(), levels=(0.99, 0.5), frames=FRAMES)
  for one, other in zip(method.phases, same.phases, strict=True):
    np.testing.assert_array_equal(*(jax.jit(p.loss)(roles, {'x': jnp.zeros((4, FRAMES, 2))}, jax.random.key(2))[0]
                                    for p in (one, other)))  # fmt: skip


def test_refusals():
  points = dataclasses.replace(parts(), shape=(2,), teacher=dataclasses.replace(parts().teacher, shape=(2,)))
  cases = [
    (points, {}, r'data: got those of shape \(2,\); allowed: clips'),
    (parts(), dict(block=3), 'block, context: got 3, 2; allowed: a divisor of the 8 frames'),
    (parts(), dict(context=0), 'block, context: got 1, 0'),
    (parts(), dict(frames=4), 'frames, length: got 4, 8'),
    (parts(), dict(block=2, frames=9), 'frames, length: got 9, 8; allowed: multiples of the block, 2'),
    (parts(), dict(levels=(0.5, 0.7)), 'levels: got'),
    (parts(), dict(shift=0.0), 'shift, span: got 0.0'),
    (parts(), dict(ratio=0), 'every: got 0'),
    (dataclasses.replace(parts(), teacher=None), {}, 'teacher: got none'),
  ]
  for made, options, message in cases:
    with pytest.raises(InputError, match=message):
      fewstep.self_forcing(made, **options)


def trained(method, steps, rows, seed=0):
  """The roles after so many steps, the student moved at the last of each `ratio`."""
  step = make_train_step(method)
  ratio = method.phases[1].every

  @jax.jit
  def run():
    state = init_state(method, method.init(jax.random.key(seed)), jax.random.key(seed + 1), unread(rows))

    def round_of(state, _):
      for i in range(ratio):
        state, _ = step(state, unread(rows), (0, 1) if i == ratio - 1 else (0,))
      return state, None

    return jax.lax.scan(round_of, state, None, steps // ratio)[0]

  state = run()
  assert int(state.skipped) == 0
  return state.roles


class Either(NamedTuple):
  """The student's linear frames, told 1.03 times what was before, and the critic's network, by what they see."""

  critic: Any

  @property
  def module(self):
    return self.critic.module

  def init(self, key, x, t, cond=None):
    if x.shape[-1] != 8:
      return self.critic.init(key, x, t, cond)
    tree = var.best()
    return {**tree, 'frames': 1.03 * tree['frames']}

  def __call__(self, params, x, t, cond=None, key=None):
    return var.Linear()(params, x, t) if x.shape[-1] == 8 else self.critic(params, x, t, cond, key)


@pytest.mark.slow
@pytest.mark.xfail(strict=True, raises=AssertionError, reason='variances .05, .05; autocovariances .50 and .38, not .1')
def test_acceptance_on_the_var():
  """Windows of 8 frames, clips of 160, students that begin with the frames before scaled by 1.03.

  Bounds of the specification: trained beyond the window |log variance ratio| <= .1 and at most half of what the first
  window alone leaves, the error of the autocovariances of lags 1 to 4 <= .1. The drift of 1.03 is over by the eighth
  frame (.03 before any training), and the critic's error moves the student farther than that.
  """
  steps = 3000
  made = parts(steps, Either(nets.mlp(width=64, depth=2)), rate=5e-4)
  found = {}
  for frames in (FRAMES, 160):
    method = fewstep.self_forcing(made, frames=frames, length=160, ratio=5, pace=4.0)
    roles = trained(method, steps, 64)
    x = jax.jit(lambda draw, k: draw(k))(method.generator(roles, None), keys.per_sample(jax.random.key(9), 2000))
    found[frames] = var.drift(x)
    print(f'self-forcing, {frames} frames: log variance ratio {found[frames][0]:.3f}, lags {found[frames][1]:.3f}')
  first, whole = found.values()
  assert abs(whole[0]) <= 0.1 and abs(whole[0]) <= 0.5 * abs(first[0]) and whole[1] <= 0.1
