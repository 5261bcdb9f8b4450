"""What README.md and the notebooks show is run: code, commands, names."""

import os
import re
import shlex
from pathlib import Path

import pytest

import diffjax
from diffjax.cli import main

pytestmark = pytest.mark.usefixtures('plain_pictures')
README = Path('README.md').read_text()


def blocks(language):
  return re.findall(rf'^```{language}\n(.*?)^```', README, re.S | re.M)


NETS = {
  'unet': ['--config.net.width=8', '--config.net.channel_mult=(1,)', '--config.net.attention=()'],
  'mlp': ['--config.net={"name": "mlp", "width": 16, "depth": 1}'],
}


def trained(workdir, net):
  """The demo's run after a few steps of a small network; its figures are of a part of the test split."""
  short = ['--config.train.steps=12', '--config.train.optimiser.warmup=2', '--config.train.batch=16', *NETS[net]]
  short += ['--config.evaluation.n=60']
  assert main(['train', '--config=experiments/configs/digits.py', f'--workdir={workdir}', *short]) == 0
  return str(workdir)


@pytest.fixture(scope='module', params=['mlp', pytest.param('unet', marks=pytest.mark.slow)])
def demo(request, tmp_path_factory):
  return trained(tmp_path_factory.mktemp('documents') / 'demo', request.param)


def test_python_blocks_run(capsys):
  for code in blocks('python'):
    exec(compile(code, 'README.md', 'exec'), {})
  assert '10 rows, 10 evaluations' in capsys.readouterr().out


def test_commands_run(demo, tmp_path):
  """Every diffjax command of the README on the demo's run, statistics and search with less; the pod's is only built."""
  commands = [shlex.split(line, comments=True) for block in blocks('sh') for line in block.splitlines()]
  less = {'--n=64': '--n=4', '--knots=8': '--knots=2', '--starts=32': '--starts=4', '--budget=20': '--budget=1'}
  less |= {'--method=gradient': '--method=boss'}
  ran = []
  for program, *arguments in filter(None, commands):
    if program != 'diffjax' or arguments[0] == 'train':
      continue
    arguments = [less.get(a, a).replace('runs/demo', demo).replace('=runs/', f'={tmp_path}/') for a in arguments]
    assert main(arguments) == 0, arguments
    ran.append(arguments[0])
  assert ran == ['evaluate', 'sample', 'statistics', 'search', 'sample', 'sample']
  assert {'samples.png', 'trajectory.png', 'report.json', 'samples.npz'} <= {p.name for p in Path(demo).iterdir()}
  assert all((tmp_path / name).exists() for name in ('three.png', 'six.npz', 'twenty.npz'))


def test_train_commands_name_configs_that_build():
  from diffjax.runs.config import from_file, override
  from diffjax.runs.experiment import build

  commands = [
    shlex.split(line) for block in blocks('sh') for line in block.splitlines() if line.startswith('diffjax train')
  ]
  assert len(commands) == 3
  for command in commands:
    path = next(a.removeprefix('--config=') for a in command if a.startswith('--config='))
    build(override(from_file(path), [a for a in command if a.startswith('--config.')]))
  assert all(Path(path).exists() for path in re.findall(r'--config=(experiments/\S+\.py)', README))


def test_scripts_and_pictures_are_there():
  for module in re.findall(r'python -m ([\w.]+)', README):
    if not module.endswith('NAME'):
      assert Path(module.replace('.', '/') + '.py').exists(), module
  for picture in re.findall(r'!\[.*?\]\((.*?)\)', README, re.S):
    assert Path(picture).exists(), picture
  makefile = Path('Makefile').read_text()
  for target in re.findall(r'^make ([\w-]+)', '\n'.join(blocks('sh')), re.M):
    assert re.search(rf'^{target}:', makefile, re.M), target


def test_load_gives_a_denoiser(demo):
  import jax

  from diffjax.solvers import dpmpp_2m, grids, sample

  denoise, process, config = diffjax.load(demo)
  x = jax.random.normal(jax.random.key(0), (4, *config.data.shape))
  out = sample(denoise, dpmpp_2m(process, grids.uniform(process, 3)), x, cond=jax.numpy.arange(4))
  assert out.shape == x.shape and bool(jax.numpy.isfinite(out).all())


def test_an_nnx_module_and_a_plain_function_enter_as_the_readme_says():
  """Both routes, with the same numbers in them, sample the same."""
  import jax
  import jax.numpy as jnp
  import numpy as np
  from flax import nnx

  from diffjax import kinds, schedules
  from diffjax.prediction import Denoiser, as_denoiser
  from diffjax.solvers import dpmpp_2m, grids, sample

  class Net(nnx.Module):
    def __init__(self, rngs):
      self.dense = nnx.Linear(3, 2, rngs=rngs)

    def __call__(self, x, t, cond):
      return self.dense(jnp.concatenate([x, t[:, None] / 1000], -1))

  graphdef, state = nnx.split(Net(nnx.Rngs(0)))

  def call(params, x, t, cond, key):
    return nnx.merge(graphdef, params)(x, t, cond)

  def function(x, t, cond):
    return call(state, x, 1000 * t, cond, None)

  process = schedules.cosine()
  solver = dpmpp_2m(process, grids.uniform(process, 4))
  x = jax.random.normal(jax.random.key(0), (5, 2))
  module = sample(Denoiser(state, process, kinds.v(), net=call), solver, x)
  plain = sample(as_denoiser(function, process, kind='v'), solver, x)
  assert float(jnp.abs(module).max()) > 0.1
  np.testing.assert_allclose(module, plain, rtol=1e-5, atol=1e-6)


def printed(stem):
  """What the cells of a notebook print."""
  import nbclient
  import nbformat

  notebook = nbformat.read(f'notebooks/{stem}.ipynb', 4)
  nbclient.NotebookClient(notebook, timeout=300, resources={'metadata': {'path': 'notebooks'}}).execute()
  return ''.join(o.get('text', '') for c in notebook.cells if c.cell_type == 'code' for o in c.outputs)


@pytest.mark.slow
def test_notebook_of_solvers_runs(demo, monkeypatch):
  import nbformat

  monkeypatch.setenv('DIFFJAX_RUN', str(Path(demo).absolute()))
  notebook = nbformat.read('notebooks/01_compose.ipynb', 4)
  flags = os.environ.get('XLA_FLAGS', '')
  monkeypatch.delenv('XLA_FLAGS', raising=False)  # the notebook asks for its devices where the user asks for nothing
  exec(notebook.cells[1].source.partition('import jax')[0], {})
  monkeypatch.setenv('XLA_FLAGS', f'{flags} {os.environ["XLA_FLAGS"]}')
  assert 12 <= sum(cell.cell_type == 'code' for cell in notebook.cells) <= 18
  text = printed('01_compose')
  assert 'programs compiled for the other three: 0' in text
  for where in ('pmap', 'mesh'):
    assert float(re.search(rf'{where}: (\S+)', text).group(1)) < 1e-4


@pytest.mark.slow  # its students are trained in test_progressive, test_consistency and test_mean_flow too
def test_notebook_of_few_steps_runs():
  """Each student in one step is twice as near to the data as the teacher, and most noise goes where it should."""
  text = printed('02_few_step')
  one = float(re.search(r'teacher: (\S+) @ 1', text).group(1))
  for name in ('halving', 'agreeing', 'from data'):
    assert float(re.search(rf'^{name}: ([\d.]+)', text, re.M).group(1)) <= one / 2, text
  assert float(re.search(r'sent to the same mode: (\S+)', text).group(1)) >= 0.8


@pytest.mark.slow  # its laws are those of test_mix, test_cfg, test_tilt
def test_notebook_of_guidance_runs():
  """Sampled means within .04 and variances within 10% of three closed forms, which are apart by more."""
  text = printed('03_guidance')
  for name in ('ODE', 'SDE', 'particles'):
    found = re.search(rf'^{name}: mean (\S+) of (\S+), variance (\S+) of (\S+)', text, re.M)
    mean, its, var, own = map(float, found.groups())
    assert abs(mean - its) < 0.04 and abs(var / own - 1) < 0.1, text
  narrowed = re.findall(r'variance (\S+) of (\S+), (\d+) evaluations instead of 240', text)
  assert len(narrowed) == 4
  for var, own, price in narrowed:
    assert abs(float(var) / float(own) - 1) < 0.1 and int(price) < 240
  assert abs(float(re.search(r'^autoguidance: .* mode (\S+)', text, re.M).group(1)) - 0.15) < 0.015
  law = {k: [float(v) for v in row.split()] for k, row in re.findall(r'^([\w, ]+): \[([\d. ]+)\]', text, re.M)}
  off = {k: sum(abs(a - b) for a, b in zip(law[k], law['exact'], strict=True)) / 2 for k in law}
  assert off['tilt, known'] < 0.04 < off['tilt, guessed'], off
  assert '\ncfg: 2 at level 1, 2 at 5' in text and 'interval, tilt: 2 at level 1, 1 at 5' in text


@pytest.mark.slow  # its methods are those of test_mixtures, test_feynman_kac and test_tree
def test_notebook_of_posteriors_runs():
  """AFDPS is nearer to the posterior than what approximates it; particles gain as the root of their number."""
  text = printed('04_posteriors_and_steering')
  off = {k: float(v) for k, v in re.findall(r'^([\w, ]+): shares off by (\S+)', text, re.M)}
  assert off['exact'] < 0.03 and off['AFDPS'] < min(off['DPS'], off['PiGDM'], off['PiGDM, exact']), text
  assert -0.75 <= float(re.search(r'K to the power (\S+)', text).group(1)) <= -0.3
  for reward, own in re.findall(r'^best of \d+: reward (\S+) of ([\d.-]+),', text, re.M):
    assert abs(float(reward) - float(own)) < 0.06
  cover, expected = map(float, re.search(r'coverage: (\S+) of (\S+)', text).groups())
  assert abs(cover - expected) < 0.07


def test_every_notebook_is_run():
  names = {'01_compose', '02_few_step', '03_guidance', '04_posteriors_and_steering'}
  assert {path.stem for path in Path('notebooks').glob('*.ipynb')} == names
