"""Where a network is looked into: features handed out, attention taken over, both by the paths of its modules."""

import fnmatch

from flax import linen as nn

TAP, EDIT = 'tap:', 'edit:'


def tap(module: nn.Module, name: str, value):
  """Offer `value` under the module's path and `name`, and return it, edited where `Apply.edits` asks.

  One collection a name: stored only where `Apply.taps` asks. What is stored is what goes on.
  """
  path = '/'.join((*module.path, name))
  if module.has_variable(EDIT + path, 'value'):
    keep, add = module.get_variable(EDIT + path, 'value')
    value = (keep * value + add).astype(value.dtype)
  module.sow(TAP + path, 'value', value, reduce_fn=lambda _, new: new, init_fn=lambda: None)
  return value


def edits_of(given: dict) -> dict:
  """The collections in which `tap` finds what is given by name."""
  collections = {}
  for name, pair in given.items():
    inner = {'value': pair}
    for module in reversed(name.split('/')[:-1]):
      inner = {module: inner}
    collections[EDIT + name] = inner
  return collections


def intercepting(hooks, given, seen: dict):
  """A flax interceptor: calls of 'PATH/attend' go to the hook whose pattern matches PATH. `seen`: path -> heads."""

  def intercept(call, args, kwargs, context):
    path = '/'.join(context.module.path)
    if context.method_name != '__call__' or not path.endswith('/attend'):
      return call(*args, **kwargs)
    name = path.removesuffix('/attend')
    seen[name] = args[0].shape[-2]
    for pattern, hook in hooks:
      if fnmatch.fnmatchcase(name, pattern):
        return hook(call, *args, given.get(name), **kwargs)
    return call(*args, **kwargs)

  return nn.intercept_methods(intercept)
