"""Every config under configs/pretrain: its header, its model at full size, its optimization."""

from __future__ import annotations

import argparse
import ast
import math
import re
import shlex
from collections.abc import Iterator
from pathlib import Path

import mmpretrain
import pytest
import timm
import torch
import yaml
from helpers.zoo import PAPER_ARCHS, checkpoint_of, full_arch
from mmengine.config import Config, DictAction
from mmengine.optim import build_optim_wrapper
from mmengine.registry import PARAM_SCHEDULERS, DefaultScope
from mmpretrain.registry import MODELS
from torch import nn

import hgkd_mm.engine  # noqa: F401  (registers)
from hgkd_mm.models import TIMMTeacher  # registers the models
from hgkd_mm.utils.launch import add_config_flag, load_config

CONFIGS = Path(__file__).parents[1] / 'configs' / 'pretrain'
FILES = sorted(path.stem for path in CONFIGS.glob('*.py'))


def code_of_the_docs(mark: str) -> str:
    """The code block of docs/pretraining.md that follows a comment, without its first line."""
    page = (CONFIGS.parents[1] / 'docs' / 'pretraining.md').read_text()
    return page.split(f'<!-- {mark} -->')[1].split('```')[1].split('\n', 1)[1]


def documented(mark: str) -> dict[str, list[str]]:
    """The options of the commands in a code block of the docs, by config and first option."""
    lines = code_of_the_docs(mark).replace('\\\n', ' ').splitlines()
    commands = [shlex.split(line) for line in lines]
    return {f'{Path(words[2]).stem} {words[5]}': words[4:] for words in commands}


# other students and teachers, which are options of the flagship
OTHERS = documented('students') | documented('teachers')
ALL = sorted([*FILES, *OTHERS])
CNNS = ('hgkd_', 'spark_', 'hybrid-hgkd_')
STUDENTS = [name for name in ALL if name.startswith(CNNS)]
TRANSFORMERS = [name for name in ALL if name.startswith('hybrid_')]
# Those at full scale. The ones on Scenes are small, with an optimization of their own.
BIG = [name for name in STUDENTS if not name.endswith('_scenes')]
TAUGHT = [name for name in BIG if name.startswith(('hgkd_', 'hybrid-hgkd_'))]
BIG_TRANSFORMERS = [name for name in TRANSFORMERS if not name.endswith('_scenes')]
WITH_A_HEADER = [name for name in STUDENTS + TRANSFORMERS if name in FILES]


@pytest.fixture(autouse=True)
def mmpretrain_scope() -> Iterator[None]:
    with DefaultScope.overwrite_default_scope('mmpretrain'):
        yield


def load(name: str) -> Config:
    if name not in OTHERS:
        return Config.fromfile(CONFIGS / f'{name}.py')
    parser = argparse.ArgumentParser()
    add_config_flag(parser, example='')
    options = parser.parse_args(OTHERS[name]).cfg_options
    return load_config(str(CONFIGS / f'{name.split()[0]}.py'), options)


def teachers(config: Config) -> dict[str, dict]:
    return {k: v for k, v in (config.model.get('teachers') or {}).items() if isinstance(v, dict)}


def build(config: Config, folder: Path) -> nn.Module:
    for key, teacher in teachers(config).items():
        teacher.checkpoint = str(checkpoint_of(teacher, folder / f'{key}.pth'))
    return MODELS.build(config.model)


def groups_by_weight(model: nn.Module, config: Config) -> dict[str, dict]:
    """The optimizer's group of every weight by name."""
    wrapper = build_optim_wrapper(model, config.optim_wrapper)
    settings = wrapper.optimizer.param_groups
    groups = {id(p): group for group in settings for p in group['params']}
    assert len(groups) == sum(len(group['params']) for group in settings)
    return {name: groups[id(p)] for name, p in model.named_parameters() if p.requires_grad}


def test_what_the_docs_name_is_there() -> None:
    options = ('backbone.depth=101', 'backbone.depth=18', 'teachers.mim.arch=l')
    names = {f'hgkd_r50_mae model.{o}' for o in (*options, 'teachers.mim.family=beit')}
    names |= {'hgkd_r50_mae', 'hgkd_r50_mae_folder', 'hgkd_mobilenet-v2_mae', 'spark_r50'}
    assert names <= set(BIG)


@pytest.mark.parametrize('name', WITH_A_HEADER)
def test_header(name: str) -> None:
    header = ast.get_docstring(ast.parse((CONFIGS / f'{name}.py').read_text()))
    fields = {line.split(':')[0] for line in header.splitlines() if ':' in line}
    assert {'Reproduces', 'Run', 'Hardware', 'Time', 'Metric'} <= fields
    assert f'configs/pretrain/{name}.py' in header


@pytest.mark.parametrize('name', WITH_A_HEADER)
def test_the_options_of_a_header_can_be_given(name: str) -> None:
    header = ast.get_docstring(ast.parse((CONFIGS / f'{name}.py').read_text()))
    parser = argparse.ArgumentParser()
    add_config_flag(parser, example='')
    for flag in re.findall(r'--cfg-options(?:\s+(?:"[^"]+"|[\w.]+=[^\s,;)]+))+', header):
        options = parser.parse_args(shlex.split(flag)).cfg_options
        load_config(str(CONFIGS / f'{name}.py'), options)
        for key, value in options.items():
            if key.endswith('checkpoint'):
                assert value == 'FILE'


@pytest.mark.parametrize('name', FILES)
def test_leaf_is_short(name: str) -> None:
    # The small ones carry model and schedule themselves, so that a reader needs one page.
    limit = 80 if name.endswith('_scenes') else 60
    assert len((CONFIGS / f'{name}.py').read_text().splitlines()) <= limit


@pytest.mark.parametrize('name', ALL)
def test_model_builds_at_full_size(name: str, tmp_path: Path) -> None:
    config = load(name)
    model = build(config, tmp_path)
    assert sum(p.numel() for p in model.parameters()) > 1e6
    for key, settings in teachers(config).items():
        teacher = model.teachers[key]
        assert not any(p.requires_grad for p in teacher.parameters())
        if settings.type != 'MIMTeacher':
            continue
        assert teacher.embed_dim == full_arch(settings.get('arch', 'b'))['embed_dims']
        assert len(teacher.vit.layers) == full_arch(settings.arch)['num_layers']
    assert not any('teacher' in key for key in model.state_dict())
    if config.get('train_dataloader'):
        step = config.train_dataloader.dataset.pipeline[1]
        crops = [view[0] for view in step.transforms] if step.type == 'MultiView' else [step]
        cell = config.model.get('mask', {}).get('cell', 16)
        assert all(crop.scale % cell == 0 for crop in crops)


@pytest.mark.parametrize('name', STUDENTS)
def test_backbone_has_the_maps_that_the_neck_wants(name: str, tmp_path: Path) -> None:
    config = load(name)
    model = build(config, tmp_path)
    model.eval()
    with torch.no_grad():
        maps = model.extract_feat(torch.zeros(1, 3, 64, 64))
    assert [64 // m.shape[-1] for m in maps] == [4, 8, 16, 32]
    assert tuple(m.shape[1] for m in maps) == model.neck.in_channels
    if 'sim' in config.model.heads:
        assert model.heads['sim'].in_channels == maps[-1].shape[1]


@pytest.mark.parametrize('name', BIG)
def test_optimizer_spares_norms_biases_and_mask_tokens(name: str, tmp_path: Path) -> None:
    config = load(name)
    model = build(config, tmp_path)
    groups = groups_by_weight(model, config)
    exempt = {n for n, p in model.named_parameters() if p.ndim == 1 or 'mask_token' in n}
    assert any('mask_token' in n for n in exempt)
    assert {n for n, group in groups.items() if group['weight_decay'] == 0} == exempt
    assert {g['weight_decay'] for n, g in groups.items() if n not in exempt} == {0.04}
    assert {round(g['lr'], 9) for g in groups.values()} == {1.6e-3}
    assert config.optim_wrapper.optimizer.max_grad_norm == config.optim_wrapper.clip_grad.max_norm


@pytest.mark.parametrize('name', ALL)
def test_schedules_end_with_the_training(name: str) -> None:
    config = load(name)
    by_epoch = [s for s in config.param_scheduler if s.by_epoch]
    last = [s for s in by_epoch if s.type.startswith('Cosine')]
    assert last
    assert {s.end for s in last} == {config.train_cfg.max_epochs}
    assert all(s.T_max == s.end - s.begin for s in last)


def follow(config: Config, *, steps_per_epoch: int) -> dict[str, list[float]]:
    """Learning rate and weight decay at each step, for one decayed and one exempt weight."""
    network = nn.Conv2d(2, 2, 1)
    wrapper = build_optim_wrapper(network, config.optim_wrapper)
    defaults = dict(optimizer=wrapper, epoch_length=steps_per_epoch)
    schedulers = [
        PARAM_SCHEDULERS.build(dict(s), default_args=defaults) for s in config.param_scheduler
    ]
    decayed, exempt = wrapper.optimizer.param_groups
    seen = {'lr': [], 'decay': [], 'exempt': []}
    for _ in range(config.train_cfg.max_epochs * steps_per_epoch):
        seen['lr'].append(decayed['lr'])
        seen['decay'].append(decayed['weight_decay'])
        seen['exempt'].append(exempt['weight_decay'])
        network(torch.zeros(1, 2, 1, 1)).sum().backward()
        wrapper.step()
        for scheduler in schedulers:
            scheduler.step()
    return seen


def test_learning_rate_and_weight_decay_follow_spark() -> None:
    peak, per_epoch = 2e-4 * 2048 / 256, 4
    seen = follow(load('hgkd_r50_mae'), steps_per_epoch=per_epoch)
    lr, warm = seen['lr'], 10 * per_epoch
    assert lr[0] == pytest.approx(0.005 * peak)
    assert lr[warm // 2] == pytest.approx(peak / 2, rel=0.05)
    assert max(lr) == pytest.approx(peak)
    assert abs(lr.index(max(lr)) - warm) <= 1
    middle = (warm + len(lr)) // 2
    assert lr[middle] == pytest.approx(peak * (0.001 + 0.999 / 2), rel=0.01)
    assert lr[-1] == pytest.approx(0.001 * peak, rel=0.05)
    total = len(lr)
    for step in (0, total // 4, total // 2, total - 1):
        expected = 0.2 - (0.2 - 0.04) * (1 + math.cos(math.pi * step / total)) / 2
        assert seen['decay'][step] == pytest.approx(expected, rel=1e-2)
    assert set(seen['exempt']) == {0.0}


def test_shorter_training_by_the_options_of_the_docs() -> None:
    options = code_of_the_docs('shorter').split('--cfg-options')[1]
    words = options.replace('\\', ' ').split()
    config = load('hgkd_r50_mae')
    config.merge_from_dict({k: int(v) for k, v in (word.split('=') for word in words)})
    assert config.train_cfg.max_epochs == 100
    seen = follow(config, steps_per_epoch=4)
    assert max(seen['lr']) == pytest.approx(1.6e-3)
    assert seen['lr'][-1] == pytest.approx(1.6e-6, rel=0.2)
    assert seen['decay'][-1] == pytest.approx(0.2, rel=1e-3)


def test_knn_is_on_and_one_option_drops_it() -> None:
    config = load('hgkd_r50_mae')
    assert [hook.type for hook in config.custom_hooks] == ['NonFiniteLossHook', 'KNNEvalHook']
    parser = argparse.ArgumentParser()
    parser.add_argument('--cfg-options', nargs='+', action=DictAction)
    config.merge_from_dict(parser.parse_args(['--cfg-options', 'custom_hooks=[]']).cfg_options)
    assert config.custom_hooks == []


@pytest.mark.parametrize('name', TAUGHT + BIG_TRANSFORMERS)
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


@pytest.mark.parametrize('name', ['hgkd_r50_mae', 'hgkd_r50_mae model.teachers.mim.family=beit'])
def test_teacher_of_the_zoo_takes_images_as_they_are(name: str, tmp_path: Path) -> None:
    teacher = build(load(name), tmp_path).teachers['mim']
    # Both were trained with ImageNet's mean and std: mmpretrain's configs/mae and configs/beit.
    images = torch.randn(1, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(images * teacher.scale + teacher.shift, images)


def test_timm_teacher_of_the_docs(tmp_path: Path) -> None:
    leaf = tmp_path / 'leaf.py'
    leaf.write_text(code_of_the_docs('timm').replace("'./", f"'{CONFIGS}/"))
    config = Config.fromfile(leaf)
    settings = config.model.teachers.mim
    settings.checkpoint = str(checkpoint_of(settings, tmp_path / 'teacher.pth'))
    teacher = MODELS.build(config.model).teachers['mim']
    assert isinstance(teacher, TIMMTeacher)
    assert teacher.grid((224, 224)) == (14, 14)


def test_spark_is_of_the_published_size(tmp_path: Path) -> None:
    model = build(load('spark_r50'), tmp_path)
    # mmpretrain configs/spark/metafile.yml: 37.97 M for ResNet-50
    assert sum(p.numel() for p in model.parameters()) / 1e6 == pytest.approx(37.97, abs=0.005)


def test_baseline_differs_in_the_target_only() -> None:
    ours, baseline = load('hgkd_r50_mae'), load('spark_r50')
    for key in ('optim_wrapper', 'param_scheduler', 'train_cfg', 'train_dataloader', 'randomness'):
        assert ours[key] == baseline[key]
    for key in ('backbone', 'mask', 'engine', 'data_preprocessor'):
        assert ours.model[key] == baseline.model[key]
    changed = {'out_stride'}
    assert {k for k, v in ours.model.neck.items() if baseline.model.neck[k] != v} == changed


@pytest.mark.parametrize('name', BIG + BIG_TRANSFORMERS)
def test_ranks_draw_their_own_masks(name: str) -> None:
    config = load(name)
    assert config.randomness.diff_rank_seed
    assert config.auto_scale_lr.base_batch_size == 8 * config.train_dataloader.batch_size == 2048


@pytest.mark.parametrize('name', [*BIG_TRANSFORMERS, 'hybrid-hgkd_r50_mae-dino'])
def test_second_teacher_is_the_file_that_timm_names(name: str) -> None:
    settings = teachers(load(name))['cl']
    entry = timm.get_pretrained_cfg(settings.name)
    own = f'https://huggingface.co/{entry.hf_hub_id}/resolve/main/model.safetensors'
    assert settings.checkpoint in (entry.url, own)
    assert ('QuickGELU' in ' '.join(entry.notes or ())) == ('quickgelu' in settings.name)
    assert entry.hf_hub_filename is None  # so the file is in timm's own naming


@pytest.mark.parametrize('name', BIG_TRANSFORMERS)
def test_layers_tokens_and_optimizer_of_a_transformer_student(name: str, tmp_path: Path) -> None:
    config = load(name)
    model = build(config, tmp_path)
    blocks = len(model.backbone.layers)
    assert model.masking.counts(196, blocks) == (137, 95, 66)
    assert model.layers == [blocks // 2 - 1, 3 * blocks // 4 - 1, blocks - 1]
    for teacher in model.teachers.values():
        assert teacher.grid((224, 224)) == (14, 14)
    groups = groups_by_weight(model, config)
    exempt = {n for n, p in model.named_parameters() if p.ndim == 1}
    exempt |= {'backbone.cls_token', 'backbone.pos_embed'}
    assert {n for n, group in groups.items() if group['weight_decay'] == 0} == exempt
    assert {round(g['lr'], 9) for g in groups.values()} == {1.2e-3}


def test_tinymims_schedule() -> None:
    per_epoch = 4
    seen = follow(load('hybrid_vit-b_mae-deit'), steps_per_epoch=per_epoch)
    lr, warm = seen['lr'], 15 * per_epoch
    assert max(lr) == pytest.approx(1.5e-4 * 2048 / 256)
    assert abs(lr.index(max(lr)) - warm) <= 1
    assert lr[(warm + len(lr)) // 2] == pytest.approx(max(lr) / 2, rel=0.01)
    assert lr[-1] < 1e-3 * max(lr)
    assert set(seen['decay']) == {0.05}
