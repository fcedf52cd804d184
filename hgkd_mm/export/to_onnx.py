"""To ONNX, through torch's own exporter."""

from __future__ import annotations

import inspect
import io
import warnings
from collections.abc import Mapping
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


def onnx_bytes(network: nn.Module, metadata: Mapping[str, str], *, size: int = 224) -> bytes:
    """The network as an ONNX model of free batch size, height and width.

    Its input is ``images``, (B, 3, H, W) float32, normalised as in training; its outputs are
    ``map0``, ``map1``, ... in the order of the network's.

    Args:
        network: that takes images and gives a sequence of maps; in eval mode.
        metadata: goes into the model's ``metadata_props``.
        size: pixels of the square image that the network is traced with.

    Raises:
        ValueError: torch cannot write a layer of the network.
    """
    images = torch.zeros(1, 3, size, size)
    with torch.no_grad():
        names = [f'map{index}' for index in range(len(network(images)))]
    axes = {name: {0: 'batch', 2: f'{name}_height', 3: f'{name}_width'} for name in names}
    axes[INPUT] = {0: 'batch', 2: 'height', 3: 'width'}
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
                output_names=names,
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
