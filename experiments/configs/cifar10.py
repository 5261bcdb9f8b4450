"""CIFAR-10 with EDM's training on the DDPM++ U-Net, batch 512 over a pod slice.

Augmented as published: x-flips always, the other moves with probability .12, and the network is told.

Prepare the data once where TensorFlow is at hand: `tfds build cifar10`.

arXiv:2206.00364 app. F
"""

from ml_collections import ConfigDict


def get_config() -> ConfigDict:
  c = ConfigDict()
  c.seed = 0
  c.data = dict(name='cifar10', shape=(32, 32, 3), classes=10)
  c.loading = dict(augment=0.12, prefetch=8)
  c.process = dict(name='edm', sigma_min=0.002, sigma_max=80.0)
  c.net = dict(
    name='unet', width=128, channel_mult=(2, 2, 2), blocks_per_level=4, attention=(16,), dropout=0.13, augment=9
  )
  c.loss = dict(name='denoising', kind=dict(name='edm', data_std=0.5), times='lognormal', weight='edm', drop_cond=0.1)
  c.train = dict(
    steps=400_000, batch=512, optimiser=dict(name='adam', learning_rate=1e-3, warmup=20_000, schedule='constant'),
    ema=(0.9999, 'power:.05', 'power:.1'), log_every=100, save_every=5000,
  )  # fmt: skip
  c.sampling = dict(solver='heun', grid='karras', steps=18, guidance_scale=1.0, batch=2048)
  c.evaluation = dict(n=10_000)
  c.mesh = dict(data=-1, fsdp=1, model=1)
  return c
