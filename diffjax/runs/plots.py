"""Pictures of a run: samples, the path from noise to data, the loss. The one module that imports matplotlib."""

import io
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from etils import epath

__all__ = ['image_grid', 'points', 'trajectory', 'losses']


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
  epath.Path(path).write_bytes(buffer.getvalue())


def shown(images: np.ndarray) -> np.ndarray:
  """Images (n, H, W, C) in [-1, 1] as (n, H, W) or (n, H, W, 3) in [0, 1]."""
  images = np.clip((np.asarray(images, np.float32) + 1) / 2, 0, 1)
  return images[..., 0] if images.shape[-1] == 1 else images[..., :3]


def _tile(axis: Any, image: np.ndarray, title: str = '') -> None:
  axis.imshow(image, cmap='gray', vmin=0, vmax=1, interpolation='nearest')
  axis.set_axis_off()
  if title:
    axis.set_title(title, fontsize=9)


def image_grid(path: Any, images: np.ndarray, labels: np.ndarray | None = None, columns: int = 10) -> None:
  """A grid of images (n, H, W, C), row by row; labels (n,) stand above the tiles where given."""
  images = shown(images)
  rows = -(-len(images) // columns)
  figure, canvas = _figure(0.72 * columns, 0.82 * rows)
  for i, axis in enumerate(np.ravel(figure.subplots(rows, columns, squeeze=False))):
    if i < len(images):
      _tile(axis, images[i], '' if labels is None else str(labels[i]))
    else:
      axis.set_axis_off()
  _save(canvas, path)


def trajectory(path: Any, points: np.ndarray, predicted: np.ndarray, times: Sequence[float] | np.ndarray) -> None:
  """Noise to data: the points x_t (n, k, H, W, C) of k samples at n times, two rows a sample with the predicted x0."""
  n, k = points.shape[:2]
  figure, canvas = _figure(0.75 * n, 1.6 * k)
  axes = figure.subplots(2 * k, n, squeeze=False)
  for j in range(k):
    for i in range(n):
      _tile(axes[2 * j, i], shown(points[i, j][None])[0], f't = {times[i]:.2g}' if j == 0 else '')
      _tile(axes[2 * j + 1, i], shown(predicted[i, j][None])[0])
  figure.suptitle('x_t above, the x0 predicted from it below', fontsize=9)
  _save(canvas, path)


def points(path: Any, panels: dict[str, np.ndarray]) -> None:
  """Scatter plots of 2-D points (n, 2), one panel a name, on common axes."""
  figure, canvas = _figure(3 * len(panels), 3.2)
  reach = max(float(np.abs(xy).max()) for xy in panels.values())
  for axis, (name, xy) in zip(figure.subplots(1, len(panels), squeeze=False)[0], panels.items(), strict=True):
    axis.scatter(xy[:, 0], xy[:, 1], s=2, alpha=0.5, linewidths=0)
    axis.set(title=name, xlim=(-reach, reach), ylim=(-reach, reach), aspect='equal')
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
