import os

import jax
import jax.numpy as jnp
import pytest

from diffjax.train import compiler


def double(x):
  return jnp.sum(jnp.outer(x, x) * 2)


def training(n=8):
  return compiler.training(lambda: jax.make_jaxpr(double)(jnp.zeros(n)))


def test_only_the_cpu_is_asked_for_anything(monkeypatch):
  assert compiler.once() and training()
  for platform in ('gpu', 'tpu'):
    monkeypatch.setattr(jax, 'default_backend', lambda platform=platform: platform)
    assert compiler.once() == training() == {}


def test_what_xla_does_not_know_is_left_out(monkeypatch):
  known = training().keys()
  monkeypatch.setitem(compiler.TRAINING, 'cpu', compiler.TRAINING['cpu'] | {'xla_cpu_no_such_option': 1})
  assert training().keys() == known


def test_every_option_is_known_to_this_version():
  """Where this fails XLA has dropped an option: measure again (experiments/bench/cpu.py) and choose anew."""
  for options in (compiler.ONCE['cpu'], compiler.TRAINING['cpu'], {compiler.PIECES['cpu']: compiler.PIECE}):
    jax.jit(lambda: 0, compiler_options=options).lower().compile()
  with pytest.raises(jax.errors.JaxRuntimeError):
    jax.jit(lambda: 0, compiler_options={'xla_cpu_no_such_option': 1}).lower().compile()


def test_a_piece_of_memory_holds_the_largest_array_inside_loops_too():
  def looped(x):
    return jax.lax.scan(lambda c, _: (c + jax.jit(double)(x), None), 0.0, None, length=3)[0]

  for function in (double, looped):
    assert compiler.largest(jax.make_jaxpr(function)(jnp.zeros(100)).jaxpr) == 4 * 100**2
  assert compiler.largest(jax.make_jaxpr(lambda x: x)(jnp.zeros(100)).jaxpr) == 0
  assert training(8)[compiler.PIECES['cpu']] == compiler.PIECE
  assert training(2000)[compiler.PIECES['cpu']] == 5 * 2000**2


def test_xla_warns_of_no_array_larger_than_its_piece(capfd):
  """As it does where the pieces are too small for a program that needs several."""

  def long(x, w):
    for _ in range(6):
      x = jnp.sin(x @ w)
    return jnp.sum(x**2)

  x, w = jnp.ones((1200, 1200)), jnp.ones((1200, 1200))
  step = jax.value_and_grad(long)
  options = compiler.training(lambda: jax.make_jaxpr(step)(x, w))
  made = jax.jit(step, compiler_options=options).lower(x, w).compile()
  assert made.memory_analysis().temp_size_in_bytes > options[compiler.PIECES['cpu']]
  assert 'per-heap' not in capfd.readouterr().err
  jax.jit(step, compiler_options=options | {compiler.PIECES['cpu']: 2**20}).lower(x, w).compile()
  assert 'per-heap' in capfd.readouterr().err


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
