"""Environments for the dreamer trainer, each in a process of its own."""

__version__ = '0.1.0'
__all__ = ['FLAGS', 'Env', 'Problem', 'Space', 'VectorEnv']


def __getattr__(name):
  # Numpy is not imported before the worker has set how many threads it takes.
  if name not in __all__:
    raise AttributeError(f"module '{__name__}' has no attribute '{name}'")
  from . import env
  return getattr(env, name)
