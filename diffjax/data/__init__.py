"""Data: named sets (`load`) and endless batches whose position is the step (`batches`)."""

from diffjax.data.dataset import DataSet
from diffjax.data.pipeline import batches
from diffjax.data.sources import load

__all__ = ['DataSet', 'batches', 'load']
