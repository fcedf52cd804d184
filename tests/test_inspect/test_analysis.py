"""tools/analyze_attention.py and the function behind it, on tiny networks."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import pytest
import torch
from helpers.teachers import ARCH, SIZES, mae_parts, prefixed, save
from helpers.tiny_hgkd import FEAT, hgkd, mae_file, mae_teacher
from helpers.vits import noise, small_vit
from mmengine.config import Config
from mmpretrain.models.backbones import ResNet
from mmpretrain.models.selfsup import MAEViT
from torch import Tensor, nn

from hgkd_mm.evaluation import class_separability, effective_rank, token_similarity
from hgkd_mm.inspect import analyze
from hgkd_mm.inspect.analysis import collect_features, feature_figures
from hgkd_mm.inspect.attention import token_layout
from hgkd_mm.inspect.networks import load_teacher, run_whole
from hgkd_mm.models import MIMTeacher

PIPELINE = [dict(type='RandomResizedCrop', scale=64)]
CNN = dict(type='ResNet', depth=18, stem_channels=8, base_channels=8, out_indices=(2, 3))
VIT = dict(type='VisionTransformer', **SIZES)


def config_of(backbone: dict) -> Config:
    return Config(
        dict(
            custom_imports=dict(imports=['mmpretrain.models', 'hgkd_mm.models']),
            default_scope='mmpretrain',
            model=dict(type='ImageClassifier', backbone=backbone),
            train_dataloader=dict(dataset=dict(type='CustomDataset', pipeline=PIPELINE)),
        )
    )


def saved(network: nn.Module, tmp_path: Path) -> str:
    return str(save(prefixed('backbone.', network), tmp_path / 'network.pth'))


def test_a_vision_transformer(
    tool: Callable[[str], ModuleType], folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    main = tool('analyze_attention').main
    config_of(VIT).dump(tmp_path / 'config.py')
    config, out = str(tmp_path / 'config.py'), tmp_path / 'out'
    arguments = ['--images', str(folder), '--out', str(out)]
    main([config, saved(small_vit(), tmp_path), *arguments])
    assert 'NMI' in capsys.readouterr().out
    figures = json.loads((out / 'analysis.json').read_text())
    attention = figures['attention']
    assert (attention['grid'], attention['prefix_tokens'], attention['patch_px']) == ([4, 4], 1, 16)
    for index, layer in enumerate(attention['layers']):
        assert layer['block'] == index and len(layer['distance']) == ARCH['num_heads']
        assert layer['distance_mean'] > 0 and 0 < layer['nmi_mean'] < 1
    assert figures['images']['classes'] == ['a', 'b'] and figures['images']['count'] == 6
    assert [stage['stage'] for stage in figures['features']] == ['block 0', 'block 1', 'block 2']
    assert sorted(file.name for file in out.iterdir()) == ['analysis.json', 'layers.png']
    for weights in ([], ['x.pth', '--teacher', 'mim'], ['none.pth']):
        with pytest.raises(SystemExit):
            main([config, *weights, *arguments])


def test_a_cnn(folder: Path, tmp_path: Path) -> None:
    torch.manual_seed(0)
    network = ResNet(**{key: value for key, value in CNN.items() if key != 'type'})
    checkpoint = saved(network, tmp_path)
    figures = analyze(config_of(CNN), folder=folder, out=tmp_path / 'out', checkpoint=checkpoint)
    assert figures['attention'] is None
    assert [stage['channels'] for stage in figures['features']] == [32, 64]
    for stage in figures['features']:
        # brightness alone tells the classes apart
        assert stage['class_separability'] > 1 / 4
        assert 1 < stage['effective_rank'] <= 5
    assert [file.name for file in (tmp_path / 'out').iterdir()] == ['analysis.json']


def test_a_teacher_of_the_config(folder: Path, tmp_path: Path) -> None:
    teacher = mae_teacher(mae_file(tmp_path), teacher_view='visible', layer=1)
    config = config_of(CNN)
    config.model = hgkd(heads=dict(feat=FEAT), teachers=dict(mim=teacher))
    figures = analyze(config, out=tmp_path, teacher='mim', folder=folder / 'a')
    assert len(figures['attention']['layers']) == 2
    assert figures['features'][0]['class_separability'] is None
    # as ImageNet is normalised, not as the student's images are
    assert load_teacher(config, 'mim').input_format.mean == pytest.approx((123.675, 116.28, 103.53))
    with pytest.raises(ValueError, match=r'model\.teachers'):
        load_teacher(config, 'cl')


def test_pre_training_networks_mask_nothing() -> None:
    encoder, _ = mae_parts()
    with torch.no_grad():
        tokens = run_whole(encoder, torch.rand(1, 3, 64, 64))[-1]
    assert isinstance(encoder, MAEViT) and tokens.shape == (1, 17, ARCH['embed_dims'])


def test_each_map_of_a_cnn() -> None:
    torch.manual_seed(0)
    network = ResNet(18, stem_channels=8, base_channels=8, out_indices=(0, 3))
    images = noise(3)
    stages = collect_features(network, images.split(2))
    assert list(stages) == ['output 1 of 2, 16 x 16', 'output 2 of 2, 2 x 2']
    network.eval()
    with torch.no_grad():
        maps = network(images)
    for (pooled, similarity), expected in zip(stages.values(), maps, strict=True):
        torch.testing.assert_close(pooled, expected.mean((2, 3)))
        torch.testing.assert_close(
            similarity, token_similarity(expected.flatten(2).transpose(1, 2))
        )


def test_each_block_of_a_vit_without_its_prefix() -> None:
    network, images = small_vit(out_type='raw', final_norm=False), noise(3)
    stages = collect_features(network, [images], token_layout(network, (64, 64)))
    with torch.no_grad():
        tokens = network(images)[-1][:, 1:]
    assert list(stages) == ['block 0', 'block 1', 'block 2']
    pooled, similarity = stages['block 2']
    torch.testing.assert_close(pooled, tokens.mean(1))
    torch.testing.assert_close(similarity, token_similarity(tokens))


class Pooled(nn.Module):
    """Gives a matrix of the mean colours."""

    def forward(self, images: Tensor) -> Tensor:
        return images.mean((2, 3))


def test_vectors_and_teachers(tmp_path: Path) -> None:
    [(name, (pooled, similarity))] = collect_features(Pooled(), [noise(2)]).items()
    assert name == 'output 1 of 1' and not similarity.isfinite().any()
    torch.testing.assert_close(pooled, noise(2).mean((2, 3)))
    teacher = MIMTeacher(checkpoint=mae_file(tmp_path), **SIZES)
    [(pooled, _)] = collect_features(teacher, [noise(2)]).values()
    torch.testing.assert_close(pooled, teacher(noise(2)).tokens.mean((2, 3)))


def test_figures() -> None:
    generator = torch.Generator().manual_seed(0)
    labels = torch.randint(0, 2, (40,), generator=generator)
    pooled = torch.randn(40, 6, generator=generator) + 20 * labels[:, None]
    figures = feature_figures(pooled, torch.full((40,), 0.25), labels)
    assert figures['channels'] == 6 and figures['token_similarity'] == 0.25
    assert figures['effective_rank'] == effective_rank(pooled)
    assert figures['class_separability'] == class_separability(pooled, labels)
    assert feature_figures(pooled, torch.ones(40), None)['class_separability'] is None
    # infinity and NaN, which JSON cannot express, are None
    pooled, single = torch.tensor([[1.0, 0], [0, 1], [1, 0], [0, 1]]), torch.full((4,), torch.nan)
    figures = feature_figures(pooled, single, torch.tensor([0, 1, 0, 1]))
    assert figures['class_separability'] is figures['token_similarity'] is None
