"""The recommended solver: what it is told decides its error, and a change of the data's unit changes nothing."""

import jax.numpy as jnp
import numpy as np
import pytest

from diffjax import exact, schedules, solvers
from diffjax.solvers import grids

WEIGHTS, MEANS, VAR = [0.5, 0.3, 0.2], np.array([[1, 0.5], [-0.8, -1], [-0.5, 1.2]]), np.array([0.01, 0.0064, 0.0144])


def of_deviation(std):
  """A 2-D mixture whose sqrt(tr cov / 2) this is, one of the bench's shapes."""
  c = std / np.sqrt(np.trace(exact.mixture(WEIGHTS, MEANS, VAR).covariance()) / 2)
  return exact.mixture(WEIGHTS, c * MEANS, c**2 * VAR)


def errors(process, std, solvers_of):
  """Distances to the solution of 400 evaluations over the deviation, of 256 starts."""
  denoise = of_deviation(std).denoiser(process)
  z = np.random.default_rng(0).standard_normal((256, 2))
  x = jnp.asarray(float(process.schedule(process.t_max)[1]) * z)
  fine = solvers.trig_adams(process, grids.noise_share(process, 400, data_std=std), order=3, data_std=std)
  end = solvers.sample(denoise, fine, x)
  size = [solvers.pad(table, 20, 8) for table in solvers_of]
  return [float(jnp.sqrt(jnp.mean((solvers.sample(denoise, table, x) - end) ** 2))) / std for table in size]


@pytest.mark.parametrize('kind', ['edm', 'cosine', 'flow'])
def test_the_datas_own_deviation_and_an_exact_score_lower_the_error(kind, x64):
  """By half and by a fifth, on modes narrow against their distance. In the bench: to .2 at deviation 2, .09 at 3; to .6
  by the orders for exact scores. On modes four times as wide the deviation hardly matters.
  """
  process = getattr(schedules, kind)()
  for std in (2.0, 3.0):
    own, wrong, smooth = errors(process, std, [
      solvers.recommended(process, 10, std), solvers.recommended(process, 10),
      solvers.recommended(process, 10, std, exact=True),
    ])  # fmt: skip
    assert own < 0.5 * wrong and smooth < 0.8 * own


@pytest.mark.parametrize('nfe', [1, 2, 4, 8, 10, 20])
def test_data_in_another_unit_have_the_same_error(nfe, x64):
  """EDM with every sigma times 4 is EDM in another unit: the same grid in units of it, the same weights."""
  small, large = schedules.edm(), schedules.edm(sigma_min=0.008, sigma_max=320.0)
  for exact_score in (False, True):
    a, b = (solvers.recommended(p, nfe, s, exact_score) for p, s in ((small, 0.5), (large, 2.0)))
    assert a.nfe == b.nfe == nfe
    np.testing.assert_allclose(4 * a.rows.t, b.rows.t, rtol=1e-9)
    units = [0, 1, len(a.registers)]  # of x, the corrected point and x0; eps and the velocities are pure numbers
    np.testing.assert_allclose(a.rows.weights[:, 0, units], b.rows.weights[:, 0, units], rtol=1e-7, atol=1e-9)
