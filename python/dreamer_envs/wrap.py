"""Gymnasium's environments, vector environments and their likes as Env and VectorEnv."""

import functools
import inspect
import os
import re
import sys

import numpy as np

from .env import FLAGS, Env, Problem, VectorEnv
from .memory import check, number
from .spaces import Act, Obs, image, stack

DEPTH = 4  # The most levels of dicts within `info`.


@functools.lru_cache(10000)
def plain(name):
  return re.sub(r'[^\w./-]', '_', name)


def metrics(info, prefix='log/', depth=DEPTH):
  """The numbers of `info` by the names of their metrics; those of a dict within it are called
  `log/OUTER/INNER`."""
  out = {}
  for key, value in info.items() if isinstance(info, dict) else ():
    name = prefix + plain(str(key))
    if isinstance(value, dict) and depth:
      out.update(metrics(value, name + '/', depth - 1))
    elif (value := number(value)) is not None:
      out[name] = value
  return out


def split(infos, count):
  """The infos of `count` environments that step together: an entry `_KEY` tells which of them have
  that key."""
  out = [{} for _ in range(count)]
  for key, values in infos.items():
    if str(key).startswith(('_', 'env_id')):
      continue
    mask = infos.get(f'_{key}')
    having = range(count) if mask is None else np.flatnonzero(mask)
    if isinstance(values, dict):
      inner = split(values, count)
      for i in having:
        if inner[i]:
          out[i][key] = inner[i]
    elif isinstance(values, np.ndarray) and values.shape[:1] == (count,) and values.size == count:
      if values.dtype.kind in 'biuf':
        for i in having:
          out[i][key] = values[i]
  return out


def draw_without_display():
  """Has MuJoCo draw by EGL where there is no display, which it knows on Linux only."""
  if sys.platform == 'linux' and not os.environ.get('DISPLAY'):
    os.environ.setdefault('MUJOCO_GL', 'egl')
    os.environ.setdefault('LP_NUM_THREADS', '0')  # Software drawing gains nothing by threads.


FILM = 160  # Pixels of the longer side of an image that is for videos alone.


class Frames:
  """Rendered images: for the agent under the key `image`, or `render` if the observation has that one; for
  videos alone (`film`) under `log/image`."""

  def __init__(self, frame, spaces, size, film=False):
    frame = np.asarray(frame)
    if frame.dtype != np.uint8 or frame.ndim != 3:
      gave = 'nothing' if frame.dtype == object else f'{frame.dtype} {frame.shape}'
      raise Problem("the environment renders no image; it has to be made with render_mode "
                    f"'rgb_array' (it gave {gave})")
    self.key = 'log/image' if film else 'render' if 'image' in spaces else 'image'
    if film and not any(size) and max(frame.shape[:2]) > FILM:
      size = tuple(max(1, side * FILM // max(frame.shape[:2])) for side in frame.shape[:2])
    self.space, self.convert = image(frame.shape, size)
    self.film, self.shape, self.first, self.last = film, frame.shape, frame, {}

  @classmethod
  def wanted(cls, render, film, draw, spaces, size):
    """Frames for what `draw` gives, whose space is added to `spaces`; None if nobody asks for them."""
    if not (render or film):
      return None
    try:
      frame = draw()
    except NotImplementedError:
      frame = None
    frames = cls(frame, spaces, size, film=not render)
    spaces[frames.key] = frames.space
    return frames

  def __call__(self, frame, slot=0):
    # A fault that only affects a video, such as a resized window, must not cost an episode.
    if self.film:
      if np.shape(frame) != self.shape:
        frame = self.last.get(slot, self.first)
      self.last[slot] = frame
    return self.convert(frame)


def check_all(obs, spaces):
  for key, space in spaces.items():
    try:
      check(key, obs[key], space)
    except Problem as e:
      if space.dtype == np.float32 and 'outside the bounds' in str(e):
        raise Problem(f'{e}; --env.gym.bounds false, or --env.py.bounds false, lets floats exceed them')
      raise


def as_reward(value):
  """A reward as a float, which may be one that is not finite: the trainer tells."""
  try:
    if not isinstance(value, str):
      # numpy before 2.4 took an array of one value for that value.
      return float(value.item() if isinstance(value, np.ndarray) and value.size == 1 else value)
  except (TypeError, ValueError, OverflowError):
    pass
  raise Problem(f'step returned the reward {value!r}, but it has to be a number')


class GymEnv(Env):
  """An environment with `reset`, `step`, `observation_space` and `action_space`.

  Gymnasium's and the older gym's are understood: results of four values as well as five, and a
  reset that returns no info or takes no seed. `repeat` is how many times each action is taken,
  `size` [height, width] of images, [0, 0] to keep theirs, `bounds` whether floats must be within
  the bounds of their space. It is reset when made, so that faults of its first observation show at
  the start; the first episode begins with that.
  """

  def __init__(self, env, seed=0, size=(0, 0), repeat=1, render=False, film=False, bounds=True):
    self.env = env
    self.repeat = max(1, int(repeat))
    self.act = Act(env.action_space)
    self.obs = Obs(env.observation_space, self.act.spaces, size, bounds)
    self.act_space = self.act.spaces
    self.obs_space = {**self.obs.spaces, **FLAGS}
    self.seed = seed
    try:
      self.begun = self.reset()
      check_all(self.obs(self.begun[0]), self.obs.spaces)
      draw = lambda: env.render()  # Not looked up unless it is wanted: some have none.
      self.frames = Frames.wanted(render, film, draw, self.obs_space, size)
    except BaseException:
      self.close()  # Nobody else can yet.
      raise
    self.done = True

  def step(self, action):
    if self.done or action['reset']:
      self.done = False
      (obs, info), self.begun = self.begun or self.reset(), None
      return self.result(obs, info, 0.0, True, False, False)
    action, reward, info = self.act(action), 0.0, {}
    for _ in range(self.repeat):
      obs, value, terminated, truncated, more = self.advance(action)
      info = {**info, **more} if isinstance(more, dict) else info
      reward += as_reward(value)
      self.done = bool(terminated or truncated)
      if self.done:
        break
    return self.result(obs, info, reward, False, self.done, bool(terminated))

  def result(self, obs, info, reward, first, last, terminal):
    out = metrics(info)
    out.update(self.obs(obs))
    out['reward'], out['is_first'], out['is_last'], out['is_terminal'] = (
        reward, first, last, terminal)
    if self.frames:
      out[self.frames.key] = self.frames(self.env.render())
    return out

  def reset(self):
    """The first observation and its info; the seed is given once."""
    seed, self.seed = self.seed, None
    if seed is None:
      result = self.env.reset()
    elif takes_seed(self.env):
      result = self.env.reset(seed=seed)
    else:
      if callable(getattr(self.env, 'seed', None)):
        self.env.seed(seed)
      result = self.env.reset()
    if isinstance(result, tuple) and len(result) == 2 and isinstance(result[1], dict):
      return result
    return result, {}

  def advance(self, action):
    result = self.env.step(action)
    count = len(result) if isinstance(result, (tuple, list)) else None
    if count == 5:
      return result
    if count != 4:
      given = f'a {type(result).__name__}' if count is None else f'{count} values'
      raise Problem(f'step returned {given}, but has to return observation, reward, terminated, truncated and info')
    obs, reward, done, info = result
    truncated = bool(done and isinstance(info, dict) and info.get('TimeLimit.truncated', False))
    return obs, reward, done and not truncated, truncated, info

  def close(self):
    if hasattr(self.env, 'close'):
      self.env.close()


def accepts(function, name):
  try:
    parameters = inspect.signature(function).parameters.values()
  except (TypeError, ValueError):
    return False
  return any(p.name == name or p.kind == p.VAR_KEYWORD for p in parameters)


def takes_seed(env):
  """Whether its reset takes a seed: wrappers of the older gym pass any on to one that may not."""
  return all(accepts(each.reset, 'seed') for each in (env, getattr(env, 'unwrapped', env)))


class GymVector(VectorEnv):
  """A vector environment of gymnasium, or EnvPool's, that resets an environment in the step after
  its episode's last."""

  def __init__(self, env, seed=0, size=(0, 0), render=False, film=False, bounds=True):
    if is_pool(env):
      env = Pool(env)
    else:
      mode = (getattr(env, 'metadata', None) or {}).get('autoreset_mode')
      mode = getattr(mode, 'name', mode)
      # Where nothing is said, as by gymnasium before 1.1, it may reset in the same step, which loses an
      # observation.
      if mode in ('SAME_STEP', 'DISABLED'):
        raise Problem(
            f"the vector environment has autoreset_mode {mode}, but it has to reset in the step after an "
            "episode's last: make it with NEXT_STEP, as --env.kwargs.autoreset_mode NextStep does where it "
            'takes that argument')
      if mode != 'NEXT_STEP':
        raise Problem(
            f"the vector environment has autoreset_mode {mode} in its metadata, but it has to reset in "
            "the step after an episode's last, and to say so: metadata = {'autoreset_mode': "
            "gymnasium.vector.AutoresetMode.NEXT_STEP}, as gymnasium's own have from 1.1 on")
    self.env, self.count = env, int(env.num_envs)
    self.space = env.single_action_space
    self.act = Act(self.space)
    self.obs = Obs(env.single_observation_space, self.act.spaces, size, bounds)
    self.act_space = self.act.spaces
    self.obs_space = {**self.obs.spaces, **FLAGS}
    self.seed = seed
    try:
      self.begun = self.reset()
      for obs in self.obs.batch(self.begun[0], self.count):
        check_all(obs, self.obs.spaces)
      first = lambda frames: None if frames is None else frames[0]
      self.frames = Frames.wanted(render, film, lambda: first(env.render()), self.obs_space, size)
    except BaseException:
      self.close()  # Nobody else can yet.
      raise
    self.done = np.ones(self.count, bool)
    self.first = np.zeros(self.count, bool)

  def step(self, actions):
    resets = np.array([action['reset'] for action in actions], bool)
    if self.begun or (self.done | resets).all():
      first, (obs, infos), self.begun = np.ones(self.count, bool), self.begun or self.reset(), None
      rewards = terminated = truncated = np.zeros(self.count, bool)
    else:
      # After a fault, slots whose episode was cut off start another while those that had just
      # started go on. Both were reset by then: the first observation is one step later.
      late = resets & ~self.done
      if (late & ~self.first).any():
        raise Problem('a vector environment cannot start one episode anew amid the others')
      first = self.done | late
      actions = stack(self.space, [self.act(action) for action in actions])
      obs, rewards, terminated, truncated, infos = self.env.step(actions)
    self.done, self.first = np.asarray(terminated, bool) | np.asarray(truncated, bool), first
    outs = self.obs.batch(obs, self.count)
    frames = self.env.render() if self.frames else None
    for i, (out, info) in enumerate(zip(outs, split(infos, self.count))):
      out.update({key: value for key, value in metrics(info).items() if key not in out})
      out['reward'] = 0.0 if first[i] else as_reward(rewards[i])
      out['is_first'], out['is_last'], out['is_terminal'] = (
          bool(first[i]), bool(self.done[i]), bool(terminated[i]))
      if self.frames:
        out[self.frames.key] = self.frames(None if frames is None else frames[i], i)
    return outs

  def reset(self):
    seed, self.seed = self.seed, None
    return self.env.reset(seed=seed)

  def close(self):
    self.env.close()


def is_pool(env):
  return all(hasattr(env, name) for name in ('recv', 'send', 'config', 'observation_space'))


class Pool:
  """EnvPool's environments with the methods of gymnasium's vector environments. Their seed is
  given where they are made."""

  def __init__(self, env):
    self.env = env
    self.num_envs = int(env.config['num_envs'])
    if int(env.config.get('batch_size') or self.num_envs) != self.num_envs:
      raise Problem('EnvPool has to step all of its environments at once: leave out batch_size')
    self.single_observation_space = env.observation_space
    self.single_action_space = env.action_space

  def reset(self, seed=None):
    result = self.env.reset()
    obs, info = result if isinstance(result, tuple) and len(result) == 2 else (result, {})
    return obs, info

  def step(self, actions):
    result = self.env.step(actions)
    if len(result) == 5:
      return result
    obs, reward, done, info = result
    truncated = done & np.asarray(info.get('TimeLimit.truncated', False), bool)
    return obs, reward, done & ~truncated, truncated, info

  def close(self):
    self.env.close()
