"""The worker: makes environments and steps them for a trainer, by the protocol of docs/bridge.md."""

import fcntl
import json
import os
import signal
import stat
import sys
import threading
import time
import traceback

from .env import Problem, VectorEnv
from .memory import Memory, check_alike

VERSION = 2
BYTES = [bytes([i]) for i in range(256)]
FAULT = BYTES[255]
F_SETSIG = 10
PATIENCE = 2e-4  # Seconds after which answers do not wait for another step.
ALONE = ('this program waits for a trainer at its pipes: dreamer train --configs size1m '
         '--task gym_CartPole-v1 starts it')


class Gone(Exception):
  """The trainer has closed its ends of the pipes."""


class Wire:
  """The pipes from and to the trainer, out of the reach of environments."""

  def __init__(self):
    if stat.S_ISSOCK(os.fstat(0).st_mode):
      sys.exit('the trainer is older than this package: install the one that comes with the trainer')
    if not all(stat.S_ISFIFO(os.fstat(fd).st_mode) for fd in (0, 1)):
      sys.exit(ALONE)
    self.asks, self.answers = move_away(0), move_away(1)
    null = os.open(os.devnull, os.O_RDONLY)
    os.dup2(null, 0)
    os.close(null)
    os.dup2(2, 1)
    sys.stdout.reconfigure(line_buffering=True)

  def receive(self):
    try:
      data = os.read(self.asks, 4096)
    except OSError:
      data = b''
    if not data:
      raise Gone
    return data

  def send(self, data):
    try:
      while data:
        data = data[os.write(self.answers, data):]
    except OSError:
      raise Gone

  def read_line(self):
    data = b''
    while not data.endswith(b'\n'):
      data += self.receive()
    return json.loads(data)


def move_away(fd):
  """A copy of a descriptor that processes started by an environment do not inherit."""
  return fcntl.fcntl(fd, fcntl.F_DUPFD_CLOEXEC, 10)


def lifeline(ask, *others):
  """The descriptor that the trainer names; None if what started this process has closed it, so that its
  number means nothing, or stands for one of the `others`."""
  try:
    line = os.fstat(ask['lifeline'])
  except (KeyError, TypeError, OSError):
    line = None
  pipes = [os.fstat(fd).st_ino for fd in others]
  if line and stat.S_ISFIFO(line.st_mode) and line.st_ino not in pipes:
    return ask['lifeline']
  print('no lifeline: a worker that hangs may outlive the trainer', file=sys.stderr)
  return None


def watch(line):
  """Ends this process, with its group if it leads one, when the lifeline closes: by the kernel
  where that is possible, which works even in foreign code that never returns."""
  target = -os.getpid() if os.getpgrp() == os.getpid() else os.getpid()
  line, given = move_away(line), line
  os.close(given)
  if sys.platform == 'linux':
    try:
      # Signals are set per open file, which workers may share, so this opens one of our own.
      own = os.open(f'/proc/self/fd/{line}', os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
      os.close(line)
      line = own
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


def describe(e):
  """An exception as one line. Its traceback goes to the log, which the trainer then shows, unless it
  is a Problem, whose sentence says enough."""
  plain = isinstance(e, Problem)
  if not plain:
    traceback.print_exception(type(e), e, e.__traceback__)
  text = str(e) if plain else f'{type(e).__name__}: {e}'
  text = ' '.join(text.split())[:1000].encode(errors='replace').decode()  # JSON has no lone surrogates.
  out = {'error': text, 'log': not plain}
  if getattr(e, 'cure', None):
    out['cure'] = e.cure
  sys.stderr.flush()
  return json.dumps(out).encode() + b'\n'


def build(ask, made):
  """The environments that were asked for: a VectorEnv or a list of Env. `made` takes each in at once."""
  from . import suites
  if ask.get('version') != VERSION:
    raise Problem(f"the trainer speaks version {ask.get('version')} of the protocol, this package "
                  f'version {VERSION}: install the one that comes with the trainer')
  slots, seed, index = (int(ask.get(key, default))
                        for key, default in (('slots', 1), ('seed', 0), ('index', 0)))

  def make(i):
    made.append(suites.make(ask['task'], dict(ask.get('options') or {}), dict(ask.get('kwargs') or {}),
                            seed + i, index + i, slots))
    return made[-1]

  first = make(0)
  if isinstance(first, VectorEnv):
    if first.count != slots:
      raise Problem(f"'{ask['task']}' holds {first.count} environments in one, where {slots} were "
                    f'asked for: set --env.slots {first.count}, and --run.envs to a multiple of that')
    return first
  envs = [first] + [make(i) for i in range(1, slots)]
  check_alike(envs)
  return envs


def serve(wire, envs, memory):
  """Steps independent environments as they are asked for. Each write wakes the trainer, so answers of
  quick environments are sent together, but those of slow ones at once, to be read meanwhile. A quick
  answer may wait for a slow step after it, as the trainer needs all answers before it goes on."""
  steps = [env.step for env in envs]
  get, put, now = memory.get, memory.put, time.perf_counter
  while True:
    asked = wire.receive()
    done, since = b'', now()
    try:
      for slot in asked:
        put(slot, steps[slot](get(slot)))
        done += BYTES[slot]
        if now() - since > PATIENCE:
          wire.send(done)
          done, since = b'', now()
    finally:  # Also before a fault of the next one is reported.
      wire.send(done)


def serve_together(wire, env, memory):
  """Steps environments that step only together, each time all were asked for."""
  slots = range(memory.slots)
  while True:
    asked = b''
    while len(asked) < len(slots):
      asked += wire.receive()
    if sorted(asked) != list(slots):
      raise Problem(f'these environments step together, but slots {list(asked)} were asked for')
    observations = list(env.step([memory.get(slot) for slot in slots]))
    if len(observations) != len(slots):
      raise Problem(f'{len(slots)} environments that step together returned {len(observations)} observations')
    for slot, obs in zip(slots, observations):
      memory.put(slot, obs)
    wire.send(asked)


def prepare(wire, ask, made):
  """Makes the environments that the trainer asks for, with their memory, and answers it."""
  env = build(ask, made)
  one, slots = (env, env.count) if isinstance(env, VectorEnv) else (env[0], len(env))
  memory = Memory(one.act_space, one.obs_space, slots)
  try:
    answer = {'version': VERSION, **memory.answer(isinstance(env, VectorEnv))}
    wire.send(json.dumps(answer).encode() + b'\n')
  except Gone:
    memory.remove()
    raise
  return env, memory


def close(envs):
  """One that cannot close must not keep others from it. What it prints is lost: it must not displace the
  words before a fault from the end of the log."""
  with open(os.devnull, 'wb') as nowhere:
    os.dup2(nowhere.fileno(), 1)
    os.dup2(nowhere.fileno(), 2)
  for env in envs:
    try:
      if hasattr(env, 'close'):  # An environment that only looks like an Env need not have it.
        env.close()
    except Exception:
      traceback.print_exc()


def work(wire, ask):
  """Serves the trainer until it is gone; returns the status to exit with."""
  made, started = [], False
  try:
    env, memory = prepare(wire, ask, made)
    started = True
    try:
      (serve_together if isinstance(env, VectorEnv) else serve)(wire, env, memory)
    except Gone:
      memory.remove()
      raise
  except Gone:
    close(made)
    return 0
  except BaseException as e:
    words = (FAULT if started else b'') + describe(e)
    if not started:
      close(made)  # Before the trainer knows, and ends what failed to start.
    try:
      wire.send(words)
    except Gone:
      pass
    if started:
      close(made)  # For which the trainer grants some time: motors stop, simulators end.
    return 1


def leave_to_parent(*files):
  """Closes files in a forked child, which would hide from the trainer that this process has ended."""
  for file in files:
    try:
      os.close(file)
    except OSError:
      pass


def main():
  wire = Wire()
  try:
    ask = wire.read_line()
  except (Gone, ValueError):
    sys.exit(ALONE)
  files = [wire.asks, wire.answers]
  line = lifeline(ask, *files)
  if line is not None:
    files.append(watch(line))
  os.register_at_fork(after_in_child=lambda: leave_to_parent(*files))
  status = work(wire, ask)
  # Ends this process in ten seconds even if something, such as a thread of an environment, keeps it alive.
  signal.signal(signal.SIGALRM, signal.SIG_DFL)
  signal.alarm(10)
  sys.exit(status)
