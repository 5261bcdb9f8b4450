"""The recipes of a network that is judged as a density: by its exact bound, or by its Fokker-Planck equation."""

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax import Array

from diffjax import losses
from diffjax.contracts import Params
from diffjax.errors import InputError
from diffjax.kinds import as_kind
from diffjax.likelihood import variational as bounds
from diffjax.losses.fokker_planck import Potential
from diffjax.losses.times import stratified
from diffjax.methods.generator import Solved, under_solver
from diffjax.methods.parts import Parts, Sampling
from diffjax.prediction import Denoiser
from diffjax.process import Process
from diffjax.train.roles import Method, Phase

__all__ = ['fokker_planck', 'variational']


def variational(
  parts: Parts,
  levels: int = 0,
  ends: tuple[float, float] = (-13.3, 5.0),
  width: int = 1024,
  learning_rate: float = 1e-3,
) -> Method:
  """VDM: the exact bound on the likelihood, under a schedule that is learned so that the bound varies least.

  The student minimises the bound in nats a dimension; the schedule's two ends too, and its interior the variance of the
  estimate. The network is told the noise level, so it is drawn from on the config's process, any variance-preserving
  one; levels of it outside the learned ends were not trained on.   arXiv:2107.00630

  Args:
    parts: what the config has made; the process is that of sampling.
    levels: how many values a component of the data has, evenly on [-1, 1]; 0 where it is continuous.
    ends: -2 lam at the data and at the noise, as they begin.
    width: of the schedule's net.
    learning_rate: of the schedule, by Adam.

  Raises:
    InputError: a process whose alpha^2 + sigma^2 is not 1, several modalities, one level, ends that do not rise, no
      width.
  """
  if isinstance(parts.shape, dict):
    raise InputError(f'got variational for data of shape {parts.shape}; allowed: data of one shape')
  alpha, sigma = parts.process.schedule(jnp.linspace(0.01, 0.9, 8) * parts.process.t_max)
  if not np.allclose(alpha**2 + sigma**2, 1, atol=1e-3):
    raise InputError('process: got one whose alpha^2 + sigma^2 is not 1; allowed: vp_linear, cosine, sigmoid')
  if levels == 1 or levels < 0:
    raise InputError(f'levels: got {levels}; allowed: 0, or a whole number of at least 2')
  if not learning_rate > 0:
    raise InputError(f'learning_rate: got {learning_rate}; allowed: a positive number')
  bounds.check_schedule(ends, width)

  def denoised(roles: Mapping[str, Any], process: Process) -> Denoiser:
    told = 'config.method variational drops no labels' if parts.classes else ''
    made = parts.denoiser(roles['student'], told)
    return made.replace(process=process.replace(by_noise=True))

  def init(key: Array) -> dict[str, Params]:
    k_net, k_schedule = jax.random.split(key)
    return {'student': parts.init(k_net), 'schedule': bounds.schedule_params(k_schedule, ends, width)}

  def denoiser(roles: Mapping[str, Any]) -> Denoiser:
    return denoised(roles, parts.process)

  def generator(roles: Mapping[str, Any], sampling: Sampling) -> Solved:
    return under_solver(parts, denoiser(roles), sampling)

  ask: dict[str, Any] = dict(times=stratified(), levels=levels or None)
  phases = (
    Phase('student', bounds.elbo(denoised, **ask), parts.optimiser()),
    Phase('schedule', bounds.schedule_variance(denoised, **ask), optax.adam(learning_rate)),
  )
  return Method(phases, init=init, denoiser=denoiser, generator=generator)


def fokker_planck(parts: Parts, weight: float = 1.0, box: float = 0.0, probe: str = 'rademacher') -> Method:
  """A network that is a log-density, held to the Fokker-Planck equation of its process beside denoising.

  arXiv:2311.15996; see `losses.fokker_planck`. The sum of the net's outputs is what it adds to the log-density of pure
  noise; drawn by a solver, of its gradient. `config.loss` is not used.

  Args:
    parts: what the config has made.
    weight: of the residual.
    box: half the side of the box in which it is taken, 0 for the noised data.
    probe: of the Laplacian, 'rademacher' or 'exact'.

  Raises:
    InputError: several modalities, a process whose alpha reaches 0, or as the loss.
  """
  if isinstance(parts.shape, dict):
    raise InputError(f'got fokker_planck for data of shape {parts.shape}; allowed: data of one shape')
  process = parts.process
  alpha, sigma = process.schedule(process.t_max)
  if not alpha > 0:
    raise InputError('process: got one whose alpha reaches 0, where a score has no drift; allowed: all but flow')
  net = Potential(parts.net, float(alpha**2 + sigma**2))
  loss = losses.fokker_planck(process, net, weight=weight, box=box, probe=probe)

  def denoiser(roles: Mapping[str, Any]) -> Denoiser:
    told = 'config.method fokker_planck drops no labels' if parts.classes else ''
    return Denoiser(roles['student'], process, as_kind('score'), parts.null, net=net, untrained=told)

  def generator(roles: Mapping[str, Any], sampling: Sampling) -> Solved:
    return under_solver(parts, denoiser(roles), sampling)

  return Method((Phase('student', loss, parts.optimiser()),), denoiser=denoiser, generator=generator)
