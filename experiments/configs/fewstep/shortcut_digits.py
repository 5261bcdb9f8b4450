"""Shortcut models: a step is two half-steps, without a teacher: digits, some six minutes on two CPU cores."""

from ml_collections import ConfigDict


def get_config() -> ConfigDict:
  c = ConfigDict()
  c.seed = 0
  c.data = dict(name='digits', shape=(8, 8, 1), classes=10)
  c.process = dict(name='flow')
  c.net = dict(name='unet', width=24, channel_mult=(1, 2), blocks_per_level=1, attention=(4,), times=2)
  c.loss = dict(name='denoising', kind='velocity')
  c.method = dict(name='shortcut', share=0.25)
  c.train = dict(steps=5000, batch=64, optimiser=dict(name='adamw', learning_rate=2e-3, warmup=200), ema=(0.999,))
  c.sampling = dict(grid='uniform', steps=1)
  c.evaluation = dict(n=360)
  c.mesh = dict(data=-1, fsdp=1, model=1, cpu_devices=2)
  return c
