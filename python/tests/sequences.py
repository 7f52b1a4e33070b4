"""What tests of suites share: making tasks with the usual options, playing them, and a recorded
sequence of each. `python sequences.py` records those of the installed suites anew, into hashes.json."""

import ast
import functools
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

from dreamer_envs import spaces, suites  # noqa: E402

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
    # The ball's heading depends on how numpy promotes scalars, and on the last bit of its arctan2.
    'memmaze': ('memory_maze', ['memory-maze', 'dm_control', 'mujoco', 'labmaze', 'numpy']),
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


def need(suite, image=True):
  """Skips a test where a suite is not installed, or cannot draw the images that are asked for."""
  package = PACKAGES[suite][0]
  if not importlib.util.find_spec(package):
    pytest.skip(f'{package} is not installed')
  if suite in ('dmc', 'memmaze', 'loconav') and image and cannot_draw():
    pytest.skip(f'images cannot be drawn here: {cannot_draw()}')


@functools.cache
def cannot_draw():
  """Why dm_control draws nothing on this machine; empty where it does."""
  try:
    from dm_control import suite
    suite.load('cartpole', 'balance').physics.render(8, 8)
  except Exception as e:
    return f'{type(e).__name__}: {e}'
  return ''


def make(task, options={}, seed=0, **kwargs):
  suite = task.split('_')[0]
  options = {**defaults(suite), **options}
  if __name__ != '__main__':
    need(suite, options.get('image', True))
  return suites.make(task, options, kwargs, seed)


def sample(env, rng, reset=False):
  return {**spaces.sample(env.act_space, rng), 'reset': np.bool_(reset)}


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


def recorded(name):
  """The hash of a sequence as recorded with the versions that are here; skips where there is none."""
  recordings, here = json.loads(HASHES.read_text())[name], versions(name)
  for recording in recordings:
    if recording['versions'] == here:
      return recording['sha256']
  pytest.skip(f'recorded with {[x["versions"] for x in recordings]}, here are {here}')


def versions(name):
  """What the recorded sequence depends on, as it is here."""
  suite = SEQUENCES[name][0].split('_')[0]
  out = {x: importlib.metadata.version(x) for x in PACKAGES[suite][1]}
  out['machine'] = platform.machine()
  if 'numpy' in out:  # Its last bits depend on the instructions that it uses.
    out['avx512'] = 'AVX512_SKX' in np.show_config('dicts')['SIMD Extensions'].get('found', [])
  if name in DRAWN:
    from dm_control import suite
    from OpenGL import GL
    physics = suite.load('cartpole', 'balance').physics
    physics.render(8, 8)
    with physics.contexts.gl.make_current() as context:
      out['gl'] = context.call(GL.glGetString, GL.GL_VERSION).decode()
  return out


class Spec:
  """A specification as dm_env has them."""

  def __init__(self, shape, dtype=np.float64, **kwargs):
    self.shape, self.dtype = shape, np.dtype(dtype)
    self.__dict__.update(kwargs)


if __name__ == '__main__':
  hashes = json.loads(HASHES.read_text()) if HASHES.exists() else {}
  for name, (task, options, kwargs, steps) in SEQUENCES.items():
    if importlib.util.find_spec(PACKAGES[task.split('_')[0]][0]):
      env = make(task, options, **kwargs)
      new = {'versions': versions(name), 'sha256': digest(env, sequence(env, steps))}
      others = [x for x in hashes.get(name, []) if x['versions'] != new['versions']]
      hashes[name] = others + [new]
  HASHES.write_text(json.dumps(hashes, indent=2, sort_keys=True) + '\n')
