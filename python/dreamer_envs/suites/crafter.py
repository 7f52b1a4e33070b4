"""Crafter: the tasks `crafter_reward` and `crafter_noreward`."""

import collections

import numpy as np

from ..env import FLAGS, Env, Problem, Space

INSTALL = 'pip install crafter numba'  # With numba, resets are 16 times as fast, with equal results.


def make(name, options, kwargs, seed, index, slots):
  # Options of the trainer's own engine of the game do not apply here.
  own = {key: x for key, x in options.items() if key not in ('engine', 'assets')}
  return Crafter(name, seed, **own, **kwargs)


class Crafter(Env):
  """With `logs`, each observation counts the episode's achievements so far."""

  def __init__(self, name, seed, size=(64, 64), logs=False, **kwargs):
    import crafter
    if name not in ('reward', 'noreward'):
      raise Problem(f"unknown task 'crafter_{name}'; there are: crafter_reward, crafter_noreward")
    height, width = size
    self._env = crafter.Env(size=(width, height), reward=name == 'reward', seed=seed, **kwargs)
    self._logs = {f'log/achievement_{x}': x for x in crafter.constants.achievements if logs}
    self._done = True
    self.act_space = {
        'reset': Space(bool), 'action': Space(np.int32, (), 0, len(self._env.action_names))}
    self.obs_space = {
        'image': Space(np.uint8, (height, width, 3)), **FLAGS, 'log/reward': Space(np.float32),
        **{key: Space(np.float32) for key in self._logs}}

  def step(self, action):
    first = self._done or bool(action['reset'])
    if first:
      image, reward, self._done, info = self._env.reset(), 0.0, False, None
      self._order_objects()
    else:
      image, reward, self._done, info = self._env.step(int(action['action']))
    obs = {
        'image': image, 'reward': np.float32(reward), 'is_first': first,
        'is_last': bool(self._done), 'is_terminal': not first and info['discount'] == 0,
        'log/reward': np.float32(0 if first else info['reward'])}
    for key, name in self._logs.items():
      obs[key] = np.float32(0 if first else info['achievements'][name])
    return obs

  def _order_objects(self):
    # The game chooses creatures by their place in a set, which differs between processes.
    world = self._env._world
    chunks = collections.defaultdict(OrderedSet)
    for key, objs in world._chunks.items():
      chunks[key].update((x, None) for x in world.objects if x in objs)
    world._chunks = chunks


class OrderedSet(dict):
  """A set that iterates in the order of insertion."""

  def add(self, key):
    self[key] = None

  def remove(self, key):
    del self[key]
