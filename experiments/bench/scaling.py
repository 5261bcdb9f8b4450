"""What the compiled train step sends between devices, read from XLA's program: host CPU devices suffice.

    python -m experiments.bench.scaling [--devices=8] [--nets=dit,unet,uvit,edm2]

Compiles the step that `diffjax train` runs, for meshes that split data, parameters (fsdp), layers (model) or all of
them; prints every collective operation of a step, added up by kind, purpose and mesh axes, with the bytes that it
leaves on a device; and says what `objections` has against it.
"""

import argparse
import math
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from diffjax import losses, nets, schedules
from diffjax.errors import InputError
from diffjax.nets.magnitude import MP_KERNEL
from diffjax.train import ema, optimiser, rules, sharding
from diffjax.train.loop import abstract_state
from diffjax.train.roles import Method, Phase
from diffjax.train.step import jit_train_step

KINDS = ('all-reduce', 'all-gather', 'reduce-scatter', 'all-to-all', 'collective-permute')
BYTES = dict(pred=1, s8=1, u8=1, s16=2, u16=2, bf16=2, f16=2, s32=4, u32=4, f32=4, s64=8, u64=8, f64=8)
LINE = re.compile(rf'= (.*?) ({"|".join(KINDS)})(?:-start)?\(')
ROWS = 7  # of the batch, where it is split: as 7 divides no weight, shapes tell features from weights
NETS = dict(
  dit=nets.dit(depth=2, width=64, heads=4, classes=10),
  unet=nets.unet(width=32, channel_mult=(1, 2), blocks_per_level=1, attention=(4,), classes=10),
  uvit=nets.uvit(depth=2, width=64, heads=4, classes=10),
  edm2=nets.edm2(width=32, channel_mult=(1, 2), blocks_per_level=1, attention=(4,), head_dim=16, classes=10),
)


@dataclass(frozen=True)
class Collective:
  """One operation: the shapes it leaves on a device, the mesh axes over which devices take part, where it came from."""

  kind: str
  shapes: tuple[tuple[str, tuple[int, ...]], ...]
  axes: frozenset[str]
  source: str

  def sent(self) -> list[tuple[str, int]]:
    """(purpose, bytes) of each shape: 'features', rows of 'labels', 'weights' or their gradients, and 'numbers'."""
    sizes = [(math.prod(shape), BYTES[dtype]) for dtype, shape in self.shapes]
    of = 'labels' if '/label/' in self.source else 'features'
    what = lambda n: 'numbers' if n <= 8 else 'weights' if n % ROWS else of  # noqa: E731
    return [(what(n), n * width) for n, width in sizes]


def collectives(text: str, mesh: Any) -> list[Collective]:
  """Every collective of a compiled program, the body of a loop once; mesh axes of one device send nothing."""
  found = []
  for line in re.sub(r'/\*.*?\*/', '', text).splitlines():
    if match := LINE.search(line):
      shapes = re.findall(r'(\w+)\[([\d,]*)\]', match[1])
      sizes = tuple((dtype, tuple(map(int, filter(None, size.split(','))))) for dtype, size in shapes if dtype in BYTES)
      name = re.search(r'op_name="([^"]*)"', line)
      found.append(Collective(match[2], sizes, _axes(line, mesh), name[1] if name else ''))
  return [c for c in found if c.axes]


def _axes(line: str, mesh: Any) -> frozenset[str]:
  """The mesh axes along which the devices of a group differ."""
  places = np.stack(np.unravel_index(groups_of(line), tuple(mesh.shape.values())))  # (axes, groups, members)
  return frozenset(name for name, at in zip(mesh.shape, places, strict=True) if np.any(at != at[:, :1]))


def groups_of(line: str) -> np.ndarray:
  """(groups, members): the devices that take part together, in any of the ways in which XLA writes them."""
  ints = lambda text: [int(n) for n in re.findall(r'\d+', text)]  # noqa: E731
  if pairs := re.search(r'source_target_pairs=\{(.*?)\}\}', line):
    return np.reshape(ints(pairs[1]), (-1, 2))
  if listed := re.search(r'replica_groups=\{\{(.*?)\}\}', line):
    return np.array([ints(group) for group in listed[1].split('},{')])
  if counted := re.search(r'replica_groups=\[([\d,]+)\]<=\[([\d,]+)\](?:T\(([\d,]+)\))?', line):
    return _iota(ints(counted[2]), ints(counted[3] or '')).reshape(ints(counted[1]))
  named = re.search(r'replica_groups=mesh\[(.*?)\](?:, device_ids=\(\[([\d,]+)\](?:T\(([\d,]+)\))?\))? \{(.*?)\}', line)
  if named is None:
    raise InputError(f'program: got the collective {line.strip()[:200]}; allowed: replica groups as XLA wrote them')
  sizes = {name: int(size) for name, size in re.findall(r"'(\w+)'=(\d+)", named[1])}
  devices = _iota(ints(named[2] or str(math.prod(sizes.values()))), ints(named[3] or ''))
  shape, taking = [], []
  for name, size in sizes.items():
    before, part = 1, 1
    if found := re.search(rf"'{name}'(?::\((\d+)\)(\d+))?", named[4]):
      before, part = (int(found[1]), int(found[2])) if found[1] else (1, size)
    shape += [before, part, size // before // part]
    taking.append(len(shape) - 2)
  devices = devices.reshape(shape)
  return np.moveaxis(devices, taking, range(-len(taking), 0)).reshape(-1, math.prod(shape[i] for i in taking))


def _iota(shape: list[int], order: list[int]) -> np.ndarray:
  devices = np.arange(math.prod(shape)).reshape(shape)
  return devices.transpose(order) if order else devices


def step_of(net: Any, mesh: Any, rows: int | None = None, min_fsdp_size: int = 2**10) -> tuple[Any, Any, Any]:
  """The compiled train step of a network of 8 x 8 images with labels, what makes its state, and that state's shapes."""
  inputs = (jnp.zeros((1, 8, 8, 1)), jnp.zeros(1), jnp.zeros(1, jnp.int32))
  layout = rules.layout(net.axes(*inputs))
  loss = losses.denoising(schedules.cosine(), net, drop_cond=0.1, null=10)
  method = Method((Phase('student', loss, optimiser.adam(100, eps=1e-3)),))
  averages = ema.averages((0.99,))
  rows = rows or ROWS * mesh.shape['data'] * mesh.shape['fsdp']
  batch = {'x': jax.ShapeDtypeStruct((rows, 8, 8, 1), jnp.float32), 'cond': jax.ShapeDtypeStruct((rows,), jnp.int32)}
  init = lambda key: {'student': net.init(key, *inputs)}  # noqa: E731
  key = jax.random.key(0)
  make, target = abstract_state(method, init, key, batch, mesh, averages, layout=layout, min_fsdp_size=min_fsdp_size)
  split = lambda s: jax.ShapeDtypeStruct(s.shape, s.dtype, sharding=sharding.batch_sharding(mesh))  # noqa: E731
  step = jit_train_step(method, target, averages, layout=layout)
  return step.lower(target, jax.tree.map(split, batch), (0,)).compile(), make, target


def totals(found: Sequence[Collective]) -> Counter:
  """(kind, purpose, mesh axes) -> bytes."""
  total: Counter = Counter()
  for one in found:
    for purpose, size in one.sent():
      total[one.kind, purpose, one.axes] += size
  return total


def objections(found: Sequence[Collective], target: Any) -> list[str]:
  """What a step without loops sends beyond what it must; empty where all is as it should be.

  data: every gradient is summed once, nothing else. fsdp: beside that, each weight it splits is gathered, at most twice
  (forward and backward); of a table of labels the rows may move in its place; of a weight whose norm the network
  divides out, two numbers an output may be added up, one a pass. model: features are summed or moved along model alone,
  by whatever operation, weights that it splits never. A weight that model leaves whole XLA gathers by a detour over
  model, so its bytes may be counted three times.
  """
  sent = totals(found)
  mesh = jax.tree.leaves(target)[0].sharding.mesh
  named = jax.tree.leaves_with_path(target.roles['student'])
  leaves = [(jax.tree_util.keystr(path), 4 * leaf.size, set(leaf.sharding.spec), leaf.shape) for path, leaf in named]
  on_device = lambda size, spec: size // (mesh.shape['model'] if 'model' in spec else 1)  # noqa: E731
  bytes_of = lambda which: sum(on_device(size, spec) for path, size, spec, _ in leaves if which(path, spec))  # noqa: E731
  gradients = bytes_of(lambda path, spec: 'fourier' not in path)  # which the network never trains
  gathered = bytes_of(lambda path, spec: 'fsdp' in spec)
  detour = 3 * sum(size for _, size, spec, _ in leaves if 'fsdp' in spec and 'model' not in spec)
  norms = 2 * sum(4 * shape[-1] for path, _, spec, shape in leaves if MP_KERNEL in path and 'fsdp' in spec)
  moving = any(purpose == 'labels' and 'fsdp' in axes for _, purpose, axes in sent)
  tables = bytes_of(lambda path, spec: 'label' in path and 'fsdp' in spec) if moving else 0
  rows = frozenset(axis for axis in ('data', 'fsdp') if mesh.shape[axis] > 1)
  said, summed = [], 0
  numbers = sum(size for (_, purpose, _), size in sent.items() if purpose == 'numbers')
  for (kind, purpose, axes), size in sent.items():
    text = f'{size} bytes of {purpose} by {kind} over {" and ".join(sorted(axes))}'
    adds = kind in ('all-reduce', 'reduce-scatter')
    if purpose == 'features' and axes != {'model'}:
      said.append(text)
    elif purpose == 'weights' and 'model' in axes and size > (detour if mesh.shape['model'] > 1 else 0):
      said.append(text)
    elif purpose == 'weights' and 'model' not in axes and not adds and (axes != {'fsdp'} or size > 2 * gathered):
      said.append(text)
    elif purpose == 'weights' and 'model' not in axes and adds and (axes == rows or 'fsdp' in axes):
      summed += size
  both = mesh.shape['fsdp'] > 1 and mesh.shape['model'] > 1  # gradients of what model leaves whole may come in parts
  if summed > gradients + norms or (summed + numbers < gradients - tables and not both):
    said.append(f'{summed} bytes of gradients summed, of {gradients} there are')
  return said


def meshes(devices: int) -> dict[str, dict[str, int]]:
  """The four ways to split, on so many devices, a multiple of 8."""
  return {
    'data': dict(data=devices, fsdp=1, model=1),
    'fsdp': dict(data=devices // 8, fsdp=8, model=1),
    'model': dict(data=devices // 4, fsdp=1, model=4),
    'mixed': dict(data=devices // 4, fsdp=2, model=2),
  }


def main():
  parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
  parser.add_argument('--devices', type=int, default=8, help='a multiple of 8')
  parser.add_argument('--nets', default=','.join(NETS), help=', '.join(NETS))
  options = parser.parse_args()
  jax.config.update('jax_platforms', 'cpu')
  jax.config.update('jax_num_cpu_devices', options.devices)
  for name in options.nets.split(','):
    for way, sizes in meshes(options.devices).items():
      step, _, target = step_of(NETS[name], sharding.make_mesh(**sizes))
      mesh = jax.tree.leaves(target)[0].sharding.mesh
      found = collectives(step.as_text(), mesh)
      print(f'\n{name}, {way}: ' + ', '.join(f'{axis} {size}' for axis, size in sizes.items()))
      number = Counter((one.kind, purpose, one.axes) for one in found for purpose in {p for p, _ in one.sent()})
      for (kind, purpose, axes), size in sorted(totals(found).items(), key=lambda item: -item[1]):
        print(
          f'  {number[kind, purpose, axes]:4} {kind:19}{purpose:9} over {" and ".join(sorted(axes)):14}{size:9} bytes'
        )
      print('  ' + ('; '.join(objections(found, target)) or 'as it should be'), flush=True)


if __name__ == '__main__':
  main()
