"""Fixtures that every room uses."""

import contextlib

import jax
import pytest

COMPILE = '/jax/core/compile/backend_compile_duration'


@pytest.fixture
def x64():
  """The whole test in float64: build processes and targets inside it."""
  with jax.enable_x64(True):
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
