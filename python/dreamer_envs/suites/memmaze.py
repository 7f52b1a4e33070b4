"""Memory Maze: tasks `memmaze_9x9` to `memmaze_15x15`, and with suffixes, such as 9x9-ExtraObs."""

from ..env import Problem
from .dm import Dm
from .dmc import drawing, load_suite

INSTALL = 'pip install memory-maze "mujoco<4"'
SIZES = ('9x9', '11x11', '13x13', '15x15')
SUFFIXES = {
    'Vis': {'good_visibility': True},
    'HD': {'camera_resolution': 256},
    'Top': {'camera_resolution': 256, 'top_camera': True},
    'ExtraObs': {'global_observables': True, 'image_only_obs': False},
    'Oracle': {'global_observables': True, 'show_path': True},
    'HiFreq': {'control_freq': 40},
    '6CL': {'randomize_colors': True},
}


def make(name, options, kwargs, seed, index, slots):
  load_suite(image=True)
  from memory_maze import tasks
  size, *suffixes = name.split('-')
  if size not in SIZES or any(x not in SUFFIXES for x in suffixes):
    raise Problem(
        f"unknown task 'memmaze_{name}'; there are the sizes {', '.join(SIZES)}, "
        f"with suffixes -{', -'.join(SUFFIXES)}")
  settings = {'image_only_obs': True, 'seed': seed}
  for suffix in suffixes:
    settings.update(SUFFIXES[suffix])
  env = getattr(tasks, f'memory_maze_{size}')(**{**settings, **options, **kwargs})
  with drawing():
    env.reset()
  return Dm(env, key='image')
