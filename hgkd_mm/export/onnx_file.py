"""ONNX files, through torch's own exporter, which onnxruntime runs as torch does."""

from __future__ import annotations

import inspect
import io
import math
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, NamedTuple

import torch
from torch import nn

from .loading import Converted
from .openmmlab import to_mmpretrain
from .source import PretrainedBackbone

# the first with LayerNormalization; torch 2.1 writes it too
OPSET = 17
INPUT = 'images'
# of onnxruntime's maps from the network's, relative to the largest value of each
_TOLERANCE = 2e-5


def to_onnx(backbone: PretrainedBackbone) -> Converted:
    """mmpretrain's backbone, which gives one map for each of its ``out_indices``.

    Raises:
        ValueError: the weights do not fit the network of the config.
    """
    converted = to_mmpretrain(backbone)
    return replace(
        converted,
        weights=converted.network.state_dict(),
        load="maps = onnxruntime.InferenceSession({file}).run(None, {'images': images})",
    )


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
        ValueError: onnxruntime is not installed, the network does not take the size, torch cannot
            write a layer of it, or its model gives other maps even with the traced shape.
    """
    height, width = size
    # A ViT resizes its positions in the trace only if the traced size is another than its own.
    other, fixed = (height + step, width + 2 * step), f'{height}x{width}'
    multiples = [(2, height, width), (3, height + 2 * step, width + step)]
    any_size = [*multiples, (1, height + 11, width + 5)]
    trials = (
        _Trial(other, {0, 2, 3}, any_size, 'free', 'free'),
        _Trial(other, {0, 2, 3}, multiples, f'multiples of {step}', 'free'),
        _Trial(size, {0}, [(2, *size)], fixed, 'free'),
        _Trial(size, set(), [(1, *size)], fixed, '1'),
    )
    problem = None
    for trial in trials:
        found = {'input_size': trial.input_size, 'batch_size': trial.batch_size}
        try:
            content = _traced(network, {**metadata, **found}, size=trial.traced, free=trial.free)
            _check(content, network, trial.shapes)
        except ValueError as error:
            problem = error
        else:
            return content, found
    raise ValueError(str(problem)) from problem


class _Trial(NamedTuple):
    """A way to write a network, and the shapes that then have to give its maps.

    Attributes:
        traced: height and width.
        free: axes of the images that get no fixed length.
        shapes: images, height and width of each.
        input_size: what the model says of its input.
        batch_size: the same.
    """

    traced: tuple[int, int]
    free: set[int]
    shapes: list[tuple[int, int, int]]
    input_size: str
    batch_size: str


def _traced(
    network: nn.Module, metadata: Mapping[str, str], *, size: tuple[int, int], free: set[int]
) -> bytes:
    """The model whose axes in ``free`` have no fixed length."""
    import onnx  # takes time, and other targets do without

    images = torch.zeros(1, 3, *size)
    try:
        with torch.no_grad():
            maps = {f'map{index}': value for index, value in enumerate(network(images))}
    except Exception as error:  # whatever a network raises at a size that it does not take
        raise ValueError(
            f'The network does not take images of {size[0]}x{size[1]} pixels (--size): {error}'
        ) from error
    named = {INPUT: {0: 'batch', 2: 'height', 3: 'width'}}
    for name, value in maps.items():
        places = {3: {1: f'{name}_tokens'}, 4: {2: f'{name}_height', 3: f'{name}_width'}}
        named[name] = {0: 'batch', **places.get(value.ndim, {})}
    axes = {
        name: {axis: text for axis, text in own.items() if axis in free}
        for name, own in named.items()
    }
    # The newer exporter needs onnxscript and does not exist in torch 2.1.
    parameters = inspect.signature(torch.onnx.export).parameters
    choice: dict[str, Any] = {'dynamo': False} if 'dynamo' in parameters else {}
    file = io.BytesIO()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter('ignore')
            torch.onnx.export(
                network,
                (images,),
                file,
                input_names=[INPUT],
                output_names=list(maps),
                dynamic_axes=axes,
                opset_version=OPSET,
                **choice,
            )
    except RuntimeError as error:
        reason = str(error).strip().split('\n')[0]
        raise ValueError(
            f'torch {torch.__version__} cannot write this network as ONNX: {reason}'
        ) from error
    model = onnx.load_from_string(file.getvalue())
    onnx.helper.set_model_props(model, dict(metadata))
    return model.SerializeToString()


def _check(content: bytes, network: nn.Module, shapes: Sequence[tuple[int, int, int]]) -> None:
    """Runs an ONNX model on shapes (images, height, width), and compares its maps.

    Raises:
        ValueError: they are not the network's, or onnxruntime is not installed.
    """
    try:
        import onnxruntime
    except ImportError as error:
        raise ValueError(
            'An ONNX file is tried before it is written, and onnxruntime is not installed: '
            'pip install onnxruntime'
        ) from error
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4  # a shape that is not taken is an answer here
    try:
        session = onnxruntime.InferenceSession(content, options, providers=['CPUExecutionProvider'])
        differences = {shape: _difference(session, network, shape) for shape in shapes}
    except Exception as error:  # whatever the network or onnxruntime raises at such a shape
        raise ValueError(
            f'The network does not run on {shapes} (images, height, width): {error}'
        ) from error
    for (images, height, width), difference in differences.items():
        # not >, since it may be NaN
        if not difference <= _TOLERANCE:
            raise ValueError(
                f'onnxruntime does not give the maps of this network for {images} images of '
                f'{height}x{width} pixels: they differ by {difference:.1e} of their largest value '
                f'(inf: in their shape), and {_TOLERANCE:.0e} is allowed.'
            )


def _difference(session: Any, network: nn.Module, shape: tuple[int, int, int]) -> float:
    """How far onnxruntime's maps are from the network's, relative to the largest value of each.

    Infinite if a map has another shape, NaN if one has such a value.
    """
    images, height, width = shape
    batch = torch.randn(images, 3, height, width, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        expected = network(batch)
    found = [torch.from_numpy(value) for value in session.run(None, {INPUT: batch.numpy()})]
    if [value.shape for value in found] != [own.shape for own in expected]:
        return math.inf
    differences = [
        (value - own).abs().max() / own.abs().max().clamp(min=torch.finfo(own.dtype).tiny)
        for value, own in zip(found, expected, strict=True)
    ]
    return torch.stack(differences).max().item()
