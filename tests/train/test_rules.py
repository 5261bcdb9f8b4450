"""Rules from logical axes to the mesh, on shapes alone: no devices."""

import jax
import jax.numpy as jnp
import pytest
from jax.sharding import AbstractMesh

from diffjax import nets
from diffjax.runs.config import ConfigError, defaults, override
from diffjax.runs.experiment import build
from diffjax.train import rules
from diffjax.train.sharding import AXES, state_shardings

X, T = jnp.zeros((1, 8, 8, 1)), jnp.zeros(1)
DIT = nets.dit(depth=2, width=16, heads=4, classes=10, scan=True)
UNET = nets.unet(width=16, channel_mult=(1, 2), blocks_per_level=1, attention=(4,), classes=10)


def mesh(data, fsdp, model):
  return AbstractMesh((data, fsdp, model), AXES)


def laid(net, sizes, given=(), min_fsdp_size=128):
  """Path -> spec of the parameters, of an average and of Adam's moments, which must be the same."""
  params = jax.eval_shape(net.init, jax.random.key(0), X, T)
  state = dict(roles=dict(student=params, teacher=params), ema=params, opt=[(dict(mu=params),)])
  layout = rules.layout(net.axes(X, T), given)
  specs = jax.tree.map(lambda s: s.spec, state_shardings(mesh(*sizes), state, layout, min_fsdp_size))
  student, *copies = (specs['roles']['student'], specs['roles']['teacher'], specs['ema'], specs['opt'][0][0]['mu'])
  assert all(jax.tree.leaves(copy) == jax.tree.leaves(student) for copy in copies)
  flat = jax.tree.leaves_with_path(student, is_leaf=lambda s: isinstance(s, jax.sharding.PartitionSpec))
  return {jax.tree_util.keystr(path, simple=True, separator='/'): tuple(spec) for path, spec in flat}


def test_transformer_is_split_as_megatron():
  """Weights of two blocks stacked under scan: fsdp leaves the layers alone."""
  specs = laid(DIT, (1, 2, 2))
  assert specs['blocks/attention/qkv/kernel'] == (None, 'fsdp', None, 'model')
  assert specs['blocks/attention/qkv/bias'] == (None, None, 'model')
  assert specs['blocks/attention/out/kernel'] == (None, 'model', 'fsdp')
  assert specs['blocks/feed/in/kernel'] == (None, 'fsdp', 'model')
  assert specs['blocks/feed/out/kernel'] == (None, 'model', 'fsdp')
  assert specs['blocks/ada/kernel'] == (None, 'model', 'fsdp')
  assert specs['blocks/attention/out/bias'] == specs['blocks/feed/out/bias'] == ()
  assert specs['label/table'] == (None, 'model')  # 11 rows do not divide


def test_convolutions_are_split_by_output():
  specs = laid(UNET, (1, 2, 2))
  assert specs['down0_0/conv_0/kernel'] == (None, None, 'fsdp', 'model')
  assert specs['down0_0/norm_0/scale'] == ('model',)
  assert specs['middle_attention/out/kernel'] == ('fsdp', 'model')
  assert specs['middle_attention/qkv/kernel'] == ('fsdp', None, None)


def test_given_rules_replace_the_table():
  specs = laid(DIT, (1, 2, 2), [('mlp', None), ('in', 'data'), ('layers', 'fsdp')])
  assert specs['blocks/feed/out/kernel'] == ('fsdp', None, None)
  assert specs['blocks/attention/qkv/kernel'] == ('fsdp', None, None, 'model')  # data has one device


def test_a_rule_without_a_weight_warns():
  with pytest.warns(RuntimeWarning, match="no weight has the axis 'layers', the rule does nothing; there are embed, "):
    rules.layout(UNET.axes(X, T), [('layers', 'fsdp')])


@pytest.mark.parametrize(
  'given, text',
  [
    ('mlp', "got 'm'; allowed: pairs"),
    ([('hidden', 'model')], "got the logical axis 'hidden'; allowed: in, out, heads, mlp, embed, label, layers"),
    ([('mlp', 'tensor')], "got the mesh axis 'tensor' for 'mlp'; allowed: data, fsdp, model, None"),
    ([('mlp', 'model'), ('mlp', None)], "got 'mlp' twice, for model and None"),
    ([('out', 'model')], "got 'embed' and 'out' both on model, which meet in the weight ada/kernel; allowed: None for"),
  ],
)
def test_bad_rules_are_refused(given, text):
  with pytest.raises(ValueError, match=text):
    rules.layout(DIT.axes(X, T), given)


def test_a_config_says_what_is_wrong():
  """Before data and compilation, with the config's name of the field."""
  base = [f'--config.net={dict(name="dit", depth=1, width=24, heads=3)!r}']
  with pytest.raises(ConfigError, match="config.mesh.rules: got the mesh axis 'tensor'"):
    build(override(defaults(), [*base, "--config.mesh.rules=(('mlp','tensor'),)"]))
  what = build(override(defaults(), base))
  assert what.layout(mesh(8, 1, 1)) is None
  text = "config.mesh: model: got 2; allowed: a number that divides the 3 heads of block_0/attention, .*'heads', None"
  with pytest.raises(ConfigError, match=text):
    what.layout(mesh(4, 1, 2))
  whole = build(override(defaults(), [*base, "--config.mesh.rules=(('heads',None),)"]))
  assert whole.layout(mesh(4, 1, 2)).rules['heads'] is None
