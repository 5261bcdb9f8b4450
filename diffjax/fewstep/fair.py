"""Fair synthetic data: a latent that knows nothing of an attribute, distilled into a small encoder."""

import dataclasses
import math
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
from flax import struct
from jax import Array
from jax.lax import stop_gradient

from diffjax import keys, nets
from diffjax.contracts import Cond, Data, KeyBatch, Params
from diffjax.dtypes import widened
from diffjax.errors import InputError
from diffjax.losses.denoising import mean_square
from diffjax.methods import Parts, Sampling, Solved, under_solver
from diffjax.metrics.dependence import distance_covariance
from diffjax.nets import Apply
from diffjax.pytree import PyTree
from diffjax.train.roles import Method, Phase

__all__ = ['fair_latent_distillation']


def fair_latent_distillation(
  parts: Parts,
  *,
  latent: int = 4,
  width: int = 64,
  small: int = 16,
  depth: int = 2,
  fairness: float = 20.0,
  prior: float = 0.05,
  utility: float = 1.0,
  sensitive: str = 'sensitive',
) -> Method:
  """Fair latent distillation: a fair autoencoder teaches a small encoder, of whose latents the student is a diffusion.

  Three roles move beside each other, each towards those before it, which pass no gradient on:

      teacher   |x - dec(z)|^2 + w_p KL(q(z|x) | N(0, I)) + w_f dCov^2(z, s) - log p(y | z),  z ~ q(z|x)
      small     |e_s(x) - e_t(x)|^2 + w_u KL(p(y | e_t(x)) | p(y | e_s(x))),  e_t the mean of q
      student   denoises e_s(x), given the label y, by `config.loss`

  with s the attribute that shall not be told from z. Samples are latents of the student under `config.sampling`,
  decoded. What a model learns from them it learns without the attribute.   arXiv:2408.10755

  Args:
    parts: with labels y and the attribute among what an example holds.
    latent: dimensions of z.
    width: of the teacher's encoder and of the decoder.
    small: width of the small encoder.
    depth: layers of all of these.
    fairness: w_f.
    prior: w_p.
    utility: w_u.
    sensitive: the name of the attribute.

  Raises:
    InputError: no labels, no such attribute, tokens or several modalities, a size or weight out of its range.
  """
  if not parts.classes or parts.vocabulary or isinstance(parts.shape, dict):
    raise InputError('data: got tokens, several modalities or no labels; allowed: numbers of one modality with labels')
  if sensitive not in parts.others:
    raise InputError(f'sensitive: got {sensitive!r}; allowed: one of {", ".join(parts.others) or "config.data.others"}')
  if min(latent, width, small, depth) < 1 or min(fairness, prior, utility) < 0:
    raise InputError(f'latent, width, small, depth, fairness, prior, utility: got {latent}, {width}, {small}, {depth}, '
                     f'{fairness:g}, {prior:g}, {utility:g}; allowed: sizes from 1, weights from 0')  # fmt: skip
  size = math.prod(parts.shape)
  encoder, lesser = nets.mlp(width, depth, 2 * latent), nets.mlp(small, depth, latent)
  decoder, head = nets.mlp(width, depth, size), nets.mlp(small, 1, parts.classes)
  within = dataclasses.replace(parts, shape=(latent,))

  def teacher_loss(roles: dict[str, Any], batch: Any, key: Array) -> tuple[Array, dict[str, Array]]:
    own, x = roles['teacher'], widened(batch['x'])
    mean, log_std = jnp.split(_at_zero(encoder, own['encoder'], x), 2, -1)
    z = mean + jnp.exp(log_std) * keys.normal(keys.per_sample(key, len(x)), mean)
    error = mean_square(_at_zero(decoder, own['decoder'], z).reshape(x.shape), x)
    divergence = jnp.sum((mean**2 + jnp.exp(2 * log_std) - 1) / 2 - log_std, -1)
    told = distance_covariance(z, batch[sensitive].reshape(len(x), -1), unbiased=True)
    right = -_log_likely(head, own['head'], z, batch['cond'])
    value = error + prior * divergence + fairness * told + right
    return value, {
      'reconstruction': error,
      'divergence': divergence,
      'told': jnp.full_like(error, told),
      'label': right,
    }

  def small_loss(roles: dict[str, Any], batch: Any, key: Array) -> tuple[Array, dict[str, Array]]:
    own, x = stop_gradient(roles['teacher']), widened(batch['x'])
    taught = jnp.split(_at_zero(encoder, own['encoder'], x), 2, -1)[0]
    learnt = _at_zero(lesser, roles['small'], x)
    p, q = (jax.nn.log_softmax(_at_zero(head, own['head'], z)) for z in (taught, learnt))
    quality, useful = mean_square(learnt, taught), jnp.sum(jnp.exp(p) * (p - q), -1)
    return quality + utility * useful, {'quality': quality, 'utility': useful}

  def student_loss(roles: dict[str, Any], batch: Any, key: Array) -> tuple[Array, dict[str, Array]]:
    z = stop_gradient(_at_zero(lesser, roles['small'], widened(batch['x'])))
    return parts.loss({'student': roles['student']}, {'x': z, 'cond': batch['cond']}, key)

  def init(key: Array) -> dict[str, Params]:
    x, z, t = jnp.zeros((1, *parts.shape)), jnp.zeros((1, latent)), jnp.zeros(1)
    of = lambda net, i, x: net.init(jax.random.fold_in(key, i), x, t, None)  # noqa: E731
    teacher = {'encoder': of(encoder, 1, x), 'decoder': of(decoder, 2, z), 'head': of(head, 3, z)}
    return {'student': within.init(key), 'teacher': teacher, 'small': of(lesser, 4, x)}

  def generator(roles: Mapping[str, Any], sampling: Sampling) -> Decoded:
    drawn = under_solver(within, within.denoiser(roles['student']), dataclasses.replace(sampling, data=None))
    return Decoded(drawn, roles['teacher']['decoder'], decoder, parts.shape)

  losses = {'teacher': teacher_loss, 'small': small_loss, 'student': student_loss}
  return Method(
    phases=tuple(Phase(role, loss, parts.optimiser()) for role, loss in losses.items()),
    averaged=('student',),
    init=init,
    needs=(sensitive,),
    generator=generator,
  )


class Decoded(PyTree):
  """Latents that a solver draws, decoded.

  Attributes:
    latents: what draws them.
    params: of the decoder.
  """

  latents: Solved
  params: Params
  net: Apply = struct.field(pytree_node=False)
  shape: tuple[int, ...] = struct.field(pytree_node=False)

  @property
  def nfe(self) -> int:
    """Evaluations of the student."""
    return self.latents.nfe

  @property
  def cost(self) -> float:
    """Forwards of the student and the decoder."""
    return self.latents.cost + 1

  def check_cond(self, cond: Cond, field: str = 'cond') -> None:
    """Raises InputError for labels that the student does not have."""
    self.latents.check_cond(cond, field)

  def __call__(self, key_batch: KeyBatch, cond: Cond = None) -> Data:
    """The samples, one a key."""
    z = self.latents(key_batch, cond)
    return _at_zero(self.net, self.params, z).reshape(len(key_batch), *self.shape)


def _at_zero(net: Apply, params: Params, x: Array) -> Array:
  out: Any = net(params, x, jnp.zeros(len(x)))
  return out


def _log_likely(head: Apply, params: Params, z: Array, label: Array) -> Array:
  return jnp.take_along_axis(jax.nn.log_softmax(_at_zero(head, params, z)), label[:, None], 1)[:, 0]
