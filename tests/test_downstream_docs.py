"""The pages on the tasks: their commands and configs are read as a user's shell would."""

from __future__ import annotations

import math
import re
from pathlib import Path

import numpy as np
import pytest
import torch
from helpers.downstream import ALL, CONFIGS, build, commands, documented, follow, load
from helpers.tools import load_tool
from mmengine.config import Config
from mmengine.registry import DATASETS, DefaultScope
from PIL import Image

from hgkd_mm import train
from hgkd_mm.utils.launch import merge_args, place_run, scaled_iterations

ROOT = CONFIGS.parent
PAGES = ('finetuning', 'detection', 'segmentation')


def page(name: str) -> str:
    return (ROOT / 'docs' / f'{name}.md').read_text()


def config_of(path: str) -> Config:
    assert (ROOT / path).is_file(), path
    return load(str(Path(path).relative_to('configs')))


ALL_COMMANDS = [(name, command) for name in PAGES for command in commands(name)]
STARTS = [words for _, words in ALL_COMMANDS if 'make_subset' not in words[1]]


@pytest.mark.parametrize('words', STARTS, ids=' '.join)
def test_command(words: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv('LOCAL_RANK', '0')  # the tools would set it for good
    runner, script, *arguments = words
    assert runner == {'.sh': 'bash', '.py': 'python'}[Path(script).suffix]
    assert (ROOT / script).is_file()
    if Path(script).name == 'dist_train.sh':
        path, gpus, *flags = arguments
        args = train.parse_args([path, *flags])
    elif Path(script).name == 'dist_test.sh':
        path, checkpoint, gpus, *flags = arguments
        args = load_tool('test').parse_args([path, checkpoint, *flags])
    else:
        path, gpus = arguments[0], '1'
        args = load_tool('test').parse_args(arguments)
    assert gpus.isdigit()
    config = config_of(path)
    for key, value in (args.cfg_options or {}).items():
        # An option of a name that is not there would be taken, and change nothing.
        node = config
        for part in key.split('.')[:-1]:
            node = node[int(part)] if part.isdigit() else node[part]
        known = {'accumulative_counts'}
        assert key.split('.')[-1] in {*node, *known}, key
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
    ((words, options),) = [
        (words, {key: value for key, _, value in (w.partition('=') for w in words) if value})
        for page_name, words in ALL_COMMANDS
        if page_name == name and '--auto-scale-lr' in words
    ]
    config = config_of(words[2])
    images = int(words[3]) * config.train_dataloader.batch_size
    factor = config.auto_scale_lr.base_batch_size / images
    assert factor > 1
    expected = scaled_iterations(config, factor)
    assert options == {key: str(value).replace(' ', '') for key, value in expected.items()}
    # the same learning rates at the same images
    before = follow(config, scale=500)
    config.merge_from_dict(expected)
    after = follow(config, scale=500 * int(factor))
    assert len(after) == len(before) and after == pytest.approx(before)


def test_accumulated_steps_have_the_batch_and_the_averages_of_the_recipe() -> None:
    ((words, options),) = [
        (words, dict(word.split('=') for word in words if 'accumulative' in word or 'mom' in word))
        for name, words in ALL_COMMANDS
        if name == 'finetuning' and any('accumulative' in word for word in words)
    ]
    config = config_of(words[2])
    steps = int(options['optim_wrapper.accumulative_counts'])
    batch = int(words[3]) * config.train_dataloader.batch_size * steps
    assert batch == config.auto_scale_lr.base_batch_size
    # EMAHook follows every forward pass.
    momentum = float(options['custom_hooks.1.momentum'])
    decay = 1 - config.custom_hooks[1].momentum
    assert (1 - momentum) ** steps == pytest.approx(decay, abs=1e-7)


def test_lists_of_images_end_where_the_configs_look() -> None:
    text = page('finetuning')
    made = set(re.findall(r'meta/train_\d+pct\.txt', text))
    option = 'train_dataloader.dataset.ann_file=meta/train_10pct.txt'
    configs = (load('cls/r50_semi-1pct_in1k.py'), documented('finetuning', option))
    assert {config.train_dataloader.dataset.ann_file for config in configs} == made
    assert {' '.join(w[:3]) for _, w in ALL_COMMANDS if 'make_subset' in w[1]} == {
        'python tools/make_subset.py --list',
        'python tools/make_subset.py --share',
    }


@pytest.mark.parametrize('name', PAGES)
def test_transformers_are_compared_with_the_teacher_and_with_labels(name: str) -> None:
    key = 'model.backbone.init_cfg.checkpoint=https://'
    options = [word for words in commands(name) for word in words if word.startswith(key)]
    starts = {word.partition('=')[2] for word in options}
    teacher = load('pretrain/hgkd_r50_mae.py').model.teachers.mim.checkpoint
    (labels,) = starts - {teacher} or {None}
    assert teacher in starts and (labels is None) == (name == 'finetuning')
    assert labels is None or labels.endswith(
        '/deit-base_3rdparty_pt-16xb64_in1k_20211124-6f40c188.pth'
    )


@pytest.mark.parametrize('name', PAGES)
def test_configs_named_in_tables_exist(name: str) -> None:
    known = {Path(config).name for config in ALL}
    known |= {path.name for path in CONFIGS.glob('*/*_scenes.py')}
    named = set(re.findall(r'`(?:configs/\w+/)?([\w-]+_[\w.-]+\.py)`', page(name)))
    # '..._3x_coco.py' stands for the rest of the name before it.
    assert {n for n in named if not n.startswith('_') and '...' not in n} <= known


def own_config(name: str, folder: Path) -> Config:
    text = page(name).split('<!-- own -->')[1].split('```')[1].split('\n', 1)[1]
    task = {'finetuning': 'cls', 'detection': 'det', 'segmentation': 'seg'}[name]
    leaf = folder / 'leaf.py'
    leaf.write_text(text.replace("'./", f"'{CONFIGS}/{task}/"))
    return Config.fromfile(leaf)


@pytest.mark.parametrize('name', PAGES)
def test_own_data(name: str, tmp_path: Path) -> None:
    config = own_config(name, tmp_path)
    model = build(config)
    expected = {'finetuning': 17, 'detection': 2, 'segmentation': 3}[name]
    heads = {
        'finetuning': lambda m: [m.head],
        'detection': lambda m: [m.roi_head.bbox_head, m.roi_head.mask_head],
        'segmentation': lambda m: [m.decode_head, m.auxiliary_head],
    }[name](model)
    assert {head.num_classes for head in heads} == {expected}
    for loader in ('train_dataloader', 'val_dataloader', 'test_dataloader'):
        assert config[loader].dataset.data_root.startswith('data/') and 'coco' not in str(
            config[loader].dataset.data_root
        )


def test_own_classes_are_read(tmp_path: Path) -> None:
    config = own_config('finetuning', tmp_path)
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
