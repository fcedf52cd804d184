"""The pages on training: their commands and configs are read as a user's shell would."""

from __future__ import annotations

import math
import re
from pathlib import Path

import numpy as np
import pytest
import torch
from helpers.configs import (
    CONFIGS,
    FILES,
    ROOT,
    block,
    build,
    commands,
    follow,
    load,
    options,
    page,
)
from helpers.tools import load_tool
from mmengine.config import Config
from mmengine.registry import DATASETS, DefaultScope
from PIL import Image

from hgkd_mm import train
from hgkd_mm.models import TIMMTeacher
from hgkd_mm.utils.launch import merge_args, place_run, scaled_iterations

TASKS = {'finetuning': 'cls', 'detection': 'det', 'segmentation': 'seg'}
STARTS = [words for name in TASKS for words in commands(name) if 'make_subset' not in words[1]]


def config_of(path: str) -> Config:
    return load(str(Path(path).relative_to('configs')))


def only(name: str, part: str) -> list[str]:
    """The words of the page's only command with a part."""
    (words,) = [words for words in commands(name) if any(part in word for word in words)]
    return words


@pytest.mark.parametrize('words', STARTS, ids=' '.join)
def test_command(words: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv('LOCAL_RANK', '0')  # the tools would set it for good
    runner, script, path, *arguments = words
    assert runner == {'.sh': 'bash', '.py': 'python'}[Path(script).suffix]
    assert (ROOT / script).is_file()
    if Path(script).stem == 'dist_train':
        gpus, *flags = arguments
        args = train.parse_args([path, *flags])
    elif Path(script).stem == 'dist_test':
        checkpoint, gpus, *flags = arguments
        args = load_tool('test').parse_args([path, checkpoint, *flags])
    else:
        gpus, args = '1', load_tool('test').parse_args([path, *arguments])
    assert gpus.isdigit()
    config = config_of(path)
    for key, value in (args.cfg_options or {}).items():
        # An option of a name that is not there would be taken, and change nothing.
        node = config
        for part in key.split('.')[:-1]:
            node = node[int(part)] if part.isdigit() else node[part]
        assert key.split('.')[-1] in {*node, 'accumulative_counts'}, key
        config.merge_from_dict({key: value})
    if 'train' in script:
        place_run(config, args)
        merge_args(config, args)
    else:
        # The file that is tested is the one that the training ends with.
        loop = config.train_cfg
        last = f'iter_{loop.max_iters}' if 'max_iters' in loop else f'epoch_{loop.max_epochs}'
        assert args.checkpoint == f'work_dirs/{Path(path).stem}/{last}.pth'


@pytest.mark.parametrize('name', ['detection', 'segmentation'])
def test_fewer_gpus_see_as_many_images(name: str) -> None:
    words = only(name, '--auto-scale-lr')
    config = config_of(words[2])
    images = int(words[3]) * config.train_dataloader.batch_size
    factor = config.auto_scale_lr.base_batch_size / images
    assert factor > 1
    expected = scaled_iterations(config, factor)
    assert options(words) == expected
    # the same learning rates at the same images
    before = follow(config, scale=500)['lr']
    config.merge_from_dict(expected)
    after = follow(config, scale=500 * int(factor))['lr']
    assert len(after) == len(before) and after == pytest.approx(before)


def test_accumulated_steps_have_the_batch_and_the_averages_of_the_recipe() -> None:
    words = only('finetuning', 'accumulative')
    config, given = config_of(words[2]), options(words)
    steps = given['optim_wrapper.accumulative_counts']
    batch = int(words[3]) * config.train_dataloader.batch_size * steps
    assert batch == config.auto_scale_lr.base_batch_size
    # EMAHook follows every forward pass.
    momentum = given['custom_hooks.1.momentum']
    decay = 1 - config.custom_hooks[1].momentum
    assert (1 - momentum) ** steps == pytest.approx(decay, abs=1e-7)


def test_lists_of_images_end_where_the_configs_look() -> None:
    made = set(re.findall(r'meta/train_\d+pct\.txt', page('finetuning')))
    name = 'cls/r50_semi-1pct_in1k.py'
    other = f'{name} train_dataloader.dataset.ann_file=meta/train_10pct.txt'
    assert {load(case).train_dataloader.dataset.ann_file for case in (name, other)} == made


@pytest.mark.parametrize('name', TASKS)
def test_configs_named_in_tables_exist(name: str) -> None:
    known = {Path(config).name for config in FILES}
    named = set(re.findall(r'`(?:configs/\w+/)?([\w-]+_[\w.-]+\.py)`', page(name)))
    # '..._3x_coco.py' stands for the rest of the name before it.
    assert {n for n in named if not n.startswith('_') and '...' not in n} <= known


# -- configs of one's own -------------------------------------------------------------------------


def own_config(name: str, mark: str, folder: Path) -> Config:
    leaf = folder / 'leaf.py'
    text = block(name, mark)
    leaf.write_text(text.replace("'./", f"'{CONFIGS}/{TASKS.get(name, 'pretrain')}/"))
    return Config.fromfile(leaf)


def test_own_teacher(tmp_path: Path) -> None:
    teacher = build(own_config('pretraining', 'timm', tmp_path)).teachers['mim']
    assert isinstance(teacher, TIMMTeacher)
    assert teacher.grid((224, 224)) == (14, 14)


@pytest.mark.parametrize(
    ('name', 'heads', 'classes'),
    [
        ('finetuning', ['head'], 17),
        ('detection', ['roi_head.bbox_head', 'roi_head.mask_head'], 2),
        ('segmentation', ['decode_head', 'auxiliary_head'], 3),
    ],
)
def test_own_data(name: str, heads: list[str], classes: int, tmp_path: Path) -> None:
    config = own_config(name, 'own', tmp_path)
    model = build(config)
    assert {model.get_submodule(head).num_classes for head in heads} == {classes}
    for loader in ('train_dataloader', 'val_dataloader', 'test_dataloader'):
        folder = config[loader].dataset.data_root
        assert folder.startswith('data/') and 'coco' not in folder


def test_own_classes_are_read(tmp_path: Path) -> None:
    config = own_config('finetuning', 'own', tmp_path)
    logits, target = torch.zeros(2, 17), torch.tensor([0, 1])
    loss = build(config).head.loss_module(logits, target, avg_factor=2)
    assert loss.item() == pytest.approx(math.log(2))  # the mean of the classes
    for split in ('train', 'val'):
        for name in ('rose', 'tulip'):
            folder = tmp_path / 'flowers' / split / name
            folder.mkdir(parents=True)
            Image.fromarray(np.zeros((40, 50, 3), np.uint8)).save(folder / 'a.jpg')
    with DefaultScope.overwrite_default_scope('mmpretrain'):
        for loader in (config.train_dataloader, config.val_dataloader):
            loader.dataset.data_root = str(tmp_path / 'flowers')
            dataset = DATASETS.build(loader.dataset)
            assert [dataset[i]['data_samples'].gt_label.item() for i in range(2)] == [0, 1]
            assert dataset[0]['inputs'].shape == (3, 224, 224)
