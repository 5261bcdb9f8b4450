"""Eight Gaussians on a ring by rectified flow: seconds on a laptop. `--config=toy2d.py:moons` takes another toy."""

from ml_collections import ConfigDict


def get_config(name: str = 'ring8') -> ConfigDict:
  c = ConfigDict()
  c.seed = 0
  c.data = dict(name=name, shape=(2,), classes=0)
  c.process = dict(name='flow')
  c.net = dict(name='mlp', width=128, depth=3)
  c.loss = dict(name='denoising', kind='velocity', times='logit_normal')
  c.train = dict(steps=3000, batch=512, optimiser=dict(name='adam', learning_rate=2e-3), ema=(0.999,))
  c.sampling = dict(solver='heun', grid='uniform', steps=20)
  c.evaluation = dict(n=2000)
  return c
