"""The suites: spaces, ends of episodes, options, and recorded sequences of each. A suite whose
package is not installed is skipped."""

import json
import sys
import types

import crafter_bot
import numpy as np
import pytest
from sequences import (
    PACKAGES, SEQUENCES, Spec, act, defaults, digest, make, need, play, recorded, sample, sequence,
    versions)

from dreamer_envs import suites
from dreamer_envs.env import FLAGS, Problem


@pytest.mark.parametrize('name', SEQUENCES)
def test_recorded_sequence(name):
  task, options, kwargs, steps = SEQUENCES[name]
  env = make(task, options, **kwargs)
  expected = recorded(name)
  assert digest(env, sequence(env, steps)) == expected


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
        within = value <= space.high if space.dtype == np.float32 else value < space.high
        assert (value >= space.low).all() and within.all(), key
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
  first = lambda **o: make('atari100k_freeway', o, seed=o.pop('seed', 0)).step(act(0, True))['image']
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
  for wrong in ({'lives': 'many'}, {'noops': -1}, {'length': 0}):
    with pytest.raises(Problem):
      make('atari_pong', wrong)
  with pytest.raises(Problem, match='env.kwargs.repeat is an option of the suite: --env.atari.repeat 2'):
    make('atari_pong', repeat=2)


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
  assert keys(film=True) == keys()
  assert keys(image=False, film=True) == {'orientations', 'height', 'velocity', 'log/image'}
  assert make('dmc_point_mass_easy', {'image': False}).act_space['action'].shape == (2,)
  with pytest.raises(Problem, match='there are: .*humanoid_CMU_run'):
    make('dmc_humanoid_CMU', {'image': False})
  env = make('dmc_cup_catch', {'image': False})
  assert env.obs_space.keys() == make('dmc_ball_in_cup_catch', {'image': False}).obs_space.keys()
  image = lambda task='walker_walk', fast=True, **o: make(
      f'dmc_{task}', o, fast_render=fast).step(act(0, True))['image']
  assert image(size=[48, 80]).shape == (48, 80, 3)
  film = make('dmc_walker_walk', {'image': False, 'film': True}, fast_render=True)
  assert (film.step(act(0, True))['log/image'] == image()).all()
  assert (image() == image(camera=0)).all() and (image() != image(camera=1)).any()
  assert (image() != image(fast=False)).any()
  quadruped = [image('quadruped_walk', camera=x) for x in (-1, 2, 0)]
  with pytest.raises(Problem, match='from camera 99'):
    image(camera=99)
  assert (quadruped[0] == quadruped[1]).all() and (quadruped[0] != quadruped[2]).any()


def test_dmc_shows_what_dm_control_does():
  env = make('dmc_walker_walk', {'image': False, 'repeat': 2}, seed=3)
  from dm_control import suite
  raw = suite.load('walker', 'walk', task_kwargs={'random': 3})
  rng, step, reward = np.random.default_rng(0), raw.reset(), 0.0
  obs = env.step(act(np.zeros(6), True))
  for _ in range(20):
    assert step.observation.keys() == env.obs_space.keys() - FLAGS.keys()
    for key, value in step.observation.items():
      np.testing.assert_array_equal(obs[key], np.asarray(value, np.float32))
    assert obs['reward'] == np.float32(reward)
    action = rng.uniform(-1, 1, 6).astype(np.float32)
    obs, reward = env.step(act(action)), 0.0
    for _ in range(2):
      step = raw.step(action)
      reward += step.reward


def test_dmc_draws_what_dm_control_does():
  env = make('dmc_cup_catch', {'proprio': False}, seed=3)
  from dm_control import suite
  raw = suite.load('ball_in_cup', 'catch', task_kwargs={'random': 3})
  raw.reset()
  obs = env.step(act(np.zeros(2), True))
  for _ in range(3):
    assert (obs['image'] == raw.physics.render(64, 64, camera_id=0)).all()
    raw.step(np.ones(2))
    obs = env.step(act(np.ones(2, np.float32)))


class DmStandIn:
  """A dm_env that ends after three steps, with the given discount."""

  def __init__(self, discount):
    self.discount, self.step_type, self.actions = discount, 0, []

  def observation_spec(self):
    return {
        'a/b': Spec((2,)), 'reward': Spec(()), 'empty': Spec((0,)),
        'seen': Spec((2, 2, 3), np.uint8), 'map': Spec((2, 2), np.uint8)}

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
        'seen': np.zeros((2, 2, 3), np.uint8), 'map': np.ones((2, 2), np.uint8)}
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
      'a_b', 'obs_reward', 'seen', 'map', 'reward', 'is_first', 'is_last', 'is_terminal'}
  assert (env.act_space['action'].low, env.act_space['action'].high) == (-1, 1)
  out = play(env, [[-1, -1], [1, 0]])
  assert [float(x['reward']) for x in out] == [0, 2, 1]
  assert out[-1]['is_last'] and out[-1]['is_terminal'] == (discount == 0)
  # The agent sees bytes of two axes neither as an image nor as classes.
  assert env.obs_space['map'].dtype == out[-1]['map'].dtype == np.float32 and (out[-1]['map'] == 1).all()
  assert env.obs_space['seen'].dtype == out[-1]['seen'].dtype == np.uint8
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


def test_crafter_and_procgen_show_what_the_packages_do():
  env = make('crafter_reward', seed=7)
  import crafter
  raw = crafter.Env(seed=7)
  obs, image, reward = env.step(act(0, True)), raw.reset(), 0.0
  # But for the order in which creatures are chosen, which the package leaves to chance.
  type(env)._order_objects(types.SimpleNamespace(_env=raw))
  for i in range(60):
    assert (obs['image'] == image).all() and obs['reward'] == np.float32(reward)
    image, reward, _, _ = raw.step(i % 17)
    obs = env.step(act(i % 17))
  env = make('procgen_bigfish', {'size': [64, 64]}, seed=7)
  import procgen
  raw = procgen.ProcgenGym3Env(num=1, env_name='bigfish', rand_seed=7, num_threads=0)
  obs, reward = env.step(act(0, True)), 0.0
  for i in range(60):
    assert (obs['image'] == raw.observe()[1]['rgb'][0]).all() and obs['reward'] == reward
    raw.act(np.array([i % 15]))
    obs, reward = env.step(act(i % 15)), raw.observe()[0][0]


@pytest.mark.parametrize('number', range(len(crafter_bot.EPISODES)))
def test_crafter_is_what_the_native_engine_repeats(number):
  recording = json.loads(crafter_bot.RECORD.read_text())
  run = recording['runs'][number]
  env = make('crafter_reward', {'size': run['size'], 'logs': True}, run['seed'])
  if recording['versions'] != versions('crafter'):
    pytest.skip(f'recorded with {recording["versions"]}, here are {versions("crafter")}')
  achievements = [key for key in env.obs_space if key.startswith('log/achievement_')]
  images, numbers = [0], [0]
  for step in range(2 * recording['every']):
    obs = env.step(act(crafter_bot.LETTERS.index(run['actions'][step])))
    crafter_bot.add(images, numbers, step, obs, achievements)
  assert (images, numbers) == (run['images'][:2], run['numbers'][:2])


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
  assert obs['walker_egocentric_camera'].shape == (32, 48, 3)
  assert env.act_space['action'].shape == (8,)


def reach_goal(env):
  """Puts the walker of a maze onto its goal, upright, and takes a step."""
  inner = env._env._env
  task, physics = inner.task, inner.physics
  goal = physics.bind(task._target.geom).xpos[:2]
  before = env._position()
  task.walker.set_pose(physics, position=[*goal, task.walker.get_pose(physics)[0][2]])
  return before, env.step(act(np.zeros(8)))


def test_loconav_pays_at_the_goal():
  env = make('loconav_ant_maze_s_20hz')
  env.step(act(np.zeros(8), True))
  _, obs = reach_goal(env)
  # It pays as long as the episode lasts, wherever the walker goes.
  assert [obs['reward']] + [env.step(act(np.zeros(8)))['reward'] for _ in range(3)] == [1] * 4
  again = make('loconav_ant_maze_s_20hz', {'again': True})
  again.step(act(np.zeros(8), True))
  before, obs = reach_goal(again)
  assert obs['reward'] == 1 and not obs['is_last']
  # Then it pays no more, and the walker is where it may start.
  assert [again.step(act(np.zeros(8)))['reward'] for _ in range(3)] == [0] * 3
  assert np.abs(again._position() - before).max() < 1.5


def test_loconav_falls_over():
  for termination in (False, True):
    env = make('loconav_ant_empty_20hz', {'termination': termination})
    env.step(act(np.zeros(8), True))
    inner = env._env._env
    pose = inner.task.walker.get_pose(inner.physics)[0]
    # On its back but for 30 degrees: its own up then points down by 0.87.
    tilted = [np.cos(np.radians(75)), np.sin(np.radians(75)), 0, 0]
    inner.task.walker.set_pose(inner.physics, position=pose + [0, 0, 0.5], quaternion=tilted)
    obs = env.step(act(np.zeros(8)))
    # No terminal, here and officially: dm_control asks for the discount before it finds the fall.
    assert obs['is_last'] == termination and not obs['is_terminal']


def test_loconav_weaker():
  def ends(weaker, push):
    env = make('loconav_ant_empty_20hz', {'weaker': weaker}, seed=3)
    env.step(act(np.zeros(8), True))
    return [env.step(act(np.full(8, push)))['walker_joints_pos'] for _ in range(5)][-1]
  assert (ends(0.5, 0.8) == ends(1.0, 0.4)).all()
  assert (ends(0.5, 0.8) != ends(1.0, 0.8)).any()


def test_procgen_takes_the_arguments_of_the_package():
  def first(seed, **kwargs):
    return make('procgen_coinrun', {'size': [64, 64]}, seed=seed, **kwargs).step(act(0, True))['image']
  level = {'num_levels': 1, 'start_level': 5}
  assert (first(1, **level) == first(2, **level)).all()
  assert (first(1) != first(2)).any()
  assert (first(1, **level) != first(1, **level, distribution_mode='easy')).any()


def test_atari_by_opencv():
  cv2 = pytest.importorskip('cv2')
  options = {'size': [64, 48], 'gray': False, 'sticky': False, 'noops': 0}
  env, frames = make('atari_pong', {**options, 'resize': 'opencv'}), []
  for step in range(40):
    obs = env.step(act(2, step == 0))
    frames.append(np.maximum(*env._frames))
  assert obs['image'].shape == (64, 48, 3)
  assert (obs['image'] == cv2.resize(frames[-1], (48, 64), interpolation=cv2.INTER_AREA)).all()
  # Both average, over areas of other shapes.
  pillow = make('atari_pong', options)
  other = [pillow.step(act(2, step == 0)) for step in range(40)][-1]['image']
  assert 0 < np.abs(obs['image'].astype(int) - other).mean() < 5
