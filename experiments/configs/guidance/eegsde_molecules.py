"""EEGSDE: molecules of a radius of gyration that is asked for, some three minutes on two CPU cores."""

from ml_collections import ConfigDict


def get_config() -> ConfigDict:
  c = ConfigDict()
  c.seed = 0
  c.data = dict(name='molecules', shape=(4, 7), classes=0, others=dict(source=(1,)), formulas=('ammonia',), stretch=0.4,
                source='gyration')  # fmt: skip
  c.process = dict(name='cosine')
  c.net = dict(name='egnn', width=32, depth=3)
  c.loss = dict(name='denoising', kind='v', given=('source',))
  c.method = dict(name='equivariant_energy', predictor=dict(name='egnn', width=32, depth=2), scale=50.0)
  c.train = dict(steps=4000, batch=128, optimiser=dict(name='adamw', learning_rate=1e-3, warmup=100), ema=(0.999,))
  c.sampling = dict(solver='ancestral', grid='uniform', steps=50)
  c.evaluation = dict(n=360)
  c.mesh = dict(data=-1, fsdp=1, model=1, cpu_devices=2)
  return c
