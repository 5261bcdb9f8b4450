"""A network that never saw its null condition is not guided by it, whoever guides."""

import jax.numpy as jnp
import numpy as np
import pytest

from diffjax import guidance, kinds, nets, schedules
from diffjax.guidance import modes
from diffjax.prediction import Denoiser
from diffjax.runs.config import ConfigError, from_file, override
from diffjax.runs.experiment import build

LABELLED = ['--config.net.name=mlp', '--config.data.shape=(2,)', '--config.data.name=ring8', '--config.data.classes=8']


def experiment(*overrides, config='experiments/configs/toy2d.py'):
  return build(override(from_file(config), [f'--config.{o}' if not o.startswith('--') else o for o in overrides]))


def untrained(what):
  return what.denoiser({'student': ()}).untrained


@pytest.mark.parametrize('guide', [guidance.cfg, guidance.cfgpp])
def test_labels(guide):
  """By loss.drop_cond: the network's own null is refused, given or not; another class may be guided away from."""
  what = experiment(*LABELLED)
  assert what.config.loss.drop_cond == 0 and untrained(what) == 'config.loss.drop_cond is 0'
  for wrapped in (what.denoiser({'student': ()}), guidance.threshold(what.denoiser({'student': ()}))):
    for given in (None, 8, np.int32(8), jnp.asarray(8)):
      with pytest.raises(
        ValueError, match='null: .*never saw it in training, since config.loss.drop_cond is 0; allowed'
      ):
        guide(wrapped, 4.0, given)
    guide(wrapped, 4.0, 3)
  with pytest.raises(ValueError, match='config.loss.drop_cond is 0'):
    what.denoiser({'student': ()})(jnp.zeros((1, 2)), 0.5)  # no label is the null label
  dropped = experiment(*LABELLED, 'loss.drop_cond=.1')
  assert untrained(dropped) == ''
  guide(dropped.denoiser({'student': ()}), 4.0)


def test_a_config_that_asks_for_it():
  assert untrained(experiment(*LABELLED, 'loss.drop_cond=.1', 'sampling.guidance_scale=4.')) == ''
  for scale in (0.0, 4.0):
    with pytest.raises(
      ConfigError, match=f'config.sampling.guidance_scale: got {scale:g}; allowed: 1, since config.loss.drop_cond is 0'
    ):
      experiment(*LABELLED, f'sampling.guidance_scale={scale}')


def test_no_labels_need_no_null():
  what = experiment(*LABELLED[:-1], 'data.classes=0')
  assert untrained(what) == '' and what.denoiser({'student': ()}).null is None


def test_modalities():
  """By loss.ends: what is marginalised lies at t_max, where such a network was never asked."""
  pairs = 'experiments/configs/unidiffuser_digits.py'
  noise = {'image': jnp.zeros((1, 8, 8, 1)), 'label': jnp.zeros((1, 10))}
  text = {'label': noise['label']}
  trained, not_trained = experiment(config=pairs), experiment('loss.ends=0.', config=pairs)
  assert untrained(trained) == '' and untrained(not_trained) == 'config.loss.ends is 0'
  for what, fine in ((trained, True), (not_trained, False)):
    denoise = what.denoiser({'student': ()})
    inner = modes.conditional(denoise, 'image')  # given the others: nothing is marginalised
    for make in (
      lambda: modes.conditional(denoise, 'image', text),  # noqa: B023
      lambda: modes.joint(denoise, 2.0, noise),  # noqa: B023
      lambda: guidance.cfg(modes.conditional(denoise, 'image', text), 3.0),  # noqa: B023
      lambda: guidance.cfg(inner, 3.0, modes.marginalised(denoise.process, text)),  # noqa: B023
    ):
      if fine:
        make()
      else:
        with pytest.raises(ValueError, match='null: .*config.loss.ends is 0'):
          make()


def test_modalities_drop_no_labels():
  net = nets.unidiffuser(depth=2, width=16, heads=2, classes=3)
  what = experiment('data.classes=10', config='experiments/configs/unidiffuser_digits.py')
  assert 'drops no labels' in untrained(what)
  denoise = Denoiser((), schedules.cosine(), kinds.v(), 3, net=net, untrained=untrained(what))
  with pytest.raises(ValueError, match='drops no labels'):
    denoise({'a': jnp.zeros((1, 2)), 'b': jnp.zeros((1, 2))}, 0.5)
