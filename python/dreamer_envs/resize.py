"""Images of another size, each pixel the mean of the area that it stands for."""

import numpy as np


def weights(old, new):
  """A matrix [new, old] that averages each of `new` equal parts of a line of `old` samples."""
  edges = np.arange(new + 1) * old / new
  start = np.maximum(edges[:-1, None], np.arange(old))
  stop = np.minimum(edges[1:, None], np.arange(1, old + 1))
  return (np.maximum(stop - start, 0) * new / old).astype(np.float32)


def fits(image):
  return image.dtype.kind in 'biu' and image.min() >= 0 and image.max() <= 255


def resizer(shape, size):
  """A function from images of `shape`, [height, width, channels], to ones of `size`, [height,
  width]; what is none, by its shape or its values, is passed as it is."""
  (height, width, channels), (rows, cols) = shape, size
  vertical = weights(height, rows)
  horizontal = weights(width, cols)

  def resize(image):
    image = np.asarray(image)
    if image.shape != (height, width, channels) or image.dtype != np.uint8 and not fits(image):
      return image
    out = vertical @ image.reshape(height, -1).astype(np.float32)
    out = horizontal @ out.reshape(rows, width, channels)
    return (out + 0.5).astype(np.uint8)

  return resize
