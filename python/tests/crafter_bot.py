"""A bot that plays Crafter well enough to meet most of its rules, and `record`, which keeps what it
did: `python crafter_bot.py` writes crafter.json anew, with which the native engine is compared."""

import collections
import json
import pathlib
import sys
import zlib

import numpy as np

if __name__ == '__main__':
  sys.path.insert(0, str(pathlib.Path(__file__).parents[1]))

from sequences import make, versions  # noqa: E402

RECORD = pathlib.Path(__file__).parent / 'crafter.json'
# Seed, height and width of the image, steps; how often the bot acts at random, and whether diamonds
# come before all else once it can dig them. Together they reach every achievement.
EPISODES = [
    (0, 64, 64, 6000, 0.1, False),
    (0, 64, 64, 5000, 0.1, True),
    (1, 96, 72, 2000, 0.1, False),
    (2, 64, 64, 1500, 1.0, False),
    (3, 50, 41, 1000, 0.5, False),
]
EVERY = 100  # Steps between checksums.
LETTERS = 'abcdefghijklmnopq'  # One for each action.

MOVES = {(-1, 0): 'move_left', (1, 0): 'move_right', (0, -1): 'move_up', (0, 1): 'move_down'}
WALKABLE = ('grass', 'sand', 'path')
# What to have, in this order, as items to collect before they are needed.
GATHER = {'wood': 'tree', 'stone': 'stone', 'coal': 'coal', 'iron': 'iron', 'diamond': 'diamond'}


class Bot:
  """Sees the whole world of a `crafter.Env`, and chooses actions."""

  def __init__(self, env, rng, noise, greedy):
    self.env, self.rng, self.noise, self.greedy = env, rng, noise, greedy

  def act(self):
    names = self.env.action_names
    if self.rng.random() < self.noise:
      return int(self.rng.integers(len(names)))
    return names.index(self.choose())

  def choose(self):
    self.world, self.player = self.env._world, self.env._player
    self.has, self.done = self.player.inventory, self.player.achievements
    if self.player.sleeping:
      return 'noop'
    return self.survive() or self.craft() or self.gather() or self.wander()

  def survive(self):
    for enemy in ('Zombie', 'Skeleton'):
      if any(self.player.distance(x) <= (1 if enemy == 'Zombie' else 4) for x in self.kind(enemy)):
        return self.reach(objects=enemy)
    if self.has['drink'] < 5:
      return self.reach(materials=['water'])
    if self.has['food'] < 5:
      return self.reach(objects='Cow')
    if self.has['energy'] < (9 if not self.done['wake_up'] else 4):
      return 'sleep'

  def craft(self):
    """Makes and places what there is enough for."""
    ripe = [x for x in self.kind('Plant') if x.ripe]
    if ripe:
      return self.reach(objects='Plant')
    if self.has['sapling'] and self.ahead('grass') and len(self.kind('Plant')) < 3:
      return 'place_plant'
    for tool in ('pickaxe', 'sword'):
      for metal, uses in (('iron', ('wood', 'coal', 'iron')), ('stone', ('wood', 'stone')),
                          ('wood', ('wood',))):
        if self.has[f'{metal}_{tool}'] or not all(self.has[x] for x in uses):
          continue
        near, _ = self.world.nearby(self.player.pos, 1)
        for util, item, count in (('table', 'wood', 2), ('furnace', 'stone', 4)):
          if util not in near and (util == 'table' or metal == 'iron'):
            spare = self.has[item] >= count + (item in uses)
            return self.put(util) if spare else self.collect(item)
        return f'make_{metal}_{tool}'
    if self.has['stone'] > 5 and not self.done['place_stone'] and self.ahead(*WALKABLE, 'water'):
      return 'place_stone'

  def gather(self):
    if not self.done['collect_sapling'] and self.ahead('grass'):
      return 'do'
    wants = [('wood', 5), ('stone', 6 if self.has['wood_pickaxe'] else 0)]
    wants += [(item, 1 if self.has['stone_pickaxe'] else 0) for item in ('coal', 'iron')]
    diamond = ('diamond', 9 if self.has['iron_pickaxe'] else 0)
    wants = [diamond, *wants] if self.greedy else [*wants, diamond]
    for item, count in wants:
      if self.has[item] < count and (action := self.collect(item)):
        return action
    return self.reach(objects='Skeleton') if self.kind('Skeleton') else None

  def wander(self):
    return list(MOVES.values())[self.rng.integers(4)]

  def put(self, name):
    return f'place_{name}' if self.ahead(*WALKABLE) else self.wander()

  def collect(self, item):
    return self.reach(materials=[GATHER[item]])

  def kind(self, name):
    return [x for x in self.world.objects if type(x).__name__ == name]

  def ahead(self, *materials):
    material, obj = self.world[self.player.pos + np.array(self.player.facing)]
    return material in materials and obj is None

  def reach(self, materials=(), objects=None):
    """The next action on the shortest way to use or hit the nearest of what is named, if any."""
    wanted = {tuple(x.pos) for x in self.kind(objects)} if objects else set()
    passable = WALKABLE + (('stone',) if self.has['wood_pickaxe'] else ())
    start = tuple(int(x) for x in self.player.pos)
    queue, seen = collections.deque([(start, None)]), {start}
    while queue:
      pos, first = queue.popleft()
      for move in MOVES:
        to = pos[0] + move[0], pos[1] + move[1]
        material, obj = self.world[to]
        step = first or move
        if material is not None and (material in materials or to in wanted):
          return self.go(step)
        if to not in seen and obj is None and material in passable:
          seen.add(to)
          queue.append((to, step))
    return None

  def go(self, move):
    """Walks, or uses what is in the way once it is faced."""
    material, obj = self.world[self.player.pos + np.array(move)]
    free = obj is None and material in WALKABLE
    return 'do' if not free and tuple(self.player.facing) == move else MOVES[move]


def record():
  """Plays the episodes in the Python adapter's environments."""
  runs = []
  for seed, height, width, steps, noise, greedy in EPISODES:
    env = make('crafter_reward', {'size': [height, width], 'logs': True}, seed)
    achievements = [key for key in env.obs_space if key.startswith('log/achievement_')]
    bot, first = Bot(env._env, np.random.default_rng(seed), noise, greedy), True
    actions, images, numbers = '', [0], [0]
    reached, episodes = set(), 0
    for step in range(steps):
      action = 0 if first else bot.act()
      obs = env.step({'action': np.int32(action), 'reset': np.bool_(False)})
      first = obs['is_last']
      actions += LETTERS[action]
      add(images, numbers, step, obs, achievements)
      episodes += int(obs['is_first'])
      reached |= {key for key in achievements if obs[key]}
    print(f'{episodes} episodes, {len(reached)} achievements; not reached:',
          *sorted(set(achievements) - reached))
    runs.append({'seed': seed, 'size': [height, width], 'actions': actions,
                 'images': images, 'numbers': numbers})
  return {'versions': versions('crafter'), 'every': EVERY, 'runs': runs}


def add(images, numbers, step, obs, achievements):
  """Checksums of all until now, in lists that hold one for each EVERY steps."""
  if step and step % EVERY == 0:
    images.append(images[-1])
    numbers.append(numbers[-1])
  values = [obs[x] for x in ('reward', 'is_first', 'is_last', 'is_terminal', 'log/reward')]
  values = np.array(values + [obs[key] for key in achievements], '<f4')
  images[-1] = zlib.crc32(np.ascontiguousarray(obs['image']), images[-1])
  numbers[-1] = zlib.crc32(values, numbers[-1])


if __name__ == '__main__':
  RECORD.write_text(json.dumps(record()) + '\n')
