"""The rows of the few-step table: every student of digits that has a config, and the same method on the ring."""

from collections.abc import Mapping
from inspect import signature
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np

from diffjax import kinds, methods, nets, schedules
from diffjax.errors import InputError
from diffjax.exact import Mixture
from diffjax.methods import Parts, Source
from diffjax.process import Process
from diffjax.runs.config import ConfigDict, from_file, named, registry
from diffjax.runs.experiment import Experiment
from experiments import ring as bench

__all__ = ['Laid', 'at_steps', 'laid', 'parity', 'process_of']

GUIDANCE = ('scale', 'warm')  # of a teacher of digits; the closed form has no weights to begin as, and is not guided
CHANGES = {  # what a method needs on two dimensions, batches of 512 and fresh data, where it differs from its digits
  'improved_consistency_training': dict(normal=(-0.8, 1.6), distance=dict(name='pseudo_huber', c=0.1 * 2**0.5)),
  'consistency_training': dict(last=40),
  'reflow': dict(pool=16384, fresh=64, steps=40),
}
TIED = {  # options that say how many steps a student takes; where a method has none of them it takes any number
  'end': lambda steps: steps,
  'levels': lambda steps: tuple(0.75 * (steps - i) / steps for i in range(steps)),
  'strides': lambda steps: steps,
  'points': lambda steps: steps,
}
OF_TEACHER = {'prodiff': lambda steps: dict(steps=2 * steps)}  # whose student takes half of its teacher's


class Laid(NamedTuple):
  """A method on the ring.

  options: those of its recipe. labelled: whether it is told the parity of the mode. averaged: whether it draws from an
  average of its weights.
  """

  experiment: Experiment
  target: Mixture
  options: dict[str, Any]
  labelled: bool
  averaged: bool


def parity() -> Mixture:
  """The ring, told whether a mode's place is even."""
  return bench.ring(np.arange(8) % 2)


def process_of(spec: Mapping[str, Any]) -> Process:
  """A config's process; EDM's with the span that it has on the ring."""
  return bench.edm() if spec['name'] == 'edm' else named('process', registry(schedules), dict(spec))


def at_steps(spec: Mapping[str, Any], steps: int) -> dict[str, Any]:
  """The options of a config's method with which its student takes so many steps; none where any student may."""
  name = spec['name']
  if name in OF_TEACHER:
    return OF_TEACHER[name](steps)
  known = {*signature(methods.recipes(name)[name]).parameters, *spec}
  return {option: of(steps) for option, of in TIED.items() if option in known}


def laid(path: Path, train_steps: int, steps: int, *, taught_by_network: bool = False) -> Laid:
  """A config's method on the ring, with labels where it needs some; its teacher the closed form, or such a network.

  Raises:
    InputError: the method needs what the ring does not have.
  """
  config = from_file(str(path))
  config.sampling.steps, config.sampling.guidance_scale = steps, 1.0
  if config.data.name != 'digits':
    raise InputError(f'data: got {config.data.name}; allowed: digits, whose methods know no more of their data')
  name, spec = config.method.name, config.method.to_dict()
  plain = {key: _on_points(value) for key, value in spec.items() if key not in ('name', *GUIDANCE)}
  options = plain | CHANGES.get(name, {}) | at_steps(spec, steps)
  try:
    return _laid(config, options, train_steps, taught_by_network, labelled=False)
  except InputError as error:
    if 'label' not in str(error):
      raise
  return _laid(config, options, train_steps, taught_by_network, labelled=True)


def _laid(config: ConfigDict, options: Mapping[str, Any], train_steps: int, by_network: bool, labelled: bool) -> Laid:
  process = process_of(config.process.to_dict())
  kind = config.loss.get('kind', 'v')
  classes, target = 2 * labelled, parity() if labelled else bench.ring()
  net = nets.mlp(width=128, depth=3, classes=classes, times=config.net.get('times', 1))
  kind = kinds.edm(bench.STD) if kind == 'edm' else kinds.as_kind(kind)
  parts = bench.parts(target, process, kind, net=net, steps=train_steps, classes=classes)
  if by_network:
    parts = bench.parts(
      target, process, kind, net=net, steps=train_steps, classes=classes, teacher=_network(parts, classes)
    )
  name = config.method.name
  method = methods.recipes(name)[name](parts, **options)
  lacking = [need for need in method.needs if need not in parts.others]
  if lacking or method.generator is None:
    raise InputError(f'method: got {name}, which needs {lacking or "a generator"}; allowed: points alone')
  return Laid(Experiment(config, parts, method, ()), target, dict(options), labelled, bool(config.train.ema))


def _network(parts: Parts, classes: int) -> Source:
  """The student's own network, told one time, as a teacher of these shapes: for counting."""
  net = nets.mlp(width=128, depth=3, classes=classes)
  told = bench.parts(bench.ring(), parts.process, parts.kind, net=net, classes=classes)
  shapes = jax.eval_shape(told.init, jax.random.key(0))
  return Source('network', parts.process, (2,), classes, shapes, told.denoiser, parts.kind, net)


def _on_points(value: Any) -> Any:
  """An option that names a network of images, as one of points; others as they are."""
  if isinstance(value, dict) and value.get('name') in ('unet', 'dit', 'uvit', 'edm2'):
    kept = {key: value[key] for key in ('times', 'out_channels') if key in value}
    return dict(name='mlp', width=128, depth=3, **kept)
  return value
