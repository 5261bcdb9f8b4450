"""What a run tells while it goes: metrics.csv, TensorBoard events and a progress bar, by process 0 alone."""

import csv
import io
import sys
import warnings
from collections.abc import Mapping, Sequence
from typing import Any

from etils import epath

from diffjax.paths import place

__all__ = ['Log', 'bar', 'read_csv']


class Log:
  """One line every few steps; the file is the same whether or not the run was stopped in between.

  Args:
    workdir: where metrics.csv and the events go; None writes nothing.
    start: the step from which the run goes on: later rows are of a run that was cut off, and are dropped.
    steps: the length of the run, for the bar; `progress` False shows none.
  """

  def __init__(self, workdir: str | epath.Path | None, start: int, steps: int, progress: bool = True):
    self.file = None if workdir is None else place(workdir, 'workdir') / 'metrics.csv'
    self.local = workdir is not None and '://' not in str(workdir)
    self.text, self.columns, self.behind = '', [], False
    if self.file is not None:
      self._resume(self.file, start)
    self.events = None if workdir is None else _events(workdir, start)
    self.bar = bar(progress, initial=start, total=steps, unit='step')

  def _resume(self, file: epath.Path, start: int) -> None:
    rows = read_csv(file)
    kept = [row for row in rows if int(row['step']) <= start]
    self.columns = list(rows[0]) if kept else []
    self.text = _lines(self.columns, [], header=True) + _lines(self.columns, kept) if kept else ''
    if rows or file.exists():
      file.write_text(self.text)

  def tick(self, loss: float | None = None) -> None:
    """One more step is done."""
    if loss is not None:
      self.bar.set_postfix_str(f'loss {loss:.4g}', refresh=False)
    self.bar.update()

  def write(self, step: int, line: Mapping[str, float], **timing: float) -> None:
    """Adds the means up to `step`. What is timed goes to the events alone: it would differ from run to run."""
    if self.events is not None:
      for name, value in {**line, **timing}.items():
        if value == value:
          self.events.add_scalar(name, value, step)
    if self.file is None:
      return
    row = {'step': str(step), **{name: '' if value != value else f'{value:.9g}' for name, value in line.items()}}
    added = '' if self.columns else _lines(list(row), [], header=True)
    self.columns = self.columns or list(row)
    added += _lines(self.columns, [row])
    self.text += added
    if self.local:
      self._put(self.file, added)

  def _put(self, file: epath.Path, added: str | None = None) -> None:
    """Appends `added`, or writes the file whole: object stores know no append, and a full disk may have cut it off."""
    try:
      if added is None or self.behind:
        file.write_text(self.text)
      else:
        with file.open('a') as end:
          end.write(added)
      self.behind = False
    except OSError as error:
      if not self.behind:
        warnings.warn(f'{file} not written ({error}); training goes on', RuntimeWarning, stacklevel=3)
      self.behind = True

  def flush(self) -> None:
    """Brings everything written so far to where it can be read."""
    if self.file is not None and (self.behind or not self.local):
      self._put(self.file)
    if self.events is not None:
      self.events.flush()

  def close(self) -> None:
    """Writes what is left, and ends the bar and the events."""
    self.flush()
    self.bar.close()
    if self.events is not None:
      self.events.close()


def bar(shown: bool = True, items: Any = None, **options: Any) -> Any:
  """A progress bar on stderr, over these items if any: twice a second on a terminal, every ten seconds in a file."""
  from tqdm import tqdm

  calm = 0.5 if sys.stderr.isatty() else 10.0
  return tqdm(items, disable=not shown, mininterval=calm, dynamic_ncols=True, **options)


def read_csv(file: str | epath.Path) -> list[dict[str, str]]:
  """The complete rows of a metrics.csv, without a last one that was cut off; none where there is no file."""
  file = place(file)
  text = file.read_text() if file.exists() else ''
  whole = text[: text.rfind('\n') + 1]
  return [row for row in csv.DictReader(io.StringIO(whole)) if None not in row.values() and row['step'].isdigit()]


def _lines(columns: list[str], rows: Sequence[Mapping[str, Any]], header: bool = False) -> str:
  out = io.StringIO()
  writer = csv.DictWriter(out, columns, lineterminator='\n', extrasaction='ignore')
  if header:
    writer.writeheader()
  writer.writerows(rows)
  return out.getvalue()


def _events(workdir: str | epath.Path, start: int) -> Any:
  """A TensorBoard writer where tensorboardX is installed."""
  try:
    from tensorboardX import SummaryWriter
  except ImportError:
    return None
  return SummaryWriter(str(place(workdir) / 'events'), purge_step=start + 1 if start else None)
