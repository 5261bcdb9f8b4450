"""UniDiffuser on pairs of a digit and its label: marginals, conditionals and the joint from one network of .6 million.

`unidiffuser_digits.py:projection` pairs it with a 16-d random projection. Sample the modes with
experiments/tables/unidiffuser.py, which is also their test.   arXiv:2303.06555
"""

from ml_collections import ConfigDict

SIZES = dict(label=10, projection=16)


def get_config(other: str = 'label') -> ConfigDict:
  c = ConfigDict()
  c.seed = 0
  name = 'digits_labels' if other == 'label' else 'digits_projection'
  c.data = dict(name=name, shape={'image': (8, 8, 1), other: (SIZES[other],)}, classes=0)
  c.process = dict(name='cosine')
  c.net = dict(name='unidiffuser', patch=2, depth=4, width=96, heads=4)
  c.loss = dict(name='modalities', kind='v')
  c.train = dict(steps=8000, batch=128, optimiser=dict(name='adamw', learning_rate=1e-3, warmup=200), ema=(0.999,))
  c.sampling = dict(solver='dpmpp_2m', grid='uniform', steps=50)
  c.evaluation = dict(n=360)
  c.mesh = dict(data=-1, fsdp=1, model=1, cpu_devices=2)
  return c
