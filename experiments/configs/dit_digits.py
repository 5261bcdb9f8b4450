"""scikit-learn's digits with a DiT of 0.7 million parameters in place of the U-Net; minutes on two CPU cores."""

from ml_collections import ConfigDict


def get_config() -> ConfigDict:
  c = ConfigDict()
  c.seed = 0
  c.data = dict(name='digits', shape=(8, 8, 1), classes=10)
  c.process = dict(name='cosine')
  c.net = dict(name='dit', patch=2, depth=4, width=96, heads=4)
  c.loss = dict(name='denoising', kind='v', times='stratified', drop_cond=0.1)
  c.train = dict(steps=4000, batch=128, optimiser=dict(name='adamw', learning_rate=1e-3, warmup=200), ema=(0.999,))
  c.sampling = dict(solver='dpmpp_2m', grid='uniform', steps=20, guidance_scale=1.5)
  c.evaluation = dict(n=360)
  c.mesh = dict(data=-1, fsdp=1, model=1, cpu_devices=2)
  return c
