"""Real networks over real meshes: the numbers of one device, and no message that the layout does not ask for."""

import pytest
from test_sharding import SCRIPT, found, launch

from experiments.bench.scaling import groups_of

JOB = SCRIPT.with_name('sharded_job.py')


def check(net, *ways, moved=None):
  """Weights: the distance to one device's over the way that training went, after 20 steps of Adam with eps 1e-3 (with
  1e-8 it divides rounding errors by themselves where gradients vanish). Images: relative to the brightest pixel.
  `moved`: the most bytes of features that may be sent otherwise than by adding them up."""
  lines = found(launch(net, *ways, devices=8, script=JOB))
  assert [way for way, *_ in lines] == (ways[0].split(',') if ways else ['data', 'fsdp', 'model', 'mixed'])
  for _, apart, images, bytes_, said in lines:
    assert float(apart) < 1e-5 and float(images) < 1e-5
    assert not said.strip()
    assert moved is None or int(bytes_) <= moved


@pytest.mark.slow
def test_transformer_on_eight_devices():
  check('dit', 'mixed')  # over data, fsdp and model at once


# Transformers add all tokens up, and gather no more than an embedding: one of DiT's for at most 28 samples.
@pytest.mark.slow
@pytest.mark.parametrize('net, moved', [('dit', 4 * 28 * 32), ('unet', None), ('edm2', None), ('uvit', 0)])
def test_every_way_on_eight_devices(net, moved):
  check(net, moved=moved)


@pytest.mark.parametrize(
  'line, groups',
  [
    ('replica_groups={{0,1},{2,3}}, dimensions={0}', [[0, 1], [2, 3]]),
    ('replica_groups=[2,2]<=[4], dimensions={0}', [[0, 1], [2, 3]]),
    ('replica_groups=[2,2]<=[2,2]T(1,0), dimensions={0}', [[0, 2], [1, 3]]),
    ('source_target_pairs={{0,2},{2,0}}, metadata={}', [[0, 2], [2, 0]]),
    ("replica_groups=mesh['a'=2,'b'=2] {'b'}, dimensions={0}", [[0, 1], [2, 3]]),
    ("replica_groups=mesh['a'=2,'b'=1,'c'=2], device_ids=([2,2]T(1,0)) {'a'}, dimensions={0}", [[0, 1], [2, 3]]),
    ("replica_groups=mesh['a'=4] {'a':(1)2}, dimensions={0}", [[0, 2], [1, 3]]),
  ],
)
def test_groups_are_read_as_xla_writes_them(line, groups):
  assert groups_of(line).tolist() == groups
