"""Environments of one's own: `py:my_module:make_env` or `py:path/to/file.py:MyEnv`."""

import importlib
import importlib.util
import inspect
import os
import sys

from ..env import Env, Problem, VectorEnv
from ..wrap import GymEnv, GymVector, draw_without_display, is_pool

INSTALL = None


def make(name, options, kwargs, seed, index, slots):
  render, film = (bool(options.get(key, False)) for key in ('render', 'film'))
  if render or film:
    draw_without_display()
  function = load(name)
  given = {'seed': seed, 'index': index, 'slots': slots}
  if render or film:
    given['render_mode'] = 'rgb_array'
  try:
    env = function(**{**wanted(function, given), **kwargs})
  except TypeError as e:
    if e.__traceback__.tb_next:
      raise  # It was called, and something within it failed.
    raise Problem(f"'{name}' cannot be called with --env.kwargs.NAME VALUE as given: {e}")
  size, repeat, bounds = tuple(options.get('size') or (0, 0)), options.get('repeat', 1), options.get('bounds', True)
  if isinstance(env, (Env, VectorEnv)) or has(env, 'obs_space', 'act_space', 'step'):
    if any(size) or repeat != 1 or render or film or not bounds:
      raise Problem(f"'{name}' is a dreamer_envs.Env, which env.py.size, repeat, render, film and bounds do "
                    'not reach: give it arguments of its own, --env.kwargs.NAME VALUE')
    return env
  if has(env, 'single_observation_space', 'single_action_space', 'num_envs') or is_pool(env):
    if repeat != 1:
      raise Problem('a vector of environments steps once an action: repeat has to be 1')
    return GymVector(env, seed, size, render, film, bounds)
  if has(env, 'observation_space', 'action_space', 'reset', 'step'):
    return GymEnv(env, seed, size, repeat, render, film, bounds)
  raise Problem(f"'{name}' gave a {type(env).__name__}, which is no environment: it has to have "
                'reset, step, observation_space and action_space')


def has(env, *names):
  return all(hasattr(env, name) for name in names)


def wanted(function, given):
  """The entries of `given` for which the function has a parameter with no default or None."""
  try:
    parameters = inspect.signature(function).parameters
  except (TypeError, ValueError):
    return {}
  return {key: value for key, value in given.items() if key in parameters
          and parameters[key].default in (inspect.Parameter.empty, None)}


def load(name):
  """The function or class that MODULE_OR_FILE:NAME names."""
  where, _, what = name.rpartition(':')
  if not where or not what:
    raise Problem(f"'py:{name}' has to be py:MODULE:FUNCTION or py:FILE.py:FUNCTION")
  if os.getcwd() not in sys.path and '' not in sys.path:
    sys.path.insert(0, os.getcwd())
  module = from_file(where) if where.endswith('.py') else from_module(where)
  function = module
  for part in what.split('.'):
    function = getattr(function, part, None)
  if not callable(function):
    raise Problem(f"'{where}' has no function or class called '{what}'")
  return function


def from_module(where):
  try:
    found = importlib.util.find_spec(where)
  except ModuleNotFoundError as e:
    if not f'{where}.'.startswith(f'{e.name}.'):
      raise  # What is missing is a package that the module's own package imports.
    found = None
  if not found:
    raise Problem(f"there is no module '{where}' in this folder ({os.getcwd()}) or among the "
                  'installed packages')
  return importlib.import_module(where)


def from_file(where):
  path = os.path.abspath(where)
  if not os.path.isfile(path):
    raise Problem(f"there is no file '{where}' (from {os.getcwd()})")
  name = os.path.splitext(os.path.basename(path))[0]
  if name in sys.modules and getattr(sys.modules[name], '__file__', None) != path:
    name = f'user_{name}'
  if name not in sys.modules:
    sys.path.insert(0, os.path.dirname(path))
    spec = importlib.util.spec_from_file_location(name, path)
    sys.modules[name] = importlib.util.module_from_spec(spec)
    try:
      spec.loader.exec_module(sys.modules[name])
    except ImportError as e:
      del sys.modules[name]
      if 'attempted relative import' not in str(e):
        raise
      raise Problem(f"'{where}' imports by dots from its package: name it as a module of that, from the folder that "
                    'holds the package, such as py:package.module:NAME')
  return sys.modules[name]
