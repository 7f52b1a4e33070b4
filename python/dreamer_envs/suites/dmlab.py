"""DeepMind Lab: tasks `dmlab_LEVEL` of DMLab-30, such as dmlab_explore_goal_locations_small."""

import re
import zlib

import numpy as np

from ..env import FLAGS, Env, Problem, Space

INSTALL = (
    'git clone https://github.com/google-deepmind/lab'
    '  # DeepMind Lab is on no package index; docs/users/build.md there says how to build it with '
    'bazel and to install the package deepmind_lab.')
TOKENS, EMBEDDING, BUCKETS = 32, 32, 2 ** 16  # Of instructions.
FIRE = (0, 0, 0, 0, 1, 0, 0)


def move(look=0, tilt=0, strafe=0, forward=0):
  return (look, tilt, strafe, forward, 0, 0, 0)


WALK = (move(forward=1), move(forward=-1), move(strafe=-1), move(strafe=1))
ACTIONS = {
    'impala': (
        *WALK, move(-20), move(20), move(-20, forward=1), move(20, forward=1), FIRE),
    'popart': (
        *WALK, move(-10), move(10), move(-60), move(60), move(tilt=10), move(tilt=-10),
        move(-10, forward=1), move(10, forward=1), move(-60, forward=1), move(60, forward=1), FIRE),
}


def make(name, options, kwargs, seed, index, slots):
  return DMLab(name, seed, **options, **kwargs)


class DMLab(Env):
  """One level. `mode` is train or eval; levels with instructions give them as vectors."""

  def __init__(
      self, name, seed, size=(64, 64), repeat=4, episodic=True, use_seed=True, mode='train',
      actions='popart', text=None):
    import deepmind_lab
    if actions not in ACTIONS or mode not in ('train', 'eval'):
      raise Problem('`actions` is popart or impala, `mode` is train or eval')
    height, width = size
    config = {'height': height, 'width': width, 'logLevel': 'WARN'}
    if mode == 'eval':
      config.update(allowHoldOutLevels='true', mixerSeed=0x600D5EED)
    elif name.endswith('_test'):
      name = name[:-len('_test')] + '_train'
    self._text = name.startswith('language') if text is None else text
    self._env = deepmind_lab.Lab(
        level=f'contributed/dmlab30/{name}',
        observations=['RGB_INTERLEAVED', 'INSTR'] if self._text else ['RGB_INTERLEAVED'],
        config={k: str(v) for k, v in config.items()})
    self._random = np.random.RandomState(seed % 2 ** 32 if use_seed else None)
    self._actions = ACTIONS[actions]
    self._repeat, self._episodic = repeat, episodic
    self._done = True
    self.act_space = {
        'reset': Space(bool), 'action': Space(np.int32, (), 0, len(self._actions))}
    self.obs_space = {'image': Space(np.uint8, (height, width, 3)), **FLAGS}
    if self._text:
      self.obs_space['instr'] = Space(np.float32, TOKENS * EMBEDDING)
      # The vectors are fixed random ones, the same in every run.
      self._vectors = np.random.default_rng(0).normal(
          0.0, 1.0, (BUCKETS, EMBEDDING)).astype(np.float32)

  def step(self, action):
    first = self._done or bool(action['reset'])
    if first:
      self._env.reset(seed=self._random.randint(0, 2 ** 31 - 1))
      reward, self._done = 0.0, False
    else:
      act = np.array(self._actions[int(action['action'])], np.intc)
      reward = self._env.step(act, num_steps=self._repeat)
      self._done = not self._env.is_running()
    if not self._done:  # A level that has ended has no observations, so the last are repeated.
      seen = self._env.observations()
      self._seen = {'image': seen['RGB_INTERLEAVED']}
      if self._text:
        self._seen['instr'] = self._embed(seen['INSTR'])
    return {
        **self._seen, 'reward': np.float32(reward), 'is_first': first, 'is_last': self._done,
        'is_terminal': self._done and self._episodic}

  def close(self):
    self._env.close()

  def _embed(self, text):
    text = text.decode() if isinstance(text, bytes) else str(text)
    tokens = re.findall(r'[a-z_]+|[^a-z_ ]+', text.lower())[:TOKENS]
    index = [zlib.crc32(x.encode()) % BUCKETS for x in tokens]
    return self._vectors[index + [0] * (TOKENS - len(index))].reshape(-1)
