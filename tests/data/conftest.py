import pytest

from diffjax.data import load


@pytest.fixture(scope='session')
def home(tmp_path_factory):
  """A directory in which the digits are prepared."""
  path = tmp_path_factory.mktemp('tfds')
  load('digits', 'train', str(path))
  return str(path)


@pytest.fixture(scope='session')
def digits(home):
  return load('digits', 'train', home)
