"""MiniGrid and BabyAI: tasks such as minigrid_Empty-5x5-v0 or minigrid_BabyAI-GoToObj-v0."""

import numpy as np

from ..env import FLAGS, Env, Problem, Space
from .image import resizer

INSTALL = 'pip install minigrid pillow'


def make(name, options, kwargs, seed, index, slots):
  return MiniGrid(name, seed, **options, **kwargs)


class MiniGrid(Env):
  """What the agent sees as an image, and its direction; the mission's text is dropped."""

  def __init__(self, name, seed, size=(64, 64), tile=8, resize='pillow', **kwargs):
    if tile < 1:
      raise Problem(f'env.kwargs.tile is {tile}, but a cell has at least one pixel')
    import gymnasium
    import minigrid  # noqa: F401  Registers the tasks.
    name = name if name.startswith('BabyAI-') else f'MiniGrid-{name}'
    try:
      self._env = gymnasium.make(name, render_mode='rgb_array', **kwargs)
    except gymnasium.error.UnregisteredEnv as e:
      raise Problem(f"unknown task 'minigrid_{name.removeprefix('MiniGrid-')}' ({e})")
    self._tile = tile
    self._resize = resizer(resize, size)
    self._seed = seed
    self._done = True
    self.act_space = {
        'reset': Space(bool), 'action': Space(np.int32, (), 0, int(self._env.action_space.n))}
    self.obs_space = {
        'image': Space(np.uint8, (*size, 3)), 'direction': Space(np.int32, (), 0, 4), **FLAGS}

  def step(self, action):
    first = self._done or bool(action['reset'])
    if first:
      (obs, _), self._seed = self._env.reset(seed=self._seed), None
      reward, terminal, self._done = 0.0, False, False
    else:
      obs, reward, terminal, truncated, _ = self._env.step(int(action['action']))
      self._done = terminal or truncated
    return {
        'image': self._resize(self._env.unwrapped.get_pov_render(self._tile)),
        'direction': np.int32(obs['direction']), 'reward': np.float32(reward),
        'is_first': first, 'is_last': self._done, 'is_terminal': terminal}

  def close(self):
    self._env.close()
