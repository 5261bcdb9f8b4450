"""The networks' rows of the property table."""

from entries import CLASSES, IMAGE, POINT, Entry, Static, weights

from diffjax import nets


def net(make, shape=POINT, **options):
  """The network and its weights; time and label move with the sample."""

  def numbers(seed, dtype):
    return Static(make(classes=CLASSES, dtype=dtype, **options)), weights(make(classes=CLASSES, **options), seed, shape)

  def run(tree, x, cond, key):
    return tree[0].value(tree[1], x, 100.0 * cond + 5, cond, key)

  return Entry(numbers, run, shape)


class Twice:
  """`unidiffuser` of a point and of itself reversed, each at its own time."""

  def __init__(self, **options):
    self.net = nets.unidiffuser(**options)

  def init(self, key, x, t, cond):
    return self.net.init(key, *self._pair(x, t), cond)

  def __call__(self, params, x, t, cond, key):
    return self.net(params, *self._pair(x, t), cond, key)

  def __eq__(self, other):
    return isinstance(other, Twice) and self.net == other.net

  def __hash__(self):
    return hash(self.net)

  def _pair(self, x, t):
    return {'a': x, 'b': x[:, ::-1]}, {'a': t, 'b': t / 2}


NETS = {
  'edm2': net(
    nets.edm2, IMAGE, width=4, channel_mult=(1,), blocks_per_level=1, attention=(4,), head_dim=4, dropout=0.2
  ),
  'dit': net(nets.dit, IMAGE, width=8, depth=1, heads=2),
  'egnn': net(nets.egnn, (3, 4), width=8, depth=1),
  'mlp': net(nets.mlp, width=8, depth=2),
  's4': net(nets.s4, (4, 2), width=4, depth=1, states=4),
  'unet': net(nets.unet, IMAGE, width=4, channel_mult=(1,), blocks_per_level=1, attention=(4,), dropout=0.2),
  'unidiffuser': net(Twice, width=8, depth=2, heads=2),
  'uvit': net(nets.uvit, IMAGE, width=8, depth=2, heads=2),
}
HELPERS = {'Apply', 'DiT', 'EDM2', 'EGNN', 'MLP', 'S4', 'UNet', 'UniDiffuser', 'UViT'}
GROUPS = {'nets': (NETS, set(nets.__all__) - HELPERS)}
