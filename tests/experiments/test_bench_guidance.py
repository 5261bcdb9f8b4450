"""The benchmark of guidance: classifier-free guidance is one call of twice the batch, and costs no more."""

import pytest

from diffjax import nets
from experiments.bench import guidance


def test_free_guidance_costs_a_forward_of_twice_the_batch():
  """Operations of the compiled programs, within 2%, and those of plain forwards by the cost that is counted."""
  plain = guidance.denoiser(net=nets.dit(depth=1, width=32, heads=2, classes=guidance.CLASSES))
  made, _ = guidance.operations(guidance.GUIDANCES['cfg'](plain), 8)
  doubled, _ = guidance.operations(plain, 16)
  assert made <= guidance.BOUND * doubled


@pytest.mark.slow
def test_every_guidance_has_a_row(capsys):
  lines = guidance.rows(list(guidance.GUIDANCES), 4, 1, 'dit')
  assert len(lines) == len(guidance.GUIDANCES) + 1
