"""The table of score-based SDEs: likelihood against the closed form, the flow's samples, its verdicts by hand."""

import pytest

from experiments.tables import score_sde


@pytest.mark.parametrize('process', [*score_sde.PROCESSES])
def test_likelihood_is_that_of_the_mixture(process):
  """Within .02 nats of the closed form at each of a few draws, of which the law at t_max is the largest part."""
  error, nfe = score_sde.likelihoods(process, 16)
  assert error < 0.02 and nfe > 10


@pytest.mark.slow
def test_samples_of_the_flow():
  """The spread within a component to 5 deviations of 2000 draws, and no share off by more."""
  found = score_sde.measured('VP', 'probability flow', count=2000)
  assert abs(found['within'] - 1) < 0.16 and found['tv'] < 0.06


def line(process, sampler, sw):
  return dict(process=process, sampler=sampler, sw=sw)


def test_the_corrector_is_told_by_process():
  lines = [line('VP', 'reverse diffusion', 0.2), line('VP', 'predictor-corrector', 0.1),
           line('VE', 'reverse diffusion', 0.1), line('VE', 'predictor-corrector', 0.3)]  # fmt: skip
  said = score_sde.ranking(lines)
  assert said[1].endswith('equal cost: 1 of 2 processes (VP)') and said[0].endswith('0 of 0 processes')


def test_what_is_printed(capsys):
  score_sde.main(['--scale=paper'])
  assert 'FID 2.20' in capsys.readouterr().out
