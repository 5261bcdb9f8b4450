"""Overrides: what a command line says of a config does not depend on the order in which it says it."""

import itertools

import numpy as np
import pytest
from ml_collections import ConfigDict

from diffjax.runs.config import OPEN, ConfigError, checked, defaults, override
from diffjax.runs.experiment import build

START = checked(
  dict(
    data=dict(name='npz', shape=(4, 4, 1), classes=3, path='before.npz'),
    process=dict(name='cosine', offset=0.01),
    net=dict(name='unet', width=24),
    loss=dict(name='denoising', kind='v', times=dict(name='lognormal', mean=-1.0), weight='edm', drop_cond=0.1),
    train=dict(optimiser=dict(name='adamw', weight_decay=0.1)),
    sampling=dict(solver=dict(name='unipc', order=3), grid=dict(name='karras', rho=5.0)),
  )
)

OTHER = {  # section -> another name, an option of it, and all that the section holds then
  'data': ('folder', 'size', 8, dict(shape=(4, 4, 1), classes=3)),
  'process': ('edm', 'sigma_max', 9.0, {}),
  'net': ('mlp', 'depth', 2, {}),
  'loss': ('modalities', 'ends', 0.1, {}),
  'loss.kind': ('edm', 'data_std', 0.7, {}),
  'loss.times': ('logit_normal', 'mean', 0.3, {}),
  'loss.weight': ('min_snr', 'gamma', 2.0, {}),
  'loss.coupling': ('minibatch_ot', 'classwise', 1, {}),
  'method': ('my.recipe', 'rate', 0.5, {}),
  'teacher.target': ('ring8', 'std', 0.2, {}),
  'base.target': ('ring8', 'radius', 3.0, {}),
  'train.optimiser': ('sgd', 'momentum', 0.9, {}),
  'sampling.solver': ('deis_tab', 'order', 2, {}),
  'sampling.grid': ('array', 'times', (2.0, 1.0, 0.0), {}),
  'sampling.observation': ('mask', 'share', 0.5, {}),
  'sampling.reward': ('label', 'weight', 2.0, {}),
  'sampling.steering': ('feynman_kac', 'scale', 2.0, {}),
}


def at(config: ConfigDict, field: str):
  for part in field.split('.'):
    config = config[part]
  return config.to_dict()


def test_every_section_with_a_name_is_here():
  assert set(OTHER) == set(OPEN)


@pytest.mark.parametrize('field', OTHER)
def test_name_and_option_in_any_order(field):
  """The option belongs to the name given with it; options of the name before are gone."""
  name, option, value, kept = OTHER[field]
  fresh = {k: v for k, v in defaults().data.items() if k != 'name'} if field == 'data' else {}  # of a section replaced
  said = dict(name=f'--config.{field}.name={name}', option=f'--config.{field}.{option}={value}')
  for order in itertools.permutations(said.values()):
    assert at(override(START, order), field) == {'name': name, option: value, **kept}
  for order in itertools.permutations([f'--config.{field}={name}', said['option']]):
    assert at(override(START, order), field) == {'name': name, option: value, **kept}
  whole, part = {'name': name, option: value}, {option: value}
  for order in itertools.permutations([f'--config.{field}={whole}', f'--config.{field}.{option}={2 * value}']):
    assert at(override(START, order), field) == {'name': name, option: 2 * value, **fresh}
  for order in itertools.permutations([f'--config.{field}={part}', said['name']]):
    assert at(override(START, order), field) == {'name': name, option: value, **fresh}


def test_sections_within_sections_in_any_order():
  said = ['loss.times.mean=.5', 'loss.times.name=lognormal', 'loss.name=denoising', 'train={"batch": 8}']
  said += ['train.optimiser.momentum=.5', 'train.optimiser.name=sgd', 'loss.drop_cond=.2']
  said = [f'--config.{change}' for change in said]
  config = override(START, said)
  for seed in range(20):
    assert override(START, np.random.default_rng(seed).permutation(said)).to_dict() == config.to_dict()
  assert config.loss.times.to_dict() == {'name': 'lognormal', 'mean': 0.5} and config.loss.drop_cond == 0.2
  assert config.train.optimiser.to_dict() == {'name': 'sgd', 'momentum': 0.5} and config.train.batch == 8


@pytest.mark.parametrize('field', OTHER)
def test_one_form_for_a_name(field):
  """Said by section or by key, over a name or a dict: configs are equal, by which a run knows its own."""
  name = OTHER[field][0]
  said = [f'--config.{field}={name}', f'--config.{field}.name={name}']
  told = [override(START, [change]).to_dict() for change in said]
  told += [override(override(START, [change]), [other]).to_dict() for change in said for other in said]
  assert all(config == told[0] for config in told)


def test_of_one_key_the_last_counts():
  config = override(START, ['--config.net.name=mlp', '--config.train.steps=5', '--config.net.name=unet',
                            '--config.train.steps=6'])  # fmt: skip
  assert config.train.steps == 6 and at(config, 'net') == {'name': 'unet', 'width': 24}


def test_an_option_of_the_name_before_is_refused():
  """Nothing said on the command line is dropped without a word."""
  for order in itertools.permutations(['--config.net.width=8', '--config.net.name=edm2', '--config.data.shape=(2,)']):
    config = override(START, order)
    assert config.net.width == 8
  with pytest.raises(ConfigError, match='train.optimiser.*momentum'):
    build(
      override(
        checked(dict(net=dict(name='mlp', width=8))),
        ['--config.train.optimiser.momentum=.9', '--config.train.optimiser.name=adam'],
      )
    )
