import errno
import pathlib
import shutil
import warnings

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from training_job import arrays

from diffjax.train.checkpoint import Checkpoints, checksums


def state_of(seed, **more):
  normal = jax.random.normal(jax.random.key(seed), (8, 3))
  return {
    'roles': {'student': {'w': normal, 'half': normal.astype(jnp.bfloat16)}},
    'ema': {},
    'key': jax.random.key(seed),
    'step': jnp.int32(seed),
    'flag': normal > 0,
    **more,
  }


def target_of(state):
  here = jax.sharding.SingleDeviceSharding(jax.devices()[0])
  return jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=here), state)


def same(a, b):
  return all(np.array_equal(x, y) for x, y in zip(arrays(a), arrays(b), strict=True))


@pytest.fixture
def three(tmp_path):
  """Checkpoints of steps 1, 2, 3 on disk, and a fresh view of them."""
  writer = Checkpoints(tmp_path / 'ck', max_to_keep=3, config={'name': 'toy', 'ema': (0.9,)})
  for i in (1, 2, 3):
    assert writer.save(state_of(i), i)
  assert writer.close()
  reader = Checkpoints(tmp_path / 'ck', max_to_keep=3)
  yield reader
  reader.close()


def test_round_trip(three):
  found = three.restore(target_of(state_of(0)))
  assert same(found, state_of(3)) and jax.tree.structure(found) == jax.tree.structure(state_of(3))
  assert (
    jnp.issubdtype(found['key'].dtype, jax.dtypes.prng_key) and found['roles']['student']['half'].dtype == jnp.bfloat16
  )
  assert same(three.restore(target_of(state_of(0)), step=1), state_of(1))
  assert three.steps() == (1, 2, 3) and three.read_config() == {'name': 'toy', 'ema': [0.9]}
  parts = three.load()
  assert same(parts['roles'], state_of(3)['roles']) and parts['ema'] == {}


def test_only_the_last_are_kept(tmp_path):
  saver = Checkpoints(tmp_path / 'ck', max_to_keep=2)
  assert saver.restore(target_of(state_of(0))) is None
  for i in range(1, 5):
    saver.save(state_of(i), i)
  saver.wait()
  assert saver.steps() == (3, 4)
  saver.close()


def test_another_config_is_refused_by_name(three):
  other = state_of(0, extra=jnp.zeros(2))
  other['roles']['student']['w'] = jnp.zeros((8, 4))
  del other['flag']
  with pytest.raises(ValueError) as error:
    three.restore(target_of(other))
  text = str(error.value)
  assert 'missing extra' in text and 'extra flag' in text and 'roles/student/w has shape (8, 3), not (8, 4)' in text
  assert three.steps() == (1, 2, 3)


def largest(folder):
  return max((f for f in pathlib.Path(folder).rglob('*') if f.is_file()), key=lambda f: f.stat().st_size)


@pytest.mark.parametrize('harm', ['emptied', 'flipped', 'removed', 'metadata'])
def test_corrupt_falls_back(three, harm):
  folder = three.directory / '3' / 'state'
  file = {'metadata': folder / '_METADATA'}.get(harm, largest(folder))
  if harm == 'removed':
    shutil.rmtree(folder / 'd')
  else:
    data = bytearray(file.read_bytes())
    for i in range(20, len(data), 7):
      data[i] ^= 4
    file.write_bytes(b'' if harm == 'emptied' else bytes(data))
  with pytest.warns(RuntimeWarning, match='checkpoint of step 3 .* cannot be read'):
    found = three.restore(target_of(state_of(0)))
  assert same(found, state_of(2)) and three.steps() == (1, 2)
  three.save(state_of(33), 3)  # the run comes by again
  three.wait()
  assert same(three.restore(target_of(state_of(0))), state_of(33))


def with_leaf(state, name, move):
  student = dict(state['roles']['student'])
  return {**state, 'roles': {'student': {**student, name: move(student[name])}}}


OTHERS = {  # what lies in the place of a state: Orbax reads it without a word
  'another step': lambda state: state_of(2),
  'one number': lambda state: with_leaf(state, 'w', lambda x: x.at[3, 1].add(1e-3)),
  'all signs': lambda state: with_leaf(state, 'w', lambda x: -x),
  'two signs': lambda state: with_leaf(state, 'half', lambda x: x.at[:2, 0].multiply(-1)),
  'rows': lambda state: with_leaf(state, 'w', lambda x: x[::-1]),
  'zeros': lambda state: with_leaf(state, 'w', jnp.zeros_like),
  'key': lambda state: {**state, 'key': jax.random.key(17)},
  'flag': lambda state: {**state, 'flag': ~state['flag']},
  'count': lambda state: {**state, 'step': state['step'] + 1},
}


@pytest.mark.parametrize('name', OTHERS)
def test_a_readable_state_of_another_digest_is_passed_over(three, tmp_path, name):
  """Only the digest can tell; by `restore` and by `load` alike."""
  writer = Checkpoints(tmp_path / 'other')
  assert writer.save(OTHERS[name](state_of(3)), 3) and writer.close()
  shutil.rmtree(three.directory / '3' / 'state')
  shutil.copytree(tmp_path / 'other' / '3' / 'state', three.directory / '3' / 'state')
  with pytest.warns(RuntimeWarning, match='checkpoint of step 3 .* cannot be read .*its checksum differs'):
    found = three.restore(target_of(state_of(0)))
  assert same(found, state_of(2)) and three.steps() == (1, 2)
  three.bad.clear()
  with pytest.warns(RuntimeWarning, match='its checksum differs'):
    assert same(three.load()['roles'], state_of(2)['roles'])


def test_an_exchanged_digest_is_seen(three):
  shutil.rmtree(three.directory / '3' / 'digest')
  shutil.copytree(three.directory / '2' / 'digest', three.directory / '3' / 'digest')
  with pytest.warns(RuntimeWarning, match='step 3 .*its checksum differs'):
    assert same(three.restore(target_of(state_of(0))), state_of(2))


@pytest.mark.parametrize('error', [ValueError, TypeError, KeyError])
def test_an_error_of_ours_marks_no_checkpoint_bad(three, monkeypatch, error):
  import diffjax.train.checkpoint as module

  def broken(*_):
    raise error('a bug')

  for name in ('checksums', 'compare'):
    with monkeypatch.context() as patch, pytest.raises(error, match='a bug'):
      patch.setattr(module, name, broken)
      three.restore(target_of(state_of(0)))
  assert three.steps() == (1, 2, 3)


def test_nothing_readable_is_refused(three):
  for i in (1, 2, 3):
    largest(three.directory / str(i) / 'state').write_bytes(b'')
  shutil.rmtree(three.directory / '1' / 'state')
  shutil.rmtree(three.directory / '2' / 'state')
  (three.directory / '3' / 'state' / '_METADATA').unlink()
  with pytest.warns(RuntimeWarning), pytest.raises(ValueError, match='none of the checkpoints .* can be read'):
    three.restore(target_of(state_of(0)))


@pytest.mark.parametrize('dtype', ['float32', 'bfloat16', 'uint8'])
def test_checksum_sees_any_change(dtype):
  """A changed bit, a change of sign of any number of words, an exchange of two: each changes the sum."""
  x = np.random.default_rng(0).normal(scale=50, size=100).astype(jnp.dtype(dtype))
  words = x.view(f'uint{8 * x.itemsize}')
  bit = lambda i: words.dtype.type(1 << i % (8 * x.itemsize))  # noqa: E731
  others = [np.where(np.arange(100) == i, words ^ bit(i), words) for i in range(0, 100, 9)]
  others += [np.where(np.arange(100) < n, words ^ bit(-1), words) for n in (1, 2, 64, 99, 100)]
  others += [words[::-1], np.roll(words, 1), np.zeros_like(words), np.ones_like(words)]
  sums = [int(checksums({'x': jnp.asarray(np.ascontiguousarray(w).view(x.dtype))})[0]) for w in (words, *others)]
  assert len(set(sums)) == len(sums)


@pytest.mark.parametrize('where', ['at once', 'in the background'])
def test_full_disk(tmp_path, monkeypatch, where):
  """Step 2 meets a full disk: a warning, step 1 stays whole, and step 3 is saved as soon as there is room."""
  import orbax.checkpoint as ocp

  saver = Checkpoints(tmp_path / 'ck', max_to_keep=1)
  assert saver.save(state_of(1), 1) and saver.wait()
  full = OSError(errno.ENOSPC, 'No space left on device')

  def fail(*args, **kwargs):
    raise full

  with monkeypatch.context() as patch, warnings.catch_warnings(record=True) as seen:
    warnings.simplefilter('always')
    if where == 'at once':
      patch.setattr(ocp.CheckpointManager, 'save', fail)
      assert not saver.save(state_of(2), 2)
    else:
      patch.setattr(ocp.AsyncCheckpointer, 'wait_until_finished', fail)
      saver.save(state_of(2), 2)
      patch.undo()
      patch.setattr(ocp.CheckpointManager, 'wait_until_finished', fail)
      assert not saver.wait()
  assert any('step 1 is the last good one' in str(w.message) or 'training goes on' in str(w.message) for w in seen)
  assert 1 in saver.steps()
  assert saver.save(state_of(3), 3) and saver.wait() and 3 in saver.steps()
  assert same(saver.restore(target_of(state_of(0))), state_of(3))
  saver.close()


def test_directory_that_cannot_be_made(tmp_path):
  (tmp_path / 'file').write_text('in the way')
  with pytest.raises(ValueError, match='workdir: got .*allowed: a directory that can be written'):
    Checkpoints(tmp_path / 'file' / 'checkpoints')
