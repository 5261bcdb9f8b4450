"""Targets in closed form on which solvers are measured, and those on which the default was chosen."""

from collections.abc import Callable
from functools import cache
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from diffjax import keys, noise_levels, statistics
from diffjax.exact import Mixture, gaussian, mixture
from diffjax.fingerprint import stamp
from diffjax.process import Process
from diffjax.statistics.closed import knots

__all__ = ['judged', 'knowledge', 'tuning', 'unseen']

EXAMPLES, KNOTS = 4096, 120  # as diffjax statistics has them


def judged() -> dict[str, Mixture]:
  """A 1-D mixture, a sharp 2-D mixture with full covariances, an 8-D anisotropic Gaussian."""
  return {
    '1-D mixture': mixture([0.4, 0.6], [[-0.4], [0.3]], [0.12**2, 0.05**2]),
    '2-D sharp mixture': mixture([0.5, 0.3, 0.2], [[1, 0.5], [-0.8, -1], [-0.5, 1.2]], _covariances(2, 0.2, 0.05, 3)),
    '8-D Gaussian': gaussian(np.linspace(-0.5, 0.5, 8), _covariance(np.geomspace(1, 0.001, 8), 4)),
  }


def tuning() -> dict[str, Mixture]:
  """Other dimensions, shapes and widths than `judged`: what the default solver was chosen on."""
  draws = np.random.default_rng(7)
  angles = np.pi / 4 * np.arange(8)
  three = [0.5, 0.3, 0.2], [[1, 0.5], [-0.8, -1], [-0.5, 1.2]]
  return {
    'smooth 2-D mixture': mixture(*three, [0.16, 0.09, 0.25]),
    'isotropic 2-D mixture': mixture(*three, [0.01, 0.0064, 0.0144]),
    'three modes in 1-D': mixture([0.3, 0.3, 0.4], [[-0.7], [0.1], [0.8]], [0.01, 0.003, 0.02]),
    '4-D mixture': mixture(np.ones(5), 0.6 * draws.standard_normal((5, 4)), _covariances(4, 0.3, 0.05, 5)),
    '6-D Gaussian': gaussian(np.zeros(6), _covariance(np.geomspace(0.7, 0.002, 6), 9)),
    'ring': mixture(np.ones(8), 0.8 * np.stack([np.cos(angles), np.sin(angles)], 1), np.full(8, 0.004)),
    '16-D power law': gaussian(np.zeros(16), _covariance(0.6 * np.arange(1.0, 17) ** -2, 5)),
  }


def unseen() -> Mixture:
  """A mixture of neither: five modes in 3-D."""
  draws = np.random.default_rng(23)
  return mixture([1, 2, 1, 2, 1], 0.6 * draws.standard_normal((5, 3)), _covariances(3, 0.25, 0.06, 5, seed=40))


def knowledge(target: Mixture, process: Process) -> Callable[[str], Any]:
  """What informed solvers want to know: 'linear', 'energies' or the 'variance' of an element, computed when asked for.

  The network, its derivatives and its posterior variances are exact; the means over x_t are over exact draws.
  """

  @cache
  def known(what: str) -> Any:
    if what == 'variance':
      return np.diag(target.covariance())
    draws = np.asarray(target.sample(keys.per_sample(jax.random.key(3), EXAMPLES)))
    if what == 'linear':
      return statistics.linear_terms(target.denoiser(process), draws, jax.random.key(4), knots=KNOTS, batch=EXAMPLES)
    return _energies(target, process, draws)

  return known


def _energies(target: Mixture, process: Process, x0: np.ndarray) -> statistics.NoiseEnergy:
  """Gamma = 1 - E Var[eps | x_t], the mean over the elements too: without error on one Gaussian."""
  lam, z = knots(process, KNOTS), np.random.default_rng(4).standard_normal(x0.shape)
  alpha, sigma, _ = noise_levels.at(process, noise_levels.times_of(process, lam))
  at = lambda level: jnp.mean(target.moments(level[0] * x0 + level[1] * z, *level)['residual2'])  # noqa: E731
  return statistics.NoiseEnergy(stamp(process), lam, 1 - np.asarray(jax.lax.map(at, (alpha, sigma))))


def _covariance(eigenvalues: np.ndarray, seed: int) -> np.ndarray:
  """A matrix with these eigenvalues in a random basis."""
  basis = np.linalg.qr(np.random.default_rng(seed).standard_normal((len(eigenvalues),) * 2))[0]
  return basis @ np.diag(eigenvalues) @ basis.T


def _covariances(d: int, widest: float, narrowest: float, count: int, seed: int = 1) -> np.ndarray:
  """`count` matrices with standard deviations from `widest` to `narrowest`."""
  eigenvalues = np.geomspace(widest, narrowest, d) ** 2
  return np.stack([_covariance(eigenvalues, seed + i) for i in range(count)])
