"""What a wheel of this checkout would hold."""

import configparser
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]


def test_the_wheel_holds_diffjax_alone():
  """All packages of diffjax and no other: `experiments` would lie beside those of other projects."""
  find_packages = pytest.importorskip('setuptools').find_packages
  parser = configparser.ConfigParser()
  parser.read(ROOT / 'setup.cfg')
  assert parser['options']['packages'] == 'find:'
  found = find_packages(str(ROOT), include=parser['options.packages.find']['include'].split())
  inside = {'.'.join(file.parent.relative_to(ROOT).parts) for file in ROOT.glob('diffjax/**/__init__.py')}
  assert set(found) == inside and {'diffjax', 'diffjax.nets', 'diffjax.commands'} <= inside
  assert (ROOT / 'experiments' / '__init__.py').exists()  # of a checkout it is a package nevertheless
