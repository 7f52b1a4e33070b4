"""DeepMind Control: tasks `dmc_DOMAIN_TASK`, such as dmc_walker_walk or dmc_cup_catch."""

import contextlib
import os

import numpy as np

from ..env import FLAGS, Env, Problem, Space
from ..wrap import draw_without_display
from .dm import Dm

INSTALL = 'pip install dm_control "mujoco<4"'
GL = 'apt-get install libegl1 libegl-mesa0 libgl1-mesa-dri'
CAMERAS = {'quadruped': 2}


def make(name, options, kwargs, seed, index, slots):
  # The trainer has already chosen to simulate the task here.
  own = {key: x for key, x in options.items() if key != 'engine'}
  return DMC(name, seed, **own, **kwargs)


class DMC(Env):
  """One task. `fast_render` draws without shadows and smooth edges, which changes the pixels; `film` without
  `image` draws for videos alone, as `log/image`."""

  def __init__(
      self, name, seed, size=(64, 64), repeat=1, proprio=True, image=True, camera=-1,
      film=False, fast_render=False):
    suite = load_suite(image or film)
    tasks = {'_'.join(pair): pair for pair in suite.ALL_TASKS}  # Words of both are joined by _ too.
    full = f'ball_in_{name}' if name.startswith('cup_') else name
    if full not in tasks:
      raise Problem(f"unknown task 'dmc_{name}'; there are: {', '.join(tasks)}")
    domain, task = tasks[full]
    try:
      env = suite.load(domain, task, task_kwargs={'random': seed})
    except AttributeError as e:
      raise Problem(f'the installed mujoco does not fit dm_control ({e})', cure=INSTALL)
    self._env = Dm(env, repeat)
    self._proprio = proprio
    self._image = 'image' if image else 'log/image'
    self._render = (image or film) and Camera(
        lambda: env.physics, size, CAMERAS.get(domain, 0) if camera == -1 else camera, fast_render)
    self.act_space = self._env.act_space
    self.obs_space = dict(self._env.obs_space if proprio else FLAGS)
    if self._render:
      self.obs_space[self._image] = Space(np.uint8, (*size, 3))

  def step(self, action):
    obs = self._env.step(action)
    if not self._proprio:
      obs = {k: obs[k] for k in FLAGS}
    if self._render:
      obs[self._image] = self._render()
    return obs

  def close(self):
    self._env.close()


class Camera:
  """Draws what a camera of the simulation sees."""

  def __init__(self, physics, size, camera, fast=False):
    self._physics = physics
    self._size = tuple(size)
    self._camera = camera
    if fast:
      quality = physics().model.vis.quality
      quality.shadowsize = 0
      quality.offsamples = 0
    with drawing():
      try:
        self()
      except ValueError as e:  # There is no such camera, or the size is too large.
        raise Problem(f'images of size {self._size} cannot be drawn from camera {camera!r}: {e}')

  def __call__(self):
    return self._physics().render(*self._size, camera_id=self._camera)


@contextlib.contextmanager
def drawing():
  """Attributes failures at the first image, other than by wrong options, to missing libraries."""
  try:
    yield
  except Problem:
    raise
  except Exception as e:
    raise Problem(f'images cannot be drawn ({type(e).__name__}: {e})', cure=GL)


def load_suite(image):
  """The package's tasks; images are drawn without a display where there is none."""
  import dm_control  # noqa: F401  If it is missing, that is not a problem of drawing.
  if image:
    draw_without_display()
  else:
    os.environ.setdefault('MUJOCO_GL', 'disabled')
  with drawing():
    from dm_control import suite
  return suite
