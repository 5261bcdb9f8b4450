"""diffjax profile as a user meets it: the seconds by what they went to, the operations by name, the run untouched."""

import pathlib
import re
import time

import pytest

from diffjax.cli import main
from diffjax.runs import examples

CONFIG = """
from ml_collections import ConfigDict

def get_config():
  c = ConfigDict()
  c.net = dict(name='mlp', width=256, depth=2)
  c.train = dict(steps=4, batch=32, save_every=4, optimiser=dict(name='adam', learning_rate=1e-2))
  return c
"""


@pytest.fixture(scope='module')
def trained(tmp_path_factory):
  path = tmp_path_factory.mktemp('run')
  (path / 'config.py').write_text(CONFIG)
  assert main(['train', f'--config={path}/config.py', f'--workdir={path}/run']) == 0
  return path


def files(path):
  return {file: file.read_bytes() for file in pathlib.Path(path).rglob('*') if file.is_file()}


def seconds(out, row):
  return float(re.search(rf'  {row}[^\n]* +([\d.]+) +[\d.]+\n', out)[1])


@pytest.mark.slow
def test_a_profile_leaves_the_run_as_it_is(trained, monkeypatch, capsys):
  """20 ms of sleep a batch are waits for data, most of the wall time; products are named, equal layers as one."""
  plain = examples.stream

  def sleepy(experiment, source):
    def batches(start):
      for batch in plain(experiment, source)(start):
        time.sleep(0.02)
        yield batch

    return batches

  monkeypatch.setattr(examples, 'stream', sleepy)
  before = files(trained)
  capsys.readouterr()
  assert main(['profile', f'--workdir={trained}/run', '--steps=20', '--config.loading.prefetch=0']) == 0
  out = capsys.readouterr().out
  after = files(trained)
  assert {file: after[file] for file in before} == before
  new = after.keys() - before.keys()
  assert all(trained / 'run' / 'profile' in file.parents for file in new)
  assert any(file.name.endswith('.xplane.pb') for file in new)
  waited, sum_ = seconds(out, 'waiting for data'), seconds(out, 'sum')
  assert 18 * 0.02 <= waited < sum_  # two batches were fetched before the first step ended
  parts = [seconds(out, row) for row in ('waiting', 'dispatching', 'logging', 'a checkpoint')]
  assert sum(parts) == pytest.approx(sum_, abs=0.003)
  assert re.search(r'dot_general\n', out) and 'hidden_*' in out and re.search(r'\d%', out)


def test_a_config_that_was_not_trained(trained, tmp_path, capsys):
  assert main(['profile', f'--config={trained}/config.py', f'--workdir={tmp_path}/new', '--steps=3']) == 0
  assert [file.name for file in (tmp_path / 'new').iterdir()] == ['profile']
  assert not (tmp_path / 'new' / 'profile' / 'run').exists()
  assert main(['profile', f'--workdir={trained}/run', '--steps=1']) == 2
  assert 'steps: got 1' in capsys.readouterr().err
