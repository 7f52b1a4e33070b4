"""Runs the worker: `python3 -m dreamer_envs`, started by the trainer; with `--alone`, one environment
without a trainer."""

import os
import sys

# Many workers run side by side; threads within each would only be in one another's way.
for name in ('OMP_NUM_THREADS', 'OPENBLAS_NUM_THREADS', 'MKL_NUM_THREADS'):
  os.environ.setdefault(name, '1')

if sys.argv[1:2] == ['--alone']:
  from .alone import main
  main(sys.argv[2])
else:
  from .worker import main
  main()
