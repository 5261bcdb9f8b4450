"""From `config.sampling` to what draws: the guidance laid over a denoiser, the grid, the solver and its statistics."""

import inspect
from collections.abc import Mapping
from typing import Any

import jax
import numpy as np
from jax import Array

from diffjax import guidance, inverse, solvers, statistics
from diffjax.files import DamagedFile, read_npz
from diffjax.methods import Parts, Source, same_process
from diffjax.paths import place
from diffjax.prediction import Denoise, network_of
from diffjax.process import Process
from diffjax.runs import posterior
from diffjax.runs.config import ConfigDict, ConfigError, named, refused, registry
from diffjax.solvers import grids
from diffjax.statistics import Spread

__all__ = [
  'OPENED',
  'check_attention',
  'check_opened',
  'guidance_scale',
  'guidance_specs',
  'guided',
  'solver',
  'solver_of_no_run',
  'source',
  'times',
]

# transforms that ask the network under its null condition
NULLED = ('cfg', 'cfgpp', 'apg', 'cfg_rescale', 'cfg_zero', 'feedback', 'rectified_gradient')
# transforms that another run's network takes part in, and as which argument
OPENED = dict(
  autoguidance='guide', classifier_guidance='log_prob', elucd='logits', elucd_kick='logits', gradient_free='logits'
)
ATTENDING = ('attentive_eraser', 'perturbed_attention')
TRANSFORMS = (*NULLED, *OPENED, *ATTENDING, 'dynamic_threshold', 'threshold', 'time_shift')


def guided(
  sampling: ConfigDict,
  denoise: Denoise,
  opened: Mapping[str, Source] | None = None,
  roles: Mapping[str, Any] | None = None,
  observation: Any = None,
) -> Denoise:
  """The denoiser under the guidance and thresholds that a config asks for, in order.

  Args:
    sampling: `config.sampling`.
    denoise: the network's.
    opened: by the key of the config that names them, the runs whose networks take part.
    roles: their parameters, by the same key, among others.
    observation: what posterior methods are told.

  Raises:
    ConfigError: a transform that is not there or does not fit, or one that asks under a null condition which the
      network does not have, or never saw in training.
  """
  known = {**registry(guidance, TRANSFORMS), **registry(inverse, posterior.METHODS)}
  for field, spec in guidance_specs(sampling):
    if spec['name'] in NULLED:
      _check_null(denoise, field, spec)
    if spec['name'] in OPENED:
      spec = _with_network(field, spec, opened or {}, roles or {})
    given = (observation,) if spec['name'] in posterior.METHODS else ()
    denoise = named(field, known, spec, denoise, *given)
  return denoise


def guidance_scale(sampling: ConfigDict) -> float:
  """The scale of the guidance that `config.sampling` asks for; 1 without any."""
  scales = [spec.get('scale', 1.0) for _, spec in guidance_specs(sampling) if spec['name'] in NULLED]
  return float(scales[0]) if scales else 1.0


def guidance_specs(sampling: ConfigDict) -> list[tuple[str, dict[str, Any]]]:
  """What `config.sampling` lays over the denoiser, in order, each with the key of the config that says so.

  `guidance_scale` with `interval`, and `threshold`, are short forms of the list `guidance`, of its front and its end.
  """
  s = sampling.to_dict()
  specs = []
  if s['guidance_scale'] != 1:
    specs.append(
      ('sampling.guidance_scale', dict(name='cfg', scale=s['guidance_scale'], interval=s['interval'] or None))
    )
  for i, spec in enumerate(s['guidance']):
    spec = dict(name=spec) if isinstance(spec, str) else spec
    if not isinstance(spec, dict) or 'name' not in spec:
      raise ConfigError(f'config.sampling.guidance[{i}]: got {spec!r}; allowed: a name, or a dict with a name and its '
                        'options')  # fmt: skip
    specs.append((f'sampling.guidance[{i}]', spec))
  if s['threshold'] != 'none':
    specs.append(
      ('sampling.threshold', dict(name=dict(static='threshold', dynamic='dynamic_threshold')[s['threshold']]))
    )
  return specs


def source(sampling: ConfigDict, shape: Any) -> Spread | None:
  """The example that samples begin from, as data that lie there and are not wide; None where the config names none.

  Images of whole numbers, 0 to 255, become [-1, 1].

  Raises:
    ConfigError: the file is not there or cannot be read, or holds no example of this shape.
  """
  path = sampling.source
  if not path:
    return None
  if not place(path).is_file():
    raise ConfigError(f'config.sampling.source: got {path!r}, which is not there; allowed: an npz file of one example')
  try:
    first = next(iter(read_npz(path).values()), np.zeros(()))
  except DamagedFile as error:
    raise ConfigError(f'config.sampling.source: got {path!r}, which is no npz file ({error})') from None
  image = first[0] if first.shape[:1] == (1,) and first.shape[1:] == shape else first
  if image.shape != shape:
    raise ConfigError(f'config.sampling.source: got an array of shape {first.shape}; allowed: one example, {shape}')
  return Spread(image / 127.5 - 1 if image.dtype == np.uint8 else image, 0.0)


def _with_network(
  field: str, spec: dict[str, Any], opened: Mapping[str, Source], roles: Mapping[str, Any]
) -> dict[str, Any]:
  """The spec with the network of the run that it names in place of that name."""
  if field not in opened:
    raise ConfigError(f'config.{field}: {spec["name"]} needs run, the directory of a trained run')
  source, place = opened[field], OPENED[spec['name']]
  if place == 'guide':
    network: Any = source.denoiser(roles[field])
  elif source.classifier is None:
    raise ConfigError(f'config.{field}.run: got {source.name}, which is no classifier; allowed: a run of method '
                      'classifier')  # fmt: skip
  else:
    network = source.classifier(roles[field])
    network = guidance.log_prob_of(network) if place == 'log_prob' else network
  return {k: v for k, v in spec.items() if k not in ('run', 'ema', 'step')} | {place: network}


def check_opened(field: str, source: Source, parts: Parts) -> Source:
  """The run that a guidance names, where it is of these data and this process.

  Raises:
    ConfigError: it differs; the message says in what.
  """
  for part in ('shape', 'classes'):
    if getattr(source, part) != getattr(parts, part):
      raise ConfigError(f'config.{field}.run: got {source.name} of {part} {getattr(source, part)}; allowed: that of '
                        f'this run, {getattr(parts, part)}')  # fmt: skip
  if not same_process(source.process, parts.process):
    raise ConfigError(f'config.{field}.run: got {source.name} of another process; allowed: that of this run')
  return source


def check_attention(sampling: ConfigDict, denoise: Denoise, parts: Parts) -> None:
  """Refuses, before anything is compiled, guidance by attention of a network that has none of these names."""
  for field, spec in guidance_specs(sampling):
    if spec['name'] in ATTENDING:
      x, _, cond = parts.inputs(1)
      refused(
        field, jax.eval_shape, lambda denoise, x, cond: denoise(x, parts.process.t_max / 2, cond), denoise, x, cond
      )


def _check_null(denoise: Denoise, field: str, spec: dict[str, Any]) -> None:
  """Raises ConfigError where the network in `denoise` has no null condition, or never saw it in training."""
  innermost: Any = network_of(denoise)
  scale = f'{spec["scale"]:g}' if isinstance(spec.get('scale'), int | float) else spec['name']
  if getattr(innermost, 'null', None) is None:
    raise ConfigError(f'config.{field}: got {scale}; allowed: 1, since data.classes is 0')
  if innermost.untrained:
    raise ConfigError(f'config.{field}: got {scale}; allowed: 1, since {innermost.untrained} and the network never saw '
                      'the null label; train with a drop of .1 to guide')  # fmt: skip


def times(sampling: ConfigDict, process: Process, std: float | None = None) -> Array:
  """The times of the grid that a config asks for; `std` as in `solver`."""
  return named('sampling.grid', registry(grids), _told(grids, sampling.grid, std), process, sampling.steps)


def solver(sampling: ConfigDict, parts: Parts, workdir: str | None, std: float | None = None) -> Any:
  """The solver that a config asks for on its grid, with the statistics in `workdir` if it uses any.

  With `teleport` it runs from the first time of the grid where sigma / alpha is not above that level. What lies
  before is leapt over in closed form, along the flow of the Gaussian of the data, labels and guidance aside.

  Args:
    sampling: `config.sampling`.
    parts: of the run.
    workdir: of the run; None without one.
    std: the data's deviation, told to a grid or solver that asks for one and is not given it.

  Raises:
    ConfigError: it uses statistics that are not there, or are another process's, data's or guidance scale's.
  """
  needs = solvers.with_statistics.get(sampling.solver.name)
  known = None if needs is None else _statistics(sampling, parts, needs, workdir)
  made = _laid_out(sampling, parts.process, known, std)
  if not sampling.teleport:
    return made
  return solvers.teleport(made, parts.process, _statistics(sampling, parts, 'gaussian', workdir))


def solver_of_no_run(sampling: ConfigDict, process: Process) -> Any:
  """The same with statistics that hold of no run: whether all names and numbers fit, before there is one."""
  needs = solvers.with_statistics.get(sampling.solver.name)
  return _laid_out(sampling, process, None if needs is None else statistics.NEUTRAL[needs](process))


def _laid_out(sampling: ConfigDict, process: Process, known: Any, std: float | None = None) -> Any:
  ts = times(sampling, process, std)
  if sampling.teleport:
    ts = refused('sampling.teleport', grids.late, process, ts, sampling.teleport)
  if sampling.source:
    if sampling.teleport:
      raise ConfigError(f'config.sampling.source: got a file, with teleport {sampling.teleport:g}; allowed: '
                        'one of them')  # fmt: skip
    ts = refused('sampling.strength', grids.begun, process, ts, sampling.strength * float(process.t_max))
  names = (*solvers.tables.__all__, *solvers.with_statistics, *solvers.own_step)
  given = () if known is None else (known,)
  return named('sampling.solver', registry(solvers, names), _told(solvers, sampling.solver, std), process, ts, *given)


def _told(module: Any, spec: ConfigDict, std: float | None) -> dict[str, Any]:
  """The spec, with the data's deviation or variance where its function asks for one that it does not give."""
  function = getattr(module, str(spec.get('name')), None)
  asked = inspect.signature(function).parameters if callable(function) else {}
  known = {} if std is None else dict(data_std=std, data_var=std**2)
  return {k: v for k, v in known.items() if k in asked} | spec.to_dict()


def _statistics(sampling: ConfigDict, parts: Parts, kind: str, workdir: str | None) -> Any:
  path = f'{workdir}/statistics/{kind}.npz'
  field, user = ('teleport', 'a leap') if kind == 'gaussian' else ('solver', sampling.solver.name)
  command = f'diffjax statistics --workdir={workdir or "WORKDIR"}'
  if workdir is None or not place(path).exists():
    raise ConfigError(f'config.sampling.{field}: {user} needs the statistics of a trained run, and '
                      f'{path} is not there; {command} makes them')  # fmt: skip
  found = refused(f'sampling.{field}', statistics.load, path, statistics.KINDS[kind])
  shape = getattr(found, 'shape', ())
  if shape not in ((), parts.shape):
    raise ConfigError(f'config.data.shape: got {parts.shape}; allowed with {path}: {shape}')
  asked = guidance_scale(sampling)
  scale = float(getattr(found, 'scale', asked))  # the data's Gaussian has none
  if scale != asked:
    raise ConfigError(f'config.sampling.guidance_scale: got {asked:g}; allowed with {path}: {scale:g}, of '
                      f'which it is; {command} --scale={asked:g} makes those of this one')  # fmt: skip
  return found
