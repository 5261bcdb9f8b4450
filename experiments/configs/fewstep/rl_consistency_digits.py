"""RLCM: a consistency model rewarded for ways that end in sevens: digits, some four minutes on two CPU cores."""

from ml_collections import ConfigDict


def get_config() -> ConfigDict:
  c = ConfigDict()
  c.seed = 0
  c.data = dict(name='digits', shape=(8, 8, 1), classes=10)
  c.process = dict(name='cosine')
  c.base = dict(run='runs/consistency')
  c.net = dict(name='unet', width=24, channel_mult=(1, 2), blocks_per_level=1, attention=(4,))
  c.loss = dict(name='denoising', kind='v')
  c.method = dict(name='rl_consistency', reward=dict(name='digit', label=7), steps=4, ways=128)
  c.train = dict(steps=400, batch=64, optimiser=dict(name='adamw', learning_rate=1e-4, warmup=0), ema=())
  c.sampling = dict(grid='uniform', steps=4, ema=-1)
  c.evaluation = dict(n=360)
  c.mesh = dict(data=-1, fsdp=1, model=1, cpu_devices=2)
  return c
