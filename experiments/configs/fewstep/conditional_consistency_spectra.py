"""CoMoSpeech: vowels' spectra from their labels in one step: some five minutes on two CPU cores.

Its teacher, runs/spectra, is trained by this config with --config.method=denoising --config.teacher.run=.
"""

from ml_collections import ConfigDict


def get_config() -> ConfigDict:
  c = ConfigDict()
  c.seed = 0
  c.data = dict(name='spectra', shape=(16, 20), classes=5)
  c.process = dict(name='edm')
  c.teacher = dict(run='runs/spectra')
  c.net = dict(name='mlp', width=256, depth=3)
  c.loss = dict(name='denoising', kind='edm')
  c.method = dict(name='conditional_consistency')
  c.train = dict(steps=5000, batch=64, optimiser=dict(name='adamw', learning_rate=1e-3, warmup=200), ema=(0.999,))
  c.sampling = dict(grid='uniform', steps=1)
  c.evaluation = dict(n=360)
  c.mesh = dict(data=-1, fsdp=1, model=1, cpu_devices=2)
  return c
