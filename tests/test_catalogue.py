"""The catalogue of experiments/README.md: what its rows name is there, and what should have a row has one."""

import ast
import functools
import importlib
import inspect
import re
import shlex
from pathlib import Path
from typing import NamedTuple

import pytest

import diffjax
from diffjax.cli import _parser
from diffjax.errors import InputError
from diffjax.runs.config import from_file, override
from diffjax.runs.experiment import build

README, CATALOGUE = Path('README.md').read_text(), Path('experiments/README.md').read_text()
COLUMNS = ('paper', 'arXiv', 'import', 'run', 'accepted by', 'table', 'the paper', 'here', 'ranking')
RANKINGS = ('holds', 'in part', 'no: ', 'not measured', 'not of the paper')
DEMO = 'experiments/configs/digits.py'  # of the run runs/demo
# Methods are the public names of every room but these, and of the modules beside and within the rooms.
NO_METHODS = {'commands', 'data', 'runs', 'train'}
MODULES = (
  'kinds', 'schedules', 'guidance.modes', 'losses.couplings', 'losses.times', 'losses.uncertainty', 'losses.weights',
  'metrics.frechet', 'metrics.kernel', 'metrics.neighbours', 'solvers.grids', 'train.ema', 'train.optimiser',
  'train.posthoc',
)  # fmt: skip


class Row(NamedTuple):
  """A line of a table, cell by cell as `COLUMNS` names them."""

  paper: str
  arxiv: str
  names: str
  run: str
  tests: str
  tables: str
  printed: str
  here: str
  ranking: str

  def parts(self, field: str) -> list[str]:
    """What stands between backticks."""
    return re.findall(r'`([^`]+)`', getattr(self, field))


def tables(text: str) -> dict[str, list[Row]]:
  """The rows by room, of the part of the page before what was measured."""
  catalogue, rooms = text.split('\n# What was measured')[0], {}
  for section in catalogue.split('\n## ')[1:]:
    title, _, body = section.partition('\n')
    head, rule, *lines = [line for line in body.splitlines() if line.startswith('|')]
    assert tuple(cells(head)) == COLUMNS and set(rule) == {'|', '-'}, title
    rooms[title] = []
    for line in lines:
      assert len(cells(line)) == len(COLUMNS), f'{title}: {line[:80]} has {len(cells(line))} cells'
      rooms[title].append(Row(*cells(line)))
    assert len(body.strip().split('\n\n')[0].splitlines()) == 2, f'{title}: an introduction of two lines'
  return rooms


def cells(line: str) -> list[str]:
  return [cell.strip() for cell in line.strip().strip('|').split('|')]


ROOMS = tables(CATALOGUE)
ROWS = [row for rows in ROOMS.values() for row in rows]
NAMED = {name: {row.arxiv for row in ROWS if name in row.parts('names')} for row in ROWS for name in row.parts('names')}
BY_PAPER = pytest.mark.parametrize('row', ROWS, ids=lambda row: row.arxiv)


def found(name: str):
  """What a name means after `diffjax.`, the longest module of it imported.

  Raises:
    AssertionError: there is no such thing.
  """
  path = name.split('.')
  for k in range(len(path), 0, -1):
    module = '.'.join(['diffjax', *path[:k]])
    if Path(*module.split('.')).with_suffix('.py').exists() or Path(*module.split('.'), '__init__.py').exists():
      try:
        return functools.reduce(getattr, path[k:], importlib.import_module(module))
      except AttributeError:
        break
  raise AssertionError(f'diffjax.{name} is not there')


def test_numbers_are_well_formed_and_unique():
  numbers = [row.arxiv for row in ROWS]
  assert [number for number in numbers if not re.fullmatch(r'\d{2}(0[1-9]|1[0-2])\.\d{4,5}', number)] == []
  assert sorted(number for number in set(numbers) if numbers.count(number) > 1) == []
  assert len({row.paper for row in ROWS}) == len(ROWS) > 40


@BY_PAPER
def test_cells_are_filled_and_the_ranking_is_one_of_four(row):
  assert all(row), row.arxiv
  assert row.parts('names') and row.parts('tests'), f'{row.arxiv} needs a name to import and a test'
  assert row.ranking.startswith(RANKINGS)
  assert row.here != '-' or row.ranking == 'not measured', f'{row.arxiv}: a ranking without a figure'


@BY_PAPER
def test_names_are_there_and_public(row):
  for name in row.parts('names'):
    found(name)
    room, _, last = name.rpartition('.')
    assert last in found(room).__all__, f'{name} is not public'


@BY_PAPER
def test_tests_and_scripts_are_there(row):
  for test in row.parts('tests'):
    path, _, function = test.partition('::')
    defined = [node.name for node in ast.parse(Path(path).read_text()).body if isinstance(node, ast.FunctionDef)]
    tests = [name for name in defined if name.startswith('test_')]
    assert path.startswith('tests/') and (function in tests if function else tests), test
  for script in row.parts('tables'):
    assert script.startswith('experiments/') and "if __name__ == '__main__'" in Path(script).read_text(), script


@BY_PAPER
def test_what_is_run_can_be_built(row):
  """Configs are read (`tests/experiments/test_configs.py` builds them); what a command overrides is built on an MLP."""
  for command in row.parts('run'):
    if command.startswith('experiments/configs/'):
      from_file(command)
    else:
      built(command)


@functools.cache
def built(command: str) -> None:
  """The command is parsed, and what it overrides is built into an experiment."""
  program, *arguments = shlex.split(command)
  assert program == 'diffjax', command
  options, overrides = _parser().parse_known_args(arguments)
  assert all(argument.startswith('--config.') for argument in overrides), command
  assert options.workdir == 'runs/demo' or options.command == 'train', command
  config = from_file(options.config if options.command == 'train' else DEMO)
  if not any(argument.startswith('--config.net') for argument in overrides):
    overrides = ['--config.net=mlp', '--config.net.width=8', '--config.net.depth=1', *overrides]
  build(override(config, overrides))


def sources(module, name: str) -> set[str]:
  """The papers that a public function or class cites; where it cites none a function has those of its module."""
  value = getattr(module, name)
  texts = [value.__doc__] if inspect.isclass(value) or inspect.isfunction(value) else []
  if inspect.isfunction(value) and module.__name__.split('.')[-1] not in {m.split('.')[-1] for m in MODULES}:
    texts.append(importlib.import_module(value.__module__).__doc__)
  cited = [set(re.findall(r'arXiv:(\d{4}\.\d{4,5})', text or '')) for text in texts]
  return next((numbers for numbers in cited if numbers), set())


def public() -> list[tuple[str, str, set[str]]]:
  rooms = sorted(path.parent.name for path in Path(diffjax.__path__[0]).glob('*/__init__.py'))
  rooms = [room for room in rooms if room not in NO_METHODS]
  assert {'guidance', 'losses', 'metrics', 'nets', 'search', 'solvers', 'statistics'} <= set(rooms)
  every = []
  for room in (*rooms, *MODULES):
    module = importlib.import_module(f'diffjax.{room}')
    every += [(room, name, sources(module, name)) for name in getattr(module, '__all__', ())]
  return every


def test_every_public_method_stands_in_the_row_of_each_paper_that_it_cites():
  """A new method: add its name to the row of its paper in experiments/README.md, or add the row."""
  every = public()
  missing = [
    f'{room}.{name}: {number}'
    for room, name, numbers in every
    for number in numbers
    if number not in NAMED.get(f'{room}.{name}', set())
  ]
  assert missing == []
  assert sum(bool(numbers) for *_, numbers in every) > 70


@pytest.mark.parametrize('page, where', [('README.md', '.'), ('experiments/README.md', 'experiments')])
def test_every_path_is_there(page, where):
  """Links, from where the page lies, and files of the checkout named between backticks or in commands."""
  text = Path(page).read_text()
  for link in re.findall(r'\]\(([^)#\s]+)(?:#[^)]*)?\)', text):
    assert '://' in link or (Path(where) / link).exists(), link
  named = re.findall(r'\b(?:diffjax|experiments|notebooks|tests)/[\w./-]*\w', re.sub(r'\]\([^)]*\)', ']', text))
  assert [path for path in named if not Path(path).exists()] == []
  titles = re.findall(r'^#+ (.*)', CATALOGUE, re.M)
  anchors = [re.sub(r'[^\w -]', '', title.lower()).replace(' ', '-') for title in titles]
  assert set(re.findall(r'\]\([^)#\s]*#([^)]*)\)', text)) <= set(anchors)
  for script in re.findall(r'python -m (experiments[\w.]+)', text):
    assert script.endswith('NAME') or Path(script.replace('.', '/') + '.py').exists(), script


def test_the_readme_leads_to_the_catalogue_and_is_read_to_its_end():
  assert '](experiments/README.md)' in README
  assert len(README.splitlines()) <= 200


def test_a_page_that_is_wrong_is_refused():
  """The parser sees a cell too many and a heading without an introduction; a name, an option that are not there."""
  line = next(line for line in CATALOGUE.splitlines() if line.startswith(f'| {ROWS[0].paper} |'))
  with pytest.raises(AssertionError, match='has 10 cells'):
    tables(CATALOGUE.replace(line, f'{line} more |'))
  with pytest.raises(AssertionError, match='is not there'):
    found('solvers.ddin')
  with pytest.raises(InputError, match='ddin'):
    built('diffjax sample --workdir=runs/demo --config.sampling.solver=ddin')
