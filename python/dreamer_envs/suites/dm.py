"""Wraps an environment with the dm_env interface; shared by several suites."""

import numpy as np

from ..env import FLAGS, Env, Space


class Dm(Env):
  """Observations keep their names, with / replaced by _; a single array is called `key`.

  Rewards are summed over `repeat` steps.
  """

  def __init__(self, env, repeat=1, key='observation'):
    self._env = env
    self._repeat = repeat
    self._done = True
    spec = env.observation_spec()
    self._named = isinstance(spec, dict)
    spec = spec if self._named else {key: spec}
    self._keys = {k: self._rename(k) for k, v in spec.items() if 0 not in v.shape}
    self.obs_space = {new: self._convert(spec[key]) for key, new in self._keys.items()}
    self.obs_space.update(FLAGS)
    spec = env.action_spec()
    self._low = None
    if hasattr(spec, 'num_values'):
      action = Space(np.int32, (), 0, spec.num_values)
    else:
      low = np.broadcast_to(spec.minimum, spec.shape)
      high = np.broadcast_to(spec.maximum, spec.shape)
      if (low == low.flat[0]).all() and (high == high.flat[0]).all():
        action = Space(np.float32, spec.shape, float(low.flat[0]), float(high.flat[0]))
      else:  # Bounds that differ between actuators are scaled to [-1, 1].
        self._low, self._high = low, high
        action = Space(np.float32, spec.shape, -1.0, 1.0)
    self._dtype = spec.dtype
    self.act_space = {'reset': Space(bool), 'action': action}

  def step(self, action):
    if self._done or action['reset']:
      step = self._env.reset()
      reward = 0.0
    else:
      action = np.asarray(action['action']).astype(self._dtype)[()]
      if self._low is not None:
        action = self._low + (action + 1) / 2 * (self._high - self._low)
      reward = 0.0
      for _ in range(self._repeat):
        step = self._env.step(action)
        reward += step.reward or 0.0
        if step.last():
          break
    self._done = step.last()
    obs = step.observation if self._named else dict.fromkeys(self._keys, step.observation)
    obs = {new: np.asarray(obs[key], self.obs_space[new].dtype) for key, new in self._keys.items()}
    obs['reward'] = np.float32(reward)
    obs['is_first'] = step.first()
    obs['is_last'] = step.last()
    obs['is_terminal'] = step.last() and step.discount == 0
    return obs

  def close(self):
    self._env.close()

  def _rename(self, key):
    return 'obs_reward' if key == 'reward' else key.replace('/', '_')

  def _convert(self, spec):
    # Bytes that are not an image, such as a map, are not classes either.
    if spec.dtype == bool or spec.dtype == np.uint8 and len(spec.shape) == 3:
      return Space(spec.dtype, spec.shape)
    if hasattr(spec, 'num_values'):
      return Space(np.int32, spec.shape, 0, spec.num_values)
    return Space(np.float32, spec.shape)  # Bounds are not always kept, thus not declared.
