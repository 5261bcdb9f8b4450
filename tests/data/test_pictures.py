"""Pictures of every mode of Pillow: deep ones keep their levels, transparent ones lie on the ground that is stated."""

import io
import struct
import zlib

import numpy as np
import pytest
from PIL import Image

from diffjax.data import load

RAMP = np.linspace(0, 65535, 16).round().reshape(4, 4)  # 4369 apart
ENDINGS = {'I;16': 'png', 'I;16B': 'tif', 'I': 'tiff', 'F': 'tif'}


def deep(mode, x):
  """Brightness 0 to 1 (H, W) as an image of this mode."""
  if mode == 'F':
    return Image.fromarray(x.astype(np.float32))
  v = (65535 * x).round()
  if mode == 'I':
    return Image.fromarray(v.astype(np.int32))
  return Image.frombytes(mode, x.shape[::-1], v.astype('>u2' if mode == 'I;16B' else '<u2').tobytes())


def read(folder, **options):
  return load('folder', path=str(folder), **options).arrays()['x']


def refused(words, folder, **options):
  with pytest.raises(ValueError) as error:
    read(folder, **options)
  assert all(str(word) in str(error.value) for word in words), str(error.value)


@pytest.mark.parametrize('channels', [1, 3])
@pytest.mark.parametrize('mode', ENDINGS)
def test_deep_greys_keep_their_levels(mode, channels, tmp_path):
  """2 v / 65535 - 1, and 2 v - 1 of floats, in every channel, to the rounding of float32."""
  deep(mode, RAMP / 65535).save(tmp_path / f'a.{ENDINGS[mode]}')
  with Image.open(tmp_path / f'a.{ENDINGS[mode]}') as image:
    assert image.mode == mode
  x = read(tmp_path, size=4, channels=channels)
  want = np.repeat((2 * RAMP / 65535 - 1)[..., None], channels, -1)
  np.testing.assert_allclose(x[0], want, atol=2e-7)


@pytest.mark.parametrize('mode', ENDINGS)
def test_deep_greys_are_cropped_and_resized_as_shallow_ones(mode, tmp_path):
  """A picture of 8 bits and the same in 16 or in floats: apart by the rounding of the filter's two passes alone.

  It is too dull to overshoot, which 8 bits cut after the first pass. That of an edge is cut in the end.
  """
  v = np.random.RandomState(0).randint(90, 160, size=(24, 40))
  edge = np.repeat([[0] * 17 + [255] * 23], 24, 0)
  for name, x in dict(dull=v, edge=edge).items():
    for kind, image in dict(shallow=Image.fromarray(x.astype(np.uint8)), fine=deep(mode, x / 255)).items():
      (tmp_path / name / kind).mkdir(parents=True)
      image.save(tmp_path / name / kind / f'a.{ENDINGS[mode]}')
  shallow, fine = (read(tmp_path / 'dull' / kind, size=10, channels=1) for kind in ('shallow', 'fine'))
  np.testing.assert_allclose(fine, shallow, atol=2 * 1.5 / 255)
  assert np.abs(read(tmp_path / 'edge' / 'fine', size=10, channels=1)).max() == 1


@pytest.mark.parametrize('mode, bad', [('I', -3), ('I', 65536), ('F', 1.5), ('F', -0.01), ('F', np.nan)])
def test_numbers_beyond_black_and_white_are_refused(mode, bad, tmp_path):
  x = np.zeros((4, 4), np.int32 if mode == 'I' else np.float32)
  x[1, 2] = bad
  Image.fromarray(x).save(tmp_path / 'odd.tif')
  refused(['odd.tif', f'mode {mode}', 'allowed: 0 to'], tmp_path, size=4)


HIDDEN = np.random.RandomState(1).randint(256, size=(2, 4, 4, 3)).astype(np.uint8)


def clear(mode, which):
  """A wholly transparent image of this mode with colours hidden in it, number 0 or 1, and how it is saved."""
  rgb = Image.fromarray(HIDDEN[which])
  if mode == 'RGBA':
    rgb.putalpha(0)
    return rgb, {}
  if mode == 'LA':
    return Image.merge('LA', (rgb.convert('L'), Image.new('L', (4, 4), 0))), {}
  image = Image.fromarray(np.full((4, 4), 7 + which, np.uint8))
  if mode == 'P':
    image.putpalette(HIDDEN.tobytes())  # the indices 7 and 8 are two of its colours
    image.info.clear()
    return image, dict(transparency=7 + which)
  if mode == 'I;16':
    return Image.fromarray(np.full((4, 4), 5000 + which, np.uint16)), dict(transparency=5000 + which)
  image = image.convert(mode)
  return image, dict(transparency=image.getpixel((0, 0)))


@pytest.mark.parametrize('background, ground', [(None, (255, 255, 255)), ('#204060', (0x20, 0x40, 0x60))])
@pytest.mark.parametrize('channels', [1, 3])
@pytest.mark.parametrize('mode', ['RGBA', 'LA', 'P', 'L', 'RGB', 'I;16'])
def test_what_is_transparent_is_the_background(mode, channels, background, ground, tmp_path):
  """Wholly transparent pictures are one picture, the ground, whatever colours hide in them."""
  for which in range(2):
    image, how = clear(mode, which)
    assert image.mode == mode
    image.save(tmp_path / f'{which}.png', **how)
  x = read(tmp_path, size=4, channels=channels, **({} if background is None else dict(background=background)))
  luminance = np.round(np.dot(ground, (0.299, 0.587, 0.114)))  # ITU-R 601
  want = 2 * np.array(ground if channels == 3 else luminance) / 255 - 1
  np.testing.assert_allclose(x, np.broadcast_to(want, x.shape), atol=2e-7)


@pytest.mark.parametrize('channels', [1, 3])
def test_ink_on_a_transparent_ground_is_kept(channels, tmp_path):
  """alpha ink + (1 - alpha) ground: black ink on nothing is black on white, grey on black; half is half to a level."""
  ink = np.zeros((4, 4, 4), np.uint8)
  ink[0, :, 3], ink[1, :, 3] = 255, 128
  Image.fromarray(ink).save(tmp_path / 'a.png')
  alpha = ink[..., 3:] / 255
  for ground in (1, -1):
    x = read(tmp_path, size=4, channels=channels, background='white' if ground == 1 else 'black')
    want = np.broadcast_to(-alpha + (1 - alpha) * ground, x[0].shape)
    np.testing.assert_allclose(x[0], want, atol=1.01 * 2 / 255)


@pytest.mark.parametrize('channels', [1, 3])
@pytest.mark.parametrize('mode', ['RGBA', 'LA'])
def test_an_opaque_alpha_changes_nothing(mode, channels, tmp_path):
  plain = Image.fromarray(HIDDEN[0]).convert(mode[:-1])
  for kind, image in dict(plain=plain, alpha=plain.convert(mode)).items():
    (tmp_path / kind).mkdir()
    image.save(tmp_path / kind / 'a.png')
  with Image.open(tmp_path / 'alpha' / 'a.png') as image:
    assert image.mode == mode
  alpha, none = (read(tmp_path / kind, size=4, channels=channels, background='red') for kind in ('alpha', 'plain'))
  np.testing.assert_array_equal(alpha, none)


def test_refusals(tmp_path):
  """A colour that is none or that one can see through, and a transparent colour that Pillow would not find."""
  Image.fromarray(HIDDEN[0]).save(tmp_path / 'a.png')
  for colour in ('whit', '#ffffff80', '', 7, None):
    refused([f'data.background: got {colour!r}', "'white'"], tmp_path, size=4, background=colour)

  def chunk(kind, data):
    return struct.pack('>I', len(data)) + kind + data + struct.pack('>I', zlib.crc32(kind + data))

  pixels = zlib.compress(b'\0' + struct.pack('>3H', 65535, 0, 300))
  png = io.BytesIO()
  png.write(b'\x89PNG\r\n\x1a\n' + chunk(b'IHDR', struct.pack('>IIBBBBB', 1, 1, 16, 2, 0, 0, 0)))
  png.write(chunk(b'tRNS', struct.pack('>3H', 65535, 0, 300)) + chunk(b'IDAT', pixels) + chunk(b'IEND', b''))
  (tmp_path / 'b.png').write_bytes(png.getvalue())
  refused(['b.png', '(65535, 0, 300)', 'alpha channel'], tmp_path, size=1)
