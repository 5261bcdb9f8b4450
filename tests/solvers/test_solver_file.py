"""A solver file gives back the table bit for bit, or says in one line why it does not."""

import numpy as np
import oracle
import pytest

from diffjax import schedules, solvers
from diffjax.solvers import Rows, Table, grids
from diffjax.solvers.solver_file import read, write


@pytest.mark.parametrize('name', ['ddim', 'unipc', 'dpm_solver', 'heun', 'ddpm', 'f_pndm'])
def test_bit_for_bit(name, tmp_path):
  process = schedules.cosine()
  table = oracle.build(name, process, grids.uniform(process, 6))
  path = str(tmp_path / 'new' / 'solver.npz')
  write(path, table, process, f'{name} by hand')
  kept = read(path, schedules.cosine())
  assert kept.about == f'{name} by hand' and kept.table.registers == table.registers
  assert (kept.table.stochastic, kept.table.skips, kept.table.nfe) == (table.stochastic, table.skips, table.nfe)
  for a, b in zip(kept.table.rows, table.rows, strict=True):
    assert a.dtype == b.dtype and a.tobytes() == b.tobytes()


def test_padded_and_element_wise_tables(tmp_path):
  process, path = schedules.flow(), str(tmp_path / 'solver.npz')
  padded = solvers.pad(solvers.ddim(process, grids.uniform(process, 4)), 6, 3)
  write(path, padded, process, '')
  assert read(path, process).table.skips and read(path, process).table.nfe == 4
  plain = solvers.ddim(process, grids.uniform(process, 4))
  wide = np.broadcast_to(plain.rows.weights[..., None], (*plain.rows.weights.shape, 3))
  write(path, plain.replace(rows=plain.rows._replace(weights=wide)), process, '')
  assert read(path, process, (3,)).table.rows.weights.shape == (4, 1, 5, 3)
  with pytest.raises(ValueError, match=r'data of shape \(3,\); allowed: \(2,\)'):
    read(path, process, (2,))


@pytest.fixture
def path(tmp_path):
  process, path = schedules.cosine(), str(tmp_path / 'solver.npz')
  write(path, solvers.unipc(process, grids.uniform(process, 6)), process, 'unipc')
  return path


def rewritten(path, **changes):
  with np.load(path) as file:
    arrays = dict(file)
  arrays |= changes
  np.savez(path, **{k: v for k, v in arrays.items() if v is not None})


def test_other_processes_versions_and_places(path, tmp_path):
  with pytest.raises(ValueError, match=r'solver .*solver.npz: made for another process; .* by diffjax search'):
    read(path, schedules.cosine(offset=0.02))
  with pytest.raises(ValueError, match='nowhere.npz, which is not there; allowed: a file that diffjax search wrote'):
    read(str(tmp_path / 'nowhere.npz'), schedules.cosine())
  rewritten(path, version=7)
  with pytest.raises(ValueError, match='of version 7; allowed: version 1'):
    read(path, schedules.cosine())


@pytest.mark.parametrize(
  'changes',
  [
    dict(weights=None),
    dict(extra=1),
    dict(t=np.zeros(5)),
    dict(t=np.full(6, np.nan)),
    dict(evaluated=np.ones(6)),
    dict(evaluated=np.arange(6) > 0),
    dict(stochastic=np.array('no')),
    dict(weights=np.zeros((6, 2, 6))),
    dict(registers=np.array(['x'])),
    dict(version=np.array('one')),
    dict(stamp=np.zeros(3)),
  ],
  ids=lambda changes: next(iter(changes)),
)
def test_damage_is_one_line(changes, path):
  rewritten(path, **changes)
  with pytest.raises(ValueError, match='solver.npz, which is damaged'):
    read(path, schedules.cosine())


def test_bytes_that_are_no_file(path):
  whole = open(path, 'rb').read()
  for cut in (b'', b'hello', whole[: len(whole) // 2], whole[:200] + bytes(len(whole) - 200)):
    open(path, 'wb').write(cut)
    with pytest.raises(ValueError, match='damaged'):
      read(path, schedules.cosine())


def test_what_is_read_is_a_table(path):
  table = read(path, schedules.cosine()).table
  assert isinstance(table, Table) and isinstance(table.rows, Rows)
