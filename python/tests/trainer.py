"""A stand-in for the trainer: starts a worker and speaks the protocol's other side."""

import json
import mmap
import os
import select
import subprocess
import sys
import tempfile

import numpy as np

HERE = os.path.dirname(os.path.abspath(__file__))
ROOT = os.path.dirname(HERE)


class WorkerError(Exception):
  pass


class Trainer:

  def __init__(self, task, slots=1, seed=0, options=None, kwargs=None, command=None, cwd=HERE,
               start=True, version=2, lifeline=None):
    (hears, self.asks), (self.answers, speaks), (line, self.line) = (os.pipe() for _ in range(3))
    self.log_file = tempfile.TemporaryFile()
    path = os.pathsep.join(filter(None, [ROOT, os.environ.get('PYTHONPATH')]))
    self.process = subprocess.Popen(
        command or [sys.executable, '-m', 'dreamer_envs'], stdin=hears, stdout=speaks,
        pass_fds=[line], stderr=self.log_file, cwd=cwd, env={**os.environ, 'PYTHONPATH': path},
        start_new_session=True)
    for fd in (hears, speaks, line):
      os.close(fd)
    ask = {'version': version, 'lifeline': line if lifeline is None else lifeline, 'task': task,
           'index': 0, 'slots': slots, 'seed': seed, 'options': options or {},
           'kwargs': kwargs or {}, 'later': 'ignored'}
    self.send(json.dumps(ask).encode() + b'\n')
    if start:
      self.begin(slots)

  def begin(self, slots):
    self.answer = self.line_of_json()
    if 'error' in self.answer:
      raise WorkerError(self.answer)
    assert self.answer['version'] == 2 and self.answer['slots'] == slots
    size = self.answer['stride'] * slots
    file = os.open(self.answer['memory'], os.O_RDWR)
    if not self.answer['memory'].startswith('/proc/'):
      os.unlink(self.answer['memory'])
    assert os.fstat(file).st_size == size
    self.memory = mmap.mmap(file, size)
    os.close(file)
    self.act, self.obs = (
        [{key: np.ndarray(e['shape'], e['dtype'], self.memory, s * self.answer['stride'] + e['offset'])
          for key, e in self.answer[kind].items()} for s in range(slots)]
        for kind in ('act', 'obs'))
    self.fresh = [True] * slots

  def line_of_json(self):
    data = b''
    while not data.endswith(b'\n'):
      more = self.read(65536)
      if not more:
        raise WorkerError({'error': 'the process ended'})
      data += more
    return json.loads(data)

  def ask(self, slots, actions=None):
    """Sends actions for some slots; returns their observations by slot."""
    for slot in slots:
      self.act[slot]['reset'][...] = self.fresh[slot]
      for key, value in (actions or {}).items():
        self.act[slot][key][...] = value
    self.send(bytes(slots))
    left, out = set(slots), {}
    while left:
      for byte in self.recv():
        left.remove(byte)
        out[byte] = {key: view.copy() for key, view in self.obs[byte].items()}
        out[byte].update(self.logs(byte))
        self.fresh[byte] = bool(out[byte]['is_last'])
    return out

  def logs(self, slot):
    """The metrics of a step beyond its spaces."""
    place = self.answer.get('logs')
    if place is None:
      return {}
    start = slot * self.answer['stride'] + place['offset']
    text = self.memory[start:start + place['size']]
    text = text[:text.index(b'\0')]
    return {f'log/{key}': value for key, value in json.loads(text or b'{}').items()}

  def send(self, data):
    try:
      os.write(self.asks, data)
    except BrokenPipeError:
      pass  # What the worker had to say is still to be read.

  def read(self, count, seconds=30):
    if not select.select([self.answers], [], [], seconds)[0]:
      raise WorkerError({'error': 'the worker did not answer'})
    return os.read(self.answers, count)

  def recv(self):
    data = self.read(1)
    if not data:
      raise WorkerError({'error': 'the process ended'})
    if data == b'\xff':
      raise WorkerError(self.line_of_json())
    return data

  def step(self, **action):
    return self.ask([0], action)[0]

  def log(self):
    return os.pread(self.log_file.fileno(), 1 << 20, 0).decode()

  def close(self):
    """Ends the connection as a trainer does that has finished; returns the worker's status."""
    self.shut('asks')
    try:
      return self.process.wait(10)
    finally:
      self.end()

  def end(self):
    self.process.kill()
    self.process.wait()
    for pipe in ('asks', 'answers', 'line'):
      self.shut(pipe)

  def shut(self, pipe):
    if getattr(self, pipe) is not None:
      os.close(getattr(self, pipe))
      setattr(self, pipe, None)

  def __enter__(self):
    return self

  def __exit__(self, *args):
    self.end()
