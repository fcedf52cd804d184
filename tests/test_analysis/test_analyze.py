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
from helpers.vits import small_vit, subject_of
from mmengine.config import Config
from mmpretrain.models.backbones import ResNet, T2T_ViT
from mmpretrain.models.selfsup import MAEViT
from PIL import Image

from hgkd_mm.analysis import analyze, load_student, load_teacher

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
    assert 'weights (0 missing, 0 of another shape; 0 in the file not used).' in printed
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
    assert {file.name for file in out.iterdir()} == {
        'analysis.json',
        'attention.png',
        'layers.png',
    }


def test_a_cnn_and_the_images_of_its_config(
    tool: ModuleType, folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    torch.manual_seed(0)
    settings = {key: value for key, value in CNN.items() if key != 'type'}
    checkpoint = save(prefixed('backbone.', ResNet(**settings)), tmp_path / 'cnn.pth')
    config_of(CNN, folder).dump(tmp_path / 'config.py')
    tool.main([str(tmp_path / 'config.py'), str(checkpoint), '--out', str(tmp_path / 'out')])
    assert 'Figures of features only: ResNet has no global attention' in capsys.readouterr().out
    figures = json.loads((tmp_path / 'out' / 'analysis.json').read_text())
    assert figures['attention'] is None and figures['images']['folder'] == str(folder)
    assert [stage['channels'] for stage in figures['features']] == [32, 64]
    for stage in figures['features']:
        # brightness alone tells the classes apart
        assert stage['class_separability'] > 1 / 4
        assert 1 < stage['effective_rank'] <= 5 and stage['rankme'] >= 1
    assert [file.name for file in (tmp_path / 'out').iterdir()] == ['analysis.json']


def test_a_teacher_of_the_config(folder: Path, tmp_path: Path) -> None:
    teacher = mae_teacher(mae_file(tmp_path), teacher_view='visible', layer=1)
    model = hgkd(heads=dict(feat=FEAT), teachers=dict(mim=teacher))
    config = config_of(CNN)
    config.model = model
    made = analyze(config, out=tmp_path, teacher='mim', folder=folder / 'a')
    assert "all weights of teacher 'mim' (MIMTeacher)" in made.notes[0]
    assert 'Without class separability and kNN' in made.notes[2]
    assert len(made.figures['attention']['layers']) == 2 and made.figures['chance'] is None
    # as ImageNet is normalised, not as the student's images are
    assert load_teacher(config, 'mim').input_format.mean == pytest.approx((123.675, 116.28, 103.53))


def test_pre_training_networks_mask_nothing(tmp_path: Path) -> None:
    encoder, _ = mae_parts()
    images = torch.rand(1, 3, 64, 64)
    with torch.no_grad():
        tokens = subject_of(encoder).run(images)[-1]
    assert isinstance(encoder, MAEViT) and tokens.shape == (1, 17, ARCH['embed_dims'])


def test_refusals(tool: ModuleType, folder: Path, tmp_path: Path) -> None:
    config, weights = config_of(VIT, folder), vit_file(tmp_path)

    def attempt(config: Config = config, **kwargs: Any) -> None:
        analyze(config, **(dict(checkpoint=weights, out=tmp_path / 'out') | kwargs))

    with pytest.raises(ValueError, match=r'once: CHECKPOINT .* --teacher NAME'):
        attempt(teacher='mim')
    with pytest.raises(ValueError, match=r'once: CHECKPOINT .* --teacher NAME'):
        attempt(checkpoint=None)
    with pytest.raises(ValueError, match='--num is a number of images, 2 or more, got 1'):
        attempt(count=1)
    with pytest.raises(RuntimeError, match=r"no device 'gpu7'.*--device"):
        attempt(device='gpu7')
    with pytest.raises(ValueError, match=r'--layers=\[3\] names block 3, .*from -3 to 2'):
        attempt(layers=[3])
    with pytest.raises(ValueError, match=r'--queries 4,4 is outside of the 4 x 4 patches'):
        attempt(queries=['4,4'])
    with pytest.raises(FileNotFoundError, match=r'\(none named; looked from .*--images FOLDER'):
        attempt(config_of(VIT))
    with pytest.raises(ValueError, match='nothing under model.teachers'):
        attempt(checkpoint=None, teacher='mim')
    with pytest.raises(ValueError, match='of another network than model.backbone'):
        attempt(config_of(CNN, folder))
    with pytest.raises(ValueError, match=r"cannot build model.backbone.type='Unknown'"):
        attempt(config_of(dict(type='Unknown'), folder))
    with pytest.raises(ValueError, match='no model.backbone'):
        load_student(Config(dict(model=dict(type='GAN'))), weights)
    assert not (tmp_path / 'out').exists()
    config.dump(tmp_path / 'config.py')
    with pytest.raises(SystemExit, match=r'tools/analyze_attention.py: There is no checkpoint at'):
        tool.main([str(tmp_path / 'config.py'), 'none.pth', '--out', str(tmp_path / 'out')])


def test_a_transformer_whose_tokens_lie_elsewhere_gets_its_features(
    folder: Path, tmp_path: Path
) -> None:
    backbone = dict(type='T2T_ViT', img_size=64, num_layers=1, embed_dims=384)
    settings = {key: value for key, value in backbone.items() if key != 'type'}
    checkpoint = str(save(prefixed('backbone.', T2T_ViT(**settings)), tmp_path / 't2t.pth'))
    made = analyze(config_of(backbone, folder), out=tmp_path / 'out', checkpoint=checkpoint)
    assert made.notes[-1].startswith('Figures of features only: Where the tokens of T2T_ViT')
    assert made.figures['attention'] is None and made.figures['features']


def test_attention_settings_of_a_network_without(folder: Path, tmp_path: Path) -> None:
    settings = {key: value for key, value in CNN.items() if key != 'type'}
    checkpoint = str(save(prefixed('backbone.', ResNet(**settings)), tmp_path / 'cnn.pth'))
    with pytest.raises(ValueError, match='--queries and --layers are for attention, but ResNet'):
        analyze(config_of(CNN, folder), out=tmp_path, checkpoint=checkpoint, layers=[0])
