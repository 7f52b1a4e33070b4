"""Minecraft through MineRL: `minecraft_diamond`, `minecraft_wood` and `minecraft_climb`."""

import numpy as np

from ..env import FLAGS, Env, Problem, Space

INSTALL = (
    'apt-get install openjdk-8-jdk xvfb && pip install https://github.com/danijar/minerl/releases/'
    'download/v0.4.4-patched/minerl_mirror-0.4.4-cp311-cp311-linux_x86_64.whl'
    '  # For Python 3.11; MineRL is not on the package index in a form that runs.')
NOOP = {
    'camera': (0, 0), 'forward': 0, 'back': 0, 'left': 0, 'right': 0, 'attack': 0, 'sprint': 0,
    'jump': 0, 'sneak': 0, 'craft': 'none', 'nearbyCraft': 'none', 'nearbySmelt': 'none',
    'place': 'none', 'equip': 'none'}
BASIC = (
    {}, {'attack': 1}, {'camera': (-15, 0)}, {'camera': (15, 0)}, {'camera': (0, -15)},
    {'camera': (0, 15)}, {'forward': 1}, {'back': 1}, {'left': 1}, {'right': 1},
    {'jump': 1, 'forward': 1}, {'place': 'dirt'})
CRAFT = (
    {'craft': 'planks'}, {'craft': 'stick'}, {'craft': 'crafting_table'},
    {'place': 'crafting_table'}, {'nearbyCraft': 'wooden_pickaxe'},
    {'nearbyCraft': 'stone_pickaxe'}, {'nearbyCraft': 'iron_pickaxe'},
    {'equip': 'stone_pickaxe'}, {'equip': 'wooden_pickaxe'}, {'equip': 'iron_pickaxe'},
    {'nearbyCraft': 'furnace'}, {'place': 'furnace'}, {'nearbySmelt': 'iron_ingot'})
# Items on the way to the diamond; each is rewarded once an episode.
MILESTONES = (
    'log', 'planks', 'stick', 'crafting_table', 'wooden_pickaxe', 'cobblestone', 'stone_pickaxe',
    'iron_ore', 'furnace', 'iron_ingot', 'iron_pickaxe', 'diamond')
LOGGED = ('log', 'cobblestone', 'iron_ingot', 'diamond')
PITCH = 60  # Degrees that the view goes up and down at most.
HELD_ATTACK, HELD_JUMP = 30, 10  # Steps for which an action is held; attacks only at the usual speed.


def make(name, options, kwargs, seed, index, slots):
  return Minecraft(name, seed, **options, **kwargs)


class Minecraft(Env):
  """One task. `engine` makes the game from a size and a break speed."""

  def __init__(
      self, name, seed, size=(64, 64), break_speed=100.0, logs=False, length=36000, engine=None):
    if name not in ('diamond', 'wood', 'climb'):
      raise Problem(
          f"unknown task 'minecraft_{name}'; there are: minecraft_diamond, minecraft_wood, "
          'minecraft_climb')
    if engine is None:
      from .minecraft_engine import engine
    self._env = engine(tuple(size), break_speed)
    if hasattr(self._env, 'seed'):
      self._env.seed(seed % 2 ** 31)
    self._task, self._length = name, length
    self._attack = HELD_ATTACK if break_speed == 1.0 else 0
    self._actions = BASIC + (CRAFT if name == 'diamond' else ())
    spaces = self._env.observation_space.spaces
    self._items = [x for x in spaces['inventory'].spaces if x != 'log2']  # Counted as log.
    tools = spaces['equipped_items'].spaces['mainhand'].spaces['type'].values
    self._tools = [str(x) for x in tools]
    self._done = True
    self.act_space = {
        'reset': Space(bool), 'action': Space(np.int32, (), 0, len(self._actions))}
    self.obs_space = {
        'image': Space(np.uint8, (*size, 3)),
        'inventory': Space(np.float32, len(self._items)),
        'inventory_max': Space(np.float32, len(self._items)),
        'equipped': Space(np.float32, len(self._tools)),
        'health': Space(np.float32), 'hunger': Space(np.float32), 'breath': Space(np.float32),
        **FLAGS}
    self._log_items = {f'log/inventory/{x}': x for x in LOGGED}
    self._log_goals = {f'log/achievement_{x}': x for x in MILESTONES if logs}
    for key in (*self._log_items, *self._log_goals):
      self.obs_space[key] = Space(np.float32)

  def step(self, action):
    if self._done or action['reset']:
      self._held_attack = self._held_jump = self._pitch = self._step = 0
      self._done = False
      self._last = None
      return self._obs(self._env.reset(), first=True)
    seen, _, over, info = self._env.step(self._act(self._actions[int(action['action'])]))
    self._step += 1
    if 'error' in (info or {}):  # The game broke off, through no doing of the player.
      self._done = True
      return {**self._last, 'reward': np.float32(0), 'is_first': False, 'is_last': True}
    self._done = bool(over) or self._step >= self._length
    return self._obs(seen, terminal=bool(over))

  def close(self):
    self._env.close()

  def _act(self, action):
    action = {**NOOP, **action}
    if action['attack']:
      self._held_attack = self._attack
    if self._held_attack > 0:
      self._held_attack -= 1
      action.update(attack=1, jump=0)
    if action['jump']:
      self._held_jump = HELD_JUMP
    if self._held_jump > 0:
      self._held_jump -= 1
      action.update(jump=1, forward=1)
    tilt, turn = action['camera']
    if abs(self._pitch + tilt) > PITCH:
      tilt = 0
    self._pitch += tilt
    action['camera'] = (tilt, turn)
    return action

  def _obs(self, seen, first=False, terminal=False):
    counts = {k: int(v) for k, v in seen['inventory'].items()}
    counts['log'] += counts.pop('log2', 0)
    inventory = np.array([counts[x] for x in self._items], np.float32)
    equipped = str(seen['equipped_items']['mainhand']['type'])
    life = seen['life_stats']
    obs = {
        'image': seen['pov'], 'inventory': inventory,
        'inventory_max': inventory if first else np.maximum(self._last['inventory_max'], inventory),
        'equipped': np.array([x == equipped for x in self._tools], np.float32),
        'health': np.float32(life['life'] / 20), 'hunger': np.float32(life['food'] / 20),
        'breath': np.float32(life['air'] / 300), 'is_first': first, 'is_last': self._done,
        'is_terminal': terminal}
    height = float(seen['location_stats']['ypos']) if self._task == 'climb' else 0.0
    obs['reward'] = np.float32(0 if first else self._reward(obs, height))
    self._last, self._height = obs, height
    most = dict(zip(self._items, obs['inventory_max']))
    obs.update({key: np.float32(counts[x]) for key, x in self._log_items.items()})
    obs.update({key: np.float32(most[x] > 0) for key, x in self._log_goals.items()})
    return obs

  def _reward(self, obs, height):
    reward = 0.01 * (obs['health'] - self._last['health'])
    before, now = self._last['inventory'], obs['inventory']
    if self._task == 'climb':
      reward += height - self._height
    elif self._task == 'wood':
      log = self._items.index('log')
      reward += max(0, now[log] - before[log])
    else:
      for item in MILESTONES:
        i = self._items.index(item)
        reward += now[i] > 0 and self._last['inventory_max'][i] == 0
    return reward
