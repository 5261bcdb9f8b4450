"""The recipe of stochastic interpolants."""

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array

from diffjax.bridges import interpolants
from diffjax.bridges.between import Asked, Between, grid
from diffjax.contracts import Params
from diffjax.errors import InputError
from diffjax.losses import couplings
from diffjax.methods.parts import Parts, Sampling
from diffjax.train.roles import Method, Phase

__all__ = ['stochastic_interpolant']

PATHS = {'linear': interpolants.linear, 'trigonometric': interpolants.trigonometric,
         'encoding_decoding': interpolants.encoding_decoding}  # fmt: skip


def stochastic_interpolant(
  parts: Parts,
  path: str = 'linear',
  scale: float = 2.0,
  noise: float = 1.0,
  coupling: str = 'independent',
  antithetic: bool = True,
) -> Method:
  """A stochastic interpolant between data and a base, drawn by its SDE with as much noise as one likes.

  The student learns the drift b, a second network of its kind the denoiser eta. The base is the data's 'source' where
  the config tells of one, else N(0, I). `config.process` and the solver are not used; `config.sampling.steps` is.

  arXiv:2303.08797

  Args:
    parts: what the config has made.
    path: 'linear', 'trigonometric' or 'encoding_decoding'.
    scale: of the squared noise about the path.
    noise: of the sampler, in units of gamma; 0 draws by the ODE, and learns no denoiser.
    coupling: 'independent', or 'minibatch_ot' for a Gaussian base: within a label, where there are any.
    antithetic: whether noise comes in pairs z, -z.

  Raises:
    InputError: several modalities, an unknown path or coupling, one that does not go with a source, numbers out of
      range.
  """
  if isinstance(parts.shape, dict):
    raise InputError(f'got stochastic_interpolant for data of shape {parts.shape}; allowed: data of one shape')
  if path not in PATHS:
    raise InputError(f'path: got {path!r}; allowed: {", ".join(PATHS)}')
  if coupling not in couplings.__all__:
    raise InputError(f'coupling: got {coupling!r}; allowed: {", ".join(couplings.__all__)}')
  paired = 'source' in parts.others
  if coupling == 'minibatch_ot' and paired:
    raise InputError('coupling: got minibatch_ot with data that come in pairs; allowed: independent')
  assigned = coupling == 'minibatch_ot'
  joined = couplings.minibatch_ot(classwise=bool(parts.classes)) if assigned else couplings.independent()
  if noise < 0:
    raise InputError(f'noise: got {noise}; allowed: a number of at least 0')
  curve = PATHS[path](scale=scale)
  roles = {'student': 'drift', **({'denoiser': 'denoiser'} if noise else {})}
  ask: dict[str, Any] = dict(antithetic=antithetic, coupling=joined)
  phases = tuple(
    Phase(role, interpolants.regression(curve, parts.net, field, role=role, **ask), parts.optimiser())
    for role, field in roles.items()
  )

  def init(key: Array) -> dict[str, Params]:
    return {role: parts.init(k) for role, k in zip(roles, jax.random.split(key, len(roles)), strict=True)}

  def generator(held: Mapping[str, Any], sampling: Sampling) -> Between:
    drift, eta = (Asked(held[role], parts.net) if role in held else None for role in ('student', 'denoiser'))
    ts = jnp.asarray(grid(sampling.steps), jnp.float32)
    return Between(drift, eta, curve, jnp.asarray(noise, jnp.float32), ts, tuple(parts.shape), paired)

  needs = ('source',) if paired else ()
  return Method(phases, init=init, averaged=tuple(roles), needs=needs, conditions=needs, generator=generator)
