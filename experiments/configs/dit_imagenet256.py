"""ImageNet at 256 x 256, class-conditional, DiT-XL/2 on latents, or `dit_imagenet256.py:S` (B, L).

The data are latents (n, 32, 32, 4) of Stable Diffusion's autoencoder, a npz file a split with x and labels y:
`--config.data.path=DIR/{split}.npz`, `--config.data.factor=1` where they are multiplied by .18215 already. The
published network also learns variances, on 4 more output channels (`out_channels=8`) and by a loss of their own; here
it predicts the noise alone and DDPM's posterior variance is taken. The best published figures are of 7 million steps.

arXiv:2212.09748
"""

from ml_collections import ConfigDict


def get_config(size: str = 'XL') -> ConfigDict:
  c = ConfigDict()
  c.seed = 0
  c.data = dict(
    name='npz', path='imagenet256/{split}.npz', latents=True, factor=0.18215, shape=(32, 32, 4), classes=1000
  )
  c.process = dict(name='vp_linear')
  c.net = dict(name='dit', size=size, patch=2, dtype='bfloat16', remat='dots', scan=True)
  c.loss = dict(name='denoising', kind='eps', drop_cond=0.1)
  c.train = dict(
    steps=400_000, batch=256,
    optimiser=dict(name='adamw', learning_rate=1e-4, schedule='constant', weight_decay=0.0, clip=0.0),
    ema=(0.9999,), log_every=100, save_every=5000,
  )  # fmt: skip
  c.sampling = dict(solver='ddpm', grid='uniform', steps=250, guidance_scale=1.5, batch=4096)
  c.evaluation = dict(n=50_000)
  c.mesh = dict(data=-1, fsdp=8, model=1)
  return c
