"""The file in memory through which actions and observations pass, and its layout."""

import json
import math
import mmap
import os
import sys
import tempfile

import numpy as np

from .env import FLAGS, NOTES, Problem

INTEGERS = {'bool': (0, 1), 'uint8': (0, 255), 'int32': (-2**31, 2**31 - 1)}
# Python and numpy scalars that can be written without a check.
SCALARS = {
    'float32': {float, int, np.float32, np.float64},
    'bool': {bool, np.bool_},
    'int32': {np.int32},
    'uint8': {np.uint8},
}


# Bytes of each slot for the text with the numbers that a step logs beyond its spaces.
LOGS = 4096


def align(offset, nbytes):
  return -(-offset // nbytes) * nbytes


def bound(value, dtype, pick):
  """A bound for the answer: None if there is none, else rounded to float32 or integer."""
  if value is None or dtype == bool:
    return None
  value = pick(np.asarray(value, np.float64))
  if dtype == np.float32:
    with np.errstate(over='ignore'):
      value = np.float32(value)
  if not np.isfinite(value):
    return None
  return float(value) if dtype == np.float32 else int(value)


def entry(space):
  """A space as in the answer, without its offset."""
  dtype = np.dtype(space.dtype)
  out = {'dtype': dtype.name, 'shape': tuple(int(n) for n in space.shape)}
  for name, pick in (('low', np.min), ('high', np.max)):
    value = bound(getattr(space, name, None), dtype, pick)
    if value is not None:
      out[name] = value
  return out


def check_alike(envs):
  """The slots of a worker have one layout: that of the first, which all have to fit."""
  for side in ('act_space', 'obs_space'):
    first = getattr(envs[0], side)
    for i, env in enumerate(envs[1:], 1):
      other = getattr(env, side)
      for key in {**first, **other}:
        a, b = (entry(spaces[key]) if key in spaces else 'no such key' for spaces in (first, other))
        if a != b:
          raise Problem(f"environments of one task have different spaces: '{key}' of {side} is {a} "
                        f'in the first and {b} in number {i + 1} of this worker')


def check_spaces(act, obs):
  for key, space in FLAGS.items():
    if key not in obs:
      raise Problem(f"the environment's obs_space lacks '{key}'")
    if np.dtype(obs[key].dtype) != space.dtype or tuple(obs[key].shape):
      raise Problem(f"'{key}' of obs_space has to be {space.dtype.name} of shape ()")
  if 'reset' not in act or np.dtype(act['reset'].dtype) != bool or tuple(act['reset'].shape):
    raise Problem("the environment's act_space needs 'reset', bool of shape ()")
  for key in act:
    if key in obs:
      raise Problem(f"'{key}' is a key of both obs_space and act_space")
  for key, space in [*act.items(), *obs.items()]:
    name = np.dtype(space.dtype).name
    if name not in INTEGERS and name != 'float32':
      raise Problem(f"'{key}' is {name}, which is none of bool, uint8, int32 and float32")


class Memory:
  """Actions and observations of every slot, as numpy views of one mapped file."""

  def __init__(self, act, obs, slots):
    check_spaces(act, obs)
    self.act, self.obs, offset = {}, {}, 0
    for spaces, layout in ((act, self.act), (obs, self.obs)):
      for key, space in spaces.items():
        itemsize = np.dtype(space.dtype).itemsize
        layout[key] = entry(space)
        nbytes = int(np.prod(layout[key]['shape'], dtype=int)) * itemsize
        offset = align(offset, 64 if nbytes >= 64 else itemsize)
        layout[key]['offset'] = offset
        offset += nbytes
      offset = align(offset, 64)
    self.logs = {'offset': offset, 'size': LOGS}
    self.slots, self.stride = slots, offset + LOGS
    self.path, self.map = create(self.stride * slots)
    self.ins = [self.views(self.act, slot) for slot in range(slots)]
    self.outs = [
        [(key, view, view.dtype, view.shape, () if view.shape else SCALARS[view.dtype.name])
         for key, view in self.views(self.obs, slot)]
        for slot in range(slots)]

  def views(self, layout, slot):
    return [(key, np.ndarray(entry['shape'], entry['dtype'], self.map,
                             slot * self.stride + entry['offset']))
            for key, entry in layout.items()]

  def answer(self, together):
    return {'slots': self.slots, 'memory': self.path, 'stride': self.stride,
            'act': self.act, 'obs': self.obs, 'logs': self.logs, 'together': together,
            'notes': list(dict.fromkeys(NOTES))}

  def get(self, slot):
    return {key: view.copy() if view.shape else view[()] for key, view in self.ins[slot]}

  def put(self, slot, obs):
    for key, view, dtype, shape, scalars in self.outs[slot]:
      try:
        value = obs[key]
      except (KeyError, TypeError, IndexError):
        raise Problem(missing(key, obs))
      if type(value) is np.ndarray:
        if value.dtype != dtype or value.shape != shape:
          value = fit(key, value, dtype, shape)
      elif type(value) not in scalars:
        value = fit(key, value, dtype, shape)
      view[...] = value
    start = slot * self.stride + self.logs['offset']
    if len(obs) == len(self.obs):
      self.map[start] = 0
    else:
      more = {str(key): value for key, value in obs.items() if key not in self.obs}
      for key in more:
        if not key.startswith('log/'):
          raise Problem(f"the observation has the key '{key}', which obs_space lacks; declare it there, or "
                        f"call it 'log/{key}' if it is a number to be logged")
      text = log_text({key[4:]: value for key, value in more.items()})
      self.map[start:start + len(text)] = text

  def remove(self):
    try:
      os.unlink(self.path)
    except OSError:
      pass


def number(value):
  """A number of python or numpy as a finite float; None for anything else."""
  if isinstance(value, (bool, int, float, np.number, np.bool_)) or (
      isinstance(value, np.ndarray) and value.size == 1 and value.dtype.kind in 'biuf'):
    try:
      value = float(value.item() if isinstance(value, np.ndarray) else value)
    except (TypeError, OverflowError):
      return None
    return value if math.isfinite(value) else None
  return None


def log_text(values):
  """Numbers by name as the text for the trainer. Those that it has no room for are left out."""
  numbers = {}
  for key, value in values.items():
    array = np.asarray(value)
    if array.size != 1 or array.dtype.kind not in 'biuf':
      raise Problem(f"'log/{key}' is a {type(value).__name__} and no number; what is more than a "
                    'number has to be a key of obs_space')
    value = number(array)
    if value is not None:
      numbers[key] = value
  if not numbers:
    return b'\0'
  text = encode(numbers)
  if len(text) > LOGS:
    kept, room = {}, LOGS - len(encode({}))
    for key, value in numbers.items():
      length = len(encode({key: value})) - len(encode({})) + 1  # With a comma.
      if length <= room:
        kept[key], room = value, room - length
      elif key not in dropped:
        dropped.add(key)
        print(f"'log/{key}' is left out: a step logs no more than {LOGS} bytes", file=sys.stderr)
    text = encode(kept)
  return text


def encode(numbers):
  return json.dumps(numbers, separators=(',', ':')).encode() + b'\0'


dropped = set()


def missing(key, obs):
  if not isinstance(obs, dict):
    return f'the environment returned a {type(obs).__name__} where a dict of observations is due'
  return f"the observation lacks the key '{key}'; it has {', '.join(map(str, obs))}"


def fit(key, value, dtype, shape):
  """The value as an array of its space, or a Problem that says why it does not fit."""
  due = f'its space says {dtype.name} {shape}'
  try:
    array = np.asarray(value)
  except Exception as e:
    raise Problem(f"observation '{key}' is a {type(value).__name__} that is no array ({e}); {due}")
  held = f"observation '{key}' holds {array.dtype.name} {array.shape}"
  if array.dtype.kind == 'O':
    held = f"observation '{key}' holds a {type(value).__name__}"
  if array.shape != shape or array.dtype.kind not in 'biuf':
    raise Problem(f'{held}; {due}')
  if dtype == np.float32:
    return array
  if array.dtype.kind == 'f':
    span = f' from {array.min()} to {array.max()}' if array.size else ''
    raise Problem(f'{held}{span}; {due}')
  low, high = INTEGERS[dtype.name]
  if array.size and not (low <= array.min() and array.max() <= high):
    raise Problem(f'{held} from {array.min()} to {array.max()}; {due}')
  return array.astype(dtype)


def check(key, value, space):
  """A Problem where the value does not fit its space, as the trainer would find at the step."""
  array = fit(key, value, space.dtype, space.shape)
  low, high = (bound(getattr(space, name), space.dtype, pick) for name, pick in (('low', np.min), ('high', np.max)))
  if space.dtype != np.float32 and high is not None:
    high -= 1
  for bad in array[~np.isfinite(array)].flat if space.dtype == np.float32 else ():
    raise Problem(f"observation '{key}' holds {bad}, which is no finite number")
  if array.size and (low is not None and array.min() < low or high is not None and array.max() > high):
    raise Problem(f"observation '{key}' holds values from {array.min()} to {array.max()}, outside the bounds "
                  f'{low} to {high} of its space')


def create(size):
  """Path and map of a new file of `size` zeros, in memory if there is room. If the system has files
  without a name, it goes away with the last process that has it open."""
  if hasattr(os, 'memfd_create'):
    try:
      file = os.memfd_create('dreamer')
      os.truncate(file, size)
      return f'/proc/{os.getpid()}/fd/{file}', mmap.mmap(file, size)
    except OSError:
      pass
  fault = None
  for folder in ('/dev/shm', tempfile.gettempdir()):
    path = None
    try:
      file, path = tempfile.mkstemp(prefix='dreamer-', dir=folder)
      with os.fdopen(file, 'r+b') as f:
        f.write(bytes(size))
        f.flush()
        return path, mmap.mmap(f.fileno(), size)
    except OSError as e:
      fault = e
      if path:
        os.unlink(path)
  raise Problem(f'no room for the {size} bytes that environment and trainer share: {fault}')
