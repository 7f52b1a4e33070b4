"""Walkers in mazes: tasks `loconav_ant_MAZE`, such as loconav_ant_maze_m, seen by the walker."""

import numpy as np

from ..env import Env, Problem, Space
from .dm import Dm
from .dmc import Camera, load_suite

INSTALL = 'pip install dm_control "mujoco<4"'
CAMERAS = {'ant': 4}
# Colours of walls 1 to 9.
COLORS = '1f77b4 ff7f0e 2ca02c d62728 9467bd 8c564b e377c2 7f7f7f bcbd22'.split()
# Rows of each maze. Digits are walls by colour and * is the grey one; the walker starts at P
# and has to find G.
MAZES = {
    'maze_s': (
        '......66666 ......6...6 ......6.G.6 ......6...6 ......5...4 '
        '......5...4 1111555...4 1.........3 1.P.......3 1.........3 '
        '11112223333'),
    'maze_m': (
        '66668887777 6.........7 6.G.......7 6.........7 6665555...4 '
        '......5...4 1111555...4 1.........3 1.P.......3 1.........3 '
        '11112223333'),
    'maze_l': (
        '88887776666... 8.........6... 8.G.......6... 8.........6555 8888777......5 '
        '......7......5 11111.7......5 1...1.7999...5 1...1....9...5 1...111999...5 '
        '2............4 2....P.......4 2............4 22223333334444'),
    'maze_xl': (
        '99999998888.44444 9.........8.4...4 9.......G.8.4...4 9.........8.4...4 6...7778888.5...3 '
        '6...7.......5...3 6...777555555...3 5...............3 5...............3 5...............3 '
        '5555444...666...3 ......4...6.6...3 1111444...6.6...3 1.........2.1...1 1.P.......2.1...1 '
        '1.........2.1...1 11111112222.11111'),
    'maze_xxl': (
        '7777***666***9999 7...............9 7.............G.9 7...............9 *...555******9999 '
        '*...5............ *...555******3333 8...............3 8...............3 8...............3 '
        '8888******444...* ............4...* 1111******444...* 1...............2 1.P.............2 '
        '1...............2 1111***666***2222'),
    'empty': ' '.join(['.' * 17] * 17),
}


def make(name, options, kwargs, seed, index, slots):
  return LocoNav(name, seed, **options, **kwargs)


class LocoNav(Env):
  """One maze. The name may end in a control frequency, such as `_20hz`; 50 is usual.

  Reaching the goal gives reward 1 at each step from then on or, with `again`, once and a new
  start. With `termination`, falling over ends the episode. `image` adds what a camera sees. `size`
  is that of all images.
  """

  def __init__(
      self, name, seed, size=(64, 64), repeat=1, camera=-1, again=False, termination=False,
      weaker=1.0, image=False):
    load_suite(image=True)
    from dm_control import composer
    walker, _, maze = name.partition('_')
    freq = 50
    if maze.endswith('hz'):
      maze, _, freq = maze[:-2].rpartition('_')
    if walker not in CAMERAS or maze not in MAZES or not str(freq).isdigit():
      names = ', '.join(f'{w}_{m}' for w in CAMERAS for m in MAZES)
      raise Problem(f"unknown task 'loconav_{name}'; there are: {names}")
    random = np.random.RandomState(seed)
    task = make_task(maze, random, int(freq), again, termination)
    eye = task.walker.observables.egocentric_camera
    eye.height, eye.width = size  # The agent wants images of one size.
    env = composer.Environment(
        time_limit=60, task=task, random_state=random, strip_singleton_obs_buffer_dim=True)
    self._position = lambda: task.walker.get_pose(env.physics)[0][:2]
    self._visited = set()
    self._weaker = weaker
    self._env = Dm(env, repeat)
    camera = CAMERAS[walker] if camera == -1 else camera
    draw = Camera(lambda: env.physics, size, camera)  # Finds out whether drawing works.
    self._camera = draw if image else None
    self.act_space = self._env.act_space
    self.obs_space = {**self._env.obs_space, 'log/coverage': Space(np.float32)}
    if image:
      self.obs_space['image'] = Space(np.uint8, (*size, 3))

  def step(self, action):
    obs = self._env.step({**action, 'action': np.asarray(action['action']) * self._weaker})
    if obs['is_first']:
      self._visited.clear()
    self._visited.add(tuple(np.round(self._position()).astype(int).tolist()))
    obs['log/coverage'] = np.float32(len(self._visited))
    if self._camera:
      obs['image'] = self._camera()
    return obs

  def close(self):
    self._env.close()


def make_task(maze, random, freq, again, termination):
  import labmaze
  from dm_control import mjcf
  from dm_control.locomotion.arenas import labmaze_textures, mazes
  from dm_control.locomotion.props import target_sphere
  from dm_control.locomotion.tasks import random_goal_maze
  from dm_control.locomotion.walkers import ant

  class Plain(labmaze_textures.WallTextures):
    """Walls of one colour."""

    def _build(self, color):
      self._mjcf_root = mjcf.RootElement(model='labmaze_style_01')
      self._textures = [self._mjcf_root.asset.add(
          'texture', type='2d', name='wall', builtin='flat', rgb1=color, width=100, height=100)]

  class Stay(random_goal_maze.RepeatSingleGoalMaze):
    """Gives a reward at every step once the goal is reached, and goes on."""

    def after_step(self, physics, random_state):
      random_goal_maze.NullGoalMaze.after_step(self, physics, random_state)
      self._rewarded_this_step = self._target.activated
      self._targets_obtained = int(self._target.activated)

  textures = {'*': Plain([0.8, 0.8, 0.8])}
  for i, color in enumerate(COLORS):
    textures[str(i + 1)] = Plain([x / 255 for x in bytes.fromhex(color)])
  layout = ''.join(row.replace('.', ' ') + '\n' for row in MAZES[maze].split())
  layout = labmaze.FixedMazeWithRandomGoals(
      entity_layer=layout, num_spawns=1, num_objects=1, random_state=random)
  arena = mazes.MazeWithTargets(
      layout, xy_scale=1.2, z_height=2.0, aesthetic='default', wall_textures=textures, name='maze')
  task = (random_goal_maze.RepeatSingleGoalMaze if again else Stay)(
      walker=ant.Ant(), maze_arena=arena,
      target=target_sphere.TargetSphere(radius=1.2, height_above_ground=0.0),
      max_repeats=1000 if again else 1, randomize_spawn_rotation=True, target_reward_scale=1.0,
      aliveness_threshold=-0.5 if termination else -1.0, contact_termination=False,
      physics_timestep=min(1 / freq / 4, 0.02), control_timestep=1 / freq)
  task.walker = task._walker
  return task
