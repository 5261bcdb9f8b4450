"""A picture of any data: of each shape a file, and of images the numbers that it shows."""

import numpy as np
import pytest

from diffjax.runs import plots

PNG = b'\x89PNG'


def test_one_channel_is_grey_and_three_are_colours():
  x = np.random.default_rng(0).uniform(-1.5, 1.5, (2, 4, 5, 3))
  np.testing.assert_allclose(plots.shown(x), np.clip((x + 1) / 2, 0, 1), atol=1e-6)
  np.testing.assert_allclose(plots.shown(x[..., :1]), np.clip((x[..., 0] + 1) / 2, 0, 1), atol=1e-6)


@pytest.mark.parametrize(('channels', 'rows', 'columns'), [(2, 1, 2), (4, 2, 2), (5, 2, 3), (16, 4, 4), (17, 4, 5)])
def test_other_channels_stand_apart(channels, rows, columns):
  """Channel c is the tile in row c // columns and column c % columns; what is no channel is white."""
  x = np.random.default_rng(1).uniform(-1, 1, (2, 4, 6, channels))
  found = plots.shown(x)
  assert found.shape == (2, 5 * rows - 1, 7 * columns - 1)
  expected = np.ones_like(found)
  for c in range(channels):
    top, left = 5 * (c // columns), 7 * (c % columns)
    expected[:, top : top + 4, left : left + 6] = (x[..., c] + 1) / 2
  np.testing.assert_allclose(found, expected, atol=1e-6)


@pytest.mark.parametrize('channels', [1, 2, 3, 4])
def test_grids_and_trajectories_of_any_channels(channels, tmp_path):
  x = np.zeros((3, 4, 4, channels), np.float32)
  plots.image_grid(tmp_path / 'grid.png', x, np.arange(3), columns=2)
  plots.trajectory(tmp_path / 'path.png', x[:, None], x[:, None], [1.0, 0.5, 0.0])
  for name in ('grid.png', 'path.png'):
    assert (tmp_path / name).read_bytes().startswith(PNG)


def drawn(monkeypatch, panels):
  """The axes of `points`' picture."""
  kept = []
  monkeypatch.setattr(plots, '_save', lambda canvas, path: kept.append(canvas.figure))
  plots.points('nowhere', panels)
  return kept[0].axes


def test_points_of_one_coordinate_are_a_histogram(monkeypatch):
  """Bars over common bins, as a density: their areas add up to 1, and they stand where the points are."""
  rng = np.random.default_rng(2)
  panels = {'held out': rng.normal(-1, 0.1, (500, 1)), 'samples': rng.normal(2, 0.1, (300, 1))}
  axes = drawn(monkeypatch, panels)
  for axis, x in zip(axes, panels.values(), strict=True):
    area = [bar.get_width() * bar.get_height() for bar in axis.patches]
    centre = [bar.get_x() + bar.get_width() / 2 for bar in axis.patches]
    assert sum(area) == pytest.approx(1)
    assert np.dot(area, centre) == pytest.approx(x.mean(), abs=axis.patches[0].get_width() / 2)
  assert axes[0].get_xlim() == axes[1].get_xlim()


def test_points_of_two_coordinates_are_themselves(monkeypatch):
  x = np.random.default_rng(3).standard_normal((50, 2))
  (axis,) = drawn(monkeypatch, {'samples': x})
  np.testing.assert_allclose(axis.collections[0].get_offsets(), x)


@pytest.mark.parametrize('shape', [(3,), (4, 5), (2, 3, 3, 1)])
def test_points_of_more_are_their_principal_components(shape, monkeypatch):
  """Data that lies in a plane is shown as it lies there: all distances are kept."""
  rng = np.random.default_rng(4)
  plane = rng.standard_normal((40, 2)) * [3, 1]
  basis, _ = np.linalg.qr(rng.standard_normal((int(np.prod(shape)), 2)))
  (axis,) = drawn(monkeypatch, {'samples': (plane @ basis.T + 1).reshape(40, *shape)})
  found = np.asarray(axis.collections[0].get_offsets())
  gaps = lambda x: np.linalg.norm(x[:, None] - x[None], axis=-1)  # noqa: E731
  np.testing.assert_allclose(gaps(found), gaps(plane), atol=1e-9)


@pytest.mark.parametrize('shape', [(1, 1), (1, 2), (1, 5)])
def test_few_points_have_a_picture_too(shape, tmp_path):
  plots.points(tmp_path / 'x.png', {'samples': np.zeros(shape)})
  assert (tmp_path / 'x.png').read_bytes().startswith(PNG)
