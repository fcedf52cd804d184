"""Loads whatever people keep in image folders as 8-bit, three-channel, upright pictures."""

import io
from typing import Literal

import numpy as np
from mmcv.transforms import BaseTransform
from mmengine import fileio
from mmpretrain.registry import TRANSFORMS
from PIL import Image, ImageOps, UnidentifiedImageError

# Seen through transparency: ImageNet's mean, which is zero after the usual normalization.
BACKGROUND = (124, 116, 104)


class UnreadableImageError(OSError):
    """A file that cannot be turned into a picture; the message names it and the reason."""


@TRANSFORMS.register_module()
class LoadColorImage(BaseTransform):
    """Loads an image file of any common kind as (H, W, 3) uint8.

    Takes the place of ``LoadImageFromFile`` where files are not known to be plain 8-bit RGB.
    mmcv's cv2 decoder fills the missing part of a truncated JPEG with gray and shows the colors
    hidden below transparency; its pillow decoder clips 16-bit gray to white. Here:

    - gray, bilevel, palette, CMYK and YCbCr images are converted to RGB;
    - transparency is laid on ImageNet's mean color;
    - 16-bit gray is scaled by 255 / 65535; 16-bit color keeps its high byte, which is the same to
      within one level;
    - the EXIF (or TIFF, or XMP) orientation is applied, and the shapes are those after it;
    - of an animation or a multi-page file the first frame is taken;
    - truncated and damaged files, 32-bit integer and float images (whose white is unknown) and
      sizes that Pillow takes for a decompression bomb are refused.

    Reads through mmengine's file backends. Required key: ``img_path``. Sets ``img``,
    ``img_shape`` and ``ori_shape`` ((H, W), pixels).

    Args:
        channel_order: Of the result. 'bgr' is what mmpretrain's preprocessors with
            ``to_rgb=True`` expect.
        backend_args: Of mmengine's file backend; chosen by the path's prefix if None.

    Raises:
        UnreadableImageError: By the call: the file cannot be read or decoded.
    """

    def __init__(
        self,
        *,
        channel_order: Literal['bgr', 'rgb'] = 'bgr',
        backend_args: dict | None = None,
    ) -> None:
        self.channel_order = channel_order
        self.backend_args = backend_args

    def transform(self, results: dict) -> dict:
        """Adds the image and its shape to ``results``."""
        path = results['img_path']
        # On damaged files Pillow raises nearly anything: OSError, SyntaxError, struct.error, ...
        try:
            with Image.open(io.BytesIO(fileio.get(path, self.backend_args))) as image:
                rgb = _to_rgb(image)
        except UnidentifiedImageError as error:  # its own message names a buffer in memory
            raise UnreadableImageError(
                f'{path} cannot be read as an image (it is empty or of no known format).'
            ) from error
        except Exception as error:
            raise UnreadableImageError(
                f'{path} cannot be read as an image ({type(error).__name__}: {error}).'
            ) from error
        bgr = self.channel_order == 'bgr'
        results['img'] = np.ascontiguousarray(rgb[..., ::-1]) if bgr else rgb
        results['img_shape'] = results['ori_shape'] = rgb.shape[:2]
        return results


def _to_rgb(image: Image.Image) -> np.ndarray:
    upright = ImageOps.exif_transpose(image)
    if upright.mode.startswith('I;16'):
        gray = np.asarray(upright).astype(np.float32) * (255 / 65535)
        return np.repeat(np.rint(gray).astype(np.uint8)[..., None], 3, axis=2)
    if upright.mode in ('I', 'F'):
        raise ValueError(
            f'its pixels are 32-bit (mode {upright.mode}), and nothing says which value is '
            'white; convert it to 8 or 16 bits'
        )
    if upright.has_transparency_data:
        ground = Image.new('RGBA', upright.size, (*BACKGROUND, 255))
        upright = Image.alpha_composite(ground, upright.convert('RGBA'))
    return np.array(upright.convert('RGB'))
