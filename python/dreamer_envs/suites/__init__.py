"""Suites by the first word of a task: each module has `INSTALL`, the command that installs what it
needs, and `make(name, options, kwargs, seed, index, slots)`, which returns an Env or a VectorEnv."""

import importlib

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
  try:
    return module.make(name, options, kwargs, seed, index, slots)
  except ImportError as e:
    if not getattr(module, 'INSTALL', None):
      raise
    raise Problem(f"task '{task}' needs a package that is missing ({e})", cure=module.INSTALL)
