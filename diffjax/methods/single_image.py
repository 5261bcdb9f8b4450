"""The recipe of a run that is tuned on one image and mixed with what it was."""

from collections.abc import Mapping
from typing import Any

import jax.numpy as jnp

from diffjax import guidance
from diffjax.errors import InputError
from diffjax.methods.generator import Solved, under_solver
from diffjax.methods.parts import Parts, Sampling
from diffjax.methods.starts import tuned
from diffjax.train.roles import Method, Phase

__all__ = ['single_image']


def single_image(parts: Parts, label: int = 0, scale: float = 3.0, share: float = 0.5, until: float = 0.4) -> Method:
  """SINE: `config.base` tuned on one image, its label told; drawn by `guidance.sine` of the base and it.

  What is drawn has the label that is asked for, and of the image what is coarse. `config.data` is the image alone, or
  patches of it; the loss is `config.loss`.   arXiv:2212.04489

  Args:
    parts: with labels, and a base that was trained with labels dropped.
    label: of the image.
    scale: of the guidance.
    share: of the image's model in it.
    until: the time below which the image's model is not asked, a part of the process's whole time.

  Raises:
    InputError: no base or no labels, a base that does not fit, a label that is not there, a share outside [0, 1].
  """
  if not 0 <= label < parts.classes:
    raise InputError(f'label: got {label}; allowed: one of the {parts.classes} labels, that of the image')
  if not 0 <= share <= 1:
    raise InputError(f'share: got {share}; allowed: 0 to 1')
  base = tuned(parts)

  def generator(roles: Mapping[str, Any], sampling: Sampling) -> Solved:
    fit, gate = parts.denoiser(roles['student']), until * float(parts.process.t_max)
    guided = guidance.sine(base.denoiser(roles['base']), fit, jnp.asarray(label), scale, share, gate)
    return under_solver(parts, guided, sampling)

  return Method(
    (Phase('student', parts.loss, parts.optimiser()),),
    copies={'student': 'base'},
    init=lambda key: {},
    loads=('base',),
    denoiser=lambda roles: parts.denoiser(roles['student'], 'config.base is tuned on one label'),
    generator=generator,
  )
