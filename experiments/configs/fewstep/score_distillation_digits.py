"""Ten images of six Gaussians each, one a digit, led to modes of the teacher: digits, some three minutes."""

from ml_collections import ConfigDict


def get_config() -> ConfigDict:
  c = ConfigDict()
  c.seed = 0
  c.data = dict(name='digits', shape=(8, 8, 1), classes=10)
  c.process = dict(name='cosine')
  c.teacher = dict(run='runs/demo')
  c.net = dict(name='mlp', width=8, depth=1)  # not used: what is trained is the scene
  c.method = dict(name='score_distillation', scene=dict(name='splats', count=10, splats=6), scale=10.0)
  c.train = dict(steps=1500, batch=40, optimiser=dict(name='adam', learning_rate=1e-2), ema=(0.99,))
  c.sampling = dict(steps=1)
  c.evaluation = dict(n=360)
  c.mesh = dict(data=-1, fsdp=1, model=1, cpu_devices=2)
  return c
