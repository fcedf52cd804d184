"""A step or two of each kind of full-scale config, made small, on a few Scenes, and its test."""

from __future__ import annotations

import copy
import math
import pickle
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from helpers.configs import CONFIGS, load, teachers
from helpers.tools import load_tool
from helpers.zoo import zoo_checkpoint
from mmengine.config import Config
from mmengine.runner import Runner
from mmpretrain.models import ResNet, VisionTransformer
from PIL import Image

from hgkd_mm.scenes import CLASSES, SceneFolder

pytestmark = pytest.mark.slow

NARROW = dict(depth=18, stem_channels=8, base_channels=8)
WIDTHS = [8, 16, 32, 64]
ARCH = dict(embed_dims=32, num_layers=4, num_heads=2, feedforward_channels=64)


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
        (folder.out / 'meta' / f'{split}_1pct.txt').write_text('\n'.join(lines[:4]))
    return folder.out


def small(name: str, scenes: Path, folder: Path) -> Config:
    """The config with a small network and small images, for one epoch or one step."""
    config = load(name)
    config.work_dir = str(folder / 'out')
    config.experiment_name = f'{Path(name).stem}-{folder.name}'
    config.default_hooks.logger.interval = 1
    loaders = [config[f'{split}_dataloader'] for split in ('train', 'val') if name[0] != 'p']
    for loader in loaders or [config.train_dataloader]:
        loader.update(batch_size=4, num_workers=0, persistent_workers=False)
        loader.dataset.data_root = str(scenes)
    change = {
        'pretrain': pre_training,
        'cls': classification,
        'det': detection,
        'seg': segmentation,
    }
    change[name.split('/')[0]](config, scenes, folder)
    if 'max_iters' in config.train_cfg:
        config.train_cfg.update(max_iters=1, val_interval=1)
        config.default_hooks.checkpoint = dict(type='CheckpointHook', by_epoch=False, interval=1)
    else:
        config.train_cfg.update(max_epochs=1, val_interval=1)
        config.default_hooks.checkpoint = dict(type='CheckpointHook', interval=1)
    if loaders:
        pretrained(config, folder)
        config.test_dataloader = copy.deepcopy(config.val_dataloader)
        config.test_evaluator = copy.deepcopy(config.val_evaluator)
    return config


def pretrained(config: Config, folder: Path) -> None:
    """A small backbone, from a checkpoint as pre-training leaves it: with something else."""
    backbone = config.model.backbone
    torch.manual_seed(0)
    if backbone.type.endswith('ResNet'):
        backbone.update(NARROW)
        weights = ResNet(**NARROW).state_dict()
    else:
        # Images are of 64 px, so that the position embedding is resized.
        backbone.update(arch=ARCH, img_size=32)
        weights = VisionTransformer(arch=ARCH, img_size=32).state_dict()
        config.optim_wrapper.type = 'BF16OptimWrapper'  # as by --amp
    state = {f'backbone.{name}': value for name, value in weights.items()}
    state['neck.mask_token'] = torch.zeros(1)
    backbone.init_cfg.checkpoint = str(folder / 'student.pth')
    torch.save(dict(state_dict=state), backbone.init_cfg.checkpoint)


def pre_training(config: Config, scenes: Path, folder: Path) -> None:
    labelled = Config.fromfile(CONFIGS / '_base_' / 'datasets' / 'scenes_cls.py')
    splits = {f'{split}_dataset': labelled[f'cls_{split}_dataset'] for split in ('train', 'val')}
    hook = dict(type='KNNEvalHook', **splits)
    if 'imagenet' in config.custom_hooks[-1].get('train_dataset', {}).get('data_root', ''):
        config.train_dataloader.dataset.pipeline[1].scale = 64
        config.model.backbone.update(NARROW)
        config.model.neck.width = 64
        hook = config.custom_hooks.pop()
        for teacher in teachers(config).values():
            teacher.arch = ARCH | dict(num_layers=1)
            teacher.checkpoint = str(zoo_checkpoint(teacher, folder / 'teacher.pth', noise=True))
            config.model.heads.sim.queue_size = 16
    hook.update(k=1, num_workers=0)
    for dataset in (hook['train_dataset'], hook['val_dataset']):
        dataset['data_root'] = str(scenes)
    config.custom_hooks.append(hook)


def classification(config: Config, scenes: Path, folder: Path) -> None:
    for loader in (config.train_dataloader, config.val_dataloader):
        for step in loader.dataset.pipeline:
            step.update({key: 64 for key in ('scale', 'crop_size') if key in step})
    width = 64 if config.model.backbone.type == 'ResNet' else 32
    config.model.head.in_channels = width
    if isinstance(config.model.neck, list):
        config.model.neck[1].input_features = width


def detection(config: Config, scenes: Path, folder: Path) -> None:
    data = Config.fromfile(CONFIGS / '_base_' / 'datasets' / 'scenes_coco.py')
    for loader in (config.train_dataloader, config.val_dataloader):
        loader.batch_size = 2
        loader.dataset.update(data_root=f'{scenes}/coco/', metainfo=data.metainfo)
        steps = {step.type: step for step in loader.dataset.pipeline}
        resize = steps.get('RandomChoiceResize') or steps['Resize']
        resize.pop('scales', None)
        resize.update(type='Resize', scale=(64, 64))
    config.train_dataloader.dataset.filter_cfg.min_size = 1
    config.val_evaluator.ann_file = f'{scenes}/coco/annotations/instances_val2017.json'
    model = config.model
    model.roi_head.bbox_head.num_classes = model.roi_head.mask_head.num_classes = len(CLASSES)
    few = dict(nms_pre=50, max_per_img=10)
    model.train_cfg.rpn_proposal.update(few)
    model.train_cfg.rcnn.sampler.num = 8
    model.test_cfg.rpn.update(few)
    model.test_cfg.rcnn.update(score_thr=0.0, max_per_img=3)
    vit = model.backbone.type == 'mmpretrain.VisionTransformer'
    model.neck.in_channels = 32 if vit else WIDTHS
    config.optim_wrapper.paramwise_cfg.pop('blocks_per_group', None)


def segmentation(config: Config, scenes: Path, folder: Path) -> None:
    data = Config.fromfile(CONFIGS / '_base_' / 'datasets' / 'scenes_ade.py')
    for loader in (config.train_dataloader, config.val_dataloader):
        loader.batch_size = 2
        loader.dataset.update(data.as_ade, data_root=f'{scenes}/ade/')
    config.val_dataloader.dataset.pipeline = data.test_pipeline
    for step in config.train_dataloader.dataset.pipeline:
        if step.type == 'RandomResize':
            step.update(scale=(64, 64), ratio_range=(0.8, 1.5))
        if step.type == 'RandomCrop':
            step.crop_size = (64, 64)
    model = config.model
    model.data_preprocessor.size = (64, 64)
    vit = model.backbone.type == 'mmpretrain.VisionTransformer'
    widths = [32] * 4 if vit else WIDTHS
    model.decode_head.update(num_classes=13, channels=32, in_channels=widths)
    model.auxiliary_head.update(num_classes=13, channels=32, in_channels=widths[2])
    if vit:
        model.backbone.out_indices = (0, 1, 2, 3)
        model.neck.embed_dim = 32
        model.test_cfg.update(crop_size=(48, 48), stride=(16, 16))


def train(config: Config) -> tuple[Runner, dict[str, list[float]]]:
    """The runner after a training in this process, and what it logged, step by step."""
    runner = Runner.from_cfg(config)
    runner.train()
    runner.visualizer.close()
    assert all(torch.isfinite(p).all() for p in runner.model.parameters())
    scalars = runner.message_hub.log_scalars
    log = {key: list(buffer.data[0]) for key, buffer in scalars.items()}
    assert all(math.isfinite(v) for key in log if 'train/loss' in key for v in log[key])
    # A weight without a gradient would stop DistributedDataParallel.
    stepped = runner.optim_wrapper.optimizer.state
    missed = {n for n, p in runner.model.named_parameters() if p.requires_grad and p not in stepped}
    assert missed == set()
    return runner, log


def run_test_tool(
    config: Config, checkpoint: str, out: str, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> Path:
    """Runs tools/test.py; the folder, with what ``--out`` gives and 'pictures'."""
    config.dump(folder / 'config.py')
    words = ['test.py', folder / 'config.py', folder / 'out' / checkpoint]
    words += ['--work-dir', folder / 'test', '--out', folder / out]
    words += ['--show-dir', folder / 'pictures', '--cfg-options', f'visualizer.name={folder.name}']
    monkeypatch.setattr(sys, 'argv', [str(word) for word in words])
    monkeypatch.setenv('LOCAL_RANK', '0')
    load_tool('test').main()
    return folder


# The range of each loss by config: tokens, cells and relations of unit variance and untrained
# networks; smooth L1 is weighed down by its beta of 2.
LOSSES = {
    'hgkd_r50_mae': dict(feat=(0.5, 3), sim=(0, 2)),
    'spark_r50': dict(pixel=(0.9, 1.5)),
    'hybrid_vit_scenes': dict(feat=(0.05, 1), relation=(0, 3)),
    'hybrid-hgkd_r18_scenes': dict.fromkeys(
        ('feat', 'sim', 'cl_feat', 'cl_sim', 'relation'), (0, math.inf)
    ),
}


@pytest.mark.parametrize('name', LOSSES)
def test_pre_training(name: str, scenes: Path, tmp_path: Path) -> None:
    run, log = train(small(f'pretrain/{name}.py', scenes, tmp_path))
    terms = {key.removeprefix('train/loss_') for key in log if key.startswith('train/loss_')}
    assert terms == set(LOSSES[name])
    for term, (low, high) in LOSSES[name].items():
        assert all(low <= value <= high for value in log[f'train/loss_{term}'])
    assert all(head.queue.num_stored == 8 for key, head in run.model.heads.items() if 'sim' in key)
    assert 0 <= log['knn/top1'][0] <= 100
    assert not any('teacher' in key for key in run.model.state_dict())
    if name == 'hgkd_r50_mae':
        # Nothing to be similar to at first; then the first step's embeddings.
        assert log['train/loss_sim'][0] == 0 < log['train/loss_sim'][1]
        assert log['train/lr'][0] == pytest.approx(0.005 * 1.6e-3)
    if name == 'spark_r50':
        assert all(math.isfinite(value) for value in log['train/grad_norm'])


def test_fine_tuning(scenes: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config = small('cls/r50_ft300_in1k.py', scenes, tmp_path)
    _, log = train(copy.deepcopy(config))
    # Binary cross-entropy, the mean of 1000 classes: log 2 where nothing is known.
    assert log['train/loss'] == pytest.approx([math.log(2)] * 2, rel=0.05)
    # Clipping leaves ordinary steps alone.
    assert all(0 < norm < 1 for norm in log['train/grad_norm'])
    # The averaged weights are tested, and the raw ones.
    assert {'val/accuracy/top1', 'val/accuracy/top1_origin'} <= set(log)
    assert log['train/base_lr'][0] == pytest.approx(0.005 * 0.008)
    path = tmp_path / 'out' / 'epoch_1.pth'
    saved = torch.load(path, weights_only=False)
    saved['state_dict']['head.fc.bias'][22] += 50
    saved['ema_state_dict']['module.head.fc.bias'][11] += 50
    torch.save(saved, path)
    folder = run_test_tool(config, 'epoch_1.pth', 'all.pkl', tmp_path, monkeypatch)
    assert len(list((folder / 'pictures').glob('*.png'))) == 4
    rows = pickle.loads((folder / 'all.pkl').read_bytes())
    assert [row['pred_score'].shape for row in rows] == [(1000,)] * 4
    # The averaged weights, which the checkpoint's state is, see class 22 everywhere.
    assert {row['pred_score'].argmax().item() for row in rows} == {22}


@pytest.mark.parametrize(
    ('name', 'steps', 'rel', 'lr'),
    [
        ('r50_linear', 2, 0.2, 1e-4 * 1.6),
        # four of the eight images, at four a step
        ('r50_semi-1pct', 1, 0.2, 0.5),
        # The head begins at 2e-5, and mmpretrain's warm-up at 1e-4 of the peak.
        ('vit-b_ft100', 2, 0.05, 1e-4 * 2e-3),
    ],
)
def test_other_classifiers(
    name: str, steps: int, rel: float, lr: float, scenes: Path, tmp_path: Path
) -> None:
    runner, log = train(small(f'cls/{name}_in1k.py', scenes, tmp_path))
    assert log['train/loss'] == pytest.approx([math.log(1000)] * steps, rel=rel)
    # a rate for all where no part has one of its own
    assert log.get('train/base_lr', log['train/lr'])[0] == pytest.approx(lr)
    assert 'val/accuracy/top1' in log
    if name == 'r50_linear':
        trained = {name for name, p in runner.model.named_parameters() if p.requires_grad}
        assert trained == {'head.fc.weight', 'head.fc.bias'}
        before = torch.load(tmp_path / 'student.pth')['state_dict']
        after = runner.model.backbone.state_dict()
        assert all(torch.equal(before[f'backbone.{key}'], value) for key, value in after.items())


@pytest.mark.parametrize(
    ('name', 'lr'),
    [('mask-rcnn_r50_fpn', 0.01 * 2.5e-4), ('mask-rcnn_vit-b_simplefpn', 0.001 * 1e-4)],
)
def test_detection(
    name: str, lr: float, scenes: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = small(f'det/{name}_1x_coco.py', scenes, tmp_path)
    runner, log = train(copy.deepcopy(config))
    terms = {'loss_rpn_cls', 'loss_rpn_bbox', 'loss_cls', 'loss_bbox', 'loss_mask'}
    assert {f'train/{term}' for term in terms} <= set(log)
    assert log['train/base_lr'] == pytest.approx([lr])
    assert {'val/coco/bbox_mAP', 'val/coco/segm_mAP'} <= set(log)
    if 'vit' in name:
        return
    norm = runner.model.roi_head.bbox_head.shared_convs[3].bn
    assert norm.num_batches_tracked == 1
    folder = run_test_tool(config, 'iter_1.pth', 'all.pkl', tmp_path, monkeypatch)
    images = len(list((scenes / 'coco' / 'val2017').glob('*.jpg')))
    assert len(list((folder / 'pictures').glob('*.jpg'))) == images
    rows = pickle.loads((folder / 'all.pkl').read_bytes())
    assert len(rows) == images and 'counts' in rows[0]['pred_instances']['masks'][0]


@pytest.mark.parametrize('network', ['r50', 'vit-b'])
def test_segmentation(
    network: str, scenes: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = small(f'seg/upernet_{network}_160k_ade20k-512x512.py', scenes, tmp_path)
    _, log = train(copy.deepcopy(config))
    assert {'train/decode.loss_ce', 'train/aux.loss_ce', 'val/mIoU'} <= set(log)
    # 13 classes by chance, the auxiliary head at .4
    assert log['train/decode.loss_ce'][0] == pytest.approx(math.log(13), rel=0.5)
    if network == 'vit-b':
        return
    folder = run_test_tool(config, 'iter_1.pth', 'maps', tmp_path, monkeypatch)
    images = sorted((scenes / 'ade' / 'images' / 'validation').glob('*.jpg'))
    maps = {path.stem: np.array(Image.open(path)) for path in (folder / 'maps').glob('*.png')}
    assert set(maps) == {path.stem for path in images}
    assert {m.shape for m in maps.values()} == {(64, 64)}
    assert max(m.max() for m in maps.values()) <= 13
    assert len(list((folder / 'pictures').rglob('*.png'))) == len(images)
