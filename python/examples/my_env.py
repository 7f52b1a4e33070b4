"""An environment of one's own.

`dreamer train --configs quickstart --task py:python/examples/my_env.py:MyEnv` trains on it.
"""

import numpy as np

from dreamer_envs import FLAGS, Env, Space


class MyEnv(Env):
  """Ten steps of naming the sign of the number that is shown."""

  obs_space = {'number': Space(np.float32), **FLAGS}
  act_space = {'reset': Space(bool), 'sign': Space(np.int32, (), 0, 2)}

  def __init__(self, seed):
    self.rng = np.random.default_rng(seed)
    self.number, self.left = 0.0, 0

  def step(self, action):
    first = self.left == 0 or bool(action['reset'])
    reward = float(not first and action['sign'] == (self.number > 0))
    self.left = 10 if first else self.left - 1
    self.number = self.rng.normal()
    return {'number': self.number, 'reward': reward, 'is_first': first, 'is_last': self.left == 0,
            'is_terminal': False}
