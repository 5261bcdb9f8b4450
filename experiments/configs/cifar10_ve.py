"""CIFAR-10, unconditional: NCSN++ on the variance-exploding SDE with predictor and corrector.

Noise levels .02 to 100 for images in [-1, 1] are the published .01 to 50 for those in [0, 1]. Kind eps is the published
network divided by sigma, but for its sign. Of the 2000 evaluations the last two go on from sigma = .02 to the data.
Prepare the data once where TensorFlow is at hand: `tfds build cifar10`.

arXiv:2011.13456
"""

from ml_collections import ConfigDict


def get_config() -> ConfigDict:
  c = ConfigDict()
  c.seed = 0
  c.data = dict(name='cifar10', shape=(32, 32, 3), classes=0)
  c.process = dict(name='ve', sigma_min=0.02, sigma_max=100.0)
  c.net = dict(
    name='unet', width=128, channel_mult=(1, 2, 2, 2), blocks_per_level=4, attention=(16,), dropout=0.1,
    resample='fir', embedding='fourier', progressive=True,
  )  # fmt: skip
  c.loss = dict(name='denoising', kind='eps')
  c.train = dict(
    steps=1_300_000, batch=128,
    optimiser=dict(name='adam', learning_rate=2e-4, warmup=5000, schedule='constant', clip=1.0),
    ema=(0.999,), log_every=100, save_every=5000,
  )  # fmt: skip
  c.sampling = dict(
    solver=dict(name='predictor_corrector', snr=0.16, to_data=True), grid='uniform', steps=999, batch=2048
  )
  c.evaluation = dict(n=10_000)
  c.mesh = dict(data=-1, fsdp=1, model=1)
  return c
