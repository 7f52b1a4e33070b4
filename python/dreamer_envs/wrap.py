"""Gymnasium's environments, vector environments and their likes as Env and VectorEnv."""

import inspect
import re

import numpy as np

from .env import FLAGS, Env, Problem, Space, VectorEnv
from .spaces import FLOAT_MAX, Act, Obs, image, kind, sample, stack

MAX_LOGS = 32


def scalar(value):
  """A number of `info` as a finite float, or None."""
  if isinstance(value, (bool, int, float, np.number, np.bool_)) or (
      isinstance(value, np.ndarray) and not value.shape and value.dtype.kind in 'biuf'):
    try:
      value = float(value)
    except (TypeError, OverflowError):
      return None
    return value if abs(value) <= FLOAT_MAX else 0.0
  return None


class Logs:
  """The numbers of `info` as metrics, by those that the given examples hold."""

  def __init__(self, *infos):
    self.keys = {}
    for info in infos:
      for key, value in info.items():
        if scalar(value) is not None and len(self.keys) < MAX_LOGS:
          self.keys['log/' + re.sub(r'[^A-Za-z0-9_./-]', '_', str(key))] = key
    self.spaces = {name: Space(np.float32) for name in self.keys}

  def add(self, out, info):
    for name, key in self.keys.items():
      out[name] = scalar(info.get(key, 0.0)) or 0.0


class Frames:
  """Rendered images under the key `image`, or `render` where the observation has that one."""

  def __init__(self, frame, spaces, size):
    frame = np.asarray(frame)
    if frame.dtype != np.uint8 or frame.ndim != 3:
      raise Problem("the environment renders no image; it has to be made with render_mode "
                    f"'rgb_array' (it gave {frame.dtype} {frame.shape})")
    self.key = 'render' if 'image' in spaces else 'image'
    self.space, self.convert = image(frame.shape, size)


class GymEnv(Env):
  """An environment with `reset`, `step`, `observation_space` and `action_space`.

  That of gymnasium and the older gym's are understood: results of four values as well as five, and
  a reset that returns no info or takes no seed. `repeat` is how many times each action is taken,
  `size` [height, width] of images, [0, 0] to keep theirs. One reset and one step are taken first,
  to see what `info` holds.
  """

  def __init__(self, env, seed=0, size=(0, 0), repeat=1, render=False):
    self.env = env
    self.repeat = max(1, int(repeat))
    self.act = Act(env.action_space)
    self.obs = Obs(env.observation_space, self.act.spaces, size)
    self.act_space = self.act.spaces
    self.obs_space = {**self.obs.spaces, **FLAGS}
    self.seed = seed
    _, info = self.reset()
    self.frames = Frames(env.render(), self.obs_space, size) if render else None
    if render:
      self.obs_space[self.frames.key] = self.frames.space
    action = self.act(sample(self.act.spaces, np.random.default_rng(seed)))
    self.logs = Logs(info, self.advance(action)[-1])
    self.obs_space.update(self.logs.spaces)
    self.seed, self.done = seed, True

  def step(self, action):
    if self.done or action['reset']:
      self.done = False
      obs, info = self.reset()
      return self.result(obs, info, 0.0, True, False, False)
    action, reward = self.act(action), 0.0
    for _ in range(self.repeat):
      obs, value, terminated, truncated, info = self.advance(action)
      reward += float(value)
      self.done = bool(terminated or truncated)
      if self.done:
        break
    return self.result(obs, info, reward, False, self.done, bool(terminated))

  def result(self, obs, info, reward, first, last, terminal):
    out = self.obs(obs)
    out['reward'], out['is_first'], out['is_last'], out['is_terminal'] = (
        reward, first, last, terminal)
    self.logs.add(out, info)
    if self.frames:
      out[self.frames.key] = self.frames.convert(self.env.render())
    return out

  def reset(self):
    """The first observation and its info; the seed is given once."""
    seed, self.seed = self.seed, None
    if seed is None:
      result = self.env.reset()
    elif accepts(self.env.reset, 'seed'):
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
    if len(result) == 5:
      return result
    obs, reward, done, info = result
    truncated = bool(done and info.get('TimeLimit.truncated', False))
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


class GymVector(VectorEnv):
  """A vector environment of gymnasium, or EnvPool's, that resets an environment in the step after
  its episode's last."""

  def __init__(self, env, seed=0, size=(0, 0), render=False):
    if is_pool(env):
      env = Pool(env)
    mode = getattr(env, 'metadata', None) or {}
    mode = getattr(mode.get('autoreset_mode'), 'name', mode.get('autoreset_mode'))
    if mode not in (None, 'NEXT_STEP'):
      raise Problem(f'the vector environment has autoreset_mode {mode}; NEXT_STEP is needed')
    self.env, self.count = env, int(env.num_envs)
    self.space = env.single_action_space
    self.act = Act(self.space)
    self.obs = Obs(env.single_observation_space, self.act.spaces, size)
    self.act_space = self.act.spaces
    self.obs_space = {**self.obs.spaces, **FLAGS}
    self.seed = seed
    _, first = self.reset()
    self.frames = Frames(env.render()[0], self.obs_space, size) if render else None
    if render:
      self.obs_space[self.frames.key] = self.frames.space
    rng = np.random.default_rng(seed)
    actions = [self.act(sample(self.act.spaces, rng)) for _ in range(self.count)]
    second = env.step(stack(self.space, actions))[-1]
    self.logs = Logs(*(info for infos in (first, second) for info in self.split(infos)))
    self.obs_space.update(self.logs.spaces)
    self.seed, self.done = seed, np.ones(self.count, bool)

  def step(self, actions):
    resets = np.array([action['reset'] for action in actions], bool)
    if self.seed is not None or (self.done | resets).all():
      first, (obs, infos) = np.ones(self.count, bool), self.reset()
      rewards = terminated = truncated = np.zeros(self.count, bool)
    else:
      if (resets & ~self.done).any():
        raise Problem('a vector environment cannot start one episode anew amid the others')
      first = self.done
      actions = stack(self.space, [self.act(action) for action in actions])
      obs, rewards, terminated, truncated, infos = self.env.step(actions)
    self.done = np.asarray(terminated, bool) | np.asarray(truncated, bool)
    outs = self.obs.batch(obs, self.count)
    frames = self.env.render() if self.frames else None
    for i, (out, info) in enumerate(zip(outs, self.split(infos))):
      out['reward'] = 0.0 if first[i] else float(rewards[i])
      out['is_first'], out['is_last'], out['is_terminal'] = (
          bool(first[i]), bool(self.done[i]), bool(terminated[i]))
      self.logs.add(out, info)
      if frames is not None:
        out[self.frames.key] = self.frames.convert(frames[i])
    return outs

  def reset(self):
    seed, self.seed = self.seed, None
    return self.env.reset(seed=seed)

  def split(self, infos):
    """The infos of each environment; an entry `_KEY` tells which of them have that key."""
    keys = {key: infos.get('_' + key) for key, value in infos.items()
            if isinstance(value, np.ndarray) and value.shape == (self.count,)
            and value.dtype.kind in 'biuf' and not key.startswith(('_', 'env_id'))}
    return [{key: infos[key][i] for key, mask in keys.items() if mask is None or mask[i]}
            for i in range(self.count)]

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
