"""ControlNet: digits by their edges, on the run of `digits.py`, which stays as it is; some minutes on two cores."""

from typing import Any

from ml_collections import ConfigDict

from experiments.configs import digits


def get_config() -> ConfigDict:
  c: Any = digits.get_config()
  c.data = dict(name='digits_edges', shape=(8, 8, 1), classes=10, others=dict(source=(8, 8, 1)))
  c.base = dict(run='runs/demo')
  c.loss.given = ('source',)
  c.method = dict(name='controlnet')
  c.train.steps = 1000
  return c
