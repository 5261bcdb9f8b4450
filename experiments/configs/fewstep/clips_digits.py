"""A teacher of clips, eight frames of a digit that moves, for `self_forcing_digits`: some nine minutes on two cores."""

from ml_collections import ConfigDict


def get_config() -> ConfigDict:
  c = ConfigDict()
  c.seed = 0
  c.data = dict(name='moving_digits', shape=(8, 16, 16, 1), classes=10, frames=8, size=16, edge='wrap')
  c.process = dict(name='cosine')
  c.net = dict(name='unet', width=24, channel_mult=(1, 2), blocks_per_level=1, attention=(8,))
  c.loss = dict(name='denoising', kind='v')
  c.train = dict(steps=3000, batch=32, optimiser=dict(name='adamw', learning_rate=2e-3, warmup=200), ema=(0.999,))
  c.sampling = dict(solver='dpmpp_2m', grid='uniform', steps=20)
  c.evaluation = dict(n=360)
  c.mesh = dict(data=-1, fsdp=1, model=1, cpu_devices=2)
  return c
