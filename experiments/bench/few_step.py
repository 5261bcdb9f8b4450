"""What a step of each few-step method costs: forwards and backwards, counted, and whether its time is that count.

    python -m experiments.bench.few_step [--rounds=9] [consistency_training shortcut ...]

Every config of experiments/configs/fewstep with the digits' own network as its teacher; nothing is read from a run.
A forward is one of the student's network on the whole batch; a backward is what the gradient of one such forward adds.
Products of matrices and convolutions are counted: in the traced program, where the body of a loop counts as often as it
runs (`train.flops`), and, `XLA`, in the compiled one, where it counts once. A step that some phases sit out is the mean
over their period. Time: medians over rounds of the ratio to a denoising step of the same network and batch, told beside
the ratio of the two counts. Bound: time <= 1.1 x count.
"""

import argparse
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from diffjax import keys, losses
from diffjax.errors import InputError
from diffjax.methods import Parts
from diffjax.runs.config import ConfigDict, from_file
from diffjax.runs.experiment import Experiment, build
from diffjax.train import compiler
from diffjax.train.flops import flops
from diffjax.train.plan import counted
from diffjax.train.roles import Method, Phase, TrainState, active_phases
from diffjax.train.step import init_state, make_train_step
from experiments.bench.timing import compare

__all__ = ['CONFIGS', 'Count', 'batch_of', 'configs', 'cost', 'given_of', 'main', 'on_digits', 'unit']

CONFIGS = Path(__file__).parents[1] / 'configs'
SUFFIX = '_digits'
SOURCES = {'teacher': 'digits.py', 'base': 'fewstep/consistency_distillation_digits.py'}


class Count(NamedTuple):
  """Of a step: evaluations of the student's network, gradients of them, and the operations of both."""

  forwards: float
  backwards: float
  operations: float


def configs(names: list[str] | None = None) -> dict[str, Path]:
  """The configs of students of digits by the names of their files.

  Raises:
    InputError: one of the names is not there.
  """
  found = {path.stem.removesuffix(SUFFIX): path for path in sorted((CONFIGS / 'fewstep').glob(f'*{SUFFIX}.py'))}
  unknown = sorted(set(names or ()) - set(found))
  if unknown:
    raise InputError(f'methods: got {unknown[0]!r}; allowed: {", ".join(found)}')
  return {name: found[name] for name in names} if names else found


def on_digits(path: Path) -> Experiment:
  """What a config builds where the runs that it names are there: the demo, or a consistency model as a base."""
  return build(_with_sources(path))


def _with_sources(path: Path) -> ConfigDict:
  config = from_file(str(path))
  for field, source in SOURCES.items():
    if config[field].run:
      config[field].config = _with_sources(CONFIGS / source).to_dict()
  return config


def batch_of(parts: Parts, rows: int) -> dict[str, Any]:
  """The shapes of a batch."""
  batch: dict[str, Any] = {'x': parts.rows(rows)}
  if parts.classes:
    batch['cond'] = jax.ShapeDtypeStruct((rows,), jnp.int32)
  return batch | {name: jax.ShapeDtypeStruct((rows, *shape), jnp.float32) for name, shape in parts.others.items()}


def given_of(parts: Parts, method: Method) -> dict[str, Any]:
  """The shapes of the roles that a method loads."""
  return {role: parts.source(role, process=False).params for role in method.loads}


def unit(parts: Parts, rows: int) -> tuple[int, int]:
  """Operations of a forward and of a backward of the network on a batch."""
  params = jax.eval_shape(parts.init, jax.random.key(0))
  x, t, cond = jax.eval_shape(lambda: parts.inputs(rows))
  net: Any = parts.net
  forward = lambda params, x, t, cond: jnp.sum(net(params, x, t, cond) ** 2)  # noqa: E731
  one = flops(forward, params, x, t, cond)
  return one, flops(jax.grad(forward), params, x, t, cond) - one


def cost(method: Method, parts: Parts, given: Mapping[str, Any], batch: Mapping[str, Any]) -> Count:
  """The count of a mean step; `given` and `batch` are shapes."""
  rows = jax.tree.leaves(batch)[0].shape[0]
  key = jax.eval_shape(lambda: jax.random.key(0))
  own = jax.eval_shape(lambda key: keys.per_sample(key, rows), key)
  state = jax.eval_shape(partial(_state, method), dict(given), key, dict(batch))
  roles = {**state.roles, **state.buffers}
  forward, backward = unit(parts, rows)
  once = sum(flops(buffer.renew, roles, state.buffers[name], batch, key) for name, buffer in method.buffers.items())
  forwards, backwards = float(once), 0.0
  for phase in method.phases:

    def mean(moved: Any, rest: Any, batch: Any, key: Any, phase: Phase = phase) -> jax.Array:
      return jnp.mean(phase.loss({**rest, phase.role: moved}, batch, key)[0])

    there = flops(mean, roles[phase.role], roles, batch, own)
    both = flops(jax.value_and_grad(mean), roles[phase.role], roles, batch, own)
    forwards += there / phase.every
    backwards += (both - there) / phase.every
  return Count(forwards / forward, backwards / backward, forwards + backwards)


def _state(method: Method, given: Any, key: jax.Array, batch: Any) -> TrainState:
  roles = {**(method.init(key) if method.init else {}), **given}
  return init_state(method, roles, key, batch)


def period(method: Method) -> int:
  """After how many steps the same phases are due again."""
  return int(np.lcm.reduce([phase.every for phase in method.phases]))


def filled(shapes: Any, seed: int) -> Any:
  """Arrays of these shapes: small random weights, whole numbers below 10."""
  draws = np.random.default_rng(seed)

  def one(leaf: Any) -> jax.Array:
    if jnp.issubdtype(leaf.dtype, jnp.integer):
      return jnp.asarray(draws.integers(0, 2, leaf.shape), leaf.dtype)
    return jnp.asarray(0.1 * draws.standard_normal(leaf.shape), leaf.dtype)

  return jax.tree.map(one, shapes)


def program(method: Method, parts: Parts, rows: int) -> tuple[Any, float]:
  """What runs one period of steps, and the operations that XLA counts in a mean step."""
  shapes, due = batch_of(parts, rows), [active_phases(method, i) for i in range(period(method))]
  given, batch = filled(given_of(parts, method), 0), filled(shapes, 1)
  step = jax.jit(make_train_step(method), static_argnums=2, donate_argnums=0, compiler_options=compiler.training())
  state = [jax.jit(lambda given, key: _state(method, given, key, shapes))(given, jax.random.key(0))]
  compiled = {active: step.lower(state[0], batch, active).compile() for active in sorted(set(due))}
  operations = sum(counted(compiled[active]) for active in due) / len(due)

  def run() -> Any:
    for active in due:
      state[0], signals = compiled[active](state[0], batch)
    return signals['loss']

  return run, operations


def denoising(parts: Parts) -> Method:
  """The step of comparison: one network that learns to denoise."""
  loss = losses.denoising(parts.process, parts.net, parts.kind)
  return Method((Phase('student', loss, parts.optimiser()),), init=lambda key: {'student': parts.init(key)})


def row(name: str, experiment: Experiment, rounds: int) -> str:
  """A line of the table."""
  method, parts, rows = experiment.method, experiment.parts, experiment.config.train.batch
  own, plain = cost(method, parts, given_of(parts, method), batch_of(parts, rows)), denoising(parts)
  basis = cost(plain, parts, {}, batch_of(parts, rows))
  (base, base_operations), (ours, operations) = program(plain, parts, rows), program(method, parts, rows)
  times = compare({'denoising': base, name: ours}, rounds)[name]
  slower = times['wall_ratio'] / period(method)
  ratio = own.operations / basis.operations
  return (f'| {name} | {own.forwards:.2f} | {own.backwards:.2f} | {ratio:.2f} | {operations / base_operations:.2f} | '
          f'{slower:.2f} | {slower / ratio:.2f} |')  # fmt: skip


def main() -> None:
  parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
  parser.add_argument('methods', nargs='*')
  parser.add_argument('--rounds', type=int, default=9)
  options = parser.parse_args()
  try:
    found = configs(options.methods)
  except InputError as error:
    raise SystemExit(str(error)) from None
  print('| method | forwards | backwards | count / denoising | XLA / denoising | time / denoising | time / count |')
  print('|' + '---|' * 7)
  for name, path in found.items():
    try:
      print(row(name, on_digits(path), options.rounds), flush=True)
    except InputError as error:
      print(f'| {name} | not built: {error} |' + ' |' * 5, flush=True)


if __name__ == '__main__':
  main()
