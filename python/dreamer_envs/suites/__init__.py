"""Suites by the first word of a task: each module has `INSTALL`, the command that installs what it
needs, and `make(name, options, kwargs, seed, index, slots)`, which returns an Env or a VectorEnv."""

import importlib
import re

from ..env import Problem

# The task's first word -> module of this package.
SUITES = {
    'gym': 'gym',
    'atari': 'atari',
    'atari100k': 'atari',
    'dmc': 'dmc',
    'crafter': 'crafter',
    'procgen': 'procgen',
    'minigrid': 'minigrid',
    'bsuite': 'bsuite',
    'memmaze': 'memmaze',
    'loconav': 'loconav',
    'dmlab': 'dmlab',
    'minecraft': 'minecraft',
}


def check(suite, options):
  """The options with sizes and repeats as whole numbers; a Problem where they are none."""
  out = dict(options)
  size, repeat = out.get('size'), out.get('repeat', 1)
  if size is not None:
    sides = [whole(x) for x in size] if isinstance(size, (list, tuple)) else []
    keeps = sides == [0, 0] and suite in ('gym', 'py')
    if len(sides) != 2 or None in sides or min(sides) < 1 and not keeps:
      raise Problem(f'env.{suite}.size is {size}, but has to be two whole numbers above 0, height '
                    f'and width: --env.{suite}.size 64 64')
    out['size'] = sides
  if whole(repeat) is None or repeat < 1:
    raise Problem(f'env.{suite}.repeat is {repeat}, but has to be a whole number of 1 or more')
  if 'repeat' in out:
    out['repeat'] = whole(repeat)
  return out


def whole(x):
  return int(x) if isinstance(x, (int, float)) and not isinstance(x, bool) and x == x // 1 else None


def make(task, options, kwargs, seed, index=0, slots=1):
  """The environment of `task`: `SUITE_NAME`, or `py:MODULE_OR_FILE:FUNCTION`."""
  if task.startswith('py:'):
    suite, name, module = 'py', task[3:], 'user'
  else:
    suite, _, name = task.partition('_')
    if suite not in SUITES:
      raise Problem(f"unknown suite '{suite}' of task '{task}'; there are: {', '.join(SUITES)}")
    module = SUITES[suite]
  module = importlib.import_module(f'{__package__}.{module}')
  twice = sorted(options.keys() & kwargs.keys())
  if twice and suite not in ('gym', 'py'):  # There, both go to different places.
    key = twice[0]
    raise Problem(f'env.kwargs.{key} is an option of the suite: --env.{suite}.{key} {kwargs[key]}')
  try:
    return module.make(name, check(suite, options), kwargs, seed, index, slots)
  except TypeError as e:
    unknown = re.search("unexpected keyword argument '(.*?)'", str(e))
    if unknown and unknown[1] in kwargs:
      raise Problem(f"'{task}' takes no argument '{unknown[1]}' (env.kwargs.{unknown[1]}): {e}") from e
    raise
  except ImportError as e:
    cure = getattr(module, 'INSTALL', None)
    if suite == 'gym' and not e.name:
      raise Problem(f"'{task}': {e}")  # Gymnasium's own words, such as that it moved elsewhere.
    if not cure or suite == 'gym' and e.name.partition('.')[0] != 'gymnasium':
      raise  # The user's own module lacks something else.
    raise Problem(f'a package is missing ({e})', cure=cure)
