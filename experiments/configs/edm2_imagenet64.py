"""ImageNet at 64 x 64, class-conditional, EDM2-S as published, in bfloat16, sharded over data and fsdp.

Other published sizes: `edm2_imagenet64.py:M` (L, XL). Prepare the data once where TensorFlow is at hand:
`tfds build imagenet_resized/64x64`.   arXiv:2312.02696
"""

from ml_collections import ConfigDict

PEAK = dict(XS=0.012, S=0.01, M=0.009, L=0.008, XL=0.007)
MIMAGES = dict(XS=1024, S=1024, M=2048, L=1024, XL=640)  # times 2^20 images


def get_config(size: str = 'S') -> ConfigDict:
  c = ConfigDict()
  batch = 2048
  c.seed = 0
  c.data = dict(name='imagenet_resized/64x64', shape=(64, 64, 3), classes=1000)
  c.process = dict(name='edm', sigma_min=0.002, sigma_max=80.0)
  c.net = dict(name='edm2', size=size, dropout=0.1 if size in ('M', 'L', 'XL') else 0.0, dtype='bfloat16', remat=True)
  c.loss = dict(
    name='denoising', kind=dict(name='edm', data_std=0.5), times=dict(name='lognormal', mean=-0.8, std=1.6),
    weight=dict(name='edm', data_std=0.5), uncertainty=True,
  )  # fmt: skip
  c.train = dict(
    steps=MIMAGES[size] * 2**20 // batch, batch=batch,
    optimiser=dict(
      name='adam', learning_rate=PEAK[size], b2=0.99, clip=0.0, forced_norm=True,
      schedule='inverse_sqrt', decay_from=35_000, warmup=10_000_000 // batch,
    ),
    ema=('power:.05', 'power:.1'), log_every=100, save_every=2**23 // batch * 4, max_to_keep=64,
  )  # fmt: skip
  c.sampling = dict(solver='heun', grid='karras', steps=32, batch=2048)
  c.evaluation = dict(n=50_000, split='validation')
  c.mesh = dict(data=-1, fsdp=8, model=1)
  return c
