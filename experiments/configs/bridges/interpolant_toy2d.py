"""A stochastic interpolant from noise to eight Gaussians on a ring, drawn by its SDE: a minute on a laptop."""

from ml_collections import ConfigDict


def get_config() -> ConfigDict:
  c = ConfigDict()
  c.seed = 0
  c.data = dict(name='ring8', shape=(2,), classes=0)
  c.process = dict(name='flow')
  c.net = dict(name='mlp', width=128, depth=3)
  c.loss = dict(name='denoising', kind='velocity')
  c.method = dict(name='stochastic_interpolant', path='linear', noise=0.5)
  c.train = dict(steps=3000, batch=512, optimiser=dict(name='adam', learning_rate=2e-3), ema=(0.999,))
  c.sampling = dict(steps=100)
  c.evaluation = dict(n=2000)
  return c
