"""ImageNet at 64 x 64, class-conditional, U-ViT-M/4 in bfloat16, sharded over data and fsdp.

Prepare the data once where TensorFlow is at hand: `tfds build imagenet_resized/64x64`. The published run uses no
guidance; labels are dropped here so that it may be used.

arXiv:2209.12152
"""

from ml_collections import ConfigDict


def get_config() -> ConfigDict:
  c = ConfigDict()
  c.seed = 0
  c.data = dict(name='imagenet_resized/64x64', shape=(64, 64, 3), classes=1000)
  c.process = dict(name='vp_linear')
  c.net = dict(name='uvit', size='M', patch=4, dtype='bfloat16', remat='dots')
  c.loss = dict(name='denoising', kind='eps', drop_cond=0.1)
  c.train = dict(
    steps=300_000, batch=1024,
    optimiser=dict(
      name='adamw', learning_rate=3e-4, warmup=5000, schedule='constant', weight_decay=0.03, b1=0.99, b2=0.99
    ),
    ema=(0.9999,), log_every=100, save_every=5000,
  )  # fmt: skip
  c.sampling = dict(solver='dpmpp_2m', grid='uniform_lam', steps=50, batch=4096)
  c.evaluation = dict(n=50_000, split='validation')
  c.mesh = dict(data=-1, fsdp=8, model=1)
  return c
