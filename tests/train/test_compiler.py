import os

import jax
import pytest

from diffjax.train import compiler


def test_only_the_cpu_is_asked_for_anything(monkeypatch):
  assert compiler.once() and compiler.training()
  for platform in ('gpu', 'tpu'):
    monkeypatch.setattr(jax, 'default_backend', lambda platform=platform: platform)
    assert compiler.once() == compiler.training() == {}


def test_what_xla_does_not_know_is_left_out(monkeypatch):
  monkeypatch.setitem(compiler.TRAINING, 'cpu', compiler.TRAINING['cpu'] | {'xla_cpu_no_such_option': 1})
  assert compiler.training().keys() == compiler.TRAINING['cpu'].keys() - {'xla_cpu_no_such_option'}


def test_every_option_is_known_to_this_version():
  """Where this fails XLA has dropped an option: measure again (experiments/bench/cpu.py) and choose anew."""
  for options in (compiler.ONCE['cpu'], compiler.TRAINING['cpu']):
    jax.jit(lambda: 0, compiler_options=options).lower().compile()
  with pytest.raises(jax.errors.JaxRuntimeError):
    jax.jit(lambda: 0, compiler_options={'xla_cpu_no_such_option': 1}).lower().compile()


@pytest.mark.parametrize(
  'given, flags',
  [
    ('', '--xla_gpu_enable_command_buffer='),
    ('--xla_a=1', '--xla_a=1 --xla_gpu_enable_command_buffer='),
    ('--xla_gpu_enable_command_buffer=FUSION', '--xla_gpu_enable_command_buffer=FUSION'),
  ],
)
def test_operations_are_named_unless_the_user_chose(monkeypatch, given, flags):
  monkeypatch.setenv('XLA_FLAGS', given)
  for _ in range(2):
    compiler.named_operations()
    assert os.environ['XLA_FLAGS'] == flags
