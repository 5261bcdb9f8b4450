"""A denoising diffusion GAN, four long strides from noise to data: digits, some eight minutes on two CPU cores."""

from ml_collections import ConfigDict


def get_config() -> ConfigDict:
  c = ConfigDict()
  c.seed = 0
  c.data = dict(name='digits', shape=(8, 8, 1), classes=10)
  c.process = dict(name='vp_linear')
  c.net = dict(name='unet', width=24, channel_mult=(1, 2), blocks_per_level=1, attention=(4,))
  c.loss = dict(name='denoising', kind='x0')
  c.method = dict(name='diffusion_gan', strides=4, latent=4)
  c.train = dict(
    steps=2000, batch=64, optimiser=dict(name='adam', learning_rate=5e-4, warmup=200, b1=0.5, b2=0.9), ema=(0.999,)
  )
  c.sampling = dict(grid='uniform', steps=4)
  c.evaluation = dict(n=360)
  c.mesh = dict(data=-1, fsdp=1, model=1, cpu_devices=2)
  return c
