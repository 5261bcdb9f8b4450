"""One step by the Fisher divergence from the teacher's law: digits, some eight minutes."""

from ml_collections import ConfigDict


def get_config() -> ConfigDict:
  c = ConfigDict()
  c.seed = 0
  c.data = dict(name='digits', shape=(8, 8, 1), classes=10)
  c.process = dict(name='cosine')
  c.teacher = dict(run='runs/demo')
  c.net = dict(name='unet', width=24, channel_mult=(1, 2), blocks_per_level=1, attention=(4,))
  c.loss = dict(name='denoising', kind='v')
  c.method = dict(name='score_identity', level=0.75, scale=1.2, pace=3.0)
  optimiser = dict(name='adam', learning_rate=2e-4, b1=0.0, warmup=100)
  c.train = dict(steps=2000, batch=64, optimiser=optimiser, ema=(0.99,))
  c.sampling = dict(grid='uniform', steps=1)
  c.evaluation = dict(n=360)
  c.mesh = dict(data=-1, fsdp=1, model=1, cpu_devices=2)
  return c
