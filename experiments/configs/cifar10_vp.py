"""CIFAR-10, unconditional: DDPM++ with 4 blocks on the variance-preserving SDE, as published.

Prepare the data once where TensorFlow is at hand: `tfds build cifar10`.

arXiv:2011.13456
"""

from ml_collections import ConfigDict


def get_config() -> ConfigDict:
  c = ConfigDict()
  c.seed = 0
  c.data = dict(name='cifar10', shape=(32, 32, 3), classes=0)
  c.process = dict(name='vp_linear', t_min=1e-5)
  c.net = dict(name='unet', width=128, channel_mult=(1, 2, 2, 2), blocks_per_level=4, attention=(16,), dropout=0.1)
  c.loss = dict(name='denoising', kind='eps')
  c.train = dict(
    steps=1_300_000, batch=128,
    optimiser=dict(name='adam', learning_rate=2e-4, warmup=5000, schedule='constant', clip=1.0),
    ema=(0.9999,), log_every=100, save_every=5000,
  )  # fmt: skip
  c.sampling = dict(solver='euler_maruyama', grid=dict(name='uniform', to_zero=False), steps=1000, batch=2048)
  c.evaluation = dict(n=10_000)
  c.mesh = dict(data=-1, fsdp=1, model=1)
  return c
