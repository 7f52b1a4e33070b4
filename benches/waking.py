"""How fast sixteen emulators of Pong step when nothing but a byte passes between their processes: each
at will, two at a time in a ring, and all woken and waited for by one program, over pipes and sockets.

    PYTHONPATH=python python3 benches/waking.py
"""

import mmap
import os
import socket
import subprocess
import sys
import time

import numpy as np

COUNT, ROUNDS, SECONDS = 16, 4, 1.5
PAUSE, FREE, RING, PIPES, SOCKETS = range(5)
STEP, LEAVE = b's', b'q'


class Board:
  """What all processes see: the mode, and for each its readiness and its steps."""

  def __init__(self, file):
    numbers = np.ndarray(1 + 2 * COUNT, np.int64, mmap.mmap(file, 8 * (1 + 2 * COUNT)))
    self.mode, self.ready, self.steps = numbers[:1], numbers[1:1 + COUNT], numbers[1 + COUNT:]


def emulator(index, file, hears, speaks, following, sock):
  from dreamer_envs.suites.atari import Atari
  board, env = Board(file), Atari('pong', index)
  actions = [{'reset': False, 'action': i} for i in range(6)]
  ways = {RING: (hears, following), PIPES: (hears, speaks), SOCKETS: (sock, sock)}

  def step():
    env.step(actions[board.steps[index] % 6])
    board.steps[index] += 1

  step()
  board.ready[index] = True
  while True:
    while board.mode[0] == FREE:
      step()
    mode = board.mode[0]
    if mode in ways:
      source, target = ways[mode]
      while os.read(source, 1) == STEP:
        if board.mode[0] == mode:
          step()
          os.write(target, STEP)
    time.sleep(0.01)


def main():
  file = os.memfd_create('board')
  os.truncate(file, 8 * (1 + 2 * COUNT))
  board = Board(file)
  down, up = ([os.pipe() for _ in range(COUNT)] for _ in range(2))
  socks = [socket.socketpair() for _ in range(COUNT)]
  inherited = [
      (file, down[i][0], up[i][1], down[(i + 2) % COUNT][1], socks[i][1].fileno())
      for i in range(COUNT)]
  processes = [
      subprocess.Popen([sys.executable, __file__, str(i), *map(str, fds)], pass_fds=fds,
                       stdout=subprocess.DEVNULL)
      for i, fds in enumerate(inherited)]
  try:
    while not board.ready.all():
      if any(process.poll() is not None for process in processes):
        sys.exit('an emulator has ended: are ale-py and pillow there, and PYTHONPATH=python?')
      time.sleep(0.1)
    compare(board, down, up, socks)
  finally:
    for process in processes:
      process.kill()


def compare(board, down, up, socks):
  def measure(mode, turn, reads=(), writes=(), first=0):
    board.steps[:] = 0
    board.mode[0] = mode
    time.sleep(0.1)
    for fd in writes[:first]:
      os.write(fd, STEP)
    before, start = board.steps.sum(), time.perf_counter()
    while time.perf_counter() < start + SECONDS:
      turn(reads, writes)
    rate = (board.steps.sum() - before) / (time.perf_counter() - start)
    board.mode[0] = PAUSE
    time.sleep(0.3)  # The ring's bytes come to rest.
    for fd in writes:
      os.write(fd, LEAVE)
    time.sleep(0.1)
    return rate

  def wait(reads, writes):
    time.sleep(0.01)

  def wake_all(reads, writes):
    for fd in writes:
      os.write(fd, STEP)
    for fd in reads:
      os.read(fd, 1)

  reads, writes, ends = [r for r, _ in up], [w for _, w in down], [x.fileno() for x, _ in socks]
  kinds = {
      'each at will': lambda: measure(FREE, wait),
      'taking turns': lambda: measure(RING, wait, (), writes, 2),
      'woken by pipes': lambda: measure(PIPES, wake_all, reads, writes),
      'woken by sockets': lambda: measure(SOCKETS, wake_all, ends, ends)}
  best = {name: max(rates) for name, rates in zip(kinds, zip(*[
      [kind() for kind in kinds.values()] for _ in range(ROUNDS)]))}
  for name, rate in best.items():
    print(f"{name:18} {rate:6.0f} steps a second, {100 * rate / best['each at will']:.0f} %")


if len(sys.argv) > 1:
  emulator(*map(int, sys.argv[1:]))
else:
  main()
