"""The recipes of one network trained to denoise."""

from collections.abc import Mapping
from typing import Any

import jax
from jax import Array

from diffjax.contracts import Params
from diffjax.errors import InputError
from diffjax.losses import uncertainty
from diffjax.methods.class_token import class_token
from diffjax.methods.classifiers import classifier
from diffjax.methods.clouds import equivariant, equivariant_energy
from diffjax.methods.control import controlnet
from diffjax.methods.densities import fokker_planck, variational
from diffjax.methods.erasing import all_but_one
from diffjax.methods.generator import Solved, under_solver
from diffjax.methods.invariant import invariant
from diffjax.methods.parts import Parts, Sampling
from diffjax.methods.single_image import single_image
from diffjax.prediction import Denoiser
from diffjax.train.roles import Method, Phase

__all__ = [
  'all_but_one',
  'class_token',
  'classifier',
  'controlnet',
  'denoising',
  'equivariant',
  'equivariant_energy',
  'fokker_planck',
  'invariant',
  'modalities',
  'single_image',
  'variational',
]


def denoising(parts: Parts) -> Method:
  """Denoising: one network, one loss (`config.loss`), drawn by a solver.

  With `config.loss.given` the network is told more of an example than its label, such as its 'source'.

  Raises:
    InputError: the data have several modalities.
  """
  if isinstance(parts.shape, dict):
    raise InputError(f'got denoising for data of shape {parts.shape}; allowed: modalities, for a dict of shapes')
  dropped = parts.loss_options.get('drop_cond', 0.0)
  return _one_network(parts, 'config.loss.drop_cond is 0' if parts.classes and not dropped else '')


def modalities(parts: Parts) -> Method:
  """Denoising of several modalities, each at a time of its own; drawn jointly by a solver.

  arXiv:2303.06555

  Raises:
    InputError: the data have one modality.
  """
  if not isinstance(parts.shape, dict):
    raise InputError(f'got modalities for data of shape {parts.shape}; allowed: denoising, for one shape')
  # the null condition of several modalities is an end of time, where the others are noise
  labels = 'config.loss.name is modalities, which drops no labels' if parts.classes else ''
  return _one_network(parts, labels if parts.loss_options.get('ends', 0.05) else 'config.loss.ends is 0')


def _one_network(parts: Parts, untrained: str) -> Method:
  def init(key: Array) -> dict[str, Params]:
    student = parts.init(key)
    learned = parts.loss_options.get('uncertainty', False)
    return {'student': uncertainty.add_head(student, jax.random.fold_in(key, 1)) if learned else student}

  def denoiser(roles: Mapping[str, Any]) -> Denoiser:
    return parts.denoiser(roles['student'], untrained)

  def generator(roles: Mapping[str, Any], sampling: Sampling) -> Solved:
    return under_solver(parts, denoiser(roles), sampling)

  phases = (Phase('student', parts.loss, parts.optimiser()),)
  return Method(phases, init=init, denoiser=denoiser, generator=generator, needs=parts.given, conditions=parts.given)
