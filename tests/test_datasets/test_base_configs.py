"""The base dataset configs build into loaders that yield a batch of the right kind."""

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from mmengine.config import Config
from mmengine.registry import DefaultScope
from mmengine.runner import Runner
from mmpretrain.registry import DATASETS
from PIL import Image

import hgkd_mm.datasets  # noqa: F401  (registers)
from hgkd_mm.scenes import CLASSES, SceneFolder

CONFIGS = Path(__file__).parents[2] / 'configs' / '_base_' / 'datasets'


@pytest.fixture(scope='module')
def scenes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp('scenes')
    list(SceneFolder(out=out, size=64, train=24, val=12).write(workers=1))
    return out


@pytest.fixture(scope='module')
def imagenet(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp('imagenet')
    for index in range(4):
        path = out / 'train' / f'n{index % 2:08d}' / f'{index}.JPEG'
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.new('RGB', (50 + index, 40)).save(path)
    (out / 'meta').mkdir()
    lines = [f'n{index % 2:08d}/{index}.JPEG {index % 2}' for index in range(4)]
    (out / 'meta' / 'train.txt').write_text('\n'.join(lines))
    return out


def first_batch(name: str, root: Path, **changes: object) -> dict:
    loader = Config.fromfile(CONFIGS / name).train_dataloader
    loader.dataset.data_root = str(root)
    loader.update(batch_size=4, num_workers=0, persistent_workers=False, **changes)
    return next(iter(Runner.build_dataloader(loader, seed=0)))


@pytest.fixture(autouse=True)
def mmpretrain_scope() -> Iterator[None]:
    with DefaultScope.overwrite_default_scope('mmpretrain'):
        yield


def assert_images(batch: dict, size: int) -> None:
    assert batch['inputs'].shape == (4, 3, size, size)
    assert batch['inputs'].dtype == torch.uint8
    assert len(batch['data_samples']) == 4


def test_scenes_pretrain(scenes: Path) -> None:
    batch = first_batch('scenes_pretrain.py', scenes)
    assert_images(batch, 96)
    assert batch['inputs'].float().std() > 10


def test_scenes_cls(scenes: Path) -> None:
    config = Config.fromfile(CONFIGS / 'scenes_cls.py')
    for split, count in (('train', 24), ('val', 12)):
        settings = config[f'cls_{split}_dataset']
        settings.data_root = str(scenes)
        dataset = DATASETS.build(settings)
        assert dataset.metainfo['classes'] == CLASSES
        items = [dataset[i] for i in range(len(dataset))]
        assert len(items) == count
        assert {tuple(item['inputs'].shape) for item in items} == {(3, 96, 96)}
        for item in items:
            sample = item['data_samples']
            assert CLASSES[int(sample.gt_label)] == Path(sample.img_path).parent.name
            assert Path(sample.img_path).parents[1].name == split


def test_imagenet_pretrain(imagenet: Path) -> None:
    assert_images(first_batch('imagenet_pretrain.py', imagenet), 224)


def test_folder_pretrain(imagenet: Path) -> None:
    assert_images(first_batch('folder_pretrain.py', imagenet), 224)


def test_bases_can_be_combined(tmp_path: Path) -> None:
    leaf = tmp_path / 'leaf.py'
    bases = [str(CONFIGS / 'scenes_pretrain.py'), str(CONFIGS / 'scenes_cls.py')]
    leaf.write_text(f'_base_ = {bases}\nknn = dict(val_dataset=_base_.cls_val_dataset)\n')
    config = Config.fromfile(leaf)
    assert config.knn.val_dataset.data_prefix == 'val'
    assert config.train_dataloader.dataset.data_prefix == 'train'
