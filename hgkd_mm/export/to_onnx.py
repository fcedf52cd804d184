"""To ONNX, through torch's own exporter."""

from __future__ import annotations

import inspect
import io
import math
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import onnx
import torch
from torch import nn

from .loading import Converted, load_converted
from .network import build_backbone
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
    config = backbone.config
    network = build_backbone(config)
    weights, report = load_converted(
        network, backbone.weights, what=f"mmpretrain's {config['type']}"
    )
    shown = ', '.join(f'{key}={value!r}' for key, value in config.items())
    return Converted(
        network=network,
        weights=weights,
        made_by=f'dict({shown})',
        load="maps = onnxruntime.InferenceSession({file}).run(None, {'images': images})",
        report=report,
    )


def onnx_bytes(
    network: nn.Module, metadata: Mapping[str, str], *, size: tuple[int, int], step: int = 32
) -> tuple[bytes, dict[str, str]]:
    """The network as an ONNX model, which onnxruntime was seen to run as torch does.

    Its input is ``images``, (B, 3, H, W) float32, normalised as in training; its outputs are
    ``map0``, ``map1``, ... in the order of the network's. Torch writes what a network computes in
    Python as the numbers of the traced image, so the model is run on random images of other
    shapes, and what does not hold there is fixed: padding to a multiple, height and width, B.

    Args:
        network: that takes images and gives a sequence of maps; in eval mode, on the CPU.
        metadata: goes into the model's ``metadata_props``.
        size: height and width in pixels of the image that the network is traced with.
        step: multiple of pixels that a network which pads takes without padding.

    Returns:
        The model, and what it says of its input, which is in its ``metadata_props`` too:
        ``input_size``, 'free', 'multiples of 32' or '224x224', and ``batch_size``, 'free' or '1'.

    Raises:
        ValueError: onnxruntime is not installed, the network does not take the size, torch cannot
            write a layer of it, or its model gives other maps even with the traced shape.
    """
    height, width = size
    # A ViT resizes its positions in the trace only if the traced size is another than its own.
    other, fixed = (height + step, width + 2 * step), f'{height}x{width}'
    others = [(2, height, width), (3, height + 2 * step, width + step)]
    odd = [*others, (1, height + 11, width + 5)]
    trials = (
        _Trial(other, {0, 2, 3}, {'input_size': 'free', 'batch_size': 'free'}, odd),
        _Trial(
            other, {0, 2, 3}, {'input_size': f'multiples of {step}', 'batch_size': 'free'}, others
        ),
        _Trial(size, {0}, {'input_size': fixed, 'batch_size': 'free'}, [(2, *size)]),
        _Trial(size, set(), {'input_size': fixed, 'batch_size': '1'}, [(1, *size)]),
    )
    problem = ''
    for trial in trials:
        found = trial.found
        try:
            content = _traced(network, {**metadata, **found}, size=trial.traced, free=trial.free)
        except ValueError as error:
            problem = str(error)
            continue
        problem = _problem(content, network, trial.shapes)
        if not problem:
            return content, found
    raise ValueError(problem)


@dataclass(frozen=True)
class _Trial:
    """A way to write a network, and the shapes that then have to give its maps.

    Attributes:
        traced: height and width.
        free: axes of the images that get no fixed length.
        found: what the model says of its input.
        shapes: images, height and width.
    """

    traced: tuple[int, int]
    free: set[int]
    found: dict[str, str]
    shapes: list[tuple[int, int, int]]


def _traced(
    network: nn.Module, metadata: Mapping[str, str], *, size: tuple[int, int], free: set[int]
) -> bytes:
    """The model whose axes in ``free`` have no fixed length."""
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
    with warnings.catch_warnings():
        warnings.simplefilter('ignore')
        try:
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


def _problem(content: bytes, network: nn.Module, shapes: Sequence[tuple[int, int, int]]) -> str:
    """What keeps an ONNX model from giving the network's maps; '' if nothing does.

    Args:
        content: the model.
        network: that it was made of.
        shapes: images, height and width of each try.

    Raises:
        ValueError: onnxruntime is not installed.
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
        for shape in shapes:
            difference = _difference(session, network, shape)
            if not difference <= _TOLERANCE:
                return (
                    f'onnxruntime does not give the maps of this network for {shape[0]} images of '
                    f'{shape[1]}x{shape[2]} pixels: they differ by {difference:.1e} of their '
                    f'largest value (inf: in their shape), and {_TOLERANCE:.0e} is allowed.'
                )
    except Exception as error:  # whatever the network or onnxruntime raises at such a shape
        return f'The network does not run on {shapes} (images, height, width): {error}'
    return ''


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
