"""Steps one environment, or one vector of them, without a trainer, for `dreamer bench --env`. For each
line that it reads, a number of seconds, it takes random actions for that long and prints the steps per
second. It ends with its input."""

import json
import os
import sys
import time

import numpy as np

from . import suites
from .env import Problem, VectorEnv
from .spaces import sample
from .worker import lifeline, watch


def main(text):
  answers = os.fdopen(os.dup(1), 'w', buffering=1)
  os.dup2(2, 1)  # Keeps what an environment prints apart from the answers.
  ask = json.loads(text)
  line = lifeline(ask, 0, answers.fileno())
  if line is not None:
    watch(line)
  try:
    env = suites.make(ask['task'], ask.get('options') or {}, ask.get('kwargs') or {},
                      ask['seed'], ask['index'], ask.get('slots') or 1)
  except Problem as e:
    sys.exit(f'{e}: {e.cure}' if e.cure else str(e))
  rng = np.random.default_rng(ask['seed'])
  choices = [sample(env.act_space, rng) for _ in range(64)]
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
  env.close()
