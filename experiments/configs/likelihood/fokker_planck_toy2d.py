"""A log-density held to the Fokker-Planck equation: eight Gaussians on a ring, a minute on a laptop."""

from ml_collections import ConfigDict


def get_config() -> ConfigDict:
  c = ConfigDict()
  c.seed = 0
  c.data = dict(name='ring8', shape=(2,), classes=0)
  c.process = dict(name='vp_linear')
  c.net = dict(name='mlp', width=128, depth=3)
  c.loss = dict(name='denoising', kind='score')
  c.method = dict(name='fokker_planck', weight=0.01, probe='exact')
  c.train = dict(steps=3000, batch=256, optimiser=dict(name='adam', learning_rate=1e-3), ema=(0.999,))
  c.sampling = dict(solver='heun', grid='uniform', steps=20)
  c.evaluation = dict(n=2000)
  return c
