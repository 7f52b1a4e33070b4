"""Atari: tasks `atari_GAME` and `atari100k_GAME`, such as atari_pong or atari100k_ms_pacman."""

import functools

import numpy as np

from ..env import FLAGS, Env, Problem, Space
from .image import resizer

INSTALL = 'pip install ale-py pillow'
GRAY = np.array([0.299, 0.587, 1 - (0.299 + 0.587)])
NOOP, FIRE, UP = 0, 1, 2  # As numbers of the full set of actions.


def make(name, options, kwargs, seed, index, slots):
  return Atari(name, seed, **options, **kwargs)


class Atari(Env):
  """One game. `length` frames end an episode without being its terminal."""

  def __init__(
      self, name, seed, size=(96, 96), repeat=4, sticky=True, gray=True, actions='all',
      lives='unused', noops=30, autostart=False, pooling=2, aggregate='max', resize='pillow',
      clip_reward=False, length=108000):
    import ale_py
    for key, value, choices in [
        ('actions', actions, ('all', 'needed')), ('lives', lives, ('unused', 'discount', 'reset')),
        ('aggregate', aggregate, ('max', 'mean'))]:
      if value not in choices:
        raise Problem(f"`{key}` is one of {', '.join(choices)}, not '{value}'")
    if repeat < 1 or pooling < 1:
      raise Problem('`repeat` and `pooling` are at least 1')
    if noops < 0 or length < 1:
      raise Problem(f'`noops` is at least 0 and `length` at least 1, not {noops} and {length}')
    self._repeat, self._pooling, self._aggregate = repeat, pooling, aggregate
    self._gray, self._lives, self._clip = gray, lives, clip_reward
    self._noops, self._autostart, self._length = noops, autostart, length
    self._resize = resizer(resize, size)
    self._rng = np.random.default_rng(seed)
    self._ale = ale_py.ALEInterface()
    self._ale.setLoggerMode(ale_py.LoggerMode.Error)
    self._ale.setInt('random_seed', int(self._rng.integers(0, 2 ** 31)))
    # The emulator reads this when it loads a game, and not again.
    self._ale.setFloat('repeat_action_probability', 0.25 if sticky else 0.0)
    self._ale.loadROM(rom(name))
    self._legal = self._ale.getLegalActionSet()
    self._actions = self._legal if actions == 'all' else self._ale.getMinimalActionSet()
    self._frames = [np.zeros((*self._ale.getScreenDims(), 3), np.uint8) for _ in range(pooling)]
    self._done = True
    self.act_space = {
        'reset': Space(bool), 'action': Space(np.int32, (), 0, len(self._actions))}
    self.obs_space = {'image': Space(np.uint8, (*size, 1 if gray else 3)), **FLAGS}

  def step(self, action):
    if self._done or action['reset']:
      self._reset()
      return self._obs(0.0, first=True)
    act = self._actions[int(action['action'])]
    reward = 0.0
    terminal = last = False
    for i in range(self._repeat):
      reward += self._ale.act(act)
      self._duration += 1
      if i >= self._repeat - self._pooling:
        self._look()
      remaining = self._ale.lives()
      lost = 0 < remaining < self._remaining
      self._remaining = remaining
      over = self._ale.game_over() or lost and self._lives == 'reset'
      terminal = over or lost and self._lives == 'discount'
      last = over or self._duration >= self._length
      if terminal or last:
        break
    self._done = last
    return self._obs(reward, last=last, terminal=terminal)

  def _reset(self):
    self._ale.reset_game()
    for _ in range(self._rng.integers(self._noops + 1)):
      self._idle(NOOP)
    if self._autostart and self._legal[FIRE] in self._actions:
      self._idle(FIRE)
      self._idle(UP)
    self._look()
    for frame in self._frames[1:]:
      frame[:] = self._frames[0]
    self._remaining = self._ale.lives()
    self._duration = 0
    self._done = False

  def _idle(self, index):
    self._ale.act(self._legal[index])
    if self._ale.game_over():
      self._ale.reset_game()

  def _look(self):
    self._frames.insert(0, self._frames.pop())
    self._ale.getScreenRGB(self._frames[0])

  def _obs(self, reward, first=False, last=False, terminal=False):
    if self._aggregate == 'max':
      image = functools.reduce(np.maximum, self._frames)
    else:
      image = np.mean(self._frames, 0).astype(np.uint8)
    image = self._resize(image)
    if self._gray:
      image = brightness(image)
    return {
        'image': image, 'reward': np.float32(np.sign(reward) if self._clip else reward),
        'is_first': first, 'is_last': last, 'is_terminal': terminal}


def brightness(image):
  """A gray image [height, width, 1] of one in colors. Channel by channel: with all products in one
  array, the same sums take seven times as long."""
  out = image[..., 0] * GRAY[0]
  out += image[..., 1] * GRAY[1]
  out += image[..., 2] * GRAY[2]
  return out[..., None].astype(np.uint8)


def rom(name):
  """Path of a game, whose name may be written with or without underscores and capitals."""
  from ale_py import roms
  plain = lambda x: x.replace('_', '').lower()
  games = {plain(x): x for x in roms.get_all_rom_ids()}
  if plain(name) not in games:
    raise Problem(f"unknown game '{name}'; there are: {', '.join(sorted(games.values()))}")
  return roms.get_rom_path(games[plain(name)])
