"""mmdet's and mmseg's own dataset classes read the layouts of Scenes, unchanged."""

import json
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import cv2
import mmdet
import mmdet.datasets  # noqa: F401  (registers)
import mmseg
import mmseg.datasets  # noqa: F401
import mmseg.evaluation  # noqa: F401
import numpy as np
import pytest
from mmdet.registry import DATASETS as DET_DATASETS
from mmengine.config import Config
from mmengine.registry import DefaultScope
from mmengine.runner import Runner
from mmengine.structures import PixelData
from mmseg.registry import DATASETS as SEG_DATASETS
from mmseg.registry import METRICS as SEG_METRICS
from mmseg.structures import SegDataSample

from hgkd_mm.scenes import CLASSES, SceneFolder

BASES = Path(__file__).parents[2] / 'configs' / '_base_' / 'datasets'
COUNTS = {'train': 26, 'val': 14}  # one empty picture and one with a crowd among each


@pytest.fixture(scope='module')
def scenes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = SceneFolder(out=tmp_path_factory.mktemp('scenes'), size=64, train=24, val=12)
    list(folder.write(layouts=True, workers=1))
    return folder.out


@pytest.fixture
def det() -> Iterator[None]:
    with DefaultScope.overwrite_default_scope('mmdet'):
        yield


@pytest.fixture
def seg() -> Iterator[None]:
    with DefaultScope.overwrite_default_scope('mmseg'):
        yield


def coco_config(scenes: Path) -> Config:
    config = Config.fromfile(BASES / 'scenes_coco.py')
    config.merge_from_dict(
        {f'{split}_dataloader.dataset.data_root': f'{scenes}/coco/' for split in COUNTS}
    )
    return config


def ade_config(scenes: Path) -> Config:
    config = Config.fromfile(BASES / 'scenes_ade.py')
    config.merge_from_dict(
        {f'{split}_dataloader.dataset.data_root': f'{scenes}/ade/' for split in COUNTS}
    )
    return config


def library_base(library: ModuleType, name: str) -> Config:
    return Config.fromfile(f'{library.__path__[0]}/.mim/configs/_base_/datasets/{name}.py')


@pytest.mark.parametrize('split', COUNTS)
def test_mmdets_base_reads_them_with_other_classes_only(
    scenes: Path, split: str, det: None
) -> None:
    settings = library_base(mmdet, 'coco_instance')[f'{split}_dataloader'].dataset
    assert settings.type == 'CocoDataset'
    settings.update(data_root=f'{scenes}/coco/', metainfo=dict(classes=CLASSES))
    settings.update(filter_cfg=None, pipeline=[])
    dataset = DET_DATASETS.build(settings)
    path = scenes / 'coco' / 'annotations' / f'instances_{split}2017.json'
    annotations = json.loads(path.read_text())['annotations']
    assert len(dataset) == COUNTS[split] and dataset.metainfo['classes'] == CLASSES
    records = [dataset.get_data_info(index) for index in range(len(dataset))]
    instances = [instance for record in records for instance in record['instances']]
    assert len(instances) == len(annotations)
    assert [i['ignore_flag'] for i in instances] == [a['iscrowd'] for a in annotations]
    assert [i['bbox_label'] + 1 for i in instances] == [a['category_id'] for a in annotations]
    assert sum(i['ignore_flag'] for i in instances) == 1
    assert sum(not record['instances'] for record in records) == 1
    assert all(Path(record['img_path']).is_file() for record in records)


def test_detection_batches_hold_masks_crowds_and_empty_images(scenes: Path, det: None) -> None:
    config = coco_config(scenes)
    config.train_dataloader.update(num_workers=0, persistent_workers=False)
    loader = Runner.build_dataloader(config.train_dataloader, seed=0)
    batches = list(loader)
    samples = [sample for batch in batches for sample in batch['data_samples']]
    assert [len(batch['inputs']) for batch in batches] == [8, 8, 8, 2]
    assert len(loader.dataset) == len(samples) == COUNTS['train']
    assert all(image.shape == (3, 128, 128) for batch in batches for image in batch['inputs'])
    assert sum(len(sample.ignored_instances) for sample in samples) == 1
    assert sum(not len(s.gt_instances) + len(s.ignored_instances) for s in samples) == 1
    for sample in samples:
        boxes = sample.gt_instances.bboxes.tensor.numpy()
        found = sample.gt_instances.masks.get_bboxes('hbox').tensor.numpy().reshape(-1, 4)
        np.testing.assert_allclose(boxes, found, atol=3)  # masks are enlarged by whole pixels


@pytest.mark.parametrize('split', COUNTS)
def test_mmsegs_ade_dataset_reads_them_from_another_folder(
    scenes: Path, split: str, seg: None
) -> None:
    settings = library_base(mmseg, 'ade20k')[f'{split}_dataloader'].dataset
    assert settings.type == 'ADE20KDataset'
    settings.data_root = f'{scenes}/ade'
    settings.pipeline = [dict(type='LoadAnnotations')]
    dataset = SEG_DATASETS.build(settings)
    assert len(dataset) == COUNTS[split]
    unlabelled = 0
    for index in range(len(dataset)):
        item = dataset[index]
        values = cv2.imread(item['seg_map_path'], cv2.IMREAD_UNCHANGED).astype(int)
        expected = np.where(values == 0, 255, values - 1)
        np.testing.assert_array_equal(item['gt_seg_map'], expected)
        assert set(np.unique(expected)) <= {*range(13), 255}
        unlabelled += (expected == 255).any()
        assert Path(item['img_path']).stem == Path(item['seg_map_path']).stem
    assert unlabelled == 1


def test_segmentation_batches_have_thirteen_classes(scenes: Path, seg: None) -> None:
    config = ade_config(scenes)
    config.train_dataloader.update(num_workers=0, persistent_workers=False)
    config.train_dataloader.sampler = dict(type='DefaultSampler', shuffle=True)
    loader = Runner.build_dataloader(config.train_dataloader, seed=0)
    assert loader.dataset.metainfo['classes'] == ('background', *CLASSES)
    seen = set()
    for batch in loader:
        assert len(batch['inputs']) <= 16
        for image, sample in zip(batch['inputs'], batch['data_samples'], strict=True):
            assert image.shape[1:] == sample.gt_sem_seg.data.shape[1:]
            assert max(image.shape[1:]) <= 128
            seen |= set(sample.gt_sem_seg.data.unique().tolist())
    assert set(range(13)) <= seen <= {*range(13), 255}


def test_perfect_maps_score_one_in_mmsegs_metric(scenes: Path, seg: None) -> None:
    config = ade_config(scenes)
    config.val_dataloader.update(num_workers=0, persistent_workers=False)
    loader = Runner.build_dataloader(config.val_dataloader)
    metric = SEG_METRICS.build(config.val_evaluator)
    metric.dataset_meta = loader.dataset.metainfo
    for batch in loader:
        predicted = []
        for sample in batch['data_samples']:
            # Where nothing is labelled any prediction is right.
            labels = sample.gt_sem_seg.data % 255
            predicted.append(SegDataSample(pred_sem_seg=PixelData(data=labels)).to_dict())
            predicted[-1]['gt_sem_seg'] = dict(data=sample.gt_sem_seg.data)
        metric.process(batch, predicted)
    assert metric.evaluate(COUNTS['val'])['mIoU'] == 100.0
