"""ONNX files from torch's own exporter, run by onnxruntime."""

from __future__ import annotations

import sys
from pathlib import Path

import onnx
import onnxruntime
import pytest
import torch
from helpers.exports import NETWORKS, assert_same, images, random_backbone, write_checkpoint

from hgkd_mm.export import Exported, export_backbone, read_pretrained
from hgkd_mm.export.onnx_file import onnx_bytes


def exported(tmp_path: Path, config: dict, **settings: object) -> tuple[torch.nn.Module, Exported]:
    network = random_backbone(config)
    meta = dict(experiment_name='a' * 300)
    checkpoint = write_checkpoint(tmp_path / 'e.pth', network, config, meta=meta)
    out = tmp_path / 'b.onnx'
    return network, export_backbone(read_pretrained(checkpoint), target='onnx', out=out, **settings)


def run(content: bytes, batch: torch.Tensor) -> list[torch.Tensor]:
    session = onnxruntime.InferenceSession(content, providers=['CPUExecutionProvider'])
    return [torch.from_numpy(value) for value in session.run(None, {'images': batch.numpy()})]


def input_shape(content: bytes) -> list[int | str]:
    (given,) = onnx.load_from_string(content).graph.input
    return [dim.dim_param or dim.dim_value for dim in given.type.tensor_type.shape.dim]


@torch.no_grad()
@pytest.mark.parametrize('name', ['resnet18', 'mobilenetv2-half'])
def test_same_images_give_the_same_maps(tmp_path: Path, name: str) -> None:
    network, result = exported(tmp_path, NETWORKS[name])
    content = result.path.read_bytes()
    # traced with one image of 256 x 288, run with two of 64 x 96
    assert_same(run(content, images()), network(images()), 2e-5)
    model = onnx.load_from_string(content)
    onnx.checker.check_model(model)
    assert [opset.version for opset in model.opset_import] == [17]
    assert {entry.key: entry.value for entry in model.metadata_props} == result.metadata
    assert result.metadata['experiment'] == 'a' * 300
    assert result.metadata['method'] == 'HGKD' and result.metadata['target'] == 'onnx'
    assert [given.name for given in model.graph.input] == ['images']
    assert input_shape(content) == ['batch', 3, 'height', 'width']
    assert [output.name for output in model.graph.output] == ['map0', 'map1', 'map2', 'map3']
    assert (result.metadata['input_size'], result.metadata['batch_size']) == ('free', 'free')


@torch.no_grad()
@pytest.mark.parametrize('out_type', ['raw', 'featmap'])
def test_a_vit_takes_other_sizes_than_its_own(tmp_path: Path, out_type: str) -> None:
    network, result = exported(tmp_path, NETWORKS['vit-small'] | dict(out_type=out_type))
    # mmcv pads to whole patches in Python, which the trace leaves out
    found = result.metadata['input_size'], result.metadata['batch_size']
    assert found == ('multiples of 16', 'free')
    for batch in (images(32), images(64)[..., :64], images(80)[..., :48]):
        assert_same(run(result.path.read_bytes(), batch), network(batch), 2e-5)


@torch.no_grad()
def test_an_efficientnet_is_written_with_its_size(tmp_path: Path) -> None:
    config = dict(type='EfficientNet', arch='b0', out_indices=(3, 6))
    network, result = exported(tmp_path, config, size=(64, 96))
    content = result.path.read_bytes()
    assert (result.metadata['input_size'], result.metadata['batch_size']) == ('64x96', 'free')
    assert input_shape(content) == ['batch', 3, 64, 96]
    assert_same(run(content, images()), network(images()), 2e-5)


class OwnBatch(torch.nn.Module):
    """Computes with the number of images in Python, as windowed attention does."""

    def forward(self, images: torch.Tensor) -> tuple[torch.Tensor]:
        return (images.reshape(int(len(images)), 3, -1).cumsum(1),)


class OtherWhenTraced(torch.nn.Module):
    def forward(self, images: torch.Tensor) -> tuple[torch.Tensor]:
        return (images * (1.001 if torch.jit.is_tracing() else 1.0),)


def test_a_batch_that_has_to_be_fixed_is() -> None:
    content, found = onnx_bytes(OwnBatch(), {}, size=(8, 8))
    assert found == {'input_size': '8x8', 'batch_size': '1'}
    assert input_shape(content) == [1, 3, 8, 8]


def test_other_maps_are_refused() -> None:
    with pytest.raises(ValueError, match=r'8x8 pixels.*1\.0e-03'):
        onnx_bytes(OtherWhenTraced(), {}, size=(8, 8))


def test_a_size_that_the_network_does_not_take_names_the_flag() -> None:
    with pytest.raises(ValueError, match='4x4.*--size'):
        onnx_bytes(torch.nn.Conv2d(3, 1, 7), {}, size=(4, 4))


def test_nothing_is_written_untried(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, 'onnxruntime', None)
    with pytest.raises(ImportError, match='onnxruntime'):
        exported(tmp_path, NETWORKS['resnet18'])
    backbone = read_pretrained(tmp_path / 'e.pth')
    with pytest.raises(ValueError, match='--size'):
        export_backbone(backbone, target='timm', out=tmp_path / 'a.pth', size=(64, 64))
    assert [path.name for path in tmp_path.iterdir()] == ['e.pth']
