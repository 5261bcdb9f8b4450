"""The few-step table on a few cells, its rows by their configs, and counts of a step against their closed form."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from diffjax import fewstep, kinds, nets, schedules
from diffjax.errors import InputError
from diffjax.train.roles import Method, Phase
from experiments import ring as bench
from experiments.bench import few_step as counts
from experiments.tables import few_step, few_step_cells, few_step_report, few_step_rows
from experiments.tables.few_step_published import IN_WORDS, ROWS, published, ranking

TODAY = ('consistency_distillation', 'consistency_training', 'consistency_trajectory', 'continuous_consistency',
         'guided', 'improved_consistency', 'mean_flow', 'prodiff', 'progressive', 'reflow', 'shortcut')  # fmt: skip
PATHS = counts.configs()


@pytest.mark.parametrize('name', TODAY)
def test_a_config_is_a_row_on_the_ring(name):
  """Built at two steps with no word in the table about it, and drawn in one or two evaluations."""
  made = few_step_rows.laid(PATHS[name], 40, 2)
  shapes = jax.eval_shape(made.experiment.parts.init, jax.random.key(0))
  draw = made.experiment.generator({'student': jax.tree.map(lambda leaf: np.zeros(leaf.shape, leaf.dtype), shapes)})
  assert draw.nfe == 2 and made.labelled == (name == 'guided')
  assert made.experiment.parts.teacher.kind is None
  counted = few_step_rows.laid(PATHS[name], 40, 2, taught_by_network=True)
  assert counted.experiment.parts.teacher.net is not None


def test_students_of_one_number_of_steps_are_made_for_each():
  for spec, want in (
    (dict(name='progressive', start=32, end=1), dict(end=4)),
    (dict(name='prodiff', steps=8), dict(steps=8)),
    (dict(name='shortcut', share=0.25), {}),
  ):
    assert few_step_rows.at_steps(spec, 4) == want


def counted(evaluations, gradients, every=1):
  """The count of a made-up loss of so many evaluations, the last of which pass their gradients."""
  net = nets.mlp(width=32, depth=3)
  parts = bench.parts(bench.ring(), schedules.cosine(), kinds.v(), net=net)

  def loss(roles, batch, key):
    t = jnp.zeros(len(batch['x']))
    x = batch['x']
    for i in range(evaluations):
      params = roles['student'] if i >= evaluations - gradients else jax.lax.stop_gradient(roles['student'])
      x = net(params, jax.lax.stop_gradient(x), t)
    return jnp.mean(x**2, -1), {}

  method = Method((Phase('student', loss, optax.sgd(0.1), every),), init=lambda key: {'student': parts.init(key)})
  return counts.cost(method, parts, {}, counts.batch_of(parts, 16))


@pytest.mark.parametrize('evaluations, every', [(1, 1), (3, 4)])
def test_a_step_is_counted(evaluations, every):
  """Three forwards and a backward, and a quarter of them where the phase is due every fourth step."""
  got = counted(evaluations, 1, every)
  np.testing.assert_allclose(got[:2], [evaluations / every, 1 / every], rtol=0.02)


@pytest.mark.parametrize(
  'name, forwards, backwards',
  [
    ('consistency_training', 2, 1),
    pytest.param('progressive', 3, 1, marks=pytest.mark.slow),
    pytest.param('consistency_distillation', 4, 1, marks=pytest.mark.slow),
  ],
)
def test_published_methods_cost_what_their_papers_say(name, forwards, backwards):
  """CT: student and target; PD: two of the teacher too; CD: two of Heun's too."""
  made = few_step_rows.laid(PATHS[name], 40, 1, taught_by_network=True).experiment
  got = counts.cost(made.method, made.parts, counts.given_of(made.parts, made.method), counts.batch_of(made.parts, 64))
  np.testing.assert_allclose(got[:2], [forwards, backwards], rtol=0.02)


@pytest.mark.slow
def test_cells_are_measured_once_and_the_report_is_of_them(tmp_path, capsys, monkeypatch):
  monkeypatch.setattr(few_step_cells, 'BUDGETS', (1, 4))
  line = ['--quick', '--methods=consistency_training,prodiff', '--steps=1,2', f'--out={tmp_path}']
  few_step.main(line)
  found = [json.loads(text) for text in (tmp_path / 'exact.jsonl').read_text().splitlines()]
  students = {(cell['method'], cell['steps']): cell for cell in found if cell['method'] != 'teacher'}
  assert set(students) == {(name, k) for name in ('consistency_training', 'prodiff') for k in (1, 2)}
  assert all(cell['nfe'] == k and cell['sw'] > 0 and cell['forwards'] > 1 for (_, k), cell in students.items())
  assert (tmp_path / 'exact.png').exists() and '| the teacher' in (tmp_path / 'exact.md').read_text()
  monkeypatch.setattr(few_step_cells, '_student', lambda *a: pytest.fail('measured again'))
  few_step.main(line)
  assert 'consistency_training' in capsys.readouterr().out


def cell(method, steps, sw, **more):
  return dict(method=method, steps=steps, sw=sw, nfe=steps, **more)


def test_the_report(tmp_path):
  """The worst seed counts; the teacher overtakes where it is as good; the papers' order is told pair by pair."""
  lines = [cell('a', 1, 0.03, forwards=2.0, backwards=1.0), cell('a', 1, 0.05), cell('b', 1, 0.02), cell('b', 2, 0.01),
           dict(method='c', steps=1, refused='no'), *(cell('teacher', k, 0.08 / k) for k in (1, 2, 4))]  # fmt: skip
  names = {'a': 'consistency_distillation', 'b': 'consistency_training'}
  text = few_step_report.report(lines, ('sw',), (1, 2), tmp_path / 'all.csv', names)
  assert '| a | 0.05 |  | 2 |  | 2.00 | 1.00 |' in text
  assert '| b | 0.02 | 0.01 | 4 | never |  |  |' in text and '- c: no' in text
  assert 'CIFAR-10 FID @ 1: 0 of 1 pairs' in text and 'consistency_distillation before consistency_training' in text
  assert (tmp_path / 'all.csv').read_text().startswith('backwards,')


def test_printed_figures_are_of_recipes():
  assert {row[0] for row in (*ROWS, *IN_WORDS)} <= set(fewstep.__all__)


def test_ranking_and_what_is_published():
  printed = {(recipe, n): value for recipe, _, data, steps, values in ROWS if data.startswith('CIFAR')
             for n, value in zip(steps, values, strict=True)}  # fmt: skip
  assert all(line.endswith('all of them') for line in ranking(printed, 'FID') if line.startswith('CIFAR'))
  line = '| progressive | Progressive distillation | CIFAR-10 FID | 1 / 2 / 4 / 8 | 9.12 / 4.51 / 3.00 / 2.57 |'
  assert line in published().splitlines()


def test_refusals(tmp_path):
  with pytest.raises(SystemExit, match="methods: got 'nothing'; allowed: "):
    few_step.main(['--methods=nothing', f'--out={tmp_path}'])
  with pytest.raises(InputError, match='base: got none'):
    few_step_rows.laid(PATHS['rl_consistency'], 40, 2)
