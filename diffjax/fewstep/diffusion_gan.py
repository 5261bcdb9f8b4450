"""Denoising diffusion GANs: a few long strides from noise to data, each drawn by a generator with a latent."""

from collections.abc import Mapping
from typing import Any

import jax

from diffjax.fewstep import pairs
from diffjax.fewstep.adversarial import discriminator_loss, generator_loss, judge_of, paced
from diffjax.fewstep.flow_map import PROGRESS, progress
from diffjax.fewstep.makers import maker_of
from diffjax.fewstep.strides import Strides, in_strides, made_stride, real_stride
from diffjax.methods.parts import Parts, Sampling
from diffjax.solvers import grids
from diffjax.train.roles import Method, Phase

__all__ = ['diffusion_gan']


def diffusion_gan(
  parts: Parts,
  *,
  strides: int = 4,
  latent: int = 4,
  discriminator: Any = None,
  r1: float = 0.02,
  every: int = 15,
  pace: float = 0.78,
) -> Method:
  """Denoising diffusion GANs: x_s given x_t as a generator with a latent, for strides so long that it is no Gaussian.

      L_D = softplus(-D(x_s, x_t, s)) + softplus(D(x_s', x_t, s)) + (r1 / 2) |grad_{x_s} D(x_s, x_t, s)|^2
      L_G = softplus(-D(x_s', x_t, s)),    x_s' ~ q(x_s | x_t, x0'),  x0' = G(x_t, t, z)

  at t = t_max i / T, s one stride nearer the data, i uniform on 1 .. T, (x_s, x_t) of one example. Sampling: the T
  strides with a fresh z each. The latent enters as channels of noise beside x, in place of a mapping network.

  arXiv:2112.07804 Alg. 1

  Args:
    parts: what the config has made; the paper's network is of kind x0 on vp_linear.
    strides: T.
    latent: channels of z; 0 leaves a stride with the noise of q alone.
    discriminator: as of `adversarial.judge_of`.
    r1: the weight of the penalty.
    every: the penalty is there in one step of so many.
    pace: the discriminator's learning rate as a multiple of the generator's.

  Raises:
    InputError: a number out of its range, a network that does not fit, or data that are not numbers of one modality.
  """
  maker, judge = maker_of(parts, latent), judge_of(parts, discriminator, beside=True)
  law = pairs.strides(strides)
  real, made = real_stride(maker, law, beside=True), made_stride(maker, law, posterior=True, beside=True)
  seen = parts.inputs(1)

  def generator(roles: Mapping[str, Any], sampling: Sampling) -> Strides:
    return in_strides(parts, maker, roles['student'], sampling, only=grids.uniform(parts.process, strides))

  return Method(
    phases=(
      Phase('student', generator_loss(judge, made), parts.optimiser()),
      Phase(judge.role, discriminator_loss(judge, real, made, r1=r1, every=every), paced(parts, pace)),
    ),
    init=lambda key: {
      'student': maker.net.init(key, *seen),
      judge.role: judge.init(jax.random.fold_in(key, 1)),
    },  # fmt: skip
    buffers={PROGRESS: progress()},
    generator=generator,
  )
