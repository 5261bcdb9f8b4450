"""Edits of one class of a trained network: All but One's optimum, and discriminative class tokens."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from diffjax import exact, keys, losses, methods, nets, schedules, solvers
from diffjax.errors import InputError
from diffjax.guidance import cfg
from diffjax.methods import Sampling, Source
from diffjax.methods.class_token import rows_of, with_row
from diffjax.methods.erasing import edited
from diffjax.prediction import complete
from diffjax.pytree import PyTree
from diffjax.runs import record
from diffjax.runs.config import from_file, override
from diffjax.runs.experiment import build
from experiments import ring

EDM = ring.edm()
NET = nets.mlp(width=8, depth=1, classes=8)
LABELLED = ring.ring(np.arange(8))
COSINE = schedules.cosine()
UNDER = Sampling(3, lambda: None, lambda: solvers.ddim(COSINE, solvers.grids.uniform(COSINE, 3)), lambda d: d)


def run_of(net=NET, params=None):
  """A labelled network as the base of a run."""
  made = ring.parts(LABELLED, EDM, 'v', net=net, classes=8)
  shapes = jax.eval_shape(made.init, jax.random.key(0)) if params is None else params
  drawn = lambda params, asked: methods.under_solver(made, made.denoiser(params), asked)  # noqa: E731
  base = Source('run', EDM, (2,), 8, jax.eval_shape(lambda: shapes), made.denoiser, made.kind, net, drawn)
  return ring.parts(LABELLED, EDM, 'v', net=net, classes=8, base=base)


def filled(shapes, seed=0):
  rng = np.random.default_rng(seed)
  return jax.tree.map(lambda leaf: jnp.asarray(0.3 * rng.standard_normal(leaf.shape), jnp.float32), shapes)


class Erased(PyTree):
  """The optimum of All but One over three Gaussians: label 0 the erased class, 1 the one instead, -1 none."""

  target: exact.ExactDenoiser
  away: float

  null = -1

  @property
  def process(self):
    return self.target.process

  def __call__(self, x, t, cond=None, memory=None):
    ask = lambda c: self.target(x, t, jnp.full(len(x), c)).x0  # noqa: E731
    none = ask(2)
    x0 = none + edited(none, ask(0), ask(1), self.away)
    return complete(self.process, x, t, jnp.where((cond == 0)[:, None], x0, none))


def test_the_law_of_the_optimum_under_guidance():
  """PF-ODE variance v_alt^{w (1 + eta)} v_e^{-w eta} v_0^{1 - w} on Gaussians, 3%; affine, so two samples."""
  w, away, var = 1.5, 0.5, dict(e=0.5, alt=0.3, none=0.8)
  process = schedules.edm()
  target = exact.mixture([1, 1, 1], [[0.2], [-0.1], [0.0]], [var['e'], var['alt'], var['none']])
  guided = cfg(Erased(target.denoiser(process), away), w)
  solver = solvers.heun(process, solvers.grids.karras(process, 64))
  ends = np.asarray(solvers.sample(guided, solver, 80.0 * jnp.asarray([[-1.0], [1.0]]), cond=jnp.zeros(2, int)))
  want = var['alt'] ** (w * (1 + away)) * var['e'] ** (-w * away) * var['none'] ** (1 - w)
  np.testing.assert_allclose(((ends[1] - ends[0]) / 2) ** 2, want, rtol=0.03)


def test_erasing_leaves_the_frozen_model_alone_and_begins_at_its_edit():
  """At the base only the edit is to be paid, |d(erased) - wanted|^2 with wanted of the base; no gradient reaches it."""
  made = run_of()
  method = methods.all_but_one(made, erase=3, instead=5, away=0.5)
  params = filled(made.base.params)
  x, label = jnp.asarray(np.random.default_rng(0).normal(size=(16, 2)), jnp.float32), jnp.arange(16) % 8
  batch = {'x': x, 'cond': label}

  @jax.jit
  def run(params):
    loss = lambda roles: method.phases[0].loss(roles, batch, jax.random.key(0))  # noqa: E731
    roles = {'student': params, 'base': params}
    slopes = jax.grad(lambda roles: jnp.sum(loss(roles)[0]))(roles)
    return loss(roles), slopes

  (value, aux), slopes = run(params)
  np.testing.assert_array_equal(aux['drift'], 0)
  np.testing.assert_array_equal(aux['rest'], 0)
  np.testing.assert_allclose(value, aux['edit'])
  size = {role: max(float(jnp.abs(leaf).max()) for leaf in jax.tree.leaves(slopes[role])) for role in slopes}
  assert size['base'] == 0 and size['student'] > 0 and (aux['edit'] > 0).all()


def test_a_token_is_a_row_of_the_label_table_and_nothing_else_moves():
  """Rows are found in the table; asked for another label the network is bit for bit the base; the gradient is that of
  the last step alone."""
  made = run_of()
  method = methods.class_token(made, reward=dict(name='near', point=(1.0, 0.0)), label=2, begin=6, steps=3, scale=2.0)
  params = filled(made.base.params)
  token = method.copied['token'].of(params)
  assert len(token) == 1 and all(row.ndim == 1 for row in token.values())
  roles = {'base': params, 'token': token}
  x, t = jnp.asarray(np.random.default_rng(0).normal(size=(4, 2)), jnp.float32), 0.8

  @jax.jit
  def run(roles):
    mine, base = method.denoiser(roles), made.base.denoiser(roles['base'])
    asked = [(mine(x, t, jnp.full(4, a)), base(x, t, jnp.full(4, b))) for a, b in ((2, 6), (0, 0), (8, 8))]
    slopes = jax.grad(lambda roles: jnp.mean(method.phases[0].loss(roles, {}, jax.random.key(0))[0]))(roles)
    return asked, slopes

  asked, slopes = run(roles)
  for got, want in asked:
    np.testing.assert_array_equal(got.x0, want.x0)
  assert all(not np.any(leaf) for leaf in jax.tree.leaves(slopes['base']))
  assert all(np.any(leaf) for leaf in jax.tree.leaves(slopes['token']))
  put = with_row(params, token, 8, 2)
  same = jax.tree.map(lambda a, b: bool((a == b).all()), put, with_row(params, rows_of(params, 8, 2), 8, 2))
  assert sum(not leaf for leaf in jax.tree.leaves(same)) == 1


@pytest.mark.slow
def test_a_token_of_the_wrong_class_learns_the_right_one():
  """Begun as mode 0 of the ring, rewarded near mode 4: nine in ten samples of the sampler that
  it was fitted under are there after 200 steps."""
  net = nets.mlp(width=64, depth=2, classes=8)
  plain = ring.parts(LABELLED, EDM, 'v', net=net, classes=8, steps=3000)
  train = methods.denoising(
    ring.parts(
      LABELLED, EDM, 'v', net=net, classes=8, steps=3000, rate=3e-3,
      loss=losses.denoising(EDM, net, 'v', drop_cond=0.1, null=plain.null), loss_options=dict(drop_cond=0.1),
    )
  )  # fmt: skip
  params = ring.trained(train, LABELLED, 3000, batch=256, labelled=True)['student']
  made = run_of(net, params)
  made = ring.parts(LABELLED, EDM, 'v', net=net, classes=8, base=made.base, steps=200, rate=0.05)
  method = methods.class_token(
    made, reward=dict(name='near', point=(-1.0, 0.0)), label=0, steps=8, scale=2.0, images=96
  )
  token, step = method.copied['token'].of(params), made.optimiser()
  state = step.init(token)

  @jax.jit
  def train_token(token, state):
    def one(carry, i):
      token, state = carry
      value = lambda token: method.phases[0].loss(dict(base=params, token=token), {}, jax.random.key(0))[0]  # noqa: E731
      slope = jax.grad(lambda token: jnp.mean(value(token)))(token)
      move, state = step.update(slope, state, token)
      return (jax.tree.map(jnp.add, token, move), state), None

    return jax.lax.scan(one, (token, state), jnp.arange(200))[0][0]

  token = train_token(token, state)
  asked = Sampling(8, lambda: None, lambda: solvers.ddim(EDM, solvers.grids.uniform(EDM, 8)), lambda d: cfg(d, 2.0))
  shares = []
  for own in (method.copied['token'].of(params), token):
    generator = method.generator(dict(base=params, token=own), asked)
    x = np.asarray(generator(keys.per_sample(jax.random.key(1), 500), jnp.zeros(500, int)))
    shares.append(np.mean(np.linalg.norm(x - [-1.0, 0.0], axis=1) < 0.4))
  print(shares)
  assert shares[0] < 0.1 and shares[1] >= 0.9


def test_bad_input_is_refused():
  made, near = run_of(), dict(name='near', point=(1.0, 0.0))
  alone = ring.parts(LABELLED, EDM, 'v', net=NET, classes=8)
  for call, told in (
    (lambda: methods.all_but_one(made, erase=3, instead=3), 'erase, instead: got 3, 3; allowed: two of the 8'),
    (lambda: methods.all_but_one(made, erase=3, instead=4, away=-1.0), 'away, pin, keep: got -1'),
    (lambda: methods.class_token(made, reward=near, label=9), 'label, begin: got 9, 9'),
    (lambda: methods.class_token(made, reward=near, label=1, steps=1), 'steps, images, scale: got 1'),
    (lambda: methods.class_token(alone, reward=near, label=1), 'base: got none'),
  ):
    with pytest.raises(InputError, match=told):
      call()


@pytest.mark.parametrize('name', ['all_but_one', 'class_token', 'invariant'])
def test_configs_are_built_on_a_run(name, tmp_path):
  """From a run that is its config alone: what moves, and that its generator is under the config's solver."""
  small = ['--config.net.width=4', '--config.mesh.cpu_devices=0']
  record.claim(f'{tmp_path}/demo', override(from_file('experiments/configs/digits.py'), small))
  path = f'experiments/configs/guidance/edits_digits.py:{name}'
  experiment = build(override(from_file(path), [*small, f'--config.base.run={tmp_path}/demo']))
  role = dict(all_but_one='student', class_token='token', invariant='student')[name]
  roles = experiment.roles()
  assert experiment.method.averaged == (role,) and {'base', role} <= set(roles)
  assert experiment.method.generator(roles, UNDER).nfe == 3
