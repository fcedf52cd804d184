"""Features stage by stage, of networks with attention and without."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from helpers.teachers import SIZES
from helpers.tiny_hgkd import mae_file
from helpers.vits import noise, small_vit, subject_of
from mmpretrain.models.backbones import ResNet
from torch import Tensor, nn

from hgkd_mm.analysis import StageFeatures, collect_features, feature_figures, token_layout
from hgkd_mm.evaluation import class_separability, effective_rank, token_similarity
from hgkd_mm.models import MIMTeacher


class Pooled(nn.Module):
    """Gives a matrix of the mean colours, and of the left half."""

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        return images.mean((2, 3)), images[..., :32].mean((2, 3))


def test_each_map_of_a_cnn() -> None:
    torch.manual_seed(0)
    network = ResNet(18, stem_channels=8, base_channels=8, out_indices=(0, 3))
    images = noise(3)
    stages = collect_features(subject_of(network), images.split(2))
    names = ['output 1 of 2, 16 x 16', 'output 2 of 2, 2 x 2']
    assert [stage.name for stage in stages] == names
    network.eval()
    with torch.no_grad():
        maps, mirrored = network(images), network(images.flip(3))
    for stage, one, other in zip(stages, maps, mirrored, strict=True):
        torch.testing.assert_close(stage.pooled, one.mean((2, 3)))
        torch.testing.assert_close(stage.mirrored, other.mean((2, 3)))
        expected = token_similarity(one.flatten(2).transpose(1, 2))
        torch.testing.assert_close(stage.similarity, expected)


def test_each_block_of_a_vit_without_its_prefix() -> None:
    network, images = small_vit(out_type='raw', final_norm=False), noise(3)
    blocks = {0: network.layers[0], 2: network.layers[2]}
    layout = token_layout(network, (64, 64))
    first, last = collect_features(subject_of(network), [images], blocks=blocks, layout=layout)
    with torch.no_grad():
        tokens = network(images)[-1][:, 1:]
    assert (first.name, last.name) == ('block 0', 'block 2')
    torch.testing.assert_close(last.pooled, tokens.mean(1))
    torch.testing.assert_close(last.similarity, token_similarity(tokens))
    assert not network.layers[2]._forward_hooks


def test_vectors_and_teachers(tmp_path: Path) -> None:
    whole, half = collect_features(subject_of(Pooled()), [noise(2)])
    assert whole.name == 'output 1 of 2' and whole.similarity is None
    torch.testing.assert_close(whole.pooled, whole.mirrored)
    assert not torch.allclose(half.pooled, half.mirrored)
    teacher = MIMTeacher(checkpoint=mae_file(tmp_path), **SIZES)
    (stage,) = collect_features(subject_of(teacher), [noise(2)])
    torch.testing.assert_close(stage.pooled, teacher(noise(2)).tokens.mean((2, 3)))


def test_figures() -> None:
    generator = torch.Generator().manual_seed(0)
    labels = torch.randint(0, 2, (40,), generator=generator)
    pooled = torch.randn(40, 6, generator=generator) + 20 * labels[:, None]
    stage = StageFeatures(name='last', pooled=pooled, mirrored=2 * pooled, similarity=None)
    figures = feature_figures(stage, labels)
    assert figures['stage'] == 'last' and figures['channels'] == 6
    assert figures['effective_rank'] == effective_rank(pooled)
    assert figures['class_separability'] == class_separability(pooled, labels)
    assert figures['alignment_mirrored'] == pytest.approx(0, abs=1e-9)
    assert figures['token_similarity'] is None
    # the classes are at an angle as well: about 0 and along (1, ..., 1)
    assert figures['knn_top1'] > 70
    alone = feature_figures(stage, None)
    assert alone['knn_top1'] is None and alone['class_separability'] is None


def test_what_json_does_not_know_is_none() -> None:
    pooled = torch.tensor([[1.0, 0], [0, 1], [1, 0], [0, 1]])
    stage = StageFeatures(name='', pooled=pooled, mirrored=pooled, similarity=None)
    assert feature_figures(stage, torch.tensor([0, 1, 0, 1]))['class_separability'] is None
