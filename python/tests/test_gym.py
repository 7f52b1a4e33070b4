"""Spaces of gymnasium, its environments and vector environments."""

import os
import pathlib
import re
import sys
import warnings

import gymnasium
import numpy as np
import pytest
from gymnasium import spaces

import envs
from dreamer_envs import FLAGS, Problem, Space
from dreamer_envs.env import NOTES
from dreamer_envs.memory import check, entry
from dreamer_envs.spaces import LOSSES, OWN, OWN_GROUPS, Act, Obs, sample, stack
from dreamer_envs.wrap import GymEnv, GymVector, draw_without_display, metrics
from trainer import Trainer, WorkerError


def show(space):
  return (space.dtype.name, space.shape, space.low, space.high)


def act(env, reset=False, **values):
  zeros = {key: np.zeros(space.shape, space.dtype)[()] for key, space in env.act_space.items()}
  return {**zeros, **values, 'reset': np.bool_(reset)}


def test_kinds():
  env = GymEnv(envs.Kinds(), seed=5)
  assert {key: show(space) for key, space in env.obs_space.items()} == {
      'frame': ('float32', (64,), 0, 255),
      'planes': ('uint8', (20, 24, 4), None, None),
      'room': ('int32', (), 0, 5),
      'obs/reward': ('float32', (2,), None, None),
      'parts/0': ('int32', (2,), 0, 4),
      'parts/1/0': ('int32', (), 0, 2),
      'parts/1/1': ('int32', (), 0, 3),
      'parts/2/bits': ('bool', (3,), None, None),
      'reward': ('float32', (), None, None),
      **{key: ('bool', (), None, None) for key in ('is_first', 'is_last', 'is_terminal')}}
  assert {key: show(space) for key, space in env.act_space.items()} == {
      'reset': ('bool', (), None, None),
      'move': ('int32', (), 0, 3),
      'wheels': ('float32', (2,), -1, 1),
      'level': ('int32', (2,), 0, 4),
      'price': ('float32', (), -1, 1),
      'tail/0': ('int32', (2,), 0, 4),
      'tail/1/0': ('int32', (), 0, 2),
      'tail/1/1': ('int32', (), 0, 3),
      'tail/2': ('bool', (2,), None, None)}
  obs = env.step(act(env))
  assert obs['is_first'] and obs['reward'] == 0 and obs['log/seed'] == 5
  assert 'log/ok' not in obs
  obs = env.step(act(
      env, move=np.int32(2), wheels=np.float32([0.5, -3]), level=np.int32([0, 3]),
      price=np.float32(1), **{'tail/0': np.int32([0, 3]), 'tail/1/0': np.int32(1),
                              'tail/1/1': np.int32(2), 'tail/2': np.array([True, False])}))
  taken = env.env.action
  assert taken['move'] == 1 and taken['wheels'].tolist() == [7.5, -2]
  assert taken['level'].tolist() == [2, 5] and taken['price'] == 1000
  assert [part.tolist() for part in taken['tail']] == [[0, 3], [1, 2], [1, 0]]
  assert obs['room'] == 1 and obs['parts/0'].tolist() == [3, 0]
  assert (obs['parts/1/0'], obs['parts/1/1']) == (1, 2)
  assert obs['parts/2/bits'].tolist() == [True, False, True]
  assert obs['frame'].tolist() == [7] * 64 and obs['planes'][3, 5].tolist() == [0, 1, 2, 3]
  assert obs['obs/reward'].tolist() == [np.finfo(np.float32).max] * 2
  assert obs['reward'] == 1.5 and obs['is_last'] and not obs['is_terminal']
  assert {key: value for key, value in obs.items() if key.startswith('log/')} == {
      'log/moved_to': 1, 'log/ok': 1, 'log/episode/r': 2.5, 'log/episode/l': 7}
  assert env.step(act(env))['log/seed'] == -1


def test_kinds_through_the_worker():
  with Trainer('py:envs:Kinds') as t:
    assert t.step()['is_first']
    assert t.step(move=0)['room'] == 1
    assert 'log/episode/r' not in t.step(move=1)
    assert t.step(move=2)['log/episode/r'] == 2.5
    assert len(t.answer['notes']) == 1 and "'words' is left out" in t.answer['notes'][0]


@pytest.mark.parametrize('task', ['py:envs:Moody', 'py:envs:moody_vector'])
def test_infos_of_the_last_step(task):
  slots = 2 if 'vector' in task else 1
  with Trainer(task, slots=slots) as t:
    for i in range(5):
      obs = t.ask(range(slots))
      assert obs[0].get('log/is_success') == (1 if obs[0]['is_last'] else None)
      assert obs[0].get('log/episode/l') == (4 if obs[0]['is_last'] else None)
      assert obs[0]['is_last'] == (i == 4)
      assert slots == 1 or 'log/is_success' not in obs[1]


def test_names_of_infos_keep_their_letters():
  assert metrics({'é': 1, 'ü x': 2, 'a/b-c.d': 3}) == {'log/é': 1, 'log/ü_x': 2, 'log/a/b-c.d': 3}


def test_masks_of_infos_hold_for_what_is_within():
  # This wrapper gives numbers of all environments, and says whose episode has ended beside them.
  vector = gymnasium.wrappers.vector.RecordEpisodeStatistics(envs.moody_vector(2), stats_key='sums')
  env = GymVector(vector)
  logs = [[obs.get('log/sums/l') for obs in env.step([act(env, reset=i == 0)] * 2)] for i in range(6)]
  assert logs == [[None, None]] * 4 + [[4, None], [None, 5]]


def test_slots_have_equal_spaces():
  with Trainer('py:envs:spoilt', slots=2, start=False) as t:
    with pytest.raises(WorkerError, match="'vector' of obs_space is .*2.* in the first and .*3.*number 2"):
      t.begin(2)


def test_bounds_of_observations():
  box = lambda *args, **kwargs: show(Obs(spaces.Box(*args, **kwargs)).spaces['vector'])
  assert box(0, 255, (2,), np.int16) == ('float32', (2,), 0, 255)
  wide = spaces.Box(np.array([-1, -2.0]), np.array([1, 3.0]), dtype=np.float64)
  assert show(Obs(wide).spaces['vector'])[2:] == (-2, 3)
  assert box(0, np.inf, (2,))[2:] == (0, None) and box(-3e38, 3e38, (2,))[2:] == (None, None)
  # Rounding puts nothing outside; what else is outside stays there, for the trainer to see.
  assert Obs(wide)(np.array([-2.00001, 3.00002]))['vector'].tolist() == [-2, 3]
  assert Obs(wide)(np.array([-2.1, 3.1]))['vector'].tolist() == np.float32([-2.1, 3.1]).tolist()
  assert np.isnan(Obs(wide)(np.array([0, np.nan]))['vector'][1])
  assert Obs(spaces.Box(0, np.inf, (1,)))(np.array([np.inf]))['vector'][0] == np.finfo(np.float32).max
  with Trainer('py:envs:Moody') as t:
    assert t.answer['obs']['vector']['high'] == 1000
  # What no float32 can hold is no bound, and Infinity no JSON.
  assert entry(Space(np.float32, (2,), -1e308, 1e308)).keys() == {'dtype', 'shape'}


def test_only_zeros_and_ones_are_binary():
  obs = Obs(spaces.MultiBinary(3))
  seen = obs([1, 0.0, True])['vector']
  assert seen.dtype == bool and seen.tolist() == [True, False, True]
  for wrong, words in [([7, 1, 0], 'from 0 to 7; its space says bool'), ([np.nan, 1, 0], 'from nan to nan')]:
    with pytest.raises(Problem, match=words):
      check('vector', obs(np.array(wrong))['vector'], obs.spaces['vector'])


@pytest.mark.parametrize('space', [
    spaces.Box(0, 1, (64, 64, 3), np.float32), spaces.Box(-5, 5, (3, 3, 2), np.int64),
    spaces.Box(0, 1, (2, 3, 4, 5)), spaces.MultiBinary((3, 3, 2)), spaces.Box(0, 255, (10, 10, 4), np.uint8),
    spaces.MultiDiscrete(np.full((2, 2, 2), 3)), spaces.Box(0, 9, (9, 9), np.uint8)])
def test_several_axes_become_one(space):
  obs, act, value = Obs(space), Act(space), space.sample()
  assert obs.spaces['vector'].shape == (np.prod(space.shape),)
  assert obs(value)['vector'].ravel().tolist() == value.ravel().tolist()
  assert np.shape(obs(value[:1])['vector']) != obs.spaces['vector'].shape
  assert act.spaces['action'].shape == (np.prod(space.shape),)


def test_names_of_the_trainer_are_kept_apart():
  one = spaces.Box(-1, 1, (1,))
  names = ['dyn/deter', 'stepid', 'consec', 'is_first', 'enc/x', 'log/path', 'value', 'rep']
  obs = Obs(spaces.Dict({**{name: one for name in names}, 'log/success': spaces.Box(0, 1, ()), 'deter': one}))
  assert set(obs.spaces) == {*(f'obs/{name}' for name in names), 'log/success', 'deter'}
  assert list(Act(spaces.Dict({'dyn/x': one, 'log/y': one})).spaces) == ['reset', 'action/dyn/x', 'action/log/y']
  for name in ('log', 'enc', 'replay'):  # Of several keys, each of which then begins like the trainer's own.
    several = spaces.Dict({name: spaces.MultiDiscrete([2, 3])})
    assert list(Obs(several).spaces) == [f'obs/{name}/0', f'obs/{name}/1']
    assert list(Act(several).spaces) == ['reset', f'action/{name}/0', f'action/{name}/1']


def test_names_of_the_trainer_are_those_of_the_trainer():
  crates = pathlib.Path(__file__).parents[2] / 'crates'

  def names(file, constant):
    text = re.search(rf'const {constant}: .*? = \[(.*?)\];', (crates / file).read_text(), re.DOTALL)
    return set(re.findall(r'"(.*?)"', text[1]))

  assert names('spaces/src/keys.rs', 'OWN') == {*OWN} - {'reset', *FLAGS}
  assert names('spaces/src/keys.rs', 'OWN_GROUPS') == {*OWN_GROUPS}
  assert names('dreamer/src/loss.rs', 'LOSSES') == {*LOSSES}


class Plain(gymnasium.Env):
  """One float, which gets out of its bounds; a reward in an array; and resets counted."""

  observation_space = spaces.Box(0, 1, (1,))
  action_space = spaces.Discrete(2)
  resets = steps = 0

  def reset(self, seed=None, options=None):
    self.resets += 1
    return np.array([self.resets / 10], np.float32), {}

  def step(self, action):
    self.steps += 1
    return np.array([1.5], np.float32), np.array([2.5]), False, self.steps % 3 == 0, {}


def test_a_reward_may_be_an_array_of_one_value():
  env = GymEnv(Plain(), bounds=False)
  env.step(act(env, reset=True))
  with warnings.catch_warnings():
    warnings.simplefilter('error')  # As of numpy from 1.25 on, where it is no error yet.
    assert env.step(act(env))['reward'] == 2.5


def test_bounds_hold_unless_that_is_not_wanted():
  free, held = GymEnv(Plain(), bounds=False), GymEnv(Plain())
  assert show(free.obs_space['vector']) == ('float32', (1,), None, None)
  assert show(held.obs_space['vector']) == ('float32', (1,), 0, 1)


def test_an_environment_that_starts_out_of_bounds_is_closed_and_told_what_helps():
  closed = []

  class Beyond(Plain):
    observation_space = spaces.Box(0, 0.05, (1,))

    def close(self):
      closed.append(self)

  with pytest.raises(Problem, match='outside the bounds .*--env.py.bounds false'):
    GymEnv(Beyond())
  assert len(closed) == 1


@pytest.mark.parametrize('platform, display, drawn', [('linux', '', 'egl'), ('linux', ':0', None), ('darwin', '', None)])
def test_what_draws_without_a_display(monkeypatch, platform, display, drawn):
  monkeypatch.setattr(sys, 'platform', platform)
  monkeypatch.setenv('DISPLAY', display)
  monkeypatch.setenv('MUJOCO_GL', 'x')
  monkeypatch.delenv('MUJOCO_GL')  # Which puts back later what was there.
  monkeypatch.setenv('LP_NUM_THREADS', '0')
  draw_without_display()
  assert os.environ.get('MUJOCO_GL') == drawn


def test_the_reset_at_the_start_begins_the_first_episode():
  env = GymEnv(Plain(), bounds=False)
  resets = [float(env.step(act(env, reset=i == 0))['vector'][0]) for i in range(5)]
  assert np.allclose(resets, [0.1, 1.5, 1.5, 1.5, 0.2])


def test_pictures_that_are_no_images_are_noted():
  before = len(NOTES)
  Obs(spaces.Dict({'depth': spaces.Box(0, 1, (64, 64)), 'deep': spaces.Box(0, 9, (64, 64, 1), np.uint16),
                   'joints': spaces.Box(0, 1, (3,)), 'frame': spaces.Box(0, 255, (64, 64, 3), np.uint8)}))
  assert sorted(NOTES[before:]) == [
      f"observation {what} is read as a vector: only uint8 is an image"
      for what in ("'deep' of uint16 [64, 64, 1]", "'depth' of float32 [64, 64]")]


@pytest.mark.parametrize('n', [10**9, 2**40])
def test_too_many_values(n):
  with pytest.raises(Problem, match=f"observation 'vector' is one of {n} values"):
    Obs(spaces.Discrete(n))
  with pytest.raises(Problem, match=f"action 'go' is one of {n} values"):
    Act(spaces.Dict({'go': spaces.Discrete(n)}))


def test_bare_spaces():
  assert list(Obs(spaces.Box(0, 255, (64, 64, 3), np.uint8)).spaces) == ['image']
  assert list(Obs(spaces.Box(-1, 1, (3,))).spaces) == ['vector']
  assert list(Obs(spaces.Discrete(4)).spaces) == ['vector']
  assert list(Obs(spaces.Tuple([spaces.Discrete(4), spaces.Discrete(2)])).spaces) == [
      'obs/0', 'obs/1']
  assert list(Obs(spaces.Dict({'action': spaces.Discrete(4)}), ['action']).spaces) == ['obs/action']
  assert list(Act(spaces.MultiDiscrete([2, 3])).spaces) == ['reset', 'action/0', 'action/1']
  assert list(Act(spaces.Dict({'reset': spaces.Discrete(4)})).spaces) == ['reset', 'action/reset']
  assert np.isnan(Obs(spaces.Box(-1, 1, (2,)))(np.array([np.nan, np.inf]))['vector'][0])
  with pytest.raises(Problem, match='has no entries'):
    Act(spaces.Box(0, 1, (0,), np.int64))
  with pytest.raises(Problem, match="action 'say'"):
    Act(spaces.Dict({'say': spaces.Text(3)}))
  with pytest.raises(Problem, match='both called'):
    Obs(spaces.Dict({'a': spaces.Dict({'b': spaces.Discrete(2)}), 'a/b': spaces.Discrete(2)}))
  with pytest.raises(Problem, match="lacks the key 'b'"):
    Obs(spaces.Dict({'b': spaces.Discrete(2)}))({'a': 0})


@pytest.mark.parametrize('space', [
    envs.Kinds.action_space, spaces.Discrete(4, start=-2), spaces.MultiBinary([2, 3]),
    spaces.MultiDiscrete([[2, 2], [2, 2]]), spaces.MultiDiscrete([[2, 3], [4, 2]], start=[[1, 1], [1, 2]]),
    spaces.Box(-3, 5, (2, 2), np.float64), spaces.Box(0, 255, (2,), np.uint8),
    spaces.Box(0, 1, (2,), bool), spaces.Box(-np.inf, np.inf, (2,)),
    spaces.Box(np.array([0, 0]), np.array([1, 9]), dtype=np.int16), spaces.Box(-1, 1, (2, 3, 2)),
    spaces.Box(np.iinfo(np.int64).min, np.iinfo(np.int64).max, (2,), np.int64),
    spaces.Box(0, np.iinfo(np.uint64).max, (2,), np.uint64)])
def test_every_action_is_valid(space):
  convert, rng = Act(space), np.random.default_rng(0)
  values = [convert(sample(convert.spaces, rng)) for _ in range(50)]
  ends = ('low', 'high') if list(convert.spaces) == ['reset', 'action'] else ()
  if convert.spaces.get('action', Space(bool)).dtype == np.float32:
    values += [convert({'action': np.full(x.shape, getattr(x, end), x.dtype)})
               for x in [convert.spaces['action']] for end in ends]
    values = values[-50:]
  assert all(space.contains(value) for value in values)
  batch = stack(space, values)
  if isinstance(space, spaces.Dict):
    assert batch['wheels'].shape == (50, 2) and batch['tail'][0].dtype == np.int64
  else:
    assert len(batch) == 50 and batch.dtype == space.dtype


@pytest.mark.parametrize('space, low, high', [
    (Space(np.float32, (99,), -np.inf, np.inf), -1, 1), (Space(np.float32, (99,), -1e308, 1e308), -1, 1),
    (Space(np.float32, (99,)), -1, 1), (Space(np.float32, (99,), 2, 5), 2, 5),
    (Space(np.int32, (99,), 3, 5), 3, 4), (Space(np.uint8, (999,)), 0, 255), (Space(bool, (99,)), 0, 1)])
def test_random_actions(space, low, high):
  value = sample({'reset': Space(bool), 'action': space}, np.random.default_rng(0))['action']
  assert value.dtype == space.dtype and value.shape == space.shape
  assert low <= value.min() < low + 0.1 * high + 0.1 and high - 0.1 * high - 0.1 < value.max() <= high


def test_images_are_resized():
  space = spaces.Box(0, 255, (210, 160, 3), np.uint8)
  obs = Obs(space, size=(64, 48))
  assert obs.spaces['image'].shape == (64, 48, 3)
  assert (obs(np.full((210, 160, 3), 201, np.uint8))['image'] == 201).all()
  assert obs(np.zeros((210, 160, 1), np.uint8))['image'].shape == (210, 160, 1)
  image = Obs(spaces.Box(0, 255, (4, 4), np.uint8), size=(2, 2))(
      np.arange(16, dtype=np.uint8).reshape(4, 4))['image']
  assert image[..., 0].tolist() == [[3, 5], [11, 13]]
  whole = np.full((210, 160, 3), 201, np.int64)
  assert (obs(whole)['image'] == 201).all()
  for bad, held in ((whole / 255, 'float64 from 0.788'), (whole + 100, 'int64 from 301'), (-whole, 'int64 from -201')):
    with pytest.raises(Problem, match=f'an image is {held}'):
      obs(bad)


def test_images_in_a_row_become_channels():
  obs = Obs(spaces.Box(0, 255, (4, 20, 24, 3), np.uint8))
  frames = np.arange(4, dtype=np.uint8)[:, None, None, None] * np.ones((20, 24, 3), np.uint8)
  image = obs(frames)['image']
  assert obs.spaces['image'].shape == image.shape == (20, 24, 12)
  assert image[5, 6].tolist() == [0, 0, 0, 1, 1, 1, 2, 2, 2, 3, 3, 3]


def test_infos_of_repeated_actions_are_joined():
  class Hits(envs.Old):

    def step(self, action):
      obs, reward, done, info = super().step(action)
      hits = None if self.count > 2 else {**(info or {}), f'hit{self.count}': True}
      return obs, reward, done, False, hits

  env = GymEnv(Hits(), repeat=2)
  env.step(act(env, reset=True))
  out = env.step(act(env))
  assert out['log/hit1'] == out['log/hit2'] == 1
  assert not any(key.startswith('log/') for key in env.step(act(env)))


def test_older_interface():
  env = GymEnv(envs.Old(), repeat=2)
  obs = env.step(act(env, reset=True))
  assert obs['is_first'] and obs['vector'].tolist() == [0, 0]
  obs = [env.step(act(env, action=np.int32(0))) for _ in range(3)]
  assert [float(o['reward']) for o in obs] == [2, 2, 1]
  assert obs[2]['is_last'] and not obs[2]['is_terminal']
  env.step(act(env))
  obs = [env.step(act(env, action=np.int32(1))) for _ in range(3)]
  assert obs[2]['is_last'] and obs[2]['is_terminal']


def play(options, steps=60, task='gym_CartPole-v1', slots=3):
  with Trainer(task, slots=slots, seed=4, options=options) as t:
    first = t.ask(range(slots))
    assert all(obs['is_first'] for obs in first.values())
    out = [first]
    for _ in range(steps):
      last = out[-1]
      out.append(t.ask(range(slots), {'action': 1}))
      for slot in range(slots):
        assert out[-1][slot]['is_first'] == last[slot]['is_last']
        assert out[-1][slot]['reward'] == (not out[-1][slot]['is_first'])
    assert t.close() == 0
    return [[out[i][s]['vector'] for i in range(10)] for s in range(slots)]


def test_vector_as_single_ones():
  alone, sync = play({}), play({}, task='py:envs:sync')
  assert np.allclose(alone[0][0], play({}, slots=1)[0][0])
  for slot in range(3):
    np.testing.assert_allclose(alone[slot], sync[slot], atol=1e-6)
    assert slot == 0 or not np.allclose(alone[slot][0], alone[0][0])
  # CartPole has a vector environment of its own, with one generator for all.
  own = play({'vector': True})
  assert not np.allclose(own[0][0], own[1][0])
  np.testing.assert_allclose(own, play({}, task='py:envs:vector'))


@pytest.mark.parametrize('mode', ['SAME_STEP', 'DISABLED', None])
def test_vectors_that_reset_in_another_way_are_refused(mode):
  env = envs.moody_vector(2)
  env.metadata = {} if mode is None else {'autoreset_mode': gymnasium.vector.AutoresetMode[mode]}
  with pytest.raises(Problem, match=f'has autoreset_mode {mode}.* has to reset in the step after'):
    GymVector(env)


@pytest.mark.parametrize('older', [False, True])
def test_a_pool(older):
  env = GymVector(envs.Pool(2, older))
  assert env.count == 2 and env.obs_space['vector'].shape == (2,)
  ask = lambda reset=False: env.step([act(env, reset=reset, action=np.int32(0))] * 2)
  out = [ask(True)] + [ask() for _ in range(8)]
  assert [bool(x[0]['is_first']) for x in out] == [i % 4 == 0 for i in range(9)]
  assert [bool(x[1]['is_last']) for x in out] == [i % 5 == 4 for i in range(9)]
  assert not any(x[i]['is_terminal'] for x in out for i in (0, 1))
  assert [x[0]['reward'] for x in out] == [float(i % 4 > 0) for i in range(9)]


def test_a_vector_of_ale():
  pytest.importorskip('ale_py')
  with Trainer('gym_ale_py:ALE/Pong-v5', slots=2, options={'vector': True}) as t:
    assert t.answer['together'] and t.answer['obs']['image']['shape'] == [84, 84, 4]
    assert all(obs['is_first'] for obs in t.ask([0, 1]).values())
    assert not any(obs['is_first'] for obs in t.ask([0, 1], {'action': 2}).values())


def test_seeds_reach_the_environment_that_takes_them():
  class Wrapper:  # As those of the older gym: it hands on whatever it is given.
    observation_space, action_space = envs.Old.observation_space, envs.Old.action_space

    def __init__(self):
      self.unwrapped = envs.Old()
      self.step = self.unwrapped.step

    def reset(self, **kwargs):
      return self.unwrapped.reset(**kwargs)

  assert GymEnv(Wrapper()).step(act(GymEnv(Wrapper()), reset=True))['is_first']


def test_an_action_of_several_keys_beside_an_observation_of_its_name():
  space = spaces.MultiDiscrete([2, 3])
  taken = Act(space).spaces
  assert list(taken) == ['reset', 'action/0', 'action/1']
  assert list(Obs(spaces.Dict({'action': space}), taken).spaces) == ['obs/action/0', 'obs/action/1']


def test_actions_with_one_bound_reach_beyond_it():
  for low, high, ends in [(5, np.inf, [5, 6, 7]), (-np.inf, 3, [1, 2, 3])]:
    move = Act(spaces.Box(low, high, (1,), np.float32))
    assert [float(move({'action': np.float32([x])})[0]) for x in (-1, 0, 1)] == ends


def test_vector_after_a_fault():
  # All were reset when the worker was started anew. The first slot was in mid-episode and starts
  # another one, the second one goes on from that reset.
  with Trainer('py:envs:moody_vector', slots=2) as t:
    t.ask([0, 1])
    t.fresh = [True, False]
    obs = t.ask([0, 1])
    assert obs[0]['is_first'] and obs[0]['reward'] == 0 and not obs[1]['is_first']
    assert [t.ask([0, 1])[slot]['vector'][0] for slot in (0, 1)] == [2, 3]
    t.fresh = [True, False]
    with pytest.raises(WorkerError, match='amid the others'):
      t.ask([0, 1])


def test_vector_needs_all_slots():
  with Trainer('gym_CartPole-v1', slots=2, options={'vector': True}) as t:
    t.ask([0, 1])
    t.send(b'\1')
    with pytest.raises(WorkerError, match='did not answer'):
      t.read(1, seconds=0.3)
    t.fresh[0] = False
    t.act[0]['reset'][...] = t.act[1]['reset'][...] = False
    t.send(b'\0')
    assert {t.recv(), t.recv()} == {b'\0', b'\1'}
    t.fresh = [True, False]
    with pytest.raises(WorkerError, match='amid the others'):
      t.ask([0, 1])


def test_examples():
  with Trainer('py:../examples/my_env.py:MyEnv', seed=1) as t:
    obs, total = t.step(), 0
    while not obs['is_last']:
      obs = t.step(sign=int(obs['number'] > 0))
      total += obs['reward']
    assert total == 10
    assert t.step()['is_first']


class Drawn(gymnasium.Env):
  """Counts its steps on a screen of 300 x 400."""
  observation_space = spaces.Box(0, 100, (1,))
  action_space = spaces.Discrete(2)

  def __init__(self, render_mode=None):
    self.render_mode, self.count = render_mode, 0

  def reset(self, seed=None, options=None):
    self.count = 0
    return np.zeros(1, np.float32), {}

  def step(self, action):
    self.count += 1
    return np.full(1, self.count, np.float32), 0.0, False, self.count == 3, {}

  def render(self):
    return np.full((300, 400, 3), self.count, np.uint8) if self.render_mode == 'rgb_array' else None


def test_what_is_rendered_is_for_the_agent_or_for_videos():
  shown = GymEnv(Drawn('rgb_array'), render=True)
  film = GymEnv(Drawn('rgb_array'), film=True)
  both = GymEnv(Drawn('rgb_array'), render=True, film=True)
  small = GymEnv(Drawn('rgb_array'), film=True, size=(48, 64))
  assert both.obs_space.keys() == shown.obs_space.keys() == {'vector', 'image', *FLAGS}
  assert shown.obs_space['image'].shape == (300, 400, 3)
  assert film.obs_space['log/image'].shape == (120, 160, 3)
  assert small.obs_space['log/image'].shape == (48, 64, 3)
  for env in (shown, film):
    for count in range(3):
      obs = env.step(act(env, reset=count == 0))
      image = obs['image' if env is shown else 'log/image']
      assert (image == count).all() and obs['vector'] == count
  without = type('Without', (Drawn,), {'render': gymnasium.Env.render})
  for none in (Drawn(), without()):
    with pytest.raises(Problem, match="render_mode 'rgb_array'"):
      GymEnv(none, film=True)
  env = film.env
  env.render = lambda: None
  assert (film.step(act(film))['log/image'] == 2).all(), 'the last image once more'
  vector = gymnasium.vector.SyncVectorEnv([lambda: Drawn('rgb_array')] * 2)
  vector = GymVector(vector, film=True)
  both = vector.step([act(vector, reset=True)] * 2)
  assert [obs['log/image'].shape for obs in both] == [(120, 160, 3)] * 2
  frames = vector.env.render()
  for missing in (None, (frames[0] + 7, None)):
    vector.env.render = lambda: missing
    last = [obs['log/image'].max() for obs in vector.step([act(vector)] * 2)]
    assert last == [0 if missing is None else 7, 0], 'the last image once more, of each its own'
