"""What a recipe is handed: what a config has made before its method, and what it says of sampling."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax import Array

from diffjax.contracts import Params
from diffjax.errors import InputError
from diffjax.kinds import Kind
from diffjax.nets import Apply
from diffjax.prediction import Denoise, Denoiser
from diffjax.process import Process
from diffjax.statistics import Spread

__all__ = ['Parts', 'Sampling', 'Source', 'same_process']


@dataclass(frozen=True)
class Source:
  """A network that another run trained, or a closed form, on which a method builds; opened to be read only.

  Attributes:
    name: what it is called in messages.
    process, shape, classes: as in `Parts`.
    params: the shapes of its parameters; () of a closed form.
    denoiser: its parameters -> Denoise, unguided.
    kind, net: as in `Parts`; None of a closed form.
    drawn: its parameters, and how to sample -> its generator; None of a closed form.
  """

  name: str
  process: Process
  shape: Any
  classes: int
  params: Params
  denoiser: Callable[[Params], Denoise]
  kind: Kind | None = None
  net: Apply | None = None
  drawn: Callable[[Params, 'Sampling'], Any] | None = None


@dataclass(frozen=True)
class Parts:
  """What a config has made before its method. Nothing in it has touched data.

  Attributes:
    process: the forward process.
    kind: what the network's output means.
    net: the student's network.
    shape: of one example, a dict by name where there are several modalities.
    classes: the number of labels, 0 without.
    loss: the loss that `config.loss` names, of the role 'student'.
    loss_options: `config.loss`, as written.
    optimiser: the optimiser of `config.train.optimiser`, a new one each time; of so many steps, the run's by default.
    steps: of the run.
    teacher, base: what `config.teacher` and `config.base` name, where they do.
    others: the shapes of what an example holds beside x and its label, by name.
    vocabulary: the number of tokens where x are tokens; else None.
  """

  process: Process
  kind: Kind
  net: Apply
  shape: Any
  classes: int
  loss: Callable
  loss_options: Mapping[str, Any]
  optimiser: Callable[..., optax.GradientTransformation]
  steps: int
  teacher: Source | None = None
  base: Source | None = None
  others: Mapping[str, tuple[int, ...]] = field(default_factory=dict)
  vocabulary: int | None = None

  @property
  def null(self) -> Array | None:
    """The label that means none; None without labels."""
    return jnp.asarray(self.classes, jnp.int32) if self.classes else None

  def rows(self, rows: int) -> Any:
    """The shapes of so many x."""

    def shaped(shape: tuple[int, ...]) -> jax.ShapeDtypeStruct:
      return jax.ShapeDtypeStruct((rows, *shape), jnp.int32 if self.vocabulary else jnp.float32)

    if isinstance(self.shape, dict):
      return {name: shaped(shape) for name, shape in self.shape.items()}
    return shaped(self.shape)

  @property
  def given(self) -> tuple[str, ...]:
    """What the network is told of an example beside its label: `config.loss.given`, some of 'source' and 'mask'.

    Raises:
      InputError: something else, or a network that does not read it.
    """
    names, module = tuple(self.loss_options.get('given', ())), getattr(self.net, 'module', None)
    if [name for name in names if name not in ('source', 'mask') or not getattr(module, f'reads_{name}', False)]:
      raise InputError(f'given: got {names}; allowed: none, or source with a network that reads one, mlp or unet or '
                       'egnn or s4, and mask with egnn')  # fmt: skip
    return names

  def inputs(self, rows: int) -> tuple[Any, Array, Any]:
    """Zeros in the shapes of (x, time coordinate, condition)."""
    cond: Any = jnp.zeros((rows,), jnp.int32) if self.classes else None
    if self.given:
      cond = {'label': cond, **{name: jnp.zeros((rows, *self.others[name])) for name in self.given}}
    return jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), self.rows(rows)), jnp.zeros((rows,)), cond

  def init(self, key: Array) -> Params:
    """Fresh parameters of `net`."""
    return self.net.init(key, *self.inputs(1))

  def denoiser(self, params: Params, untrained: str = '') -> Denoiser:
    """`net` with these parameters as a denoiser, unguided; `untrained` says why it never saw its null condition."""
    return Denoiser(params, self.process, self.kind, self.null, net=self.net, untrained=untrained)

  def source(self, field: str, process: bool = True) -> Source:
    """The teacher or base that a recipe needs, which has this data shape and these labels, and this process if asked.

    Raises:
      InputError: there is none, or it differs; the message says in what.
    """
    found: Source | None = getattr(self, field)
    if found is None:
      raise InputError(f'{field}: got none; allowed: config.{field}.run, the directory of a run, or '
                       f'config.{field}.target, a closed form')  # fmt: skip
    for part in ('shape', 'classes'):
      if getattr(found, part) != getattr(self, part):
        raise InputError(f'{field}: got {found.name} of {part} {getattr(found, part)}; allowed: that of this run, '
                         f'{getattr(self, part)}')  # fmt: skip
    if process and not same_process(found.process, self.process):
      raise InputError(f'{field}: got {found.name} of another process; allowed: that of this run, config.process')
    return found


def same_process(first: Process, second: Process) -> bool:
  """Whether two processes have one schedule and one span of time."""
  if not np.isclose(first.t_max, second.t_max):
    return False
  ts = jnp.linspace(0.0, 1.0, 33) * first.t_max
  return bool(np.allclose(np.stack(first.schedule(ts)), np.stack(second.schedule(ts)), rtol=1e-4, atol=1e-6))


@dataclass(frozen=True)
class Sampling:
  """How `config.sampling` asks a generator to draw; each takes what it knows.

  Attributes:
    steps: the number of steps.
    grid: () -> the times (steps + 1,) of the grid, falling to 0.
    solver: () -> the solver on its grid, or the one of a file.
    guided: a denoiser -> that under `sampling.guidance`.
    data: the mean and deviation of the run's data, where they are known.
    scale: of the guidance in `guided`, for a network that is told it; 1 without any.
  """

  steps: int
  grid: Callable[[], Array]
  solver: Callable[[], Any]
  guided: Callable[[Denoise], Denoise]
  data: Spread | None = None
  scale: float = 1.0
