"""Records what dm_control computes, for the tests of crates/envs/src/tasks/dmc/native: `python3 record.py`
writes recorded.json, a line for each task and seed."""

import importlib.metadata
import json
import os
import pathlib
import platform

os.environ['MUJOCO_GL'] = 'disabled'

import numpy as np  # noqa: E402
from dm_control import suite  # noqa: E402

TASKS = {
    'acrobot': ['swingup'], 'ball_in_cup': ['catch'],
    'cartpole': ['balance', 'balance_sparse', 'swingup', 'swingup_sparse'], 'cheetah': ['run'],
    'finger': ['spin', 'turn_easy', 'turn_hard'], 'hopper': ['stand', 'hop'],
    'pendulum': ['swingup'], 'quadruped': ['walk', 'run'], 'reacher': ['easy', 'hard'],
    'walker': ['stand', 'walk', 'run']}
SEEDS = (0, 1)
STEPS = 200
SHOWN = (0, STEPS)  # Steps whose values are recorded; of all of them, the sums are.


def action(spec, step):
  """Numbers that are easily made elsewhere, the same for every task."""
  x = np.array([(7 * step + 3 * i + step * step // 16) % 13 / 12 for i in range(spec.shape[0])])
  return spec.minimum + x * (spec.maximum - spec.minimum)


def flat(observation):
  return np.concatenate([np.ravel(x) for x in observation.values()])


def record(domain, task, seed):
  env = suite.load(domain, task, task_kwargs={'random': seed})
  rewards, values, shown = 0.0, 0.0, []
  for episode in range(2):  # The second begins with what the random generator holds after the first.
    last = env.reset()
    for step in range(STEPS + 1):
      if step:
        last = env.step(action(env.action_spec(), step))
        rewards += last.reward
      seen = flat(last.observation)
      for x in seen.tolist():  # In order, as sums depend on it.
        values += abs(x)
      if step in SHOWN[episode:]:
        shown.append(seen.tolist())
  return {'task': f'{domain}_{task}', 'seed': seed, 'keys': {
      k: list(np.shape(x)) for k, x in last.observation.items()}, 'rewards': rewards,
      'values': values, 'shown': shown}


if __name__ == '__main__':
  versions = {x: importlib.metadata.version(x) for x in ('dm_control', 'mujoco', 'numpy')}
  lines = [json.dumps({**versions, 'machine': platform.machine()})]
  for domain, tasks in TASKS.items():
    lines += [json.dumps(record(domain, task, seed)) for task in tasks for seed in SEEDS]
  path = pathlib.Path(__file__).with_name('recorded.json')
  path.write_text('[\n' + ',\n'.join(lines) + '\n]\n')
