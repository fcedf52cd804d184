"""The configs: read, built without memory, and followed, for tests."""

from __future__ import annotations

import argparse
import copy
import functools
import re
import shlex
import tempfile
from collections.abc import Mapping
from pathlib import Path

import pytest
import torch
from mmengine.config import Config
from mmengine.optim import OptimWrapper, build_optim_wrapper
from mmengine.registry import MODELS, PARAM_SCHEDULERS, DefaultScope
from torch import nn

import hgkd_mm.detection
import hgkd_mm.engine
import hgkd_mm.models  # noqa: F401  (registers)
from hgkd_mm.utils.launch import add_config_flag, override

from .zoo import checkpoint_of

ROOT = Path(__file__).parents[2]
CONFIGS = ROOT / 'configs'
PAGES = ('pretraining', 'finetuning', 'detection', 'segmentation')
SCOPES = {'pretrain': 'mmpretrain', 'cls': 'mmpretrain', 'det': 'mmdet', 'seg': 'mmseg'}
FILES = sorted(
    str(path.relative_to(CONFIGS)) for task in SCOPES for path in CONFIGS.glob(f'{task}/*.py')
)
# The small ones on Scenes have networks and optimizations of their own.
BIG = [name for name in FILES if '_scenes' not in name]
PRETRAINING = [name for name in BIG if name.startswith('pretrain')]
TASKS = [name for name in BIG if not name.startswith('pretrain')]
# Width of the four maps of a CNN, width and depth of a transformer, by the name in the config's.
WIDTHS = {
    'r18': (64, 128, 256, 512),
    'r50': (256, 512, 1024, 2048),
    'r101': (256, 512, 1024, 2048),
    'mobilenet-v2': (24, 32, 96, 1280),
}
VITS = {'vit-b': (768, 12), 'vit-l': (1024, 24)}


def slow_if_large(cases: list[str]) -> list:
    """The cases as parameters, those of pre-trainings with a ViT-L with the mark."""
    large = [case for case in cases if re.match('pretrain.*(vit-l|arch=l)', case)]
    return [pytest.param(c, marks=pytest.mark.slow) if c in large else c for c in cases]


def page(name: str) -> str:
    return (ROOT / 'docs' / f'{name}.md').read_text()


def block(name: str, mark: str) -> str:
    """The code block of a page of docs/ that follows a comment."""
    return page(name).split(f'<!-- {mark} -->')[1].split('```')[1].split('\n', 1)[1]


def commands(name: str) -> list[list[str]]:
    """The words of every command in the shell blocks of a page of docs/."""
    blocks = re.findall(r'```bash\n(.*?)```', page(name), flags=re.DOTALL)
    lines = '\n'.join(blocks).replace('\\\n', ' ').splitlines()
    words = [shlex.split(line, comments=True) for line in lines]
    return [command for command in words if command]


def options(words: list[str]) -> dict:
    """What ``--cfg-options`` sets in the words of a command."""
    parser = argparse.ArgumentParser()
    add_config_flag(parser, example='')
    return parser.parse_args(words[words.index('--cfg-options') :]).cfg_options


@functools.cache
def _read(name: str) -> Config:
    return Config.fromfile(CONFIGS / name)


def load(case: str) -> Config:
    """A file's config, or as the docs' only command with an option changes it; one's own copy.

    Args:
        case: 'TASK/FILE', or 'TASK/FILE OPTION'.
    """
    name, _, option = case.partition(' ')
    config = copy.deepcopy(_read(name))  # reading takes a while with bases in other packages
    if option:
        known = [words for page in PAGES for words in commands(page) if option in words]
        (words,) = [words for words in known if f'configs/{name}' in words]
        override(config, options(words))
    return config


def student(case: str) -> str:
    """The key of a config's network in `WIDTHS` or `VITS`."""
    name, _, option = case.partition('.py')
    if depth := re.search(r'backbone\.depth=(\d+)', option):
        return f'r{depth[1]}'
    (found,) = [key for key in (*WIDTHS, *VITS) if re.search(rf'[_/]{key}_', f'{name}_')]
    return found


def teachers(config: Config) -> Mapping[str, dict]:
    return config.model.get('teachers') or {}


_built: dict[str, nn.Module] = {}


def build(config: Config) -> nn.Module:
    """The network without values, which is all that names and shapes need; equal ones once."""
    settings = copy.deepcopy(config.model)
    settings.backbone.pop('init_cfg', None)
    # Other networks and this project's models read values of tensors while they are built.
    vit = settings.backbone.type.endswith('VisionTransformer') and 'heads' not in settings
    key = repr(settings)
    if key not in _built:
        with tempfile.TemporaryDirectory() as folder:
            for name, teacher in (settings.get('teachers') or {}).items():
                teacher.checkpoint = str(checkpoint_of(teacher, Path(folder) / f'{name}.pth'))
            scope = DefaultScope.overwrite_default_scope(config.default_scope)
            with scope, torch.device('meta' if vit else 'cpu'):
                _built[key] = MODELS.build(settings).to('meta')
    return _built[key]


def settings_by_weight(model: nn.Module, config: Config) -> dict[str, dict]:
    """The optimizer's group of every trained weight by name."""
    with DefaultScope.overwrite_default_scope(config.default_scope):
        groups = build_optim_wrapper(model, config.optim_wrapper).optimizer.param_groups
    if 'layer_decay_rate' in config.optim_wrapper.get('paramwise_cfg', {}):
        # A group a tensor would make every step a loop over hundreds of kernels; ViT-L has 26
        # layers, with and without weight decay.
        assert len(groups) <= 52
    found = {id(p): group for group in groups for p in group['params']}
    assert len(found) == sum(len(group['params']) for group in groups)
    return {name: found[id(p)] for name, p in model.named_parameters() if p.requires_grad}


def follow(config: Config, *, steps_per_epoch: int = 1, scale: int = 1) -> dict[str, list[float]]:
    """What the schedules make of the optimizer's settings, step by step.

    Args:
        config: has the schedules.
        steps_per_epoch: of trainings that count epochs.
        scale: so many steps are made one, of trainings that count steps.

    Returns:
        ``lr`` as a share of its peak, ``decay`` (weight decay) of a weight with it, and ``exempt``
        of one without.
    """
    loop = config.train_cfg
    steps = loop.get('max_iters') or loop.max_epochs * steps_per_epoch
    decay = config.optim_wrapper.optimizer.weight_decay
    groups = [dict(params=[nn.Parameter(torch.zeros(1))], weight_decay=w) for w in (decay, 0.0)]
    wrapper = OptimWrapper(torch.optim.SGD(groups, lr=1.0))
    schedulers = []
    for settings in copy.deepcopy(config.param_scheduler):
        for key in {'begin', 'end'} & set(settings):
            assert settings[key] % scale == 0
            settings[key] //= scale
        if 'milestones' in settings:
            settings.milestones = [m // scale for m in settings.milestones]
        defaults = dict(optimizer=wrapper, epoch_length=steps_per_epoch)
        with DefaultScope.overwrite_default_scope(config.default_scope):
            schedulers.append(PARAM_SCHEDULERS.build(settings, default_args=defaults))
    decayed, exempt = wrapper.optimizer.param_groups
    seen = {'lr': [], 'decay': [], 'exempt': []}
    wrapper.step()
    for _ in range(steps // scale):
        seen['lr'].append(decayed['lr'])
        seen['decay'].append(decayed['weight_decay'])
        seen['exempt'].append(exempt['weight_decay'])
        for scheduler in schedulers:
            scheduler.step()
    return seen
