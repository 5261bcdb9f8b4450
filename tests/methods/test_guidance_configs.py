"""The configs of guidance that build on runs, or are runs to build on: made from shapes."""

import jax
import pytest

from diffjax import methods
from diffjax.errors import InputError
from diffjax.runs import record
from diffjax.runs.config import from_file, override
from diffjax.runs.experiment import build

ROOM = 'experiments/configs/guidance'


@pytest.fixture(scope='module')
def home(tmp_path_factory):
  """Runs that are configs alone."""
  home = tmp_path_factory.mktemp('configs')
  small = ['--config.net.width=4']
  record.claim(f'{home}/digits', override(from_file('experiments/configs/digits.py'), small))
  record.claim(f'{home}/photographs', override(from_file(f'{ROOM}/sine_photograph.py:base'), small))
  return home


def test_a_control_branch_of_a_run(home):
  changes = ['--config.net.width=4', f'--config.base.run={home}/digits']
  experiment = build(override(from_file(f'{ROOM}/controlnet_digits.py'), changes))
  roles = experiment.roles()
  assert set(roles) == {'base', 'student'} and set(roles['student']) >= {'unet', 'zero_in', 'zero_0'}
  assert experiment.method.conditions == ('source',)
  assert experiment.generator(roles).nfe == experiment.config.sampling.steps


def test_a_run_tuned_on_one_photograph(home):
  changes = ['--config.net.width=4', f'--config.base.run={home}/photographs']
  experiment = build(override(from_file(f'{ROOM}/sine_photograph.py'), changes))
  roles = experiment.roles()
  assert jax.tree.map(lambda leaf: leaf.shape, roles['student']) == jax.tree.map(lambda leaf: leaf.shape, roles['base'])
  draw = experiment.generator(roles)
  assert 2 * draw.nfe < draw.cost < 3 * draw.nfe
  for message, options in {'label: got 2; allowed': dict(label=2), 'share: got 2.0; allowed': dict(share=2.0)}.items():
    with pytest.raises(InputError, match=message):
      methods.single_image(experiment.parts, **options)


def test_a_model_of_windows_and_their_lags():
  experiment = build(from_file(f'{ROOM}/tsdiff_series.py'))
  assert experiment.shape == (48, 2) and experiment.generator(experiment.roles()).nfe == 100
