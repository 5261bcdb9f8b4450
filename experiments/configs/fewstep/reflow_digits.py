"""A straighter flow from the pairs of noise and digit that the teacher makes, some nine minutes on two CPU cores."""

from ml_collections import ConfigDict


def get_config() -> ConfigDict:
  c = ConfigDict()
  c.seed = 0
  c.data = dict(name='digits', shape=(8, 8, 1), classes=10)
  c.process = dict(name='flow')
  c.teacher = dict(run='runs/demo')
  c.net = dict(name='unet', width=24, channel_mult=(1, 2), blocks_per_level=1, attention=(4,))
  c.loss = dict(name='denoising', kind='velocity')
  c.method = dict(name='reflow', pool=2048, fresh=8, steps=20, scale=1.2)
  c.train = dict(steps=3000, batch=64, optimiser=dict(name='adamw', learning_rate=2e-3, warmup=200), ema=(0.999,))
  c.sampling = dict(solver='euler', grid='uniform', steps=2)
  c.evaluation = dict(n=360)
  c.mesh = dict(data=-1, fsdp=1, model=1, cpu_devices=2)
  return c
