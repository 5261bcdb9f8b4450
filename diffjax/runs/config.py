"""Experiment configs: ml_collections files whose names are looked up in one module each.

A *spec* names a function and its options: `dict(name='karras', rho=5.)`, or the bare name. The function's signature is
the schema: an option it does not have, or of another type, is refused before anything is built.
"""

import ast
import difflib
import inspect
import runpy
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import ml_collections

from diffjax.errors import InputError
from diffjax.paths import expanded

__all__ = ['ConfigDict', 'ConfigError', 'defaults', 'from_file', 'override', 'checked', 'named', 'refused', 'registry']

if TYPE_CHECKING:

  class ConfigDict(ml_collections.ConfigDict):
    """What a config file wrote, by name: a type checker that guesses the types of its values guesses wrong."""

    def __getattr__(self, attribute: str) -> Any: ...
    def __getitem__(self, key: str) -> Any: ...
else:
  ConfigDict = ml_collections.ConfigDict


class ConfigError(InputError):
  """A config names something that is not there; the message is one line that says what is allowed."""


def defaults() -> ConfigDict:
  """Every section of a config with its default; a section with a `name` takes the options of what it names.

  method: the recipe (`diffjax.methods`); of denoising and modalities the one that `loss` is of.
  teacher, base: what a recipe builds on: the run in a directory, with its average `ema` (-1: the weights themselves) at
    `step` (-1: the newest), or a closed-form `target`. `config` and `digest` are filled in when a run begins.
  sampling.guidance: what is laid over the denoiser, in order; `guidance_scale` with `interval`, and `threshold`, are
    short forms of its front and its end. With a `source`, a file of one example, samples begin from it with the noise
    of the time `strength` t_max on it, as SDEdit does, and the grid ends as it would from t_max.
  loading: `prefetch` batches are made ahead, by as many threads (in each of `workers` processes) where there is more to
  do than to gather from memory; `flip` mirrors half of the images; `augment` is the probability of EDM's other moves.
  """
  c = ConfigDict()
  c.seed = 0
  c.data = dict(name='digits', shape=(8, 8, 1), classes=10)
  c.loading = dict(workers=0, prefetch=2, flip=False, augment=0.0)
  c.process = dict(name='cosine')
  c.net = dict(name='unet')
  c.loss = dict(name='denoising', kind='v', drop_cond=0.0)
  c.method = dict(name='denoising')
  c.teacher = dict(run='', ema=0, step=-1, target=dict(name='none'), config=None, digest='')
  c.base = dict(run='', ema=0, step=-1, target=dict(name='none'), config=None, digest='')
  c.train = dict(
    steps=1000, batch=128, accumulate=1, optimiser=dict(name='adamw'), ema=(0.999,), log_every=50, save_every=1000,
    max_to_keep=3, max_skipped=20, profile=(),
  )  # fmt: skip
  c.sampling = dict(
    solver=dict(name='dpmpp_2m'), grid=dict(name='karras'), steps=20, teleport=0.0, guidance_scale=1.0, interval=(),
    threshold='none', guidance=(), source='', strength=0.5, observation=dict(name='none'),
    reward=dict(name='none'), steering=dict(name='none'), ema=0, batch=512,
  )  # fmt: skip
  c.evaluation = dict(n=360, split='test')
  c.mesh = dict(data=-1, fsdp=1, model=1, rules=(), cpu_devices=0)
  return c


OPEN = ('data', 'process', 'net', 'loss', 'loss.kind', 'loss.times', 'loss.weight', 'loss.coupling', 'method',
        'teacher.target', 'base.target', 'train.optimiser', 'sampling.solver', 'sampling.grid', 'sampling.observation',
        'sampling.reward', 'sampling.steering')  # fmt: skip
"""Sections whose further keys are options of what they name."""


ONE_NETWORK = ('denoising', 'modalities')


def from_file(path: str) -> ConfigDict:
  """The config that `get_config()` of a Python file returns; `file.py:argument` hands it one argument.

  Raises:
    ConfigError: no such file, or it has no `get_config`.
  """
  name, _, argument = expanded(path, 'config').partition(':')
  if not Path(name).is_file():
    raise ConfigError(f'config: got {name!r}, which is not there; allowed: a Python file with get_config()')
  get_config = runpy.run_path(name).get('get_config')
  if get_config is None:
    raise ConfigError(f'config: {name} has no get_config(); allowed: a file that defines it')
  return checked(get_config(argument) if argument else get_config())


def override(config: ConfigDict, arguments: Iterable[str]) -> ConfigDict:
  """The config with `--config.a.b=value` applied, values read as Python literals, other text as strings.

  A whole section comes before its name and its name before its options, in whatever order they are given; of one key
  given twice the last counts. Naming another function in a section (`--config.net.name=mlp`, or `--config.net=mlp`)
  drops the options that the config had for the one before; of `data` the shape and classes stay.

  Raises:
    ConfigError: an argument of another form, or what `checked` refuses.
  """
  tree: dict[str, Any] = config.to_dict()
  given = dict(map(_assignment, arguments))
  for path in sorted(given, key=lambda path: (len(path), path[-1] != 'name')):
    *sections, key = path
    where, field = _section(tree, sections, key), '.'.join(sections)
    replaced = any(path[:i] in given for i in range(1, len(path)))
    if key == 'name' and field in OPEN and not replaced and where.get('name') != given[path]:
      fixed = defaults().to_dict()['data'] if field == 'data' else {}
      for option in [k for k in where if k not in fixed]:
        del where[option]
    where[key] = given[path]
  return checked(ConfigDict(tree))


def _assignment(argument: str) -> tuple[tuple[str, ...], Any]:
  path, sign, text = argument.removeprefix('--').partition('=')
  if not path.startswith('config.') or not sign:
    raise ConfigError(f'argument: got {argument!r}; allowed: --config.section.key=value')
  path, value = path.removeprefix('config.'), _literal(text)
  if path in OPEN and isinstance(value, str):
    path += '.name'
  return tuple(path.split('.')), value


def _section(tree: dict[str, Any], sections: list[str], key: str) -> dict[str, Any]:
  """The dict at this path, made where it is missing; a section given by its name alone becomes one."""
  for i, section in enumerate(sections):
    inner, field = tree.setdefault(section, {}), '.'.join(sections[: i + 1])
    if isinstance(inner, str) and field in OPEN:
      inner = tree[section] = dict[str, Any](name=inner)
    if not isinstance(inner, dict):
      raise ConfigError(f'config.{field}: got a key {key!r} below it; allowed: a value, it has no keys')
    tree = inner
  return tree


def checked(config: ConfigDict | Mapping) -> ConfigDict:
  """The config completed by the defaults.

  Raises:
    ConfigError: a key that no section has (the nearest one is named), or a value of another type.
  """
  done = defaults()
  for key, value in _plain(config).items():
    _merge(done, key, value, '')
  if done.method.name in ONE_NETWORK:  # each is the recipe of the loss of its name
    done.method.name = done.loss.name if done.loss.name in ONE_NETWORK else 'denoising'
  return done


def _plain(config: Any) -> dict:
  return config.to_dict() if isinstance(config, ConfigDict) else dict(config)


def _merge(done: ConfigDict, key: str, value: Any, path: str) -> None:
  field = f'{path}{key}'
  default: Any = done.get(key)
  if field in OPEN:
    spec = dict(name=value) if isinstance(value, str) else value
    if not isinstance(spec, dict):
      raise ConfigError(f'config.{field}: got {value!r}; allowed: a name, or a dict with a name and its options')
    kept = default.to_dict() if spec.get('name', default.name) == default.name or field == 'data' else {}
    bare = {
      k: v['name'] for k, v in spec.items() if f'{field}.{k}' in OPEN and isinstance(v, dict) and [*v] == ['name']
    }
    done[key] = ConfigDict({**kept, **spec, **bare})  # one form, which a run is known by
    return
  if key not in done:
    raise ConfigError(_unknown(f'config.{field}', key, done.keys()))
  if isinstance(default, ConfigDict):
    if not isinstance(value, dict):
      raise ConfigError(f'config.{field}: got {value!r}; allowed: the keys {", ".join(sorted(default.keys()))}')
    for inner, v in value.items():
      _merge(default, inner, v, f'{field}.')
    return
  done[key] = _typed(f'config.{field}', value, default)


def _typed(field: str, value: Any, default: Any) -> Any:
  """The value in the type of the default: whole numbers serve as floats, lists as tuples, None anywhere it stands."""
  if isinstance(default, bool) or isinstance(value, bool):
    good = isinstance(default, bool) and isinstance(value, bool)
  elif isinstance(default, tuple):
    value = tuple(value) if isinstance(value, list | tuple) else value
    good = isinstance(value, tuple)
  elif isinstance(default, float):
    good = isinstance(value, int | float)
    value = float(value) if good else value
  else:
    good = default is None or isinstance(value, type(default))
  if not good:
    raise ConfigError(f'{field}: got {value!r}; allowed: a {type(default).__name__} such as {default!r}')
  return value


def _unknown(field: str, got: str, allowed: Iterable[str]) -> str:
  allowed = sorted(allowed)
  near = difflib.get_close_matches(got, allowed, 1, 0.5)
  return f'{field}: there is no {got!r}{f", did you mean {near[0]!r}?" if near else ""}; allowed: {", ".join(allowed)}'


def _literal(text: str) -> Any:
  lowered = {'true': True, 'false': False, 'none': None}
  if text.lower() in lowered and text != 'none':
    return lowered[text.lower()]
  try:
    return ast.literal_eval(text)
  except (ValueError, SyntaxError):
    return text


def registry(module: Any, names: Iterable[str] | None = None) -> dict[str, Callable]:
  """What a config may name of a module: its `__all__`, or these names."""
  return {name: getattr(module, name) for name in (names or module.__all__)}


def named(field: str, functions: Mapping[str, Callable], spec: Any, *given: Any, **fixed: Any) -> Any:
  """Call the function that a spec names with its options, after the arguments that the library gives.

  Raises:
    ConfigError: no function of that name, an option it does not have, or of another type; or the function itself
      refuses a value, in its own words behind the field.
  """
  spec = dict(name=spec) if isinstance(spec, str) else _plain(spec)
  options = {k: v for k, v in spec.items() if k != 'name'}
  name = spec.get('name')
  if name not in functions:
    raise ConfigError(_unknown(f'config.{field}.name', str(name), functions))
  signature = inspect.signature(functions[name])
  taken = signature.bind_partial(*given, **fixed).arguments
  free = {k: p for k, p in signature.parameters.items() if k not in taken}
  open_ended = any(p.kind is p.VAR_KEYWORD for p in free.values())  # the function refuses what it does not know
  for key, value in options.items():
    if key not in free and not open_ended:
      raise ConfigError(_unknown(f'config.{field}.{key}', key, free) + f' (options of {name})')
    default = free[key].default if key in free else None
    plain = isinstance(value, bool | int | float | str | tuple | list | dict)  # the builder hands over made objects too
    if plain and default is not inspect.Parameter.empty and default is not None:
      options[key] = _typed(f'config.{field}.{key}', value, default)
  missing = [k for k, p in free.items() if p.default is p.empty and k not in options and p.kind is not p.VAR_KEYWORD]
  if missing:
    raise ConfigError(f'config.{field}: {name} needs {", ".join(missing)}')
  return refused(field, functions[name], *given, **fixed, **options)


def refused(field: str, function: Callable, *arguments: Any, **options: Any) -> Any:
  """Calls a function of a lower floor, whose refusals then bear the config's name of the field."""
  try:
    return function(*arguments, **options)
  except ConfigError:
    raise
  except InputError as error:
    raise ConfigError(f'config.{field}: {error}') from error
