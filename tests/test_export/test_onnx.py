"""ONNX files from torch's own exporter, run by an evaluator of the tests."""

from __future__ import annotations

import sys
from importlib.machinery import ModuleSpec
from importlib.util import find_spec
from pathlib import Path
from types import ModuleType, SimpleNamespace

import pytest
import torch
from helpers import onnx_model
from helpers.exports import NETWORKS, assert_same, images, random_backbone, write_checkpoint

from hgkd_mm.export import export_backbone, read_pretrained


@pytest.fixture
def onnx_package(monkeypatch: pytest.MonkeyPatch) -> None:
    """onnx as far as torch's exporter needs it: to look for functions of onnxscript, of none."""
    if find_spec('onnx') is None:
        package = ModuleType('onnx')
        package.__spec__ = ModuleSpec('onnx', None)
        model = SimpleNamespace(graph=SimpleNamespace(node=[]))
        package.load_model_from_string = lambda _: model
        monkeypatch.setitem(sys.modules, 'onnx', package)


@pytest.mark.parametrize('name', ['resnet18', 'resnet50', 'mobilenetv2', 'convnext'])
@pytest.mark.usefixtures('onnx_package')
def test_same_images_give_the_same_maps(tmp_path: Path, name: str) -> None:
    network = random_backbone(NETWORKS[name])
    checkpoint = write_checkpoint(tmp_path / 'epoch_4.pth', network, NETWORKS[name])
    out = tmp_path / 'backbone.onnx'
    export_backbone(read_pretrained(checkpoint), target='onnx', out=out)

    model = onnx_model.parse(out.read_bytes())
    assert [opset.version for opset in model.opset_import] == [17]
    # traced with one image of 224 px, run with two of 64 x 96
    found = onnx_model.run(model, {'images': images()})
    assert list(found) == ['map0', 'map1', 'map2', 'map3']
    with torch.no_grad():
        assert_same(list(found.values()), network(images()), 2e-5)


@pytest.mark.usefixtures('onnx_package')
def test_metadata_and_free_sizes(tmp_path: Path) -> None:
    config = dict(type='ResNet', depth=18, out_indices=(0, 3))
    network = random_backbone(config)
    # more than 127 bytes, so that lengths in the file take more than one
    meta = dict(experiment_name='a' * 300)
    checkpoint = write_checkpoint(tmp_path / 'e.pth', network, config, meta=meta)
    out = tmp_path / 'backbone.onnx'
    result = export_backbone(read_pretrained(checkpoint), target='onnx', out=out)

    model = onnx_model.parse(out.read_bytes())
    assert onnx_model.metadata(model) == result.metadata
    assert result.metadata['experiment'] == 'a' * 300
    assert result.metadata['method'] == 'HGKD' and result.metadata['target'] == 'onnx'
    (given,) = model.graph.input
    assert given.name == 'images'
    sizes = [dim.dim_param or dim.dim_value for dim in given.type.tensor_type.shape.dim]
    assert sizes == ['batch', 3, 'height', 'width']
    assert [output.name for output in model.graph.output] == ['map0', 'map1']


def test_without_the_package_it_says_what_to_install(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, 'onnx', None)
    config = NETWORKS['resnet18']
    checkpoint = write_checkpoint(tmp_path / 'epoch_4.pth', random_backbone(config), config)
    with pytest.raises(ValueError, match='needs the package onnx.*pip install onnx'):
        export_backbone(read_pretrained(checkpoint), target='onnx', out=tmp_path / 'b.onnx')
    assert sorted(path.name for path in tmp_path.iterdir()) == ['epoch_4.pth']
