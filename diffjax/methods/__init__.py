"""Methods: what `config.method` names. A recipe puts parts together into phases and a generator.

A recipe is a function (parts, **options) -> Method. It lies in the `__all__` of one of ROOMS, or in any module that can
be imported, named in full: `config.method.name = 'my_package.my_module.my_recipe'`.
"""

import importlib
from collections.abc import Callable

from diffjax.errors import InputError
from diffjax.methods.generator import Generator, Solved, solved, under_solver
from diffjax.methods.parts import Parts, Sampling, Source, same_process
from diffjax.methods.recipes import (
  all_but_one,
  class_token,
  classifier,
  controlnet,
  denoising,
  equivariant,
  equivariant_energy,
  fokker_planck,
  invariant,
  modalities,
  single_image,
  variational,
)

__all__ = [
  'Generator',
  'Parts',
  'Sampling',
  'Solved',
  'Source',
  'all_but_one',
  'class_token',
  'controlnet',
  'classifier',
  'denoising',
  'equivariant',
  'equivariant_energy',
  'fokker_planck',
  'invariant',
  'modalities',
  'recipes',
  'same_process',
  'single_image',
  'solved',
  'under_solver',
  'variational',
]

ROOMS = ('diffjax.methods.recipes', 'diffjax.bridges.recipes', 'diffjax.fewstep')


def recipes(name: str = '') -> dict[str, Callable]:
  """The recipes by name: those of the rooms, and `name` itself where it has a dot and lies in a module of another.

  Raises:
    InputError: the module of `name` cannot be imported, or does not have it.
  """
  known = {recipe: getattr(room, recipe) for room in map(importlib.import_module, ROOMS) for recipe in room.__all__}
  module, dot, recipe = name.rpartition('.')
  if not dot:
    return known
  try:
    found = getattr(importlib.import_module(module), recipe, None)
  except ImportError as error:
    raise InputError(
      f'got {name!r}, but {module} cannot be imported ({error}); allowed: a module on the path'
    ) from None
  if not callable(found):
    raise InputError(f'got {name!r}, but {module} has no function {recipe!r}; allowed: a recipe (parts, **options)')
  return known | {name: found}
