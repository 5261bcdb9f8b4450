"""A copy of a U-Net's encoder that is shown an image, and steers the U-Net by what it adds to it."""

import dataclasses
from typing import Any

import jax
from flax import linen as nn
from jax import Array

from .apply import Apply
from .arguments import check
from .inputs import told
from .layers import Conv, zeros
from .unet import UNet

__all__ = ['ControlBranch', 'Controlled', 'controlled']


def controlled(net: Apply) -> 'Controlled':
  """The U-Net with a control branch: a network of params {'base', 'control', 'strength'}.

  Raises:
    InputError: another network than a U-Net, or one that is shown its image at every level.
  """
  module = getattr(net, 'module', None)
  check('net', type(module).__name__, isinstance(module, UNet) and not module.progressive, 'a unet, not progressive')
  return Controlled(net, Apply(ControlBranch(module)))


class ControlBranch(nn.Module):
  """A trainable copy F' of the encoder and middle of a U-Net, between convolutions that start at zero.

      Z_l F'_l(x + Z_0 c)    for every feature that is kept on the way down, and for the middle

  x, t, key as of `UNet`; cond is a dict with 'source' c, (B, H, W, any), beside what the U-Net is told.
  arXiv:2302.05543 sec. 3.1
  """

  unet: UNet

  @property
  def classes(self):
    """Of the U-Net."""
    return self.unet.classes

  @nn.compact
  def __call__(self, x, t, cond=None, key=None):
    source = told(cond).source
    check('cond', 'no source', source is not None, "a dict with 'source', the image that controls")
    one = lambda features, name: Conv(features, 1, zeros, self.unet.dtype, name=name)  # noqa: E731
    kept = self.unet(x, t, _bare(cond), key, hint=one(self.unet.width, 'zero_in')(source))
    return tuple(one(h.shape[-1], f'zero_{i}')(h) for i, h in enumerate(kept))


@dataclasses.dataclass(frozen=True)
class Controlled:
  """Made by `controlled`: base(x; each kept feature + sum over controls of strength Z_l F'_l).

  params['base'] are the U-Net's weights, params['control'] those of the branch, or a tuple of several, whose images
  cond['source'] then holds; params['strength'] is a number, or one a control. As the branch starts it is the U-Net, to
  the last bit. Guidance tells both of its branches the source, as it does all that stands beside a label.
  """

  base: Apply
  branch: Apply

  @property
  def module(self) -> Any:
    """That of the U-Net, which knows its classes."""
    return self.base.module

  def __call__(self, params: Any, x: Array, t: Array, cond: Any = None, key: Any = None) -> Array:
    """As a network."""
    controls, sources = params['control'], told(cond).source
    if not isinstance(controls, tuple):
      controls, sources = (controls,), (sources,)
    strengths = params['strength'] if isinstance(params['strength'], tuple) else (params['strength'],) * len(controls)
    added = [
      jax.tree.map(lambda h, s=strength: s * h, self.branch(control, x, t, {**_dict(cond), 'source': source}, key))
      for control, source, strength in zip(controls, sources, strengths, strict=True)
    ]
    total = jax.tree.map(lambda *each: sum(each[1:], each[0]), *added)
    return self.base.module.apply({'params': params['base']}, x, t, _bare(cond), key, added=total)


def _dict(cond: Any) -> dict[str, Any]:
  return cond if isinstance(cond, dict) else {'label': cond}


def _bare(cond: Any) -> dict[str, Any]:
  return {name: value for name, value in _dict(cond).items() if name != 'source'}
