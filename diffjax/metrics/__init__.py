"""What samples are worth: figures with floors and intervals, by the kind of data (`report`) or on any features."""

from diffjax.metrics.families import lines, report
from diffjax.metrics.protocol import evaluate, features_for, measure

__all__ = ['evaluate', 'features_for', 'lines', 'measure', 'report']
