"""ONNX files from torch's own exporter, run by onnxruntime."""

from __future__ import annotations

from pathlib import Path

import onnx
import onnxruntime
import pytest
import torch
from helpers.exports import NETWORKS, assert_same, images, random_backbone, write_checkpoint

from hgkd_mm.export import export_backbone, read_pretrained


@pytest.mark.parametrize('name', ['resnet18', 'resnet50', 'mobilenetv2', 'convnext'])
def test_same_images_give_the_same_maps(tmp_path: Path, name: str) -> None:
    network = random_backbone(NETWORKS[name])
    checkpoint = write_checkpoint(tmp_path / 'epoch_4.pth', network, NETWORKS[name])
    out = tmp_path / 'backbone.onnx'
    export_backbone(read_pretrained(checkpoint), target='onnx', out=out)

    session = onnxruntime.InferenceSession(out, providers=['CPUExecutionProvider'])
    assert [output.name for output in session.get_outputs()] == ['map0', 'map1', 'map2', 'map3']
    # traced with one image of 224 px, run with two of 64 x 96
    found = session.run(None, {'images': images().numpy()})
    with torch.no_grad():
        assert_same([torch.from_numpy(value) for value in found], network(images()), 2e-5)


def test_metadata_and_free_sizes(tmp_path: Path) -> None:
    config = dict(type='ResNet', depth=18, out_indices=(0, 3))
    network = random_backbone(config)
    checkpoint = write_checkpoint(
        tmp_path / 'e.pth', network, config, meta=dict(experiment_name='a' * 300)
    )
    out = tmp_path / 'backbone.onnx'
    result = export_backbone(read_pretrained(checkpoint), target='onnx', out=out)

    model = onnx.load(out)
    onnx.checker.check_model(model)
    assert [opset.version for opset in model.opset_import] == [17]
    assert {entry.key: entry.value for entry in model.metadata_props} == result.metadata
    assert result.metadata['experiment'] == 'a' * 300
    assert result.metadata['method'] == 'HGKD' and result.metadata['target'] == 'onnx'
    (given,) = model.graph.input
    assert given.name == 'images'
    sizes = [dim.dim_param or dim.dim_value for dim in given.type.tensor_type.shape.dim]
    assert sizes == ['batch', 3, 'height', 'width']
    assert [output.name for output in model.graph.output] == ['map0', 'map1']
