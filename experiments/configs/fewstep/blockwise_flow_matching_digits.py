"""BFM: six small transformers, one a segment of time, told features found once in each: digits, some nine minutes."""

from ml_collections import ConfigDict


def get_config() -> ConfigDict:
  c = ConfigDict()
  c.seed = 0
  c.data = dict(name='digits', shape=(8, 8, 1), classes=10)
  c.process = dict(name='flow')
  c.net = dict(name='dit', size='S', patch=2, depth=2, width=64, heads=4)
  c.loss = dict(name='denoising', kind='velocity')
  c.method = dict(name='blockwise_flow_matching', features=32, residual_depth=2)
  c.train = dict(steps=4000, batch=96, optimiser=dict(name='adamw', learning_rate=1e-3, warmup=200), ema=(0.999,))
  c.sampling = dict(grid='uniform', steps=12)
  c.evaluation = dict(n=360)
  c.mesh = dict(data=-1, fsdp=1, model=1, cpu_devices=2)
  return c
