"""ImageNet at 64 x 64, class-conditional, EDM on a wide U-Net in bfloat16, sharded over data and fsdp.

Prepare the data once where TensorFlow is at hand: `tfds build imagenet_resized/64x64`.
"""

from ml_collections import ConfigDict


def get_config() -> ConfigDict:
  c = ConfigDict()
  c.seed = 0
  c.data = dict(name='imagenet_resized/64x64', shape=(64, 64, 3), classes=1000)
  c.process = dict(name='edm', sigma_min=0.002, sigma_max=80.0)
  c.net = dict(
    name='unet', width=192, channel_mult=(1, 2, 3, 4), blocks_per_level=3, attention=(32, 16, 8), dropout=0.1,
    dtype='bfloat16', remat=True,
  )  # fmt: skip
  c.loss = dict(name='denoising', kind=dict(name='edm', data_std=0.5), times='lognormal', weight='edm', drop_cond=0.1)
  c.train = dict(
    steps=600_000, batch=4096, optimiser=dict(name='adam', learning_rate=1e-4, warmup=2500, schedule='constant'),
    ema=(0.9999, 'power:.05', 'power:.1'), log_every=100, save_every=5000,
  )  # fmt: skip
  c.sampling = dict(solver='heun', grid='karras', steps=40, guidance_scale=1.5, batch=4096)
  c.evaluation = dict(n=50_000, split='validation')
  c.mesh = dict(data=-1, fsdp=8, model=1)
  return c
