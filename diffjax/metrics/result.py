"""What a metric hands back: never a bare number."""

from __future__ import annotations

import dataclasses

__all__ = ['Metric']


@dataclasses.dataclass(frozen=True)
class Metric:
  """A figure with what is needed to read it.

  Attributes:
    value: the estimate.
    floor: the same estimate for real data in the samples' place (same sizes, same classes); None where not measured.
    interval: 95% (low, high) of the value's sampling spread, `resample.half_samples`; None where not measured.
    n: reference points.
    m: samples.
    features: id of the feature function.
  """

  value: float
  floor: float | None
  interval: tuple[float, float] | None
  n: int
  m: int
  features: str

  def as_dict(self) -> dict:
    """The fields by name, in plain Python types that JSON takes."""
    fields = dataclasses.asdict(self)
    fields['value'] = float(self.value)
    fields['floor'] = None if self.floor is None else float(self.floor)
    fields['interval'] = None if self.interval is None else [float(end) for end in self.interval]
    return fields
