"""Solvers run backwards on their grid."""

import jax
import numpy as np
import pytest

from diffjax import keys, schedules
from diffjax.errors import InputError
from diffjax.exact import gaussian, gaussian_flow, mixture
from diffjax.represent import inversion, reconstructed
from diffjax.solvers import ddim, ddpm, dpmpp_2m, heun, sample

TARGET = mixture([0.5, 0.3, 0.2], [[-2, 0], [2, 0], [0, 2.5]], [0.25] * 3)


def data(target, n=64):
  return target.sample(keys.per_sample(jax.random.key(0), n))


@pytest.mark.parametrize('make', [schedules.vp_linear, schedules.edm])
def test_it_solves_the_flow_of_a_gaussian_the_other_way(make):
  """The noise is that of the exact flow; the grid of the other direction is the same."""
  process, target = make(), gaussian([0.3, -0.2], [[0.5, 0.2], [0.2, 0.4]])
  first = 0.9 * float(process.t_max) if make is not schedules.edm else 20.0
  ts = np.geomspace(first, 0.02, 41)
  solver = inversion(process, ts, dpmpp_2m)
  np.testing.assert_allclose(solver.rows.t, ts[:0:-1], rtol=1e-9)
  x = data(target)
  noise = sample(target.denoiser(process), solver, x)
  want = gaussian_flow(target, process, x, ts[-1], ts[0])
  assert np.sqrt(np.mean((noise - want) ** 2)) < 0.02 * np.std(want)


def test_reconstruction_is_as_good_as_the_order_of_the_solver():
  """Twice the steps: the error falls by 2 for DDIM, by 4 or more for methods of second order."""
  process = schedules.vp_linear()
  x, denoise, errors = data(TARGET), TARGET.denoiser(process), {}
  for name, build in (('ddim', ddim), ('2m', dpmpp_2m), ('heun', heun)):
    for n in (40, 80):
      _, again = reconstructed(denoise, np.linspace(0.9, 0.03, n + 1), x, build=build)
      errors[name, n] = float(np.sqrt(np.mean((again - x) ** 2)))
  assert errors['ddim', 80] < 0.65 * errors['ddim', 40] and errors['ddim', 80] > 1e-3
  for name in ('2m', 'heun'):
    assert errors[name, 80] < 0.4 * errors[name, 40] and errors[name, 80] < errors['ddim', 80]


def test_bad_input():
  process = schedules.vp_linear()
  with pytest.raises(InputError, match='ends at 0'):
    inversion(process, [1.0, 0.5, 0.0])
  with pytest.raises(InputError, match='build: got ddpm'):
    inversion(process, [1.0, 0.5, 0.1], ddpm)
