"""What an environment is to the worker: spaces of named arrays, and one step at a time."""

import numpy as np

# Notes for the user about the options, which the trainer shows before the first step.
NOTES = []


class Space:
  """Dtype, shape and bounds of one key.

  Floats lie in [low, high], integers in [low, high), with low 0 if the agent sees or chooses them.
  The dtypes are bool, uint8, int32 and float32. A uint8 space of rank 3 is an image [height, width,
  channels].
  """

  def __init__(self, dtype, shape=(), low=None, high=None):
    self.dtype = np.dtype(dtype)
    self.shape = (shape,) if isinstance(shape, int) else tuple(int(n) for n in shape)
    self.low = low
    self.high = high
    if self.dtype.name not in ('bool', 'uint8', 'int32', 'float32'):
      raise Problem(f'a space is {self.dtype}, which is none of bool, uint8, int32 and float32')
    if self.dtype == np.int32 and None in (low, high):
      raise Problem(f'an int32 space has the bounds {low} to {high}, but it needs both')

  @property
  def nbytes(self):
    return int(np.prod(self.shape, dtype=int)) * self.dtype.itemsize

  def __repr__(self):
    return f'Space({self.dtype.name}, {self.shape}, {self.low}, {self.high})'


FLAGS = {
    'reward': Space(np.float32),
    'is_first': Space(bool),
    'is_last': Space(bool),
    'is_terminal': Space(bool),
}


class Env:
  """One environment.

  `obs_space` holds the keys of FLAGS besides the task's own; keys that start with `log/` become
  metrics, and numbers among them need not be in `obs_space` nor in every step. `act_space` holds
  `reset`. A step takes a dict of arrays for act_space and returns one for obs_space. With `reset`
  true, at the first step and after `is_last`, it starts an episode: the rest of the action is
  ignored, the result has is_first and reward 0.
  """

  obs_space = {}
  act_space = {}

  def step(self, action):
    raise NotImplementedError

  def close(self):
    pass


class VectorEnv:
  """Several environments that step together: `step` takes a list of actions, one for each, and
  returns a list of observations. Spaces are those of one environment. After a fault some may be
  asked to reset at their second step while others go on; what follows then has is_first."""

  count = 0
  obs_space = {}
  act_space = {}

  def step(self, actions):
    raise NotImplementedError

  def close(self):
    pass


class Problem(Exception):
  """A sentence for the user, without a traceback; `cure` is a command that helps, if any does."""

  def __init__(self, text, cure=None):
    super().__init__(text)
    self.cure = cure
