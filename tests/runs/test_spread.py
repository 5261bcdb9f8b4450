"""The data's mean and deviation: measured once, right for any chunks and shapes, and told to all that ask for them."""

import inspect

import jax
import numpy as np
import pytest

from diffjax import solvers, statistics
from diffjax.data import DataSet
from diffjax.data.dataset import Arrays
from diffjax.runs.config import checked
from diffjax.runs.experiment import build
from diffjax.runs.spread import measure, overall, spread
from diffjax.solvers import grids


class Read:
  """Examples read one by one, in the order of their classes; counts how many were."""

  def __init__(self, x):
    self.x, self.seen = x, 0

  def __len__(self):
    return len(self.x)

  def __getitem__(self, i):
    self.seen += 1
    return {'x': self.x[i], 'cond': 0}


def wide(n=3000, shape=(4,)):
  """Elements with means far apart, far from 0 against their deviations."""
  r = np.random.default_rng(0)
  return (1e4 + 100 * r.standard_normal(shape) + 0.3 * r.standard_normal((n, *shape))).astype(np.float32)


@pytest.mark.parametrize('size', [1, 7, 1024, 5000])
def test_chunks_give_the_moments_of_the_whole(size):
  x = wide()
  found = statistics.spread(x[i : i + size] for i in range(0, len(x), size))
  exact = x.astype(np.float64)
  np.testing.assert_allclose(found.mean, exact.mean(0), rtol=1e-12)
  np.testing.assert_allclose(found.std, np.sqrt(exact.var(0).mean()), rtol=1e-9)  # about the mean of each element
  with pytest.raises(ValueError, match='chunks: got no example'):
    statistics.spread([])


@pytest.mark.parametrize('held', [True, False])
def test_it_is_measured_once_and_kept(held, tmp_path, monkeypatch):
  x = wide(2000, (3, 3, 1)) / 2e4
  source = Read(x)
  measure(str(tmp_path), DataSet('it', Arrays(x) if held else source, (3, 3, 1), None if held else 1))
  assert source.seen == (0 if held else 2000)
  found = spread(str(tmp_path), (3, 3, 1))
  np.testing.assert_allclose(found.std, np.sqrt(x.astype(np.float64).var(0).mean()), rtol=1e-6)
  assert found.mean.shape == (3, 3, 1) and overall(found) == float(found.std)
  measure(str(tmp_path), DataSet('other', Arrays(5 * x), (3, 3, 1)))  # what is there stays
  assert spread(str(tmp_path), (3, 3, 1)).std == found.std
  assert spread(str(tmp_path / 'none'), (3, 3, 1)) is None and overall(None) is None


def test_of_a_large_set_examples_spread_over_it_are_taken(tmp_path, monkeypatch):
  """A set in the order of two classes, of means -1 and 1: its deviation is 1, not that of its beginning."""
  from diffjax.runs import spread as module

  monkeypatch.setattr(module, 'MOST', 4 * 2000)
  source = Read(np.repeat(np.float32([-1, 1]), 10000)[:, None])
  measure(str(tmp_path), DataSet('it', source, (1,), 1))
  assert source.seen == 2000
  np.testing.assert_allclose(spread(str(tmp_path), (1,)).std, 1.0, rtol=1e-12)


def test_each_modality_has_its_own(tmp_path):
  r = np.random.default_rng(0)
  x = {'image': r.standard_normal((500, 8, 8, 1)).astype(np.float32), 'label': 3 * r.standard_normal((500, 4))}
  shape = {'image': (8, 8, 1), 'label': (4,)}
  measure(str(tmp_path), DataSet('it', Arrays(x), shape))
  found = spread(str(tmp_path), shape)
  for name, part in x.items():
    np.testing.assert_allclose(found[name].std, np.sqrt(part.astype(np.float64).var(0).mean()), rtol=1e-6)
  both = np.sqrt((64 * found['image'].std ** 2 + 4 * found['label'].std ** 2) / 68)
  np.testing.assert_allclose(overall(found), both, rtol=1e-12)


def asking(name):
  """The parameters by which every public grid and sampler asks for the data's deviation."""
  module = grids if name in grids.__all__ else solvers
  return {'data_std', 'data_var'} & inspect.signature(getattr(module, name)).parameters.keys()


NAMES = [n for n in (*grids.__all__, *solvers.tables.__all__, *solvers.with_statistics, *solvers.own_step) if asking(n)]


def test_who_asks():
  assert {'noise_share', 'trig_adams', 'sn_dpm', 'npr_dpm', 'gms'} <= set(NAMES)


@pytest.mark.parametrize('name', NAMES)
def test_all_that_ask_are_told_unless_the_config_says_otherwise(name, tmp_path):
  """The solver of a run is the one laid out with the deviation written into the config."""
  x = 2.0 * np.random.default_rng(0).standard_normal((400, 2)).astype(np.float32)
  measure(str(tmp_path), DataSet('it', Arrays(x), (2,)))
  std = float(spread(str(tmp_path), (2,)).std)
  (field,) = asking(name)
  section, other = ('grid', 'solver') if name in grids.__all__ else ('solver', 'grid')
  plain = dict(solver='ddim', grid='uniform')[other]

  def laid(workdir, **options):
    sampling = {section: dict(name=name, **options), other: plain, 'steps': 5}
    config = dict(data=dict(name='moons', shape=(2,), classes=0), net=dict(name='mlp', width=8, depth=1),
                  process='flow', loss=dict(kind='v', name='denoising'), sampling=sampling)  # fmt: skip
    solver = build(checked(config)).solver(workdir)
    return [np.asarray(leaf) for leaf in jax.tree.leaves(solver)]

  same = lambda a, b: all(np.array_equal(p, q) for p, q in zip(a, b, strict=True))  # noqa: E731
  value = dict(data_std=std, data_var=std**2)[field]
  measured, nothing = laid(str(tmp_path)), laid(str(tmp_path / 'none'))
  assert same(measured, laid(None, **{field: value})) and not same(measured, nothing)
  assert same(laid(str(tmp_path), **{field: 0.7}), laid(None, **{field: 0.7}))
