"""Converts gymnasium's spaces to ours, and values of one to those of the other.

Spaces are told apart by the name of their class, so that gymnasium is not needed and the spaces of
the older gym are understood too.
"""

import numpy as np

from .env import FLAGS, NOTES, Problem, Space
from .memory import bound
from .resize import resizer

FLOAT_MAX = np.float32(np.finfo(np.float32).max)
# Bounds beyond this, such as the largest float32, count as none.
UNBOUNDED = 1e30
# How far outside its bounds a value may be by rounding, relative to the larger one.
ROUNDING = 1e-5
# The most values of a discrete key: the agent sees it one-hot, with weights for each.
CLASSES = 65536
# The least height and width of what is an image; smaller ones are vectors.
PICTURE = 16
# Names and groups of names that the agent and the replay reserve for their own values.
OWN = ('reset', 'stepid', 'consec', 'priority', *FLAGS)
# Names of the agent's losses, which only observations may not have.
LOSSES = ('dyn', 'rep', 'rew', 'con', 'policy', 'value', 'repval')
OWN_GROUPS = ('dyn/', 'enc/', 'dec/', 'replay/')
KINDS = ('Discrete', 'MultiDiscrete', 'MultiBinary', 'Box', 'Dict', 'Tuple')


def kind(space):
  for cls in type(space).__mro__:
    if cls.__name__ in KINDS:
      return cls.__name__
  return None


def children(space):
  """The parts of a Dict or Tuple by key or index, None for other spaces."""
  if kind(space) == 'Dict':
    return dict(space.spaces)
  if kind(space) == 'Tuple':
    return dict(enumerate(space.spaces))
  return None


def walk(space, path=()):
  """The path and the space of every part that is neither Dict nor Tuple."""
  parts = children(space)
  if parts is None:
    yield path, space
  else:
    for key, part in parts.items():
      yield from walk(part, path + (key,))


def add(spaces, key, space):
  if key in spaces:
    raise Problem(f"two parts of the space are both called '{key}'")
  spaces[key] = space


def starts(space):
  """Sizes and first values of the entries of a MultiDiscrete space."""
  sizes = np.asarray(space.nvec)
  first = getattr(space, 'start', None)
  return sizes, np.zeros_like(sizes) if first is None else np.broadcast_to(first, sizes.shape)


class Obs:
  """The observations of a space: `spaces` by key; a call turns a value into arrays by key.

  Keys in `taken` and those that the trainer uses get the prefix `obs/`; `log/NAME` keeps its name
  where it is a number or an image, and so is a metric. Images are resized to `size`, [height,
  width], unless it is [0, 0]. Without `bounds`, floats may exceed those of their space, as
  gymnasium lets them.
  """

  def __init__(self, space, taken=(), size=(0, 0), bounds=True):
    self.spaces = {}
    self.leaves = []
    for path, leaf in walk(space):
      name = '/'.join(str(part) for part in path)
      try:
        parts = observed(leaf, tuple(size), bounds)
      except Problem as e:
        raise Problem(f"observation '{name or 'vector'}' {e}")
      if kind(space) == 'Tuple':
        name = 'obs/' + name
      if not name:
        name = 'image' if parts and is_image(parts[0][1]) else 'vector'
      if not parts or not all(part.nbytes for _, part, _ in parts):
        NOTES.append(f"observation '{name}' is left out: {leaf}")
        continue
      if kind(leaf) == 'Box' and leaf.dtype != np.uint8 and len(leaf.shape) in (2, 3) and is_picture(leaf.shape):
        NOTES.append(f"observation '{name}' of {leaf.dtype} {list(leaf.shape)} is read as a vector: only uint8 is "
                     'an image')
      logged = all(is_image(part) or not part.shape for _, part, _ in parts) and name.startswith('log/')
      keys = {name, *(name + suffix for suffix, _, _ in parts)}
      if not keys.isdisjoint(taken) or any(
          reserved(key) and not logged or key in LOSSES for key in keys):
        name = 'obs/' + name
      for suffix, part, convert in parts:
        add(self.spaces, name + suffix, part)
        self.leaves.append((name + suffix, path, convert))
    if not self.spaces:
      raise Problem(f'the observation space has nothing that can be used: {space}')

  def __call__(self, value):
    out = {}
    for key, path, convert in self.leaves:
      try:
        out[key] = convert(find(value, path))
      except Exception as e:
        raise fault(key, e)
    return out

  def batch(self, value, count):
    """The observations of `count` environments from one value with a leading axis."""
    out = [{} for _ in range(count)]
    for key, path, convert in self.leaves:
      try:
        part = find(value, path)
        for i in range(count):
          out[i][key] = convert(part[i])
      except Exception as e:
        raise fault(key, e)
    return out


def reserved(key):
  """Whether the agent and the replay keep values of their own by this name, or metrics by one like it."""
  return key in OWN or key.startswith(('log/', *OWN_GROUPS))


def find(value, path):
  for part in path:
    value = value[part]
  return value


def fault(key, e):
  if isinstance(e, KeyError):
    return Problem(f"the environment's observation lacks the key {e} of its space (for '{key}')")
  return Problem(f"observation key '{key}' does not fit its space: {type(e).__name__}: {e}")


def is_image(space):
  return space.dtype == np.uint8 and len(space.shape) == 3


def to_float(value):
  given, value = value, np.asarray(value)
  if value.dtype.kind not in 'biuf':
    return given
  if value.dtype.kind == 'f':
    value = np.minimum(np.maximum(value, -FLOAT_MAX), FLOAT_MAX)
  return np.asarray(value, np.float32)


def binary(value):
  """Zeros and ones as bool; anything else as it is, for a later check to find."""
  array = np.asarray(value)
  if array.dtype == bool:
    return array
  return array.astype(bool) if array.dtype.kind in 'iuf' and ((array == 0) | (array == 1)).all() else value


def classes(n):
  """The number of values of a discrete space, or a Problem if it is too large for the agent."""
  if n > CLASSES:
    raise Problem(f'is one of {n} values, and more than {CLASSES} cannot be told apart: make it a '
                  'Box')
  return int(n)


def limits(space):
  """The bounds of a Box as floats; None where it has none."""
  out = []
  for name, pick, default in (('low', np.min, -np.inf), ('high', np.max, np.inf)):
    value = float(pick(np.asarray(getattr(space, name, default), np.float64)))
    out.append(value if abs(value) < UNBOUNDED else None)
  return out


def bounded(low, high):
  """A conversion to float32: `to_float`, which also clips values that only rounding has put outside
  the bounds."""
  if low is None and high is None:
    return to_float
  slack = ROUNDING * max(1, *(abs(x) for x in (low, high) if x is not None))
  low, high = -FLOAT_MAX if low is None else low, FLOAT_MAX if high is None else high

  def convert(value):
    given, value = value, np.asarray(value)
    if value.dtype.kind not in 'biuf':
      return given
    inside = np.minimum(np.maximum(value, low), high)
    if not (inside == value).all():
      value = np.where(abs(inside - value) <= slack, inside, value)
    return to_float(value)

  return convert


def observed(space, size, bounds):
  """The parts of one space: suffix of the key, our space and the conversion of a value to its array.
  Values of several axes become vectors, except images."""
  name, shape = kind(space), getattr(space, 'shape', None) or ()
  if name is None or 0 in shape:
    return None
  if name == 'Discrete':
    start = int(getattr(space, 'start', 0))
    return [('', Space(np.int32, (), 0, classes(space.n)), lambda value: np.asarray(value) - start)]
  if name == 'MultiDiscrete':
    sizes, first = starts(space)
    if (sizes != sizes.flat[0]).any():
      return [(f'/{i}', Space(np.int32, (), 0, classes(n)),
               lambda value, i=i: np.asarray(value).flat[i] - first.flat[i])
              for i, n in enumerate(sizes.flat)]
    ours = Space(np.int32, shape, 0, classes(sizes.flat[0]))
    convert = lambda value: np.asarray(value) - first if np.shape(value) == shape else value
  elif name == 'MultiBinary':
    ours, convert = Space(bool, shape), binary
  elif space.dtype == np.uint8 and len(shape) in (2, 3) and (any(size) or is_picture(shape)):
    return [('', *image(shape, size))]
  elif space.dtype == np.uint8 and len(shape) == 4 and (any(size) or is_picture(shape[1:])):
    return [('', *stacked(shape, size))]
  else:
    within = limits(space) if bounds else (None, None)
    ours, convert = Space(np.float32, shape, *within), bounded(*within)
  return [('', *flattened(ours, convert))]


def flattened(ours, convert):
  """Space and conversion that flatten values of several axes to vectors. A value of another shape
  is passed on, for a later check to find."""
  if len(ours.shape) < 2:
    return ours, convert

  def flatten(value):
    value = convert(value)
    return np.reshape(value, -1) if np.shape(value) == ours.shape else value

  return Space(ours.dtype, int(np.prod(ours.shape)), ours.low, ours.high), flatten


def stacked(shape, size):
  """Several images, such as the last few, as the channels of one."""
  one, convert = image(shape[1:], size)
  ours = Space(np.uint8, (*one.shape[:2], shape[0] * one.shape[2]))
  return ours, lambda value: np.concatenate([convert(x) for x in np.asarray(value)], -1)


def is_picture(shape):
  return min(ordered(shape)[:2]) >= PICTURE


def ordered(shape):
  """The shape of an image as [height, width, channels]. One of rank 2 gets an axis for its
  channels; axes like (4, 84, 84) are taken for [channels, height, width]."""
  if len(shape) == 2:
    return (*shape, 1)
  if shape[0] < shape[1] and shape[0] < shape[2] and shape[2] > PICTURE:
    return (*shape[1:], shape[0])
  return tuple(shape)


def image(shape, size=(0, 0)):
  """Space and conversion of images of `shape`, whose axes are put in order."""
  steps, full = [], ordered(shape)
  if len(shape) == 2:
    steps.append(lambda value: np.asarray(value)[..., None])
  elif full != tuple(shape):
    steps.append(lambda value: np.moveaxis(np.asarray(value), 0, -1))
  if any(size) and tuple(size) != full[:2]:
    steps.append(resizer(full, size))
    full = (*size, full[2])

  def convert(value):
    for step in steps:
      value = step(value)
    return value

  return Space(np.uint8, full), convert


class Act:
  """The actions of a space: `spaces` by key, with `reset`; a call turns arrays by key into a value."""

  def __init__(self, space):
    self.spaces = {'reset': Space(bool)}
    self.build = self.builder(space, ('action',) if kind(space) != 'Dict' else ())

  def __call__(self, action):
    return self.build(action)

  def builder(self, space, path):
    parts = children(space)
    if parts is not None:
      parts = {key: self.builder(part, path + (key,)) for key, part in parts.items()}
      if kind(space) == 'Tuple':
        return lambda action: tuple(part(action) for part in parts.values())
      return lambda action: {key: part(action) for key, part in parts.items()}
    name = '/'.join(str(part) for part in path)
    uneven = kind(space) == 'MultiDiscrete' and len(set(np.ravel(space.nvec).tolist())) > 1
    if reserved(f'{name}/0' if uneven else name):
      name = 'action/' + name
    if kind(space) is None:
      raise Problem(f"action '{name}' is of a kind of space that has no meaning here: {space}")
    if 0 in (space.shape or ()):
      raise Problem(f"action '{name}' has no entries: {space}")
    if kind(space) == 'MultiDiscrete':
      sizes, first = starts(space)
      if uneven:
        keys = [f'{name}/{i}' for i in range(sizes.size)]
        for key, n in zip(keys, sizes.flat):
          add(self.spaces, key, choices(key, n))
        return lambda action: (
            np.array([action[key] for key in keys], space.dtype).reshape(sizes.shape) + first)
    ours, convert = acted(space, name)
    shape = ours.shape
    if len(shape) < 2:
      add(self.spaces, name, ours)
      return lambda action: convert(action[name])
    # The agent's actions have one axis at most.
    add(self.spaces, name, Space(ours.dtype, int(np.prod(shape)), ours.low, ours.high))
    return lambda action: convert(np.reshape(action[name], shape))


def choices(key, n, shape=()):
  try:
    return Space(np.int32, shape, 0, classes(n))
  except Problem as e:
    raise Problem(f"action '{key}' {e}")


def acted(space, key):
  """Our space and the conversion of its values to those of `space`, for spaces of one key."""
  dtype = np.dtype(space.dtype).type
  name = kind(space)
  if name == 'Discrete':
    start = int(getattr(space, 'start', 0))
    return choices(key, space.n), lambda value: dtype(int(value) + start)
  if name == 'MultiDiscrete':
    sizes, first = starts(space)
    return (choices(key, sizes.flat[0], sizes.shape),
            lambda value: value.astype(dtype) + first)
  if name == 'MultiBinary':
    return Space(bool, space.shape), lambda value: value.astype(dtype)
  return boxed(space, dtype)


def boxed(space, dtype):
  whole = np.dtype(dtype).kind in 'biu'
  low, high = (np.asarray(bound, np.float64) for bound in (space.low, space.high))
  if whole and (low == low.flat[0]).all() and (high == high.flat[0]).all():
    first, count = int(low.flat[0]), int(high.flat[0]) - int(low.flat[0]) + 1
    if count <= 256:
      return (Space(np.int32, space.shape, 0, count),
              lambda value: (np.asarray(value, np.int64) + first).astype(dtype))
  bounded = (abs(low) < UNBOUNDED) & (abs(high) < UNBOUNDED)
  scale, middle = np.ones(low.shape), np.zeros(low.shape)
  # With a bound on one side only, the range is the two units next to it.
  middle = np.where(abs(low) < UNBOUNDED, low + 1, np.where(abs(high) < UNBOUNDED, high - 1, middle))
  scale[bounded] = (high[bounded] - low[bounded]) / 2
  middle[bounded] = (high[bounded] + low[bounded]) / 2

  def convert(value):
    value = np.minimum(np.maximum(value * scale + middle, low), high)
    if not whole:
      return np.asarray(value, dtype)
    # The largest integers have no float of their own, and the one next to them is out of range.
    with np.errstate(invalid='ignore'):
      inner = np.rint(value).astype(dtype)
    inner = np.where(value <= low, space.low, inner)
    return np.where(value >= high, space.high, inner).astype(dtype)

  return Space(np.float32, space.shape, -1, 1), convert


def stack(space, values):
  """The values of several environments as one with a leading axis."""
  parts = children(space)
  if parts is None:
    return np.stack(values).astype(space.dtype)
  parts = {key: stack(part, [value[key] for value in values]) for key, part in parts.items()}
  return tuple(parts.values()) if kind(space) == 'Tuple' else parts


def sample(spaces, rng):
  """Random values for action spaces; `reset` is false, without a draw. Floats without bounds are
  drawn from -1 to 1."""
  out = {'reset': np.bool_(False)}
  for key, space in spaces.items():
    if key == 'reset':
      continue
    low, high = space.low, space.high
    if space.dtype == np.float32:
      if None in (bound(low, space.dtype, np.min), bound(high, space.dtype, np.max)):
        low, high = -1, 1
      value = rng.uniform(low, high, space.shape)
    elif space.dtype == bool or low is None:
      value = rng.integers(0, 2 if space.dtype == bool else 256, space.shape)
    else:
      value = rng.integers(low, high, space.shape)
    out[key] = np.asarray(value, space.dtype)[()]
  return out
