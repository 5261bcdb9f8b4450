"""What all methods that match laws promise: who moves, that no data are read, and that a run of them is one program."""

import jax
import jax.numpy as jnp
import pytest
from classroom import audit
from laws import LABELLED, TINY, blind, own, roles_of

from diffjax import fewstep

EVERY = {
  'dmd': lambda made: fewstep.distribution_matching(made, pool=8, fresh=4, steps=2),
  'disback': lambda made: fewstep.distil_back(made, recorded=2, apart=1, interval=2),
  'sid': fewstep.score_identity,
  'sfd': lambda made: fewstep.score_forgetting(made, forget=7, override=0),
  'emd': lambda made: fewstep.em_distillation(made, moves=2),
}


def made_of(name):
  classes = 8 if name == 'sfd' else 0
  return own(LABELLED if classes else TINY, classes=classes)


@pytest.mark.parametrize('name', EVERY)
def test_each_phase_moves_its_role_and_reads_no_data(name):
  """Gradients in the phase's role alone, finite on data that are not numbers; a few steps are not skipped."""
  made = made_of(name)
  method = EVERY[name](made)
  assert method.loads == ('teacher',) and method.copies == {'critic': 'teacher', 'student': 'teacher'}
  roles, batch = roles_of(method, made), blind(classes=made.classes)
  for buffer in ('progress', 'pairs', 'chain'):
    if buffer in method.buffers:
      roles[buffer] = method.buffers[buffer].renew(roles, roles[buffer], batch, jax.random.key(1))
  assert method.averaged == ('student',)
  for phase in method.phases:
    moved = audit(phase.loss, roles, batch)
    assert 0 < moved.pop(phase.role) < jnp.inf
    assert set(moved.values()) == {0.0}, (phase.name, moved)
