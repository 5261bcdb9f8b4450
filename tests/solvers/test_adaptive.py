"""Adaptive solvers: errors and evaluations within their bounds, counted ones, and independence of the batch."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from diffjax import exact, schedules
from diffjax.prediction import as_denoiser
from diffjax.solvers import grids, sample, unipc
from diffjax.solvers.own.adaptive import dopri5, dpm_adaptive


@pytest.fixture(scope='module')
def wide():
  """GM-A, a smooth 2-D mixture, under VP, its starts, and the PF-ODE solved from them with 1000 steps of order four."""
  with jax.enable_x64(True):
    target = exact.mixture([0.5, 0.3, 0.2], [[1, 0.5], [-0.8, -1], [-0.5, 1.2]], np.array([0.4, 0.3, 0.5]) ** 2)
    process = schedules.vp_linear()
    denoise = target.denoiser(process)
    x = jax.random.normal(jax.random.key(0), (512, 2))
    return denoise, x, sample(denoise, unipc(process, grids.uniform_lam(process, 1000, to_zero=False), order=3), x)


@pytest.fixture
def problem(wide, x64):
  """The same in a test in float64, and the error of a solution."""
  denoise, x, reference = wide
  return denoise, x, lambda solution: float(jnp.sqrt(jnp.mean(jnp.sum((solution.x - reference) ** 2, -1))))


def test_published_form_meets_its_bounds(problem):
  """Whole-batch control, as published: error and evaluations within bounds that an independent run left room for."""
  denoise, x, error = problem
  for solver, options, bound, evaluations in (
    (dopri5, dict(rtol=1e-5, atol=1e-5), 1.2e-4, 130),
    (dopri5, dict(rtol=1e-3, atol=1e-3), 5e-3, 70),
    (dpm_adaptive, dict(order=3), 2e-3, 90),
    (dpm_adaptive, dict(order=2), 8e-3, 140),
    (dpm_adaptive, dict(order=3, rtol=1e-3, atol=1e-4), 5e-5, 250),
  ):
    solution = solver(denoise, x, batch_coupled=True, **options)
    assert bool(solution.success.all())
    assert error(solution) <= bound, (solver, options)
    assert int(solution.nfe.max()) == int(solution.nfe.min()) <= evaluations


@pytest.mark.parametrize(
  'solver, tight', [(dopri5, dict(rtol=1e-8, atol=1e-8)), (dpm_adaptive, dict(rtol=1e-4, atol=1e-5))]
)
def test_a_sample_does_not_depend_on_its_batch_and_tolerances_bind(problem, solver, tight):
  denoise, x, error = problem
  whole, part = solver(denoise, x), solver(denoise, x[:64])
  np.testing.assert_allclose(part.x, whole.x[:64], atol=1e-12)
  np.testing.assert_array_equal(part.nfe, whole.nfe[:64])
  assert len(set(whole.nfe.tolist())) > 3  # samples do take steps of their own
  assert error(solver(denoise, x, **tight)) < 0.1 * error(whole)


def test_a_gaussian_lands_on_its_closed_form(x64):
  """Where the flow is known, and on a process whose lam is infinite at the start."""
  target = exact.gaussian([0.3, -1.0], [[1.0, 0.6], [0.6, 0.5]])
  for process in (schedules.flow(), schedules.edm(), schedules.cosine()):
    x = process.schedule(process.t_max)[1] * jax.random.normal(jax.random.key(1), (16, 2))
    solution = dopri5(target.denoiser(process), x, rtol=1e-9, atol=1e-9)
    wanted = exact.gaussian_flow(target, process, x, process.t_max, process.t_min)
    np.testing.assert_allclose(solution.x, wanted, atol=1e-6)


def test_evaluations_are_those_that_happen(problem):
  denoise, x, _ = problem
  seen = []

  def counted(x, t, cond):
    jax.debug.callback(lambda: seen.append(1))
    return denoise(x, t).x0

  counting = as_denoiser(counted, denoise.process)
  solution = dopri5(counting, x[:4], rtol=1e-3, atol=1e-3, batch_coupled=True)
  jax.effects_barrier()
  assert len(seen) == int(solution.nfe.max())


def test_a_limit_is_reported(problem):
  denoise, x, _ = problem
  solution = dopri5(denoise, x[:8], max_steps=3)
  assert not bool(solution.success.any()) and set(solution.nfe.tolist()) == {19}


def test_bad_input(problem):
  denoise, x, _ = problem
  with pytest.raises(ValueError, match='order: got 4'):
    dpm_adaptive(denoise, x, order=4)
  with pytest.raises(ValueError, match='end: got 2'):
    dopri5(denoise, x, end=2.0)
  with pytest.raises(ValueError, match='rtol'):
    dopri5(denoise, x, rtol=0)
  flow = exact.gaussian([0.0], 1.0).denoiser(schedules.flow())
  with pytest.raises(ValueError, match='finite lam'):
    dpm_adaptive(flow, x[:, :1])


@pytest.mark.parametrize('solver', [dopri5, dpm_adaptive])
def test_float32_is_kept_and_mapping_changes_nothing(solver):
  """The properties of the shared table that a while loop can have: it has no reverse-mode gradient."""
  denoise = exact.ring8().denoiser(schedules.vp_linear())
  x = jax.random.normal(jax.random.key(0), (6, 2))
  solution = solver(denoise, x, rtol=1e-2, atol=1e-2)
  assert solution.x.dtype == jnp.float32 and bool(solution.success.all())
  mapped = jax.vmap(lambda x: solver(denoise, x[None], rtol=1e-2, atol=1e-2))(x)
  np.testing.assert_allclose(mapped.x[:, 0], solution.x, atol=1e-4)
  np.testing.assert_array_equal(mapped.nfe[:, 0], solution.nfe)
