"""Gymnasium: `gym_ID`, such as gym_CartPole-v1 or gym_my_module:MyEnv-v0."""

import importlib.util
import re

from ..env import Problem
from ..wrap import GymEnv, GymVector, draw_without_display

INSTALL = 'pip install gymnasium'
# Modules that register groups of environments, to suggest if a name lacks the module.
MODULES = {'ALE': 'ale_py'}


def make(name, options, kwargs, seed, index, slots):
  import gymnasium
  render, film = (bool(options.get(key, False)) for key in ('render', 'film'))
  size = tuple(options.get('size') or (0, 0))
  repeat = options.get('repeat', 1)
  bounds = bool(options.get('bounds', True))
  if render or film:
    draw_without_display()
    kwargs = {'render_mode': 'rgb_array', **kwargs}
  try:
    if not options.get('vector', False):
      return GymEnv(gymnasium.make(name, **kwargs), seed, size, repeat, render, film, bounds)
    if repeat != 1:
      raise Problem('gymnasium steps a vector of environments once an action: repeat has to be 1')
    if gymnasium.__version__.startswith('0.'):
      raise Problem('vectors of environments need a newer gymnasium', cure='pip install "gymnasium>=1.1"')
    vector = gymnasium.make_vec(name, num_envs=slots, **kwargs)
    return GymVector(vector, seed, size, render, film, bounds)
  except gymnasium.error.DependencyNotInstalled as e:
    cures = re.findall(r'`(pip install [^`]+)`', str(e))
    raise Problem(f"'{name}' needs a package that is missing: {e}", cure=' && '.join(cures) or None)
  except gymnasium.error.DeprecatedEnv as e:
    raise Problem(str(e))
  except gymnasium.error.UnregisteredEnv as e:
    module = MODULES.get(name.split('/')[0], 'MODULE')
    other = f'gym_{module}:{name}' if ':' not in name else 'gym_MODULE:ID'
    raise Problem(f"gymnasium has no environment '{name}': {e} (one of another package is called "
                  f'{other}, by the module that registers it)')
  except gymnasium.error.Error as e:
    if type(e) is not gymnasium.error.Error:
      raise
    raise Problem(str(e))  # The name is malformed.
  except ModuleNotFoundError as e:
    # Gymnasium names the module of MODULE:ID in a sentence of its own.
    module = name.partition(':')[0]
    if ':' not in name or module not in str(e):
      raise
    if importlib.util.find_spec(module.partition('.')[0]):
      raise Problem(f"'{name}': the module '{module}' cannot be imported ({e.__context__ or e})")
    raise Problem(f"'{name}' needs the module '{module}', which is missing",
                  cure='pip install ale-py' if module == 'ale_py' else None)
