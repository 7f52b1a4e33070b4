"""Images of another size, each pixel the mean of the area that it stands for."""

import numpy as np

from .env import Problem


def weights(old, new):
  """A matrix [new, old] that averages each of `new` equal parts of a line of `old` samples."""
  edges = np.arange(new + 1) * old / new
  start = np.maximum(edges[:-1, None], np.arange(old))
  stop = np.minimum(edges[1:, None], np.arange(1, old + 1))
  return (np.maximum(stop - start, 0) * new / old).astype(np.float32)


def resizer(shape, size):
  """A function from images of `shape`, [height, width, channels], to ones of `size`, [height,
  width]; a value of another shape is passed as it is."""
  (height, width, channels), (rows, cols) = shape, size
  vertical = weights(height, rows)
  horizontal = weights(width, cols)

  def resize(image):
    image = np.asarray(image)
    if image.shape != (height, width, channels):
      return image
    if image.dtype != np.uint8 and (image.dtype.kind not in 'biu' or image.min() < 0 or image.max() > 255):
      raise Problem(f'an image is {image.dtype} from {image.min()} to {image.max()}, but its space says uint8')
    out = vertical @ image.reshape(height, -1).astype(np.float32)
    out = horizontal @ out.reshape(rows, width, channels)
    return (out + 0.5).astype(np.uint8)

  return resize
