"""Fair synthetic rows for a table whose outcome is biased: some two minutes on two CPU cores."""

from ml_collections import ConfigDict


def get_config() -> ConfigDict:
  c = ConfigDict()
  c.seed = 0
  c.data = dict(name='biased_table', shape=(6,), classes=2, others=dict(sensitive=(1,)))
  c.process = dict(name='cosine')
  c.net = dict(name='mlp', width=64, depth=3)
  c.loss = dict(name='denoising', kind='v')
  c.method = dict(name='fair_latent_distillation')
  c.train = dict(steps=4000, batch=512, optimiser=dict(name='adam', learning_rate=1e-3, warmup=100), ema=(0.99,))
  c.sampling = dict(solver='dpmpp_2m', grid='uniform', steps=8)
  c.evaluation = dict(n=2000)
  c.mesh = dict(data=-1, fsdp=1, model=1, cpu_devices=2)
  return c
