"""Every config: header, schedule, runtime, network at full size, and the files it starts from."""

from __future__ import annotations

import ast
import re
import shlex
from pathlib import Path

import mmpretrain
import pytest
import timm
import torch
import yaml
from helpers.configs import (
    BIG,
    CONFIGS,
    FILES,
    PRETRAINING,
    SCOPES,
    TASKS,
    VITS,
    WIDTHS,
    build,
    load,
    options,
    slow_if_large,
    student,
    teachers,
)
from helpers.zoo import PAPER_ARCHS, full_arch
from mmengine.registry import MODELS
from mmengine.runner.checkpoint import get_torchvision_models
from mmpretrain.models import VisionTransformer
from torch import nn

from hgkd_mm.utils.launch import override

# Other depths are options of ResNet-50's configs, other teachers of the flagship's; the docs have
# the commands.
FLAGSHIP = 'pretrain/hgkd_r50_mae.py'
BASES = (
    'cls/r50_ft300_in1k.py',
    'det/mask-rcnn_r50_fpn_1x_coco.py',
    'seg/upernet_r50_160k_ade20k-512x512.py',
)
DEPTHS = [f'{name} model.backbone.depth={depth}' for name in BASES for depth in (18, 101)]
OTHERS = [f'{FLAGSHIP} model.backbone.depth={depth}' for depth in (18, 101)]
OTHERS += [f'{FLAGSHIP} model.teachers.mim.{key}' for key in ('arch=l', 'family=beit')]
TWINS = [name for name in TASKS if name.endswith(('_scratch.py', '_supervised.py'))]


@pytest.mark.parametrize('name', FILES)
def test_header(name: str) -> None:
    text = ast.get_docstring(ast.parse((CONFIGS / name).read_text()))
    fields = {line.split(':')[0] for line in text.splitlines() if ':' in line}
    assert fields >= {'Reproduces', 'Run', 'Hardware', 'Time', 'Metric'}
    assert f'configs/{name}' in text or 'python tools/train_teacher.py' in text
    config = load(name)
    for flag in re.findall(r'--cfg-options(?:\s+(?:"[^"]+"|[\w.]+=[^\s,;)]+))+', text):
        given = options(shlex.split(flag))
        override(load(name), given)
        assert all(v == 'FILE' for key, v in given.items() if key.endswith('checkpoint'))
    if name not in BIG:
        return
    gpus, images = map(int, re.search(r'(\d+) GPUs.*, (\d+) images each', text).groups())
    assert f'configs/{name} {gpus}' in text
    assert config.train_dataloader.batch_size == images
    assert config.auto_scale_lr.base_batch_size == gpus * images


@pytest.mark.parametrize('case', [*FILES, *DEPTHS, *OTHERS, f'{BASES[0]} train_cfg.max_epochs=100'])
def test_schedules_end_with_the_training(case: str) -> None:
    config = load(case)
    length = config.train_cfg.get('max_epochs') or config.train_cfg.max_iters
    last = [s for s in config.param_scheduler if s.type != 'LinearLR']
    assert {s.end for s in last} == {length}
    assert all(s.T_max == s.end - s.get('begin', 0) for s in last if 'T_max' in s)


@pytest.mark.parametrize('name', TASKS)
def test_runtime_of_a_task(name: str) -> None:
    config = load(name)
    task = name.split('/')[0]
    assert config.default_scope == SCOPES[task]
    assert config.test_dataloader == config.val_dataloader
    assert config.test_evaluator == config.val_evaluator
    # An error while validating costs no training: every validation comes after a checkpoint.
    hook, loop = config.default_hooks.checkpoint, config.train_cfg
    by_epoch = loop.get('type', 'EpochBasedTrainLoop') == 'EpochBasedTrainLoop'
    assert hook.get('by_epoch', True) == by_epoch
    assert loop.get('val_interval', 1) % hook.interval == 0
    if task != 'cls':
        hooks = ['mmpretrain.NonFiniteLossHook', 'PretrainedReportHook']
        assert [hook.type for hook in config.custom_hooks] == hooks
        assert config.log_processor.by_epoch is False
        assert 'hgkd_mm.engine' in config.custom_imports.imports


@pytest.mark.parametrize('name', [*PRETRAINING, *OTHERS])
def test_runtime_of_a_pre_training(name: str) -> None:
    config = load(name)
    assert config.randomness.diff_rank_seed  # ranks draw masks of their own
    assert config.auto_scale_lr.base_batch_size == 2048
    hooks = [hook.type for hook in config.custom_hooks]
    assert hooks == ['NonFiniteLossHook', 'KNNEvalHook'][: 1 if 'folder' in name else 2]


# -- networks -------------------------------------------------------------------------------------


@pytest.mark.parametrize('case', slow_if_large([*(f for f in FILES if f[0] == 'p'), *OTHERS]))
def test_network_of_a_pre_training(case: str) -> None:
    config = load(case)
    model = build(config).eval()
    assert not any('teacher' in key for key in model.state_dict())
    for key, settings in teachers(config).items():
        teacher = model.teachers[key]
        assert not any(p.requires_grad for p in teacher.parameters())
        if settings.type == 'MIMTeacher':
            arch = full_arch(settings.arch)
            assert teacher.embed_dim == arch['embed_dims']
            assert len(teacher.vit.layers) == arch['num_layers']
    step = config.train_dataloader.dataset.pipeline[1]
    crops = [view[0] for view in step.transforms] if step.type == 'MultiView' else [step]
    assert all(crop.scale % config.model.get('mask', {}).get('cell', 16) == 0 for crop in crops)
    if 'mask' not in config.model:
        return
    with torch.no_grad():
        maps = model.extract_feat(torch.zeros(1, 3, 64, 64, device='meta'))
    assert [64 // m.shape[-1] for m in maps] == [4, 8, 16, 32]
    assert tuple(m.shape[1] for m in maps) == model.neck.in_channels
    if 'sim' in config.model.heads:
        assert model.heads['sim'].projector[0].in_features == maps[-1].shape[1]


@pytest.mark.parametrize('case', [*TASKS, *DEPTHS])
def test_network_of_a_task(case: str) -> None:
    config = load(case)
    model = build(config).eval()
    width, depth = VITS.get(student(case), (None, None))
    widths = WIDTHS.get(student(case), [width] * 4)
    # of a transformer not 224, so that the position embedding is resized, and not square
    image = torch.zeros(1, 3, 64, 96, device='meta')
    with torch.no_grad():
        maps = model.backbone(image)
        if width:
            assert type(model.backbone) is VisionTransformer and len(model.backbone.layers) == depth
            assert all(m.shape[-2:] == (4, 6) for m in maps if m.ndim == 4)
        elif config.default_scope != 'mmpretrain':
            assert [64 // m.shape[-2] for m in maps] == [4, 8, 16, 32]
        if config.default_scope == 'mmpretrain':
            assert model(torch.zeros(1, 3, 224, 224, device='meta')).shape == (1, 1000)
            assert maps[-1].shape[1] == model.head.in_channels == widths[-1]
        if config.default_scope == 'mmdet':
            assert [m.shape[1] for m in maps] == ([width] if width else list(widths))
            levels = [tuple(m.shape[1:]) for m in model.neck(maps)]
            assert levels[:4] == [(256, 16, 24), (256, 8, 12), (256, 4, 6), (256, 2, 3)]
            assert len(levels) == 5 and levels[4][0] == 256
            strides = [stride for stride, _ in model.rpn_head.anchor_generator.strides]
            assert strides == [4, 8, 16, 32, 64]
            assert model.roi_head.bbox_head.num_classes == 80
            assert model.roi_head.mask_head.num_classes == 80
        if config.default_scope == 'mmseg':
            assert [m.shape[1] for m in maps] == list(widths)
            levels = model.neck(maps) if width else maps
            assert [m.shape[-1] for m in levels] == [24, 12, 6, 3]
            assert model(image).shape == (1, 150, 16, 24)
            assert model.auxiliary_head(levels).shape == (1, 150, 4, 6)
    if not width and not case.startswith(('cls/r50_linear', 'cls/r50_semi')):
        norms = [m for m in model.modules() if isinstance(m, nn.modules.batchnorm._BatchNorm)]
        assert norms and all(isinstance(m, nn.SyncBatchNorm) for m in norms)


# -- weights and teachers -------------------------------------------------------------------------


@pytest.mark.parametrize('name', [name for name in TASKS if name not in TWINS])
def test_weights_come_from_the_students_pre_training(name: str) -> None:
    backbone, network = load(name).model.backbone, student(name)
    run = f'hybrid_{network}_mae-clip' if network in VITS else f'hgkd_{network}_mae'
    path = f'work_dirs/{run}/epoch_300.pth'
    assert backbone.init_cfg == dict(type='Pretrained', checkpoint=path, prefix='backbone.')
    pretraining = load(f'pretrain/{run}.py')
    assert pretraining.train_cfg.max_epochs == 300
    trained = pretraining.model.backbone
    assert trained.type == backbone.type.removeprefix('mmpretrain.')
    for key in ('depth', 'arch', 'patch_size'):
        assert trained.get(key) == backbone.get(key)
    if network in VITS:
        arch = {'vit-b': 'base', 'vit-l': 'large'}[network]
        assert (backbone.arch, backbone.patch_size) == (arch, 16)


@pytest.mark.parametrize('name', TWINS)
def test_twins_differ_in_the_start_only(name: str) -> None:
    twin, config = load(name), load(re.sub('_(scratch|supervised)', '', name))
    start = twin.model.backbone.pop('init_cfg')
    config.model.backbone.pop('init_cfg')
    if name.endswith('_supervised.py'):
        assert start == dict(type='Pretrained', checkpoint='torchvision://resnet50')
        # torchvision's IMAGENET1K_V1; V2 is resnet50-11ad3fa6.pth
        assert get_torchvision_models()['resnet50'].endswith('resnet50-0676ba61.pth')
    else:
        assert [s.type for s in start] == ['Kaiming', 'Constant']
        assert twin.optim_wrapper.paramwise_cfg.pop('layer_decay_rate') == 1.0
        config.optim_wrapper.paramwise_cfg.pop('layer_decay_rate')
    assert twin.to_dict() == config.to_dict()


def test_scratch_is_what_the_network_does_by_itself() -> None:
    settings = load('det/mask-rcnn_r50_fpn_1x_coco_scratch.py').model.backbone
    settings.depth = 18
    weights = []
    for own in (False, True):
        if own:
            settings.pop('init_cfg')
        torch.manual_seed(0)
        network = MODELS.build(settings)
        torch.manual_seed(0)
        network.init_weights()
        weights.append(network.state_dict())
    torch.testing.assert_close(*weights, rtol=0, atol=0)


@pytest.mark.parametrize('name', [name for name in TASKS if student(name) == 'vit-b'])
def test_file_has_every_weight_but_the_new_norm(name: str) -> None:
    config = load(name)
    with torch.device('meta'):
        pretrained = VisionTransformer(arch='base', patch_size=16).state_dict()
    weights = build(config).backbone.state_dict()
    lacking = weights.keys() - pretrained.keys()
    assert all(weights[key].shape == pretrained[key].shape for key in weights.keys() - lacking)
    report = next(hook for hook in config.custom_hooks if hook.type == 'PretrainedReportHook')
    if name.startswith('cls'):
        # facebookresearch/mae main_finetune.py expects its fc_norm and head to be missing
        assert lacking == {'ln2.weight', 'ln2.bias'}
        assert report.allow_missing == ['backbone.ln2.*']
    else:
        assert not lacking and 'allow_missing' not in report
    # the norm of the output is what they leave in the file
    assert pretrained.keys() - weights.keys() == {'ln1.weight', 'ln1.bias'}


TAUGHT = [name for name in (*PRETRAINING, *OTHERS) if 'mim' in teachers(load(name))]


@pytest.mark.parametrize('name', TAUGHT)
def test_teacher_is_in_the_zoo(name: str) -> None:
    settings = teachers(load(name))['mim']
    zoo = Path(mmpretrain.__file__).parent / '.mim' / 'configs' / settings.family / 'metafile.yml'
    models = {
        Path(model['Weights']).name: model['Name']
        for model in yaml.safe_load(zoo.read_text())['Models']
        if model.get('Weights')
    }
    # By file name: the two stacks keep the same files at different addresses.
    model = models[Path(settings.checkpoint).name]
    assert model.startswith(f'{settings.family}_')  # pre-trained, not fine-tuned
    assert {'b': 'base', 'l': 'large'}[settings.arch] in model
    assert settings.arch in PAPER_ARCHS


@pytest.mark.parametrize('name', [name for name in TAUGHT if 'cl' in teachers(load(name))])
def test_second_teacher_is_the_file_that_timm_names(name: str) -> None:
    settings = teachers(load(name))['cl']
    entry = timm.get_pretrained_cfg(settings.name)
    own = f'https://huggingface.co/{entry.hf_hub_id}/resolve/main/model.safetensors'
    assert settings.checkpoint in (entry.url, own)
    assert ('QuickGELU' in ' '.join(entry.notes or ())) == ('quickgelu' in settings.name)
    assert entry.hf_hub_filename is None  # so the file is in timm's own naming


@pytest.mark.parametrize('case', [FLAGSHIP, OTHERS[-1]])
def test_teacher_of_the_zoo_takes_images_as_they_are(case: str) -> None:
    config = load(case)
    teacher = build(config).teachers['mim']
    # Both were trained with ImageNet's mean and std: mmpretrain's configs/mae and configs/beit.
    assert list(teacher.mean) == pytest.approx(config.model.data_preprocessor.mean)
    assert list(teacher.std) == pytest.approx(config.model.data_preprocessor.std)
