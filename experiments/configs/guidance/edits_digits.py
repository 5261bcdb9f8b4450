"""What is changed in the digits of `make demo`: all_but_one (a 3 becomes an 8), class_token, or invariant."""

from ml_collections import ConfigDict

METHODS = dict(
  all_but_one=(dict(erase=3, instead=8), 600, 2e-4),
  class_token=(dict(reward=dict(name='digit', label=8), label=8, begin=3, images=8), 200, 5e-2),
  invariant=(dict(groups=4), 1000, 1e-3),
)


def get_config(name: str = 'all_but_one') -> ConfigDict:
  options, steps, rate = METHODS[name]
  c = ConfigDict()
  c.seed = 0
  c.data = dict(name='digits', shape=(8, 8, 1), classes=10)
  c.process = dict(name='cosine')
  c.base = dict(run='runs/demo')
  c.net = dict(name='unet', width=24, channel_mult=(1, 2), blocks_per_level=1, attention=(4,))
  c.loss = dict(name='denoising', kind='v', drop_cond=0.1)
  c.method = dict(name=name, **options)
  c.train = dict(steps=steps, batch=64, optimiser=dict(name='adamw', learning_rate=rate, warmup=0), ema=())
  c.sampling = dict(solver='dpmpp_2m', grid='uniform', steps=20, guidance_scale=1.2, ema=-1)
  c.evaluation = dict(n=360)
  c.mesh = dict(data=-1, fsdp=1, model=1, cpu_devices=2)
  return c
