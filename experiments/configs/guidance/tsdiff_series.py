"""TSDiff: an unconditional model of windows of a series, its lags beside it: some three minutes on two CPU cores.

It forecasts, refines and synthesises as it is, by `guidance.self_guidance` and what stands beside it.
"""

from ml_collections import ConfigDict


def get_config() -> ConfigDict:
  c = ConfigDict()
  c.seed = 0
  c.data = dict(name='series', shape=(48, 2), classes=0, periods=(12.0, 24.0), lags=(24,))
  c.process = dict(name='vp_linear')
  c.net = dict(name='s4', width=32, depth=3, states=32)
  c.loss = dict(name='denoising', kind='eps')
  c.train = dict(steps=3000, batch=64, optimiser=dict(name='adam', learning_rate=1e-3, warmup=100), ema=(0.999,))
  c.sampling = dict(solver='ancestral', grid='uniform', steps=100)
  c.evaluation = dict(n=360)
  c.mesh = dict(data=-1, fsdp=1, model=1, cpu_devices=2)
  return c
