#!/usr/bin/env python3
"""Prints the scores of the official repository (https://github.com/danijar/dreamerv3, scores/*-dreamerv3.json.gz) as
`dreamer plot --reference` reads them: python3 benches/scores.py dmc_proprio-dreamerv3.json.gz > SCORES.csv

Such a file is a list of runs with `task`, `seed`, `xs` (environment frames) and `ys` (mean scores up to there)."""

import collections
import gzip
import json
import statistics
import sys

if len(sys.argv) != 2:
  sys.exit(__doc__)
curves = collections.defaultdict(lambda: collections.defaultdict(list))
with gzip.open(sys.argv[1], 'rt') as f:
  for run in json.load(f):
    task = run['task'].split('_', 1)[1]  # without the suite
    for x, y in zip(run['xs'], run['ys']):
      if y is not None and y == y:  # not where a seed has no score
        curves[task][int(x)].append(y)
print('task,frames,mean,sd,seeds')
for task, curve in sorted(curves.items()):
  for frames, scores in sorted(curve.items()):
    print(f'{task},{frames},{statistics.fmean(scores):g},{statistics.pstdev(scores):g},{len(scores)}')
