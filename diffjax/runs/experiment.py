"""From a config to the objects it names, and from a run's directory to a denoiser."""

import dataclasses
import inspect
import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from diffjax import guidance, keys, kinds, losses, nets, schedules, solvers, statistics
from diffjax.data.augment import FEATURES
from diffjax.kinds import Kind
from diffjax.losses import times, uncertainty, weights
from diffjax.nets import Apply
from diffjax.paths import place
from diffjax.prediction import Denoise, Denoiser
from diffjax.process import Process
from diffjax.runs.config import ConfigDict, ConfigError, checked, named, refused, registry
from diffjax.runs.spread import overall, spread
from diffjax.solvers import grids
from diffjax.train import ema, optimiser, rules
from diffjax.train.roles import Method, Phase

__all__ = ['Experiment', 'build', 'count']


@dataclasses.dataclass(frozen=True)
class Experiment:
  """What a config stands for. Nothing in it has touched data or a device's memory beyond a few numbers.

  Attributes:
    shape, classes: of one example, a dict by name where there are several modalities; classes is 0 without labels.
    averages: the moving averages kept of the student.
  """

  config: ConfigDict
  process: Process
  kind: Kind
  net: Apply
  method: Method
  averages: tuple
  shape: Any
  classes: int

  @property
  def null(self) -> Array | None:
    """The label that means none."""
    return jnp.asarray(self.classes, jnp.int32) if self.classes else None

  @property
  def untrained(self) -> str:
    """Why the network never saw its null condition in training; empty where it did.

    Of one modality that is the null label, which `loss.drop_cond` puts in the place of others; of several the ends of
    time, where the other modalities are noise (`loss.ends`), and their labels are never dropped.
    """
    name, options = self.config.loss.name, self.config.loss
    if name == 'modalities':
      if not options.get('ends', 0.05):
        return 'config.loss.ends is 0'
      return 'config.loss.name is modalities, which drops no labels' if self.classes else ''
    return 'config.loss.drop_cond is 0' if self.classes and not options.get('drop_cond', 0.0) else ''

  def rows(self, rows: int) -> Any:
    """The shapes of so many x."""

    def shaped(shape: tuple[int, ...]) -> jax.ShapeDtypeStruct:
      return jax.ShapeDtypeStruct((rows, *shape), jnp.float32)

    if isinstance(self.shape, dict):
      return {name: shaped(shape) for name, shape in self.shape.items()}
    return shaped(self.shape)

  def inputs(self, rows: int) -> tuple[Any, Array, Array | None]:
    """Zeros in the shapes of (x, time coordinate, labels)."""
    cond = jnp.zeros((rows,), jnp.int32) if self.classes else None
    return jax.tree.map(lambda x: jnp.zeros(x.shape), self.rows(rows)), jnp.zeros((rows,)), cond

  def init(self, key: Array) -> dict[str, Any]:
    """Fresh parameters by role."""
    student = self.net.init(key, *self.inputs(1))
    learned = self.config.loss.get('uncertainty', False)
    return {'student': uncertainty.add_head(student, jax.random.fold_in(key, 1)) if learned else student}

  def layout(self, mesh: Any) -> rules.Layout | None:
    """How weights lie on this mesh by `config.mesh.rules`; None where only the batch is split.

    Raises:
      ConfigError: rules that meet in a weight, or heads that the mesh does not divide.
    """
    if mesh.shape['fsdp'] == mesh.shape['model'] == 1:
      return None
    inputs = self.inputs(1)
    made = refused('mesh.rules', rules.layout, self.net.axes(*inputs), self.config.mesh.rules)
    if made.rules.get('heads'):
      refused('mesh', made.check_heads, mesh, self.net.heads(*inputs))
    return made

  def denoiser(self, params: Any) -> Denoiser:
    """The network with these parameters, unguided."""
    return Denoiser(params, self.process, self.kind, self.null, net=self.net, untrained=self.untrained)

  def guided(self, denoise: Denoise) -> Denoise:
    """The denoiser with the guidance and threshold of `config.sampling`."""
    s = self.config.sampling
    if s.guidance_scale != 1:
      if not self.classes:
        raise ConfigError(
          f'config.sampling.guidance_scale: got {s.guidance_scale}; allowed: 1, since data.classes is 0'
        )
      if self.untrained:
        raise ConfigError(f'config.sampling.guidance_scale: got {s.guidance_scale:g}; allowed: 1, since '
                          f'{self.untrained} and the network never saw the null label; train with a drop of .1 to '
                          'guide')  # fmt: skip
      denoise = guidance.cfg(denoise, s.guidance_scale, interval=tuple(s.interval) or None)
    if s.threshold == 'static':
      denoise = guidance.threshold(denoise)
    elif s.threshold == 'dynamic':
      denoise = guidance.dynamic_threshold(denoise)
    return denoise

  def spread(self, workdir: str | None) -> Any:
    """The mean and deviation of the run's data, by modality where there are several; None where it keeps none."""
    return None if workdir is None else refused('data', spread, workdir, self.shape)

  def solver(self, workdir: str | None = None) -> Any:
    """The solver of `config.sampling` on its grid, with the statistics in `workdir` if it uses any.

    A grid or solver that asks for the data's deviation, and is given none by the config, has the run's.

    With `teleport` it runs from the first time of the grid where sigma / alpha is not above that level. What lies
    before is leapt over in closed form, along the flow of the Gaussian of the data, labels and guidance aside.

    Raises:
      ConfigError: it uses statistics that are not there, or are another process's, data's or guidance scale's.
    """
    s = self.config.sampling
    needs = solvers.with_statistics.get(s.solver.name)
    std = overall(self.spread(workdir))
    solver = self._laid_out(None if needs is None else self._statistics(needs, workdir), std)
    return solvers.teleport(solver, self.process, self._statistics('gaussian', workdir)) if s.teleport else solver

  def _laid_out(self, known: Any, std: float | None = None) -> Any:
    s = self.config.sampling
    ts = named('sampling.grid', registry(grids), _told(grids, s.grid, std), self.process, s.steps)
    if s.teleport:
      ts = refused('sampling.teleport', grids.late, self.process, ts, s.teleport)
    names = (*solvers.tables.__all__, *solvers.with_statistics, *solvers.own_step)
    given = () if known is None else (known,)
    return named('sampling.solver', registry(solvers, names), _told(solvers, s.solver, std), self.process, ts, *given)

  def _statistics(self, kind: str, workdir: str | None) -> Any:
    s, path = self.config.sampling, f'{workdir}/statistics/{kind}.npz'
    field, user = ('teleport', 'a leap') if kind == 'gaussian' else ('solver', s.solver.name)
    command = f'diffjax statistics --workdir={workdir or "WORKDIR"}'
    if workdir is None or not place(path).exists():
      raise ConfigError(f'config.sampling.{field}: {user} needs the statistics of a trained run, and '
                        f'{path} is not there; {command} makes them')  # fmt: skip
    found = refused(f'sampling.{field}', statistics.load, path, statistics.KINDS[kind])
    shape = getattr(found, 'shape', ())
    if shape not in ((), self.shape):
      raise ConfigError(f'config.data.shape: got {self.shape}; allowed with {path}: {shape}')
    scale = float(getattr(found, 'scale', s.guidance_scale))  # the data's Gaussian has none
    if scale != s.guidance_scale:
      raise ConfigError(f'config.sampling.guidance_scale: got {s.guidance_scale:g}; allowed with {path}: {scale:g}, of '
                        f'which it is; {command} --scale={s.guidance_scale:g} makes those of this one')  # fmt: skip
    return found


def build(config: ConfigDict) -> Experiment:
  """Check a whole config and build what it names, without data and without compiling.

  Raises:
    ConfigError: what it names is not there, or does not fit; the message names the field, value and what is allowed.
  """
  config = checked(config)
  _check_numbers(config)
  refused('mesh.rules', rules.checked, config.mesh.rules)
  shape, classes = config.data.to_dict()['shape'], int(config.data.classes)
  shape = {name: tuple(part) for name, part in shape.items()} if isinstance(shape, dict) else tuple(shape)
  process = named('process', registry(schedules), config.process)
  kind = named('loss.kind', registry(kinds), config.loss.get('kind', 'v'))
  net = named('net', registry(nets, ('dit', 'edm2', 'mlp', 'unet', 'unidiffuser', 'uvit')), config.net, classes=classes)
  _check_loading(config, net, shape)
  method = Method((Phase('student', _loss(config, process, kind, net, classes), _optimiser(config)),))
  several = (isinstance(shape, dict), config.net.name == 'unidiffuser', config.loss.name == 'modalities')
  if any(several) and not all(several):
    raise ConfigError(f'config.data.shape: got {shape} with net {config.net.name} and loss {config.loss.name}; '
                      'allowed: a dict of shapes with unidiffuser and modalities, one with all others')  # fmt: skip
  averages = refused('train.ema', ema.averages, config.train.ema)
  experiment = Experiment(config, process, kind, net, method, averages, shape, classes)
  needs = solvers.with_statistics.get(config.sampling.solver.name)
  solver = experiment._laid_out(None if needs is None else statistics.NEUTRAL[needs](process))
  if kind.needs_signal and not np.isfinite(float(process.lam(float(np.asarray(solver.rows.t)[0])))):
    raise ConfigError(f'config.loss.kind: got {config.loss.kind!r}; allowed on {config.process.name}, whose alpha '
                      'reaches 0: x0, v, velocity, edm')  # fmt: skip
  if not -1 <= config.sampling.ema < len(averages):
    raise ConfigError(f'config.sampling.ema: got {config.sampling.ema}; allowed: -1 for the weights themselves, or '
                      f'the place of one of the {len(averages)} averages of config.train.ema')  # fmt: skip
  experiment.guided(experiment.denoiser(()))
  jax.eval_shape(experiment.init, jax.random.key(0))
  return experiment


def count(params: Any) -> int:
  """The number of parameters of a tree of arrays or shapes."""
  return sum(math.prod(leaf.shape) for leaf in jax.tree.leaves(params))


def _told(module: Any, spec: ConfigDict, std: float | None) -> dict[str, Any]:
  """The spec, with the data's deviation or variance where its function asks for one that it does not give."""
  function = getattr(module, str(spec.get('name')), None)
  asked = inspect.signature(function).parameters if callable(function) else {}
  known = {} if std is None else dict(data_std=std, data_var=std**2)
  return {k: v for k, v in known.items() if k in asked} | spec.to_dict()


def _loss(config: ConfigDict, process: Process, kind: Kind, net: Apply, classes: int) -> Any:
  spec = config.loss.to_dict()
  spec['kind'] = kind
  for part, module in (('times', times), ('weight', weights)):
    if part in spec:
      spec[part] = named(f'loss.{part}', registry(module), spec[part])
  if config.loss.name == 'modalities':
    return named('loss', registry(losses, ('modalities',)), spec, process, net)
  null = classes if classes else None
  return named('loss', registry(losses, ('denoising', 'modalities')), spec, process, net, null=null)


def _optimiser(config: ConfigDict) -> Any:
  return named('train.optimiser', registry(optimiser), config.train.optimiser, config.train.steps)


def _check_loading(config: ConfigDict, net: Apply, shape: Any) -> None:
  c = config.loading
  for field in ('workers', 'prefetch'):
    if c[field] < 0:
      raise ConfigError(f'config.loading.{field}: got {c[field]}; allowed: a whole number of at least 0')
  if not 0 <= c.augment <= 1:
    raise ConfigError(f'config.loading.augment: got {c.augment}; allowed: a probability, 0 to 1')
  for field in ('flip', 'augment'):
    if c[field] and (isinstance(shape, dict) or len(shape) != 3):
      raise ConfigError(f'config.loading.{field}: got {c[field]}; allowed for data of shape {shape}, no images: none')
  told = getattr(net.module, 'augment', 0)
  if c.augment and told != FEATURES:
    raise ConfigError(f'config.net.augment: got {told}; allowed with config.loading.augment = {c.augment}: {FEATURES}, '
                      'of a unet, which is told what was done to its images')  # fmt: skip


def _check_numbers(config: ConfigDict) -> None:
  refused('seed', keys.check_seed, config.seed)
  tree: dict[str, Any] = config.to_dict()
  for field in ('train.steps', 'train.batch', 'train.accumulate', 'train.log_every', 'train.save_every',
                'train.max_to_keep', 'sampling.steps', 'sampling.batch', 'evaluation.n'):  # fmt: skip
    section, key = field.split('.')
    if tree[section][key] < 1:
      raise ConfigError(f'config.{field}: got {tree[section][key]}; allowed: a whole number of at least 1')
  thresholds = ('none', 'static', 'dynamic')
  if config.sampling.threshold not in thresholds:
    raise ConfigError(f'config.sampling.threshold: got {config.sampling.threshold!r}; allowed: {", ".join(thresholds)}')
