"""Procgen: tasks `procgen_GAME`, such as procgen_coinrun."""

import numpy as np

from ..env import FLAGS, Env, Problem, Space
from .image import resizer

INSTALL = 'pip install procgen2 pillow'
# Steps after which a game ends by itself; 1000 in the others.
LIMITS = {'bigfish': 6000, 'bossfight': 4000, 'leaper': 500, 'maze': 500, 'plunder': 4000}


def make(name, options, kwargs, seed, index, slots):
  return Procgen(name, seed, **options, **kwargs)


class Procgen(Env):
  """One game. The game's own 64x64 image is kept; other sizes are made from its 512x512 one."""

  def __init__(self, name, seed, size=(96, 96), resize='pillow', **kwargs):
    import procgen
    from procgen.env import ENV_NAMES
    if name not in ENV_NAMES:
      raise Problem(f"unknown game '{name}'; there are: {', '.join(ENV_NAMES)}")
    native = tuple(size) == (64, 64)
    self._resize = None if native else resizer(resize, size)
    self._env = procgen.ProcgenGym3Env(
        num=1, env_name=name, num_threads=0, rand_seed=seed % 2 ** 31,
        render_mode=None if native else 'rgb_array', **kwargs)
    self._limit = LIMITS.get(name, 1000)
    self._done = True
    self.act_space = {'reset': Space(bool), 'action': Space(np.int32, (), 0, 15)}
    self.obs_space = {'image': Space(np.uint8, (*size, 3)), **FLAGS}

  def step(self, action):
    if self._done or action['reset']:
      if not self._env.observe()[2][0]:
        self._env.act(np.array([-1]))
      self._done = False
      self._length = 0
      self._image = self._look()
      return self._obs(0.0, first=True)
    self._env.act(np.array([int(action['action'])]))
    self._length += 1
    reward, _, over = self._env.observe()
    self._done = bool(over[0])
    if not self._done:  # Otherwise the game already shows the next level.
      self._image = self._look()
    return self._obs(reward[0], last=self._done)

  def _look(self):
    if self._resize:
      return self._resize(self._env.get_info()[0]['rgb'])
    return self._env.observe()[1]['rgb'][0]

  def _obs(self, reward, first=False, last=False):
    return {
        'image': self._image, 'reward': np.float32(reward), 'is_first': first, 'is_last': last,
        'is_terminal': last and self._length < self._limit}
