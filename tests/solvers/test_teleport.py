"""Teleportation: exact on Gaussians, harmless high up on a mixture, and the solver it wraps otherwise unchanged."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import struct
from oracle import gm_a, run_table

from diffjax import exact, keys, schedules, solvers, statistics
from diffjax.solvers import grids

EDM = schedules.edm()


def law_of(target):
  """The Gaussian of a mixture's first two moments."""
  var, basis = np.linalg.eigh(np.asarray(target.covariance(), np.float64))
  return statistics.Gaussian(np.asarray(target.mean(), np.float64), basis[:, ::-1], var[::-1])


@pytest.mark.parametrize('make', [schedules.vp_linear, schedules.edm, schedules.flow])
def test_the_leap_is_the_flow_of_a_gaussian(make, x64):
  """Any axes, to any time, 0 included; and with axes left out, that of the Gaussian without them."""
  r = np.random.default_rng(0)
  basis, _ = np.linalg.qr(r.standard_normal((4, 4)))
  mean, var = r.standard_normal(4), np.array([1.0, 0.25, 0.01, 0.0])
  process, known = make(), statistics.Gaussian(mean.reshape(2, 2), basis, var)
  target = exact.gaussian(mean, basis @ np.diag(var) @ basis.T)
  x = jnp.asarray(float(process.t_max) * r.standard_normal((8, 2, 2)))
  for share in (0.9, 0.3, 0.01, 0.0):
    s = share * process.t_max
    wanted = np.asarray(exact.gaussian_flow(target, process, x.reshape(8, 4), process.t_max, s)).reshape(8, 2, 2)
    for cut in (slice(4), slice(3)):
      part = known.replace(basis=basis[:, cut], var=var[cut])
      np.testing.assert_allclose(solvers.leap(process, part, x, process.t_max, s), wanted, atol=1e-10)


@pytest.mark.slow
def test_a_teleported_solver_is_the_solver_begun_there():
  """Multistep, stochastic and on images: the same rows, flags, evaluations and noise from the point leapt to."""
  process, r = schedules.cosine(), np.random.default_rng(0)
  known = statistics.gaussian(0.3 * r.standard_normal((30, 4, 4, 1)), rank=5)
  denoise = exact.gaussian(np.zeros(16), 0.09).denoiser(process)
  x = r.standard_normal((6, 4, 4, 1)).astype(np.float32)
  ts = grids.uniform(process, 8)[3:]
  for build in (solvers.ddpm, solvers.unipc):
    inner = build(process, ts)
    solver = solvers.teleport(inner, process, known)
    assert (solver.nfe, solver.stochastic, solver.skips) == (5, inner.stochastic, inner.skips)
    begun = solvers.leap(process, known, x, process.t_max, ts[0])
    flat = Flat(denoise)
    got = solvers.sample(flat, solver, x, jax.random.key(1))
    np.testing.assert_allclose(got, solvers.sample(flat, inner, begun, jax.random.key(1)), atol=2e-5)


class Flat(struct.PyTreeNode):
  """A denoiser of vectors for images."""

  denoise: exact.ExactDenoiser

  @property
  def process(self):
    return self.denoise.process

  def __call__(self, x, t, cond=None, memory=None):
    return jax.tree.map(lambda leaf: leaf.reshape(x.shape), self.denoise(x.reshape(len(x), -1), t))


def test_other_numbers_never_recompile_and_samples_do_not_know_each_other(compiles):
  process = schedules.cosine()
  denoise, x = gm_a().denoiser(process), np.random.default_rng(0).standard_normal((4, 2)).astype(np.float32)
  known = law_of(gm_a())

  def solver(first, scale):
    ts = grids.uniform(process, 9)[first : first + 5]
    return solvers.teleport(solvers.dpmpp_2m(process, ts), process, known.replace(var=scale * known.var))

  whole = solvers.sample(denoise, solver(2, 1.0), x)
  with compiles(0):
    other = solvers.sample(denoise, solver(3, 1.5), x)
  assert np.abs(other - whole).max() > 0.01
  alone = jax.vmap(lambda x: solvers.sample(denoise, solver(2, 1.0), x[None])[0])(x)
  np.testing.assert_allclose(alone, whole, atol=1e-5)


@pytest.fixture(scope='module')
def flow_of_the_mixture():
  """Where the flow takes 128 points from sigma 80, at several levels: classical Runge-Kutta, 1200 steps in lam."""
  x, levels, first = 80 * np.random.default_rng(0).standard_normal((128, 2)), {}, 80.0
  for sigma in (10.0, 5.0, 3.0, 2.0, 0.002):
    ts = np.exp(np.linspace(np.log(first), np.log(sigma), 240 if sigma > 0.01 else 600))
    points = levels.get(first, x)
    levels[sigma], first = run_table(solvers.deis_rhork(EDM, ts, tableau='rk4'), EDM, points), ts[-1]
    levels[first] = levels[sigma]
  return x, levels


@pytest.mark.slow
def test_relative_errors_on_a_mixture(flow_of_the_mixture, x64):
  """The published ones from sigma 80, with half as much again: the mixture looks Gaussian until its parts show."""
  x, levels = flow_of_the_mixture
  known = law_of(gm_a())
  for sigma, published in ((10.0, 2.2e-4), (5.0, 1.6e-3), (3.0, 7.0e-3), (2.0, 2.2e-2)):
    got = np.asarray(solvers.leap(schedules.edm(), known, jnp.asarray(x), 80.0, sigma))
    error = np.sqrt(np.sum((got - levels[sigma]) ** 2) / np.sum(levels[sigma] ** 2))
    assert published / 3 < error < 1.5 * published, (sigma, error)


@pytest.mark.parametrize('n, before, after, base, reached', [(18, 35, 17, 0.045, 0.033), (8, 15, 7, 0.35, 0.22)])
def test_it_saves_half_of_heuns_evaluations(n, before, after, base, reached, flow_of_the_mixture):
  """Skipping to the first node of sigma <= 3: the published evaluations and errors on the mixture, within a quarter."""
  x, levels = flow_of_the_mixture
  denoise, ts, errors = gm_a().denoiser(EDM), grids.karras(EDM, n), []
  rest = ts[np.argmax(ts <= 3) :]
  for solver, nfe in (
    (solvers.heun(EDM, ts), before),
    (solvers.teleport(solvers.heun(EDM, rest), EDM, law_of(gm_a())), after),
  ):
    assert solver.nfe == nfe
    end = np.asarray(solvers.sample(denoise, solver, x.astype(np.float32)))
    errors.append(np.sqrt(np.mean(np.sum((end - levels[0.002]) ** 2, 1))))
  assert errors[1] < errors[0]
  np.testing.assert_allclose(errors, (base, reached), rtol=0.25)


def test_the_gaussian_explains_the_score_of_the_digits():
  """At noise of four standard deviations of the data and more, 99% of the score of the points themselves."""
  from diffjax import data

  x0 = data.load('digits', 'train').arrays()['x'].reshape(-1, 64).astype(np.float64)
  known, r = statistics.gaussian(x0), np.random.default_rng(0)
  std = np.sqrt(np.mean(known.var.sum() / 64))
  for sigma in (4 * std, 10 * std):
    x = x0[:100] + sigma * r.standard_normal((100, 64))
    log = -np.sum((x[:, None] - x0) ** 2, -1) / 2 / sigma**2
    share = np.exp(log - log.max(1, keepdims=True))
    points = (share / share.sum(1, keepdims=True)) @ x0 - x
    shrunk = (x - known.mean) @ known.basis * (known.var / (known.var + sigma**2)) @ known.basis.T
    assert 1 - np.sum((points - (known.mean + shrunk - x)) ** 2) / np.sum(points**2) > 0.99


def test_refusals():
  known = law_of(gm_a())
  with pytest.raises(ValueError, match=r'gaussian: got a basis of shape \(2, 1\); allowed: \(2, 2\)'):
    solvers.teleport(solvers.ddim(EDM, [1.0, 0.5]), EDM, known.replace(basis=known.basis[:, :1]))


def test_keys_are_handed_on():
  """A solver that draws still does, per sample."""
  process = schedules.cosine()
  solver = solvers.teleport(solvers.ddpm(process, [0.5, 0.2, 0.0]), process, law_of(gm_a()))
  x = np.random.default_rng(0).standard_normal((4, 2)).astype(np.float32)
  with pytest.raises(ValueError, match='key: got None'):
    solvers.sample(gm_a().denoiser(process), solver, x)
  batch = keys.per_sample(jax.random.key(0), 4)
  whole = solvers.sample(gm_a().denoiser(process), solver, x, batch)
  np.testing.assert_allclose(solvers.sample(gm_a().denoiser(process), solver, x[2:], batch[2:]), whole[2:], atol=1e-5)
