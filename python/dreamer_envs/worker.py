"""The worker: makes environments and steps them for a trainer, by the protocol of docs/bridge.md."""

import fcntl
import json
import os
import signal
import stat
import sys
import threading
import traceback

from .env import Problem, VectorEnv
from .memory import Memory, check_alike

VERSION = 1
BYTES = [bytes([i]) for i in range(256)]
FAULT = BYTES[255]
F_SETSIG = 10


def descriptors():
  """Moves the socket and the lifeline out of the reach of environments."""
  if not stat.S_ISSOCK(os.fstat(0).st_mode):
    sys.exit('this program is started by the trainer: dreamer train --task gym_CartPole-v1')
  sock, line = (fcntl.fcntl(fd, fcntl.F_DUPFD_CLOEXEC, 10) for fd in (0, 1))
  null = os.open(os.devnull, os.O_RDONLY)
  os.dup2(null, 0)
  os.close(null)
  os.dup2(2, 1)
  sys.stdout.reconfigure(line_buffering=True)
  os.set_blocking(sock, True)
  return sock, line


def watch(line):
  """Ends this process, with its group if it leads one, when the lifeline closes: by the kernel
  where that is possible, which works even in foreign code that never returns."""
  target = -os.getpid() if os.getpgrp() == os.getpid() else os.getpid()
  if sys.platform == 'linux':
    try:
      # Signals belong to the open file, and workers may share theirs: this one is our own.
      line = os.open(f'/proc/self/fd/{line}', os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError:
      pass
    try:
      fcntl.fcntl(line, fcntl.F_SETOWN, target)
      fcntl.fcntl(line, F_SETSIG, signal.SIGKILL)
      fcntl.fcntl(line, fcntl.F_SETFL, fcntl.fcntl(line, fcntl.F_GETFL) | os.O_ASYNC)
    except OSError:
      pass
  os.set_blocking(line, True)

  def wait():
    try:
      while os.read(line, 64):
        pass
    except OSError:
      pass
    os._exit(1)

  threading.Thread(target=wait, daemon=True).start()
  return line


class Gone(Exception):
  """The trainer has closed its end of the socket."""


def receive(sock):
  try:
    data = os.read(sock, 4096)
  except OSError:
    data = b''
  if not data:
    raise Gone
  return data


def send(sock, data):
  try:
    while data:
      data = data[os.write(sock, data):]
  except OSError:
    raise Gone


def read_line(sock):
  data = b''
  while not data.endswith(b'\n'):
    data += receive(sock)
  return json.loads(data)


def describe(e):
  """An exception as one line; its traceback goes to the log, which the trainer then shows, unless
  it is a sentence already."""
  plain = isinstance(e, Problem)
  if not plain:
    traceback.print_exception(type(e), e, e.__traceback__)
  text = str(e) if plain else f'{type(e).__name__}: {e}'
  out = {'error': ' '.join(text.split())[:1000], 'log': not plain}
  if getattr(e, 'cure', None):
    out['cure'] = e.cure
  sys.stderr.flush()
  return json.dumps(out).encode() + b'\n'


def build(ask):
  """The environments that were asked for: a VectorEnv or a list of Env."""
  from . import suites
  if ask.get('version') != VERSION:
    raise Problem(f"the trainer speaks version {ask.get('version')} of the protocol, this package "
                  f'version {VERSION}: install the one that comes with the trainer')
  slots, seed, index = (int(ask.get(key, default))
                        for key, default in (('slots', 1), ('seed', 0), ('index', 0)))

  def make(i):
    return suites.make(ask['task'], dict(ask.get('options') or {}), dict(ask.get('kwargs') or {}),
                       seed + i, index + i, slots)

  first = make(0)
  if isinstance(first, VectorEnv):
    if first.count != slots:
      raise Problem(f"'{ask['task']}' holds {first.count} environments in one, where {slots} were "
                    f'asked for: --env.slots {first.count} asks for as many (and --run.envs for '
                    'some multiple of that)')
    return first
  envs = [first] + [make(i) for i in range(1, slots)]
  check_alike(envs)
  return envs


def serve(sock, envs, memory):
  """Steps independent environments as they are asked for."""
  steps = [env.step for env in envs]
  get, put = memory.get, memory.put
  while True:
    for slot in receive(sock):
      put(slot, steps[slot](get(slot)))
      send(sock, BYTES[slot])


def serve_together(sock, env, memory):
  """Steps environments that step only together, each time all were asked for."""
  slots = range(memory.slots)
  while True:
    asked = b''
    while len(asked) < len(slots):
      asked += receive(sock)
    if sorted(asked) != list(slots):
      raise Problem(f'these environments step together, but slots {list(asked)} were asked for')
    for slot, obs in zip(slots, env.step([memory.get(slot) for slot in slots])):
      memory.put(slot, obs)
    send(sock, asked)


def prepare(sock):
  """Makes what the trainer asks for and tells it: the environments and their memory."""
  ask = read_line(sock)
  env = build(ask)
  one, slots = (env, env.count) if isinstance(env, VectorEnv) else (env[0], len(env))
  memory = Memory(one.act_space, one.obs_space, slots)
  try:
    send(sock, json.dumps(memory.answer(isinstance(env, VectorEnv))).encode() + b'\n')
  except Gone:
    memory.remove()
    raise
  return env, memory


def work(sock):
  """Serves the trainer until it is gone; returns the status to exit with."""
  started = False
  try:
    env, memory = prepare(sock)
    started = True
    together = isinstance(env, VectorEnv)
    try:
      (serve_together if together else serve)(sock, env, memory)
    except Gone:
      memory.remove()
      for each in [env] if together else env:
        each.close()
  except Gone:
    pass
  except BaseException as e:
    try:
      send(sock, (FAULT if started else b'') + describe(e))
    except Gone:
      pass
    return 1
  return 0


def leave_to_parent(*files):
  """Closes files in a forked child, where they would hide the end of this process."""
  for file in files:
    try:
      os.close(file)
    except OSError:
      pass


def main():
  sock, line = descriptors()
  line = watch(line)
  os.register_at_fork(after_in_child=lambda: leave_to_parent(sock, line))
  status = work(sock)
  # What keeps the interpreter from ending, such as a thread of an environment, is cut short.
  signal.signal(signal.SIGALRM, signal.SIG_DFL)
  signal.alarm(10)
  sys.exit(status)
