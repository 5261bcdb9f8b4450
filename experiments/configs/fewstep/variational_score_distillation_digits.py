"""Forty images of six Gaussians each, led to be samples of the teacher by a critic: digits, some six minutes."""

from ml_collections import ConfigDict


def get_config() -> ConfigDict:
  c = ConfigDict()
  c.seed = 0
  c.data = dict(name='digits', shape=(8, 8, 1), classes=10)
  c.process = dict(name='cosine')
  c.teacher = dict(run='runs/demo')
  c.net = dict(name='unet', width=24, channel_mult=(1, 2), blocks_per_level=1, attention=(4,))
  c.method = dict(
    name='variational_score_distillation', scene=dict(name='splats', count=40, splats=6), scale=2.0, pace=0.1
  )
  c.train = dict(steps=1500, batch=40, optimiser=dict(name='adam', learning_rate=1e-2), ema=(0.99,))
  c.sampling = dict(steps=1)
  c.evaluation = dict(n=360)
  c.mesh = dict(data=-1, fsdp=1, model=1, cpu_devices=2)
  return c
