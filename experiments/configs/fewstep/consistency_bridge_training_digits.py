"""CBT: from edges to digits by two evaluations, without a teacher: some seven minutes on two CPU cores."""

from ml_collections import ConfigDict


def get_config() -> ConfigDict:
  c = ConfigDict()
  c.seed = 0
  c.data = dict(name='digits_edges', shape=(8, 8, 1), classes=10, others=dict(source=(8, 8, 1)))
  c.process = dict(name='vp_linear', beta_min=0.1, beta_max=2.1)
  c.net = dict(name='unet', width=24, channel_mult=(1, 2), blocks_per_level=1, attention=(4,))
  c.loss = dict(name='denoising', kind='edm')
  c.method = dict(name='consistency_bridge_training')
  c.train = dict(steps=5000, batch=64, optimiser=dict(name='adamw', learning_rate=1e-3, warmup=200), ema=(0.999,))
  c.sampling = dict(grid='uniform', steps=1)
  c.evaluation = dict(n=360)
  c.mesh = dict(data=-1, fsdp=1, model=1, cpu_devices=2)
  return c
