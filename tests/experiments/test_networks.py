"""What the tables of networks and of UniDiffuser measure with, without a run."""

import json

import jax
import numpy as np
import pytest

from diffjax.cli import main
from diffjax.metrics import digits
from diffjax.nets import Apply, uvit
from diffjax.runs.config import ConfigError, from_file, override
from diffjax.runs.experiment import build
from experiments.tables import networks, unidiffuser

PAIRS = 'experiments/configs/unidiffuser_digits.py'


def test_without_skips_a_block_reads_the_one_before_alone():
  """Where the blocks themselves do nothing, what leaves the last is what the first was given."""
  net = Apply(uvit(depth=4, width=16, heads=2).module, ('in', 'out_block_1/out'))
  x, t = np.random.default_rng(0).standard_normal((2, 4, 4, 2)).astype('f4'), np.array([5.0, 700.0], 'f4')
  shapes = jax.eval_shape(net.init, jax.random.key(0), x, t)
  params = jax.tree.map(lambda s: np.random.default_rng(1).standard_normal(s.shape).astype('f4'), shapes)
  for name, part in params.items():
    if 'block' in name or name == 'middle':
      part |= jax.tree.map(np.zeros_like, {k: part[k] for k in ('attention', 'feed')})
  features = jax.jit(lambda p: networks.Unskipped(net)(p, x, t))(params)[1]
  np.testing.assert_array_equal(features['out_block_1/out'], features['in'])
  assert np.abs(jax.jit(net)(params, x, t)[1]['out_block_1/out'] - features['in']).max() > 0.1


def test_what_agrees():
  """The read of held-out digits is their label, but for the label network's own errors, below 3%."""
  (seen, _), (held, labels) = digits.load()
  one_hot = unidiffuser.one_hot(labels)
  assert unidiffuser.agreement('label', unidiffuser.read('label', held, seen), one_hot) > 0.97
  assert unidiffuser.agreement('label', one_hot, np.roll(one_hot, 1, 1)) == 0
  value = unidiffuser.read('projection', held, seen)
  assert unidiffuser.agreement('projection', value, value) == 1
  assert abs(unidiffuser.agreement('projection', 0 * value, value)) < 0.2  # of variance about 1, as on the seen ones
  assert unidiffuser.bars('label', {'other -> image': 0.9, 'image -> other': 0.9}) == {
    'other -> image': True,
    'image -> other': False,
  }


@pytest.mark.parametrize('change', ['net.name=dit', 'loss.name=denoising', 'data.shape=(8, 8, 1)'])
def test_several_modalities_need_their_network_and_loss(change):
  with pytest.raises(ConfigError, match=r'^config.(data.shape|method): got .*allowed'):
    build(override(from_file(PAIRS), [f'--config.{change}']))


def test_several_modalities_are_drawn_jointly():
  """From one key a sample of each."""
  experiment = build(override(from_file(PAIRS), ['--config.net.depth=2', '--config.net.width=16']))
  draw = lambda roles, keys: experiment.generator(roles)(keys)  # noqa: E731
  drawn = jax.eval_shape(draw, experiment.roles(), jax.random.split(jax.random.key(0), 3))
  assert {name: leaf.shape for name, leaf in drawn.items()} == {'image': (3, 8, 8, 1), 'label': (3, 10)}


@pytest.mark.slow
def test_commands_draw_several_modalities_jointly(tmp_path, capsys):
  """Each by its name, the first of them the same whatever the number; figures of all together and of each."""
  small = ['--config.net.depth=2', '--config.net.width=16', '--config.net.heads=2', '--config.train.steps=2',
           '--config.train.batch=8', '--config.sampling.steps=2', '--config.evaluation.n=24',
           '--config.mesh.cpu_devices=0', '--config.train.optimiser.warmup=0']  # fmt: skip
  assert main(['train', f'--config={PAIRS}', f'--workdir={tmp_path}/run', *small]) == 0
  for n in (3, 5):
    assert main(['sample', f'--workdir={tmp_path}/run', f'--n={n}', f'--out={tmp_path}/{n}']) == 0
  few, more = (np.load(f'{tmp_path}/{n}.npz') for n in (3, 5))
  assert few['image'].shape == (3, 8, 8, 1) and few['label'].shape == (3, 10)
  for name in few.files:
    np.testing.assert_allclose(few[name], more[name][:3], atol=1e-5)
  assert main(['evaluate', f'--workdir={tmp_path}/run']) == 0
  report = json.loads((tmp_path / 'run' / 'report.json').read_text())
  for name in ('sliced_wasserstein', 'sliced_wasserstein_of_image', 'sliced_wasserstein_of_label'):
    assert report[name] > 0 and report[f'{name}_floor'] > 0
  capsys.readouterr()
  assert main(['sample', f'--workdir={tmp_path}/run', '--seeds=0-3']) == 2
  assert 'data of several modalities; allowed: --n' in capsys.readouterr().err


def test_the_other_pair_is_of_its_config():
  assert build(from_file(f'{PAIRS}:projection')).shape == {'image': (8, 8, 1), 'projection': (16,)}
