"""Runs the worker: `python3 -m dreamer_envs`, started by the trainer."""

import os

# Many workers run side by side; threads within each would only be in one another's way.
for name in ('OMP_NUM_THREADS', 'OPENBLAS_NUM_THREADS', 'MKL_NUM_THREADS'):
  os.environ.setdefault(name, '1')

from .worker import main  # noqa: E402

main()
