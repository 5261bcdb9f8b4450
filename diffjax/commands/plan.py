"""diffjax train --dry_run: what a run needs of each device, told without data, an accelerator or a file written."""

import argparse
import inspect
import math
import time
from collections.abc import Sequence
from typing import Any

from diffjax.commands.start import mesh_of
from diffjax.errors import InputError
from diffjax.runs.config import refused

__all__ = ['run']

ROWS = 12  # of the table of parameters, before the tail is summed up
KNOBS = dict(remat=True, dtype='bfloat16')  # of networks, against activations


def run(options: argparse.Namespace, overrides: Sequence[str]) -> None:
  """Tell the shardings, memory and FLOPs of a step.

  Raises:
    InputError: a device needs more than `--memory`.
  """
  from diffjax.runs import config as configs

  config = configs.override(configs.from_file(options.config), overrides)
  from diffjax.train import plan, sharding

  sizes = [abs(config.mesh[axis]) for axis in sharding.AXES]
  _pretend(options.devices or config.mesh.cpu_devices or math.prod(sizes))
  from diffjax.runs import directory as runs
  from diffjax.runs.experiment import build, count

  experiment = build(config)
  c, mesh = experiment.config, mesh_of(config)
  refused('train.batch', sharding.check_batch, mesh, c.train.batch, c.train.accumulate)
  state, batch = runs.state_of(experiment, mesh), runs.batch_of(experiment, mesh)
  rows = c.train.batch // mesh.shape['data'] // mesh.shape['fsdp']
  axes = ', '.join(f'{axis}={size}' for axis, size in mesh.shape.items())
  print(f'{options.config}: {mesh.size} devices, mesh {axes}; batch {c.train.batch}, {rows} examples a device\n')
  _tell_parameters(state.roles, count(state.roles))
  rest = state.replace(roles=(), opt=(), ema=())
  parts = dict(parameters=state.roles, optimiser=state.opt, averages=state.ema, batch=batch, counters=rest)
  needs = {name: plan.bytes_per_device(tree) for name, tree in parts.items()}
  print(f'\n{"memory, from shapes and shardings":46}{"MiB in all":>14}{"a device":>12}')
  for name, tree in parts.items():
    print(f'  {name:44}{_mib(plan.bytes_in_all(tree), 14)}{_mib(needs[name])}')
  print(f'  {"sum":44}{_mib(plan.bytes_in_all(list(parts.values())), 14)}{_mib(sum(needs.values()))}')
  traced = _trace(experiment, mesh)
  _check(options.memory, needs, c)
  if options.dry_run == 'compiled':
    needs['activations'] = _compile(traced, mesh)
    print(f'  {"sum with the above":58}{_mib(sum(needs.values()))}')
    _check(options.memory, needs, c)


def _pretend(devices: int) -> None:
  """Cut the host's CPU into so many devices, whatever accelerators there are, and keep no compiled program."""
  import jax

  jax.config.update('jax_platforms', 'cpu')
  jax.config.update('jax_enable_compilation_cache', False)
  try:
    jax.config.update('jax_num_cpu_devices', devices)
  except RuntimeError:  # JAX has started: the devices are what they are
    if jax.device_count() != devices:
      raise InputError(f'devices: got {devices}; allowed: {jax.device_count()}, since JAX runs already') from None


def _tell_parameters(roles: Any, count: int) -> None:
  """The table of shardings: leaves of one shape and sharding in a row, the most bytes first."""
  from diffjax.train import plan

  found = plan.groups(roles)
  print(f'{f"{count:,} parameters":58}{"split over":>18}{"leaves":>7}{"MiB in all":>12}{"a device":>12}')
  for group in found[:ROWS]:
    path = group.path.removeprefix('student/')
    split = ' '.join('-' if axis is None else str(axis) for axis in group.spec) or 'whole'
    print(f'  {path[-35:]:36}{" x ".join(map(str, group.shape)):20}{split:>18}{group.leaves:7}'
          f'{_mib(group.bytes_in_all)}{_mib(group.bytes_per_device)}')  # fmt: skip
  if tail := found[ROWS:]:
    leaves, whole, each = (sum(getattr(g, k) for g in tail) for k in ('leaves', 'bytes_in_all', 'bytes_per_device'))
    print(f'  {f"{len(tail)} smaller groups":74}{leaves:7}{_mib(whole)}{_mib(each)}')


def _trace(experiment: Any, mesh: Any) -> Any:
  """The train step traced, with its FLOPs told."""
  from diffjax.runs import directory as runs
  from diffjax.train import compiler, flops

  traced = runs.traced_step(experiment, mesh, compiler.once())
  work = flops.count(traced.jaxpr.jaxpr)
  print(f'\nFLOPs of a step: {work:.4g} in all, {work / mesh.size:.4g} a device where they split evenly\n'
        '  (products and convolutions as traced: rematerialised ones too, loop bodies as often as they run)',
        flush=True)  # fmt: skip
  return traced


def _compile(traced: Any, mesh: Any) -> int:
  """The step compiled ahead of time, with what the compiler counts told; bytes of a device beside its arguments."""
  from diffjax.train import plan

  began = time.perf_counter()
  compiled = traced.lower().compile()
  took, temporary = time.perf_counter() - began, plan.temporary(compiled)
  print(f'\ncompiled for {mesh.size} CPU devices in {took:.0f} s\n'
        f'  {"activations and gradients":58}{_mib(temporary)}\n'
        '  (as the CPU backend plans them: it may widen bfloat16, other backends fuse more; an estimate for those)\n'
        f'  FLOPs of a device that XLA counts: {plan.counted(compiled):.4g}\n'
        '  (element-wise work too, but the body of a loop, over layers or microbatches, once)')  # fmt: skip
  return temporary


def _check(memory: float | None, needs: dict[str, int], config: Any) -> None:
  """Raises InputError where a device has less memory than is needed, and says what lowers the need."""
  from diffjax import nets

  need = sum(needs.values()) / 2**30
  if memory is None or need <= memory:
    return
  held = (sum(needs.values()) - needs.get('activations', 0)) / 2**30
  if held > need / 2:
    most, knobs = f'{held:.2f} are parameters, optimiser and averages', f'config.mesh.fsdp above {config.mesh.fsdp}'
  else:
    most = f'{need - held:.2f} are activations and gradients'
    takes = inspect.signature(getattr(nets, config.net.name)).parameters
    better = [
      f'config.net.{k}={v}' for k, v in KNOBS.items() if k in takes and config.net.get(k) in (None, False, 'float32')
    ]
    knobs = ' or '.join([*better, f'config.train.accumulate above {config.train.accumulate}'])
  raise InputError(f'memory: got {memory:g} GiB a device; allowed: at least {need:.2f}, {need - memory:.2f} more; '
                   f'{most}, which {knobs} would lower')  # fmt: skip


def _mib(size: int, width: int = 12) -> str:
  return f'{size / 2**20:{width},.1f}'
