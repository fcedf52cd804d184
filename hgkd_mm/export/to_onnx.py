"""To ONNX, through torch's own exporter."""

from __future__ import annotations

import inspect
import io
import math
import warnings
from collections.abc import Collection, Mapping, Sequence
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
    network: nn.Module, metadata: Mapping[str, str], *, size: tuple[int, int]
) -> tuple[bytes, dict[str, str]]:
    """The network as an ONNX model, which onnxruntime was seen to run as torch does.

    Its input is ``images``, (B, 3, H, W) float32, normalised as in training; its outputs are
    ``map0``, ``map1``, ... in the order of the network's. B, H and W are free if random images of
    two other sizes give the network's maps. Else H and W are fixed, or all three: torch writes
    what a network computes in Python as the numbers of the traced image.

    Args:
        network: that takes images and gives a sequence of maps; in eval mode, on the CPU.
        metadata: goes into the model's ``metadata_props``.
        size: height and width in pixels of the image that the network is traced with.

    Returns:
        The model, and what it says of its input, which is in its ``metadata_props`` too:
        ``input_size``, 'free' or such as '224x224', and ``batch_size``, 'free' or '1'.

    Raises:
        ValueError: onnxruntime is not installed, the network does not take the size, torch cannot
            write a layer of it, or its model gives other maps even with the traced shape.
    """
    height, width = size
    fixed = f'{height}x{width}'
    # A ViT resizes its positions in the trace only if the traced size is another than its own.
    other = (height + 32, width + 64)
    trials: tuple[tuple[tuple[int, int], Collection[int], list[tuple[int, int, int]]], ...] = (
        (other, range(4), [(2, height, width), (3, height + 64, width + 32)]),
        (size, (0,), [(2, height, width)]),
        (size, (), [(1, height, width)]),
    )
    for traced, free, shapes in trials:
        found = {
            'input_size': 'free' if 2 in free else fixed,
            'batch_size': 'free' if 0 in free else '1',
        }
        try:
            content = _traced(network, {**metadata, **found}, size=traced, free=free)
        except ValueError as error:
            problem = error
            continue
        difference = _difference(content, network, shapes)
        if difference <= _TOLERANCE:
            return content, found
        problem = ValueError(
            f'onnxruntime does not give the maps of this network at {fixed} pixels: they differ by '
            f'{difference:.1e} of their largest value, and at most {_TOLERANCE:.0e} is allowed.'
        )
    raise problem


def _traced(
    network: nn.Module, metadata: Mapping[str, str], *, size: tuple[int, int], free: Collection[int]
) -> bytes:
    """The model whose axes in ``free`` have no fixed length."""
    images = torch.zeros(1, 3, *size)
    try:
        with torch.no_grad():
            maps = {f'map{index}': value for index, value in enumerate(network(images))}
    except (RuntimeError, ValueError, AssertionError) as error:
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


def _difference(
    content: bytes, network: nn.Module, shapes: Sequence[tuple[int, int, int]]
) -> float:
    """How far onnxruntime's maps are from the network's, relative to the largest value of each.

    Args:
        content: an ONNX model.
        network: that it was made of.
        shapes: images, height and width of each try.

    Returns:
        The largest difference; infinite if a shape is not taken, NaN if a map has such a value.
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
    differences = []
    try:
        session = onnxruntime.InferenceSession(content, options, providers=['CPUExecutionProvider'])
        for images, height, width in shapes:
            generator = torch.Generator().manual_seed(0)
            batch = torch.randn(images, 3, height, width, generator=generator)
            with torch.no_grad():
                expected = network(batch)
            for value, own in zip(session.run(None, {INPUT: batch.numpy()}), expected, strict=True):
                if value.shape != own.shape:
                    return math.inf
                largest = own.abs().max().clamp(min=torch.finfo(own.dtype).tiny)
                differences.append((torch.from_numpy(value) - own).abs().max() / largest)
    except Exception:  # whatever the network or onnxruntime raises at a shape that it does not take
        return math.inf
    return torch.stack(differences).max().item()
