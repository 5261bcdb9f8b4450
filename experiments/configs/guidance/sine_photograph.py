"""SINE: a run of both photographs (`:base`) is tuned on the one of the temple, then mixed with what it was.

The base, runs/photographs, some ten minutes on two CPU cores: --config=sine_photograph.py:base. The tuning takes two.
"""

from ml_collections import ConfigDict


def get_config(part: str = 'tuned') -> ConfigDict:
  c = ConfigDict()
  c.seed = 0
  tuned = part == 'tuned'
  which = dict(which='china') if tuned else {}
  c.data = dict(name='photographs', shape=(16, 16, 3), classes=2, size=16, **which)
  c.process = dict(name='cosine')
  c.net = dict(name='unet', width=32, channel_mult=(1, 2), blocks_per_level=1, attention=(8,))
  c.loss = dict(name='denoising', kind='v', drop_cond=0.1)
  c.train = dict(
    steps=500 if tuned else 3000, batch=32, optimiser=dict(name='adamw', learning_rate=1e-3, warmup=100), ema=(0.999,)
  )  # fmt: skip
  c.sampling = dict(solver='ddim', grid='uniform', steps=30)
  c.evaluation = dict(n=256)
  c.mesh = dict(data=-1, fsdp=1, model=1, cpu_devices=2)
  if tuned:
    c.base = dict(run='runs/photographs')
    c.method = dict(name='single_image', label=0, scale=3.0, share=0.5, until=0.4)
  return c
