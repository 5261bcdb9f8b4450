"""The table of inverse problems: its order by hand, its figures on a few samples, what is printed."""

import numpy as np
import pytest

from experiments.tables import inverse, inverse_rows


def line(method, problem, tv, mean, variance):
  return dict(method=method, problem=problem, tv=tv, mean=mean, variance=variance, cost=1)


def test_the_order_counts_problems():
  """The smaller sum of what is off: here .3 before .5 on the one, .4 after .2 on the other."""
  lines = [
    line('a', 'p', 0.1, 0.1, 0.9),
    line('b', 'p', 0, 0, 1.5),
    line('a', 'q', 0, 0.4, 1),
    line('b', 'q', 0.2, 0, 1),
  ]
  assert inverse.holds(lines, 'a', 'b') == 'in part: on 1 of 2'
  assert inverse.holds(lines[:2], 'a', 'b') == 'holds: on 1 of 1'
  assert inverse.holds(lines[2:], 'a', 'b') == 'no: on 0 of 1'
  assert inverse.holds(lines, 'a', 'c') == 'not measured'
  assert {m for pair in inverse.ORDER for m in pair[:2]} <= set(inverse_rows.METHODS)


@pytest.mark.parametrize('method', ['daps', pytest.param('afdps', marks=pytest.mark.slow)])
def test_a_cell_of_few_samples(method, monkeypatch):
  """DAPS with the data's covariance is near the posterior of the 8-D Gaussian, at 64 forwards."""
  monkeypatch.setattr(inverse_rows, 'COUNT', 500)
  found = inverse_rows.measured(method, inverse_rows.problems()['8-D Gaussian, 3 projections'])
  assert found['cost'] == 64 and found['tv'] < 1e-6 and found['mean'] < 0.3 and abs(found['variance'] - 1) < 0.5


def test_problems_have_exact_posteriors():
  """Of a Gaussian prior, by its conditional; what methods are shown is what the posterior is given."""
  problem = inverse_rows.problems()['8-D Gaussian, 3 projections']
  mean, cov = np.asarray(problem.prior.mean(), float), np.asarray(problem.prior.covariance(), float)
  gain = cov @ problem.rows.T @ np.linalg.inv(problem.rows @ cov @ problem.rows.T + problem.r**2 * np.eye(3))
  np.testing.assert_allclose(problem.posterior.mean(), mean + gain @ (problem.y - problem.rows @ mean), atol=1e-4)
  np.testing.assert_allclose(problem.observation.y[0], problem.y, rtol=1e-6)


def test_what_is_printed(capsys):
  inverse.main(['--scale=paper'])
  assert '39.35' in capsys.readouterr().out
