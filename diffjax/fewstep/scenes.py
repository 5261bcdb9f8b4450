"""Scenes: parameters that are optimised one object at a time, and how a view of an object becomes an image.

A scene holds `count` objects. Object i is chosen evenly for each sample, and seen from a view of the sample's own key.
"""

import math
from collections.abc import Callable
from typing import Any, NamedTuple, Protocol

import jax
import jax.numpy as jnp
from flax import struct
from jax import Array

from diffjax import keys, labels
from diffjax.contracts import Cond, Data, KeyBatch, Params
from diffjax.errors import InputError
from diffjax.methods.parts import Parts
from diffjax.pytree import PyTree

__all__ = ['Objects', 'Particles', 'Rendered', 'Scene', 'Splats', 'objects', 'particles', 'splats']

GROUND = -1.0  # of an image where nothing is
BEGINS = dict(width=0.3, spread=0.5, colour=0.5)  # of splats: their mean width, the deviations of centre and colour


class Scene(Protocol):
  """A generator of images with parameters of its own for each of `count` objects."""

  @property
  def count(self) -> int:
    """The number of objects."""
    ...

  def init(self, key: Array) -> Params:
    """Fresh objects."""
    ...

  def render(self, params: Params, which: Array, key_batch: KeyBatch) -> Array:
    """The objects `which` (B,), each from the view of its key, (B, ...)."""
    ...


class Particles(NamedTuple):
  """Objects that are images themselves, begun at N(0, std^2)."""

  count: int
  shape: tuple[int, ...]
  std: float

  def init(self, key: Array) -> Params:
    """Fresh objects."""
    return {'x': self.std * jax.random.normal(key, (self.count, *self.shape))}

  def render(self, params: Params, which: Array, key_batch: KeyBatch) -> Array:
    """The objects themselves."""
    return params['x'][which]


class Splats(NamedTuple):
  """Objects that are sums of Gaussians in the plane of an image.

      x(p) = -1 + sum_j colour_j exp(-|(p - view - centre_j) / width_j|^2 / 2)

  over pixel centres p in [-1, 1]^2; a view moves the camera by up to `shift` pixels in either direction.

  Attributes:
    count: of objects.
    splats: of an object, each with 4 + C numbers.
    shape: (H, W, C) of an image.
    shift: of the camera, in pixels.
  """

  count: int
  splats: int
  shape: tuple[int, ...]
  shift: float

  def init(self, key: Array) -> Params:
    """Fresh objects."""
    where, what = jax.random.split(key)
    size = (self.count, self.splats)
    return {
      'centre': BEGINS['spread'] * jax.random.normal(where, (*size, 2)),
      'log_width': jnp.full((*size, 2), math.log(BEGINS['width'])),
      'colour': BEGINS['colour'] * jax.random.normal(what, (*size, self.shape[-1])),
    }

  def render(self, params: Params, which: Array, key_batch: KeyBatch) -> Array:
    """The images (B, H, W, C)."""
    height, width, _ = self.shape
    pixel = 2 * self.shift / jnp.array([height, width])
    view = pixel * jax.vmap(lambda key: jax.random.uniform(key, (2,), minval=-1.0))(key_batch)
    rows, columns = (-1 + (2 * jnp.arange(n) + 1) / n for n in (height, width))
    centre, size, colour = (params[name][which] for name in ('centre', 'log_width', 'colour'))
    off = centre + view[:, None]

    def profile(places: Array, axis: int) -> Array:
      return jnp.exp(-0.5 * ((places - off[..., axis, None]) / jnp.exp(size[..., axis, None])) ** 2)

    return GROUND + jnp.sum(
      profile(rows, 0)[..., None, None] * profile(columns, 1)[:, :, None, :, None] * colour[:, :, None, None], axis=1
    )


def particles(parts: Parts, *, count: int = 64, std: float = 1.0) -> Particles:
  """So many free particles, images or points, begun at N(0, std^2)."""
  _counted('count', count)
  if not std > 0:
    raise InputError(f'scene.std: got {std}; allowed: a positive number')
  return Particles(count, tuple(parts.shape), float(std))


def splats(parts: Parts, *, count: int = 10, splats: int = 6, shift: float = 0.0) -> Splats:
  """So many objects of `splats` Gaussians each, seen by a camera that is moved by up to `shift` pixels."""
  _counted('count', count)
  _counted('splats', splats)
  if len(parts.shape) != 3:
    raise InputError(f'scene: got splats for data of shape {parts.shape}; allowed: images (H, W, C)')
  if not shift >= 0:
    raise InputError(f'scene.shift: got {shift}; allowed: a number of pixels, at least 0')
  return Splats(count, splats, tuple(parts.shape), float(shift))


def _counted(field: str, value: Any) -> None:
  if not isinstance(value, int) or value < 1:
    raise InputError(f'scene.{field}: got {value!r}; allowed: a whole number of at least 1')


class Objects(NamedTuple):
  """A scene and what its objects are to be: labels by object, None without labels."""

  scene: Any
  labels: tuple[int, ...] | None

  def chosen(self, key_batch: KeyBatch) -> tuple[Array, Cond]:
    """An object for each key, evenly, and its label."""
    which = jnp.floor(keys.uniform(key_batch) * self.scene.count).astype(int)
    return which, None if self.labels is None else jnp.asarray(self.labels, jnp.int32)[which]

  def seen(self, params: Params, key_batch: KeyBatch) -> tuple[Data, Cond]:
    """Views (B, ...) of objects chosen evenly, and their labels: what score losses ask of a generator."""
    k_which, k_view = keys.split(key_batch, 2)
    which, cond = self.chosen(k_which)
    return self.scene.render(params, which, k_view), cond


def objects(parts: Parts, spec: Any, wanted: Any = ()) -> Objects:
  """The scene of a recipe.

  Args:
    parts: what the config has made.
    spec: a name, 'particles' or 'splats', or a dict of it and the options of its function.
    wanted: labels that the objects take in turn; all of the data's unless given.

  Raises:
    InputError: another name, an option out of its range, labels that the data do not have.
  """
  options: dict[str, Any] = dict(name=spec) if isinstance(spec, str) else dict(spec)
  makers: dict[str, Callable] = dict(particles=particles, splats=splats)
  name = options.pop('name', None)
  if isinstance(parts.shape, dict) or parts.vocabulary:
    raise InputError(f'data: got those of shape {parts.shape}; allowed for scenes: numbers of one modality')
  if name not in makers:
    raise InputError(f'scene: got {name!r}; allowed: {", ".join(makers)}')
  try:
    scene = makers[name](parts, **options)
  except TypeError:
    raise InputError(f'scene: got {name} with {", ".join(options)}; allowed: the options of {name}') from None
  among = tuple(wanted) or tuple(range(parts.classes))
  if wanted and not set(wanted) <= set(range(parts.classes)):
    raise InputError(f'labels: got {tuple(wanted)}; allowed: those of the data, {parts.classes} in number')
  return Objects(scene, tuple(among[i % len(among)] for i in range(scene.count)) if among else None)


class Rendered(PyTree):
  """Draws views of a scene's objects: of those with the label asked for, where there are labels.

  Attributes:
    params: of the scene.
    objects: the scene and its labels.
    shape: of one sample.
  """

  params: Params
  objects: Objects = struct.field(pytree_node=False)
  shape: tuple[int, ...] = struct.field(pytree_node=False)

  nfe = 0
  cost = 0.0

  def check_cond(self, cond: Cond, field: str = 'cond') -> None:
    """Raises InputError for labels that no object has."""
    values, own = labels.known(cond), sorted(set(self.objects.labels or ()))
    wrong = [] if values is None else [value for value in values.ravel().tolist() if value not in own]
    if wrong:
      raise InputError(f'{field}: got label {wrong[0]}; allowed: those of the objects, {", ".join(map(str, own))}')

  def __call__(self, key_batch: KeyBatch, cond: Cond = None) -> Data:
    """The samples, one a key."""
    if cond is None or self.objects.labels is None:
      return self.objects.seen(self.params, key_batch)[0]
    k_which, k_view = keys.split(key_batch, 2)
    fits = jnp.asarray(self.objects.labels) == jnp.asarray(cond)[:, None]
    place = jnp.cumsum(fits, 1) - 1
    wanted = jnp.floor(keys.uniform(k_which) * jnp.sum(fits, 1))
    which = jnp.argmax(fits & (place == wanted[:, None]), 1)
    return self.objects.scene.render(self.params, which, k_view)
