"""LoadColorImage: every odd kind of image file, written here and read back."""

import io
from pathlib import Path

import cv2
import numpy as np
import pytest
from mmpretrain.registry import TRANSFORMS
from PIL import Image

from hgkd_mm.datasets import LoadColorImage, UnreadableImageError
from hgkd_mm.datasets.loading import BACKGROUND


def load(path: Path, **options: object) -> np.ndarray:
    results = LoadColorImage(channel_order='rgb', **options)({'img_path': str(path)})
    image = results['img']
    assert image.dtype == np.uint8 and image.flags.c_contiguous
    assert results['img_shape'] == results['ori_shape'] == image.shape[:2]
    assert image.shape[2:] == (3,)
    return image


def colors(height: int = 6, width: int = 9) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8)


def assert_constant(image: np.ndarray, rgb: tuple[int, int, int], within: int = 0) -> None:
    assert np.abs(image.astype(int) - rgb).max() <= within


def test_bgr_by_default_as_mmcv_loads(tmp_path: Path) -> None:
    rgb = colors()
    Image.fromarray(rgb).save(tmp_path / 'a.png')
    ours = TRANSFORMS.build({'type': 'LoadColorImage'})({'img_path': str(tmp_path / 'a.png')})
    mmcv = TRANSFORMS.build({'type': 'LoadImageFromFile'})({'img_path': str(tmp_path / 'a.png')})
    assert set(ours) == set(mmcv)
    np.testing.assert_array_equal(ours['img'], rgb[..., ::-1])
    np.testing.assert_array_equal(ours['img'], mmcv['img'])
    assert ours['img_shape'] == mmcv['img_shape'] == ours['ori_shape'] == (6, 9)


@pytest.mark.parametrize('suffix', ['.png', '.bmp', '.tif', '.webp'])
def test_lossless_formats(tmp_path: Path, suffix: str) -> None:
    rgb = colors()
    options = {'lossless': True} if suffix == '.webp' else {}
    Image.fromarray(rgb).save(tmp_path / f'a{suffix}', **options)
    np.testing.assert_array_equal(load(tmp_path / f'a{suffix}'), rgb)


def test_gray_and_bilevel(tmp_path: Path) -> None:
    gray = colors()[..., 0]
    for name, pixels in (('gray', gray), ('bits', gray > 127)):
        Image.fromarray(pixels).save(tmp_path / f'{name}.png')
        wanted = np.stack([pixels * (255 if name == 'bits' else 1)] * 3, axis=2)
        np.testing.assert_array_equal(load(tmp_path / f'{name}.png'), wanted)


@pytest.mark.parametrize('transparent', [False, True])
def test_palette(tmp_path: Path, transparent: bool) -> None:
    image = Image.new('P', (2, 1))
    image.putpalette([10, 20, 30, 200, 100, 50])
    image.putdata([1, 0])
    image.save(tmp_path / 'a.png', **({'transparency': 1} if transparent else {}))
    first = list(BACKGROUND) if transparent else [200, 100, 50]
    assert load(tmp_path / 'a.png').tolist() == [[first, [10, 20, 30]]]


def test_alpha_is_laid_on_the_background(tmp_path: Path) -> None:
    # The hidden color is loud, so that showing it would be noticed.
    rgba = np.array([[[255, 0, 255, 0], [255, 0, 255, 255], [200, 100, 0, 51]]], np.uint8)
    Image.fromarray(rgba).save(tmp_path / 'a.png')
    found = load(tmp_path / 'a.png').astype(int)
    np.testing.assert_array_equal(found[0, :2], [BACKGROUND, [255, 0, 255]])
    # 51 / 255 = 0.2: 0.2 * (200, 100, 0) + 0.8 * (124, 116, 104)
    assert np.abs(found[0, 2] - [139.2, 112.8, 83.2]).max() <= 1
    Image.fromarray(np.array([[[80, 255], [80, 0]]], np.uint8), mode='LA').save(tmp_path / 'b.png')
    assert load(tmp_path / 'b.png').tolist() == [[[80, 80, 80], list(BACKGROUND)]]
    normalized = (np.array(BACKGROUND) - [123.675, 116.28, 103.53]) / [58.395, 57.12, 57.375]
    assert np.abs(normalized).max() < 0.01


@pytest.mark.parametrize('suffix', ['.png', '.tif'])
def test_16_bit_gray_is_scaled_not_clipped(tmp_path: Path, suffix: str) -> None:
    grey = np.array([[0, 256, 257, 32768, 65535]], np.uint16)
    cv2.imwrite(str(tmp_path / f'a{suffix}'), grey)
    # 257 * k is level k: 256 rounds to 1, 32768 is 127.5 and something
    assert load(tmp_path / f'a{suffix}')[0, :, 1].tolist() == [0, 1, 1, 128, 255]


def test_big_endian_16_bit_tiff(tmp_path: Path) -> None:
    grey = np.array([[0, 257 * 40, 65535]], np.uint16)
    image = Image.frombytes('I;16B', (3, 1), grey.astype('>u2').tobytes())
    image.save(tmp_path / 'a.tif')
    assert load(tmp_path / 'a.tif')[0, :, 0].tolist() == [0, 40, 255]


@pytest.mark.parametrize('suffix', ['.png', '.tif'])
@pytest.mark.parametrize('channels', [3, 4])
def test_16_bit_colour(tmp_path: Path, suffix: str, channels: int) -> None:
    bgr = colors().astype(np.uint16) * 257
    alpha = np.full((*bgr.shape[:2], 1), 65535, np.uint16)
    written = np.concatenate([bgr, alpha], axis=2)[..., :channels]
    assert cv2.imwrite(str(tmp_path / f'a{suffix}'), written)
    np.testing.assert_array_equal(load(tmp_path / f'a{suffix}'), colors()[..., ::-1])


def test_cmyk(tmp_path: Path) -> None:
    # No cyan, all magenta, all yellow: red.
    Image.new('CMYK', (16, 16), (0, 255, 255, 0)).save(tmp_path / 'a.jpg')
    assert_constant(load(tmp_path / 'a.jpg'), (255, 0, 0), within=3)


@pytest.mark.parametrize(
    ('orientation', 'upright'),
    [
        (2, lambda a: a[:, ::-1]),
        (5, lambda a: a.swapaxes(0, 1)),
        (6, lambda a: np.rot90(a, -1)),
    ],
)
def test_exif_orientation(tmp_path: Path, orientation: int, upright: object) -> None:
    rgb = colors()
    exif = Image.Exif()
    exif[0x0112] = orientation
    Image.fromarray(rgb).save(tmp_path / 'a.png', exif=exif)
    np.testing.assert_array_equal(load(tmp_path / 'a.png'), upright(rgb))


def test_first_frame_of_an_animation(tmp_path: Path) -> None:
    frames = [Image.new('RGB', (8, 8), colour) for colour in ((0, 0, 255), (255, 0, 0))]
    frames[0].save(tmp_path / 'a.webp', save_all=True, append_images=frames[1:], lossless=True)
    assert_constant(load(tmp_path / 'a.webp'), (0, 0, 255))


def encoded(suffix: str) -> bytes:
    noise = np.random.default_rng(1).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(noise).save(buffer, format=suffix)
    return buffer.getvalue()


@pytest.mark.parametrize('kind', ['JPEG', 'PNG', 'WEBP', 'TIFF'])
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
