"""CTM whose jumps have the coefficients measured on their teacher: digits, some nine minutes on two CPU cores."""

from ml_collections import ConfigDict


def get_config() -> ConfigDict:
  c = ConfigDict()
  c.seed = 0
  c.data = dict(name='digits', shape=(8, 8, 1), classes=10)
  c.process = dict(name='cosine')
  c.teacher = dict(run='runs/demo')
  c.net = dict(name='unet', width=24, channel_mult=(1, 2), blocks_per_level=1, attention=(4,), times=2)
  c.loss = dict(name='denoising', kind='v')
  c.method = dict(name='consistency_trajectory', most=3, scale=1.2, form=dict(name='analytic', points=64, samples=256))
  c.train = dict(steps=1800, batch=64, optimiser=dict(name='adamw', learning_rate=2e-3, warmup=200), ema=(0.999,))
  c.sampling = dict(grid='uniform', steps=1)
  c.evaluation = dict(n=360)
  c.mesh = dict(data=-1, fsdp=1, model=1, cpu_devices=2)
  return c
