"""From 4 x 4 to 8 x 8 in one step, taught by a run of `coarse_digits`: some nine minutes on two CPU cores.

Colour patches instead: data=photographs with source=coarse, shape=(16, 16, 3), classes=2, others.source=(16, 16, 3).
"""

from ml_collections import ConfigDict


def get_config() -> ConfigDict:
  c = ConfigDict()
  c.seed = 0
  c.data = dict(name='digits_coarse', shape=(8, 8, 1), classes=10, others=dict(source=(8, 8, 1)), factor=2)
  c.process = dict(name='cosine')
  c.teacher = dict(run='runs/coarse')
  c.net = dict(name='unet', width=24, channel_mult=(1, 2), blocks_per_level=1, attention=(4,))
  c.loss = dict(name='denoising', kind='v', given=('source',))
  c.method = dict(name='time_aware_super_resolution', steps=10, features='middle')
  c.train = dict(steps=1500, batch=32, optimiser=dict(name='adamw', learning_rate=5e-4, warmup=100), ema=(0.999,))
  c.sampling = dict(grid='uniform', steps=1)
  c.evaluation = dict(n=360)
  c.mesh = dict(data=-1, fsdp=1, model=1, cpu_devices=2)
  return c
