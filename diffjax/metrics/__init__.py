"""What samples are worth: figures with floors and intervals on any feature function (`protocol.evaluate`)."""

from diffjax.metrics.protocol import evaluate, features_for, measure

__all__ = ['evaluate', 'features_for', 'measure']
