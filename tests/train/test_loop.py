import contextlib
import json
import logging
import os
import pathlib
import signal
import subprocess
import sys
import time

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import training_job as job
from training_job import arrays, batches, loss, run

from diffjax.train import optimiser
from diffjax.train.log import Log, read_csv
from diffjax.train.loop import NonFinite
from diffjax.train.roles import Method, Phase

SCRIPT = pathlib.Path(job.__file__)
ROOT = SCRIPT.parents[2]


def same(a, b):
  return all(np.array_equal(x, y) for x, y in zip(arrays(a), arrays(b), strict=True))


@pytest.fixture(scope='module')
def whole(tmp_path_factory):
  """A run of 20 steps that nothing disturbs."""
  workdir = tmp_path_factory.mktemp('whole')
  return run(workdir, config={'name': 'toy'}), workdir


def test_run_leaves_its_log(whole):
  fit, workdir = whole
  rows = read_csv(workdir / 'metrics.csv')
  assert [row['step'] for row in rows] == ['5', '10', '15', '20']
  assert float(rows[-1]['loss']) < float(rows[0]['loss']) and rows[0]['skipped'] == '0'
  assert {f'error_bin{i}' for i in range(8)} <= set(rows[0])
  assert int(fit.state.step) == 20 and fit.start == 0 and fit.steps_per_s > 0


def test_resume_is_bit_for_bit(whole, tmp_path):
  """Stopped after 13 of 20 steps, off the grid of the log and of the checkpoints, with batches ahead at hand."""
  fit, workdir = whole

  def broken(start):
    for i, batch in enumerate(batches(start), start):
      if i == 13:
        raise KeyboardInterrupt
      yield batch

  with pytest.raises(KeyboardInterrupt):
    run(tmp_path, batches=broken, prefetch=2)
  (tmp_path / 'metrics.csv').open('a').write('15,9.9,')  # a line cut off by a kill
  resumed = run(tmp_path, prefetch=4)
  assert resumed.start == 10 and same(resumed.state, fit.state)
  assert (tmp_path / 'metrics.csv').read_text() == (workdir / 'metrics.csv').read_text()


def test_finished_run_does_nothing(whole, capsys):
  fit, workdir = whole
  before = {file: file.stat().st_mtime_ns for file in workdir.rglob('*') if file.is_file()}
  again = run(workdir)
  assert 'finished: 20 of 20 steps' in capsys.readouterr().out
  assert again.start == 20 and same(again.state, fit.state)
  assert {file: file.stat().st_mtime_ns for file in workdir.rglob('*') if file.is_file()} == before


SCHEDULES = {
  'constant': dict(schedule='constant'),
  'inverse_sqrt': dict(schedule='inverse_sqrt', decay_from=4, warmup=2),
}


def of_rate(steps, **shape):
  return Method((Phase('student', loss, optimiser.adamw(steps, learning_rate=1e-2, **shape)),))


@pytest.mark.slow
@pytest.mark.parametrize('schedule, stopped', [('constant', 'broken'), ('inverse_sqrt', 'finished')])
def test_a_longer_run_goes_on_bit_for_bit(schedule, stopped, tmp_path):
  """13 steps, off the grid of the log, and on to 18: state and log are those of 18 steps at once.

  Of the log, a finished run has told the mean of its last three steps too. By the command: test_longer_runs.py.
  """
  shape = SCHEDULES[schedule]

  def broken(start):
    for i, batch in enumerate(batches(start), start):
      if i == 12 and stopped == 'broken':
        raise KeyboardInterrupt
      yield batch

  with pytest.raises(KeyboardInterrupt) if stopped == 'broken' else contextlib.nullcontext():
    run(tmp_path / 'raised', steps=13, method=of_rate(13, **shape), batches=broken)
  raised = run(tmp_path / 'raised', steps=18, method=of_rate(18, **shape))
  whole = run(tmp_path / 'whole', steps=18, method=of_rate(18, **shape))
  assert raised.start == {'finished': 13, 'broken': 10}[stopped] and same(raised.state, whole.state)
  rows, expected = (read_csv(tmp_path / name / 'metrics.csv') for name in ('raised', 'whole'))
  assert [row for row in rows if row['step'] != '13'] == expected


@pytest.mark.slow
def test_a_longer_run_under_another_schedule(tmp_path):
  """12 steps of a cosine to 0, then a constant rate: the run whose rate is those one after the other."""
  run(tmp_path, steps=12, method=of_rate(12, schedule='cosine'))
  then = Method((Phase('student', loss, optimiser.adamw(16, learning_rate=3e-3, schedule='constant')),))
  state = run(tmp_path, steps=16, method=then).state

  def rate(n):
    return jnp.where(n < 12, 1e-2 * (1 + jnp.cos(jnp.pi * n / 12)) / 2, 3e-3)

  rule = optax.adamw(rate, weight_decay=1e-2, mask=optimiser.decayed)
  whole = Method((Phase('student', loss, optax.chain(optax.clip_by_global_norm(1.0), rule)),))
  for a, b in zip(arrays(state.roles), arrays(run(steps=16, method=whole).state.roles), strict=True):
    np.testing.assert_allclose(a, b, rtol=0, atol=2e-5)


def test_another_config_is_refused(whole):
  _, workdir = whole
  other = Method((Phase('student', loss, optax.sgd(1e-2)),))
  with pytest.raises(ValueError, match='of another config: .*extra opt/student'):
    run(workdir, method=other)


def test_too_many_in_a_row_end_the_run(tmp_path):
  def poisoned(start):
    for i, batch in enumerate(batches(start), start):
      yield {'x': batch['x'] * np.float32('nan')} if i in (3, 4) or i >= 12 else batch

  with pytest.raises(NonFinite, match='not finite in 4 steps in a row, up to step 16; the checkpoint of step 10'):
    run(tmp_path, steps=40, batches=poisoned, max_skipped=4)
  rows = read_csv(tmp_path / 'metrics.csv')
  assert rows[0]['skipped'] == '2' and np.isfinite(float(rows[0]['loss']))
  good = run(tmp_path, steps=14)
  assert good.start == 10 and int(good.state.skipped) == 2


class Compiles(logging.Handler):
  """Names of the programs that XLA compiles while it listens."""

  def __enter__(self):
    self.names = []
    jax.config.update('jax_log_compiles', True)
    logging.getLogger('jax').addHandler(self)
    return self

  def emit(self, record):
    text = record.getMessage()
    if text.startswith('Finished XLA compilation of'):
      self.names.append(text.split()[4])

  def __exit__(self, *_):
    logging.getLogger('jax').removeHandler(self)
    jax.config.update('jax_log_compiles', False)


def test_compiled_once(tmp_path):
  """One program a distinct set of phases, however many steps, logs and checkpoints; the same after a restore."""
  two = Method(
    (Phase('student', loss, optax.sgd(1e-2)), Phase('student', loss, optax.sgd(1e-2), every=2, name='again'))
  )
  for steps in (12, 23):
    with Compiles() as seen:
      run(tmp_path, steps=steps, method=two)
    assert sum('step' in name for name in seen.names) == 2, seen.names
    assert sum('cut' in name for name in seen.names) <= 1, seen.names


def test_backend_compiles_do_not_grow_with_steps():
  """Counted by jax.monitoring: a run of 40 steps compiles as much as one of 10, all of it before the third step."""
  times = []
  jax.monitoring.register_event_duration_secs_listener(
    lambda name, *_, **__: (
      times.append(time.perf_counter()) if name == '/jax/core/compile/backend_compile_duration' else None
    )
  )
  marks = {}

  def marked(start):
    for i, batch in enumerate(batches(start), start):
      marks[i] = time.perf_counter()
      yield batch

  run(steps=40, batches=marked)
  late = [t for t in times if t > marks[8]]
  assert times and not late


@pytest.mark.slow
def test_profile(tmp_path):
  run(tmp_path, steps=6, profile=(3, 5))
  assert any((tmp_path / 'profile').rglob('*.xplane.pb'))


def test_batch_must_divide():
  with pytest.raises(ValueError, match='batch: got 16 rows; allowed: a multiple of .*accumulate = 3'):
    run(accumulate=3)


def launch(workdir, pause='0', steps='30'):
  command = [sys.executable, str(SCRIPT), 'fit', str(workdir), steps, pause]
  environment = {**os.environ, 'PYTHONPATH': str(ROOT)}
  return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment)


@pytest.mark.slow
def test_really_killed(tmp_path):
  """SIGTERM saves and exits 0; SIGKILL at any moment loses no more than the steps since; both end as if nothing was."""
  plain = run(tmp_path / 'plain', steps=30)
  killed = tmp_path / 'killed'
  process = launch(killed, pause='.05')
  for line in process.stdout:
    if line.startswith('batch 6'):
      process.send_signal(signal.SIGTERM)
      break
  process.communicate(timeout=60)
  assert process.returncode == 0
  saved = [int(folder.name) for folder in (killed / 'checkpoints').iterdir() if folder.name.isdigit()]
  assert len(saved) == 1 and 6 <= saved[0] <= 9 and not (killed / 'final.npz').exists()
  process = launch(killed, pause='.05')
  for line in process.stdout:
    if line.startswith('batch 2') and len(line) > 8:  # in the twenties, while or after step 20 is saved
      process.kill()
      break
  process.communicate(timeout=60)
  assert process.returncode == -signal.SIGKILL
  last = run(killed, steps=30)
  assert last.start >= saved[0] and same(last.state, plain.state)
  assert (tmp_path / 'plain' / 'metrics.csv').read_text() == (killed / 'metrics.csv').read_text()


def test_config_is_kept(whole):
  from diffjax.train.checkpoint import Checkpoints

  _, workdir = whole
  saver = Checkpoints(workdir / 'checkpoints')
  assert json.dumps(saver.read_config()) == '{"name": "toy"}'
  saver.close()


def test_save_that_fails_goes_on(tmp_path, monkeypatch):
  import orbax.checkpoint as ocp

  save = ocp.CheckpointManager.save

  def full(self, step, *args, **kwargs):
    if step == 10:
      raise OSError(28, 'No space left on device')
    return save(self, step, *args, **kwargs)

  monkeypatch.setattr(ocp.CheckpointManager, 'save', full)
  with pytest.warns(RuntimeWarning, match='checkpoint of step 10 not saved .*No space left'):
    fit = run(tmp_path)
  assert int(fit.state.step) == 20 and run(tmp_path).start == 20


def test_log_survives_a_full_disk(tmp_path, monkeypatch):
  """A line that could not be written is there with the next one."""
  log = Log(tmp_path, 0, 3, progress=False)
  log.write(1, {'loss': 1.0})
  with monkeypatch.context() as patch, pytest.warns(RuntimeWarning, match='metrics.csv not written'):
    patch.setattr(type(log.file), 'open', lambda *_: (_ for _ in ()).throw(OSError(28, 'No space left on device')))
    log.write(2, {'loss': 2.0})
  log.write(3, {'loss': 3.0})
  log.close()
  assert [(row['step'], row['loss']) for row in read_csv(tmp_path / 'metrics.csv')] == [
    ('1', '1'),
    ('2', '2'),
    ('3', '3'),
  ]


@pytest.mark.slow
def test_seconds_add_up_and_tell_a_slow_source(tmp_path):
  """Compile, train and save are the wall time to a tenth; 20 ms of sleep a batch show as waits."""

  def sleepy(start):
    for batch in batches(start):
      time.sleep(0.02)
      yield batch

  began = time.perf_counter()
  fit = run(tmp_path, steps=40, batches=sleepy, save_every=20)
  wall, spent = time.perf_counter() - began, fit.seconds
  assert sum(spent[part] for part in ('compile', 'train', 'save')) == pytest.approx(wall, rel=0.1)
  assert 37 * 0.02 <= spent['wait'] and spent['wait'] + spent['log'] < spent['train']
  assert min(spent['log'], spent['save']) > 0
  quick = run(steps=40, batches=batches).seconds
  assert quick['wait'] < 0.5 * spent['wait'] and quick['save'] < spent['save']
