"""The recipe of a control branch: a frozen run learns to follow an image that it was never shown."""

import dataclasses
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array
from jax.lax import stop_gradient

from diffjax import losses, nets
from diffjax.contracts import Params
from diffjax.errors import InputError
from diffjax.methods.generator import Solved, under_solver
from diffjax.methods.parts import Parts, Sampling
from diffjax.methods.starts import grafted, tuned
from diffjax.prediction import Denoiser
from diffjax.train.roles import Copy, Method, Phase

__all__ = ['controlnet']


def controlnet(parts: Parts, strength: float = 1.0) -> Method:
  """ControlNet: a copy of the encoder of `config.base`, which stays as it is, learns to steer it by an image.

  The image is the data's 'source'. The branch (`nets.controlled`) begins without effect. The loss is denoising, labels
  dropped as `config.loss.drop_cond` says; guidance shows the image to both branches.   arXiv:2302.05543

  Args:
    parts: with a base of this network, a U-Net, and `config.loss.given = ('source',)`.
    strength: of what the branch adds when it draws, 1 as in training.

  Raises:
    InputError: no base, or one of another network, kind, process, shape or labels; nothing to be controlled by.
  """
  if parts.given != ('source',):
    raise InputError(f"loss.given: got {parts.given}; allowed: ('source',), the image that controls")
  tuned(dataclasses.replace(parts, loss_options={}))  # the base is shown nothing
  net = nets.controlled(parts.net)
  drop = parts.loss_options.get('drop_cond', 0.0)
  null = dict(drop_cond=drop, null=parts.classes) if parts.classes else {}
  denoising = losses.denoising(parts.process, net, parts.kind, given=parts.given, **null)
  shapes = jax.eval_shape(net.branch.init, jax.random.key(0), *parts.inputs(1))

  def whole(roles: Mapping[str, Any], strength: float = 1.0) -> Params:
    held = jnp.asarray(strength, float)
    return {'base': stop_gradient(roles['base']), 'control': roles['student'], 'strength': held}

  def loss(roles: dict[str, Any], batch: Any, key: Array) -> tuple[Array, dict[str, Array]]:
    return denoising({'student': whole(roles)}, batch, key)

  def denoiser(roles: Mapping[str, Any]) -> Denoiser:
    untrained = 'config.loss.drop_cond is 0' if parts.classes and not drop else ''
    return Denoiser(whole(roles, strength), parts.process, parts.kind, parts.null, net=net, untrained=untrained)

  def generator(roles: Mapping[str, Any], sampling: Sampling) -> Solved:
    return under_solver(parts, denoiser(roles), sampling)

  return Method(
    (Phase('student', loss, parts.optimiser()),),
    copies={'student': Copy('base', begins=lambda params: grafted(shapes, {'unet': params}))},
    init=lambda key: {},
    loads=('base',),
    denoiser=denoiser,
    generator=generator,
    needs=parts.given,
    conditions=parts.given,
  )
