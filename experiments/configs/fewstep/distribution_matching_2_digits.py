"""Two steps whose samples have the teacher's law, with a judge of real data: digits, some eight minutes."""

from ml_collections import ConfigDict


def get_config() -> ConfigDict:
  c = ConfigDict()
  c.seed = 0
  c.data = dict(name='digits', shape=(8, 8, 1), classes=10)
  c.process = dict(name='cosine')
  c.teacher = dict(run='runs/demo')
  c.net = dict(name='unet', width=24, channel_mult=(1, 2), blocks_per_level=1, attention=(4,))
  c.loss = dict(name='denoising', kind='v')
  judge = dict(name='unet', width=16, channel_mult=(1, 2), blocks_per_level=1, attention=())
  c.method = dict(name='distribution_matching_2', levels=(0.75, 0.4), scale=1.2, discriminator=judge, pace=3.0)
  optimiser = dict(name='adam', learning_rate=2e-4, b1=0.0, warmup=100)
  c.train = dict(steps=2500, batch=64, optimiser=optimiser, ema=(0.99,))
  c.sampling = dict(grid='uniform', steps=2)
  c.evaluation = dict(n=360)
  c.mesh = dict(data=-1, fsdp=1, model=1, cpu_devices=2)
  return c
