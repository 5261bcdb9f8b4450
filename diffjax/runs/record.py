"""The record of a run: its directory, claimed by one config, and that config read back."""

import difflib
import json
from typing import Any

import jax

from diffjax.files import write
from diffjax.paths import place
from diffjax.runs.config import ConfigDict, ConfigError, checked

__all__ = ['claim', 'differences', 'read_config']

FREE = ('sampling', 'evaluation', 'mesh', 'loading.workers', 'loading.prefetch', 'train.log_every', 'train.save_every',
        'train.max_to_keep', 'train.profile', 'train.max_skipped', 'teacher.run', 'teacher.config', 'base.run',
        'base.config')  # fmt: skip
"""What may differ between the start of a run and a command that goes on from it: nothing that moves its numbers."""


def claim(
  workdir: str, config: ConfigDict, names: tuple[str, ...] | None = None, free: tuple[str, ...] = ()
) -> ConfigDict:
  """Make the directory and keep the config there, with the names of the classes; one of another run is left as it is.

  Args:
    workdir: the directory.
    config: the run's.
    names: of the classes, where the data give any.
    free: keys beside those of FREE that may differ from the run that is there; its config stays beside the new one, as
      config_STEPS_steps.json.

  Returns:
    The config that is kept: data.names are `names` where there are any.

  Raises:
    ConfigError: it holds a run of another config (the keys that differ are named), or cannot be written.
  """
  path = place(workdir, 'workdir') / 'config.json'
  if names and config.data.classes:
    config = ConfigDict(config.to_dict() | dict(data=config.data.to_dict() | dict(names=tuple(names))))
  if path.exists():
    before = read_config(workdir).to_dict()
    told = differences(before, config.to_dict(), FREE + free)
    if told:
      raise ConfigError(f'workdir: {workdir} holds the run of another config: {told}; allowed: the same config, or '
                        'another directory')  # fmt: skip
  if jax.process_index():
    return config
  try:
    if free and path.exists():
      write(path.parent / f'config_{before["train"]["steps"]}_steps.json', path.read_bytes())
    write(path, (json.dumps(config.to_dict(), indent=2) + '\n').encode())
  except OSError as error:
    raise ConfigError(f'workdir: got {workdir!r}; allowed: a directory that can be written ({error})') from None
  return config


def differences(before: dict[str, Any], after: dict[str, Any], free: tuple[str, ...] = FREE) -> str:
  """The first few keys of two nested dicts that differ, without those in `free`, as text; empty where none do."""
  there, here = _flat(before), _flat(after)
  keys = [k for k in {**there, **here} if not k.startswith(free) and there.get(k) != here.get(k)]
  return '; '.join(f'{k} is {there.get(k)!r} there and {here.get(k)!r} here' for k in sorted(keys)[:4])


def read_config(workdir: str, field: str = 'workdir') -> ConfigDict:
  """The resolved config of a run; `field` is what a message calls the directory.

  Raises:
    ConfigError: there is no run in this directory (one of a similar name is pointed out), or its config is damaged.
  """
  path = place(workdir, field) / 'config.json'
  if not path.exists():
    around = path.parent.parent
    names = [p.name for p in around.iterdir() if (p / 'config.json').exists()] if around.exists() else []
    near = difflib.get_close_matches(path.parent.name, names, 1)
    hint = f', did you mean {str(around / near[0])!r}?' if near else ''
    raise ConfigError(
      f'{field}: got {workdir!r}, which holds no run{hint}; allowed: a directory that diffjax train made'
    )
  try:
    tree = json.loads(path.read_text())
  except json.JSONDecodeError as error:
    raise ConfigError(f'{field}: {path} is not JSON ({error}); allowed: the file that diffjax train wrote') from None
  return checked(_tuples(tree))


def _flat(tree: dict[str, Any], path: str = '') -> dict[str, Any]:
  flat = {}
  for key, value in tree.items():
    flat |= _flat(value, f'{path}{key}.') if isinstance(value, dict) else {f'{path}{key}': value}
  return flat


def _tuples(tree: Any) -> Any:
  """JSON's lists as the tuples they were."""
  if isinstance(tree, dict):
    return {k: _tuples(v) for k, v in tree.items()}
  return tuple(_tuples(v) for v in tree) if isinstance(tree, list) else tree
