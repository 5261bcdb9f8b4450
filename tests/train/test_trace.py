"""Operations of a trace by their place in the program."""

from diffjax.train.trace import Operation, Place, places


def test_equal_layers_are_one_place():
  """The outermost number counts as any, an inner one does not; what has no source goes by its name."""
  known = {
    'dot.1': 'DiT/block_0/feed/in/dot_general',
    'fusion.2': 'DiT/block_11/feed/in/dot_general',
    'dot.3': 'DiT/block_1/add',
    'conv.1': 'UNet/up0_0/conv_0/conv_general_dilated',
    'conv.2': 'UNet/up0_1/conv_1/conv_general_dilated',
  }
  spent = {'conv.1': 4.0, 'dot.1': 3.0, 'fusion.2': 2.0, 'copy.7': 1.0, 'copy_8': 0.75, 'dot.3': 0.5, 'conv.2': 0.25}
  assert places([Operation(name, seconds, 1) for name, seconds in spent.items()], known) == [
    Place('DiT/block_*/feed/in/dot_general', 'dot', 5.0, 2),
    Place('UNet/up0_*/conv_0/conv_general_dilated', 'conv', 4.0, 1),
    Place('', 'copy', 1.75, 2),
    Place('DiT/block_*/add', 'dot', 0.5, 1),
    Place('UNet/up0_*/conv_1/conv_general_dilated', 'conv', 0.25, 1),
  ]
