"""RG-LCD: an LCM rewarded for digits that can be read, by way of a proxy: digits, some ten minutes on two CPU cores."""

from ml_collections import ConfigDict


def get_config() -> ConfigDict:
  c = ConfigDict()
  c.seed = 0
  c.data = dict(name='digits', shape=(8, 8, 1), classes=10)
  c.process = dict(name='cosine')
  c.teacher = dict(run='runs/demo')
  c.net = dict(name='unet', width=24, channel_mult=(1, 2), blocks_per_level=1, attention=(4,), times=2)
  c.loss = dict(name='denoising', kind='v')
  proxy = dict(name='unet', width=8, channel_mult=(1, 2), blocks_per_level=1, attention=())
  c.method = dict(
    name='reward_guided_latent_consistency', reward=dict(name='digit'), beta=0.02, proxy=proxy, scales=(1.0, 4.0)
  )
  c.train = dict(steps=1800, batch=64, optimiser=dict(name='adamw', learning_rate=1e-3, warmup=200), ema=(0.999,))
  c.sampling = dict(grid='uniform', steps=2, guidance_scale=1.2)
  c.evaluation = dict(n=360)
  c.mesh = dict(data=-1, fsdp=1, model=1, cpu_devices=2)
  return c
