"""Steps one environment, or one vector of them, without a trainer, for `dreamer bench --env`: each
line read, a number of seconds, is answered with the steps a second under random actions."""

import json
import os
import sys
import time

import numpy as np

from . import suites
from .env import Problem, VectorEnv


def actions(space, count, rng):
  """Random actions, each a dict of arrays."""
  def draw(key, each):
    if key == 'reset':
      return np.zeros((), bool)
    if each.dtype.kind == 'b':
      return rng.integers(0, 2, each.shape).astype(bool)
    if each.dtype.kind in 'ui':
      low, high = (0, 256) if each.low is None else (each.low, each.high)
      return rng.integers(low, high, each.shape).astype(each.dtype)
    low, high = (-1 if x is None or not np.isfinite(x).all() else x for x in (each.low, each.high))
    return rng.uniform(low, 1 if each.high is None else high, each.shape).astype(each.dtype)
  return [{key: draw(key, each) for key, each in space.items()} for _ in range(count)]


def main(text):
  answers = os.fdopen(os.dup(1), 'w', buffering=1)
  os.dup2(2, 1)  # What an environment prints is no answer.
  ask = json.loads(text)
  try:
    env = suites.make(ask['task'], ask.get('options') or {}, ask.get('kwargs') or {},
                      ask['seed'], ask['index'], ask.get('slots') or 1)
  except Problem as e:
    sys.exit(f'{e}: {e.cure}' if e.cure else str(e))
  choices = actions(env.act_space, 64, np.random.default_rng(ask['seed']))
  count = 1
  if isinstance(env, VectorEnv):
    count = env.count
    choices = [[choices[(i + j) % len(choices)] for j in range(count)] for i in range(len(choices))]
  env.step(choices[0])
  print('ready', file=answers)
  for line in sys.stdin:
    steps, start = 0, time.perf_counter()
    end = start + float(line)
    while time.perf_counter() < end:
      env.step(choices[steps // count % len(choices)])
      steps += count
    print(steps / (time.perf_counter() - start), file=answers)
