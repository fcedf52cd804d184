"""LoadColorImage: every odd kind of image file, written here and read back."""

import io
from pathlib import Path

import cv2
import numpy as np
import pytest
from mmpretrain.registry import TRANSFORMS
from PIL import Image

from hgkd_mm.datasets import LoadColorImage, UnreadableImageError


def load(path: Path, **options: object) -> np.ndarray:
    results = LoadColorImage(channel_order='rgb', **options)({'img_path': str(path)})
    image = results['img']
    assert image.dtype == np.uint8 and image.flags.c_contiguous
    assert results['img_shape'] == results['ori_shape'] == image.shape[:2]
    assert image.shape[2:] == (3,)
    return image


def colours(height: int = 6, width: int = 9) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8)


def assert_constant(image: np.ndarray, rgb: tuple[int, int, int], within: int = 0) -> None:
    assert np.abs(image.astype(int) - rgb).max() <= within


def test_bgr_by_default_as_mmcv_loads(tmp_path: Path) -> None:
    rgb = colours()
    Image.fromarray(rgb).save(tmp_path / 'a.png')
    ours = TRANSFORMS.build({'type': 'LoadColorImage'})({'img_path': str(tmp_path / 'a.png')})
    mmcv = TRANSFORMS.build({'type': 'LoadImageFromFile'})({'img_path': str(tmp_path / 'a.png')})
    assert set(ours) == set(mmcv)
    np.testing.assert_array_equal(ours['img'], rgb[..., ::-1])
    np.testing.assert_array_equal(ours['img'], mmcv['img'])
    assert ours['img_shape'] == mmcv['img_shape'] == ours['ori_shape'] == (6, 9)


@pytest.mark.parametrize('suffix', ['.png', '.bmp', '.tif', '.webp'])
def test_lossless_formats(tmp_path: Path, suffix: str) -> None:
    rgb = colours()
    options = {'lossless': True} if suffix == '.webp' else {}
    Image.fromarray(rgb).save(tmp_path / f'a{suffix}', **options)
    np.testing.assert_array_equal(load(tmp_path / f'a{suffix}'), rgb)


def test_jpeg(tmp_path: Path) -> None:
    Image.new('RGB', (16, 8), (200, 40, 90)).save(tmp_path / 'a.JPG', format='JPEG', quality=95)
    assert_constant(load(tmp_path / 'a.JPG'), (200, 40, 90), within=3)


def test_grey_and_bilevel(tmp_path: Path) -> None:
    grey = colours()[..., 0]
    Image.fromarray(grey).save(tmp_path / 'grey.png')
    Image.fromarray(grey > 127).save(tmp_path / 'bits.png')
    np.testing.assert_array_equal(load(tmp_path / 'grey.png'), np.stack([grey] * 3, axis=2))
    bits = np.where(grey > 127, 255, 0)
    np.testing.assert_array_equal(load(tmp_path / 'bits.png'), np.stack([bits] * 3, axis=2))


def test_palette(tmp_path: Path) -> None:
    image = Image.new('P', (2, 1))
    image.putpalette([10, 20, 30, 200, 100, 50])
    image.putdata([1, 0])
    image.save(tmp_path / 'a.png')
    assert load(tmp_path / 'a.png').tolist() == [[[200, 100, 50], [10, 20, 30]]]


def test_palette_with_a_transparent_colour(tmp_path: Path) -> None:
    image = Image.new('P', (2, 1))
    image.putpalette([10, 20, 30, 200, 100, 50])
    image.putdata([1, 0])
    image.save(tmp_path / 'a.png', transparency=1)
    found = load(tmp_path / 'a.png', background=(1, 2, 3))
    assert found.tolist() == [[[1, 2, 3], [10, 20, 30]]]


def test_alpha_is_laid_on_the_background(tmp_path: Path) -> None:
    # The hidden colour is loud, so that showing it would be noticed.
    rgba = np.array([[[255, 0, 255, 0], [255, 0, 255, 255], [200, 100, 0, 51]]], np.uint8)
    Image.fromarray(rgba).save(tmp_path / 'a.png')
    found = load(tmp_path / 'a.png', background=(100, 150, 200)).astype(int)
    np.testing.assert_array_equal(found[0, :2], [[100, 150, 200], [255, 0, 255]])
    # 51 / 255 = 0.2: 0.2 * (200, 100, 0) + 0.8 * (100, 150, 200)
    assert np.abs(found[0, 2] - [120, 140, 160]).max() <= 1


def test_default_background_is_about_zero_after_normalisation(tmp_path: Path) -> None:
    Image.new('LA', (3, 2), (255, 0)).save(tmp_path / 'a.png')
    normalised = (load(tmp_path / 'a.png') - [123.675, 116.28, 103.53]) / [58.395, 57.12, 57.375]
    assert np.abs(normalised).max() < 0.01


def test_grey_with_alpha(tmp_path: Path) -> None:
    Image.fromarray(np.array([[[80, 255], [80, 0]]], np.uint8), mode='LA').save(tmp_path / 'a.png')
    found = load(tmp_path / 'a.png', background=(1, 2, 3))
    assert found.tolist() == [[[80, 80, 80], [1, 2, 3]]]


@pytest.mark.parametrize('suffix', ['.png', '.tif'])
def test_16_bit_grey_is_scaled_not_clipped(tmp_path: Path, suffix: str) -> None:
    grey = np.array([[0, 256, 257, 32768, 65535]], np.uint16)
    cv2.imwrite(str(tmp_path / f'a{suffix}'), grey)
    # 257 * k is level k: 256 rounds to 1, 32768 is 127.5 and something
    assert load(tmp_path / f'a{suffix}')[0, :, 1].tolist() == [0, 1, 1, 128, 255]


def test_16_bit_grey_with_the_white_of_12_bits(tmp_path: Path) -> None:
    cv2.imwrite(str(tmp_path / 'a.png'), np.array([[0, 819, 4095, 60000]], np.uint16))
    found = load(tmp_path / 'a.png', white_16bit=4095)
    assert found[0, :, 0].tolist() == [0, 51, 255, 255]  # 819 / 4095 = 0.2


def test_big_endian_16_bit_tiff(tmp_path: Path) -> None:
    grey = np.array([[0, 257 * 40, 65535]], np.uint16)
    image = Image.frombytes('I;16B', (3, 1), grey.astype('>u2').tobytes())
    image.save(tmp_path / 'a.tif')
    assert load(tmp_path / 'a.tif')[0, :, 0].tolist() == [0, 40, 255]


@pytest.mark.parametrize('suffix', ['.png', '.tif'])
@pytest.mark.parametrize('channels', [3, 4])
def test_16_bit_colour(tmp_path: Path, suffix: str, channels: int) -> None:
    bgr = colours().astype(np.uint16) * 257
    alpha = np.full((*bgr.shape[:2], 1), 65535, np.uint16)
    written = np.concatenate([bgr, alpha], axis=2)[..., :channels]
    assert cv2.imwrite(str(tmp_path / f'a{suffix}'), written)
    np.testing.assert_array_equal(load(tmp_path / f'a{suffix}'), colours()[..., ::-1])


@pytest.mark.parametrize('suffix', ['.jpg', '.tif'])
def test_cmyk(tmp_path: Path, suffix: str) -> None:
    # No cyan, all magenta, all yellow: red.
    Image.new('CMYK', (16, 16), (0, 255, 255, 0)).save(tmp_path / f'a{suffix}')
    assert_constant(load(tmp_path / f'a{suffix}'), (255, 0, 0), within=3)


@pytest.mark.parametrize(
    ('orientation', 'upright'),
    [
        (1, lambda a: a),
        (2, lambda a: a[:, ::-1]),
        (3, lambda a: a[::-1, ::-1]),
        (4, lambda a: a[::-1]),
        (5, lambda a: a.swapaxes(0, 1)),
        (6, lambda a: np.rot90(a, -1)),
        (7, lambda a: np.rot90(a, 2).swapaxes(0, 1)),
        (8, lambda a: np.rot90(a)),
    ],
)
def test_exif_orientation(tmp_path: Path, orientation: int, upright: object) -> None:
    rgb = colours()
    exif = Image.Exif()
    exif[0x0112] = orientation
    Image.fromarray(rgb).save(tmp_path / 'a.png', exif=exif)
    np.testing.assert_array_equal(load(tmp_path / 'a.png'), upright(rgb))


def test_exif_orientation_of_a_jpeg_changes_the_shape(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.new('RGB', (40, 16)).save(tmp_path / 'a.jpg', exif=exif)
    assert load(tmp_path / 'a.jpg').shape == (40, 16, 3)


def test_first_frame_of_an_animation(tmp_path: Path) -> None:
    frames = [Image.new('RGB', (8, 8), colour) for colour in ((0, 0, 255), (255, 0, 0))]
    frames[0].save(tmp_path / 'a.webp', save_all=True, append_images=frames[1:], lossless=True)
    assert_constant(load(tmp_path / 'a.webp'), (0, 0, 255))


def encoded(suffix: str) -> bytes:
    noise = np.random.default_rng(1).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(noise).save(buffer, format=suffix)
    return buffer.getvalue()


@pytest.mark.parametrize('kind', ['JPEG', 'PNG', 'WEBP', 'BMP', 'TIFF'])
def test_truncated_files_are_refused_with_their_path(tmp_path: Path, kind: str) -> None:
    content = encoded(kind)
    path = tmp_path / f'half.{kind.lower()}'
    path.write_bytes(content)
    load(path)
    path.write_bytes(content[: len(content) // 2])
    with pytest.raises(UnreadableImageError, match=r'half\.\w+'):
        load(path)


@pytest.mark.parametrize('content', [b'', b'<html>404</html>', b'\x89PNG\r\n\x1a\n' + b'\0' * 40])
def test_no_image_at_all(tmp_path: Path, content: bytes) -> None:
    (tmp_path / 'a.jpg').write_bytes(content)
    with pytest.raises(UnreadableImageError, match=r'a\.jpg') as error:
        load(tmp_path / 'a.jpg')
    assert 'BytesIO' not in str(error.value)


def test_missing_file(tmp_path: Path) -> None:
    with pytest.raises(UnreadableImageError, match=r'gone\.png.*FileNotFound'):
        load(tmp_path / 'gone.png')


@pytest.mark.parametrize('dtype', [np.float32, np.int32])
def test_32_bit_pixels_are_refused(tmp_path: Path, dtype: type) -> None:
    Image.fromarray(np.ones((4, 4), dtype)).save(tmp_path / 'a.tif')
    with pytest.raises(UnreadableImageError, match='32-bit'):
        load(tmp_path / 'a.tif')


def test_reads_through_the_file_backend(tmp_path: Path) -> None:
    Image.new('RGB', (4, 4), (1, 2, 3)).save(tmp_path / 'a.png')
    assert_constant(load(tmp_path / 'a.png', backend_args={'backend': 'local'}), (1, 2, 3))
    with pytest.raises(UnreadableImageError, match='nowhere'):
        load(tmp_path / 'a.png', backend_args={'backend': 'nowhere'})


@pytest.mark.parametrize(
    ('options', 'key'),
    [
        ({'channel_order': 'grb'}, 'channel_order'),
        ({'background': (0, 0, 256)}, 'background'),
        ({'background': (0, 0)}, 'background'),
        ({'white_16bit': 0}, 'white_16bit'),
    ],
)
def test_bad_options(options: dict, key: str) -> None:
    with pytest.raises(ValueError, match=f'LoadColorImage.{key}'):
        LoadColorImage(**options)
