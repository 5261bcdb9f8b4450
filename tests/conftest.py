"""Fixtures that every room uses."""

import atexit
import contextlib
import ctypes
import gc
import os
import shutil
import signal
import subprocess
import sys
import tempfile

QUICK = '--xla_cpu_use_fusion_emitters=false --xla_cpu_parallel_codegen_split_count=1'


def compile_quickly():
  """Most programs of the suite run once: XLA takes a quarter of the time where it optimises less.

  JAX_DISABLE_MOST_OPTIMIZATIONS=0 (make test-slow) tests the programs that users run. Commands in processes of their
  own inherit all of this, and the workers share their large programs.
  """
  if 'JAX_COMPILATION_CACHE_DIR' not in os.environ:
    os.environ['JAX_COMPILATION_CACHE_DIR'] = tempfile.mkdtemp(prefix='diffjax-programs-')
    atexit.register(shutil.rmtree, os.environ['JAX_COMPILATION_CACHE_DIR'], ignore_errors=True)
  if 'JAX_DISABLE_MOST_OPTIMIZATIONS' not in os.environ:  # which a worker finds set
    os.environ['JAX_DISABLE_MOST_OPTIMIZATIONS'] = '1'
    flags = dict(os.environ, XLA_FLAGS=f'{os.environ.get("XLA_FLAGS", "")} {QUICK}'.strip())
    known = subprocess.run([sys.executable, '-c', 'import jax; jax.devices()'], env=flags, capture_output=True)
    if known.returncode == 0:  # XLA ends a process that names an option which this version does not have
      os.environ.update(flags)


compile_quickly()
import jax  # noqa: E402
import pytest  # noqa: E402

COMPILE = '/jax/core/compile/backend_compile_duration'


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(config, items):
  """Of a test marked `quick` the instances that it does not name are slow; a name that is none of them is an error."""
  seen = {}
  for item in items:
    mark = item.get_closest_marker('quick')
    if mark is not None:
      seen.setdefault((item.path, item.originalname), (mark.args, set()))[1].add(item.callspec.id)
      if item.callspec.id not in mark.args:
        item.add_marker(pytest.mark.slow)
  for (path, name), (asked, there) in seen.items():
    if not there >= set(asked) and not any('::' in argument for argument in config.args):
      raise pytest.UsageError(f'{path}::{name}: quick{asked}; allowed: {sorted(there)}')


@pytest.fixture
def x64():
  """The whole test in float64: build processes and targets inside it."""
  with jax.enable_x64(True):
    yield


@pytest.fixture
def optimised():
  """Programs of this test are compiled as users' are: equality to the last bit is promised of these."""
  before = jax.config.values['jax_disable_most_optimizations']
  jax.config.update('jax_disable_most_optimizations', False)
  yield
  jax.config.update('jax_disable_most_optimizations', before)


@pytest.fixture(autouse=True)
def memory():
  """Compiled programs go where the process has grown large; till then those of one operation serve many modules."""
  yield
  if resident() > LIMIT:
    jax.clear_caches()
    gc.collect()
    with contextlib.suppress(OSError, AttributeError):  # glibc alone keeps what is freed
      ctypes.CDLL(None).malloc_trim(0)


def allowed():
  """Bytes a process may hold: an eighth of the machine's memory, and 1.5 GB at least."""
  try:
    return max(1.5e9, os.sysconf('SC_PHYS_PAGES') * os.sysconf('SC_PAGE_SIZE') / 8)
  except (OSError, ValueError):
    return 1.5e9


LIMIT = allowed()


def resident():
  """Bytes of this process in memory; 0 where the system does not say."""
  try:
    with open('/proc/self/statm') as file:
      return int(file.read().split()[1]) * os.sysconf('SC_PAGE_SIZE')
  except OSError:
    return 0


@pytest.fixture(scope='module', autouse=True)
def process_as_before():
  """No module leaves JAX, the environment or a handler otherwise than it found them."""
  before = settings()
  yield
  after = settings()
  options = {name: after[1].get(name) for name in before[1]}  # importing a package may define further ones
  assert (after[0], options, after[2]) == before


def settings():
  """What a process can be told, of what this package tells it."""
  variables = {name: value for name, value in os.environ.items() if name.startswith(('XLA', 'JAX', 'DIFFJAX'))}
  return variables, dict(jax.config.values), signal.getsignal(signal.SIGTERM)


@pytest.fixture(scope='module')
def plain_pictures():
  """Default margins: to measure every text takes as long as to draw it. tests/runs/test_plots.py has them laid out."""
  from diffjax.runs import plots

  laid_out = plots._figure

  def plain(*size):
    figure, canvas = laid_out(*size)
    figure.set_layout_engine('none')
    return figure, canvas

  with pytest.MonkeyPatch.context() as patch:
    patch.setattr(plots, '_figure', plain)
    yield


@pytest.fixture(scope='session')
def compile_log():
  """Grows by one for every program that the backend compiles."""
  log = []
  jax.monitoring.register_event_duration_secs_listener(lambda event, *_, **__: event == COMPILE and log.append(event))
  return log


@pytest.fixture
def compiles(compile_log):
  """`with compiles(n): ...` asserts that exactly n programs are compiled inside."""

  @contextlib.contextmanager
  def exactly(n):
    before = len(compile_log)
    yield
    assert len(compile_log) - before == n

  return exactly
