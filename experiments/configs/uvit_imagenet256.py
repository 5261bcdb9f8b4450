"""ImageNet at 256 x 256, class-conditional, U-ViT-L/2 on latents, or `uvit_imagenet256.py:H`.

The data are latents (n, 32, 32, 4) of Stable Diffusion's autoencoder, a npz file a split with x and labels y:
`--config.data.path=DIR/{split}.npz`, `--config.data.factor=1` where they are multiplied by .18215 already. The
published guidance .4 is a scale of 1.4 here. The published beta is the quadratic one of Stable Diffusion; here it is
linear, .1 to 20.

arXiv:2209.12152
"""

from ml_collections import ConfigDict

STEPS = dict(L=300_000, H=500_000)


def get_config(size: str = 'L') -> ConfigDict:
  c = ConfigDict()
  c.seed = 0
  c.data = dict(
    name='npz', path='imagenet256/{split}.npz', latents=True, factor=0.18215, shape=(32, 32, 4), classes=1000
  )
  c.process = dict(name='vp_linear')
  c.net = dict(name='uvit', size=size, patch=2, conv=size != 'H', dtype='bfloat16', remat='dots', scan=True)
  c.loss = dict(name='denoising', kind='eps', drop_cond=0.15)
  c.train = dict(
    steps=STEPS[size], batch=1024,
    optimiser=dict(
      name='adamw', learning_rate=2e-4, warmup=5000, schedule='constant', weight_decay=0.03, b1=0.99, b2=0.99, clip=0.0
    ),
    ema=(0.9999,), log_every=100, save_every=5000,
  )  # fmt: skip
  c.sampling = dict(solver='dpmpp_2m', grid='uniform_lam', steps=50, guidance_scale=1.4, batch=4096)
  c.evaluation = dict(n=50_000)
  c.mesh = dict(data=-1, fsdp=8, model=1)
  return c
