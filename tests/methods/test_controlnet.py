"""The ControlNet recipe: it begins as its base, only the branch moves, and both branches of guidance see the image."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from diffjax import guidance, keys, kinds, methods, nets, schedules
from diffjax.errors import InputError
from diffjax.methods import Parts, Sampling, Source
from diffjax.solvers import ddim, grids
from diffjax.train.optimiser import adam
from diffjax.train.step import init_state, make_train_step

PROCESS, KIND = schedules.cosine(), kinds.v()
NET = nets.unet(4, channel_mult=(1,), blocks_per_level=1, attention=(), classes=2)
SHAPE = (4, 4, 1)


def made(**changes):
  rng, inputs = np.random.default_rng(0), (jnp.zeros((1, *SHAPE)), jnp.zeros(1), jnp.zeros(1, int))
  weights = jax.eval_shape(NET.init, jax.random.key(0), *inputs)
  base = jax.tree.map(lambda s: jnp.asarray(0.3 * rng.standard_normal(s.shape), jnp.float32), weights)
  source = Source('base', PROCESS, SHAPE, 2, weights, lambda params: None, KIND, NET)
  options = dict(
    process=PROCESS, kind=KIND, net=NET, shape=SHAPE, classes=2, loss=lambda *_: None, steps=3,
    loss_options=dict(given=('source',), drop_cond=0.1), optimiser=lambda n=3: adam(n, 1e-2), base=source,
    others=dict(source=SHAPE),
  )  # fmt: skip
  return Parts(**(options | changes)), base


@pytest.mark.slow
def test_it_begins_as_its_base_and_guidance_shows_both_branches_the_image():
  parts, base = made()
  method = methods.controlnet(parts)
  rng = np.random.default_rng(1)
  x, source = (jnp.asarray(rng.uniform(-1, 1, (4, *SHAPE)), jnp.float32) for _ in range(2))
  told = {'label': jnp.arange(4) % 2, 'source': source}
  student = method.copied['student'].of(base)
  assert method.copied['student'].source == 'base' == method.loads[0] and method.phases[0].role == 'student'
  branch = jax.eval_shape(nets.controlled(NET).branch.init, jax.random.key(0), x, jnp.zeros(4), told)
  jax.tree.map(lambda a, b: a.shape == b.shape or pytest.fail(), student, branch)
  run = jax.jit(lambda denoise, cond: denoise(x, 0.5, cond).x0)
  plain = run(parts.denoiser(base), told['label'])
  np.testing.assert_allclose(run(method.denoiser({'base': base, 'student': student}), told), plain, atol=1e-6)
  denoise = method.denoiser({'base': base, 'student': jax.tree.map(lambda p: p + 0.1, student)})
  conditional, guided = run(denoise, told), run(guidance.cfg(denoise, 3.0), told)
  assert np.abs(conditional - plain).max() > 1e-3
  null = run(denoise, {'label': jnp.full(4, 2), 'source': source})
  np.testing.assert_allclose(guided, null + 3 * (conditional - null), atol=1e-4)


@pytest.mark.slow
def test_training_moves_the_branch_alone():
  parts, base = made()
  method = methods.controlnet(parts)
  batch = {name: jax.random.uniform(jax.random.key(i), (4, *SHAPE)) for i, name in enumerate(('x', 'source'))}
  batch['cond'] = jnp.arange(4) % 2
  state = jax.jit(lambda key: init_state(method, {'base': base}, key, batch))(jax.random.key(0))
  step = jax.jit(make_train_step(method), static_argnums=2)
  for _ in range(2):
    state, _ = step(state, batch, (0,))
  jax.tree.map(np.testing.assert_array_equal, state.roles['base'], base)
  assert np.any(state.roles['student']['unet']['in']['kernel'] != base['in']['kernel'])
  sampling = Sampling(2, lambda: None, lambda: ddim(PROCESS, grids.uniform(PROCESS, 2)), lambda denoise: denoise)
  drawn, told = method.generator(state.roles, sampling), {'label': batch['cond'], 'source': batch['source']}
  assert jax.eval_shape(drawn, keys.per_sample(jax.random.key(0), 4), told).shape == (4, *SHAPE)


def test_bad_parts_are_refused():
  parts, _ = made()
  for message, changes in {
    r"loss.given: got \(\); allowed: \('source',\)": dict(loss_options={}),
    'base: got none; allowed': dict(base=None),
    'base: got base, a closed form or of another network': dict(kind=kinds.eps()),
    'base: got base of another process': dict(process=schedules.vp_linear()),
  }.items():
    with pytest.raises(InputError, match=message):
      methods.controlnet(dataclasses.replace(parts, **changes))
