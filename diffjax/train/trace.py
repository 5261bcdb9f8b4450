"""Reading what `jax.profiler` wrote."""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import jax

__all__ = ['Operation', 'Place', 'operations', 'places', 'sources']

INSTRUCTION = re.compile(r'^\s+(?:ROOT )?%?([\w.-]+) = ')
COMPUTATION = re.compile(r'^%?([\w.-]+) \(.*\{$')
PRODUCTS = ('dot_general', 'conv_general_dilated', 'dot', 'convolution')
HOLD = ('while', 'conditional', 'call')  # their time is that of what they hold


@dataclass
class Operation:
  """One operation of a compiled program: its name there, seconds on all devices and threads, and times it ran."""

  name: str
  seconds: float = 0.0
  times: int = 0


@dataclass
class Place:
  """What a program does at one place, in all layers that differ by a number alone."""

  source: str
  """'UNet/up0_*/conv_0/conv_general_dilated'; empty where the compiler does not say."""
  name: str
  """The operation there that took longest."""
  seconds: float = 0.0
  count: int = 0


def operations(file: Any) -> list[Operation]:
  """The operations in a trace (an .xplane.pb), those that took longest first; loops and branches by what they hold.

  CPU and GPU mark the events of operations by `hlo_op`; TPU keeps them on a line of its own.
  """
  found: dict[str, Operation] = {}
  for plane in jax.profiler.ProfileData.from_file(str(file)).planes:
    for line in plane.lines:
      for event in line.events:
        marked = dict(event.stats).get('hlo_op')
        if marked is None and line.name != 'XLA Ops':
          continue
        name = str(marked or event.name).split(' = ')[0].lstrip('%')
        if name.startswith(HOLD):
          continue
        operation = found.setdefault(name, Operation(name))
        operation.seconds += event.duration_ns / 1e9
        operation.times += 1
  return sorted(found.values(), key=lambda operation: -operation.seconds)


def sources(text: str) -> dict[str, str]:
  """What each instruction of compiled HLO was in the program before: 'UNet/up0_0/conv_0/conv_general_dilated'.

  A fusion is the product or convolution inside, where there is one, and else what it ends in.
  """
  inside: dict[str, list[str]] = {}
  found, computation = {}, ''
  for line in text.splitlines():
    if head := COMPUTATION.match(line):
      computation = head[1]
    elif instruction := INSTRUCTION.match(line):
      names = re.findall(r'op_name="([^"]*)"', line) or re.findall(r' (dot|convolution)\(', line)
      inside.setdefault(computation, []).extend(names)
      calls = re.search(r'calls=%?([\w.-]+)', line)
      names = inside.get(calls[1], []) + names if calls else names  # a computation stands before its callers
      products = [name for name in names if name.endswith(PRODUCTS)]
      if names:
        found[instruction[1]] = (products or names)[-1].removeprefix('jit(step)/')
  return found


def places(found: Iterable[Operation], known: Mapping[str, str]) -> list[Place]:
  """Operations, those that took longest first, added up by what `sources` says, for equal layers together.

  The number of the outermost layer that has one counts as any: block_0/feed/in is block_*/feed/in, but conv_0 and
  conv_1 within a numbered layer stay two. Operations of no known source go by their name without its number.
  """
  made: dict[str, Place] = {}
  for operation in found:
    source = re.sub(r'_\d+(?=/)', '_*', known.get(operation.name, ''), count=1)
    plain = re.sub(r'[._]\d+$', '', operation.name)
    place = made.setdefault(source or plain, Place(source, plain))
    place.seconds += operation.seconds
    place.count += 1
  return sorted(made.values(), key=lambda place: -place.seconds)
