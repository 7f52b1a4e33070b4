"""The suites: spaces, ends of episodes, options, and recorded sequences of each.

A suite whose package is not installed is skipped. `python test_suites.py` records the sequences of
the installed ones anew, into hashes.json.
"""

import ast
import hashlib
import importlib.metadata
import importlib.util
import json
import os
import pathlib
import platform
import sys

import numpy as np
import pytest

if __name__ == '__main__':
  sys.path.insert(0, str(pathlib.Path(__file__).parents[1]))
if not os.environ.get('DISPLAY'):
  os.environ.setdefault('MUJOCO_GL', 'egl')

from dreamer_envs import suites  # noqa: E402
from dreamer_envs.env import Problem  # noqa: E402

HERE = pathlib.Path(__file__).parent
HASHES = HERE / 'hashes.json'
PACKAGES = {  # The module that a suite imports, and what its recorded sequence depends on.
    'atari': ('ale_py', ['ale-py', 'pillow']),
    'atari100k': ('ale_py', ['ale-py', 'pillow']),
    'dmc': ('dm_control', ['dm_control', 'mujoco']),
    'crafter': ('crafter', ['crafter', 'opensimplex', 'pillow']),
    'procgen': ('procgen', ['procgen2', 'pillow']),
    'minigrid': ('minigrid', ['minigrid', 'pillow']),
    'bsuite': ('bsuite', ['bsuite']),
    'memmaze': ('memory_maze', ['memory-maze', 'dm_control', 'mujoco', 'labmaze']),
    'loconav': ('dm_control', ['dm_control', 'mujoco', 'labmaze']),
    'dmlab': ('deepmind_lab', []),
    'minecraft': ('minerl', []),
}
# Task, options other than the usual ones, kwargs, steps; a name for each.
SEQUENCES = {
    'atari': ('atari_pong', {}, {}, 300),
    'atari100k': ('atari100k_ms_pacman', {}, {}, 300),
    'dmc_proprio': ('dmc_walker_walk', {'image': False, 'repeat': 2}, {}, 550),
    'dmc_vision': ('dmc_cup_catch', {'proprio': False, 'repeat': 2}, {}, 20),
    'crafter': ('crafter_reward', {'logs': True}, {}, 400),
    'procgen': ('procgen_coinrun', {}, {}, 50),
    'procgen64': ('procgen_bigfish', {'size': [64, 64]}, {}, 1000),
    'minigrid': ('minigrid_DoorKey-5x5-v0', {}, {}, 300),
    'bsuite': ('bsuite_cartpole_noise/3', {}, {}, 500),
    'memmaze': ('memmaze_9x9', {}, {}, 10),
    'loconav': ('loconav_ant_maze_m', {}, {}, 30),
}
DRAWN = ('dmc_vision', 'memmaze', 'loconav')  # By OpenGL, whose version matters too.


def defaults(suite):
  """The block env.SUITE of configs/defaults.yaml, which is flat."""
  options, inside = {}, False
  for line in (HERE.parents[1] / 'configs' / 'defaults.yaml').read_text().splitlines():
    if line.startswith('  ') and not line.startswith('   '):
      inside = line.split(':')[0].strip() == suite
    elif inside and line.startswith('    '):
      key, value = line.split('#')[0].strip().split(': ')
      value = {'true': 'True', 'false': 'False'}.get(value, value)
      try:
        options[key] = ast.literal_eval(value)
      except ValueError:
        options[key] = value
  return options


def need(suite):
  package = PACKAGES[suite][0]
  if not importlib.util.find_spec(package):
    pytest.skip(f'{package} is not installed')


def make(task, options={}, seed=0, **kwargs):
  suite = task.split('_')[0]
  if __name__ != '__main__':
    need(suite)
  return suites.make(task, {**defaults(suite), **options}, kwargs, seed)


def sample(env, rng, reset=False):
  action = {'reset': np.bool_(reset)}
  for key, space in env.act_space.items():
    if space.dtype == np.int32:
      action[key] = np.asarray(rng.integers(space.low, space.high, space.shape), np.int32)
    elif space.dtype == np.float32:
      action[key] = np.asarray(rng.uniform(space.low, space.high, space.shape), np.float32)
  return action


def act(value, reset=False):
  return {'action': np.asarray(value), 'reset': np.bool_(reset)}


def sequence(env, steps, seed=0):
  rng = np.random.default_rng(seed)
  return [env.step(sample(env, rng, i == 0)) for i in range(steps)]


def play(env, choose, steps=10 ** 5):
  """Observations of an episode, with `choose` a number or a list of actions to go through."""
  out = [env.step(act(0, reset=True))]
  for i in range(steps):
    action = choose[i % len(choose)] if isinstance(choose, list) else choose
    out.append(env.step(act(np.asarray(action, env.act_space['action'].dtype))))
    if out[-1]['is_last']:
      break
  return out


def digest(env, observations):
  sha = hashlib.sha256()
  for obs in observations:
    for key in sorted(env.obs_space):
      sha.update(np.asarray(obs[key], env.obs_space[key].dtype).tobytes())
  return sha.hexdigest()


def versions(name):
  suite = SEQUENCES[name][0].split('_')[0]
  out = {x: importlib.metadata.version(x) for x in PACKAGES[suite][1]}
  out['machine'] = platform.machine()
  if name in DRAWN:
    from dm_control import suite
    from OpenGL import GL
    physics = suite.load('cartpole', 'balance').physics
    physics.render(8, 8)
    with physics.contexts.gl.make_current() as context:
      out['gl'] = context.call(GL.glGetString, GL.GL_VERSION).decode()
  return out


@pytest.mark.parametrize('name', SEQUENCES)
def test_recorded_sequence(name):
  task, options, kwargs, steps = SEQUENCES[name]
  env = make(task, options, **kwargs)
  recorded = json.loads(HASHES.read_text())[name]
  if recorded['versions'] != versions(name):
    pytest.skip(f'recorded with {recorded["versions"]}, here are {versions(name)}')
  assert digest(env, sequence(env, steps)) == recorded['sha256']


@pytest.mark.parametrize('name', SEQUENCES)
def test_spaces_and_flags(name):
  task, options, kwargs, steps = SEQUENCES[name]
  env = make(task, options, **kwargs)
  rng = np.random.default_rng(1)
  was_last = True
  for i in range(min(steps, 200)):
    reset = i == 30 and not was_last
    obs = env.step(sample(env, rng, reset))
    assert obs.keys() == env.obs_space.keys()
    for key, space in env.obs_space.items():
      value = np.asarray(obs[key])
      assert value.shape == space.shape, (key, value.shape)
      assert space.dtype != np.uint8 or value.dtype == np.uint8, (key, value.dtype)
      assert np.isfinite(value).all(), key
      if space.high is not None:
        assert (value >= space.low).all() and (value <= space.high).all(), key
    assert obs['is_first'] == (was_last or reset)
    assert not obs['is_first'] or obs['reward'] == 0
    assert not obs['is_terminal'] or obs['is_last']
    was_last = obs['is_last']
  assert env.act_space['reset'].dtype == bool
  env.close()


@pytest.mark.parametrize('name', SEQUENCES)
def test_seeds(name):
  task, options, kwargs, _ = SEQUENCES[name]
  one, two, three = (
      digest(env, sequence(env, 12)) for env in (
          make(task, options, seed, **kwargs) for seed in (1, 1, 2)))
  assert one == two != three


@pytest.mark.parametrize('suite', [x for x in PACKAGES if x != 'atari100k'])
def test_missing_package_and_unknown_task(suite, monkeypatch):
  with monkeypatch.context() as patch:
    patch.setitem(sys.modules, PACKAGES[suite][0], None)
    with pytest.raises(Problem) as e:
      name = {'minecraft': 'diamond', 'crafter': 'reward'}.get(suite, 'x')
      suites.make(f'{suite}_{name}', defaults(suite), {}, 0)
    assert e.value.cure
  if suite != 'dmlab':
    if suite != 'minecraft':
      need(suite)
    with pytest.raises(Problem, match='nothing'):
      suites.make(f'{suite}_nothing', defaults(suite), {}, 0)


# Atari.


def triangle(image, height, width):
  """Pillow's bilinear filter: a triangle as wide as the factor, in fixed point, columns first."""
  def along(image, axis, size):
    image = np.moveaxis(image, axis, 0)
    scale = image.shape[0] / size
    out = np.zeros((size, *image.shape[1:]), np.uint8)
    for i in range(size):
      center = (i + 0.5) * scale
      begin = max(int(center - scale + 0.5), 0)
      end = min(int(center + scale + 0.5), image.shape[0])
      weights = [max(1 - abs((x - center + 0.5) / scale), 0) for x in range(begin, end)]
      weights = [int(x / sum(weights) * 2 ** 22 + 0.5) for x in weights]
      total = sum(int(w) * image[x].astype(np.int64) for w, x in zip(weights, range(begin, end)))
      out[i] = np.clip((total + 2 ** 21) >> 22, 0, 255)
    return np.moveaxis(out, 0, axis)
  return along(along(image, 1, width), 0, height)


@pytest.mark.parametrize('suite', ['atari', 'atari100k'])
def test_atari_pixels(suite):
  env = make(f'{suite}_breakout', {'noops': 0, 'sticky': False}, seed=3)
  import ale_py
  ale = ale_py.ALEInterface()
  ale.setFloat('repeat_action_probability', 0.0)
  ale.loadROM(ale_py.roms.get_rom_path('breakout'))
  ale.reset_game()
  names = [ale_py.Action.NOOP, ale_py.Action.FIRE, ale_py.Action.RIGHT, ale_py.Action.LEFT]
  numbers = [0, 1, 3, 4] if suite == 'atari' else [0, 1, 2, 3]
  frames = [ale.getScreenRGB()]
  obs = env.step(act(0, reset=True))
  for i in range(40):
    image = np.maximum(frames[-1], frames[-2 % len(frames)])
    image = triangle(image, *env.obs_space['image'].shape[:2])
    if suite == 'atari':
      red, green, blue = np.moveaxis(image.astype(float), -1, 0)
      gray = red * 0.299 + green * 0.587 + blue * (1 - (0.299 + 0.587))
      image = gray.astype(np.uint8)[..., None]
    assert (obs['image'] == image).all(), i
    choice = 1 if i < 2 else i % 4
    frames = []
    reward = 0
    for _ in range(4):
      reward += ale.act(names[choice])
      frames.append(ale.getScreenRGB())
    obs = env.step(act(numbers[choice]))
    assert obs['reward'] == reward


def test_atari_time_limit_is_not_terminal():
  out = play(make('atari_pong', length=40), 0)
  assert len(out) == 11 and out[-1]['is_last'] and not out[-1]['is_terminal']


def test_atari_game_over_is_terminal():
  out = play(make('atari100k_freeway', {'repeat': 64}), 0)
  assert out[-1]['is_last'] and out[-1]['is_terminal'] and len(out) > 100


def test_atari_lives():
  lost = {}
  for lives in ('unused', 'discount', 'reset'):
    env = make('atari_breakout', {'lives': lives, 'autostart': True, 'sticky': False, 'noops': 0})
    out = play(env, [1, 0, 0, 0], steps=120)
    lost[lives] = [(i, bool(x['is_last'])) for i, x in enumerate(out) if x['is_terminal']]
  assert lost['unused'] == []
  assert len(lost['discount']) > 1 and not lost['discount'][0][1]
  assert lost['reset'] == [(lost['discount'][0][0], True)]


def test_atari_options():
  first = lambda **o: make('atari100k_pong', o, seed=o.pop('seed', 0)).step(act(0, True))['image']
  assert (first(noops=0, seed=1) == first(noops=0, seed=2)).all()
  assert any((first(seed=1) != first(seed=x)).any() for x in range(2, 6))
  assert first(gray=True, size=[84, 96]).shape == (84, 96, 1)
  count = lambda **o: make('atari_pong', o).act_space['action'].high
  assert (count(actions='all'), count(actions='needed')) == (18, 6)
  last = lambda seed=0, steps=20, **o: digest(
      e := make('atari_breakout', {'noops': 0, **o}, seed), play(e, [1, 3, 4], steps))
  assert last(1, sticky=False) == last(2, sticky=False)
  assert len({last(x, sticky=True) for x in range(4)}) > 1
  assert len({last(pooling=1), last(pooling=2), last(aggregate='mean'), last(repeat=3)}) == 4
  # Without a button pressed, the ball is only served by `autostart`.
  moves = lambda start: len({x['image'].tobytes() for x in play(
      make('atari_breakout', {'autostart': start, 'noops': 0}), 0, 10)})
  assert moves(False) < moves(True)
  rewards = lambda clip: {float(x['reward']) for x in play(
      make('atari_ms_pacman', {'clip_reward': clip}), [2, 4], 150)}
  assert rewards(True) == {0.0, 1.0} and max(rewards(False)) >= 10
  with pytest.raises(Problem):
    make('atari_pong', {'lives': 'many'})


def test_atari_names():
  need('atari')
  from dreamer_envs.suites.atari import rom
  games = (
      'alien amidar assault asterix bank_heist battle_zone boxing breakout chopper_command '
      'crazy_climber demon_attack freeway frostbite gopher hero james_bond kangaroo krull '
      'kung_fu_master ms_pacman pong private_eye qbert road_runner seaquest up_n_down')
  assert len({rom(x) for x in games.split()}) == 26
  assert rom('MsPacman') == rom('ms_pacman')


# DeepMind Control.


def test_dmc_repeat_and_length():
  one = make('dmc_cartpole_balance', {'image': False})
  two = make('dmc_cartpole_balance', {'image': False, 'repeat': 2})
  a, b = play(one, [[0.5], [0.5], [-1], [-1]]), play(two, [[0.5], [-1]])
  assert (len(a), len(b)) == (1001, 501)
  assert b[-1]['is_last'] and not b[-1]['is_terminal']
  sums = np.add([x['reward'] for x in a[1::2]], [x['reward'] for x in a[2::2]])
  np.testing.assert_allclose(sums, [x['reward'] for x in b[1:]], rtol=1e-6)
  np.testing.assert_array_equal(a[2]['position'], b[1]['position'])


def test_dmc_options():
  flags = {'reward', 'is_first', 'is_last', 'is_terminal'}
  keys = lambda **o: make('dmc_walker_walk', o).obs_space.keys() - flags
  assert keys() == {'orientations', 'height', 'velocity', 'image'}
  assert keys(image=False) == {'orientations', 'height', 'velocity'}
  assert keys(proprio=False) == {'image'}
  env = make('dmc_cup_catch', {'image': False})
  assert env.obs_space.keys() == make('dmc_ball_in_cup_catch', {'image': False}).obs_space.keys()
  image = lambda task='walker_walk', fast=True, **o: make(
      f'dmc_{task}', o, fast_render=fast).step(act(0, True))['image']
  assert image(size=[48, 80]).shape == (48, 80, 3)
  assert (image() == image(camera=0)).all() and (image() != image(camera=1)).any()
  assert (image() != image(fast=False)).any()
  quadruped = [image('quadruped_walk', camera=x) for x in (-1, 2, 0)]
  assert (quadruped[0] == quadruped[1]).all() and (quadruped[0] != quadruped[2]).any()


class Spec:

  def __init__(self, shape, dtype=np.float64, **kwargs):
    self.shape, self.dtype = shape, np.dtype(dtype)
    self.__dict__.update(kwargs)


class DmStandIn:
  """A dm_env that ends after three steps, with the given discount."""

  def __init__(self, discount):
    self.discount, self.step_type, self.actions = discount, 0, []

  def observation_spec(self):
    return {
        'a/b': Spec((2,)), 'reward': Spec(()), 'empty': Spec((0,)),
        'seen': Spec((2, 2, 3), np.uint8)}

  def action_spec(self):
    return Spec((2,), minimum=np.array([-1, -2]), maximum=np.array([1, 4]))

  def reset(self):
    self.time = 0
    return self._step(None)

  def step(self, action):
    self.actions.append(action)
    self.time += 1
    return self._step(1.0)

  def _step(self, reward):
    self.reward = reward
    self.observation = {
        'a/b': np.ones(2), 'reward': 5.0, 'empty': np.zeros(0),
        'seen': np.zeros((2, 2, 3), np.uint8)}
    return self

  def first(self):
    return self.time == 0

  def last(self):
    return self.time == 3


@pytest.mark.parametrize('discount', [0.0, 1.0])
def test_dm_ends_and_bounds(discount):
  from dreamer_envs.suites.dm import Dm
  inner = DmStandIn(discount)
  env = Dm(inner, repeat=2)
  assert env.obs_space.keys() == {
      'a_b', 'obs_reward', 'seen', 'reward', 'is_first', 'is_last', 'is_terminal'}
  assert (env.act_space['action'].low, env.act_space['action'].high) == (-1, 1)
  out = play(env, [[-1, -1], [1, 0]])
  assert [float(x['reward']) for x in out] == [0, 2, 1]
  assert out[-1]['is_last'] and out[-1]['is_terminal'] == (discount == 0)
  np.testing.assert_array_equal(inner.actions, [[-1, -2], [-1, -2], [1, 1]])
  assert env.step(act([0, 0]))['is_first']


# The others.


def test_crafter():
  out = play(make('crafter_reward', length=20), 0)
  assert len(out) == 21 and out[-1]['is_last'] and not out[-1]['is_terminal']
  out = play(make('crafter_noreward', {'logs': True, 'size': [48, 64]}), 0)
  assert out[-1]['is_terminal'] and out[0]['image'].shape == (48, 64, 3)
  assert not any(x['reward'] for x in out) and any(x['log/reward'] for x in out)
  assert out[-1]['log/achievement_wake_up'] == 0
  assert 'log/achievement_wake_up' not in make('crafter_reward').obs_space


def test_procgen():
  out = play(make('procgen_maze', {'size': [64, 64]}), 4)
  assert len(out) == 501 and out[-1]['is_last'] and not out[-1]['is_terminal']
  assert (out[-1]['image'] == out[-2]['image']).all()
  out = play(make('procgen_bigfish', {'size': [64, 64]}), 7)
  assert out[-1]['is_terminal'] and len(out) < 1000
  big, small = (make('procgen_coinrun', {'size': s}).step(act(0, True))['image'].astype(float)
                for s in ([128, 128], [64, 64]))
  assert abs(big.reshape(64, 2, 64, 2, 3).mean((1, 3)) - small).mean() < 10


def test_minigrid():
  env = make('minigrid_Empty-5x5-v0')
  out = play(env, [2, 2, 1, 2, 2])
  assert len(out) == 6 and out[-1]['is_terminal'] and out[-1]['reward'] > 0.5
  assert [int(x['direction']) for x in out] == [0, 0, 0, 1, 1, 1]
  out = play(env, 0)
  assert len(out) == 101 and out[-1]['is_last'] and not out[-1]['is_terminal']


def test_bsuite():
  out = play(make('bsuite_deep_sea'), 0)
  assert len(out) == 11 and out[-1]['is_terminal'] and out[0]['observation'].shape == (100,)
  assert 'log/total_bad_episodes' in out[0]
  assert play(make('bsuite_catch/0'), 1)[-1]['reward'] in (-1, 1)


def test_memmaze():
  env = make('memmaze_9x9')
  assert env.obs_space['image'].shape == (64, 64, 3) and env.act_space['action'].high == 6
  env = make('memmaze_9x9-ExtraObs')
  assert {'image', 'agent_pos', 'maze_layout'} <= env.obs_space.keys()


def test_loconav():
  env = make('loconav_ant_empty_20hz', {'size': [32, 48]}, image=True)
  obs = env.step(act(np.zeros(8), True))
  assert obs['image'].shape == (32, 48, 3) and obs['log/coverage'] == 1
  assert obs['walker_egocentric_camera'].shape == (64, 64, 3)
  assert env.act_space['action'].shape == (8,)


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
  assert obs['reward'] == 1 and obs['log/inventory_log'] == 2 and obs['log/achievement_log'] == 1
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


if __name__ == '__main__':
  hashes = json.loads(HASHES.read_text()) if HASHES.exists() else {}
  for name, (task, options, kwargs, steps) in SEQUENCES.items():
    if importlib.util.find_spec(PACKAGES[task.split('_')[0]][0]):
      env = make(task, options, **kwargs)
      hashes[name] = {'versions': versions(name), 'sha256': digest(env, sequence(env, steps))}
  HASHES.write_text(json.dumps(hashes, indent=2, sort_keys=True) + '\n')
