"""What the table of inverse problems measures: problems with an exact posterior, and methods as functions of them."""

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from diffjax import exact, guidance, inverse, keys, schedules, solvers
from diffjax.exact import Mixture
from diffjax.inverse import Observation
from diffjax.solvers import grids, sample
from diffjax.steering import particle_keys, particles

__all__ = ['METHODS', 'Problem', 'measured', 'problems']

STEPS, COUNT, ENSEMBLE = 64, 4000, 500
WIDEST = 80.0


class Problem(NamedTuple):
  """A prior, y = rows x0 + n with n of deviation r, and the deviation of the data that methods are told."""

  prior: Mixture
  rows: np.ndarray
  y: np.ndarray
  r: float
  std: float

  @property
  def observation(self) -> Observation:
    """What is seen, of all samples."""
    d = self.prior.means.shape[1]
    return inverse.observation(inverse.matrix((d,), self.rows), self.y[None], inverse.gaussian(self.r))

  @property
  def posterior(self) -> Mixture:
    """In closed form."""
    return self.prior.observe(self.rows, self.y, self.r**2 * np.eye(len(self.rows)))


def problems() -> dict[str, Problem]:
  """The plane's mixture of three seen along a line and in one coordinate, and an 8-D Gaussian by three projections."""
  plane = exact.mixture([0.5, 0.3, 0.2], [[-2, 0], [2, 0], [0, 2.5]], [0.25] * 3)
  rng = np.random.default_rng(0)
  basis = np.linalg.qr(rng.standard_normal((8, 8)))[0]
  eight = exact.gaussian(np.linspace(-0.5, 0.5, 8), basis @ np.diag(np.geomspace(1, 0.01, 8)) @ basis.T)
  rows = rng.standard_normal((3, 8)) / np.sqrt(8)
  return {
    'GM3, a line': Problem(plane, np.array([[1, 0.5]]), np.array([0.3]), 0.5, 1.5),
    'GM3, a coordinate': Problem(plane, np.array([[0.0, 1]]), np.array([1.0]), 0.3, 1.5),
    '8-D Gaussian, 3 projections': Problem(eight, rows, np.array([0.6, -0.4, 0.2]), 0.1, 0.6),
  }


class Drawn(NamedTuple):
  """Samples (n, d), their weights (n,), and what one costs."""

  x: Array
  weights: Array
  cost: float


def drawn(denoise: Any, solver: Any, start: Array, seed: int) -> Drawn:
  x = sample(denoise, solver, start, jax.random.key(seed))
  times = np.asarray(solver.rows.t)[np.asarray(solver.rows.evaluated)]
  return Drawn(x, jnp.full(len(x), 1 / len(x)), float(sum(guidance.cost(denoise, t) for t in times)))


def noisy(problem: Problem, seed: int, std: float = WIDEST) -> Array:
  d = problem.prior.means.shape[1]
  return std * jax.random.normal(jax.random.key(seed + 1000), (COUNT, d))


def guided(make: Callable, problem: Problem, seed: int, *, stochastic: bool = True) -> Drawn:
  """A transform under the SDE, or under as many evaluations of Heun's ODE, on EDM's process and grid."""
  process = schedules.edm()
  denoise = make(problem.prior.denoiser(process), problem.observation)
  if stochastic:
    return drawn(denoise, solvers.ancestral(process, grids.karras(process, STEPS)), noisy(problem, seed), seed)
  return drawn(denoise, solvers.heun(process, grids.karras(process, STEPS // 2)), noisy(problem, seed), seed)


def isotropic(problem: Problem, seed: int, *, name: str, **options: Any) -> Drawn:
  return guided(partial(getattr(inverse, name), data_std=problem.std), problem, seed, **options)


def replaced(problem: Problem, seed: int) -> Drawn:
  process = schedules.edm()
  solver = solvers.ancestral(process, grids.karras(process, STEPS))
  solver = inverse.replacement(solver, process, problem.observation)
  return drawn(problem.prior.denoiser(process), solver, noisy(problem, seed), seed)


def decoupled(problem: Problem, seed: int, *, inner: int = 1, own: bool = True) -> Drawn:
  process = schedules.edm()
  levels = np.append(np.geomspace(WIDEST, 0.02, STEPS // inner), 0.0)
  std = problem.std if own else np.inf
  solver = inverse.daps(process, levels, problem.observation, data_std=std, inner=inner)
  return drawn(problem.prior.denoiser(process), solver, noisy(problem, seed), seed)


def flow(problem: Problem, seed: int, *, name: str) -> Drawn:
  process = schedules.flow()
  ts = np.linspace(1, 0, STEPS + 1)
  denoise = getattr(inverse, name)(problem.prior.denoiser(process), problem.observation, 0.3)
  table = inverse.flowdps_steps(process, ts) if name == 'flowdps' else solvers.euler(process, ts)
  return drawn(denoise, solvers.pair_form(table, process), noisy(problem, seed, 1.0), seed)


def ensemble(problem: Problem, seed: int) -> Drawn:
  """Eight ensembles of 500 particles, pooled."""
  process, runs = schedules.vp_linear(), COUNT // ENSEMBLE
  ts = np.linspace(1, 0.03, STEPS + 1) ** 2
  solver = particles(solvers.euler_maruyama(process, ts), ENSEMBLE, whole=True, end=ts[-1])
  denoise = inverse.afdps(problem.prior.denoiser(process), problem.observation)
  d = problem.prior.means.shape[1]
  x = inverse.afdps_start(process, problem.observation, jax.random.key(seed + 1000), jnp.zeros((COUNT, d)))
  out = sample(denoise, solver, x, particle_keys(keys.per_sample(jax.random.key(seed), runs), ENSEMBLE))
  return Drawn(out.x.reshape(COUNT, d), out.weights.reshape(-1) / runs, float(STEPS))


METHODS: dict[str, Callable[..., Drawn]] = {
  'replacement': replaced,
  'dps': partial(guided, make=inverse.dps),
  'dps, ODE': partial(guided, make=inverse.dps, stochastic=False),
  'pigdm': partial(isotropic, name='pigdm'),
  'pigdm, exact covariance': partial(guided, make=partial(inverse.pigdm, covariance='exact')),
  'pigdm, exact covariance, ODE': partial(guided, make=partial(inverse.pigdm, covariance='exact'), stochastic=False),
  'proximal': partial(isotropic, name='proximal'),
  'daps': decoupled,
  'daps, as published': partial(decoupled, inner=4, own=False),
  'flowchef': partial(flow, name='flowchef'),
  'flowdps': partial(flow, name='flowdps'),
  'afdps': ensemble,
}


def measured(method: str, problem: Problem, seed: int = 0) -> dict[str, float]:
  """The figures of samples against the posterior, and the cost of a sample in forwards and vector-Jacobian products.

  tv: total variation of the shares of the nearest component; mean: the distance of the means over the posterior's
  deviation; variance: the total variance over the posterior's.
  """
  out = METHODS[method](problem=problem, seed=seed)
  x, w, posterior = np.asarray(out.x, float), np.asarray(out.weights, float), problem.posterior
  truth = posterior.sample(keys.per_sample(jax.random.key(7), 40000))
  means = np.asarray(posterior.means)

  def shares(x: np.ndarray, w: np.ndarray) -> np.ndarray:
    near = np.argmin(((x[:, None] - means) ** 2).sum(-1), 1)
    return np.array([w[near == k].sum() for k in range(len(means))])

  mean, total = w @ x, float(np.trace(posterior.covariance()))
  off = shares(x, w) - shares(np.asarray(truth), np.full(len(truth), 1 / len(truth)))
  return dict(
    tv=float(np.abs(off).sum() / 2),
    mean=float(np.linalg.norm(mean - np.asarray(posterior.mean())) / np.sqrt(total)),
    variance=float((w @ (x - mean) ** 2).sum() / total),
    cost=out.cost,
  )
