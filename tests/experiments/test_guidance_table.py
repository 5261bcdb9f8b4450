"""The table of guidance: its models by their definition, equal cost, exact draws of the product, what is told."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from diffjax import guidance as transforms
from experiments.tables import guidance
from experiments.tables import guidance_rows as rows


@pytest.mark.slow
def test_the_model_that_errs_has_learned_a_mixture():
  """Of class c (1 - pi) p_c + pi p_u, and the target's own law without a label."""
  x, pi, law = jnp.asarray(np.random.default_rng(0).normal(size=(30, 2)), jnp.float32), 0.1, rows.target()
  model, cond = rows.learned(pi, 0.0), jnp.arange(30) % 3
  want = (1 - pi) * jnp.exp(law.log_density(x, cond=cond)) + pi * jnp.exp(law.log_density(x))
  np.testing.assert_allclose(jnp.exp(model.log_density(x, cond=cond)), want, rtol=1e-4)
  np.testing.assert_allclose(model.log_density(x), law.log_density(x), rtol=1e-4)
  logits = jax.nn.softmax(rows.class_logits(x), -1)[jnp.arange(30), cond]
  share = jnp.log(jnp.asarray([0.5, 0.3, 0.2]))[cond] + law.log_density(x, cond=cond) - law.log_density(x)
  np.testing.assert_allclose(logits, jnp.exp(share), rtol=1e-4)


@pytest.mark.parametrize('name', list(rows.GUIDANCES))
def test_every_guidance_costs_what_the_budget_allows(name):
  """As many steps as fit: one more would cost more than the budget."""
  made, solver, paid = rows.laid(name, 'exact', 24)
  each = [transforms.cost(made, float(t)) for t in np.asarray(solver.rows.t)]
  assert paid <= 24 < paid + max(each)


@pytest.mark.slow
def test_exact_draws_have_the_figures_of_the_truth():
  """Floors of 1500 draws; the product's mean of class 0 by a sum over a grid."""
  found = rows.figures(rows.conditional(1500, seed=9))
  assert found['tv'] < 0.05 and abs(found['variance'] - 1) < 0.1 and found['sw'] < 0.15
  side = np.linspace(-6, 6, 121)
  grid = jnp.asarray(np.stack(np.meshgrid(side, side), -1).reshape(-1, 2), jnp.float32)
  law = rows.target()
  p = np.exp(2 * law.log_density(grid, cond=jnp.zeros(len(grid), int)) - law.log_density(grid))
  np.testing.assert_allclose(rows.product(3000)[::3].mean(0), p @ np.asarray(grid) / p.sum(), atol=0.12)


@pytest.mark.slow
def test_a_perfect_classifier_is_free_guidance(tmp_path, capsys):
  """Both rows from the same noise, at the same cost: one sample, to rounding. Guidance is more accurate than none."""
  guidance.main(['--guidances=none;cfg;classifier', '--count=300', '--budget=12', f'--out={tmp_path}'])
  lines = [json.loads(line) for line in (tmp_path / 'exact.jsonl').read_text().splitlines()]
  found = {(line['model'], line['guidance']): line for line in lines}
  for model in rows.MODELS:
    free, classed = found[model, 'cfg'], found[model, 'classifier']
    assert free['evaluations'] == classed['evaluations'] == 12
    np.testing.assert_allclose(classed['variance'], free['variance'], rtol=1e-3)
    assert free['accuracy'] > found[model, 'none']['accuracy']
  assert '- errs: most accurate: ' in capsys.readouterr().out


def test_digits_are_told_the_guidance_at_one_cost():
  """Forty evaluations; a row whose other run was not given is left out."""
  assert '--config.sampling.steps=10' in guidance.overrides_of('rectified_gradient', {})
  assert guidance.overrides_of('autoguidance', {'WEAK': None}) is None
  told = guidance.overrides_of('autoguidance', {'WEAK': 'runs/weak'})
  assert any("'run':'runs/weak'" in line for line in told)


def test_what_is_printed_and_refused(capsys, tmp_path):
  guidance.main(['--scale=paper'])
  assert 'FD-DINOv2 23.09' in capsys.readouterr().out
  with pytest.raises(SystemExit, match="guidances: got 'cgf'; allowed: none, "):
    guidance.main(['--guidances=cgf', f'--out={tmp_path}'])
