"""The recipes of densities: what they make, that their steps move what they should, and what they refuse."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from diffjax.runs.config import ConfigError, from_file, override
from diffjax.runs.experiment import build
from diffjax.train.step import init_state, make_train_step

FILES = {'vdm_digits': 'likelihood/vdm_digits', 'fokker_planck_toy2d': 'likelihood/fokker_planck_toy2d',
         'interpolant_toy2d': 'bridges/interpolant_toy2d'}  # fmt: skip
SMALL = ('net.name=mlp', 'net.width=8', 'net.depth=1', 'train.optimiser.warmup=0', 'train.optimiser.learning_rate=0.01')


def made(name, *changes):
  config = from_file(f'experiments/configs/{FILES[name]}.py')
  small = [change for change in SMALL if 'warmup' not in change or config.train.optimiser.name == 'adamw']
  return build(override(config, [f'--config.{change}' for change in (*small, *changes)]))


@pytest.mark.quick('interpolant_toy2d')
@pytest.mark.parametrize('name', FILES)
def test_a_step_moves_every_role_and_draws(name):
  changes = ('method.width=8',) if name == 'vdm_digits' else ()
  experiment = made(name, *changes, 'sampling.steps=3')
  batch = {'x': jnp.zeros((4, *experiment.shape)) + 0.5 * jax.random.normal(jax.random.key(0), (4, *experiment.shape))}
  batch |= {'cond': jnp.arange(4)} if experiment.classes else {}
  if name == 'vdm_digits':
    batch['x'] = jnp.round(8 * jnp.clip(batch['x'], -1, 1)) / 8
  state = jax.jit(lambda key: init_state(experiment.method, experiment.init(key), key, batch))(jax.random.key(1))
  step = jax.jit(make_train_step(experiment.method), static_argnums=2)
  after = state
  for _ in range(2):  # of an output that begins at zero the first step moves the last layer alone
    after, told = step(after, batch, tuple(range(len(experiment.method.phases))))
    assert np.isfinite(told['loss']) and int(after.skipped) == 0
  moved = {role: jax.tree.map(lambda a, b: bool((a != b).any()), state.roles[role], after.roles[role])
           for role in state.roles}  # fmt: skip
  moved = {role: any(jax.tree.leaves(tree)) for role, tree in moved.items()}
  assert all(moved.values()), moved
  generator = experiment.generator(after.roles)
  cond = jnp.arange(2) if experiment.classes else None
  drawn = generator(jax.random.split(jax.random.key(3), 2), cond)
  assert drawn.shape == (2, *experiment.shape) and np.isfinite(drawn).all()
  if name == 'vdm_digits':
    assert set(state.roles) == {'student', 'schedule'}


@pytest.mark.parametrize(
  'name, change, told',
  [
    ('vdm_digits', 'method.levels=1', 'levels: got 1'),
    ('vdm_digits', 'method.ends=(1.0, 0.0)', 'ends: got'),
    ('vdm_digits', 'process=flow', 'process: got one whose alpha'),
    ('vdm_digits', 'method.learning_rate=0.0', 'learning_rate: got 0.0'),
    ('fokker_planck_toy2d', 'process=flow', 'process: got one whose alpha reaches 0'),
    ('fokker_planck_toy2d', 'method.weight=-1.0', 'weight, box: got -1.0'),
    ('interpolant_toy2d', 'method.path=cubic', "path: got 'cubic'; allowed: linear"),
    ('interpolant_toy2d', 'method.coupling=ot', "coupling: got 'ot'; allowed: independent"),
    ('interpolant_toy2d', 'method.noise=-1.0', 'noise: got -1.0'),
  ],
)
def test_bad_input_is_refused(name, change, told):
  with pytest.raises(ConfigError, match=told):
    made(name, change)


def test_couplings_are_named_in_a_config():
  """By name on toys; on labelled digits refused, unless within a class."""
  flow = from_file('experiments/configs/toy2d.py')
  build(override(flow, ['--config.loss.coupling=minibatch_ot']))
  digits = ['--config.net=mlp', '--config.loss.coupling=minibatch_ot']
  labelled = from_file('experiments/configs/digits.py')
  with pytest.raises(ConfigError, match='config.loss: coupling: got minibatch_ot with labels'):
    build(override(labelled, digits))
  build(override(labelled, [*digits, '--config.loss.coupling.classwise=True']))
