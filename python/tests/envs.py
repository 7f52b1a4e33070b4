"""Environments for the tests."""

import ctypes
import os
import sys
import time

import gymnasium
import numpy as np
from gymnasium import spaces

from dreamer_envs import FLAGS, Env, Space, VectorEnv


class Echo(Env):
  """Shows one image again and again and tells the action in the reward. `fault` breaks step 3."""

  def __init__(self, seed, fault=None, size=64, mark=None):
    self.obs_space = {'image': Space(np.uint8, (size, size, 3)), 'seed': Space(np.float32),
                      'pid': Space(np.int32, (), 0, 1 << 30), **FLAGS}
    self.act_space = {'reset': Space(bool), 'action': Space(np.int32, (), 0, 5)}
    self.image = np.arange(size * size * 3).astype(np.uint8).reshape(size, size, 3)
    self.seed, self.fault, self.count, self.mark = seed, fault, 0, mark

  def step(self, action):
    self.count += 1
    obs = {'image': self.image, 'seed': self.seed, 'pid': np.int32(os.getpid()),
           'reward': 0.0 if action['reset'] else float(action['action']),
           'is_first': bool(action['reset']), 'is_last': False, 'is_terminal': False}
    if self.fault and self.count == 3:
      obs = getattr(self, self.fault)(obs) or obs
    return obs

  def raises(self, obs):
    raise RuntimeError('the engine\nstopped')

  def shape(self, obs):
    obs['image'] = self.image[:32]

  def dtype(self, obs):
    obs['image'] = self.image / 255

  def range(self, obs):
    obs['image'] = self.image.astype(int) - 1

  def lacks(self, obs):
    del obs['image']

  def logs(self, obs):
    obs.update({'log/one': 1, 'log/two': np.float32(2), 'log/none': np.inf})

  def text(self, obs):
    obs['log/text'] = 'three'

  def flood(self, obs):
    obs.update({f'log/{i:03}': 1 / 3 for i in range(500)})

  def undeclared(self, obs):
    obs['height'] = 1.0

  def none(self, obs):
    obs['seed'] = None

  def array(self, obs):
    return [obs]

  def exits(self, obs):
    sys.exit(0)

  def dies(self, obs):
    os._exit(3)

  def prints(self, obs):
    print('a word from the environment')
    os.write(1, b'a word to descriptor 1\n')
    os.system('echo a word from a child; cat')
    assert sys.stdin.read() == ''
    os.close(0)

  def hangs(self, obs):
    ctypes.PyDLL(None).sleep(600)

  def sleeps(self, obs):
    time.sleep(600)

  def close(self):
    print('closed')
    if self.mark:
      with open(self.mark, 'a') as f:
        f.write('closed\n')


class Clumsy(Echo):

  def close(self):
    super().close()
    raise RuntimeError('it cannot')


class Kinds(gymnasium.Env):
  """Every kind of space; each observation tells the last action."""

  observation_space = spaces.Dict({
      'frame': spaces.Box(0, 255, (8, 8), np.uint8),
      'planes': spaces.Box(0, 255, (4, 20, 24), np.uint8),
      'room': spaces.Discrete(5, start=3),
      'reward': spaces.Box(-np.inf, np.inf, (2,), np.float64),
      'parts': spaces.Tuple([spaces.MultiDiscrete([4, 4]), spaces.MultiDiscrete([2, 3]),
                             spaces.Dict({'bits': spaces.MultiBinary(3)})]),
      'words': spaces.Text(8),
  })
  action_space = spaces.Dict({
      'move': spaces.Discrete(3, start=-1),
      'wheels': spaces.Box(np.array([0, -2], np.float32), np.array([10, np.inf], np.float32)),
      'level': spaces.Box(2, 5, (2,), np.int64),
      'price': spaces.Box(0, 1000, (), np.int32),
      'tail': spaces.Tuple([spaces.MultiDiscrete([4, 4]), spaces.MultiDiscrete([2, 3]),
                            spaces.MultiBinary(2)]),
  })

  def observe(self, move):
    return {'frame': np.full((8, 8), 7, np.uint8), 'room': np.int64(4),
            'planes': np.arange(4, dtype=np.uint8)[:, None, None] * np.ones((20, 24), np.uint8),
            'reward': np.array([np.inf, 1e300 * move]),
            'parts': (np.array([3, 0]), np.array([1, 2]), {'bits': np.array([1, 0, 1], np.int8)}),
            'words': 'hello'}

  def reset(self, seed=None, options=None):
    super().reset(seed=seed)
    return self.observe(0), {'seed': -1 if seed is None else seed}

  def step(self, action):
    assert self.action_space.contains(action), action
    self.action = action
    info = {'moved to': int(action['move']), 'name': 'x', 'ok': True, 'list': [1],
            'gone': np.nan, 'episode': {'r': np.float32(2.5), 'l': np.array([7])}}
    if action['move'] != 1:
      del info['episode']
    return self.observe(action['move']), 1.5, False, action['move'] == 1, info


class Old:
  """The older interface: no seed, no info of the reset, one flag for the end."""

  observation_space = spaces.Box(-1, 1, (2,))
  action_space = spaces.Discrete(2)

  def __init__(self, limit=5):
    self.limit = limit

  def reset(self):
    self.count = 0
    return np.zeros(2)

  def step(self, action):
    self.count += 1
    late = self.count == self.limit
    info = {'TimeLimit.truncated': True} if late and action == 0 else None
    return [self.count / 10, 0], 1, late, info


class Moody(gymnasium.Env):
  """Ends after `length` steps, at which alone `info` tells how it went; `spoilt` is another space."""

  action_space = spaces.Discrete(2)

  def __init__(self, length=4, spoilt=False, fault=None):
    self.observation_space = spaces.Box(0, 1000, (3 if spoilt else 2,))
    self.length, self.fault = length, fault

  def reset(self, seed=None, options=None):
    self.count = 0
    if self.fault == 'reset':
      {}['nobody']
    first = {'none': None, 'size': np.zeros(5, np.float32), 'nan': np.full(2, np.nan), 'far': np.full(2, 1001.0)}
    return first.get(self.fault, np.zeros(self.observation_space.shape, np.float32)), {}

  def step(self, action):
    self.count += 1
    last = self.count == self.length
    info = {'is_success': True, 'episode': {'l': self.count}} if last else {}
    high = 2000 if self.fault == 'bounds' else self.count
    if self.fault == 'few':
      return np.zeros(2, np.float32), 1.0, last
    if self.fault == 'prizes':
      return np.zeros(2, np.float32), [1.0, 2.0], False, last, info
    return np.full(self.observation_space.shape, high, np.float32), 1.0, False, last, info


class Pool:
  """Has what is used of EnvPool: `count` environments, of which the i-th ends after 3 + i steps and
  starts again in the step after that."""

  observation_space = spaces.Box(-1, 100, (2,), np.float32)
  action_space = spaces.Discrete(2)
  recv = send = None

  def __init__(self, count, older=False):
    self.config = {'num_envs': count, 'batch_size': None}
    self.older, self.limits = older, 3 + np.arange(count)

  def reset(self):
    self.counts = np.zeros(len(self.limits), int)
    return self.seen() if self.older else (self.seen(), {})

  def seen(self):
    return np.stack([self.counts, self.counts], 1).astype(np.float32)

  def step(self, actions):
    assert actions.shape == self.counts.shape
    first = self.counts == self.limits
    self.counts = np.where(first, 0, self.counts + 1)
    late = self.counts == self.limits
    reward = np.where(first, 0.0, 1.0)
    if self.older:
      return self.seen(), reward, late, {'TimeLimit.truncated': late}
    return self.seen(), reward, np.zeros_like(late), late, {}

  def close(self):
    pass


class Few(VectorEnv):
  """Two environments, of which only one answers from the second step on."""

  count = 2

  def __init__(self):
    self.envs = [Echo(0), Echo(1)]
    self.obs_space, self.act_space = self.envs[0].obs_space, self.envs[0].act_space

  def step(self, actions):
    obs = [env.step(action) for env, action in zip(self.envs, actions)]
    return obs if actions[0]['reset'] else obs[:1]


def second_raises(seed, index):
  return Echo(seed, 'raises' if index == 1 else None)


def second_is_missing(seed, index, mark):
  if index == 1:
    raise RuntimeError('there is one robot only')
  return Echo(seed, mark=mark)


def moody_vector(slots):
  return gymnasium.vector.SyncVectorEnv([lambda i=i: Moody(4 + i) for i in range(slots)])


def spoilt(index):
  return Moody(spoilt=index == 1)


def vector(slots):
  return gymnasium.make_vec('CartPole-v1', num_envs=slots)


def sync(slots):
  return gymnasium.make_vec('CartPole-v1', num_envs=slots, vectorization_mode='sync')


def needs():
  import a_package_that_is_missing  # noqa: F401


def nothing():
  return 3
