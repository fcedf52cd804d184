"""ONNX files, through torch's own exporter, which onnxruntime runs as torch does."""

from __future__ import annotations

import inspect
import io
import math
import warnings
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

# the first with LayerNormalization; torch 2.1 writes it too
OPSET = 17
INPUT = 'images'
# of onnxruntime's maps from the network's, relative to the largest value of each
_TOLERANCE = 2e-5


def onnx_bytes(
    network: nn.Module, metadata: Mapping[str, str], *, size: tuple[int, int], step: int = 32
) -> tuple[bytes, dict[str, str]]:
    """The network as an ONNX model, which onnxruntime was seen to run as torch does.

    Its input is ``images``, (B, 3, H, W) float32, normalized as in training; its outputs are
    ``map0``, ``map1``, ... in the order of the network's. Torch writes what a network computes in
    Python as the numbers of the traced image, so the model is run on random images of other
    shapes, and what does not hold there is fixed: padding to a multiple, height and width, B.

    Args:
        network: that takes images and gives a sequence of maps; in eval mode, on the CPU.
        metadata: goes into the model's ``metadata_props``.
        size: height and width in pixels of the image that the network is traced with.
        step: multiple of pixels that a network which pads takes without padding.

    Returns:
        The model, and what is free in its input, which is in its ``metadata_props`` too:
        ``input_size``, 'free', 'multiples of 32' or '224x224', and ``batch_size``, 'free' or '1'.

    Raises:
        ValueError: the network does not take the size, torch cannot write a layer of it, or its
            model gives other maps even with the traced shape.
        ImportError: onnxruntime is not installed.
    """
    height, width = size
    # A ViT resizes its positions in the trace only if the traced size is another than its own.
    other, fixed = (height + step, width + 2 * step), f'{height}x{width}'
    multiples = [(2, height, width), (3, height + 2 * step, width + step)]
    any_size = [*multiples, (1, height + 11, width + 5)]
    # traced size, axes that get no fixed length, shapes that then have to give the network's
    # maps, and what the model says of its input
    trials = (
        (other, {0, 2, 3}, any_size, 'free', 'free'),
        (other, {0, 2, 3}, multiples, f'multiples of {step}', 'free'),
        (size, {0}, [(2, *size)], fixed, 'free'),
        (size, set(), [(1, *size)], fixed, '1'),
    )
    for traced, free, shapes, input_size, batch_size in trials:
        found = {'input_size': input_size, 'batch_size': batch_size}
        try:
            content = _traced(network, {**metadata, **found}, size=traced, free=free)
            for shape in shapes:
                _check(content, network, shape)
        except ValueError as error:
            problem = error
        else:
            return content, found
    raise problem


def _traced(
    network: nn.Module, metadata: Mapping[str, str], *, size: tuple[int, int], free: set[int]
) -> bytes:
    """The model whose axes in ``free`` have no fixed length."""
    import onnx  # takes time, and other targets do without

    images = torch.zeros(1, 3, *size)
    # The newer exporter needs onnxscript and does not exist in torch 2.1.
    parameters = inspect.signature(torch.onnx.export).parameters
    choice: dict[str, Any] = {'dynamo': False} if 'dynamo' in parameters else {}
    file = io.BytesIO()
    try:
        with torch.no_grad(), warnings.catch_warnings():
            warnings.simplefilter('ignore')
            maps = {f'map{index}': value for index, value in enumerate(network(images))}
            torch.onnx.export(
                network,
                (images,),
                file,
                input_names=[INPUT],
                output_names=list(maps),
                dynamic_axes=_free_axes(maps, free),
                opset_version=OPSET,
                **choice,
            )
    except Exception as error:  # whatever a network raises at a size that it does not take
        reason = str(error).strip().split('\n')[0]
        raise ValueError(
            f'torch {torch.__version__} cannot write this network as ONNX with images of '
            f'{size[0]}x{size[1]} pixels (--size): {reason}'
        ) from error
    model = onnx.load_from_string(file.getvalue())
    onnx.helper.set_model_props(model, dict(metadata))
    return model.SerializeToString()


def _free_axes(maps: Mapping[str, Tensor], free: set[int]) -> dict[str, dict[int, str]]:
    """Names of the axes of input and outputs, tokens or maps, that have no fixed length."""
    axes = {INPUT: {0: 'batch', 2: 'height', 3: 'width'}}
    for name, value in maps.items():
        places = {3: {1: f'{name}_tokens'}, 4: {2: f'{name}_height', 3: f'{name}_width'}}
        axes[name] = {0: 'batch', **places.get(value.ndim, {})}
    return {
        name: {axis: text for axis, text in own.items() if axis in free}
        for name, own in axes.items()
    }


def _check(content: bytes, network: nn.Module, shape: tuple[int, int, int]) -> None:
    """Compares an ONNX model with the network on random images of a shape (B, height, width).

    Raises:
        ValueError: onnxruntime does not run it, or its maps are not the network's.
    """
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4  # a shape that is not taken is an answer here
    images, height, width = shape
    batch = torch.randn(images, 3, height, width, generator=torch.Generator().manual_seed(0))
    try:
        session = onnxruntime.InferenceSession(content, options, providers=['CPUExecutionProvider'])
        with torch.no_grad():
            expected = network(batch)
        found = [torch.from_numpy(value) for value in session.run(None, {INPUT: batch.numpy()})]
    except Exception as error:  # whatever the network or onnxruntime raises at such a shape
        raise ValueError(
            f'The network does not run on {shape} (images, height, width): {error}'
        ) from error
    differences = [
        (value - own).abs().max() / own.abs().max().clamp(min=torch.finfo(own.dtype).tiny)
        if value.shape == own.shape
        else torch.tensor(math.inf)
        for value, own in zip(found, expected, strict=True)
    ]
    difference = torch.stack(differences).max().item()
    # not >, since it may be NaN
    if not difference <= _TOLERANCE:
        raise ValueError(
            f'onnxruntime does not give the maps of this network for {images} images of '
            f'{height}x{width} pixels: they differ by {difference:.1e} of their largest value '
            f'(inf: in their shape), and {_TOLERANCE:.0e} is allowed.'
        )
