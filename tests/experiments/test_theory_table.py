"""Rows of the theory table: formulas against figures; the whole page by `python -m experiments.tables.theory`."""

import sys

import pytest

from experiments.tables import theory, theory_paths, theory_rates, theory_scores


def wrong(rows):
  return [row for row in rows if not row.met]


@pytest.mark.parametrize(
  'part', ['law_error', 'shifts', 'linear_score', 'subspace', 'reward', 'corruption', 'subset_training', 'memorised']
)
def test_what_finite_data_do(part):
  slow = dict(linear_score=dict(trials=60), subspace=dict(trials=6), reward=dict(trials=200),
              corruption=dict(trials=100), subset_training=dict(trials=3))  # fmt: skip
  rows = getattr(theory_rates, part)(**slow.get(part, {}))
  assert rows and wrong(rows) == []


@pytest.mark.parametrize('part', ['bridge', 'control'])
def test_paths_between_laws(part):
  assert wrong(getattr(theory_paths, part)()) == []


@pytest.mark.slow
def test_every_row_is_met(capsys, monkeypatch):
  monkeypatch.setattr(sys, 'argv', ['theory'])
  theory.main()
  out = capsys.readouterr().out
  assert '| NO |' not in out and out.count('| yes |') > 60


def test_what_the_papers_print(capsys, monkeypatch):
  monkeypatch.setattr(sys, 'argv', ['theory', '--scale=paper'])
  theory.main()
  assert '2303.08797' in capsys.readouterr().out


def test_kicks(capsys):
  assert wrong(theory_scores.painters()[:2]) == []
