"""DMLab and Minecraft, whose engines are not on the package index, on stand-ins of the same spaces."""

import sys

import numpy as np
import pytest
from sequences import Spec, act, defaults, play

from dreamer_envs import suites


class Lab:
  """Has what dmlab.py uses of deepmind_lab.Lab; a level lasts five frames."""

  def __init__(self, level, observations, config):
    self.given = dict(level=level, observations=observations, config=config)
    self.seeds, self.acts = [], []

  def reset(self, seed):
    self.seeds.append(seed)
    self.frames = 0

  def step(self, action, num_steps):
    assert action.dtype == np.intc and action.shape == (7,) and self.is_running()
    self.acts.append(action.tolist())
    self.frames += num_steps
    return 2.0

  def is_running(self):
    return self.frames < 5

  def observations(self):
    assert self.is_running()
    size = [int(self.given['config'][x]) for x in ('height', 'width')]
    return {'RGB_INTERLEAVED': np.full((*size, 3), self.frames, np.uint8), 'INSTR': 'Go, go red'}

  def close(self):
    pass


@pytest.fixture
def lab(monkeypatch):
  module = type(sys)('deepmind_lab')
  module.Lab = Lab
  monkeypatch.setitem(sys.modules, 'deepmind_lab', module)


def test_dmlab(lab):
  env = suites.make('dmlab_rooms_watermaze_test', {**defaults('dmlab'), 'size': [32, 48]}, {}, 5)
  engine = env._env
  assert engine.given['level'] == 'contributed/dmlab30/rooms_watermaze_train'
  out = play(env, [4, 14])
  assert [x['image'][0, 0, 0] for x in out] == [0, 4, 4] and out[0]['image'].shape == (32, 48, 3)
  assert [float(x['reward']) for x in out] == [0, 2, 2]
  assert out[-1]['is_last'] and out[-1]['is_terminal']
  assert engine.acts == [[-10, 0, 0, 0, 0, 0, 0], [0, 0, 0, 0, 1, 0, 0]]
  assert env.act_space['action'].high == 15
  again = suites.make('dmlab_rooms_watermaze', defaults('dmlab'), {}, 5)
  play(again, 0)
  assert again._env.seeds == engine.seeds
  env = suites.make('dmlab_language_x', {**defaults('dmlab'), 'episodic': False}, {
      'actions': 'impala', 'mode': 'eval'}, 0)
  out = play(env, 0)
  assert not out[-1]['is_terminal'] and env.act_space['action'].high == 9
  words = out[0]['instr'].reshape(32, 32)
  assert (words[0] == words[2]).all() and (words[0] != words[3]).any()  # go , go red


class Node:

  def __init__(self, **spaces):
    self.spaces = spaces


class Game:
  """Has what minecraft.py uses of MineRL; what is seen is set by the test."""

  ITEMS = (
      'air', 'log', 'log2', 'planks', 'stick', 'crafting_table', 'wooden_pickaxe', 'cobblestone',
      'stone_pickaxe', 'iron_ore', 'furnace', 'iron_ingot', 'iron_pickaxe', 'diamond')

  def __init__(self, size, break_speed):
    self.size, self.acts, self.over, self.info = size, [], False, {}
    self.observation_space = Node(
        inventory=Node(**dict.fromkeys(self.ITEMS)), equipped_items=Node(mainhand=Node(
            type=Spec((), values=np.array(['none', 'air', 'iron_pickaxe'])))))

  def reset(self):
    self.items, self.life, self.height = dict.fromkeys(self.ITEMS, 0), 20, 60.0
    return self.seen()

  def step(self, action):
    self.acts.append(action)
    return self.seen(), 0.0, self.over, self.info

  def seen(self):
    return {
        'pov': np.zeros((*self.size, 3), np.uint8), 'inventory': dict(self.items),
        'equipped_items': {'mainhand': {'type': 'air'}},
        'life_stats': {'life': self.life, 'food': 10, 'air': 150},
        'location_stats': {'xpos': 0.0, 'ypos': self.height, 'zpos': 0.0}}


def minecraft(task, **options):
  env = suites.make(
      f'minecraft_{task}', {**defaults('minecraft'), **options}, {'engine': Game}, 0)
  return env, env._env, env.step(act(0, True))


def test_minecraft_rewards():
  env, game, obs = minecraft('diamond', logs=True)
  assert env.act_space['action'].high == 25
  assert (obs['inventory'].shape, obs['equipped'].tolist()) == ((13,), [0, 1, 0])
  assert (obs['health'], obs['hunger'], obs['breath']) == (1, 0.5, 0.5)
  game.items['log2'] = 2
  obs = env.step(act(1))
  assert obs['reward'] == 1 and obs['log/inventory/log'] == 2 and obs['log/achievement_log'] == 1
  game.items['log2'] = 0
  assert env.step(act(1))['inventory_max'].max() == 2
  game.items.update(log=1, diamond=1)
  assert env.step(act(1))['reward'] == 1  # Logs were rewarded before.
  game.life = 10
  np.testing.assert_allclose(env.step(act(1))['reward'], -0.005, rtol=1e-5)
  assert obs.keys() == env.obs_space.keys()
  env, game, _ = minecraft('wood')
  game.items['log'] = 3
  assert env.act_space['action'].high == 12 and env.step(act(0))['reward'] == 3
  env, game, _ = minecraft('climb')
  game.height = 62.5
  assert env.step(act(0))['reward'] == 2.5 and env.step(act(0))['reward'] == 0


def test_minecraft_ends():
  env, game, _ = minecraft('wood', length=3)
  out = play(env, 0)
  assert len(out) == 4 and out[-1]['is_last'] and not out[-1]['is_terminal']
  assert env.step(act(0))['is_first']
  game.over = True
  obs = env.step(act(0))
  assert obs['is_last'] and obs['is_terminal']
  env.step(act(0))
  game.over, game.info = False, {'error': 'gone'}
  obs = env.step(act(0))
  assert obs['is_last'] and not obs['is_terminal'] and obs['reward'] == 0


def test_minecraft_actions():
  env, game, _ = minecraft('wood')
  for _ in range(6):
    env.step(act(3))
  assert [x['camera'] for x in game.acts] == [(15, 0)] * 4 + [(0, 0)] * 2
  game.acts.clear()
  for choice in [10] + [0] * 11:
    env.step(act(choice))
  assert [x['jump'] for x in game.acts] == [1] * 10 + [0] * 2
  for speed, held in ((100.0, 1), (1.0, 30)):
    env, game, _ = minecraft('wood', break_speed=speed)
    for choice in [1] + [0] * 35:
      env.step(act(choice))
    assert sum(x['attack'] for x in game.acts) == held
