"""Variational diffusion on scikit-learn's digits: bits per dimension, under a learned schedule."""

from ml_collections import ConfigDict


def get_config() -> ConfigDict:
  c = ConfigDict()
  c.seed = 0
  c.data = dict(name='digits', shape=(8, 8, 1), classes=10)
  c.process = dict(name='cosine')
  c.net = dict(name='unet', width=24, channel_mult=(1, 2), blocks_per_level=1, attention=(4,))
  c.loss = dict(name='denoising', kind='v')
  c.method = dict(name='variational', levels=17, ends=(-10.0, 5.0))
  c.train = dict(steps=3000, batch=64, optimiser=dict(name='adamw', learning_rate=2e-3, warmup=200), ema=(0.999,))
  c.sampling = dict(solver='dpmpp_2m', grid='uniform', steps=20)
  c.evaluation = dict(n=360)
  c.mesh = dict(data=-1, fsdp=1, model=1, cpu_devices=2)
  return c
