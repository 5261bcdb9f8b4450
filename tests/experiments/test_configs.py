"""Every config of experiments/configs builds abstractly: shapes, parameter counts and shardings, without data."""

from pathlib import Path

import jax
import numpy as np
import pytest

from diffjax import run
from diffjax.config import ConfigError, checked, from_file, override
from diffjax.experiment import build, count

CONFIGS = sorted(str(p) for p in Path('experiments/configs').glob('[!_]*.py'))


@pytest.fixture(scope='module', params=CONFIGS, ids=lambda path: Path(path).stem)
def experiment(request):
  return build(from_file(request.param))


def test_forward_has_the_shape_of_the_data(experiment):
  rows = 2
  params = jax.eval_shape(experiment.init, jax.random.key(0))['student']
  x, t, cond = jax.eval_shape(lambda: experiment.inputs(rows))
  out = jax.eval_shape(experiment.net, params, x, t, cond)
  assert out.shape == (rows, *experiment.shape) and out.dtype == np.float32


def test_solver_and_state(experiment):
  n = experiment.config.sampling.steps  # Heun: one evaluation for a step that touches infinite lam, two otherwise
  assert experiment.solver().nfe in (n, 2 * n - 1, 2 * n - 2)
  mesh = jax.sharding.AbstractMesh((2, 4, 1), ('data', 'fsdp', 'model'))
  state = run.state_of(experiment, mesh)
  params = jax.eval_shape(experiment.init, jax.random.key(0))['student']
  assert count(state.roles) == count(params)
  assert count(state.ema) == len(experiment.averages) * count(params)
  big = [leaf for leaf in jax.tree.leaves(state.roles) if leaf.size >= 2**14 and max(leaf.shape) % 4 == 0]
  assert all('fsdp' in leaf.sharding.spec for leaf in big)


@pytest.mark.parametrize(
  'name, low, high', [('digits', 0.3e6, 1e6), ('cifar10', 50e6, 75e6), ('imagenet64', 200e6, 400e6)]
)
def test_size(name, low, high):
  """EDM's CIFAR-10 network has 55.7 M parameters and ADM's at 64 x 64 has 296 M: ours are of those sizes."""
  experiment = build(from_file(f'experiments/configs/{name}.py'))
  assert low < count(jax.eval_shape(experiment.init, jax.random.key(0))) < high


def test_a_config_survives_its_json(experiment, tmp_path):
  run.claim(str(tmp_path / 'run'), experiment.config)
  assert run.read_config(str(tmp_path / 'run')).to_dict() == experiment.config.to_dict()
  assert checked(experiment.config).to_dict() == experiment.config.to_dict()


@pytest.mark.parametrize('option, value', [('flip', True), ('augment', 0.1)])
def test_only_images_are_flipped(option, value):
  config = override(from_file('experiments/configs/toy2d.py'), [f'--config.loading.{option}={value}'])
  with pytest.raises(ConfigError, match=rf'config.loading.{option}: got {value}; allowed for .*\(2,\)'):
    build(config)


def test_an_argument_reaches_get_config():
  assert from_file('experiments/configs/toy2d.py:moons').data.name == 'moons'
