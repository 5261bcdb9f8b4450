"""What a command sets of its process is taken back, however it ends; conftest.py asks the same of every module."""

import os
import signal
import subprocess
import sys

import jax
import pytest

from diffjax import cli
from diffjax.commands import process

OTHER = {
  'jax_platforms': 'cpu', 'jax_enable_compilation_cache': False, 'jax_compilation_cache_dir': '/nowhere',
  'jax_persistent_cache_min_compile_time_secs': 3.25, 'jax_persistent_cache_min_entry_size_bytes': 77,
}  # fmt: skip


def state():
  return dict(os.environ), dict(jax.config.values), signal.getsignal(signal.SIGTERM)


@pytest.mark.parametrize('end', [None, ValueError('n: got 0; allowed: 1'), KeyboardInterrupt()], ids=repr)
@pytest.mark.parametrize('flags', [None, '--xla_cpu_enable_fast_math=false'])
def test_all_is_as_before(end, flags, monkeypatch):
  """Every variable, setting and handler of the process, where a command changes all that it may."""

  def run(options, overrides):
    os.environ['XLA_FLAGS'] = '--xla_gpu_enable_command_buffer='
    for name, value in OTHER.items():
      jax.config.update(name, value)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    if end is not None:
      raise end

  monkeypatch.setattr(cli.COMMANDS['profile'], 'run', run)
  monkeypatch.delenv('XLA_FLAGS', raising=False)
  if flags is not None:
    monkeypatch.setenv('XLA_FLAGS', flags)
  before = state()
  assert process.SETTINGS == tuple(sorted(OTHER.keys() | {'jax_num_cpu_devices'}))
  try:
    cli.main(['profile', '--workdir=nowhere'])
  except BaseException as error:
    assert error is end
  assert state() == before


def test_the_number_of_devices_too_where_none_was_made():
  script = """
import jax
from diffjax.commands.process import as_before
before = jax.config.jax_num_cpu_devices
with as_before():
  jax.config.update('jax_num_cpu_devices', 3)
assert jax.config.jax_num_cpu_devices == before and jax.device_count() == 1
"""
  environment = {**os.environ, 'XLA_FLAGS': '', 'JAX_PLATFORMS': 'cpu'}
  subprocess.run([sys.executable, '-c', script], check=True, timeout=100, env=environment)
