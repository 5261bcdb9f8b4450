"""The reference targets and the NumPy runner stand beside the solvers' tests."""

import sys
from pathlib import Path

sys.path.append(str(Path(__file__).parents[1] / 'solvers'))
