"""Pictures of any mode as pixels: deep ones keep their levels, transparent ones lie on a ground, all become squares."""

import io

import numpy as np

from diffjax.errors import InputError

__all__ = ['DEEPEST', 'check_colour', 'decoded', 'square']

DEEPEST = 65535  # white where a pixel has 16 bits


def check_colour(field: str, colour: str) -> None:
  """Refuse what is no opaque colour.

  Raises:
    InputError: Pillow knows no such colour, or one can see through it.
  """
  from PIL import ImageColor

  try:
    opaque = len(ImageColor.getrgb(colour)) == 3
  except (ValueError, TypeError, AttributeError):  # the last two: no text
    opaque = False
  if not opaque:
    raise InputError(f"{field}: got {colour!r}; allowed: an opaque colour, such as 'white' or '#808080'")


def decoded(file: bytes, channels: int, background: str) -> tuple[np.ndarray, int]:
  """The pixels (H, W, channels) of an image file, upright, with the number that is white; 0 is black.

  uint8 and 255; of Pillow's modes I;16 and I float32 and 65535; of F float32 and 1. What is transparent is composed on
  `background`, a colour. One channel is the luminance, three of a grey picture are equal.

  Raises:
    InputError: a number below black or above white, or a transparent colour of 16 bits. OSError, SyntaxError: no
      picture.
  """
  from PIL import Image, ImageColor, ImageOps

  image = ImageOps.exif_transpose(Image.open(io.BytesIO(file)))
  mode = 'RGB' if channels == 3 else 'L'
  if image.mode == 'F' or image.mode.startswith('I'):
    white = 1 if image.mode == 'F' else DEEPEST
    x = np.asarray(image, np.float32)[..., None]
    if not (x.min() >= 0 and x.max() <= white):
      raise InputError(f'mode {image.mode} with numbers from {x.min():g} to {x.max():g}; allowed: 0 to {white}')
    clear = image.info.get('transparency')
    if clear is not None:
      ground = np.asarray(ImageColor.getcolor(background, mode), np.float32) * (white / 255)
      x = np.where(x == clear, ground, x)
    return np.broadcast_to(x, (*x.shape[:2], channels)), white
  if image.has_transparency_data:
    clear = image.info.get('transparency')
    if isinstance(clear, tuple) and max(clear) > 255:  # Pillow has cut the pixels to 8 bits, and would not find it
      raise InputError(f'the transparent colour {clear} is of 16 bits; allowed: of 8 bits, or an alpha channel')
    image = image.convert('RGBA')
    image = Image.alpha_composite(Image.new('RGBA', image.size, background), image)
  return np.asarray(image.convert(mode)).reshape(image.height, image.width, channels), 255


def square(x: np.ndarray, size: int, limits: tuple[float, float]) -> np.ndarray:
  """The centre square of pixels (H, W, C), antialiased to (size, size, C): uint8 of uint8, float32 of all else.

  The filter overshoots at edges; that is cut to `limits`, or to the range of x where it is wider.
  """
  from PIL import Image

  side = min(x.shape[:2])
  top, left = (x.shape[0] - side) // 2, (x.shape[1] - side) // 2
  # Cropped before it is resized: the filter of ImageOps.fit would reach into what is cut off.
  x = x[top : top + side, left : left + side]
  x = x if x.dtype == np.uint8 else x.astype(np.float32)
  channels = [Image.fromarray(np.ascontiguousarray(c)) for c in np.moveaxis(x, -1, 0)]
  out = np.stack([np.asarray(c.resize((size, size), Image.Resampling.LANCZOS)) for c in channels], -1)
  return out if x.dtype == np.uint8 else out.clip(min(limits[0], x.min()), max(limits[1], x.max()))
