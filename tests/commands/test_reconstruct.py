"""`diffjax evaluate` and `diffjax sample` with an observation: figures of true posteriors, files, refusals."""

import json

import jax
import numpy as np
import pytest

from diffjax import inverse
from diffjax.cli import main
from diffjax.errors import InputError
from diffjax.runs import config as configs
from diffjax.runs import posterior
from diffjax.runs.experiment import build

CONFIG = """
from ml_collections import ConfigDict

def get_config():
  c = ConfigDict()
  c.data = dict(name='npz', path='{path}', shape=(4, 4, 2), classes=3)
  c.process = dict(name='cosine')
  c.net = dict(name='mlp', width=8, depth=1)
  c.train = dict(steps=1, batch=16, optimiser=dict(name='adam', learning_rate=1e-3))
  c.sampling = dict(solver='ddim', grid='uniform', steps=3, guidance=('pigdm',), observation=dict(name='downsample'))
  c.evaluation = dict(n=6, draws=3)
  return c
"""


def test_the_figures_of_a_true_posterior():
  """Draws of the exact posterior of N(0, I): coverage (K - 1) / (K + 1), misfit and PSNR by closed form."""
  n, count, r2 = 4000, 4, 0.25
  rng = np.random.default_rng(0)
  x = rng.standard_normal((n, 2)).astype(np.float32)
  seen = inverse.unseen(inverse.matrix((2,), [[1.0, 0.0]]), inverse.gaussian(r2**0.5))
  y = (x[:, :1] + r2**0.5 * rng.standard_normal((n, 1))).astype(np.float32)
  z = rng.standard_normal((n, count, 2))
  draws = z * [np.sqrt(r2 / (1 + r2)), 1] + y[:, None] * [1 / (1 + r2), 0]
  found = posterior.figures(seen, x, y, draws.astype(np.float32))
  assert abs(found['coverage']['value'] - 0.6) < 4 * np.sqrt(0.24 / n)
  assert found['coverage']['expected'] == 0.6
  assert abs(found['misfit'] - 1) < 4 / np.sqrt(2 * n)  # draws of the posterior miss y as x does
  assert found['psnr']['mean']['value'] > found['psnr']['draw']['value'] + 1
  first = 10 * np.log10(4 / ((draws[:, 0] - x) ** 2).mean(1))
  np.testing.assert_allclose(found['psnr']['draw']['value'], first.mean(), rtol=1e-4)


@pytest.fixture(scope='module')
def run(tmp_path_factory):
  path = tmp_path_factory.mktemp('reconstruct')
  for split, n in (('train', 30), ('test', 12)):
    x = np.random.default_rng(0).uniform(-1, 1, (n, 4, 4, 2)).astype(np.float32)
    np.savez(path / f'{split}.npz', x=x, y=np.arange(n) % 3)
  config, workdir = path / 'config.py', str(path / 'run')
  config.write_text(CONFIG.format(path=path / '{split}.npz'))
  assert main(['train', f'--config={config}', f'--workdir={workdir}']) == 0
  return workdir


def test_evaluate_reconstructs_held_out_images(run, capsys):
  assert main(['evaluate', f'--workdir={run}']) == 0
  said = capsys.readouterr().out
  assert 'PSNR of mean' in said and '6 examples, 3 evaluations a draw' in said
  report = json.loads(open(f'{run}/report.json').read())
  assert report['cost'] == 6 and report['coverage']['expected'] == 0.5 and report['observation']['name'] == 'downsample'
  with np.load(f'{run}/reconstructions.npz') as saved:
    held, seen, draws = saved['held'], saved['observed'], saved['draws']
  assert held.shape == (6, 4, 4, 2) and seen.shape == (6, 2, 2, 2) and draws.shape == (6, 3, 4, 4, 2)
  blocks = held.reshape(6, 2, 2, 2, 2, 2).mean((2, 4))
  assert 0 < np.abs(seen - blocks).std() < 0.2  # the noise of .05
  assert (draws.std(1) > 0).all()


def test_sample_is_told_what_is_seen_of_held_out_images(run):
  """Sample k of the k-th: with a prior that says nothing and little noise the sample shows y."""
  some = ['sample', f'--workdir={run}', '--n=4', f'--out={run}/drawn', '--config.sampling.observation.noise.std=0.01',
          '--config.sampling.observation.noise.name=gaussian', '--config.sampling.guidance=("proximal",)']  # fmt: skip
  assert main(some) == 0
  with np.load(f'{run}/drawn.npz') as saved, np.load(f'{run}/../test.npz') as test:
    drawn, held = saved['samples'], test['x'][:4]
  assert drawn.shape == (4, 4, 4, 2)
  blocks = lambda x: x.reshape(4, 2, 2, 2, 2, 2).mean((2, 4))  # noqa: E731
  assert np.abs(blocks(drawn) - blocks(held)).max() < 0.3 < np.abs(blocks(drawn)).max()


@pytest.mark.parametrize(
  'overrides, message',
  [
    (["guidance=('dps',)"], 'config.sampling.observation: got none with guidance dps; allowed with it: blur'),
    (['observation=mask'], 'config.sampling.guidance: got none that reads config.sampling.observation = mask'),
    (["guidance=('dps',)", 'observation=masks'], "config.sampling.observation.name: there is no 'masks'"),
    (["guidance=('dps',)", 'observation=downsample', 'observation.factor=3'], 'factor: got 3; allowed'),
    (["guidance=('dps',)", 'observation=mask', 'observation.noise=uniform'], "observation.noise.name: there is no"),
    (["guidance=({'name':'pigdm','covariance':'full'},)", 'observation=mask'], "covariance: got 'full'"),
  ],
)  # fmt: skip
def test_refusals(overrides, message):
  config = configs.override(configs.checked(dict(net=dict(name='mlp', width=8, depth=1))),
                            [f'--config.sampling.{o}' for o in overrides])  # fmt: skip
  with pytest.raises(InputError) as refused:
    build(config)
  assert message in str(refused.value) and '\n' not in str(refused.value)


def test_an_observation_composes_with_guidance():
  """CFG inside or outside of the posterior method: both are told y, and the cost is that of both."""
  from diffjax import guidance

  config = configs.checked(dict(
    net=dict(name='mlp', width=8, depth=1), loss=dict(name='denoising', kind='v', drop_cond=0.1),
    sampling=dict(observation='grey', guidance=(dict(name='cfg', scale=2.0), 'pigdm'))))  # fmt: skip
  experiment = build(config)
  roles = {'student': experiment.init(jax.random.key(0))['student']}
  guided = experiment.guided(experiment.denoiser(roles), roles)
  assert guidance.cost(guided, 0.5) == 4
  y = np.zeros((2, 8, 8, 1), np.float32)
  pred = guided(y + 0.5, 0.5, posterior.told(np.array([1, 2], np.int32), y))
  assert np.isfinite(pred.x0).all()
