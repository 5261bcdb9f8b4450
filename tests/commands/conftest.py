import pytest


@pytest.fixture(scope='module', autouse=True)
def pictures(plain_pictures):
  """Those of every command."""
