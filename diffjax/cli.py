"""diffjax train | sample | evaluate | statistics | search | profile."""

import argparse
import contextlib
import os
import sys
import traceback
from collections.abc import Iterator, Sequence

from diffjax.commands import evaluate, profile, sample, search, statistics, train
from diffjax.commands.process import as_before
from diffjax.errors import InputError
from diffjax.paths import expanded

__all__ = ['main']

COMMANDS = dict(train=train, sample=sample, evaluate=evaluate, statistics=statistics, search=search, profile=profile)

PATHS = ('workdir', 'config', 'out', 'solver')  # of the options, whatever the command

EPILOG = """\
The main job, and what one does with it:

  diffjax train --config=experiments/configs/digits.py --workdir=runs/demo
  diffjax evaluate --workdir=runs/demo
  diffjax sample --workdir=runs/demo --labels=0,1,2 --config.sampling.steps=10 --config.sampling.guidance_scale=3

Any value of a config is overridden by --config.section.key=value; a section that has a name takes the options of what
it names (--config.sampling.solver.name=unipc --config.sampling.solver.order=3). The same train command resumes a run
that was stopped. `diffjax COMMAND --help` explains each.
Bad input ends with one line and status 2; with DIFFJAX_TRACEBACK=1 in the environment, with its traceback."""


def main(arguments: Sequence[str] | None = None) -> int:
  """Run one command; the exit status is 2 where the input was refused, with one line that says why."""
  options, rest = _parser().parse_known_args(arguments)
  with refusals() as status:
    for field in PATHS:
      if getattr(options, field, None) is not None:
        setattr(options, field, expanded(getattr(options, field), field))
    overrides = [argument for argument in rest if argument.startswith('--config.')]
    unknown = [argument for argument in rest if argument not in overrides]
    if unknown:
      raise InputError(f'argument: got {unknown[0]!r}; allowed: see diffjax {options.command} --help')
    with as_before():
      try:
        COMMANDS[options.command].run(options, overrides)
      except RuntimeError as error:
        _end_alone(error)
        raise
  return status[0]


def _end_alone(error: RuntimeError) -> None:
  """Ends this process of several with one line where JAX failed: an orderly exit waits for all, and one may be lost."""
  jax = sys.modules['jax']
  if jax.process_count() == 1 or not isinstance(error, jax.errors.JaxRuntimeError):
    return
  if 'DIFFJAX_TRACEBACK' in os.environ:
    traceback.print_exc()
  who, told = f'process {jax.process_index()} of {jax.process_count()}', ' '.join(str(error).split())[:300]
  line = f'diffjax: {who} failed or lost another, whose log tells more ({told}); what was saved is whole, and the same '
  line += 'command goes on from it, on any number of hosts'
  print(f'\n{line}', file=sys.stderr, flush=True)
  sys.stdout.flush()
  os._exit(1)


def _parser() -> argparse.ArgumentParser:
  shape = argparse.RawDescriptionHelpFormatter
  parser = argparse.ArgumentParser(
    'diffjax',
    description='Train, sample and evaluate diffusion models.',
    epilog=EPILOG,
    formatter_class=shape,
    allow_abbrev=False,
  )
  commands = parser.add_subparsers(dest='command', required=True, metavar='COMMAND')
  for name, command in COMMANDS.items():
    sub = commands.add_parser(
      name,
      help=command.TEXT.split('\n\n')[0].replace('\n', ' '),
      description=command.TEXT,
      epilog='--config.section.key=value overrides any value of the config.',
      formatter_class=shape,
      allow_abbrev=False,
    )
    sub.add_argument(
      '--workdir', required=name != 'train', metavar='DIR', help='the run: a local path, gs:// and the like'
    )
    command.arguments(sub)
  return parser


@contextlib.contextmanager
def refusals() -> Iterator[list[int]]:
  """Bad input becomes one line and status 2; all else keeps its traceback."""
  status = [0]
  try:
    yield status
  except InputError as error:
    if 'DIFFJAX_TRACEBACK' in os.environ:
      raise
    print(f'diffjax: {" ".join(str(error).split())}', file=sys.stderr)
    status[0] = 2
  except FloatingPointError as error:  # a run that met too many steps without a finite loss
    print(f'diffjax: {error}', file=sys.stderr)
    status[0] = 1


if __name__ == '__main__':
  sys.exit(main())
