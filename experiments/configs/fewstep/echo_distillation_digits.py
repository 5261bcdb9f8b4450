"""The label 3 takes on the look of 16 bold threes, in the teacher and in its student of one step: some nine minutes."""

from ml_collections import ConfigDict


def get_config() -> ConfigDict:
  c = ConfigDict()
  c.seed = 0
  c.data = dict(name='digits_styles', shape=(8, 8, 1), classes=10)
  c.process = dict(name='cosine')
  c.teacher = dict(run='runs/demo')
  c.net = dict(name='unet', width=24, channel_mult=(1, 2), blocks_per_level=1, attention=(4,), dropout=0.1)
  c.loss = dict(name='denoising', kind='v')
  c.method = dict(name='echo_distillation', concept=3, images=16, steps=6)
  c.train = dict(steps=1200, batch=32, optimiser=dict(name='adamw', learning_rate=5e-4, warmup=100), ema=(0.99,))
  c.sampling = dict(grid='uniform', steps=1)
  c.evaluation = dict(n=360)
  c.mesh = dict(data=-1, fsdp=1, model=1, cpu_devices=2)
  return c
