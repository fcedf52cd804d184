import numpy as np
import pytest
import torch
from mmpretrain.registry import MODELS
from torch import Tensor, nn

from hgkd_mm.visualization import pca_to_rgb, view_backbone
from hgkd_mm.visualization.input_format import InputFormat

FORMAT = InputFormat(mean=(0, 0, 0), std=(1, 1, 1), rgb=True)


def images(size: int = 64) -> Tensor:
    return torch.rand(3, 3, size, size, generator=torch.Generator().manual_seed(0)) * 255


def test_one_column_a_stage() -> None:
    torch.manual_seed(0)
    config = dict(type='ResNet', depth=18, stem_channels=8, base_channels=8)
    backbone = MODELS.build(config | dict(out_indices=(1, 3)))
    backbone.train()
    before = backbone.bn1.running_mean.clone()
    view = view_backbone(backbone, images(), input_format=FORMAT)
    shapes = [column.pictures.shape for column in view.columns]
    assert shapes == [(3, 64, 64, 3), (3, 8, 8, 3), (3, 2, 2, 3)]
    assert [c.title for c in view.columns[1:]] == ['8 x 8,\n16 channels', '2 x 2,\n64 channels']
    # In eval mode, and left as it was.
    assert torch.equal(backbone.bn1.running_mean, before) and backbone.training
    backbone.eval()
    with torch.no_grad():
        expected = pca_to_rgb(backbone(images())[0])
    np.testing.assert_array_equal(view.columns[1].pictures, expected)


def test_a_network_of_one_map() -> None:
    view = view_backbone(nn.Conv2d(3, 5, 4, 4), images(8), input_format=FORMAT)
    assert [column.pictures.shape for column in view.columns] == [(3, 8, 8, 3), (3, 2, 2, 3)]


def test_vectors_are_refused() -> None:
    with pytest.raises(ValueError, match=r'Output 0 of Flatten is \(3, 192\).*out_type=featmap'):
        view_backbone(nn.Flatten(), images(8), input_format=FORMAT)
