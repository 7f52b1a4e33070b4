"""Image sizes, for several suites."""

import numpy as np

from ..env import Problem


def resizer(method, size):
  """A function that brings an image to [height, width], as the official wrappers do."""
  height, width = size
  if method == 'pillow':
    from PIL import Image
    def resize(image):
      return np.asarray(Image.fromarray(image).resize((width, height), Image.BILINEAR))
  elif method == 'opencv':
    try:
      import cv2
    except ImportError:
      raise Problem('`resize: opencv` needs OpenCV', cure='pip install opencv-python-headless')
    def resize(image):
      return cv2.resize(image, (width, height), interpolation=cv2.INTER_AREA)
  else:
    raise Problem(f"`resize` is pillow or opencv, not '{method}'")
  return resize
