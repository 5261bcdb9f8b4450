"""UFOGen: a diffusion model and a GAN in one network, which takes noise to data in one step or a few."""

from collections.abc import Mapping
from typing import Any

import jax

from diffjax.errors import InputError
from diffjax.fewstep import pairs
from diffjax.fewstep.adversarial import Network, discriminator_loss, generator_loss, judge_of, paced
from diffjax.fewstep.flow_map import added
from diffjax.fewstep.makers import maker_of
from diffjax.fewstep.strides import Strides, in_strides, made_stride, real_stride, reconstruction
from diffjax.losses.times import uniform
from diffjax.methods.parts import Parts, Sampling, Source
from diffjax.methods.starts import grafted, loads, same_network
from diffjax.train.roles import Copy, Method, Phase

__all__ = ['ufogen']


def ufogen(
  parts: Parts,
  *,
  share: float = 0.25,
  denoising: float = 1.0,
  adversarial: float = 1.0,
  posterior: bool = False,
  beside: bool = False,
  discriminator: Any = None,
  every: int = 2,
  pace: float = 1.0,
) -> Method:
  """UFOGen: data made of x_t in one step, judged by their own noised version against that of real data.

      L_G = softplus(-D(x_s', s)) + lam alpha_t^2 / (2 sigma_{t|s}^2) |x0 - x0'|^2,    x0' = G(x_t, t)
      x_s' = alpha_s x0' + sigma_s eps',   x_t, x_s of data,   t uniform, s = max(t - t_max / 4, 0)

  With `posterior` and `beside`, without the second term, it is a denoising diffusion GAN. Student and discriminator
  begin as the teacher where there is one of this network, the discriminator's last layer at zero. What is made of t_max
  is judged at (1 - share) t_max: where the noise hides the data's modes there, draw in several strides.

  arXiv:2311.09257 Alg. 1

  Args:
    parts: what the config has made; a teacher, which only lends its weights, is not needed.
    share: of t_max between t and s.
    denoising: lam.
    adversarial: the weight of the first term; 0 leaves a denoiser.
    posterior: whether x_s' ~ q(x_s | x_t, x0') instead.
    beside: whether the discriminator sees x_t too.
    discriminator: as of `adversarial.judge_of`.
    every: the discriminator learns at one step of so many.
    pace: its learning rate as a multiple of the generator's.

  Raises:
    InputError: a number out of its range, or a network that does not fit.
  """
  if denoising < 0 or adversarial < 0 or denoising == adversarial == 0:
    raise InputError(f'denoising, adversarial: got {denoising}, {adversarial}; allowed: at least 0, and not both 0')
  maker, judge = maker_of(parts, 0), judge_of(parts, discriminator, beside=beside)
  law = pairs.lagging(uniform(), share)
  real, made = real_stride(maker, law, beside=beside), made_stride(maker, law, posterior=posterior, beside=beside)
  loss = generator_loss(judge, made) if adversarial else reconstruction(maker, law)
  if adversarial and denoising:
    loss = added(loss, reconstruction(maker, law), name='denoising', most=denoising / adversarial, own=False)
  copies, teacher = begun(parts, judge, discriminator is None and not beside)
  seen = parts.inputs(1)

  def init(key: Any) -> dict[str, Any]:
    fresh = {'student': maker.net.init(key, *seen), judge.role: judge.init(jax.random.fold_in(key, 1))}
    return {role: params for role, params in fresh.items() if role not in copies}

  def generator(roles: Mapping[str, Any], sampling: Sampling) -> Strides:
    return in_strides(parts, maker, roles['student'], sampling, posterior=posterior)

  judging = Phase(judge.role, discriminator_loss(judge, real, made), paced(parts, pace), every=every)
  return Method(
    phases=(Phase('student', loss, parts.optimiser()), *((judging,) if adversarial else ())),
    copies=copies,
    init=init,
    loads=loads(teacher),
    generator=generator,
  )


def begun(parts: Parts, judge: Network, same: bool) -> tuple[dict[str, Copy], Source | None]:
  """The roles that begin as the teacher, where it is of the student's network, and that teacher."""
  if parts.teacher is None or parts.teacher.kind is None:
    return {}, None
  teacher = parts.source('teacher')
  if not same_network(parts, teacher):
    raise InputError(f'teacher: got {teacher.name} of another network or kind; allowed: config.net and '
                     'config.loss.kind as those of the teacher, or none')  # fmt: skip
  shapes = jax.eval_shape(judge.init, jax.random.key(0))

  def without_end(params: Any) -> Any:
    return grafted(shapes, {name: part for name, part in params.items() if name != 'out'})

  copies = {'student': Copy('teacher')}
  return (copies | {judge.role: Copy('teacher', begins=without_end)} if same else copies), teacher
