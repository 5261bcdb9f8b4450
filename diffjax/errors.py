"""The one class of bad input."""

__all__ = ['InputError']


class InputError(ValueError):
  """Says that a caller's value cannot be used: `field: got X; allowed: Y`, raised before anything is compiled.

  The commands end on it with one line and status 2. Every other exception is a bug of ours and keeps its traceback.
  """
