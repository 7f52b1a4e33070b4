"""bsuite: tasks `bsuite_EXPERIMENT/NUMBER`, such as bsuite_cartpole/0; /0 may be left out."""

import inspect

import numpy as np

from ..env import Env, Problem, Space
from .dm import Dm

INSTALL = 'pip install bsuite'


def make(name, options, kwargs, seed, index, slots):
  return BSuite(name, seed, **options, **kwargs)


class BSuite(Env):
  """One experiment. What bsuite scores it by, such as the regret so far, is logged."""

  def __init__(self, name, seed):
    np.int = int  # Used by bsuite, removed from numpy.
    from bsuite import bsuite, sweep
    name = name if '/' in name else f'{name}/0'
    if name not in sweep.SETTINGS:
      names = sorted({x.split('/')[0] for x in sweep.SETTINGS})
      raise Problem(f"unknown task 'bsuite_{name}'; there are, with numbers: {', '.join(names)}")
    experiment = name.split('/')[0]
    settings = {k: v for k, v in sweep.SETTINGS[name].items() if (k, v) != ('seed', None)}
    if 'seed' in parameters(bsuite.EXPERIMENT_NAME_TO_ENVIRONMENT[experiment]):
      settings.setdefault('seed', seed)
    try:
      inner = bsuite.load(experiment, settings)
    except OSError as e:
      raise Problem(f'bsuite could not load the data of {experiment} ({e})')
    self._info = inner.bsuite_info
    self._env = Dm(inner)
    self.act_space = self._env.act_space
    self.obs_space = {k: Space(v.dtype, flat(v.shape)) for k, v in self._env.obs_space.items()}
    self.obs_space.update({f'log/{k}': Space(np.float32) for k in self._info()})

  def step(self, action):
    obs = self._env.step(action)
    obs['observation'] = obs['observation'].reshape(self.obs_space['observation'].shape)
    obs.update({f'log/{k}': np.float32(v) for k, v in self._info().items()})
    return obs


def flat(shape):
  """The official wrapper turns matrices into vectors."""
  return (shape[0] * shape[1],) if len(shape) == 2 else shape


def parameters(function):
  return inspect.signature(function).parameters
