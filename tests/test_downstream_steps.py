"""Training and evaluation of each task's full-scale config, made small, on a few Scenes."""

from __future__ import annotations

import importlib.util
import json
import math
import os
import pickle
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from mmengine.config import Config
from mmengine.registry import DefaultScope
from mmengine.runner import Runner
from mmpretrain.models import ResNet, VisionTransformer
from PIL import Image

from hgkd_mm.engine import PretrainedWeightsError
from hgkd_mm.scenes import CLASSES, SceneFolder

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[1]
LOADER = 'num_workers=0, persistent_workers=False'
CLASSIFICATION = f"""
_base_ = '{ROOT}/configs/cls/NAME.py'
crop = dict(type='RandomResizedCrop', scale=64)
train_pipeline = [crop if t['type'] == 'RandomResizedCrop' else t for t in _base_.train_pipeline]
test_pipeline = [
    dict(type='LoadImageFromFile'), dict(type='CenterCrop', crop_size=64), dict(type='PackInputs')]
data = dict(data_root='SCENES')
train_dataloader = dict(batch_size=4, {LOADER}, dataset=dict(data, pipeline=train_pipeline))
val_dataloader = dict(batch_size=4, {LOADER}, dataset=dict(data, pipeline=test_pipeline))
test_dataloader = val_dataloader
model = dict(
    backbone=dict(depth=18, init_cfg=dict(checkpoint='CHECKPOINT')), head=dict(in_channels=512))
train_cfg = dict(max_epochs=1, val_interval=1)
default_hooks = dict(logger=dict(interval=1), checkpoint=dict(interval=1, save_best=None))
"""
DETECTION = f"""
_base_ = '{ROOT}/configs/det/NAME.py'
scenes = __import__('mmengine').Config.fromfile('{ROOT}/configs/_base_/datasets/scenes_coco.py')
resize = dict(type='Resize', scale=(96, 96), keep_ratio=True)
train_pipeline = [
    resize if t['type'] == 'RandomChoiceResize' else t for t in _base_.train_pipeline]
test_pipeline = [resize if t['type'] == 'Resize' else t for t in _base_.test_pipeline]
data = dict(data_root='SCENES/coco/', metainfo=scenes.metainfo)
train_dataloader = dict(
    batch_size=2, {LOADER},
    dataset=dict(data, pipeline=train_pipeline, filter_cfg=dict(min_size=1)))
val_dataloader = dict(batch_size=2, {LOADER}, dataset=dict(data, pipeline=test_pipeline))
test_dataloader = val_dataloader
val_evaluator = dict(ann_file='SCENES/coco/annotations/instances_val2017.json')
test_evaluator = val_evaluator
few = dict(nms_pre=50, max_per_img=10)
model = dict(
    backbone=dict(init_cfg=dict(checkpoint='CHECKPOINT')),
    roi_head=dict(bbox_head=dict(num_classes=12), mask_head=dict(num_classes=12)),
    train_cfg=dict(rpn_proposal=few, rcnn=dict(sampler=dict(num=8))),
    test_cfg=dict(rpn=few, rcnn=dict(score_thr=0.0, max_per_img=3)))
train_cfg = dict(max_iters=1, val_interval=1)
default_hooks = dict(logger=dict(interval=1), checkpoint=dict(interval=1))
del scenes
"""
SEGMENTATION = f"""
_base_ = '{ROOT}/configs/seg/NAME.py'
scenes = __import__('mmengine').Config.fromfile('{ROOT}/configs/_base_/datasets/scenes_ade.py')
data = dict(scenes.as_ade, data_root='SCENES/ade/')
resize = dict(type='RandomResize', scale=(64, 64), ratio_range=(0.8, 1.5), keep_ratio=True)
crop = dict(type='RandomCrop', crop_size=(64, 64), cat_max_ratio=0.75)
small = dict(RandomResize=resize, RandomCrop=crop)
train_pipeline = [small.get(t['type'], t) for t in _base_.train_pipeline]
train_dataloader = dict(batch_size=2, {LOADER}, dataset=dict(data, pipeline=train_pipeline))
val_dataloader = dict(
    batch_size=2, {LOADER}, dataset=dict(data, pipeline=scenes.test_pipeline))
test_dataloader = val_dataloader
model = dict(
    data_preprocessor=dict(size=(64, 64)),
    backbone=dict(init_cfg=dict(checkpoint='CHECKPOINT')),
    decode_head=dict(num_classes=13, channels=32),
    auxiliary_head=dict(num_classes=13, channels=32))
train_cfg = dict(max_iters=1, val_interval=1)
default_hooks = dict(logger=dict(interval=1), checkpoint=dict(interval=1))
del scenes
"""
CNN_DETECTION = f"""{DETECTION}
model['backbone']['depth'] = 18
model['neck'] = dict(in_channels=[64, 128, 256, 512])
optim_wrapper = dict(paramwise_cfg=dict(blocks_per_group=None))
"""
CNN_SEGMENTATION = f"""{SEGMENTATION}
model['backbone']['depth'] = 18
model['decode_head']['in_channels'] = [64, 128, 256, 512]
model['auxiliary_head']['in_channels'] = 256
"""
# The transformers' configs with a small one, in bfloat16 as by their commands' --amp. Images are of
# 64 and 96 px, so that its position embedding of 32 px is resized.
ARCH = dict(embed_dims=32, num_layers=4, num_heads=2, feedforward_channels=64)
SMALL = f"arch=dict({ARCH}, _delete_=True), img_size=32, init_cfg=dict(checkpoint='CHECKPOINT')"
AMP = "optim_wrapper = dict(type='BF16OptimWrapper')"
VIT_CLASSIFICATION = f"""{CLASSIFICATION}
model = dict(backbone=dict({SMALL}), head=dict(in_channels=32))
{AMP}
"""
VIT_DETECTION = f"""{DETECTION}
model.update(backbone=dict({SMALL}), neck=dict(in_channels=32))
{AMP}
"""
VIT_SEGMENTATION = f"""{SEGMENTATION}
model.update(backbone=dict({SMALL}, out_indices=(0, 1, 2, 3)), neck=dict(embed_dim=32))
model['decode_head']['in_channels'] = [32] * 4
model['auxiliary_head']['in_channels'] = 32
model['test_cfg'] = dict(crop_size=(48, 48), stride=(16, 16))
{AMP}
"""


@pytest.fixture(autouse=True)
def own_scope() -> Iterator[None]:
    # A runner leaves its scope behind, in which later tests would build other networks.
    with DefaultScope.overwrite_default_scope('mmengine'):
        yield


@pytest.fixture(scope='module')
def scenes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Eight images to train on and four to test with, in all layouts, and lists as ImageNet's."""
    folder = SceneFolder(out=tmp_path_factory.mktemp('scenes'), size=64, train=8, val=4)
    list(folder.write(layouts=True, workers=1))
    (folder.out / 'meta').mkdir()
    for split in ('train', 'val'):
        images = sorted((folder.out / split).glob('*/*.jpg'))
        names = [(path.parent.name, path.name) for path in images]
        lines = [f'{name}/{file} {CLASSES.index(name)}' for name, file in names]
        (folder.out / 'meta' / f'{split}.txt').write_text('\n'.join(lines))
    lines = (folder.out / 'meta' / 'train.txt').read_text().splitlines()
    (folder.out / 'meta' / 'train_1pct.txt').write_text('\n'.join(lines[:4]))
    return folder.out


@pytest.fixture(scope='module')
def student(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkpoint as pre-training leaves it: a backbone, and something else."""
    torch.manual_seed(0)
    weights = ResNet(depth=18).state_dict()
    state = {f'backbone.{name}': value for name, value in weights.items()}
    path = tmp_path_factory.mktemp('student') / 'r18.pth'
    torch.save(dict(state_dict={**state, 'neck.mask_token': torch.zeros(1)}), path)
    return path


@pytest.fixture(scope='module')
def vit(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkpoint as Hybrid Distill leaves it."""
    torch.manual_seed(0)
    weights = VisionTransformer(arch=ARCH, img_size=32).state_dict()
    path = tmp_path_factory.mktemp('vit') / 'vit.pth'
    torch.save(
        dict(state_dict={f'backbone.{name}': value for name, value in weights.items()}), path
    )
    return path


def leaf(text: str, name: str, scenes: Path, student: Path, folder: Path) -> Path:
    path = folder / f'{name}.py'
    words = dict(NAME=name, SCENES=str(scenes), CHECKPOINT=str(student))
    for word, value in words.items():
        text = text.replace(word, value)
    path.write_text(text)
    return path


def train(config: Path, folder: Path) -> tuple[Runner, dict[str, list[float]]]:
    """Trains and evaluates in this process; the runner, and what it logged."""
    settings = Config.fromfile(config)
    settings.work_dir = str(folder)
    settings.experiment_name = f'train-{folder}'
    runner = Runner.from_cfg(settings)
    runner.train()
    runner.visualizer.close()
    assert all(torch.isfinite(p).all() for p in runner.model.parameters())
    scalars = runner.message_hub.log_scalars
    return runner, {key: list(buffer.data[0]) for key, buffer in scalars.items()}


def stepped(runner: Runner) -> set[str]:
    state = runner.optim_wrapper.optimizer.state
    return {name for name, p in runner.model.named_parameters() if p in state}


def run_test_tool(monkeypatch: pytest.MonkeyPatch, *words: object) -> None:
    monkeypatch.setattr(sys, 'argv', ['test.py', *map(str, words)])
    monkeypatch.setenv('LOCAL_RANK', '0')
    spec = importlib.util.spec_from_file_location('test_tool', ROOT / 'tools/test.py')
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    module.main()


def test_fine_tuning(
    scenes: Path, student: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = leaf(CLASSIFICATION, 'r50_ft300_in1k', scenes, student, tmp_path)
    runner, log = train(config, tmp_path / 'out')
    # Binary cross-entropy, the mean of 1000 classes: log 2 where nothing is known.
    assert log['train/loss'] == pytest.approx([math.log(2)] * 2, rel=0.05)
    # Clipping leaves ordinary steps alone.
    assert all(0 < norm < 1 for norm in log['train/grad_norm'])
    assert stepped(runner) == {name for name, _ in runner.model.named_parameters()}
    # The averaged weights are tested, and the raw ones.
    assert {'val/accuracy/top1', 'val/accuracy/top1_origin'} <= set(log)
    assert log['train/base_lr'][0] == pytest.approx(0.005 * 0.008)
    path = tmp_path / 'out' / 'epoch_1.pth'
    saved = torch.load(path, weights_only=False)
    saved['state_dict']['head.fc.bias'][22] += 50
    saved['ema_state_dict']['module.head.fc.bias'][11] += 50
    torch.save(saved, path)
    words = (config, path, '--work-dir', tmp_path / 'test')
    words += ('--out', tmp_path / 'all.pkl', '--show-dir', tmp_path / 'pictures')
    run_test_tool(monkeypatch, *words, '--cfg-options', 'experiment_name=classification')
    assert len(list((tmp_path / 'pictures').glob('*.png'))) == 4
    rows = pickle.loads((tmp_path / 'all.pkl').read_bytes())
    assert [row['pred_score'].shape for row in rows] == [(1000,)] * 4
    # The averaged weights, which the checkpoint's state is, see class 22 everywhere.
    assert {row['pred_score'].argmax().item() for row in rows} == {22}


def test_linear_probe(scenes: Path, student: Path, tmp_path: Path) -> None:
    narrow = 'dict(_base_.model.neck[1], input_features=512)'
    text = f"{CLASSIFICATION}model['neck'] = [_base_.model.neck[0], {narrow}]"
    config = leaf(text, 'r50_linear_in1k', scenes, student, tmp_path)
    runner, log = train(config, tmp_path / 'out')
    assert log['train/loss'] == pytest.approx([math.log(1000)] * 2, rel=0.2)
    assert stepped(runner) == {'head.fc.weight', 'head.fc.bias'}
    before = torch.load(student)['state_dict']
    after = runner.model.backbone.state_dict()
    assert all(torch.equal(before[f'backbone.{name}'], value) for name, value in after.items())


def test_semi_supervised(scenes: Path, student: Path, tmp_path: Path) -> None:
    config = leaf(CLASSIFICATION, 'r50_semi-1pct_in1k', scenes, student, tmp_path)
    runner, log = train(config, tmp_path / 'out')
    assert len(log['train/loss']) == 1  # four of the eight images, at four a step
    assert stepped(runner) == {name for name, _ in runner.model.named_parameters()}
    assert log['train/base_lr'] == [0.5]


@pytest.mark.skipif(torch.cuda.is_available(), reason='two processes on the CPU')
def test_detection_by_two_processes(
    scenes: Path, student: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    name = 'mask-rcnn_r50_fpn_1x_coco'
    config = leaf(CNN_DETECTION, name, scenes, student, tmp_path)
    command = ['bash', 'tools/dist_train.sh', config, '2', '--work-dir', tmp_path / 'out']
    result = subprocess.run(
        [str(word) for word in command],
        cwd=ROOT,
        env={**os.environ, 'HGKD_VENV': sys.prefix, 'OMP_NUM_THREADS': '1'},
        capture_output=True,
        text=True,
        timeout=240,
    )
    assert result.returncode == 0, result.stderr
    (log,) = (tmp_path / 'out').glob('*/vis_data/scalars.json')
    rows = [json.loads(line) for line in log.read_text().splitlines()]
    (step,), scores = [row for row in rows if 'loss' in row], rows[-1]
    terms = {'loss_rpn_cls', 'loss_rpn_bbox', 'loss_cls', 'loss_bbox', 'loss_mask'}
    assert all(math.isfinite(step[term]) for term in terms)
    assert step['base_lr'] == pytest.approx(0.01 * 2.5e-4)
    assert {'coco/bbox_mAP', 'coco/segm_mAP'} <= set(scores)
    state = torch.load(tmp_path / 'out' / 'iter_1.pth', weights_only=False)
    # A batch norm of the box head has seen the step.
    assert state['state_dict']['roi_head.bbox_head.shared_convs.3.bn.num_batches_tracked'] == 1
    words = (config, tmp_path / 'out' / 'iter_1.pth', '--work-dir', tmp_path / 'test')
    words += ('--out', tmp_path / 'all.pkl', '--show-dir', tmp_path / 'pictures')
    run_test_tool(monkeypatch, *words, '--cfg-options', 'visualizer.name=detection')
    images = len(list((scenes / 'coco' / 'val2017').glob('*.jpg')))
    assert len(list((tmp_path / 'pictures').glob('*.jpg'))) == images
    rows = pickle.loads((tmp_path / 'all.pkl').read_bytes())
    assert len(rows) == images and 'counts' in rows[0]['pred_instances']['masks'][0]


def test_segmentation(
    scenes: Path, student: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    name = 'upernet_r50_160k_ade20k-512x512'
    config = leaf(CNN_SEGMENTATION, name, scenes, student, tmp_path)
    runner, log = train(config, tmp_path / 'out')
    assert {'train/decode.loss_ce', 'train/aux.loss_ce', 'val/mIoU'} <= set(log)
    # 13 classes by chance, the auxiliary head at .4
    assert log['train/decode.loss_ce'][0] == pytest.approx(math.log(13), rel=0.5)
    assert stepped(runner) == {name for name, _ in runner.model.named_parameters()}
    words = (config, tmp_path / 'out' / 'iter_1.pth', '--work-dir', tmp_path / 'test')
    words += ('--out', tmp_path / 'maps', '--show-dir', tmp_path / 'pictures')
    run_test_tool(monkeypatch, *words, '--cfg-options', 'visualizer.name=segmentation')
    images = sorted((scenes / 'ade' / 'images' / 'validation').glob('*.jpg'))
    maps = {path.stem: np.array(Image.open(path)) for path in (tmp_path / 'maps').glob('*.png')}
    assert set(maps) == {path.stem for path in images}
    assert {m.shape for m in maps.values()} == {(64, 64)}
    assert max(m.max() for m in maps.values()) <= 13
    assert len(list((tmp_path / 'pictures').rglob('*.png'))) == len(images)


def test_transformers_fine_tuning(scenes: Path, vit: Path, tmp_path: Path) -> None:
    config = leaf(VIT_CLASSIFICATION, 'vit-b_ft100_in1k', scenes, vit, tmp_path)
    runner, log = train(config, tmp_path / 'out')
    # The head begins at 2e-5.
    assert log['train/loss'] == pytest.approx([math.log(1000)] * 2, rel=0.05)
    assert stepped(runner) == {name for name, _ in runner.model.named_parameters()}
    assert 'val/accuracy/top1' in log
    # mmpretrain's config, in which warm-up begins at 1e-4 of the peak
    assert log['train/base_lr'][0] == pytest.approx(1e-4 * 2e-3)


def test_transformers_detection(scenes: Path, vit: Path, tmp_path: Path) -> None:
    config = leaf(VIT_DETECTION, 'mask-rcnn_vit-b_simplefpn_1x_coco', scenes, vit, tmp_path)
    runner, log = train(config, tmp_path / 'out')
    terms = ('loss_rpn_cls', 'loss_rpn_bbox', 'loss_cls', 'loss_bbox', 'loss_mask')
    assert all(math.isfinite(log[f'train/{term}'][0]) for term in terms)
    assert stepped(runner) == {name for name, _ in runner.model.named_parameters()}
    assert log['train/base_lr'] == pytest.approx([0.001 * 1e-4])
    assert {'val/coco/bbox_mAP', 'val/coco/segm_mAP'} <= set(log)


def test_transformers_segmentation(scenes: Path, vit: Path, tmp_path: Path) -> None:
    config = leaf(VIT_SEGMENTATION, 'upernet_vit-b_160k_ade20k-512x512', scenes, vit, tmp_path)
    runner, log = train(config, tmp_path / 'out')
    assert log['train/decode.loss_ce'][0] == pytest.approx(math.log(13), rel=0.5)
    assert stepped(runner) == {name for name, _ in runner.model.named_parameters()}
    assert 'val/mIoU' in log


def test_a_transformer_with_a_norm_that_the_file_lacks_is_refused(
    scenes: Path, vit: Path, tmp_path: Path
) -> None:
    text = f"{VIT_CLASSIFICATION}custom_hooks = [dict(type='PretrainedReportHook')]"
    config = leaf(text, 'vit-b_ft100_in1k', scenes, vit, tmp_path)
    with pytest.raises(PretrainedWeightsError, match='52 of 54 weights'):
        train(config, tmp_path / 'out')
