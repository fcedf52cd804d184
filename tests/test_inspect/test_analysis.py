"""tools/analyze_attention.py and the function behind it, on tiny networks."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch
from helpers.teachers import ARCH, SIZES, mae_parts, prefixed, save
from helpers.tiny_hgkd import FEAT, hgkd, mae_file, mae_teacher
from helpers.vits import loaded, noise, small_vit
from mmengine.config import Config
from mmpretrain.models.backbones import ResNet, T2T_ViT
from mmpretrain.models.selfsup import MAEViT
from PIL import Image
from torch import Tensor, nn

from hgkd_mm.evaluation import class_separability, effective_rank, token_similarity
from hgkd_mm.inspect import analyze
from hgkd_mm.inspect.analysis import StageFeatures, collect_features, feature_figures
from hgkd_mm.inspect.attention_figures import token_layout
from hgkd_mm.inspect.networks import load_student, load_teacher
from hgkd_mm.models import MIMTeacher

ROOT = Path(__file__).resolve().parents[2]
PIPELINE = [dict(type='RandomResizedCrop', scale=64)]
CNN = dict(type='ResNet', depth=18, stem_channels=8, base_channels=8, out_indices=(2, 3))
VIT = dict(type='VisionTransformer', **SIZES)


@pytest.fixture(scope='module')
def tool() -> ModuleType:
    spec = importlib.util.spec_from_file_location('tool', ROOT / 'tools/analyze_attention.py')
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Six images in two classes, the second of them bright."""
    generator = np.random.default_rng(0)
    for index in range(6):
        file = tmp_path / 'images' / ('ab'[index % 2]) / f'{index}.png'
        file.parent.mkdir(parents=True, exist_ok=True)
        pixels = generator.integers(0, 128, (70, 80, 3)) + 127 * (index % 2)
        Image.fromarray(pixels.astype(np.uint8)).save(file)
    return tmp_path / 'images'


def config_of(backbone: dict, folder: Path | None = None, **kwargs: Any) -> Config:
    dataset = dict(type='CustomDataset', pipeline=PIPELINE)
    if folder is not None:
        dataset |= dict(data_root=str(folder.parent), data_prefix=folder.name)
    return Config(
        dict(
            custom_imports=dict(imports=['mmpretrain.models', 'hgkd_mm.models']),
            default_scope='mmpretrain',
            model=dict(type='ImageClassifier', backbone=backbone, **kwargs),
            train_dataloader=dict(dataset=dataset),
        )
    )


def cnn_file(tmp_path: Path) -> str:
    settings = {key: value for key, value in CNN.items() if key != 'type'}
    return str(save(prefixed('backbone.', ResNet(**settings)), tmp_path / 'cnn.pth'))


def vit_file(tmp_path: Path) -> str:
    return str(save(prefixed('backbone.', small_vit()), tmp_path / 'vit.pth'))


def test_a_vision_transformer(
    tool: ModuleType, folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    config_of(VIT).dump(tmp_path / 'config.py')
    out = tmp_path / 'out'
    arguments = [str(tmp_path / 'config.py'), vit_file(tmp_path), '--images', str(folder)]
    arguments += ['--out', str(out), '--queries', 'cls', '1,3', '--layers', '-1', '--shown', '2']
    tool.main(arguments)
    printed = capsys.readouterr().out
    assert '0 missing, 0 of another shape; 0 in the file not used' in printed
    assert '2 classes' in printed and 'distance, px' in printed and 'block 2' in printed
    figures = json.loads((out / 'analysis.json').read_text())
    attention = figures['attention']
    assert (attention['grid'], attention['prefix_tokens'], attention['patch_px']) == ([4, 4], 1, 16)
    for index, layer in enumerate(attention['layers']):
        assert layer['block'] == index and len(layer['distance']) == ARCH['num_heads']
        assert 0 < layer['distance_mean'] == pytest.approx(np.mean(layer['distance']))
        assert 0 < layer['nmi_mean'] < 1
        assert layer['nmi_mean'] == pytest.approx(np.mean(layer['nmi']))
    assert figures['images']['classes'] == ['a', 'b'] and figures['images']['count'] == 6
    assert figures['chance'] == {'class_separability': 1 / 4, 'knn_top1': 50}
    assert [stage['stage'] for stage in figures['features']] == ['block 0', 'block 1', 'block 2']
    assert sorted(file.name for file in out.iterdir()) == [
        'analysis.json',
        'attention.png',
        'layers.png',
    ]


def test_a_cnn_and_the_images_of_its_config(
    tool: ModuleType, folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    torch.manual_seed(0)
    checkpoint, config = cnn_file(tmp_path), config_of(CNN, folder)
    config.dump(tmp_path / 'config.py')
    tool.main([str(tmp_path / 'config.py'), checkpoint, '--out', str(tmp_path / 'out')])
    assert 'features only: ResNet' in capsys.readouterr().out
    figures = json.loads((tmp_path / 'out' / 'analysis.json').read_text())
    assert figures['attention'] is None and figures['images']['folder'] == str(folder)
    assert [stage['channels'] for stage in figures['features']] == [32, 64]
    for stage in figures['features']:
        # brightness alone tells the classes apart
        assert stage['class_separability'] > 1 / 4
        assert 1 < stage['effective_rank'] <= 5 and stage['rankme'] >= 1
    assert [file.name for file in (tmp_path / 'out').iterdir()] == ['analysis.json']
    with pytest.raises(ValueError, match='--layers'):
        analyze(config, out=tmp_path, checkpoint=checkpoint, layers=[0])


def test_a_teacher_of_the_config(folder: Path, tmp_path: Path) -> None:
    teacher = mae_teacher(mae_file(tmp_path), teacher_view='visible', layer=1)
    model = hgkd(heads=dict(feat=FEAT), teachers=dict(mim=teacher))
    config = config_of(CNN)
    config.model = model
    made = analyze(config, out=tmp_path, teacher='mim', folder=folder / 'a')
    assert "'mim' (MIMTeacher)" in made.notes[0]
    assert len(made.figures['attention']['layers']) == 2 and made.figures['chance'] is None
    # as ImageNet is normalised, not as the student's images are
    assert load_teacher(config, 'mim').input_format.mean == pytest.approx((123.675, 116.28, 103.53))


def test_pre_training_networks_mask_nothing(tmp_path: Path) -> None:
    encoder, _ = mae_parts()
    images = torch.rand(1, 3, 64, 64)
    with torch.no_grad():
        tokens = loaded(encoder).run(images)[-1]
    assert isinstance(encoder, MAEViT) and tokens.shape == (1, 17, ARCH['embed_dims'])


def test_refusals(tool: ModuleType, folder: Path, tmp_path: Path) -> None:
    config, weights = config_of(VIT, folder), vit_file(tmp_path)

    def attempt(config: Config = config, **kwargs: Any) -> None:
        analyze(config, **(dict(checkpoint=weights, out=tmp_path / 'out') | kwargs))

    for settings, message in (
        (dict(teacher='mim'), 'CHECKPOINT .* --teacher'),
        (dict(checkpoint=None), 'CHECKPOINT .* --teacher'),
        (dict(count=1), '--num .*got 1'),
        (dict(layers=[3]), r'--layers=\[3\]'),
        (dict(queries=['4,4']), '--queries 4,4 .* to 3,3'),
        (dict(checkpoint=None, teacher='mim'), r'model\.teachers'),
        (dict(config=config_of(CNN, folder)), r'model\.backbone'),
        (dict(config=config_of(dict(type='Unknown'), folder)), r"model\.backbone.type='Unknown'"),
    ):
        with pytest.raises(ValueError, match=message):
            attempt(**settings)
    with pytest.raises(RuntimeError, match='gpu7'):
        attempt(device='gpu7')
    with pytest.raises(FileNotFoundError, match='--images'):
        attempt(config_of(VIT))
    with pytest.raises(ValueError, match=r'model\.backbone'):
        load_student(Config(dict(model=dict(type='GAN'))), weights)
    assert not (tmp_path / 'out').exists()
    config.dump(tmp_path / 'config.py')
    with pytest.raises(SystemExit, match=r'none\.pth'):
        tool.main([str(tmp_path / 'config.py'), 'none.pth', '--out', str(tmp_path / 'out')])


def test_a_transformer_whose_tokens_lie_elsewhere_gets_its_features(
    folder: Path, tmp_path: Path
) -> None:
    backbone = dict(type='T2T_ViT', img_size=64, num_layers=1, embed_dims=384)
    settings = {key: value for key, value in backbone.items() if key != 'type'}
    checkpoint = str(save(prefixed('backbone.', T2T_ViT(**settings)), tmp_path / 't2t.pth'))
    made = analyze(config_of(backbone, folder), out=tmp_path / 'out', checkpoint=checkpoint)
    assert 'T2T_ViT' in made.notes[-1]
    assert made.figures['attention'] is None and made.figures['features']


class Pooled(nn.Module):
    """Gives a matrix of the mean colours, and of the left half."""

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        return images.mean((2, 3)), images[..., :32].mean((2, 3))


def test_each_map_of_a_cnn() -> None:
    torch.manual_seed(0)
    network = ResNet(18, stem_channels=8, base_channels=8, out_indices=(0, 3))
    images = noise(3)
    stages = collect_features(loaded(network), images.split(2))
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
    first, last = collect_features(loaded(network), [images], blocks=blocks, layout=layout)
    with torch.no_grad():
        tokens = network(images)[-1][:, 1:]
    assert (first.name, last.name) == ('block 0', 'block 2')
    torch.testing.assert_close(last.pooled, tokens.mean(1))
    torch.testing.assert_close(last.similarity, token_similarity(tokens))
    assert not network.layers[2]._forward_hooks


def test_vectors_and_teachers(tmp_path: Path) -> None:
    whole, half = collect_features(loaded(Pooled()), [noise(2)])
    assert whole.name == 'output 1 of 2' and whole.similarity is None
    torch.testing.assert_close(whole.pooled, whole.mirrored)
    assert not torch.allclose(half.pooled, half.mirrored)
    teacher = MIMTeacher(checkpoint=mae_file(tmp_path), **SIZES)
    (stage,) = collect_features(loaded(teacher), [noise(2)])
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
    # infinity, which JSON cannot express, is None
    pooled = torch.tensor([[1.0, 0], [0, 1], [1, 0], [0, 1]])
    stage = StageFeatures(name='', pooled=pooled, mirrored=pooled, similarity=None)
    assert feature_figures(stage, torch.tensor([0, 1, 0, 1]))['class_separability'] is None
