"""Pictures of a run: samples, the path from noise to data, the loss. The one module that imports matplotlib."""

import io
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from diffjax.paths import place

__all__ = ['image_grid', 'points', 'trajectory', 'losses']

PRINCIPAL = 2000  # points that principal components are taken of
LONGEST = 18  # letters of a caption


def _figure(width: float, height: float) -> tuple[Any, Any]:
  from matplotlib.backends.backend_agg import FigureCanvasAgg
  from matplotlib.figure import Figure

  figure = Figure(figsize=(width, height), layout='constrained')
  FigureCanvasAgg(figure)
  return figure, figure.canvas


def _save(canvas: Any, path: Any) -> None:
  """Written through epath, so that gs:// works."""
  buffer = io.BytesIO()
  canvas.print_figure(buffer, format='png', dpi=120)
  place(path).write_bytes(buffer.getvalue())


def shown(images: np.ndarray) -> np.ndarray:
  """Images (n, H, W, C) in [-1, 1] as (n, H, W) grey or (n, H, W, 3) colours in [0, 1].

  Of 1 channel grey, of 3 colours; any other number stand apart, grey, in rows of about as many as there are rows, with
  white lines between them and white in the places that are left.
  """
  images = np.clip((np.asarray(images, np.float32) + 1) / 2, 0, 1)
  n, height, width, channels = images.shape
  if channels == 3:
    return images
  columns = int(np.ceil(np.sqrt(channels)))
  rows = -(-channels // columns)
  apart = np.ones((n, rows * columns, height + 1, width + 1), np.float32)
  apart[:, :channels, :height, :width] = images.transpose(0, 3, 1, 2)
  apart = apart.reshape(n, rows, columns, height + 1, width + 1).swapaxes(2, 3)
  return apart.reshape(n, rows * (height + 1), -1)[:, :-1, :-1]


def _tile(axis: Any, image: np.ndarray, title: str = '', caption: str = '') -> None:
  axis.imshow(image, cmap='gray', vmin=0, vmax=1, interpolation='nearest')
  axis.set(xticks=[], yticks=[], frame_on=False)
  if title:
    axis.set_title(title, fontsize=9)
  if caption:
    text = caption if len(caption) <= LONGEST else caption[: LONGEST - 1] + '…'
    axis.set_xlabel(text, fontsize=min(9, 9 * 8 / len(text)), labelpad=2)  # 8 letters of 9 points fill a tile


def _stretch(images: np.ndarray) -> float:
  """How much wider than a square an image is shown."""
  return max(images.shape[2] / images.shape[1], 1.0)


def image_grid(path: Any, images: np.ndarray, labels: Sequence | np.ndarray | None = None, columns: int = 10) -> None:
  """A grid of images (n, H, W, C), see `shown`, row by row; labels, or names, of all n stand under the tiles."""
  images = shown(images)
  rows = -(-len(images) // columns)
  figure, canvas = _figure(0.72 * columns * _stretch(images), 0.82 * rows)
  for i, axis in enumerate(np.ravel(figure.subplots(rows, columns, squeeze=False))):
    if i < len(images):
      _tile(axis, images[i], caption='' if labels is None else str(labels[i]))
    else:
      axis.set_axis_off()
  _save(canvas, path)


def trajectory(path: Any, points: np.ndarray, predicted: np.ndarray, times: Sequence[float] | np.ndarray) -> None:
  """Noise to data: the points x_t (n, k, H, W, C) of k samples at n times, two rows a sample with the predicted x0."""
  n, k = points.shape[:2]
  tiles = [shown(np.reshape(x, (n * k, *x.shape[2:]))) for x in (points, predicted)]
  tiles = [x.reshape(n, k, *x.shape[1:]) for x in tiles]
  figure, canvas = _figure(0.75 * n * _stretch(tiles[0][0]), 1.6 * k)
  axes = figure.subplots(2 * k, n, squeeze=False)
  for j in range(k):
    for i in range(n):
      _tile(axes[2 * j, i], tiles[0][i, j], f't = {times[i]:.2g}' if j == 0 else '')
      _tile(axes[2 * j + 1, i], tiles[1][i, j])
  figure.suptitle('x_t above, the x0 predicted from it below', fontsize=9)
  _save(canvas, path)


def points(path: Any, panels: dict[str, np.ndarray]) -> None:
  """Points (n, ...) of any shape, a panel a name, on common axes.

  Of two coordinates a scatter plot, of one a histogram. Of more a scatter plot too: the first two principal
  components of all panels together, in the units of the data.
  """
  flat = {name: np.reshape(x, (len(x), -1)).astype(np.float64) for name, x in panels.items()}
  together = np.concatenate(list(flat.values()))
  axes_of, size = ('', ''), together.shape[1]
  if size > 2:
    mean = together.mean(0)
    some = together[:: -(-len(together) // PRINCIPAL)]
    basis = np.zeros((size, 2))
    basis[:, : len(some)] = np.linalg.svd(some - mean, full_matrices=False)[2][:2].T
    flat = {name: (x - mean) @ basis for name, x in flat.items()}
    axes_of = ('first principal component', 'second')
  drawn = np.concatenate(list(flat.values()))
  reach = max(float(np.abs(drawn).max(initial=0)), 1e-6)
  figure, canvas = _figure(3 * len(flat), 3.2)
  for axis, (name, x) in zip(figure.subplots(1, len(flat), squeeze=False)[0], flat.items(), strict=True):
    axis.set(title=name, xlim=(-reach, reach), xlabel=axes_of[0], ylabel=axes_of[1])
    if size == 1:
      axis.hist(x[:, 0], bins=60, range=(-reach, reach), density=True)
      axis.set(ylabel='density')
    else:
      axis.scatter(x[:, 0], x[:, 1], s=2, alpha=0.5, linewidths=0)
      axis.set(ylim=(-reach, reach), aspect='equal')
  _save(canvas, path)


def losses(path: Any, steps: Sequence[int], series: Mapping[str, Sequence[float]]) -> None:
  """Loss curves over steps, on a logarithmic axis; the first series is drawn strong."""
  figure, canvas = _figure(7, 4)
  axis = figure.subplots()
  for i, (name, values) in enumerate(series.items()):
    axis.plot(steps, values, label=name, linewidth=1.8 if i == 0 else 0.8, alpha=1 if i == 0 else 0.7)
  axis.set(xlabel='step', ylabel='loss', yscale='log')
  axis.grid(alpha=0.3)
  axis.legend(fontsize=8, ncols=2)
  _save(canvas, path)
