"""CIFAR-10, unconditional, U-ViT-S/2 as published.

Prepare the data once where TensorFlow is at hand: `tfds build cifar10`.

arXiv:2209.12152
"""

from ml_collections import ConfigDict


def get_config() -> ConfigDict:
  c = ConfigDict()
  c.seed = 0
  c.data = dict(name='cifar10', shape=(32, 32, 3), classes=0)
  c.process = dict(name='vp_linear')
  c.net = dict(name='uvit', size='S', patch=2)
  c.loss = dict(name='denoising', kind='eps')
  c.train = dict(
    steps=500_000, batch=128,
    optimiser=dict(
      name='adamw', learning_rate=2e-4, warmup=2500, schedule='constant', weight_decay=0.03, b1=0.99, b2=0.999, clip=0.0
    ),
    ema=(0.9999,), log_every=100, save_every=5000,
  )  # fmt: skip
  c.sampling = dict(solver='euler_maruyama', grid=dict(name='uniform', to_zero=False), steps=1000, batch=2048)
  c.evaluation = dict(n=10_000)
  c.mesh = dict(data=-1, fsdp=1, model=1)
  return c
