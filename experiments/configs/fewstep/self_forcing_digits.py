"""Moving digits made frame by frame from a student's own, corrected by a teacher of eight frames; some nine minutes.

The teacher is a run of `clips_digits`. With method.frames=24 clips are thrice as long as it knows (Self-Forcing++).
"""

from ml_collections import ConfigDict


def get_config() -> ConfigDict:
  c = ConfigDict()
  c.seed = 0
  c.data = dict(name='moving_digits', shape=(8, 16, 16, 1), classes=10, frames=8, size=16, edge='wrap')
  c.process = dict(name='cosine')
  c.teacher = dict(run='runs/clips')
  c.net = dict(name='unet', width=24, channel_mult=(1, 2), blocks_per_level=1, attention=(8,))
  c.loss = dict(name='denoising', kind='v')
  c.method = dict(name='self_forcing', block=2, context=2, levels=(0.99, 0.6), ratio=3, pace=0.5)
  c.train = dict(steps=1500, batch=16, optimiser=dict(name='adamw', learning_rate=5e-4, warmup=100), ema=(0.99,))
  c.sampling = dict(steps=1)
  c.evaluation = dict(n=360)
  c.mesh = dict(data=-1, fsdp=1, model=1, cpu_devices=2)
  return c
