"""From a config to the objects it names, and from a run's directory to a denoiser."""

import dataclasses
import inspect
import math
from collections.abc import Mapping
from typing import Any

import jax
import numpy as np
from jax import Array

from diffjax import exact, keys, kinds, losses, methods, nets, schedules
from diffjax.data.augment import FEATURES
from diffjax.kinds import Kind
from diffjax.losses import couplings, times, weights
from diffjax.methods import Generator, Parts, Sampling, Source
from diffjax.nets import Apply
from diffjax.prediction import Denoise, Denoiser
from diffjax.process import Process
from diffjax.runs import sampling
from diffjax.runs.config import ConfigDict, ConfigError, checked, named, refused, registry
from diffjax.runs.record import read_config
from diffjax.runs.spread import overall, spread
from diffjax.train import ema, optimiser, rules
from diffjax.train.roles import Method

__all__ = ['Experiment', 'build', 'count']

NETS = ('dit', 'edm2', 'egnn', 'mlp', 's4', 'unet', 'unidiffuser', 'uvit')
TARGETS = ('ring8',)
LOSSES = ('denoising', 'high_order', 'implicit', 'modalities', 'sliced')


@dataclasses.dataclass(frozen=True)
class Experiment:
  """What a config stands for. Nothing in it has touched data or a device's memory beyond a few numbers.

  Attributes:
    parts: what was made before the method, and is handed to its recipe.
    averages: the moving averages kept of the method's averaged roles.
  """

  config: ConfigDict
  parts: Parts
  method: Method
  averages: tuple

  @property
  def process(self) -> Process:
    """The forward process."""
    return self.parts.process

  @property
  def net(self) -> Apply:
    """The student's network."""
    return self.parts.net

  @property
  def shape(self) -> Any:
    """Of one example, a dict by name where there are several modalities."""
    return self.parts.shape

  @property
  def classes(self) -> int:
    """The number of labels, 0 without."""
    return self.parts.classes

  def init(self, key: Array) -> dict[str, Any]:
    """Fresh parameters by role."""
    return dict(self.method.init(key)) if self.method.init else {'student': self.parts.init(key)}

  def roles(self) -> dict[str, Any]:
    """The shapes of the parameters of every role."""
    shapes = {**jax.eval_shape(self.init, jax.random.key(0)), **self.given_shapes()}
    for role, made in self.method.copied.items():
      shapes[role] = jax.eval_shape(made.of, shapes[made.source])
    return shapes

  def given_shapes(self) -> dict[str, Any]:
    """The shapes of the roles that begin as the weights of other runs."""
    return {role: self.parts.source(role, process=False).params for role in self.method.loads}

  def layout(self, mesh: Any) -> rules.Layout | None:
    """How weights lie on this mesh by `config.mesh.rules`; None where only the batch is split.

    Raises:
      ConfigError: rules that meet in a weight, or heads that the mesh does not divide.
    """
    if mesh.shape['fsdp'] == mesh.shape['model'] == 1:
      return None
    inputs = self.parts.inputs(1)
    made = refused('mesh.rules', rules.layout, self.net.axes(*inputs), self.config.mesh.rules)
    if made.rules.get('heads'):
      refused('mesh', made.check_heads, mesh, self.net.heads(*inputs))
    return made

  def denoiser(self, roles: Mapping[str, Any]) -> Denoiser:
    """The network with these parameters by role, unguided.

    Raises:
      ConfigError: the method trains none.
    """
    if self.method.denoiser is None:
      raise ConfigError(f'config.method: got {self.config.method.name}, which trains no denoiser; allowed here: one '
                        'that does, such as denoising')  # fmt: skip
    return self.method.denoiser(roles)

  def generator(self, roles: Mapping[str, Any], workdir: str | None = None, solver: Any = None) -> Generator:
    """What draws with these parameters by role, as `config.sampling` says, or by this solver.

    Raises:
      ConfigError: the method says not how, or the solver uses statistics that are not there.
    """
    if self.method.generator is None:
      raise ConfigError(
        f'config.method: got {self.config.method.name}, which draws nothing; allowed here: one that does'
      )
    asked = Sampling(
      steps=self.config.sampling.steps,
      grid=lambda: sampling.times(self.config.sampling, self.process),
      solver=(lambda: self.solver(workdir)) if solver is None else (lambda: solver),
      guided=self.guided,
      data=self.spread(workdir),
      scale=sampling.guidance_scale(self.config.sampling),
    )
    return refused('sampling', self.method.generator, roles, asked)

  def guided(self, denoise: Denoise) -> Denoise:
    """The denoiser under what `config.sampling` says of guidance and thresholds, in order."""
    return sampling.guided(self.config.sampling, denoise)

  def spread(self, workdir: str | None) -> Any:
    """The mean and deviation of the run's data, by modality where there are several; None where it keeps none."""
    return None if workdir is None else refused('data', spread, workdir, self.shape)

  def solver(self, workdir: str | None = None) -> Any:
    """The solver of `config.sampling` on its grid, with the statistics in `workdir` if it uses any.

    A grid or solver that asks for the data's deviation, and is given none by the config, has the run's.

    Raises:
      ConfigError: it uses statistics that are not there, or are another process's, data's or guidance scale's.
    """
    return sampling.solver(self.config.sampling, self.parts, workdir, overall(self.spread(workdir)))


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
  net = named('net', registry(nets, NETS), config.net, classes=classes)
  _check_loading(config, net, shape)
  if getattr(net.module, 'several_modalities', False) != isinstance(shape, dict):
    raise ConfigError(f'config.data.shape: got {shape} with net {config.net.name}; allowed: a dict of shapes by name '
                      'for a network of several modalities (unidiffuser), one shape for all others')  # fmt: skip
  parts = Parts(
    process, kind, net, shape, classes,
    loss=_loss(config, process, kind, net, classes),
    loss_options=config.loss.to_dict(),
    optimiser=lambda steps=config.train.steps: named(
      'train.optimiser', registry(optimiser), config.train.optimiser, steps
    ),
    steps=config.train.steps,
    teacher=_source(config, 'teacher', process),
    base=_source(config, 'base', process),
    others={name: tuple(part) for name, part in config.data.to_dict().get('others', {}).items()},
    vocabulary=config.data.get('vocabulary'),
  )  # fmt: skip
  parts.optimiser()
  known = refused('method.name', methods.recipes, config.method.name)
  method = named('method', known, config.method, parts)
  lacking = [name for name in method.needs if name not in parts.others]
  if lacking:
    gap = ', '.join(lacking)
    raise ConfigError(f'config.data: got {config.data.name} without {gap}; allowed with '
                      f'{config.method.name}: data with it, told as config.data.others={{name: shape}}')  # fmt: skip
  given = refused('loss', lambda: parts.given)
  if set(given) - set(method.needs):
    raise ConfigError(f'config.loss.given: got {given}; allowed with {config.method.name}: none, as it tells its '
                      'network labels alone')  # fmt: skip
  averages = refused('train.ema', ema.averages, config.train.ema)
  if not -1 <= config.sampling.ema < len(averages):
    raise ConfigError(f'config.sampling.ema: got {config.sampling.ema}; allowed: -1 for the weights themselves, or '
                      f'the place of one of the {len(averages)} averages of config.train.ema')  # fmt: skip
  experiment = Experiment(config, parts, method, averages)
  for field in ('observation', 'reward', 'steering'):
    if config.sampling[field].name != 'none':
      named(f'sampling.{field}', dict(none=dict), config.sampling[field])
  roles = experiment.roles()
  if method.denoiser:
    solver = sampling.solver_of_no_run(config.sampling, process)
    if kind.needs_signal and not np.isfinite(float(process.lam(float(np.asarray(solver.rows.t)[0])))):
      raise ConfigError(f'config.loss.kind: got {config.loss.kind!r}; allowed on {config.process.name}, whose alpha '
                        'reaches 0: x0, v, velocity, edm')  # fmt: skip
    experiment.guided(method.denoiser(roles))
  return experiment


def _source(config: ConfigDict, field: str, process: Process) -> Source | None:
  """What `config.teacher` or `config.base` names; None where it names nothing."""
  section = config[field]
  if section.target.name != 'none':
    target = named(f'{field}.target', registry(exact, TARGETS), section.target)
    labels = int(target.labels.max()) + 1 if config.data.classes else 0
    shape = target.means.shape[1:]
    return Source(section.target.name, process, shape, labels, (), lambda _: target.denoiser(process))
  if not section.run:
    return None
  inner = build(checked(section.config) if section.config else read_config(section.run, f'config.{field}.run'))
  role = inner.method.averaged[0]
  if not -1 <= section.ema < len(inner.averages):
    raise ConfigError(f'config.{field}.ema: got {section.ema}; allowed: -1 for the weights themselves, or the place of '
                      f'one of the {len(inner.averages)} averages of {section.run}')  # fmt: skip
  return Source(
    section.run, inner.process, inner.shape, inner.classes, inner.roles()[role],
    lambda params: inner.denoiser({role: params}), inner.parts.kind, inner.net,
    lambda params, asked: inner.method.generator({role: params}, asked) if inner.method.generator else None,
  )  # fmt: skip


def count(params: Any) -> int:
  """The number of parameters of a tree of arrays or shapes."""
  return sum(math.prod(leaf.shape) for leaf in jax.tree.leaves(params))


def _loss(config: ConfigDict, process: Process, kind: Kind, net: Apply, classes: int) -> Any:
  spec = config.loss.to_dict()
  spec['kind'] = kind
  for part, module in (('times', times), ('weight', weights), ('coupling', couplings)):
    if part in spec:
      spec[part] = named(f'loss.{part}', registry(module), spec[part])
  function = getattr(losses, str(spec['name']), None)
  null = dict(null=classes or None) if callable(function) and 'null' in inspect.signature(function).parameters else {}
  return named('loss', registry(losses, LOSSES), spec, process, net, **null)


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
